//! A collective of any kind, size and type on some mesh, and what it gives by direct computation.

use half::{bf16, f16};
use plan::{Affine, Collect, CollectKind, Reduce, ReduceKind};
use proptest::prelude::*;
use types::{DType, Mesh};

use crate::ranks::{Bytes, collect, mesh};

#[derive(Clone, Debug)]
pub struct Case {
    pub mesh: Mesh,
    pub collect: Collect,
    pub dtype: DType,
    /// Of the larger side of each tensor, by the size of the group.
    pub elements: Vec<usize>,
    pub seed: u64,
}

impl Case {
    /// The ranks of `rank`'s group by position, computed by search.
    fn group(&self, rank: usize) -> Vec<usize> {
        let outside = |r: usize| -> Vec<usize> {
            let at = self.mesh.coordinates(r);
            let axes = self.mesh.axes.iter().zip(at);
            axes.filter(|(axis, _)| !self.collect.group.contains(&axis.name)).map(|(_, c)| c).collect()
        };
        let inside = |r: &usize| -> Vec<usize> {
            let at = self.mesh.coordinates(*r);
            let axes = self.collect.group.iter().map(|axis| self.mesh.position(axis).expect("an axis"));
            axes.map(|axis| at[axis]).collect()
        };
        let mut group: Vec<usize> = (0..self.mesh.world()).filter(|r| outside(*r) == outside(rank)).collect();
        group.sort_by_key(inside);
        group
    }

    pub fn sources(&self, rank: usize, step: u64) -> Vec<Bytes> {
        let ranks = self.group(rank).len();
        let each = |(i, count): (usize, &usize)| {
            let count = if matches!(self.collect.kind, CollectKind::AllGather) { count / ranks } else { *count };
            let mut state = self.seed ^ (rank as u64) << 40 ^ (i as u64) << 20 ^ step;
            (0..count).flat_map(|_| element(self.dtype, &mut state)).collect()
        };
        self.elements.iter().enumerate().map(each).collect()
    }

    pub fn targets(&self, rank: usize) -> Vec<usize> {
        let ranks = self.group(rank).len();
        let elements = self.elements.iter().map(|count| match self.collect.kind {
            CollectKind::ReduceScatter(_) => count / ranks,
            _ => *count,
        });
        elements.map(|n| n * self.dtype.bytes()).collect()
    }

    pub fn expected(&self, rank: usize, step: u64) -> Vec<Bytes> {
        let group = self.group(rank);
        let (ranks, me) = (group.len(), group.iter().position(|r| *r == rank).expect("a member"));
        let sources: Vec<_> = group.iter().map(|r| self.sources(*r, step)).collect();
        let of = |i: usize| sources.iter().map(move |s| s[i].clone());
        let piece = |bytes: &Bytes, at: usize| {
            let size = bytes.len() / ranks;
            bytes[at * size..(at + 1) * size].to_vec()
        };
        let tensor = |i: usize| match &self.collect.kind {
            CollectKind::AllReduce(how) => reduce(*how, of(i).collect()),
            CollectKind::ReduceScatter(how) => piece(&reduce(*how, of(i).collect()), me),
            CollectKind::AllGather => of(i).collect::<Vec<_>>().concat(),
            CollectKind::AllToAll => of(i).map(|s| piece(&s, me)).collect::<Vec<_>>().concat(),
            CollectKind::Broadcast { root } => {
                sources[root.at(&self.mesh, &self.mesh.coordinates(rank)) as usize][i].clone()
            }
            CollectKind::Permute { shifts } => {
                let from = (0..ranks).find(|p| (*p as i64 + shifts[i]).rem_euclid(ranks as i64) == me as i64);
                sources[from.expect("a sender")][i].clone()
            }
            CollectKind::Send { .. } | CollectKind::Receive { .. } => vec![],
        };
        (0..self.elements.len()).map(tensor).collect()
    }
}

/// A number from 0 to 2^32, by a linear congruence.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 32
}

/// Values of many magnitudes, so that the order of a sum shows.
fn element(dtype: DType, state: &mut u64) -> Bytes {
    let number = next(state) as i64 - (1 << 31);
    let real = number as f64 / f64::from(1 << (next(state) % 30) as u32) / 1000.0;
    match dtype {
        DType::F64 => real.to_ne_bytes().to_vec(),
        DType::F32 => (real as f32).to_ne_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(real).to_ne_bytes().to_vec(),
        DType::F16 => f16::from_f64(real / 100.0).to_ne_bytes().to_vec(),
        DType::I64 => (number << 31).to_ne_bytes().to_vec(),
        DType::I32 => (number as i32).to_ne_bytes().to_vec(),
        DType::Bool | DType::Work => vec![u8::from(number > 0)],
    }
}

