//! Phases of a program: forward is what the loss needs, backward what the gradients need besides, and the optimiser the rest.

use std::collections::HashMap;

use plan::{Body, BufferKind, Class, CollectKind, Op, Plan, When};

use super::flow::Read;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Forward,
    Backward,
    Optimiser,
}

impl Phase {
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::Optimiser => "optimiser",
        }
    }
}

/// For each class, the phase of each instruction.
pub fn phases(plan: &Plan, parts: &[(&Class, &Body)], reads: &[Vec<Vec<Read>>]) -> Vec<Vec<Phase>> {
    let flow = Flow { parts, reads, sends: sends(parts) };
    let none = || -> Marks { parts.iter().map(|(_, body)| vec![false; body.instructions.len()]).collect() };
    let (mut gradients, mut forward) = (none(), none());
    let writes = |c: usize, index: usize| {
        let (class, body) = parts[c];
        let touches = body.instructions[index].op.touches(|k| plan.accesses(k));
        let gradient = |s: &plan::Slice| body.buffer(class, s.buffer).is_some_and(|b| b.kind == BufferKind::Gradient);
        touches.iter().any(|(slice, access)| access.writes() && gradient(slice))
    };
    let shown = |index: usize, body: &Body| match &body.instructions[index].op {
        Op::Emit { emit, .. } => plan.manifest.emits.get(emit.index()).is_some_and(|e| e.when == When::Always),
        _ => false,
    };
    let all: Vec<(usize, usize)> =
        parts.iter().enumerate().flat_map(|(c, (_, body))| (0..body.instructions.len()).map(move |i| (c, i))).collect();
    let made: Vec<(usize, usize)> = all.iter().copied().filter(|&(c, i)| writes(c, i)).collect();
    for &(c, index) in all.iter().filter(|&&(c, i)| shown(i, parts[c].1)) {
        let mut needed = none();
        flow.mark((c, index), &mut needed);
        // What shows a gradient, its norm for one, is no result of the forward.
        if !made.iter().any(|&(c, i)| needed[c][i]) {
            flow.mark((c, index), &mut forward);
        }
    }
    made.iter().for_each(|&at| flow.mark(at, &mut gradients));
    let phase = |&(c, i): &(usize, usize)| match (made.is_empty() || forward[c][i], gradients[c][i]) {
        (true, _) => Phase::Forward,
        (false, true) => Phase::Backward,
        (false, false) => Phase::Optimiser,
    };
    let mut phases = all.iter().map(phase);
    parts.iter().map(|(_, body)| phases.by_ref().take(body.instructions.len()).collect()).collect()
}

/// One flag for each class and instruction.
type Marks = Vec<Vec<bool>>;

struct Flow<'a> {
    parts: &'a [(&'a Class, &'a Body)],
    reads: &'a [Vec<Vec<Read>>],
    /// Where a message starts: class and instruction by the collective's id.
    sends: HashMap<u32, (usize, usize)>,
}

impl Flow<'_> {
    /// Marks an instruction and all that it needs, over all classes.
    fn mark(&self, root: (usize, usize), marks: &mut Marks) {
        let mut open = vec![root];
        while let Some((c, index)) = open.pop() {
            if std::mem::replace(&mut marks[c][index], true) {
                continue;
            }
            open.extend(self.reads[c][index].iter().filter_map(|r| r.writer).map(|w| (c, w)));
            if let Op::Collect(collect) = &self.parts[c].1.instructions[index].op
                && matches!(collect.kind, CollectKind::Receive { .. })
            {
                open.extend(self.sends.get(&collect.id));
            }
        }
    }
}

fn sends(parts: &[(&Class, &Body)]) -> HashMap<u32, (usize, usize)> {
    let mut sends = HashMap::new();
    for (c, (_, body)) in parts.iter().enumerate() {
        for (index, instruction) in body.instructions.iter().enumerate() {
            if let Op::Collect(collect) = &instruction.op
                && matches!(collect.kind, CollectKind::Send { .. })
            {
                sends.insert(collect.id, (c, index));
            }
        }
    }
    sends
}
