//! Visibility: which keys a query of an attention sees, by the numbers of both.
//!
//! A query sees a key if their segments are equal and positive, and if the key's position is not later (causal) and within
//! the window. Without segments all are of one; without positions both count on, so that the last query and the last key
//! stand at one place.

use serde::{Deserialize, Serialize};
use types::{DType, Dim, Name, TensorType};

use super::compare::Comparison;
use super::{Add, Attention, Compare, Iota, Select};
use crate::array::{dot, strides_in};
use crate::op::{PartContext, PartOf};
use crate::{Array, Builder, Mismatch, NodeId};

/// Operands, in this order, where they are there: segments of queries and of keys, positions of queries and of keys. Each
/// is an i64 with the length of its side and any of the batch dims.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Visibility {
    pub segments: bool,
    pub positions: bool,
    /// The distance before its own position up to which a query sees.
    pub left: Option<u64>,
    /// The distance behind it.
    pub right: Option<u64>,
}

impl Visibility {
    /// All keys are seen, or those that a causal attention sees.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// The number of operands that say it.
    pub fn operands(&self) -> usize {
        2 * usize::from(self.segments) + 2 * usize::from(self.positions)
    }

    /// Segments of queries and keys, and positions of both, among the operands that say it.
    pub fn split<T: Copy>(&self, operands: &[T]) -> [Option<[T; 2]>; 2] {
        let pair = |at: usize| operands.get(at).copied().zip(operands.get(at + 1).copied()).map(|(q, k)| [q, k]);
        let segments = if self.segments { pair(0) } else { None };
        [segments, if self.positions { pair(2 * usize::from(self.segments)) } else { None }]
    }
}

/// No position is farther than this: beyond it a window has no end.
const MOST: u64 = 1 << 48;

/// The distances to the left and to the right up to which a query sees, by positions; `None` is without end.
pub type Reach = [Option<i64>; 2];

impl Attention {
    /// How far a query sees: [`Visibility`] and causality together.
    pub fn reach(&self) -> Reach {
        let bound = |x: Option<u64>| x.map(|x| x.min(MOST) as i64);
        let right = bound(self.visibility.right);
        [bound(self.visibility.left), if self.causal { Some(right.unwrap_or(0).min(0)) } else { right }]
    }

    fn is_ranged(&self) -> bool {
        self.reach().iter().any(Option::is_some)
    }

    /// Where positions of queries begin if they are not given.
    fn offset(queries: usize, keys: usize) -> i64 {
        keys as i64 - queries as i64
    }

    /// That the operands from the one numbered `first` on say who sees whom.
    pub(super) fn check_visibility(&self, args: &[&TensorType], first: usize, name: &str) -> Result<(), Mismatch> {
        let count = first + self.visibility.operands();
        if args.len() != count {
            return Err(Mismatch::new(format!("`{name}` takes {count} operands as it is, here are {}", args.len())));
        }
        let side = |of: &TensorType, own: [&Name; 2], length: &Name, ids: &TensorType| {
            let fits = |d: &Dim| !own.contains(&&d.name) && of.size_of(&d.name) == Some(d.size);
            ids.dtype == DType::I64 && ids.position(length).is_some() && ids.dims.iter().all(fits)
        };
        for (i, ids) in args.iter().enumerate().skip(first) {
            let of_queries = (i - first).is_multiple_of(2);
            let (of, own, length) = match of_queries {
                true => (args[0], [&self.heads, &self.head], &self.q_len),
                false => (args[1], [&self.kv_heads, &self.head], &self.kv_len),
            };
            if !side(of, own, length, ids) {
                return Err(Mismatch::new(format!("operand {i} of `{name}` is `{ids}`, which does not number `{of}`"))
                    .of([i, usize::from(!of_queries)])
                    .help(format!("it is an i64 with the dim {length} and any of the batch dims")));
            }
        }
        let (queries, keys) = (args[0].size_of(&self.q_len), args[1].size_of(&self.kv_len));
        if self.is_ranged() && !self.visibility.positions && keys < queries {
            return Err(Mismatch::new(format!("{queries:?} queries of length {} with {keys:?} keys", self.q_len))
                .of([0, 1])
                .help("give the positions of both"));
        }
        Ok(())
    }

