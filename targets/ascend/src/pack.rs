//! Takes compiled segments into a plan: their real sizes replace the estimates, and all share one workspace.
//!
//! A model is loaded once, with its working memory at one address, so the workspace is a buffer of the class, at one
//! place in all programs. Launches run one after another on the compute lane, which the plan's proof of no races holds.

use std::collections::BTreeSet;

use plan::{
    Access, Archive, ArchiveError, Blob, BlobKind, Buffer, BufferId, BufferKind, LaneKind, Life, Op, Plan, Slice, Space,
};

use crate::om::{OmError, sizes};
use crate::soc::Soc;

/// HCCL's own buffers for each communicator, by default (`HCCL_BUFFSIZE`, hccl/docs/zh/user_guide).
const COMMUNICATOR: u64 = 200 << 20;
const BLOCK: u64 = 512;

/// What the compiled segments say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    pub segments: usize,
    /// The largest working memory, which all share, and what the largest estimate was.
    pub workspace: u64,
    pub estimate: u64,
    /// Constants of each segment.
    pub weights: Vec<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("compiled segments are missing: {}", listed(.0))]
    Missing(Vec<String>),
    #[error("{file}: {reason}")]
    Om { file: String, reason: OmError },
    #[error("the plan was packed already")]
    Again,
}

/// The first names, and how many more there are.
fn listed(names: &[String]) -> String {
    const MOST: usize = 10;
    match names.len() {
        n if n > MOST => format!("{} and {} more", names[..MOST].join(", "), n - MOST),
        _ => names.join(", "),
    }
}

/// `om` gives the compiled file of a segment. Offsets are for `allocate` to give anew.
pub fn pack(plan: &mut Plan, om: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Packed, PackError> {
    let archive = Archive::from_bytes(&plan.object)?;
    if archive.blobs.iter().any(|b| b.kind == BlobKind::Om) {
        return Err(PackError::Again);
    }
    let files: Vec<(String, Option<Vec<u8>>)> =
        plan.kernels.iter().map(|k| (k.symbol.to_string(), om(&k.symbol))).collect();
    let missing: Vec<String> = files.iter().filter(|(_, f)| f.is_none()).map(|(n, _)| format!("{n}.om")).collect();
    if !missing.is_empty() {
        return Err(PackError::Missing(missing));
    }
    let mut packed = Packed { segments: plan.kernels.len(), ..Packed::default() };
    let mut work = vec![];
    let mut blobs = vec![];
    for (kernel, (name, bytes)) in plan.kernels.iter().zip(files) {
        let bytes = bytes.unwrap_or_default();
        let own = sizes(&bytes).map_err(|reason| PackError::Om { file: format!("{name}.om"), reason })?;
        work.push(own.work.max(1).next_multiple_of(BLOCK));
        packed.weights.push(own.weights.next_multiple_of(BLOCK));
        packed.estimate = packed.estimate.max(kernel.workspace);
        blobs.push(Blob { name: name.into(), kind: BlobKind::Om, bytes });
    }
    packed.workspace = work.iter().copied().max().unwrap_or(0);
    blobs.extend(archive.blobs.into_iter().filter(|b| b.kind == BlobKind::Report));
    share(plan, &work, packed.workspace);
    plan.object = Archive { blobs }.to_bytes();
    Ok(packed)
}

/// Gives every launch a slice of one persistent buffer in place of its own scratch.
fn share(plan: &mut Plan, work: &[u64], bytes: u64) {
    let old: Vec<bool> = plan.kernels.iter().map(|k| k.workspace > 0).collect();
    for (kernel, &own) in plan.kernels.iter_mut().zip(work) {
        if kernel.workspace == 0 {
            kernel.args.push(Access::Write);
        }
        kernel.workspace = own;
    }
    for (c, class) in plan.classes.iter_mut().enumerate() {
        let (name, kind) = ("workspace".into(), BufferKind::Workspace);
        let shared = BufferId::new(class.persistent.len());
        class.persistent.push(Buffer {
            name,
            kind,
            space: Space::Device,
            offset: 0,
            bytes,
            ty: None,
            life: Life::Persistent,
        });
        for body in plan.programs.iter_mut().filter_map(|p| p.bodies.get_mut(c)) {
            let kept = unused(&mut body.buffers);
            for instruction in &mut body.instructions {
                if let Op::Launch(launch) = &mut instruction.op {
                    if old.get(launch.kernel.index()) == Some(&true) {
                        launch.args.pop();
                    }
                    renumber(&mut launch.args, shared, &kept);
                    let own = work.get(launch.kernel.index()).copied().unwrap_or(bytes);
                    launch.args.push(Slice::whole(shared, own));
                } else {
                    others(&mut instruction.op)
                        .into_iter()
                        .for_each(|s| renumber(std::slice::from_mut(s), shared, &kept));
                }
            }
        }
    }
}

/// Drops the scratch of single launches; the new place of each buffer among the body's own.
fn unused(buffers: &mut Vec<Buffer>) -> Vec<usize> {
    let mut kept = vec![];
    let mut next = 0;
    for buffer in buffers.iter() {
        kept.push(next);
        next += usize::from(buffer.kind != BufferKind::Workspace);
    }
    buffers.retain(|b| b.kind != BufferKind::Workspace);
    kept
}

/// Persistent buffers keep their numbers; the body's own come one later.
fn renumber(slices: &mut [Slice], shared: BufferId, kept: &[usize]) {
    for slice in slices {
        if let Some(place) = slice.buffer.index().checked_sub(shared.index()).and_then(|own| kept.get(own)) {
            slice.buffer = BufferId::new(shared.index() + 1 + place);
        }
    }
}

fn others(op: &mut Op) -> Vec<&mut Slice> {
    match op {
        Op::Launch(_) | Op::Record { .. } | Op::Wait { .. } => vec![],
        Op::Collect(collect) => collect.from.iter_mut().chain(&mut collect.to).collect(),
        Op::Copy { from, to } => vec![from, to],
        Op::Feed { to, .. } => vec![to],
        Op::Emit { from, .. } => vec![from],
    }
}

/// What the ranks of a class need on their device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub arena: u64,
    pub weights: u64,
    pub communicators: u64,
    pub device: u64,
}

