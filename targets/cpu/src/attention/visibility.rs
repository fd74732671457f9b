//! Which keys queries see by their numbers: comparisons in lanes, and what the least and greatest numbers of a tile tell.

use super::problem::{K_POSITION, K_SEGMENT, Q_POSITION, Q_SEGMENT};
use super::{Attention, Bases};
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};

/// See `ir::ops::Visibility`; positions that are not given count on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Visibility {
    pub segments: bool,
    pub positions: bool,
    /// How far a query sees to the left and to the right.
    pub left: Option<i64>,
    pub right: Option<i64>,
}

impl Visibility {
    fn is_ranged(&self) -> bool {
        self.left.or(self.right).is_some()
    }
}

/// The numbers of one kind of all queries, or of all keys, of one batch index.
#[derive(Clone, Copy)]
enum Numbers {
    Stored {
        base: Val,
        start: Val,
        stride: i64,
    },
    /// From this number on.
    Counted(Val),
}

/// What queries or keys are compared by.
#[derive(Clone, Copy)]
pub struct Side {
    segments: Option<Numbers>,
    positions: Option<Numbers>,
    size: u64,
}

/// Segment and position: of one query or key, or of several in lanes.
#[derive(Clone, Copy)]
pub struct Number {
    segment: Option<Val>,
    position: Option<Val>,
}

/// The least and the greatest of some segments and positions.
#[derive(Clone, Copy)]
pub struct Extent {
    segments: Option<(Val, Val)>,
    positions: Option<(Val, Val)>,
}

impl Attention {
    /// The numbers of the queries and of the keys at one batch index; `None` where none are compared.
    pub fn sides(&self, e: &mut Emitter, bases: &Bases, batch: Val) -> Option<[Side; 2]> {
        let visibility = self.visibility.as_ref()?;
        let stored = |e: &mut Emitter, operand: usize| {
            let base = bases[operand]?;
            let of_queries = matches!(operand, Q_SEGMENT | Q_POSITION);
            let dim = if of_queries { &self.queries } else { &self.keys };
            let start = e.offset_linear(&self.batch, batch, operand);
            Some(Numbers::Stored { base, start, stride: dim.strides[operand] })
        };
        let side = |e: &mut Emitter, [segment, position]: [usize; 2], size: u64, first: i64| {
            let counted = e.i64(first);
            Side {
                segments: if visibility.segments { stored(e, segment) } else { None },
                positions: match (visibility.is_ranged(), visibility.positions) {
                    (false, _) => None,
                    (true, true) => stored(e, position),
                    (true, false) => Some(Numbers::Counted(counted)),
                },
                size,
            }
        };
        let offset = self.keys.size as i64 - self.queries.size as i64;
        let queries = side(e, [Q_SEGMENT, Q_POSITION], self.queries.size, offset);
        Some([queries, side(e, [K_SEGMENT, K_POSITION], self.keys.size, 0)])
    }

    fn bounds(&self) -> [Option<i64>; 2] {
        self.visibility.as_ref().map_or([None; 2], |visibility| [visibility.left, visibility.right])
    }

    /// Whether the query sees the key; one of them, or both, in lanes.
    pub fn sees(&self, e: &mut Emitter, query: Number, key: Number) -> Option<Val> {
        let mut seen: Option<Val> = None;
        let mut both = |e: &mut Emitter, more: Val| {
            seen = Some(match seen {
                Some(known) => e.and(known, more),
                None => more,
            });
        };
        if let Some((q, k)) = query.segment.zip(key.segment) {
            // What is not positive becomes one number for queries and another for keys.
            let [q, k] = [(q, -1), (k, 0)].map(|(x, nowhere)| {
                let (zero, nowhere) = (e.int(x.ty, 0), e.int(x.ty, nowhere));
                let there = e.cmp(Cmp::Gt, x, zero);
                e.select(there, x, nowhere)
            });
            let (q, k) = alike(e, q, k);
            let equal = e.cmp(Cmp::Eq, q, k);
            both(e, equal);
        }
        if let Some((q, k)) = query.position.zip(key.position) {
            let (q, k) = alike(e, q, k);
            let [left, right] = self.bounds();
            if let Some(left) = left {
                let left = e.int(q.ty, left);
                let first = e.sub(q, left);
                let near = e.cmp(Cmp::Ge, k, first);
                both(e, near);
            }
            if let Some(right) = right {
                let right = e.int(q.ty, right);
                let last = e.add(q, right);
                let near = e.cmp(Cmp::Le, k, last);
                both(e, near);
            }
        }
        seen
    }