    /// For each row of scores, in their order, the keys that it sees.
    pub(super) fn seen_by_ids(&self, q: &TensorType, kv: &TensorType, operands: &[&Array]) -> SeenByIds {
        let rows = self.rows(q);
        let [segments, positions] = self.visibility.split(operands);
        let (queries, keys) = (q.size_of(&self.q_len).unwrap_or(0), kv.size_of(&self.kv_len).unwrap_or(0));
        let side = |pair: Option<[&Array; 2]>| {
            pair.map(|[of_q, of_k]| {
                let step = of_k.ty.position(&self.kv_len).map_or(0, |p| of_k.ty.strides()[p]);
                let start = strides_in(&of_k.ty, &rows);
                let own = rows.dims.iter().map(|d| d.name == self.q_len || d.name == self.heads);
                let start = start.iter().zip(own).map(|(&s, own)| if own { 0 } else { s }).collect();
                Numbers {
                    of_q: of_q.data.clone(),
                    of_k: of_k.data.clone(),
                    q_strides: strides_in(&of_q.ty, &rows).to_vec(),
                    k_strides: start,
                    step,
                }
            })
        };
        SeenByIds {
            segments: side(segments),
            positions: side(positions),
            query: rows.position(&self.q_len).unwrap_or(0),
            offset: Self::offset(queries, keys),
            keys,
            reach: self.reach(),
        }
    }

    /// Whether each query sees each key, as a node with the dims of `scores` that it depends on; `None` if all do.
    pub(super) fn visible(&self, b: &mut Builder, scores: &TensorType, key: &Dim, args: &[NodeId]) -> Option<NodeId> {
        let [segments, positions] = self.visibility.split(args);
        let queries = scores.size_of(&self.q_len).unwrap_or(0);
        let mut seen: Option<NodeId> = None;
        let mut both = |b: &mut Builder, more: NodeId| {
            let no = b.constant(0.0, DType::Bool);
            seen = Some(seen.map_or(more, |known| b.op(Select {}, &[known, more, no])));
        };
        // As the scores have their dims, and the keys under the name that they have there.
        let arrange = |b: &mut Builder, [of_q, of_k]: [NodeId; 2]| {
            let mut renamed = b.ty(of_k).clone();
            renamed.dims.iter_mut().filter(|d| d.name == self.kv_len).for_each(|d| d.name = key.name.clone());
            let of_k = b.reshape(of_k, &renamed);
            let own = [of_q, of_k].map(|ids| b.ty(ids).clone());
            // The numbers of queries get the batch dims of both, so that the order of dims is that of the scores.
            let of_sides = [[&own[0], &own[1]], [&own[1]; 2]];
            let mut sides = [of_q, of_k].into_iter().zip(of_sides).enumerate().map(|(i, (ids, types))| {
                let has =
                    |d: &&Dim| (i == 1 || d.name != key.name) && types.iter().any(|ty| ty.position(&d.name).is_some());
                let dims = scores.dims.iter().filter(has).cloned();
                b.arrange(ids, &TensorType::new(DType::I64, dims))
            });
            [sides.next().unwrap_or(of_q), sides.next().unwrap_or(of_k)]
        };
        if let Some(pair) = segments {
            let [of_q, of_k] = arrange(b, pair);
            let equal = b.op(Compare { kind: Comparison::Equal }, &[of_q, of_k]);
            both(b, equal);
            let zero = b.constant(0.0, DType::I64);
            let there = b.op(Compare { kind: Comparison::Greater }, &[of_k, zero]);
            both(b, there);
        }
        let [left, right] = self.reach();
        if left.or(right).is_some() {
            let pair = positions.map(|pair| arrange(b, pair)).unwrap_or_else(|| {
                let query = Dim { name: self.q_len.clone(), size: queries };
                let of_q = b.op(Iota { dim: query, dtype: DType::I64 }, &[]);
                let of_q = b.offset(of_q, Self::offset(queries, key.size) as f64);
                [of_q, b.op(Iota { dim: key.clone(), dtype: DType::I64 }, &[])]
            });
            for (bound, sign, kind) in [(left, -1, Comparison::LessEqual), (right, 1, Comparison::GreaterEqual)] {
                let Some(bound) = bound else { continue };
                let limit = b.offset(pair[0], (sign * bound) as f64);
                // Queries first, as the scores have them.
                let near = b.op(Compare { kind }, &[limit, pair[1]]);
                both(b, near);
            }
        }
        seen
    }

