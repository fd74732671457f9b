//! Lives: no two buffers that live at the same time share bytes, and nothing touches a buffer outside its life.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::violation::{Findings, Rule, describe};
use crate::{Body, Buffer, Class, Life, Plan};

pub fn check(plan: &Plan, class: &Class, body: &Body, findings: &mut Findings) {
    apart(class, body, findings);
    inside(plan, class, body, findings);
}

/// A sweep over time that keeps the living buffers by offset: a newcomer can only clash with its neighbours.
fn apart(class: &Class, body: &Body, findings: &mut Findings) {
    let span = |b: &Buffer| match b.life {
        Life::Persistent => (0, u32::MAX),
        Life::Span { first, last } => (first, last),
    };
    let end = |b: &Buffer| b.address() + b.bytes;
    let mut order: Vec<&Buffer> = body.all_buffers(class).map(|(_, b)| b).filter(|b| b.bytes > 0).collect();
    order.sort_by_key(|b| (span(b).0, b.address()));
    let mut living: BTreeMap<u64, &Buffer> = BTreeMap::new();
    let mut deaths: BinaryHeap<Reverse<(u32, u64)>> = BinaryHeap::new();
    for buffer in order {
        let (first, last) = span(buffer);
        while let Some(&Reverse((end, offset))) = deaths.peek()
            && end < first
        {
            deaths.pop();
            living.remove(&offset);
        }
        let below = living.range(..=buffer.address()).next_back().filter(|(_, b)| end(b) > buffer.address());
        let above = living.range(buffer.address()..end(buffer)).next();
        if let Some((_, other)) = below.or(above) {
            let shared = format!("{}..{}", buffer.offset.max(other.offset), buffer.end().min(other.end()));
            let message = format!(
                "`{}` and `{}` live at the same time and share bytes {shared} of the arena",
                other.name, buffer.name
            );
            findings.add(Rule::Life, message);
            continue;
        }
        living.insert(buffer.address(), buffer);
        deaths.push(Reverse((last, buffer.address())));
    }
}

fn inside(plan: &Plan, class: &Class, body: &Body, findings: &mut Findings) {
    for (index, instruction) in body.instructions.iter().enumerate() {
        for (slice, _) in instruction.op.slices(|k| plan.accesses(k)) {
            if let Some(Buffer { name, life: Life::Span { first, last }, .. }) = body.buffer(class, slice.buffer)
                && !(*first as usize..=*last as usize).contains(&index)
            {
                let who = describe(plan, class, body, index);
                findings.add(Rule::Life, format!("{who} touches `{name}`, which lives from #{first} to #{last}"));
            }
        }
    }
}
