//! Copies blocks of the left operand into words, where they cannot be read in place.

use super::blocks::{Panels, Span};
use super::tiling::Lhs;
use super::{LHS, Matmul, Tiling, Word};
use crate::emit::{Cmp, Elem, Emitter, Val};
use crate::nest::points;

/// Words of K between what is copied and what is fetched for later: rows of K are too far apart in memory for the machine
/// to see where the next one is.
const AHEAD: i64 = 16;

/// Packs a block of rows.
pub fn pack(e: &mut Emitter, matmul: &Matmul, tiling: &Tiling, base: Val, span: &Span, (m, to): (Panels, Val)) {
    let start = span.offset(e, matmul, LHS);
    let zero = e.i64(0);
    let stride = matmul.depth().1.strides[LHS];
    let source = Source { base, elem: matmul.lhs, word: tiling.word, stride };
    let rows = e.i64(i64::from(tiling.rows));
    let first = e.mul(m.first, rows);
    let count = e.mul(m.count, rows);
    let total = e.i64(points(&matmul.m) as i64);
    let left = e.sub(total, first);
    let count = e.min_int(count, left);
    let [panel_step, row_step, k_step] = tiling.lhs_steps();
    if let (Lhs::Steps, [dim]) = (tiling.lhs, &matmul.m[..])
        && dim.strides[LHS] == 1
    {
        let from = e.add(start, first);
        return across_rows(e, tiling, &source, (from, count), to, span);
    }
    e.for_range((zero, count, 1), |e, row| {
        let m = e.add(first, row);
        let offset = e.offset_linear(&matmul.m, m, LHS);
        let from = e.add(start, offset);
        let (panel, within) = (e.div_unsigned(row, rows), e.rem_unsigned(row, rows));
        let (panel_step, row_step) = (e.i64(panel_step as i64), e.i64(row_step as i64));
        let (panel, within) = (e.mul(panel, panel_step), e.mul(within, row_step));
        let to_row = e.add(panel, within);
        let to_row = e.at(to, Elem::F32, to_row);
        match tiling.lhs {
            Lhs::Rows => whole_row(e, &source, from, to_row, span),
            _ => word_by_word(e, &source, from, (to_row, k_step), span),
        }
    });
}

/// The operand that is packed.
pub struct Source {
    pub base: Val,
    pub elem: Elem,
    pub word: Word,
    /// Elements from one step of K to the next.
    pub stride: i64,
}

impl Source {
    /// The words of step `k` of `lanes` columns or rows (0: of one) that are `step` elements apart from offset `from` on.
    pub fn words(&self, e: &mut Emitter, from: Val, (k, span): (Val, &Span), step: i64, mask: Option<Val>) -> Val {
        let one = e.i64(1);
        let depth = e.i64(self.word.depth() as i64);
        let k = e.mul(k, depth);
        match self.word {
            Word::F32 => self.steps(e, from, k, step, mask),
            Word::Bf16Pair => {
                let next = e.add(k, one);
                let exists = e.cmp(Cmp::Lt, next, span.k);
                let even = self.steps(e, from, k, step, mask);
                // A step that does not exist is zero; it is not read.
                let safe = e.select(exists, next, k);
                let odd = self.steps(e, from, safe, step, mask);
                let zero = e.float(odd.ty, 0.0);
                let odd = match odd.ty.is_vector() {
                    true => {
                        let exists = e.broadcast(exists, odd.ty.lanes);
                        e.select(exists, odd, zero)
                    }
                    false => e.select(exists, odd, zero),
                };
                weave(e, even, odd)
            }
        }
    }

    /// Asks for what [`Source::words`] will read some rows of K later.
    pub fn prefetch(&self, e: &mut Emitter, from: Val, k: Val) {
        let depth = self.word.depth() as i64;
        for step in 0..depth {
            let later = e.i64(AHEAD * depth + step);
            let depth = e.i64(depth);
            let k = e.mul(k, depth);
            let k = e.add(k, later);
            let stride = e.i64(self.stride);
            let offset = e.mul(k, stride);
            let offset = e.add(from, offset);
            let at = e.at(self.base, self.elem, offset);
            e.prefetch(at);
        }
    }

