//! An operation: a plan's collective as one rank takes part in it, with peers, group and memory resolved.
#![allow(unsafe_code, reason = "areas are addresses that other threads are told about")]

use std::ops::Range;

use plan::{Collect, CollectKind, Reduce};
use types::{DType, Mesh, Name};

use crate::CommError;

/// Made by [`Operation::new`], so that its parts fit each other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// The same on all ranks that take part.
    pub id: u32,
    pub kind: Kind,
    /// Ranks by their position in the group.
    pub group: Vec<usize>,
    /// This rank's place in `group`.
    pub position: usize,
    /// Operations of one lane run one after another; those of different lanes may run at the same time.
    pub lane: u32,
    pub from: Vec<Area>,
    pub to: Vec<Area>,
}

/// [`CollectKind`] at one rank's coordinates; roots and peers are positions in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    AllReduce(Reduce),
    AllGather,
    ReduceScatter(Reduce),
    AllToAll,
    Broadcast { root: usize },
    Permute { shifts: Vec<i64> },
    Send { to: usize },
    Receive { from: usize },
}

/// A range of this rank's memory, on the host or on a device.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub at: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address and a length; whoever goes to the address has a contract of its own.
unsafe impl Send for Area {}
unsafe impl Sync for Area {}

/// From this many bytes on, each rank of an all-reduce reduces a share of the elements and the others take it from there:
/// one more exchange, but far fewer bytes than if each reduced everything.
const SHARED_BYTES: usize = 1 << 16;

/// Elements in a share are a multiple of this, so that no two ranks write to one cache line.
const SHARE_ELEMENTS: usize = 64;

impl Area {
    /// # Safety
    /// The area is valid, and nobody writes it while the slice lives.
    pub(crate) unsafe fn read<'a>(&self) -> &'a [u8] {
        // SAFETY: says the caller.
        unsafe { std::slice::from_raw_parts(self.at, self.bytes) }
    }

    /// # Safety
    /// The area is valid, and nobody else touches it while the slice lives.
    #[allow(clippy::mut_from_ref, reason = "an area is an address, not what is there")]
    pub(crate) unsafe fn write<'a>(&self) -> &'a mut [u8] {
        // SAFETY: says the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.bytes) }
    }

    /// # Panics
    /// If the range is not inside the area.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.bytes, "a range inside the area");
        // SAFETY: inside the area, or one past its end for an empty range.
        Self { at: unsafe { self.at.add(range.start) }, bytes: range.end - range.start }
    }

    /// The bytes that the rank at `position` of `ranks` reduces, of elements of `element` bytes.
    pub(crate) fn share(&self, element: usize, ranks: usize, position: usize) -> Range<usize> {
        let each = (self.bytes / element).div_ceil(ranks).next_multiple_of(SHARE_ELEMENTS);
        let bytes = each * element;
        let from = (position * bytes).min(self.bytes);
        from..(from + bytes).min(self.bytes)
    }
}

impl Operation {
    /// Whether this is an all-reduce in which each rank reduces a share.
    pub(crate) fn is_shared(&self) -> bool {
        let bytes: usize = self.to.iter().map(|a| a.bytes).sum();
        matches!(self.kind, Kind::AllReduce(_)) && self.group.len() > 1 && bytes >= SHARED_BYTES
    }

    /// Resolves a collective for `rank`, and refuses one whose sizes do not fit its kind.
    pub fn new(
        collect: &Collect,
        mesh: &Mesh,
        rank: usize,
        lane: u32,
        (from, to): (Vec<Area>, Vec<Area>),
    ) -> Result<Self, CommError> {
        let coordinates = mesh.coordinates(rank);
        let (group, position) = group(mesh, &coordinates, &collect.group).ok_or_else(|| {
            let axes: Vec<_> = collect.group.iter().map(Name::as_str).collect();
            let why = format!("the mesh has no axes `{}`, each once", axes.join(" "));
            CommError::Malformed { id: collect.id, why }
        })?;
        let peer = |at: &plan::Affine| {
            let position = at.at(mesh, &coordinates);
            usize::try_from(position).ok().filter(|p| *p < group.len()).ok_or_else(|| {
                let why = format!("position {position} is not in a group of {}", group.len());
                CommError::Malformed { id: collect.id, why }
            })
        };
        let kind = match &collect.kind {
            CollectKind::AllReduce(reduce) => Kind::AllReduce(*reduce),
            CollectKind::AllGather => Kind::AllGather,
            CollectKind::ReduceScatter(reduce) => Kind::ReduceScatter(*reduce),
            CollectKind::AllToAll => Kind::AllToAll,
            CollectKind::Broadcast { root } => Kind::Broadcast { root: peer(root)? },
            CollectKind::Permute { shifts } => Kind::Permute { shifts: shifts.clone() },
            CollectKind::Send { peer: to } => Kind::Send { to: peer(to)? },
            CollectKind::Receive { peer: from } => Kind::Receive { from: peer(from)? },
        };
        let operation = Self { id: collect.id, kind, group, position, lane, from, to };
        match operation.fault() {
            Some(why) => Err(CommError::Malformed { id: collect.id, why }),
            None => Ok(operation),
        }
    }