    /// Whether one of the queries may see one of the keys.
    pub fn may_see(&self, e: &mut Emitter, queries: &Extent, keys: &Extent) -> Val {
        let mut all = e.int(Ty::scalar(Elem::I1), 1);
        if let Some(((q_low, q_high), (k_low, k_high))) = queries.segments.zip(keys.segments) {
            let one = e.i64(1);
            let low = e.max_int(q_low, one);
            let low = e.max_int(low, k_low);
            let high = e.min_int(q_high, k_high);
            let shared = e.cmp(Cmp::Le, low, high);
            all = e.and(all, shared);
        }
        if let Some(((q_low, q_high), (k_low, k_high))) = queries.positions.zip(keys.positions) {
            let [left, right] = self.bounds();
            if let Some(left) = left {
                let left = e.i64(left);
                let first = e.sub(q_low, left);
                let near = e.cmp(Cmp::Ge, k_high, first);
                all = e.and(all, near);
            }
            if let Some(right) = right {
                let right = e.i64(right);
                let last = e.add(q_high, right);
                let near = e.cmp(Cmp::Le, k_low, last);
                all = e.and(all, near);
            }
        }
        all
    }

    /// Whether each of the queries sees each of the keys.
    pub fn all_see(&self, e: &mut Emitter, queries: &Extent, keys: &Extent) -> Val {
        let mut all = self.all_alike(e, queries, keys);
        if let Some(((q_low, q_high), (k_low, k_high))) = queries.positions.zip(keys.positions) {
            let [left, right] = self.bounds();
            if let Some(left) = left {
                let left = e.i64(left);
                let first = e.sub(q_high, left);
                let near = e.cmp(Cmp::Ge, k_low, first);
                all = e.and(all, near);
            }
            if let Some(right) = right {
                let right = e.i64(right);
                let last = e.add(q_low, right);
                let near = e.cmp(Cmp::Le, k_high, last);
                all = e.and(all, near);
            }
        }
        all
    }

    /// Whether all of the queries and keys are of one segment.
    pub fn all_alike(&self, e: &mut Emitter, queries: &Extent, keys: &Extent) -> Val {
        let mut all = e.int(Ty::scalar(Elem::I1), 1);
        if let Some(((q_low, q_high), (k_low, k_high))) = queries.segments.zip(keys.segments) {
            let zero = e.i64(0);
            for (cmp, a, b) in
                [(Cmp::Eq, q_low, q_high), (Cmp::Eq, k_low, k_high), (Cmp::Eq, q_low, k_low), (Cmp::Gt, k_low, zero)]
            {
                let holds = e.cmp(cmp, a, b);
                all = e.and(all, holds);
            }
        }
        all
    }

    /// Whether positions only count on, so that what a query sees of one segment is one run of keys.
    pub fn is_run(&self) -> bool {
        self.visibility.as_ref().is_some_and(|v| v.is_ranged() && !v.positions)
    }

    /// Where positions count on: the keys from `key` on that the query sees are `low..high`, either end if there is one.
    pub fn run(&self, e: &mut Emitter, query: Val, key: Val) -> [Option<Val>; 2] {
        if !self.is_run() {
            return [None; 2];
        }
        let (offset, most) =
            (self.keys.size as i64 - self.queries.size as i64, (self.keys.size + self.queries.size) as i64);
        let [left, right] = self.bounds().map(|bound| bound.map(|bound| bound.clamp(-most, most)));
        let mut end = |bound: Option<i64>| {
            bound.map(|bound| {
                let bound = e.i64(bound + offset);
                let at = e.add(query, bound);
                e.sub(at, key)
            })
        };
        [end(left.map(|left| -left)), end(right.map(|right| right + 1))]
    }

