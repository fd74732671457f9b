//! What is added to scores before they become weights: read as the lanes of a tile run, along queries or along keys.

use super::problem::{BIAS, DBIAS};
use super::tiles::{Rows, TileLayout};
use super::{Attention, Bases, Place};
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};

/// How a bias is read where lanes run along queries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AlongQueries {
    /// One number for all queries.
    One,
    /// From memory, for it lies so or is the same for all keys.
    Lanes,
    /// From scratch, into which it is turned.
    Turned,
}

impl Attention {
    /// The bias, or the gradient of scores, of one head: rows are queries, and depth runs along the keys.
    pub fn bias_rows(&self, e: &mut Emitter, bases: &Bases, place: &Place, operand: usize) -> Option<Rows> {
        let (base, elem) = (bases[operand]?, if operand == BIAS { self.bias? } else { Elem::F32 });
        let start = e.offset_linear(&self.batch, place.batch, operand);
        let stride = e.i64(self.heads.strides[operand]);
        let head = e.mul(place.head, stride);
        Some(Rows {
            base,
            elem,
            start: e.add(start, head),
            row_stride: self.queries.strides[operand],
            depth_stride: self.keys.strides[operand],
            depth: self.keys.size,
        })
    }

    pub fn along_queries(&self) -> Option<AlongQueries> {
        self.bias?;
        Some(match (self.queries.strides[BIAS], self.keys.strides[BIAS]) {
            (0, _) => AlongQueries::One,
            (1, _) | (_, 0) => AlongQueries::Lanes,
            _ => AlongQueries::Turned,
        })
    }

    /// Whether a row of scores may be all -inf though its keys are seen.
    pub fn may_be_blind(&self) -> bool {
        self.bias.is_some()
    }

    /// A full vector of the bias of `query` for the keys from `key` on, times log2(e); what is not there is zero.
    pub fn bias_of_keys(&self, e: &mut Emitter, rows: Rows, query: Val, key: Val) -> Val {
        let last = e.i64(self.queries.size as i64 - 1);
        let query = e.min_int(query, last);
        let values = if rows.depth_stride == 0 {
            let zero = e.i64(0);
            let at = rows.at(e, query, zero);
            let one = e.load_wide(at, rows.elem, 0, None);
            e.splat(one)
        } else {
            let there = e.int(Ty::scalar(Elem::I1), 1);
            rows.values_where(e, query, key, Some(there))
        };
        in_base_two(e, values)
    }

    /// Stores the gradients of scores of `query` for the keys from `key` on, where both are before their ends.
    pub fn store_score_gradients(
        &self,
        e: &mut Emitter,
        (bases, place): (&Bases, &Place),
        (query, key): (Val, Val),
        (queries, keys): (Val, Val),
        values: Val,
    ) {
        let Some(rows) = self.bias_rows(e, bases, place, DBIAS) else { return };
        let (left, none) = (e.sub(keys, key), e.i64(0));
        let there = e.cmp(Cmp::Lt, query, queries);
        let left = e.select(there, left, none);
        let mask = e.lanes_below(left);
        let at = rows.at(e, query, key);
        e.store_strided(values, at, rows.elem, rows.depth_stride.max(1), Some(mask));
    }

    /// Zeros for the gradients of scores of some queries of a head.
    pub fn clear_score_gradients(&self, e: &mut Emitter, bases: &Bases, place: &Place, (from, to): (Val, Val)) {
        let Some(rows) = self.bias_rows(e, bases, place, DBIAS) else { return };
        let lanes = u64::from(e.lanes());
        e.for_range((from, to, 1), |e, query| {
            e.for_count(rows.depth.next_multiple_of(lanes), lanes, |e, key| {
                let end = e.i64(rows.depth as i64);
                let left = e.sub(end, key);
                let mask = e.lanes_below(left);
                let at = rows.at(e, query, key);
                let zero = e.vconst(0.0);
                e.store_strided(zero, at, rows.elem, rows.depth_stride.max(1), Some(mask));
            });
        });
    }
}

/// Exponents of e as exponents of 2.
fn in_base_two(e: &mut Emitter, values: Val) -> Val {
    let log2e = e.vconst(std::f32::consts::LOG2_E);
    e.mul(values, log2e)
}

/// The bias of one panel of queries and one tile of keys.
pub struct BiasTile {
    pub rows: Rows,
    pub along: AlongQueries,
    /// The first query and the first key.
    pub first: Val,
    pub key: Val,
    /// Where it is turned: `[key, lane]`, as scores are.
    pub turned: Val,
}

impl BiasTile {
    /// Turns what belongs to the keys `from..to` of the tile.
    pub fn turn(&self, e: &mut Emitter, attention: &Attention, form: &TileLayout, (from, to): (Val, Val)) {
        if self.along != AlongQueries::Turned {
            return;
        }
        let lanes = form.lanes;
        let size = e.i64(attention.queries.size as i64);
        e.for_range((from, to, lanes as i64), |e, row| {
            let key = e.add(self.key, row);
            e.for_count(form.span, lanes, |e, lane| {
                let start = e.add(self.first, lane);
                let mut square = Vec::new();
                for offset in 0..lanes {
                    let offset = e.i64(offset as i64);
                    let query = e.add(start, offset);
                    let there = e.cmp(Cmp::Lt, query, size);
                    square.push(self.rows.values_where(e, query, key, Some(there)));
                }
                let line = e.offset_words(self.turned, row, form.span);
                let line = e.at(line, Elem::F32, lane);
                for (offset, values) in e.transpose(square).into_iter().enumerate() {
                    let offset = e.i64((offset as u64 * form.span) as i64);
                    let to = e.at(line, Elem::F32, offset);
                    e.store(values, to);
                }
            });
        });
    }

    /// What is added in the row of the tile, for the queries from `lane` on, times log2(e).
    pub fn lanes(&self, e: &mut Emitter, attention: &Attention, form: &TileLayout, row: Val, lane: Val) -> Val {
        let values = match self.along {
            AlongQueries::Turned => {
                let line = e.offset_words(self.turned, row, form.span);
                let at = e.at(line, Elem::F32, lane);
                let vf32 = e.vf32();
                e.load(at, vf32)
            }
            along => {
                let (key, last) = (e.add(self.key, row), e.i64(attention.keys.size as i64 - 1));
                let key = e.min_int(key, last);
                let zero = e.i64(0);
                if along == AlongQueries::One {
                    let at = self.rows.at(e, zero, key);
                    let one = e.load_wide(at, self.rows.elem, 0, None);
                    e.splat(one)
                } else {
                    let query = e.add(self.first, lane);
                    let size = e.i64(attention.queries.size as i64);
                    let left = e.sub(size, query);
                    let mask = e.lanes_below(left);
                    let at = self.rows.at(e, query, key);
                    e.load_strided(at, self.rows.elem, self.rows.row_stride, Some(mask))
                }
            }
        };
        in_base_two(e, values)
    }
}