    /// Bytes of each slice that must be the same on all ranks.
    pub(crate) fn units(&self) -> Vec<usize> {
        let areas = match self.kind {
            Kind::ReduceScatter(_) | Kind::Broadcast { .. } | Kind::Receive { .. } => &self.to,
            _ => &self.from,
        };
        areas.iter().map(|a| a.bytes).collect()
    }

    fn fault(&self) -> Option<String> {
        let ranks = self.group.len();
        // How many times larger than its counterpart each side is.
        let (times_from, times_to) = match &self.kind {
            Kind::AllGather => (ranks, 1),
            Kind::ReduceScatter(_) => (1, ranks),
            Kind::AllReduce(_) | Kind::AllToAll | Kind::Broadcast { .. } | Kind::Permute { .. } => (1, 1),
            Kind::Send { to: peer } | Kind::Receive { from: peer } if *peer == self.position => {
                return Some("a rank cannot send to itself".into());
            }
            Kind::Send { .. } => return (!self.to.is_empty()).then(|| "a send has no targets".into()),
            Kind::Receive { .. } => return (!self.from.is_empty()).then(|| "a receive has no sources".into()),
        };
        if self.from.len() != self.to.len() {
            return Some(format!("it has {} sources and {} targets", self.from.len(), self.to.len()));
        }
        let sizes = || self.from.iter().zip(&self.to).enumerate();
        if let Some((i, (f, t))) =
            sizes().find(|(_, (f, t))| f.bytes.checked_mul(times_from) != t.bytes.checked_mul(times_to))
        {
            return Some(format!("tensor {i} goes from {} bytes to {}, among {ranks} ranks", f.bytes, t.bytes));
        }
        match &self.kind {
            Kind::AllReduce(reduce) | Kind::ReduceScatter(reduce) => {
                if matches!(reduce.dtype, DType::Work | DType::Bool) {
                    return Some(format!("elements of type {} cannot be reduced", reduce.dtype));
                }
                let element = reduce.dtype.bytes();
                let (i, (_, t)) = sizes().find(|(_, (_, t))| t.bytes % element != 0)?;
                Some(format!("tensor {i} has {} bytes, which are no whole number of {}", t.bytes, reduce.dtype))
            }
            Kind::AllToAll => {
                let (i, (f, _)) = sizes().find(|(_, (f, _))| f.bytes % ranks != 0)?;
                Some(format!("tensor {i} has {} bytes, which {ranks} ranks cannot share", f.bytes))
            }
            Kind::Permute { shifts } if shifts.len() != self.from.len() => {
                Some(format!("it has {} shifts for {} tensors", shifts.len(), self.from.len()))
            }
            _ => None,
        }
    }
}

/// The ranks that differ from `coordinates` in these axes alone, by position, and the position of `coordinates` itself.
/// None if an axis is missing or named twice.
fn group(mesh: &Mesh, coordinates: &[usize], axes: &[Name]) -> Option<(Vec<usize>, usize)> {
    let mut spanned: Vec<usize> = Vec::new();
    for axis in axes {
        let parts = mesh.parts(axis);
        if parts.is_empty() {
            return None;
        }
        spanned.extend(parts.iter().filter_map(|part| mesh.position(part)));
    }
    if (1..spanned.len()).any(|i| spanned[..i].contains(&spanned[i])) {
        return None;
    }
    let size = |axis: &usize| mesh.axes[*axis].size;
    let position = spanned.iter().fold(0, |at, axis| at * size(axis) + coordinates[*axis]);
    let count = spanned.iter().map(size).product();
    let rank = |mut at: usize| {
        let mut other: Vec<usize> = coordinates.to_vec();
        for axis in spanned.iter().rev() {
            other[*axis] = at % size(axis);
            at /= size(axis);
        }
        mesh.rank(&other)
    };
    Some(((0..count).map(rank).collect(), position))
}