    /// The same attention over one rank's parts of the operands `args`, of which those from `first` on say who sees whom:
    /// itself, keys and values, and the operands that say it. `None` where they say enough.
    pub(super) fn visible_part(
        &self,
        cx: &mut PartContext<'_>,
        args: &[NodeId],
        first: usize,
        [queries, keys]: [Option<PartOf>; 2],
        sizes: [usize; 2],
    ) -> Option<(Visibility, [NodeId; 2], Vec<NodeId>)> {
        let mut visibility = self.visibility.clone();
        let short = keys.and_then(|part| part.length);
        let counts = self.is_ranged() && !visibility.positions && (queries.is_some() || keys.is_some());
        if short.is_none() && !counts {
            return None;
        }
        let dims = [(args[0], &self.q_len), (args[1], &self.kv_len)]
            .map(|(x, name)| Dim { name: name.clone(), size: cx.b.ty(x).size_of(name).unwrap_or(1) });
        let [mut segments, mut positions] = visibility.split(&args[first..]);
        let mut kv = [args[1], args[2]];
        if let Some(length) = short {
            let index = cx.b.op(Iota { dim: dims[1].clone(), dtype: DType::I64 }, &[]);
            let there = cx.b.op(Compare { kind: Comparison::Less }, &[index, length]);
            let one = cx.b.constant(1.0, DType::I64);
            let ones = dims.clone().map(|dim| cx.b.arrange(one, &TensorType::new(DType::I64, [dim])));
            let [of_q, of_k] = segments.unwrap_or(ones);
            segments = Some([of_q, Self::or_zero(cx.b, there, of_k)]);
            // What is not there may be anything, and zero times anything may be NaN.
            kv = kv.map(|x| Self::or_zero(cx.b, there, x));
        }
        if counts {
            let starts = [(queries, Self::offset(sizes[0], sizes[1])), (keys, 0)];
            let mut sides = dims.into_iter().zip(starts).map(|(dim, (part, offset))| {
                let numbers = cx.b.op(Iota { dim, dtype: DType::I64 }, &[]);
                let numbers = part.map_or(numbers, |part| cx.b.op(Add {}, &[numbers, part.start]));
                if offset == 0 { numbers } else { cx.b.offset(numbers, offset as f64) }
            });
            positions = sides.next().zip(sides.next()).map(|(q, k)| [q, k]);
        }
        (visibility.segments, visibility.positions) = (segments.is_some(), positions.is_some());
        let operands = segments.into_iter().chain(positions).flatten().collect();
        Some((visibility, kv, operands))
    }

    fn or_zero(b: &mut Builder, there: NodeId, x: NodeId) -> NodeId {
        let ty = b.ty(x).clone();
        let there = b.arrange(there, &ty.with_dtype(DType::Bool));
        let zero = b.constant(0.0, ty.dtype);
        b.op(Select {}, &[there, x, zero])
    }
}

/// Numbers of queries and of keys, and where those of a row of scores are.
struct Numbers {
    of_q: Vec<f64>,
    of_k: Vec<f64>,
    q_strides: Vec<usize>,
    k_strides: Vec<usize>,
    step: usize,
}

impl Numbers {
    fn q(&self, index: &[usize]) -> i64 {
        self.of_q[dot(index, &self.q_strides)] as i64
    }

    fn k(&self, index: &[usize], key: usize) -> i64 {
        self.of_k[dot(index, &self.k_strides) + key * self.step] as i64
    }
}

/// Who sees whom, row by row of scores.
pub(super) struct SeenByIds {
    segments: Option<Numbers>,
    positions: Option<Numbers>,
    query: usize,
    offset: i64,
    keys: usize,
    reach: Reach,
}

impl SeenByIds {
    /// The keys that the row at `index` sees.
    pub fn row(&self, index: &[usize], seen: &mut Vec<usize>) {
        let [left, right] = self.reach;
        let own = match &self.positions {
            Some(positions) => positions.q(index),
            None => index[self.query] as i64 + self.offset,
        };
        let sees = |key: &usize| {
            let near = self.positions.as_ref().map_or(*key as i64, |positions| positions.k(index, *key));
            let one = self.segments.as_ref().is_none_or(|s| s.k(index, *key) > 0 && s.q(index) == s.k(index, *key));
            one && left.is_none_or(|left| near >= own.saturating_sub(left))
                && right.is_none_or(|right| near <= own.saturating_add(right))
        };
        seen.clear();
        seen.extend((0..self.keys).filter(sees));
    }
}
