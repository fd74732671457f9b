//! Constants that the number of samples is in, such as the count of a mean: known from traces of two batches.

use std::collections::BTreeMap;

use diag::PlaceId;
use ir::{Inst, Module, Node, Op};

/// How a number grows with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// Like this power of the number of samples.
    Power(i32),
    /// In another way.
    Other,
}

/// By place and value in the trace of a micro-batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizedConstants(BTreeMap<(PlaceId, u64), Growth>);

impl SizedConstants {
    /// Compares the trace of a micro-batch with that of the whole batch of so many. `None` if they differ in more than sizes
    /// and numbers.
    pub fn of(part: &Module, whole: &Module, count: usize) -> Option<Self> {
        let mut found = Self::default();
        let mut fixed = vec![];
        if part.functions.len() != whole.functions.len() {
            return None;
        }
        for ((_, one), (_, other)) in part.functions.iter().zip(whole.functions.iter()) {
            if one.nodes.len() != other.nodes.len() {
                return None;
            }
            for ((_, one), (_, other)) in one.nodes.iter().zip(other.nodes.iter()) {
                if !alike(one, other) {
                    return None;
                }
                let (Inst::Op(Op::Constant(a)), Inst::Op(Op::Constant(b))) = (&one.inst, &other.inst) else { continue };
                let key = (one.place, a.value.to_bits());
                if a.value == b.value {
                    fixed.push(key);
                } else {
                    let growth = growth(a.value, b.value, count as f64);
                    found
                        .0
                        .entry(key)
                        .and_modify(|g| *g = if *g == growth { growth } else { Growth::Other })
                        .or_insert(growth);
                }
            }
        }
        for key in fixed {
            found.0.entry(key).and_modify(|growth| *growth = Growth::Other);
        }
        Some(found)
    }

    pub fn growth(&self, place: PlaceId, value: f64) -> Option<Growth> {
        self.0.get(&(place, value.to_bits())).copied()
    }
}

fn alike(one: &Node, other: &Node) -> bool {
    let same = match (&one.inst, &other.inst) {
        (Inst::Op(a), Inst::Op(b)) => a.name() == b.name(),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    };
    same && one.args == other.args
}

fn growth(part: f64, whole: f64, count: f64) -> Growth {
    let near = |x: f64, y: f64| (x - y).abs() <= 1e-6 * y.abs();
    match whole / part {
        ratio if near(ratio, count) => Growth::Power(1),
        ratio if near(ratio * count, 1.0) => Growth::Power(-1),
        _ => Growth::Other,
    }
}
