//! Scores of a tile become weights: the bias is added, what is hidden taken out, and the running maximum moves on.

use super::super::bias::BiasTile;
use super::super::visibility::Number;
use super::{Panel, Task};
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};
use crate::matmul::Word;

/// What hides keys of a tile from queries of a panel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    Nothing,
    /// How far queries see.
    Run,
    /// That, and their numbers.
    Numbers,
}

impl Task<'_> {
    /// Turns scores into weights relative to the new maximum, and rescales what was summed under the old one.
    pub(super) fn soften(
        &self,
        e: &mut Emitter,
        panel: &Panel,
        (key, (from, count)): (Val, (Val, Val)),
        (scores, weights): (Val, Val),
        bias: Option<&BiasTile>,
        hidden: Hidden,
    ) {
        let (attention, form, masked) = (self.attention, &self.layout.form, hidden != Hidden::Nothing);
        let vf32 = e.vf32();
        let lowest = e.vconst(f32::NEG_INFINITY);
        let vectors: Vec<u64> = (0..form.span / form.lanes).map(|vector| vector * form.lanes).collect();
        // The largest product has the largest exponent, so that factors can wait until it is known.
        let keeps_order = attention.factor() > 0.0 && bias.is_none();
        // What costs to find is found once, and put in the place of the score.
        let kept = bias.is_some() || (masked && self.sides.is_some());
        // Keys of this tile that each lane sees: those before the second, from the first on.
        let seen: Vec<Option<(Option<Val>, Val)>> =
            vectors.iter().map(|&lane| masked.then(|| self.seen_lanes(e, panel.first, lane, key))).collect();
        let own: Vec<Option<Number>> = vectors.iter().map(|&lane| self.numbers(e, panel, lane, hidden)).collect();
        let place = |e: &mut Emitter, row: Val, vector: usize| {
            let at = e.offset_words(scores, row, form.span);
            let offset = e.i64(vectors[vector] as i64);
            e.at(at, Elem::F32, offset)
        };
        let score = |e: &mut Emitter, row: Val, vector: usize| {
            let at = place(e, row, vector);
            let mut score = e.load(at, vf32);
            let factor = e.vconst(attention.factor());
            if let Some(bias) = bias {
                let lane = e.i64(vectors[vector] as i64);
                let added = bias.lanes(e, attention, form, row, lane);
                score = e.fma(score, factor, added);
            } else if !keeps_order {
                score = e.mul(score, factor);
            }
            let Some((low, high)) = seen[vector] else { return score };
            let narrow = e.truncate(row, Elem::I32);
            let narrow = e.splat(narrow);
            let mut sees = e.cmp(Cmp::Lt, narrow, high);
            if let Some(low) = low {
                let near = e.cmp(Cmp::Ge, narrow, low);
                sees = e.and(sees, near);
            }
            let sees = self.sees(e, (own[vector], key, row), sees);
            e.select(sees, score, lowest)
        };
        let found = |e: &mut Emitter, row: Val, vector: usize| {
            if !kept {
                return score(e, row, vector);
            }
            let at = place(e, row, vector);
            e.load(at, vf32)
        };
        let lane_at = |e: &mut Emitter, base: Val, lane: u64| {
            let lane = e.i64(lane as i64);
            e.at(base, Elem::F32, lane)
        };
        let mut old = Vec::new();
        for &lane in &vectors {
            let at = lane_at(e, panel.highest, lane);
            old.push(e.load(at, vf32));
        }
        // Rows two by two, whatever the words are.
        let (one, unseen) = (e.i64(1), vec![lowest; vectors.len()]);
        let best = e.for_each((from, count, 2), &unseen, |e, row, high| {
            let next = e.add(row, one);
            let mut highest = Vec::new();
            for (vector, &high) in high.iter().enumerate() {
                let [a, b] = [row, next].map(|row| {
                    let score = score(e, row, vector);
                    if kept {
                        let at = place(e, row, vector);
                        e.store(score, at);
                    }
                    score
                });
                let high = e.max_fast(high, a);
                highest.push(e.max_fast(high, b));
            }
            highest
        });
        let factor = e.vconst(if keeps_order { attention.factor() } else { 1.0 });
        let mut new = Vec::new();
        for (&old, &best) in old.iter().zip(&best) {
            let scaled = e.mul(best, factor);
            new.push(e.max_fast(old, scaled));
        }
        let none = e.vconst(0.0);
        let mut base = Vec::new();
        for (vector, &lane) in vectors.iter().enumerate() {
            let at = lane_at(e, panel.highest, lane);
            e.store(new[vector], at);
            // Where nothing is seen yet the maximum is no number to subtract.
            let blind = e.cmp(Cmp::Eq, new[vector], lowest);
            base.push(if masked || attention.may_be_blind() {
                e.select(blind, none, new[vector])
            } else {
                new[vector]
            });
        }
        let below: Vec<Val> = base.iter().map(|&base| e.neg(base)).collect();
        let start = vec![none; 2 * vectors.len()];
        let sums = e.for_each((from, count, 2), &start, |e, row, sums| {
            let next = e.add(row, one);
            let mut exponents = Vec::new();
            for (vector, &below) in below.iter().enumerate() {
                for row in [row, next] {
                    let score = found(e, row, vector);
                    exponents.push(e.fma(score, factor, below));
                }
            }
            let made = e.exp2_fast(&exponents);
            let mut totals = Vec::new();
            for (vector, (&lane, pair)) in vectors.iter().zip(made.chunks(2)).enumerate() {
                totals.push(e.add(sums[2 * vector], pair[0]));
                totals.push(e.add(sums[2 * vector + 1], pair[1]));
                match form.word {
                    Word::F32 => {
                        for (row, &weight) in [row, next].into_iter().zip(pair) {
                            let at = e.offset_words(weights, row, form.span);
                            let at = lane_at(e, at, lane);
                            e.store(weight, at);
                        }
                    }
                    Word::Bf16Pair => {
                        let words = e.bf16_pairs(pair[0], pair[1]);
                        let two = e.i64(2);
                        let half = e.div_unsigned(row, two);
                        let at = e.offset_words(weights, half, form.span);
                        let at = lane_at(e, at, lane);
                        e.store(words, at);
                    }
                }
            }
            totals
        });
        let fallen: Vec<Val> = old.iter().zip(&base).map(|(&old, &base)| e.sub(old, base)).collect();
        let shrinks = e.exp2_fast(&fallen);
        for ((&lane, &shrink), sum) in vectors.iter().zip(&shrinks).zip(sums.chunks(2)) {
            let at = lane_at(e, panel.totals, lane);
            let total = e.load(at, vf32);
            let sum = e.add(sum[0], sum[1]);
            let total = e.fma(total, shrink, sum);
            e.store(total, at);
        }
        e.for_count(attention.head.size, 1, |e, d| {
            let line = e.offset_words(panel.sums, d, form.span);
            for (&lane, &shrink) in vectors.iter().zip(&shrinks) {
                let at = lane_at(e, line, lane);
                let sum = e.load(at, vf32);
                let sum = e.mul(sum, shrink);
                e.store(sum, at);
            }
        });
    }

    /// The numbers of a panel's queries from `lane` on, where they hide keys.
    fn numbers(&self, e: &mut Emitter, panel: &Panel, lane: u64, hidden: Hidden) -> Option<Number> {
        let [queries, _] = self.sides.as_ref().filter(|_| hidden == Hidden::Numbers)?;
        let lane = e.i64(lane as i64);
        let query = e.add(panel.first, lane);
        Some(queries.stored().lanes(e, query))
    }

    /// `sees`, where no number hides the key in this row of the tile from `key` on.
    fn sees(&self, e: &mut Emitter, (own, key, row): (Option<Number>, Val, Val), sees: Val) -> Val {
        let Some((own, [_, keys])) = own.zip(self.sides.as_ref()) else { return sees };
        let key = e.add(key, row);
        let other = keys.stored().one(e, key);
        match self.attention.sees(e, own, other) {
            Some(by_number) => e.and(sees, by_number),
            None => sees,
        }
    }

    /// For each of the queries from `first + lane` on, the keys from `key` on that it sees, if no number hides them: from the
    /// first one to before the second; may be negative.
    fn seen_lanes(&self, e: &mut Emitter, first: Val, lane: u64, key: Val) -> (Option<Val>, Val) {
        let left = e.sub(self.window.length, key);
        let left = e.truncate(left, Elem::I32);
        let left = e.splat(left);
        let in_lanes = |e: &mut Emitter, start: Val| {
            let start = e.truncate(start, Elem::I32);
            let start = e.splat(start);
            let steps = e.steps(Ty::vector(Elem::I32, start.ty.lanes));
            e.add(start, steps)
        };
        if self.attention.is_run() {
            let lane = e.i64(lane as i64);
            let query = e.add(first, lane);
            let [low, high] = self.attention.run(e, query, key).map(|end| end.map(|end| in_lanes(e, end)));
            return (low, high.map_or(left, |high| e.min_int(high, left)));
        }
        if !self.attention.causal {
            return (None, left);
        }
        let one = e.i64(lane as i64 + 1);
        let ahead = e.add(first, one);
        let ahead = e.add(ahead, self.window.reach);
        let ahead = e.sub(ahead, key);
        let ahead = in_lanes(e, ahead);
        (None, e.min_int(ahead, left))
    }
}
