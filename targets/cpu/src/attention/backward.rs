//! The backward pass: weights come again from `lse`, tile by tile, and all gradients from each tile.
//!
//! With p = e^(scale s - lse) and D = rowsum(dout out): ds = p (dout v^T - D), dq = scale ds k, dk = scale ds^T q,
//! dv = p^T dout. Lanes run along keys: panels hold keys and values.
//!
//! Where there are heads enough, a task is one head of keys and computes each tile once. Otherwise a task makes dk and dv of
//! some keys, or dq of some queries, and tiles are computed twice; queries are then copied block by block.

mod layout;
mod tile;

use self::layout::{EXTENT, Layout};
use super::tiles::Rows;
use super::visibility::{Extent, Side};
use super::{Attention, Bases, DBIAS, DK, DOUT, DQ, DV, K, LSE, OUT, Place, Q, V, Window};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Ty, Val};
use crate::matmul::Word;

impl Attention {
    pub fn backward_parts(&self, cpu: &Cpu) -> u64 {
        Layout::of(self, cpu).parts()
    }

    pub fn backward_workspace(&self, cpu: &Cpu) -> u64 {
        let layout = Layout::of(self, cpu);
        4 * layout.scratch * layout.parts()
    }
}

impl Emitter {
    /// Emits dq, dk and dv, or the gradients of scores: those that have an address. The workspace has [`Attention::backward_workspace`] bytes.
    pub fn attention_grad(
        &mut self,
        kernel: &Kernel,
        attention: &Attention,
        bases: &Bases,
        window: Window,
        workspace: Val,
    ) {
        let layout = Layout::of(attention, self.cpu());
        let (from, to) = self.share(kernel, layout.tasks, layout.parts());
        let scratch = self.offset_words(workspace, kernel.part, layout.scratch);
        let (keys, queries) = (attention.keys.size, attention.queries.size);
        let of_keys = bases[DK].is_some() || bases[DV].is_some();
        let task =
            |e: &mut Emitter, head: Val, (by_keys, by_queries): (bool, bool), (k, q): ((Val, Val), (Val, Val))| {
                let heads = e.i64(attention.kv_heads.size as i64);
                let (batch, kv_head) = (e.div_unsigned(head, heads), e.rem_unsigned(head, heads));
                let task = Task {
                    attention,
                    window,
                    bases,
                    sides: attention.sides(e, bases, batch),
                    layout: &layout,
                    scratch,
                    batch,
                    kv_head,
                    by_keys: by_keys && of_keys,
                    by_queries: by_queries && bases[DQ].is_some(),
                    by_scores: by_queries && bases[DBIAS].is_some(),
                    keys: k,
                    queries: q,
                    kept: false,
                };
                if by_queries {
                    task.block(e);
                } else if task.by_keys {
                    task.blocks(e);
                }
            };
        self.for_each((from, to, 1), &[], |e, index, _| {
            let zero = e.i64(0);
            let all = ((zero, e.i64(keys as i64)), (zero, e.i64(queries as i64)));
            if layout.tasks == layout.heads {
                task(e, index, (true, true), all);
                return Vec::new();
            }
            let share = |e: &mut Emitter, index: Val, size: u64, here: u64| {
                let shares = e.i64(size.div_ceil(here) as i64);
                let (head, at) = (e.div_unsigned(index, shares), e.rem_unsigned(index, shares));
                let (here, size) = (e.i64(here as i64), e.i64(size as i64));
                let first = e.mul(at, here);
                let end = e.add(first, here);
                (head, (first, e.min_int(end, size)))
            };
            let by_keys = e.i64((layout.heads * keys.div_ceil(layout.keys_here)) as i64);
            let first = e.cmp(Cmp::Lt, index, by_keys);
            e.if_else(
                first,
                &[],
                |e| {
                    let (head, here) = share(e, index, keys, layout.keys_here);
                    task(e, head, (true, false), (here, all.1));
                    Vec::new()
                },
                |e| {
                    let index = e.sub(index, by_keys);
                    let (head, here) = share(e, index, queries, layout.queries_here);
                    task(e, head, (false, true), (all.0, here));
                    Vec::new()
                },
            );
            Vec::new()
        });
    }
}

struct Task<'a> {
    attention: &'a Attention,
    window: Window,
    bases: &'a Bases,
    /// By which numbers queries see keys.
    sides: Option<[Side; 2]>,
    layout: &'a Layout,
    scratch: Val,
    batch: Val,
    kv_head: Val,
    /// Makes dk and dv.
    by_keys: bool,
    /// Makes dq.
    by_queries: bool,
    /// Makes the gradients of scores.
    by_scores: bool,
    /// From, to.
    keys: (Val, Val),
    queries: (Val, Val),
    /// Sums of keys are those of all blocks of queries: [`Task::blocks`] clears and stores them, not each tile of keys.
    kept: bool,
}