    /// Elements at step `k`, widened.
    fn steps(&self, e: &mut Emitter, from: Val, k: Val, step: i64, mask: Option<Val>) -> Val {
        let stride = e.i64(self.stride);
        let offset = e.mul(k, stride);
        let offset = e.add(from, offset);
        let at = e.at(self.base, self.elem, offset);
        match mask {
            Some(_) => e.load_strided(at, self.elem, step, mask),
            None => e.load_wide(at, self.elem, 0, None),
        }
    }
}

/// Pairs of `bf16`, from two values that are widened `bf16`: the first is the lower half.
pub fn weave(e: &mut Emitter, low: Val, high: Val) -> Val {
    let (low, high) = (e.bitcast(low, Elem::I32), e.bitcast(high, Elem::I32));
    let sixteen = e.int(low.ty, 16);
    let low = e.shr_unsigned(low, sixteen);
    let pair = e.or(low, high);
    e.bitcast(pair, Elem::F32)
}

/// An operand whose rows are neighbours in memory: each panel's share of a word of K is a vector or two. What a vector holds
/// beyond the panel is overwritten by the next word's.
fn across_rows(e: &mut Emitter, tiling: &Tiling, source: &Source, (from, rows): (Val, Val), to: Val, span: &Span) {
    let zero = e.i64(0);
    let [panel_step, _, k_step] = tiling.lhs_steps();
    e.for_range((zero, span.words, 1), |e, k| {
        let step = e.i64(k_step as i64);
        let line = e.mul(k, step);
        let line = e.at(to, Elem::F32, line);
        e.for_range((zero, rows, i64::from(tiling.rows)), |e, row| {
            let (panel_rows, step) = (e.i64(i64::from(tiling.rows)), e.i64(panel_step as i64));
            let panel = e.div_unsigned(row, panel_rows);
            let panel = e.mul(panel, step);
            let line = e.at(line, Elem::F32, panel);
            let from = e.add(from, row);
            source.prefetch(e, from, k);
            let rest = e.sub(rows, row);
            let mask = e.lanes_below(rest);
            let values = source.words(e, from, (k, span), 1, Some(mask));
            e.store(values, line);
        });
    });
}

/// One row whose steps of K are neighbours.
pub fn whole_row(e: &mut Emitter, source: &Source, from: Val, to: Val, span: &Span) {
    let lanes = e.lanes();
    let zero = e.i64(0);
    let from = e.at(source.base, source.elem, from);
    e.for_range((zero, span.words, i64::from(lanes)), |e, word| {
        let words = run_of_words(e, source, from, word, span);
        // Past the end there is padding.
        let to = e.at(to, Elem::F32, word);
        e.store(words, to);
    });
}

/// A vector of words from neighbouring steps of K, from word `word` on; zero past the end.
pub fn run_of_words(e: &mut Emitter, source: &Source, from: Val, word: Val, span: &Span) -> Val {
    let lanes = e.lanes() * source.word.depth() as u32;
    let depth = e.i64(source.word.depth() as i64);
    let k = e.mul(word, depth);
    let left = e.sub(span.k, k);
    let mask = e.first_lanes(left, lanes);
    let at = e.at(from, source.elem, k);
    match source.word {
        Word::F32 => e.load_wide(at, source.elem, lanes, Some(mask)),
        Word::Bf16Pair => e.load_pairs(at, lanes, mask),
    }
}

/// One row whose steps of K lie apart; its words go `k_step` apart.
pub fn word_by_word(e: &mut Emitter, source: &Source, from: Val, (to, k_step): (Val, u64), span: &Span) {
    let zero = e.i64(0);
    e.for_range((zero, span.words, 1), |e, k| {
        let value = source.words(e, from, (k, span), 0, None);
        let step = e.i64(k_step as i64);
        let index = e.mul(k, step);
        let to = e.at(to, Elem::F32, index);
        e.store(value, to);
    });
}
