//! Data flow of a body: for each instruction, what it reads and which instruction wrote it.

use plan::{Body, Class, Plan, Slice};

/// A slice that an instruction reads.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The instruction that wrote it last; none for what was there before the program began.
    pub writer: Option<usize>,
    pub slice: Slice,
}

/// One list for each instruction, in the order of its operands. A slice that several instructions wrote in parts is
/// listed once for each, with the part that each wrote.
pub fn reads(plan: &Plan, class: &Class, body: &Body) -> Vec<Vec<Read>> {
    let mut writes: Vec<Vec<(Slice, usize)>> = vec![vec![]; class.persistent.len() + body.buffers.len()];
    let mut out = Vec::with_capacity(body.instructions.len());
    for (index, instruction) in body.instructions.iter().enumerate() {
        let touches = instruction.op.touches(|k| plan.accesses(k));
        let mut reads = vec![];
        for (slice, _) in touches.iter().filter(|(_, access)| access.reads()) {
            let known = writes.get(slice.buffer.index()).map_or(&[][..], Vec::as_slice);
            writers(known, *slice, &mut reads);
        }
        for (slice, _) in touches.iter().filter(|(_, access)| access.writes()) {
            if let Some(list) = writes.get_mut(slice.buffer.index()) {
                if slice.offset == 0 && body.buffer(class, slice.buffer).is_some_and(|b| slice.bytes >= b.bytes) {
                    list.clear();
                }
                list.push((*slice, index));
            }
        }
        out.push(reads);
    }
    out
}

/// Looks from the latest write back until the slice is covered.
fn writers(known: &[(Slice, usize)], slice: Slice, out: &mut Vec<Read>) {
    let (mut from, mut to) = (slice.offset, slice.offset.saturating_add(slice.bytes));
    for (written, writer) in known.iter().rev() {
        let start = written.offset.max(from);
        let end = written.offset.saturating_add(written.bytes).min(to);
        if start >= end {
            continue;
        }
        out.push(Read { writer: Some(*writer), slice: Slice { offset: start, bytes: end - start, ..slice } });
        match (start == from, end == to) {
            (true, true) => return,
            (true, false) => from = end,
            (false, true) => to = start,
            (false, false) => {}
        }
    }
    out.push(Read { writer: None, slice: Slice { offset: from, bytes: to - from, ..slice } });
}

#[cfg(test)]
mod tests {
    use super::*;
    use plan::sample;

    #[test]
    fn each_read_knows_its_writer() {
        let plan = sample::grid();
        let (class, body) = (&plan.classes[0], &plan.programs[0].bodies[0]);
        let drawn: Vec<String> = reads(&plan, class, body)
            .iter()
            .enumerate()
            .filter(|(_, reads)| !reads.is_empty())
            .map(|(i, reads)| {
                let from = |r: &Read| r.writer.map_or_else(|| format!("{}", r.slice.buffer), |w| format!("#{w}"));
                format!("#{i} <- {}", reads.iter().map(from).collect::<Vec<_>>().join(" "))
            })
            .collect();
        insta::assert_snapshot!(drawn.join("\n"));
    }

    #[test]
    fn a_slice_written_in_parts_has_several_writers() {
        let slice = |offset, bytes| Slice { buffer: plan::BufferId(0), offset, bytes };
        let mut found = vec![];
        writers(&[(slice(0, 64), 1), (slice(0, 16), 2), (slice(48, 16), 3)], slice(8, 56), &mut found);
        let parts: Vec<_> = found.iter().map(|r| (r.writer, r.slice.offset, r.slice.bytes)).collect();
        assert_eq!(parts, [(Some(3), 48, 16), (Some(2), 8, 8), (Some(1), 16, 32)]);
    }
}