    /// Of `count` keys from `first` on, the part outside of which none is seen by any of the queries.
    pub fn trim(&self, e: &mut Emitter, queries: &Extent, keys: &Side, (first, count): (Val, Val)) -> Trimmed {
        let lanes = e.lanes();
        let ty = Ty::vector(Elem::I64, lanes);
        let (zero, none, most) = (e.i64(0), e.int(ty, 0), e.int(ty, i64::MAX));
        let found = e.for_each((zero, count, i64::from(lanes)), &[most, none, none, none], |e, at, found| {
            let left = e.sub(count, at);
            let there = e.first_lanes(left, lanes);
            let key = e.add(first, at);
            let number = keys.lanes(e, key);
            let (mut seen, mut all) = (there, there);
            let mut both = |e: &mut Emitter, cmp: Cmp, own: Val, (of_one, of_all): (Val, Val)| {
                let (of_one, of_all) = (e.broadcast(of_one, lanes), e.broadcast(of_all, lanes));
                let (near, by_all) = (e.cmp(cmp, own, of_one), e.cmp(cmp, own, of_all));
                seen = e.and(seen, near);
                all = e.and(all, by_all);
                all
            };
            let mut alike = there;
            if let Some(((low, high), own)) = queries.segments.zip(number.segment) {
                let one = e.i64(1);
                let least = e.max_int(low, one);
                let greatest = e.max_int(high, one);
                both(e, Cmp::Ge, own, (least, greatest));
                alike = both(e, Cmp::Le, own, (high, low));
            }
            if let Some(((low, high), own)) = queries.positions.zip(number.position) {
                let [left, right] = self.bounds();
                if let Some(left) = left {
                    let left = e.i64(left);
                    let ends = (e.sub(low, left), e.sub(high, left));
                    both(e, Cmp::Ge, own, ends);
                }
                if let Some(right) = right {
                    let right = e.i64(right);
                    let ends = (e.add(high, right), e.add(low, right));
                    both(e, Cmp::Le, own, ends);
                }
            }
            let index = e.lane_index(at);
            let ones = e.int(ty, 1);
            let past = e.add(index, ones);
            let (from, to) = (e.select(seen, index, most), e.select(seen, past, none));
            let [all, alike] = [(all, found[2]), (alike, found[3])].map(|(is, count)| {
                let more = e.select(is, ones, none);
                e.add(count, more)
            });
            vec![e.min_int(found[0], from), e.max_int(found[1], to), all, alike]
        });
        let to = e.fold_lanes(found[1], Emitter::max_int);
        let from = e.fold_lanes(found[0], Emitter::min_int);
        let [all, alike] = [found[2], found[3]].map(|count| e.fold_lanes(count, Emitter::add));
        Trimmed { from: e.min_int(from, to), to, all, alike }
    }
}

/// Keys of a tile, by what some queries see of them.
pub struct Trimmed {
    /// Those before `from`, and those from `to` on, are seen by none.
    pub from: Val,
    pub to: Val,
    /// How many are seen by all.
    pub all: Val,
    /// How many have the one segment that all the queries have.
    pub alike: Val,
}

fn alike(e: &mut Emitter, a: Val, b: Val) -> (Val, Val) {
    match (a.ty.is_vector(), b.ty.is_vector()) {
        (true, false) => (a, e.broadcast(b, a.ty.lanes)),
        (false, true) => (e.broadcast(a, b.ty.lanes), b),
        _ => (a, b),
    }
}

impl Side {
    /// Without positions that count on: what they hide, [`Attention::run`] tells.
    pub fn stored(self) -> Self {
        Self { positions: self.positions.filter(|p| matches!(p, Numbers::Stored { .. })), ..self }
    }