impl Demand {
    pub fn total(&self) -> u64 {
        self.arena + self.weights + self.communicators
    }

    pub fn fits(&self) -> bool {
        self.total() <= self.device
    }
}

/// For each class, what its most demanding program needs. A rank loads the segments that it launches, with their constants.
pub fn demands(plan: &Plan, weights: &[u64], soc: &Soc) -> Vec<Demand> {
    (0..plan.classes.len())
        .map(|c| {
            let bodies = || plan.programs.iter().filter_map(|p| p.bodies.get(c));
            let launched = bodies().flat_map(|b| &b.instructions).filter_map(|i| match &i.op {
                Op::Launch(launch) => Some(launch.kernel.index()),
                _ => None,
            });
            let launched: BTreeSet<usize> = launched.collect();
            let lanes = |b: &plan::Body| b.lanes.iter().filter(|l| matches!(l, LaneKind::Comm(_))).count() as u64;
            Demand {
                arena: bodies().map(|b| b.arena_bytes).max().unwrap_or(0),
                weights: launched.into_iter().filter_map(|kernel| weights.get(kernel)).sum(),
                communicators: bodies().map(lanes).max().unwrap_or(0) * COMMUNICATOR,
                device: soc.memory_bytes(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_move_up_behind_the_shared_one() {
        let buffer = |kind| Buffer {
            name: "b".into(),
            kind,
            space: Space::Device,
            offset: 0,
            bytes: 8,
            ty: None,
            life: Life::Span { first: 0, last: 0 },
        };
        let mut own = vec![buffer(BufferKind::Activation), buffer(BufferKind::Workspace), buffer(BufferKind::Gradient)];
        let kept = unused(&mut own);
        assert_eq!(own.iter().map(|b| b.kind).collect::<Vec<_>>(), [BufferKind::Activation, BufferKind::Gradient]);
        let mut slices = [1, 2, 4].map(|b| Slice::whole(BufferId::new(b), 8));
        renumber(&mut slices, BufferId::new(2), &kept);
        assert_eq!(slices.map(|s| s.buffer.index()), [1, 3, 4]);
    }
}
