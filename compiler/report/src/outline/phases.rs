//! Phases of a program: forward is what the loss needs, backward what the gradients need besides, and the optimiser the rest.

use std::collections::{HashMap, HashSet};

use plan::{Body, BufferKind, Class, Collect, CollectKind, Op, Plan, When};

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
    /// Marks an instruction and all that it needs, over all classes. Of a message, that is what was read of it alone: its
    /// values have nothing else in common.
    fn mark(&self, root: (usize, usize), marks: &mut Marks) {
        let (mut open, mut taken) = (vec![], HashSet::new());
        let reads = |(c, index): (usize, usize)| self.reads[c][index].iter().map(move |read| (c, *read));
        if !std::mem::replace(&mut marks[root.0][root.1], true) {
            open.extend(reads(root));
        }
        while let Some((c, read)) = open.pop() {
            let Some(writer) = read.writer else { continue };
            let send = self.received(c, writer).and_then(|message| Some((message, *self.sends.get(&message.id)?)));
            let before = std::mem::replace(&mut marks[c][writer], true);
            let Some((received, send)) = send else {
                if !before {
                    open.extend(reads((c, writer)));
                }
                continue;
            };
            marks[send.0][send.1] = true;
            let Op::Collect(sent) = &self.parts[send.0].1.instructions[send.1].op else { continue };
            for (_, from) in received.to.iter().zip(&sent.from).filter(|(to, _)| to.buffer == read.slice.buffer) {
                if taken.insert((send, from.buffer)) {
                    open.extend(reads(send).filter(|(_, r)| r.slice.buffer == from.buffer));
                }
            }
        }
    }

    /// What an instruction receives from another rank.
    fn received(&self, class: usize, index: usize) -> Option<&Collect> {
        match &self.parts[class].1.instructions[index].op {
            Op::Collect(collect) if matches!(collect.kind, CollectKind::Receive { .. }) => Some(collect),
            _ => None,
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
