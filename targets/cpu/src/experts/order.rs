//! Numbers in the order of the experts that they name: a stable counting sort.

use super::problem::{Bases, Experts};
use crate::emit::{Elem, Emitter, Ty, Val};

/// Where the order is in scratch.
#[derive(Clone, Copy)]
pub struct Order {
    /// `i64`: where each expert's numbers begin; then where those begin that name none, and where these end.
    starts: Val,
    /// `i32`: indices of numbers, expert by expert.
    sorted: Val,
}

impl Order {
    /// Words of scratch: starts, ends while they are filled, and the order itself.
    pub fn words(experts: &Experts) -> u64 {
        Self::sorted_at(experts) + experts.count().next_multiple_of(16)
    }

    fn sorted_at(experts: &Experts) -> u64 {
        2 * Self::line(experts)
    }

    fn line(experts: &Experts) -> u64 {
        (2 * (experts.experts.size + 2)).next_multiple_of(16)
    }

    /// The order in the scratch of a part, of so many words, and where the scratch behind it begins.
    pub fn of_part(
        e: &mut Emitter,
        experts: &Experts,
        bases: &Bases,
        (part, words): (Val, u64),
        workspace: Val,
    ) -> (Order, Val) {
        let own = e.i64(words as i64);
        let own = e.mul(part, own);
        let own = e.at(workspace, Elem::F32, own);
        let order = Order::new(e, experts, bases, own);
        let behind = e.i64(Self::words(experts) as i64);
        (order, e.at(own, Elem::F32, behind))
    }

    /// Sorts all numbers into `scratch`.
    fn new(e: &mut Emitter, experts: &Experts, bases: &Bases, scratch: Val) -> Order {
        let (line, sorted) = (e.i64(Self::line(experts) as i64), e.i64(Self::sorted_at(experts) as i64));
        let next = e.at(scratch, Elem::F32, line);
        let order = Order { starts: scratch, sorted: e.at(scratch, Elem::F32, sorted) };
        let (zero, one) = (e.i64(0), e.i64(1));
        let (kinds, count) = (e.i64(experts.experts.size as i64 + 1), e.i64(experts.count() as i64));
        let bounds = e.add(kinds, one);
        e.for_each((zero, bounds, 1), &[], |e, kind, _| {
            let at = e.at(order.starts, Elem::I64, kind);
            e.store(zero, at);
            Vec::new()
        });
        e.for_each((zero, count, 1), &[], |e, index, _| {
            let kind = experts.expert(e, bases, index);
            let after = e.add(kind, one);
            bump(e, order.starts, after);
            Vec::new()
        });
        e.for_each((zero, kinds, 1), &[zero], |e, kind, sum| {
            let after = e.add(kind, one);
            let at = e.at(order.starts, Elem::I64, after);
            let own = e.load(at, Ty::I64);
            let end = e.add(sum[0], own);
            e.store(end, at);
            let at = e.at(next, Elem::I64, kind);
            e.store(sum[0], at);
            vec![end]
        });
        e.for_each((zero, count, 1), &[], |e, index, _| {
            let kind = experts.expert(e, bases, index);
            let place = bump(e, next, kind);
            let at = e.at(order.sorted, Elem::I32, place);
            let index = e.truncate(index, Elem::I32);
            e.store(index, at);
            Vec::new()
        });
        order
    }

    /// The places of an expert's numbers in the order: the first, and behind the last.
    pub fn bounds(&self, e: &mut Emitter, expert: Val) -> (Val, Val) {
        let one = e.i64(1);
        let next = e.add(expert, one);
        let [first, end] = [expert, next].map(|kind| {
            let at = e.at(self.starts, Elem::I64, kind);
            e.load(at, Ty::I64)
        });
        (first, end)
    }

    /// The index of the number at a place.
    pub fn index(&self, e: &mut Emitter, place: Val) -> Val {
        let at = e.at(self.sorted, Elem::I32, place);
        let index = e.load(at, Ty::I32);
        e.extend_unsigned(index, Elem::I64)
    }
}

/// Adds 1 to a count; gives what it was.
fn bump(e: &mut Emitter, counts: Val, kind: Val) -> Val {
    let one = e.i64(1);
    let at = e.at(counts, Elem::I64, kind);
    let old = e.load(at, Ty::I64);
    let new = e.add(old, one);
    e.store(new, at);
    old
}