fn reduce(how: Reduce, sources: Vec<Bytes>) -> Bytes {
    let bytes = how.dtype.bytes();
    let count = sources[0].len() / bytes;
    let at = |s: &Bytes, i: usize| s[i * bytes..][..bytes].to_vec();
    let column = |i: usize| sources.iter().map(move |s| at(s, i));
    macro_rules! fold {
        ($ty:ty, $wide:ty, $widen:expr, $narrow:expr, $add:expr) => {{
            let load = |b: Bytes| -> $wide { $widen(<$ty>::from_ne_bytes(b.try_into().expect("an element"))) };
            let max = |a: $wide, b: $wide| if b > a { b } else { a };
            let folded = (0..count).map(|i| {
                let values = column(i).map(load);
                let value = match how.kind {
                    ReduceKind::Sum => values.reduce($add),
                    ReduceKind::Max => values.reduce(max),
                };
                let narrow: $ty = $narrow(value.expect("a source"));
                narrow.to_ne_bytes()
            });
            folded.flatten().collect()
        }};
    }
    match how.dtype {
        DType::F64 => fold!(f64, f64, |x| x, |x| x, |a, b| a + b),
        DType::F32 => fold!(f32, f32, |x| x, |x| x, |a, b| a + b),
        DType::BF16 => fold!(bf16, f32, bf16::to_f32, bf16::from_f32, |a, b| a + b),
        DType::F16 => fold!(f16, f32, f16::to_f32, f16::from_f32, |a, b| a + b),
        DType::I64 => fold!(i64, i64, |x| x, |x| x, i64::wrapping_add),
        DType::I32 => fold!(i32, i32, |x| x, |x| x, i32::wrapping_add),
        DType::Bool | DType::Work => vec![],
    }
}

fn kinds(tensors: usize) -> impl Strategy<Value = CollectKind> {
    let kind = prop_oneof![Just(ReduceKind::Sum), Just(ReduceKind::Max)];
    let reduce = kind.prop_map(|kind| Reduce { kind, dtype: DType::F32 });
    prop_oneof![
        3 => reduce.clone().prop_map(CollectKind::AllReduce),
        2 => reduce.prop_map(CollectKind::ReduceScatter),
        1 => Just(CollectKind::AllGather),
        1 => Just(CollectKind::AllToAll),
        1 => Just(CollectKind::Broadcast { root: Affine::constant(1) }),
        2 => prop::collection::vec(-5i64..=5, tensors).prop_map(|shifts| CollectKind::Permute { shifts }),
    ]
}

pub fn cases() -> impl Strategy<Value = Case> {
    let groups = prop_oneof![
        Just((vec![("dp", 2), ("tp", 2)], vec!["tp"])),
        Just((vec![("dp", 2), ("tp", 3)], vec!["tp"])),
        Just((vec![("dp", 4), ("tp", 2)], vec!["dp"])),
        Just((vec![("dp", 2), ("cp", 2), ("tp", 2)], vec!["tp", "dp"])),
        Just((vec![("dp", 2), ("cp", 2), ("tp", 2)], vec!["dp", "cp"])),
        Just((vec![("dp", 3), ("tp", 2)], vec!["dp", "tp"])),
    ];
    let types = [DType::F32, DType::BF16, DType::F16, DType::F64, DType::I32, DType::I64];
    // From nothing at all to where an all-reduce goes by shares.
    let pieces = prop_oneof![4 => 0usize..40, 1 => 3000usize..9000];
    let tensors = prop::collection::vec(pieces, 1..4);
    (groups, prop::sample::select(types.to_vec()), tensors, any::<u64>())
        .prop_flat_map(|groups| (kinds(groups.2.len()), Just(groups)))
        .prop_map(|(mut kind, ((axes, group), dtype, pieces, seed))| {
            if let CollectKind::AllReduce(how) | CollectKind::ReduceScatter(how) = &mut kind {
                how.dtype = dtype;
            }
            let mesh = mesh(&axes);
            let ranks: usize = group.iter().map(|axis| mesh.size(axis)).product();
            // An all-reduce and what is like it need not divide by the number of ranks.
            let shared = matches!(kind, CollectKind::AllGather | CollectKind::AllToAll | CollectKind::ReduceScatter(_));
            let elements = pieces.iter().map(|n| if shared { n * ranks } else { n * 3 + 1 }).collect();
            Case { mesh, collect: collect(7, kind, &group), dtype, elements, seed }
        })
}