/// A tile of queries and keys: the first and how many.
struct Tile {
    query: Val,
    /// What the numbers of its queries extend over.
    extent: Option<Extent>,
    key: Val,
    /// The first lane that counts.
    from: Val,
    keys: Val,
    /// Keys to the end of the last panel.
    lanes: Val,
    /// The number of the first row among those of all heads of the task.
    row: Val,
}

impl Task<'_> {
    fn area(&self, e: &mut Emitter, offset: u64) -> Val {
        let offset = e.i64(offset as i64);
        e.at(self.scratch, Elem::F32, offset)
    }

    fn place(&self, e: &mut Emitter, member: Val) -> Place {
        let group = e.i64(self.attention.group_size() as i64);
        let head = e.mul(self.kv_head, group);
        Place { batch: self.batch, head: e.add(head, member), kv_head: self.kv_head }
    }

    fn rows(&self, e: &mut Emitter, member: Val, operand: usize) -> Option<Rows> {
        let place = self.place(e, member);
        self.attention.rows(e, self.bases, &place, operand)
    }

    /// The row of dq's sums of a member's query.
    fn sum_row(&self, e: &mut Emitter, member: Val, query: Val) -> Val {
        let rows = e.i64(self.layout.rows_here as i64);
        let own = e.sub(query, self.queries.0);
        let start = e.mul(member, rows);
        e.add(start, own)
    }

    /// All queries of a task that has more than its scratch holds: block by block.
    fn blocks(&self, e: &mut Emitter) {
        let (layout, attention) = (self.layout, self.attention);
        if attention.queries.size <= layout.queries_here {
            return self.block(e);
        }
        self.clear_sums(e, self.keys.0, layout.keys_here.next_multiple_of(layout.keys_tile));
        e.for_each((self.queries.0, self.queries.1, layout.queries_here as i64), &[], |e, first, _| {
            let most = e.i64(layout.queries_here as i64);
            let end = e.add(first, most);
            let end = e.min_int(end, self.queries.1);
            Task { queries: (first, end), kept: true, ..*self }.block(e);
            Vec::new()
        });
        let count = e.sub(self.keys.1, self.keys.0);
        self.store_sums(e, self.keys.0, count);
    }

    /// The sums of keys from `key` on.
    fn key_sums(&self, e: &mut Emitter, area: u64, key: Val) -> Val {
        let sums = self.area(e, area);
        if !self.kept {
            return sums;
        }
        let row = e.sub(key, self.keys.0);
        e.offset_words(sums, row, self.layout.form.interleaved)
    }

    fn clear_sums(&self, e: &mut Emitter, key: Val, rows: u64) {
        for area in [self.layout.k_sums, self.layout.v_sums] {
            let sums = self.key_sums(e, area, key);
            e.clear(sums, rows * self.layout.form.interleaved);
        }
    }

    fn store_sums(&self, e: &mut Emitter, key: Val, count: Val) {
        let (layout, zero) = (self.layout, e.i64(0));
        for (operand, area, scale) in [(DK, layout.k_sums, self.attention.scale()), (DV, layout.v_sums, 1.0)] {
            if let Some(rows) = self.rows(e, zero, operand) {
                let sums = self.key_sums(e, area, key);
                e.store_rows(rows, (key, count), (sums, layout.form.interleaved), scale);
            }
        }
    }

    /// As many queries as scratch holds, with all keys of the task.
    fn block(&self, e: &mut Emitter) {
        let (attention, layout, form) = (self.attention, self.layout, &self.layout.form);
        let (zero, group) = (e.i64(0), attention.group_size());
        if self.sides.is_some() {
            self.note_tiles(e);
        } else {
            e.for_count(group, 1, |e, member| {
                self.row_numbers(e, member, self.queries);
                self.copy_queries(e, member, self.queries);
            });
            if self.by_queries {
                let sums = self.area(e, layout.q_sums);
                e.clear(sums, group * layout.rows_here * form.depth);
            }
        }
        if self.by_scores {
            e.for_count(group, 1, |e, member| {
                let place = self.place(e, member);
                attention.clear_score_gradients(e, self.bases, &place, self.queries);
            });
        }
        let end = self.window.seen_before(e, attention, self.queries.1);
        let end = e.min_int(end, self.keys.1);
        let (Some(k), Some(v)) = (self.rows(e, zero, K), self.rows(e, zero, V)) else { return };
        let own = self.sides.as_ref().map(|[queries, _]| {
            let count = e.sub(self.queries.1, self.queries.0);
            queries.extent(e, self.queries.0, count)
        });
        let (k_panels, v_panels) = (self.area(e, layout.k_panels), self.area(e, layout.v_panels));
        let keys = self.area(e, layout.keys);
        e.for_each((self.keys.0, self.keys.1, layout.keys_tile as i64), &[], |e, key, _| {
            if self.by_keys && !self.kept {
                self.clear_sums(e, key, layout.keys_tile);
            }
            let (most, left) = (e.i64(layout.keys_tile as i64), e.sub(end, key));
            let count = e.min_int(left, most);
            let any = e.cmp(Cmp::Gt, count, zero);
            let extent = self.sides.as_ref().map(|[_, numbers]| numbers.extent(e, key, count));
            let any = match own.zip(extent) {
                Some((own, extent)) => {
                    let sees = attention.may_see(e, &own, &extent);
                    e.and(any, sees)
                }
                None => any,
            };
            e.if_then(any, |e| {
                let lanes = e.next_multiple(count, form.span);
                e.for_each((zero, lanes, form.span as i64), &[], |e, lane, _| {
                    let first = e.add(key, lane);
                    let (k_panel, v_panel) = (self.panel(e, k_panels, lane), self.panel(e, v_panels, lane));
                    e.transpose_rows(k, form, (first, end), k_panel);
                    e.transpose_rows(v, form, (first, end), v_panel);
                    Vec::new()
                });
                if self.by_queries {
                    self.interleave(e, k, key, (count, lanes), keys);
                }
                // The first tile with a query that sees the first key.
                let start = match attention.causal {
                    false => self.queries.0,
                    true => {
                        let seen = e.sub(key, self.window.reach);
                        let behind = e.sub(seen, self.queries.0);
                        let behind = e.max_int(behind, zero);
                        let size = e.i64(layout.queries_tile as i64);
                        let tiles = e.div_unsigned(behind, size);
                        let skipped = e.mul(tiles, size);
                        e.add(self.queries.0, skipped)
                    }
                };
                e.for_count(group, 1, |e, member| {
                    e.for_each((start, self.queries.1, layout.queries_tile as i64), &[], |e, query, _| {
                        let rows = e.i64(layout.rows as i64);
                        let row = e.mul(member, rows);
                        let (keys, lanes) = self.seen(e, query, (key, count), lanes);
                        let row = e.add(row, query);
                        let Some(([queries, numbers], extent)) = self.sides.as_ref().zip(extent) else {
                            let tile = Tile { query, extent: None, key, from: zero, keys, lanes, row };
                            self.tile(e, member, &tile);
                            return Vec::new();
                        };
                        let index = self.tile_index(e, query);
                        let saved = self.area(e, layout.extents);
                        let saved = e.offset_words(saved, index, EXTENT);
                        let own = Extent::read(queries, e, saved);
                        let any = attention.may_see(e, &own, &extent);
                        e.if_then(any, |e| {
                            let part = attention.trim(e, &own, numbers, (key, keys));
                            let some = e.cmp(Cmp::Lt, part.from, part.to);
                            e.if_then(some, |e| {
                                self.prepare(e, member, query, index);
                                let span = e.i64(form.span as i64);
                                let from = e.div_unsigned(part.from, span);
                                let from = e.mul(from, span);
                                let (keys, lanes) = (part.to, e.next_multiple(part.to, form.span));
                                self.tile(e, member, &Tile { query, extent: Some(own), key, from, keys, lanes, row });
                            });
                        });
                        Vec::new()
                    });
                });
            });
            if self.by_keys && !self.kept {
                let left = e.sub(self.keys.1, key);
                let count = e.min_int(left, most);
                self.store_sums(e, key, count);
            }
            Vec::new()
        });
        if self.by_queries {
            e.for_count(group, 1, |e, member| {
                let Some(dq) = self.rows(e, member, DQ) else { return };
                if self.sides.is_some() {
                    self.clear_unseen(e, member);
                }
                let (sums, row) = (self.area(e, layout.q_sums), self.sum_row(e, member, self.queries.0));
                let sums = e.offset_words(sums, row, form.depth);
                let count = e.sub(self.queries.1, self.queries.0);
                e.store_rows(dq, (self.queries.0, count), (sums, form.depth), attention.scale());
            });
        }
    }

    /// Of a tile's keys and lanes, those up to the last key that its last query sees.
    fn seen(&self, e: &mut Emitter, query: Val, (key, count): (Val, Val), lanes: Val) -> (Val, Val) {
        if !self.attention.causal {
            return (count, lanes);
        }
        let size = e.i64(self.layout.queries_tile as i64);
        let past = e.add(query, size);
        let past = e.min_int(past, self.queries.1);
        let seen = self.window.seen_before(e, self.attention, past);
        let (left, zero) = (e.sub(seen, key), e.i64(0));
        let left = e.max_int(left, zero);
        let keys = e.min_int(count, left);
        (keys, e.next_multiple(keys, self.layout.form.span))
    }

    fn panel(&self, e: &mut Emitter, panels: Val, lane: Val) -> Val {
        let span = e.i64(self.layout.form.span as i64);
        let index = e.div_unsigned(lane, span);
        e.offset_words(panels, index, self.layout.form.panel)
    }

    /// Copies a member's queries and the gradients of its results: every tile of keys reads them.
    fn copy_queries(&self, e: &mut Emitter, member: Val, (first, end): (Val, Val)) {
        let (layout, form) = (self.layout, &self.layout.form);
        let (Some(q), Some(dout)) = (self.rows(e, member, Q), self.rows(e, member, DOUT)) else { return };
        let count = e.sub(end, first);
        let count = (count, e.next_multiple(count, layout.queries_tile));
        let row = self.sum_row(e, member, first);
        for (rows, area, interleaved) in
            [(q, layout.queries, layout.interleaved_queries), (dout, layout.douts, layout.interleaved_douts)]
        {
            let to = self.area(e, area);
            let to = e.offset_words(to, row, form.stride);
            match form.word {
                // What products that sum over queries read is what lies here.
                Word::F32 => self.interleave(e, rows, first, count, to),
                Word::Bf16Pair => e.copy_rows(rows, form, first, count, to),
            }
            if form.word == Word::Bf16Pair && self.by_keys {
                let to = self.interleaved(e, interleaved, row);
                self.interleave(e, rows, first, count, to);
            }
        }
    }

    /// Copies rows for products that sum over rows. Where numbers hide some of them, a weight of zero hides what is no number
    /// too: all else that a query or a key that is none makes of its sample comes through the log-sum-exp.
    fn interleave(&self, e: &mut Emitter, rows: Rows, first: Val, count: (Val, Val), to: Val) {
        match self.sides.is_some() {
            true => drop(e.interleave_finite_rows(rows, &self.layout.form, first, count, to)),
            false => e.interleave_rows(rows, &self.layout.form, first, count, to),
        }
    }

    fn tile_index(&self, e: &mut Emitter, query: Val) -> Val {
        let size = e.i64(self.layout.queries_tile as i64);
        let own = e.sub(query, self.queries.0);
        e.div_unsigned(own, size)
    }

    /// Whether a member's tile of queries is copied.
    fn copied(&self, e: &mut Emitter, member: Val, index: Val) -> Val {
        let (area, tiles) = (self.area(e, self.layout.copied), self.layout.rows_here / self.layout.queries_tile);
        let tiles = e.i64(tiles as i64);
        let line = e.mul(member, tiles);
        let at = e.add(line, index);
        e.at(area, Elem::I32, at)
    }

    /// Notes what the numbers of each tile of queries extend over, and that none is copied.
    fn note_tiles(&self, e: &mut Emitter) {
        let (layout, group) = (self.layout, self.attention.group_size());
        let Some([queries, _]) = &self.sides else { return };
        e.for_each((self.queries.0, self.queries.1, layout.queries_tile as i64), &[], |e, query, _| {
            let index = self.tile_index(e, query);
            let (most, left) = (e.i64(layout.queries_tile as i64), e.sub(self.queries.1, query));
            let here = e.min_int(most, left);
            let saved = self.area(e, layout.extents);
            let saved = e.offset_words(saved, index, EXTENT);
            queries.extent(e, query, here).save(e, saved);
            e.for_count(group, 1, |e, member| {
                let (at, no) = (self.copied(e, member, index), e.int(Ty::scalar(Elem::I32), 0));
                e.store(no, at);
            });
            Vec::new()
        });
    }

    /// Copies a member's tile of queries, and clears its sums, before it is met for the first time.
    fn prepare(&self, e: &mut Emitter, member: Val, query: Val, index: Val) {
        let at = self.copied(e, member, index);
        let ty = Ty::scalar(Elem::I32);
        let (is, no) = (e.load(at, ty), e.int(ty, 0));
        let missing = e.cmp(Cmp::Eq, is, no);
        e.if_then(missing, |e| {
            let one = e.int(ty, 1);
            e.store(one, at);
            let size = e.i64(self.layout.queries_tile as i64);
            let past = e.add(query, size);
            let tile = (query, e.min_int(past, self.queries.1));
            self.row_numbers(e, member, tile);
            self.copy_queries(e, member, tile);
            if self.by_queries {
                self.clear_tile(e, member, query);
            }
        });
    }

    fn clear_tile(&self, e: &mut Emitter, member: Val, query: Val) {
        let (layout, row) = (self.layout, self.sum_row(e, member, query));
        let sums = self.area(e, layout.q_sums);
        let sums = e.offset_words(sums, row, layout.form.depth);
        e.clear(sums, layout.queries_tile * layout.form.depth);
    }

    /// Clears the sums of the tiles that see no key.
    fn clear_unseen(&self, e: &mut Emitter, member: Val) {
        e.for_each((self.queries.0, self.queries.1, self.layout.queries_tile as i64), &[], |e, query, _| {
            let index = self.tile_index(e, query);
            let at = self.copied(e, member, index);
            let ty = Ty::scalar(Elem::I32);
            let (is, no) = (e.load(at, ty), e.int(ty, 0));
            let missing = e.cmp(Cmp::Eq, is, no);
            e.if_then(missing, |e| self.clear_tile(e, member, query));
            Vec::new()
        });
    }

    /// Where a row of queries lies in an area of interleaved ones.
    fn interleaved(&self, e: &mut Emitter, area: u64, row: Val) -> Val {
        let form = &self.layout.form;
        let (area, pair) = (self.area(e, area), e.i64(form.word.depth() as i64));
        let pair = e.div_unsigned(row, pair);
        e.offset_words(area, pair, form.interleaved)
    }

    /// `-lse` in the exponent of 2, infinite for rows that are not there; and `rowsum(dout out)`.
    fn row_numbers(&self, e: &mut Emitter, member: Val, (from, to): (Val, Val)) {
        let (layout, lanes, vf32) = (self.layout, self.layout.form.lanes, e.vf32());
        let (Some(out), Some(dout), Some(lse)) =
            (self.rows(e, member, OUT), self.rows(e, member, DOUT), self.rows(e, member, LSE))
        else {
            return;
        };
        let line = |e: &mut Emitter, offset| {
            let base = self.area(e, offset);
            e.offset_words(base, member, layout.rows)
        };
        let (lses, deltas) = (line(e, layout.lses), line(e, layout.deltas));
        let here = e.sub(to, from);
        let here = e.next_multiple(here, layout.queries_tile);
        let past = e.add(from, here);
        e.for_each((from, past, lanes as i64), &[], |e, query, _| {
            let left = e.sub(to, query);
            let mask = e.lanes_below(left);
            let zero = e.i64(0);
            let at = lse.at(e, query, zero);
            let stride = if lse.row_stride == 0 { 1 } else { lse.row_stride };
            let values = e.load_strided(at, Elem::F32, stride, Some(mask));
            let log2e = e.vconst(-std::f32::consts::LOG2_E);
            let values = e.mul(values, log2e);
            let infinite = e.vconst(f32::NEG_INFINITY);
            let values = e.select(mask, values, infinite);
            let values = if self.attention.may_be_blind() {
                // A row of scores that are all -inf has weights of zero.
                let most = e.vconst(f32::INFINITY);
                let blind = e.cmp(Cmp::Eq, values, most);
                e.select(blind, infinite, values)
            } else {
                values
            };
            let to = e.at(lses, Elem::F32, query);
            e.store(values, to);
            let (none, to) = (e.vconst(0.0), e.at(deltas, Elem::F32, query));
            e.store(none, to);
            Vec::new()
        });
        e.for_each((from, to, 1), &[], |e, query, _| {
            let (zero, depth) = (e.i64(0), e.i64(out.depth as i64));
            let none = e.float(vf32, 0.0);
            let sum = e.for_each((zero, depth, lanes as i64), &[none], |e, d, sum| {
                let (a, b) = (out.values(e, query, d), dout.values(e, query, d));
                vec![e.fma(a, b, sum[0])]
            });
            let sum = e.sum_lanes(sum[0]);
            let to = e.at(deltas, Elem::F32, query);
            e.store(sum, to);
            if self.sides.is_some() {
                // A cotangent that is no number is zero in the products: it is told to the row's weights here.
                let at = e.at(lses, Elem::F32, query);
                let (lse, none) = (e.load(at, Ty::F32), e.float(Ty::F32, 0.0));
                let told = e.mul(sum, none);
                let lse = e.add(lse, told);
                e.store(lse, at);
            }
            Vec::new()
        });
    }
}
