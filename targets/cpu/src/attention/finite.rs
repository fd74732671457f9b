//! Numbers that are none: what one sample has of them must not reach another in the same tile, whose weights for it are zero.
//!
//! Zero times infinity is no number. So products see zeros in their place, and what a query of the same sample is due is
//! added behind the product.

use super::tiles::{Rows, TileLayout};
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};
use crate::matmul::Word;

impl Emitter {
    /// `x`, of `f32` or the bits of `bf16`, with zeros where it is infinite or no number; and `seen` with ones there.
    pub(super) fn finite(&mut self, x: Val, seen: Val) -> (Val, Val) {
        let none = if x.ty.elem == Elem::F32 { self.float(x.ty, 0.0) } else { self.int(x.ty, 0) };
        let is = if x.ty.elem == Elem::F32 {
            let (size, end) = (self.abs(x), self.float(x.ty, f64::INFINITY));
            self.cmp(Cmp::Lt, size, end)
        } else {
            let all = self.int(x.ty, 0x7f80);
            let exponent = self.and(x, all);
            self.cmp(Cmp::Ne, exponent, all)
        };
        let ones = self.int(seen.ty, 1);
        (self.select(is, x, none), self.select(is, seen, ones))
    }

    /// Vectors in which [`Emitter::finite`] notes what it came across.
    pub(super) fn nothing_seen(&mut self, lanes: u32, elem: Elem) -> Val {
        self.int(Ty::vector(elem, lanes), 0)
    }

    /// Whether something was noted.
    pub(super) fn any_seen(&mut self, seen: Val) -> Val {
        let most = self.fold_lanes(seen, Emitter::max_int);
        let zero = self.int(most.ty, 0);
        self.cmp(Cmp::Gt, most, zero)
    }

    /// Adds to `sums[d, lane]` what the rows `from..to` of values have that is not finite, times weights that are not zero.
    /// The row of values 0 is that from `first` on, of `limit`.
    pub(super) fn add_not_finite(
        &mut self,
        rows: Rows,
        form: &TileLayout,
        (first, limit): (Val, Val),
        (from, to): (Val, Val),
        (weights, sums): (Val, Val),
    ) {
        let left = self.sub(limit, first);
        let to = self.min_int(to, left);
        self.for_range((from, to, 1), |e, row| {
            e.for_count(rows.depth, 1, |e, d| {
                let at = e.add(first, row);
                let at = rows.at(e, at, d);
                let value = e.load_wide(at, rows.elem, 0, None);
                let (size, end) = (e.abs(value), e.float(value.ty, f64::INFINITY));
                let is = e.cmp(Cmp::Lt, size, end);
                let no = e.int(is.ty, 0);
                let odd = e.cmp(Cmp::Eq, is, no);
                e.if_then(odd, |e| {
                    let value = e.splat(value);
                    e.for_count(form.span, form.lanes, |e, lane| {
                        let weight = e.weight(form, weights, row, lane);
                        let zero = e.vconst(0.0);
                        let counts = e.cmp(Cmp::Gt, weight, zero);
                        let due = e.mul(weight, value);
                        let due = e.select(counts, due, zero);
                        let line = e.offset_words(sums, d, form.span);
                        let at = e.at(line, Elem::F32, lane);
                        let vf32 = e.vf32();
                        let sum = e.load(at, vf32);
                        let sum = e.add(sum, due);
                        e.store(sum, at);
                    });
                });
            });
        });
    }

    /// The weights of a row for the queries from `lane` on, out of a tile that is ready for its product.
    fn weight(&mut self, form: &TileLayout, weights: Val, row: Val, lane: Val) -> Val {
        let vf32 = self.vf32();
        if form.word == Word::F32 {
            let line = self.offset_words(weights, row, form.span);
            let at = self.at(line, Elem::F32, lane);
            return self.load(at, vf32);
        }
        let two = self.i64(2);
        let (pair, odd) = (self.div_unsigned(row, two), self.rem_unsigned(row, two));
        let line = self.offset_words(weights, pair, form.span);
        let at = self.at(line, Elem::F32, lane);
        let words = self.load(at, vf32.with(Elem::I32));
        let (sixteen, high) = (self.int(words.ty, 16), self.int(words.ty, -65536));
        let (low, high) = (self.shl(words, sixteen), self.and(words, high));
        let one = self.i64(1);
        let second = self.cmp(Cmp::Eq, odd, one);
        let bits = self.select(second, high, low);
        self.bitcast(bits, Elem::F32)
    }
}