    /// The number of one; of those past the end, that of the last.
    pub fn one(&self, e: &mut Emitter, index: Val) -> Number {
        let last = e.i64(self.size as i64 - 1);
        let index = e.min_int(index, last);
        let mut get = |numbers: Numbers| match numbers {
            Numbers::Counted(first) => e.add(first, index),
            Numbers::Stored { base, start, stride } => {
                let stride = e.i64(stride);
                let offset = e.mul(index, stride);
                let offset = e.add(start, offset);
                let at = e.at(base, Elem::I64, offset);
                e.load(at, Ty::I64)
            }
        };
        Number { segment: self.segments.map(&mut get), position: self.positions.map(&mut get) }
    }

    /// A full vector of numbers from `index` on; those past the end are of segment 0.
    pub fn lanes(&self, e: &mut Emitter, index: Val) -> Number {
        let mut get = |numbers: Numbers| match numbers {
            Numbers::Counted(first) => {
                let start = e.add(first, index);
                e.lane_index(start)
            }
            Numbers::Stored { base, start, stride } => {
                let size = e.i64(self.size as i64);
                let left = e.sub(size, index);
                let mask = e.lanes_below(left);
                let step = e.i64(stride);
                let offset = e.mul(index, step);
                let offset = e.add(start, offset);
                let at = e.at(base, Elem::I64, offset);
                e.load_strided(at, Elem::I64, stride.max(1), Some(mask))
            }
        };
        Number { segment: self.segments.map(&mut get), position: self.positions.map(&mut get) }
    }

    /// The extent of those from `first` on, of which there are `count` if so many are left.
    pub fn extent(&self, e: &mut Emitter, first: Val, count: Val) -> Extent {
        let size = e.i64(self.size as i64);
        let left = e.sub(size, first);
        let count = e.min_int(count, left);
        let mut get = |numbers: Numbers| match numbers {
            Numbers::Counted(start) => {
                let low = e.add(start, first);
                let (past, one) = (e.add(low, count), e.i64(1));
                (low, e.sub(past, one))
            }
            Numbers::Stored { .. } => {
                let side = Side { segments: Some(numbers), positions: None, size: self.size };
                let lanes = e.lanes();
                let ty = Ty::vector(Elem::I64, lanes);
                let (zero, least, most) = (e.i64(0), e.int(ty, i64::MIN), e.int(ty, i64::MAX));
                let found = e.for_each((zero, count, i64::from(lanes)), &[most, least], |e, at, found| {
                    let left = e.sub(count, at);
                    let there = e.first_lanes(left, lanes);
                    let index = e.add(first, at);
                    let Some(own) = side.lanes(e, index).segment else { return found.to_vec() };
                    let (low, high) = (e.select(there, own, most), e.select(there, own, least));
                    vec![e.min_int(found[0], low), e.max_int(found[1], high)]
                });
                let low = e.fold_lanes(found[0], Emitter::min_int);
                (low, e.fold_lanes(found[1], Emitter::max_int))
            }
        };
        Extent { segments: self.segments.map(&mut get), positions: self.positions.map(&mut get) }
    }
}

impl Extent {
    /// Numbers that [`Extent::save`] writes.
    pub const SAVED: u64 = 4;

    pub fn save(&self, e: &mut Emitter, to: Val) {
        let all = [self.segments, self.positions].into_iter().flatten().flat_map(|(low, high)| [low, high]);
        for (i, value) in all.enumerate() {
            let i = e.i64(i as i64);
            let at = e.at(to, Elem::I64, i);
            e.store(value, at);
        }
    }

    /// The same, read again where it was saved.
    pub fn read(side: &Side, e: &mut Emitter, from: Val) -> Extent {
        let mut next = 0;
        let mut pair = |there: bool| {
            there.then(|| {
                let both = [next, next + 1].map(|i| {
                    let i = e.i64(i);
                    let at = e.at(from, Elem::I64, i);
                    e.load(at, Ty::I64)
                });
                next += 2;
                (both[0], both[1])
            })
        };
        Extent { segments: pair(side.segments.is_some()), positions: pair(side.positions.is_some()) }
    }
}
