//! One tile of queries and keys: scores become weights and their gradients, and each product adds to its sums.

use super::super::BIAS;
use super::super::visibility::{Number, Side};
use super::{Task, Tile};
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};
use crate::matmul::{Micro, Word};

impl Task<'_> {
    pub(super) fn tile(&self, e: &mut Emitter, member: Val, tile: &Tile) {
        let (layout, form) = (self.layout, &self.layout.form);
        let (zero, most) = (e.i64(0), e.i64(layout.queries_tile as i64));
        let left = e.sub(self.queries.1, tile.query);
        let here = e.min_int(left, most);
        let padded = e.next_multiple(here, form.rows);
        let first = self.sum_row(e, member, tile.query);
        let [queries, douts] = [layout.queries, layout.douts].map(|area| {
            let area = self.area(e, area);
            e.offset_words(area, first, form.stride)
        });
        let [interleaved_queries, interleaved_douts] =
            [layout.interleaved_queries, layout.interleaved_douts].map(|area| self.interleaved(e, area, first));
        let (scores, dscores) = (self.area(e, layout.scores), self.area(e, layout.dscores));
        let words = e.i64(form.words as i64);
        let inner = form.micro(form.span, (form.stride, 1), form.span, layout.line);
        let all = self.window.seen(e, self.attention, tile.query);
        // Scores become weights right after their product, while they are in the nearest cache.
        e.for_each((tile.from, tile.lanes, form.span as i64), &[], |e, lane, _| {
            // Whether the first query sees all keys of the panel; then they all do.
            let span = e.i64(form.span as i64);
            let end = e.add(tile.key, lane);
            let end = e.add(end, span);
            let whole = e.cmp(Cmp::Le, end, all);
            let (whole, alike) = match (&self.sides, &tile.extent) {
                (Some([_, numbers]), Some(own)) => {
                    let first = e.add(tile.key, lane);
                    let keys = numbers.extent(e, first, span);
                    let all = self.attention.all_see(e, own, &keys);
                    (e.and(whole, all), Some(self.attention.all_alike(e, own, &keys)))
                }
                _ => (whole, None),
            };
            e.for_range((zero, padded, form.rows as i64), |e, row| {
                for (rows, panels, to) in [(queries, layout.k_panels, scores), (douts, layout.v_panels, dscores)] {
                    let panels = self.area(e, panels);
                    let panel = self.panel(e, panels, lane);
                    let (a, c) = (e.offset_words(rows, row, form.stride), e.offset_words(to, row, layout.line));
                    let c = e.at(c, Elem::F32, lane);
                    e.micro_words((form.word, inner), (a, panel, c), words, zero);
                }
                let weigh = |e: &mut Emitter, masked: bool, numbered: bool| {
                    self.weigh(e, (member, tile), (row, lane), masked, numbered);
                    Vec::new()
                };
                let hidden = |e: &mut Emitter| match alike.filter(|_| self.attention.is_run()) {
                    Some(alike) => e.if_else(alike, &[], |e| weigh(e, true, false), |e| weigh(e, true, true)),
                    None => weigh(e, true, true),
                };
                e.if_else(whole, &[], |e| weigh(e, false, false), hidden);
            });
            Vec::new()
        });
        if self.by_keys {
            let inner = form.micro(form.breadth, (1, layout.line), form.interleaved, form.interleaved);
            let pair = e.i64(form.word.depth() as i64);
            let words = e.div_unsigned(padded, pair);
            let rows = e.sub(tile.keys, tile.from);
            let rows = e.next_multiple(rows, form.rows);
            let rows = e.add(tile.from, rows);
            self.close(e, (padded, rows), tile.lanes);
            for (weights, with, sums) in [
                (layout.interleaved_weights, interleaved_douts, layout.v_sums),
                (layout.interleaved_dscores, interleaved_queries, layout.k_sums),
            ] {
                let (weights, sums) = (self.area(e, weights), self.key_sums(e, sums, tile.key));
                self.columns(e, (tile.from, rows), |e, row, d| {
                    let (a, b) = (e.at(weights, Elem::F32, row), e.at(with, Elem::F32, d));
                    let c = e.offset_words(sums, row, form.interleaved);
                    let c = e.at(c, Elem::F32, d);
                    (inner, (a, b, c), words)
                });
            }
        }
        if self.by_queries {
            let inner = form.micro(form.breadth, (layout.half_line, 1), form.interleaved, form.depth);
            let pair = e.i64(form.word.depth() as i64);
            let lanes = e.sub(tile.lanes, tile.from);
            let words = e.div_unsigned(lanes, pair);
            let behind = e.div_unsigned(tile.from, pair);
            let (dscores, keys, sums) =
                (self.area(e, layout.dscore_rows), self.area(e, layout.keys), self.area(e, layout.q_sums));
            let sums = e.offset_words(sums, first, form.depth);
            let keys = e.offset_words(keys, behind, form.interleaved);
            let dscores = e.at(dscores, Elem::F32, behind);
            self.columns(e, (zero, padded), |e, row, d| {
                let (a, b) = (e.offset_words(dscores, row, layout.half_line), e.at(keys, Elem::F32, d));
                let c = e.offset_words(sums, row, form.depth);
                let c = e.at(c, Elem::F32, d);
                (inner, (a, b, c), words)
            });
        }
    }

    /// Zeros behind the last panel, where tiles of keys reach beyond it.
    fn close(&self, e: &mut Emitter, (queries, keys): (Val, Val), lanes: Val) {
        let (layout, form) = (self.layout, &self.layout.form);
        if form.lanes.is_multiple_of(form.rows) {
            return;
        }
        let beyond = e.cmp(Cmp::Gt, keys, lanes);
        e.if_then(beyond, |e| {
            let zero = e.i64(0);
            e.for_range((zero, queries, 1), |e, row| {
                for area in [layout.interleaved_weights, layout.interleaved_dscores] {
                    let line = self.area(e, area);
                    let line = e.offset_words(line, row, layout.line);
                    let line = e.at(line, Elem::F32, lanes);
                    e.clear(line, form.lanes);
                }
            });
        });
    }

    /// Adds to all tiles of `rows` sums as wide as a head.
    fn columns(
        &self,
        e: &mut Emitter,
        (from, to): (Val, Val),
        product: impl FnOnce(&mut Emitter, Val, Val) -> (Micro, (Val, Val, Val), Val),
    ) {
        let (form, one) = (&self.layout.form, e.i64(1));
        e.for_count(form.depth, form.breadth, |e, d| {
            e.for_each((from, to, form.rows as i64), &[], |e, row, _| {
                let (inner, operands, words) = product(e, row, d);
                e.micro_words((form.word, inner), operands, words, one);
                Vec::new()
            });
        });
    }

    /// Turns a tile of scores from `(first, lane)` on into weights, and products of dout and v into gradients of scores.
    /// `numbered`: whether numbers may hide some, beside how far queries see.
    fn weigh(
        &self,
        e: &mut Emitter,
        (member, tile): (Val, &Tile),
        (first, lane): (Val, Val),
        masked: bool,
        numbered: bool,
    ) {
        let (layout, form, vf32) = (self.layout, &self.layout.form, e.vf32());
        let [scores, dscores, lses, deltas] =
            [layout.scores, layout.dscores, layout.lses, layout.deltas].map(|offset| self.area(e, offset));
        let [interleaved_weights, interleaved_dscores, dscore_rows] =
            [layout.interleaved_weights, layout.interleaved_dscores, layout.dscore_rows]
                .map(|offset| self.area(e, offset));
        let vectors: Vec<i64> = (0..form.span / form.lanes).map(|vector| (vector * form.lanes) as i64).collect();
        // Rows two by two, whatever the words are.
        let (one, count) = (e.i64(1), e.i64(form.rows as i64));
        let end = e.add(first, count);
        let sides = self.sides.as_ref().filter(|_| numbered).map(|sides| sides.map(Side::stored));
        let sides = sides.as_ref();
        let place = self.place(e, member);
        let bias = self.attention.bias_rows(e, self.bases, &place, BIAS);
        let keys: Vec<Option<Number>> = vectors
            .iter()
            .map(|&vector| {
                let [_, numbers] = sides?;
                let vector = e.i64(vector);
                let key = e.add(tile.key, lane);
                let key = e.add(key, vector);
                Some(numbers.lanes(e, key))
            })
            .collect();
        e.for_range((first, end, 2), |e, row| {
            let rows = [row, e.add(row, one)];
            let numbers = rows.map(|row| {
                let at = e.add(tile.row, row);
                [lses, deltas].map(|numbers| {
                    let at = e.at(numbers, Elem::F32, at);
                    let number = e.load(at, Ty::F32);
                    e.splat(number)
                })
            });
            let seen = rows.map(|row| {
                masked.then(|| {
                    let query = e.add(tile.query, row);
                    let seen = self.window.seen(e, self.attention, query);
                    let seen = e.sub(seen, tile.key);
                    let [low, high] = self.attention.run(e, query, tile.key);
                    let seen = high.map_or(seen, |high| e.min_int(high, seen));
                    [low, Some(seen)].map(|end| {
                        end.map(|end| {
                            let end = e.truncate(end, Elem::I32);
                            e.splat(end)
                        })
                    })
                })
            });
            let own = rows.map(|row| {
                sides.map(|[queries, _]| {
                    let query = e.add(tile.query, row);
                    queries.one(e, query)
                })
            });
            let at = |e: &mut Emitter, base, (line, stride), vector: i64| {
                let line = e.offset_words(base, line, stride);
                let offset = e.i64(vector);
                let offset = e.add(lane, offset);
                e.at(line, Elem::F32, offset)
            };
            let places: Vec<(usize, i64)> = vectors.iter().flat_map(|&vector| [(0, vector), (1, vector)]).collect();
            let mut exponents = Vec::new();
            let mut visible = Vec::new();
            for &(i, vector) in &places {
                let score_at = at(e, scores, (rows[i], layout.line), vector);
                let score = e.load(score_at, vf32);
                let factor = e.vconst(self.attention.factor());
                let mut exponent = match bias {
                    None => e.fma(score, factor, numbers[i][0]),
                    Some(bias) => {
                        let query = e.add(tile.query, rows[i]);
                        let offset = e.i64(vector);
                        let key = e.add(tile.key, lane);
                        let key = e.add(key, offset);
                        let added = self.attention.bias_of_keys(e, bias, query, key);
                        let score = e.fma(score, factor, added);
                        e.add(score, numbers[i][0])
                    }
                };
                if let Some([low, Some(high)]) = seen[i] {
                    let key = e.i64(vector);
                    let key = e.add(lane, key);
                    let key = e.truncate(key, Elem::I32);
                    let key = e.splat(key);
                    let steps = e.steps(key.ty);
                    let key = e.add(key, steps);
                    let mut sees = e.cmp(Cmp::Lt, key, high);
                    if let Some(low) = low {
                        let near = e.cmp(Cmp::Ge, key, low);
                        sees = e.and(sees, near);
                    }
                    let of_lanes = keys[vector as usize / form.lanes as usize];
                    let by_number = own[i].zip(of_lanes).and_then(|(own, keys)| self.attention.sees(e, own, keys));
                    let sees = by_number.map_or(sees, |by_number| e.and(sees, by_number));
                    let hidden = e.vconst(f32::NEG_INFINITY);
                    exponent = e.select(sees, exponent, hidden);
                    visible.push(sees);
                }
                let most = e.vconst(127.0);
                exponents.push(e.min_fast(most, exponent));
            }
            let weights = e.exp2_fast(&exponents);
            let mut cells = Vec::new();
            let isolated = self.sides.is_some() || self.by_scores;
            for (n, (&(i, vector), weight)) in places.iter().zip(weights).enumerate() {
                let dscore_at = at(e, dscores, (rows[i], layout.line), vector);
                let dscore = e.load(dscore_at, vf32);
                let centred = e.sub(dscore, numbers[i][1]);
                let mut dscore = e.mul(weight, centred);
                if let Some(&sees) = visible.get(n).filter(|_| isolated) {
                    let none = e.vconst(0.0);
                    dscore = e.select(sees, dscore, none);
                }
                if self.by_scores {
                    let (query, offset) = (e.add(tile.query, rows[i]), e.i64(vector));
                    let key = e.add(tile.key, lane);
                    let key = e.add(key, offset);
                    let ends = (self.queries.1, self.keys.1);
                    self.attention.store_score_gradients(e, (self.bases, &place), (query, key), ends, dscore);
                }
                if form.word == Word::F32 {
                    let score_at = at(e, scores, (rows[i], layout.line), vector);
                    e.store(weight, score_at);
                    e.store(dscore, dscore_at);
                }
                cells.push((weight, dscore));
            }
            if form.word == Word::F32 {
                return;
            }
            let two = e.i64(2);
            let half = e.div_unsigned(row, two);
            for (cell, &vector) in cells.chunks(2).zip(&vectors) {
                for (base, low, high) in
                    [(interleaved_weights, cell[0].0, cell[1].0), (interleaved_dscores, cell[0].1, cell[1].1)]
                {
                    let words = e.bf16_pairs(low, high);
                    let to = at(e, base, (half, layout.line), vector);
                    e.store(words, to);
                }
            }
            let lane = e.div_unsigned(lane, two);
            for (i, &row) in rows.iter().enumerate() {
                let none = e.float(vf32, 0.0);
                let next = if vectors.len() == 2 { cells[2 + i].1 } else { none };
                let words = e.bf16_words(cells[i].1, next);
                let line = e.offset_words(dscore_rows, row, layout.half_line);
                let to = e.at(line, Elem::F32, lane);
                e.store(words, to);
            }
        });
    }
}
