//! What a rank's memory is used for, and its work, summed from the buffers and instructions of a program.

use serde::Serialize;

use crate::{Body, BufferKind, Life, Op, Plan, Scope, occupancy};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub params_bytes: u64,
    /// Live when the optimiser starts: at the first instruction that writes a parameter or a moment.
    pub gradients_bytes: u64,
    /// Moments and master weights.
    pub optimizer_bytes: u64,
    /// Other state, such as the step.
    pub state_bytes: u64,
    /// The most that activations and feeds hold at any one time.
    pub activations_peak_bytes: u64,
    /// The most at any one time.
    pub comm_bytes: u64,
    /// The most at any one time.
    pub workspace_bytes: u64,
    /// The arena up to the end of the last buffer that is neither workspace nor communication.
    pub peak_bytes: u64,
    /// The whole arena.
    pub arena_bytes: u64,
    /// The whole arena in the host's memory, which no other figure counts.
    pub host_bytes: u64,
    /// What sleeps in the host's memory while other residencies are entered: the parameters of all of them.
    pub sleeping_bytes: u64,
}

/// Of parameters, those count that are in the arena while the program runs.
pub fn memory(scope: Scope<'_>) -> Memory {
    let Scope { plan, class, body, .. } = scope;
    let sum =
        |kind: BufferKind| -> u64 { scope.present().filter(|b| b.kind == kind && !b.on_host()).map(|b| b.bytes).sum() };
    let update = body.instructions.iter().position(|instruction| {
        instruction.op.touches(|k| plan.accesses(k)).iter().any(|(slice, access)| {
            let kind = class.persistent.get(slice.buffer.index()).map(|b| b.kind);
            access.writes() && matches!(kind, Some(BufferKind::Parameter | BufferKind::Optimizer))
        })
    });
    let gradients = body.buffers.iter().filter(|b| b.kind == BufferKind::Gradient);
    let kept = |kind: BufferKind| !matches!(kind, BufferKind::Workspace | BufferKind::Comm);
    Memory {
        params_bytes: sum(BufferKind::Parameter),
        gradients_bytes: update.map_or(0, |at| gradients.filter(|b| b.lives_at(at)).map(|b| b.bytes).sum()),
        optimizer_bytes: sum(BufferKind::Optimizer),
        state_bytes: sum(BufferKind::State),
        activations_peak_bytes: peak(body, &[BufferKind::Activation, BufferKind::Feed]),
        comm_bytes: peak(body, &[BufferKind::Comm]),
        workspace_bytes: sum(BufferKind::Workspace) + peak(body, &[BufferKind::Workspace]),
        // A workspace that all programs share lies among the persistent buffers, below the others.
        peak_bytes: (body
            .all_buffers(class)
            .filter(|(_, b)| kept(b.kind) && !b.on_host() && b.is_there(scope.program.residency))
            .map(|(_, b)| b.end())
            .max()
            .unwrap_or(0))
        .saturating_sub(sum(BufferKind::Workspace)),
        arena_bytes: body.arena_bytes,
        host_bytes: body.host_bytes,
        sleeping_bytes: class.persistent.iter().filter(|b| matches!(b.life, Life::Resident(_))).map(|b| b.bytes).sum(),
    }
}

/// Bytes of the buffers of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindBytes {
    pub kind: BufferKind,
    /// Kept from step to step.
    pub persistent: u64,
    /// The most that others hold at any one time.
    pub peak: u64,
}

/// One entry for each kind, zeros included, in the order of [`BufferKind::ALL`].
pub fn memory_by_kind(scope: Scope<'_>) -> [KindBytes; BufferKind::ALL.len()] {
    BufferKind::ALL.map(|kind| KindBytes {
        kind,
        persistent: scope.present().filter(|b| b.kind == kind && !b.on_host()).map(|b| b.bytes).sum(),
        peak: peak(scope.body, &[kind]),
    })
}

/// Of one run of a program on one rank.
pub fn flops(plan: &Plan, body: &Body) -> u128 {
    let of = |op: &Op| match op {
        Op::Launch(launch) => plan.kernels.get(launch.kernel.index()).map_or(0, |k| u128::from(k.flops)),
        _ => 0,
    };
    body.instructions.iter().map(|i| of(&i.op)).sum()
}

/// The most bytes that buffers of these kinds hold at one instruction.
fn peak(body: &Body, kinds: &[BufferKind]) -> u64 {
    occupancy(body, kinds).into_iter().max().unwrap_or(0)
}
