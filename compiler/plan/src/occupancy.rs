//! What lives when: the bytes that a program's buffers hold at each of its instructions, and who made them.

use smallvec::SmallVec;

use crate::{Body, Buffer, BufferId, BufferKind, Class, Life, Plan, Scope};

/// By instruction: the bytes of the program's own buffers of these kinds that live then on the device.
pub fn occupancy(body: &Body, kinds: &[BufferKind]) -> Vec<u64> {
    let count = body.instructions.len();
    let mut change = vec![0i128; count + 1];
    for buffer in body.buffers.iter().filter(|b| kinds.contains(&b.kind) && !b.on_host()) {
        if let Life::Span { first, last } = buffer.life
            && (last as usize) < count
            && first <= last
        {
            change[first as usize] += i128::from(buffer.bytes);
            change[last as usize + 1] -= i128::from(buffer.bytes);
        }
    }
    let mut now = 0;
    let live = change[..count].iter().map(|c| {
        now += c;
        u64::try_from(now).unwrap_or(u64::MAX)
    });
    live.collect()
}

/// The moment at which the most lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fullest {
    /// The first such instruction.
    pub instruction: usize,
    /// All that lives then on the device, persistent buffers included: no arena for these lives is smaller.
    pub bytes: u64,
}

pub fn fullest(scope: Scope<'_>) -> Fullest {
    let persistent = scope.present().filter(|b| !b.on_host()).map(|b| b.bytes).fold(0, u64::saturating_add);
    let live = occupancy(scope.body, &BufferKind::ALL);
    let most = live.iter().copied().max().unwrap_or(0);
    let instruction = live.iter().position(|bytes| *bytes == most).unwrap_or(0);
    Fullest { instruction, bytes: persistent.saturating_add(most) }
}

/// What neither another order of instructions nor recomputation nor offloading brings lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Least {
    pub parameters: u64,
    /// The instruction that touches the most besides.
    pub instruction: usize,
    pub operands: u64,
}

impl Least {
    pub const fn bytes(self) -> u64 {
        self.parameters.saturating_add(self.operands)
    }
}

pub fn least(scope: Scope<'_>) -> Least {
    let stays = |b: &Buffer| b.kind == BufferKind::Parameter && !b.on_host();
    let parameters = scope.present().filter(|b| stays(b)).map(|b| b.bytes).fold(0, u64::saturating_add);
    let mut least = Least { parameters, ..Least::default() };
    for (i, instruction) in scope.body.instructions.iter().enumerate() {
        let mut touched: SmallVec<[(BufferId, u64); 16]> = SmallVec::new();
        for (slice, _) in instruction.op.slices(|kernel| scope.plan.accesses(kernel)) {
            if scope.buffer(slice.buffer).is_none_or(|b| b.kind == BufferKind::Parameter || b.on_host()) {
                continue;
            }
            match touched.iter_mut().find(|(buffer, _)| *buffer == slice.buffer) {
                Some((_, bytes)) => *bytes = slice.bytes.max(*bytes),
                None => touched.push((slice.buffer, slice.bytes)),
            }
        }
        let operands = touched.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        if operands > least.operands {
            (least.instruction, least.operands) = (i, operands);
        }
    }
    least
}

impl Buffer {
    /// Whether its bytes mean something at an instruction.
    pub fn lives_at(&self, instruction: usize) -> bool {
        match self.life {
            Life::Persistent | Life::Resident(_) => true,
            Life::Span { first, last } => (first as usize..=last as usize).contains(&instruction),
        }
    }
}

/// For each of the program's own buffers: the first instruction that writes it.
pub fn makers(plan: &Plan, class: &Class, body: &Body) -> Vec<Option<usize>> {
    let mut makers: Vec<Option<usize>> = vec![None; body.buffers.len()];
    for (i, instruction) in body.instructions.iter().enumerate() {
        for (slice, access) in instruction.op.slices(|k| plan.accesses(k)) {
            let own = slice.buffer.index().checked_sub(class.persistent.len());
            if let Some(maker) = own.filter(|_| access.writes()).and_then(|own| makers.get_mut(own)) {
                maker.get_or_insert(i);
            }
        }
    }
    makers
}
