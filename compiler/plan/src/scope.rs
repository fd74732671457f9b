//! A scope: what the ids in a body refer to.

use crate::{Body, Buffer, BufferId, Class, Op, Plan, Program};

/// One program's body for one class, with all that its ids are indices into.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'p> {
    pub plan: &'p Plan,
    pub program: &'p Program,
    pub class: &'p Class,
    pub body: &'p Body,
}

impl<'p> Scope<'p> {
    pub fn buffer(&self, id: BufferId) -> Option<&'p Buffer> {
        self.body.buffer(self.class, id)
    }

    /// The persistent buffers that are in the arena while the program runs.
    pub fn present(&self) -> impl Iterator<Item = &'p Buffer> + use<'p> {
        let residency = self.program.residency;
        self.class.persistent.iter().filter(move |b| b.is_there(residency))
    }

    /// An instruction with its place, for messages: `#12 k3 matmul(b0 b1 -> b2) at wan2.2.mm:10:9`.
    pub fn describe(&self, index: usize) -> String {
        let Some(instruction) = self.body.instructions.get(index) else { return format!("#{index}") };
        let mut text = format!("#{index} {}", crate::text::operation(*self, &instruction.op));
        if let Some(place) = self.plan.places.get(instruction.place.index()) {
            text.push_str(&format!(" at {place}"));
        }
        text
    }

    /// What timelines call an instruction: `k3_matmul`, `c4 all_gather`; ids out of range leave the name out.
    pub fn title(&self, op: &Op) -> String {
        match op {
            Op::Launch(l) => self.plan.kernels.get(l.kernel.index()).map(|k| k.symbol.to_string()).unwrap_or_default(),
            Op::Collect(collect) => format!("c{} {}", collect.id, collect.kind.name()),
            Op::Copy { .. } => "copy".into(),
            Op::Record { event } => format!("record {event}"),
            Op::Wait { event } => format!("wait {event}"),
            Op::Feed { feed, .. } => format!("feed {}", self.program.feeds.get(feed.index()).map_or("", |f| &f.name)),
            Op::Emit { emit, .. } => format!("emit {}", self.program.emits.get(emit.index()).map_or("", |e| &e.name)),
        }
    }
}
