//! Lives: no two buffers that live at the same time share bytes, and nothing touches a buffer outside its life.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::violation::{Findings, Rule};
use crate::{Buffer, Life, Plan, ResidencyId, Scope};

pub fn check(scope: Scope<'_>, findings: &mut Findings) {
    apart(scope.present().chain(&scope.body.buffers), findings);
    inside(scope, findings);
}

/// The buffers of each residency beside those that always live, also where no program runs in it.
pub fn of_residencies(plan: &Plan, findings: &mut Findings) {
    for class in &plan.classes {
        for (r, residency) in plan.residencies.iter().enumerate() {
            findings.scope = format!("residency {}, {}", residency.name, class.name);
            let id = Some(ResidencyId::new(r));
            apart(class.persistent.iter().filter(|b| b.is_there(id)), findings);
        }
    }
    findings.scope.clear();
}

/// A sweep over time that keeps the living buffers by offset: a newcomer can only clash with its neighbours.
fn apart<'p>(buffers: impl Iterator<Item = &'p Buffer>, findings: &mut Findings) {
    let span = |b: &Buffer| match b.life {
        Life::Persistent | Life::Resident(_) => (0, u32::MAX),
        Life::Span { first, last } => (first, last),
    };
    let end = |b: &Buffer| b.address() + b.bytes;
    let mut order: Vec<&Buffer> = buffers.filter(|b| b.bytes > 0).collect();
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

fn inside(scope: Scope<'_>, findings: &mut Findings) {
    for (index, instruction) in scope.body.instructions.iter().enumerate() {
        for (slice, _) in instruction.op.slices(|k| scope.plan.accesses(k)) {
            if let Some(Buffer { name, life: Life::Span { first, last }, .. }) = scope.buffer(slice.buffer)
                && !(*first as usize..=*last as usize).contains(&index)
            {
                let who = scope.describe(index);
                findings.add(Rule::Life, format!("{who} touches `{name}`, which lives from #{first} to #{last}"));
            }
        }
    }
}
