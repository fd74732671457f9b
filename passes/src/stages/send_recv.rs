//! Messages between the ranks of a pipeline. A value is sent once to each rank that reads it.

use std::collections::{BTreeMap, HashSet};

use cost::{Layout, Timeline};
use plan::{BufferId, Collect, CollectKind, Op, Phase, Slice};
use program::{Origin, Update};

use super::assign::Assigned;
use super::dependence::{Dataflow, Dependence};
use super::units::{Beside, During, When};

/// The instructions of a rank, and when it first reads each buffer.
pub struct Uses {
    /// In the order of the program.
    pub own: Vec<Own>,
    /// By buffer.
    first: Vec<Option<When>>,
    /// By buffer: the first phase that reads it, and the micro-batch.
    readers: Vec<(Phase, Option<u32>)>,
    /// Ids of collectives that other ranks may execute for themselves too.
    pub shared: HashSet<u32>,
}

/// An instruction that a rank executes.
pub struct Own {
    pub when: When,
    /// In the program of one rank.
    pub index: usize,
    /// What several ranks execute for themselves is of the phase in which each reads it.
    pub phase: Phase,
}

/// The instructions of a rank's stages, and those whose results they read and that each rank executes for itself.
pub fn uses(
    flow: &Dataflow<'_>,
    assigned: &Assigned,
    whens: &[Option<When>],
    (rank, layout): (usize, &Layout),
) -> Uses {
    let readers = vec![(Phase::Update, None); flow.buffers()];
    let mut uses = Uses { own: vec![], first: vec![None; flow.buffers()], readers, shared: HashSet::new() };
    for &Update { value, home } in &flow.program.updates {
        if assigned.homes[home.index()].is_none_or(|stage| layout.rank_of[stage] == rank) {
            uses.first[value.buffer.index()] = Some(When::END);
        }
    }
    for i in (0..flow.len()).rev() {
        let when = match (assigned.stages[i], whens[i]) {
            (Some(stage), Some(when)) if layout.rank_of[stage] == rank => Some(when),
            (None, _) if flow.dependences[i] != Dependence::Data => {
                let reader = flow.writes(i).filter_map(|s| uses.first[s.buffer.index()]).min();
                reader.map(|reader| When { during: reader.during, index: i, beside: Beside::Itself })
            }
            _ => None,
        };
        let Some(when) = when else { continue };
        let Origin { phase, microbatch, .. } = flow.origin(i);
        let phase = match assigned.stages[i] {
            Some(_) => phase,
            None => flow.writes(i).map(|s| uses.readers[s.buffer.index()].0).min().unwrap_or(phase),
        };
        uses.own.push(Own { when, index: i, phase });
        if let (Op::Collect(collect), None) = (flow.op(i), assigned.stages[i]) {
            uses.shared.insert(collect.id);
        }
        for slice in flow.reads(i) {
            let first = &mut uses.first[slice.buffer.index()];
            *first = Some(first.map_or(when, |first| first.min(when)));
            let reader = &mut uses.readers[slice.buffer.index()];
            *reader = (phase, microbatch).min(*reader);
        }
    }
    uses.own.reverse();
    uses
}

/// A message: values that are sent together.
pub struct Message {
    pub from: usize,
    pub to: usize,
    pub values: Vec<BufferId>,
    /// The first phase, and the micro-batch, that reads any of them.
    pub phase: Phase,
    pub microbatch: Option<u32>,
    pub sent: When,
    pub received: When,
}

/// All messages, those of a sender and a receiver in the order in which both execute them.
///
/// One message carries what one unit writes for one unit of another rank. Values for a later unit are sent separately, since
/// they may depend on an answer to the first. Before and after the micro-batches, one message carries the values of one level.
pub fn messages(
    flow: &Dataflow<'_>,
    assigned: &Assigned,
    whens: &[Option<When>],
    uses_of: &[Uses],
    layout: &Layout,
) -> Vec<Message> {
    let mut made: Vec<When> = vec![When::BEGIN; flow.buffers()];
    for (i, when) in whens.iter().enumerate() {
        for slice in flow.writes(i) {
            let made = &mut made[slice.buffer.index()];
            *made = when.unwrap_or(When::BEGIN).max(*made);
        }
    }
    let mut messages: BTreeMap<(usize, usize, During, During), Message> = BTreeMap::new();
    for (buffer, home) in assigned.homes.iter().enumerate() {
        let Some(stage) = home else { continue };
        let from = layout.rank_of[*stage];
        for (to, uses) in uses_of.iter().enumerate().filter(|(to, _)| *to != from) {
            let Some(first) = uses.first[buffer] else { continue };
            let sent = When { beside: Beside::After, ..made[buffer] };
            let received = first.a_unit_earlier();
            let read = if matches!(sent.during, During::Unit(_)) { first.during } else { sent.during };
            let key = (from, to, sent.during, read);
            let (phase, microbatch) = uses.readers[buffer];
            let message =
                messages.entry(key).or_insert(Message { from, to, values: vec![], phase, microbatch, sent, received });
            message.phase = message.phase.min(phase);
            message.values.push(BufferId::new(buffer));
            message.sent = message.sent.max(sent);
            message.received = message.received.min(received);
        }
    }
    let mut messages: Vec<Message> = messages.into_values().collect();
    messages.sort_by_key(|m| (m.from, m.to, m.sent));
    for i in (1..messages.len()).rev() {
        let next = (messages[i].from, messages[i].to, messages[i].received);
        let message = &mut messages[i - 1];
        if (message.from, message.to) == (next.0, next.1) {
            message.received = message.received.min(next.2);
        }
    }
    messages
}

impl Message {
    /// The first unit of the sender that starts when the receiver is ready for the message, by the played timeline. The sender
    /// waits there for its send. Waits follow the timeline, so they never form a cycle between ranks.
    pub fn settled(&self, timeline: &Timeline) -> Option<u32> {
        let ready = match self.received.during {
            During::Begin(_) => f64::NEG_INFINITY,
            During::Unit(at) => timeline.ranks[self.to].get(at)?.start,
            During::End(_) => return None,
        };
        let after = match self.sent.during {
            During::Begin(_) => 0,
            During::Unit(at) => at + 1,
            During::End(_) => return None,
        };
        let units = timeline.ranks[self.from].iter().enumerate().skip(after);
        let mut units = units.filter(|(_, span)| span.start > ready);
        units.next().map(|(at, _)| During::Unit(at).number())
    }

    /// The instruction of the sender or the receiver; `values` are the buffers there.
    pub fn collect(&self, id: u32, flow: &Dataflow<'_>, sends: bool, values: &[BufferId]) -> Collect {
        let slices = self.values.iter().zip(values);
        let slices: Vec<Slice> = slices.map(|(v, here)| Slice::whole(*here, flow.buffer(*v).bytes)).collect();
        let (peer, why) = (if sends { self.to } else { self.from }, format!("stages on {} of pp read it", self.to));
        let (kind, from, to) = if sends {
            (CollectKind::Send { peer: (peer as i64).into() }, slices, vec![])
        } else {
            (CollectKind::Receive { peer: (peer as i64).into() }, vec![], slices)
        };
        Collect { id, kind, group: vec!["pp".into()], from, to, why: why.into() }
    }
}
