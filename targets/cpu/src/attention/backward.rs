//! The backward pass: weights come again from `lse`, tile by tile, and all gradients from each tile.
//!
//! With p = e^(scale s - lse) and D = rowsum(dout out): ds = p (dout v^T - D), dq = scale ds k, dk = scale ds^T q,
//! dv = p^T dout. Lanes run along keys: panels hold keys and values.
//!
//! Where there are heads enough, a task is one head of keys and computes each tile once. Otherwise a task makes dk and dv of
//! some keys, or dq of some queries, and tiles are computed twice; queries are then copied block by block.

use super::tiles::{Form, Rows};
use super::{Attention, Bases, DK, DOUT, DQ, DV, K, LSE, MOST_PARTS, OUT, Place, Q, Scratch, V, Window};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Ty, Val};
use crate::matmul::{Micro, Word};
use crate::nest::points;

/// Queries in a tile, at the least.
const QUERIES: u64 = 64;

/// Keys in a tile, at the least.
const KEYS: u64 = 128;

/// Heads from which on a task has all keys and queries of one.
const HEADS: u64 = 4;

/// Tiles of keys or queries of a task, where heads are few.
const SHARE: u64 = 4;

/// The tasks of a problem and their scratch, in words.
struct Plan {
    form: Form,
    /// Queries and keys in a tile; the keys are a multiple of the queries.
    queries_tile: u64,
    keys_tile: u64,
    heads: u64,
    /// Keys of a task, and queries of a task or of a block.
    keys_here: u64,
    queries_here: u64,
    tasks: u64,
    /// Rows of one head's queries, padded to whole tiles: all of them, and those of a block.
    rows: u64,
    rows_here: u64,
    /// From one row of scores to the next, and of their words.
    line: u64,
    half_line: u64,
    lses: u64,
    deltas: u64,
    q_sums: u64,
    k_sums: u64,
    v_sums: u64,
    k_panels: u64,
    v_panels: u64,
    keys: u64,
    queries: u64,
    woven_queries: u64,
    douts: u64,
    woven_douts: u64,
    scores: u64,
    slopes: u64,
    woven_weights: u64,
    woven_slopes: u64,
    slope_rows: u64,
    scratch: u64,
}

impl Attention {
    fn backward(&self, cpu: &Cpu) -> Plan {
        let form = self.form(cpu, self.keys.size);
        let queries_tile = form.tile(QUERIES, form.lanes);
        let keys_tile = form.tile(KEYS, form.span).next_multiple_of(queries_tile);
        let heads = points(&self.batch) * self.kv_heads.size;
        let whole = heads >= HEADS;
        let (keys_here, queries_here) = if whole {
            (self.keys.size, self.queries.size)
        } else {
            ((SHARE * keys_tile).min(self.keys.size), (SHARE * keys_tile).min(self.queries.size))
        };
        let shares = |size: u64, here: u64| heads * size.div_ceil(here.max(1));
        let tasks = match whole {
            true => heads,
            false => shares(self.keys.size, keys_here) + shares(self.queries.size, queries_here),
        };
        let rows = self.queries.size.next_multiple_of(queries_tile);
        let line = keys_tile + form.lanes;
        let (half_line, group) = (keys_tile / 2 + form.lanes, self.group_size());
        let mut scratch = Scratch::default();
        let pairs = form.word == Word::Bf16Pair;
        let rows_here = queries_here.next_multiple_of(queries_tile);
        let sums = if self.queries.size > queries_here { keys_here.next_multiple_of(keys_tile) } else { keys_tile };
        let extra = |words: u64, scratch: &mut Scratch| scratch.take(if pairs { words } else { 0 });
        let mut plan = Plan {
            form,
            queries_tile,
            keys_tile,
            heads,
            keys_here,
            queries_here,
            tasks,
            rows,
            rows_here,
            line,
            half_line,
            lses: scratch.take(group * rows),
            deltas: scratch.take(group * rows),
            q_sums: scratch.take(group * rows_here * form.depth),
            k_sums: scratch.take(sums * form.woven),
            v_sums: scratch.take(sums * form.woven),
            k_panels: scratch.take(keys_tile / form.span * form.panel),
            v_panels: scratch.take(keys_tile / form.span * form.panel),
            keys: scratch.take(keys_tile * form.woven),
            queries: scratch.take(group * rows_here * form.stride.max(form.woven)),
            douts: scratch.take(group * rows_here * form.stride.max(form.woven)),
            scores: scratch.take(queries_tile * line),
            slopes: scratch.take(queries_tile * line),
            woven_queries: extra(group * rows_here / 2 * form.woven, &mut scratch),
            woven_douts: extra(group * rows_here / 2 * form.woven, &mut scratch),
            woven_weights: extra(queries_tile / 2 * line, &mut scratch),
            woven_slopes: extra(queries_tile / 2 * line, &mut scratch),
            slope_rows: extra(queries_tile * half_line, &mut scratch),
            scratch: 0,
        };
        if !pairs {
            // A word is a value: what would be woven is what lies there.
            (plan.woven_queries, plan.woven_douts) = (plan.queries, plan.douts);
            (plan.woven_weights, plan.woven_slopes, plan.slope_rows) = (plan.scores, plan.slopes, plan.slopes);
            plan.half_line = line;
        }
        plan.scratch = scratch.words;
        plan
    }

    pub fn backward_parts(&self, cpu: &Cpu) -> u64 {
        self.backward(cpu).tasks.min(MOST_PARTS)
    }

    pub fn backward_workspace(&self, cpu: &Cpu) -> u64 {
        4 * self.backward(cpu).scratch * self.backward_parts(cpu)
    }
}

impl Emitter {
    /// Emits dq, dk and dv, those that have an address. The workspace has [`Attention::backward_workspace`] bytes.
    pub fn attention_grad(
        &mut self,
        kernel: &Kernel,
        attention: &Attention,
        bases: &Bases,
        window: Window,
        workspace: Val,
    ) {
        let plan = attention.backward(self.cpu());
        let (from, to) = self.share(kernel, plan.tasks, plan.tasks.min(MOST_PARTS));
        let scratch = self.offset_words(workspace, kernel.part, plan.scratch);
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
                    plan: &plan,
                    scratch,
                    batch,
                    kv_head,
                    by_keys: by_keys && of_keys,
                    by_queries: by_queries && bases[DQ].is_some(),
                    keys: k,
                    queries: q,
                    kept: false,
                };
                if by_queries { task.block(e) } else { task.blocks(e) }
            };
        self.for_each((from, to, 1), &[], |e, index, _| {
            let zero = e.i64(0);
            let all = ((zero, e.i64(keys as i64)), (zero, e.i64(queries as i64)));
            if plan.tasks == plan.heads {
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
            let by_keys = e.i64((plan.heads * keys.div_ceil(plan.keys_here)) as i64);
            let first = e.cmp(Cmp::Lt, index, by_keys);
            e.if_else(
                first,
                &[],
                |e| {
                    let (head, here) = share(e, index, keys, plan.keys_here);
                    task(e, head, (true, false), (here, all.1));
                    Vec::new()
                },
                |e| {
                    let index = e.sub(index, by_keys);
                    let (head, here) = share(e, index, queries, plan.queries_here);
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
    plan: &'a Plan,
    scratch: Val,
    batch: Val,
    kv_head: Val,
    /// Makes dk and dv.
    by_keys: bool,
    /// Makes dq.
    by_queries: bool,
    /// From, to.
    keys: (Val, Val),
    queries: (Val, Val),
    /// Sums of keys are those of all blocks of queries: [`Task::blocks`] clears and stores them, not each tile of keys.
    kept: bool,
}

/// A tile of queries and keys: the first and how many.
struct Tile {
    query: Val,
    key: Val,
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
        let rows = e.i64(self.plan.rows_here as i64);
        let own = e.sub(query, self.queries.0);
        let start = e.mul(member, rows);
        e.add(start, own)
    }

    /// All queries of a task that has more than its scratch holds: block by block.
    fn blocks(&self, e: &mut Emitter) {
        let (plan, attention) = (self.plan, self.attention);
        if attention.queries.size <= plan.queries_here {
            return self.block(e);
        }
        self.clear_sums(e, self.keys.0, plan.keys_here.next_multiple_of(plan.keys_tile));
        e.for_each((self.queries.0, self.queries.1, plan.queries_here as i64), &[], |e, first, _| {
            let most = e.i64(plan.queries_here as i64);
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
        e.offset_words(sums, row, self.plan.form.woven)
    }

    fn clear_sums(&self, e: &mut Emitter, key: Val, rows: u64) {
        for area in [self.plan.k_sums, self.plan.v_sums] {
            let sums = self.key_sums(e, area, key);
            e.clear(sums, rows * self.plan.form.woven);
        }
    }

    fn store_sums(&self, e: &mut Emitter, key: Val, count: Val) {
        let (plan, zero) = (self.plan, e.i64(0));
        for (operand, area, scale) in [(DK, plan.k_sums, self.attention.scale()), (DV, plan.v_sums, 1.0)] {
            if let Some(rows) = self.rows(e, zero, operand) {
                let sums = self.key_sums(e, area, key);
                e.store_rows(rows, (key, count), (sums, plan.form.woven), scale);
            }
        }
    }

    /// As many queries as scratch holds, with all keys of the task.
    fn block(&self, e: &mut Emitter) {
        let (attention, plan, form) = (self.attention, self.plan, &self.plan.form);
        let (zero, group) = (e.i64(0), attention.group_size());
        e.for_count(group, 1, |e, member| {
            self.row_numbers(e, member);
            self.copy_queries(e, member);
        });
        if self.by_queries {
            let sums = self.area(e, plan.q_sums);
            e.clear(sums, group * plan.rows_here * form.depth);
        }
        let end = self.window.seen_before(e, attention, self.queries.1);
        let end = e.min_int(end, self.keys.1);
        let (Some(k), Some(v)) = (self.rows(e, zero, K), self.rows(e, zero, V)) else { return };
        let (k_panels, v_panels) = (self.area(e, plan.k_panels), self.area(e, plan.v_panels));
        let keys = self.area(e, plan.keys);
        e.for_each((self.keys.0, self.keys.1, plan.keys_tile as i64), &[], |e, key, _| {
            if self.by_keys && !self.kept {
                self.clear_sums(e, key, plan.keys_tile);
            }
            let (most, left) = (e.i64(plan.keys_tile as i64), e.sub(end, key));
            let count = e.min_int(left, most);
            let any = e.cmp(Cmp::Gt, count, zero);
            e.if_then(any, |e| {
                let lanes = e.next_multiple(count, form.span);
                e.for_each((zero, lanes, form.span as i64), &[], |e, lane, _| {
                    let first = e.add(key, lane);
                    let (k_panel, v_panel) = (self.panel(e, k_panels, lane), self.panel(e, v_panels, lane));
                    e.turn_rows(k, form, (first, end), k_panel);
                    e.turn_rows(v, form, (first, end), v_panel);
                    Vec::new()
                });
                if self.by_queries {
                    e.weave_rows(k, form, key, (count, lanes), keys);
                }
                // The first tile with a query that sees the first key.
                let start = match attention.causal {
                    false => self.queries.0,
                    true => {
                        let seen = e.sub(key, self.window.reach);
                        let behind = e.sub(seen, self.queries.0);
                        let behind = e.max_int(behind, zero);
                        let size = e.i64(plan.queries_tile as i64);
                        let tiles = e.div_unsigned(behind, size);
                        let skipped = e.mul(tiles, size);
                        e.add(self.queries.0, skipped)
                    }
                };
                e.for_count(group, 1, |e, member| {
                    e.for_each((start, self.queries.1, plan.queries_tile as i64), &[], |e, query, _| {
                        let rows = e.i64(plan.rows as i64);
                        let row = e.mul(member, rows);
                        let (keys, lanes) = self.seen(e, query, (key, count), lanes);
                        let tile = Tile { query, key, keys, lanes, row: e.add(row, query) };
                        self.tile(e, member, &tile);
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
                let (sums, row) = (self.area(e, plan.q_sums), self.sum_row(e, member, self.queries.0));
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
        let size = e.i64(self.plan.queries_tile as i64);
        let past = e.add(query, size);
        let past = e.min_int(past, self.queries.1);
        let seen = self.window.seen_before(e, self.attention, past);
        let (left, zero) = (e.sub(seen, key), e.i64(0));
        let left = e.max_int(left, zero);
        let keys = e.min_int(count, left);
        (keys, e.next_multiple(keys, self.plan.form.span))
    }

    fn panel(&self, e: &mut Emitter, panels: Val, lane: Val) -> Val {
        let span = e.i64(self.plan.form.span as i64);
        let index = e.div_unsigned(lane, span);
        e.offset_words(panels, index, self.plan.form.panel)
    }

    /// Copies a member's queries and the gradients of its results: every tile of keys reads them.
    fn copy_queries(&self, e: &mut Emitter, member: Val) {
        let (plan, form) = (self.plan, &self.plan.form);
        let (Some(q), Some(dout)) = (self.rows(e, member, Q), self.rows(e, member, DOUT)) else { return };
        let (first, count) = (self.queries.0, e.sub(self.queries.1, self.queries.0));
        let count = (count, e.next_multiple(count, plan.queries_tile));
        let row = self.sum_row(e, member, first);
        for (rows, area, woven) in [(q, plan.queries, plan.woven_queries), (dout, plan.douts, plan.woven_douts)] {
            let to = self.area(e, area);
            let to = e.offset_words(to, row, form.stride);
            e.copy_rows(rows, form, first, count, to);
            if form.word == Word::Bf16Pair && self.by_keys {
                let to = self.woven(e, woven, row);
                e.weave_rows(rows, form, first, count, to);
            }
        }
    }

    /// Where a row of queries lies in an area of woven ones.
    fn woven(&self, e: &mut Emitter, area: u64, row: Val) -> Val {
        let form = &self.plan.form;
        let (area, pair) = (self.area(e, area), e.i64(form.word.depth() as i64));
        let pair = e.div_unsigned(row, pair);
        e.offset_words(area, pair, form.woven)
    }

    /// `-lse` in the exponent of 2, infinite for rows that are not there; and `rowsum(dout out)`.
    fn row_numbers(&self, e: &mut Emitter, member: Val) {
        let (plan, lanes, vf32) = (self.plan, self.plan.form.lanes, e.vf32());
        let (Some(out), Some(dout), Some(lse)) =
            (self.rows(e, member, OUT), self.rows(e, member, DOUT), self.rows(e, member, LSE))
        else {
            return;
        };
        let line = |e: &mut Emitter, offset| {
            let base = self.area(e, offset);
            e.offset_words(base, member, plan.rows)
        };
        let (lses, deltas) = (line(e, plan.lses), line(e, plan.deltas));
        let (from, to) = self.queries;
        let past = e.next_multiple(to, plan.queries_tile);
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
            Vec::new()
        });
    }

    fn tile(&self, e: &mut Emitter, member: Val, tile: &Tile) {
        let (plan, form) = (self.plan, &self.plan.form);
        let (zero, most) = (e.i64(0), e.i64(plan.queries_tile as i64));
        let left = e.sub(self.queries.1, tile.query);
        let here = e.min_int(left, most);
        let padded = e.next_multiple(here, form.rows);
        let first = self.sum_row(e, member, tile.query);
        let [queries, douts] = [plan.queries, plan.douts].map(|area| {
            let area = self.area(e, area);
            e.offset_words(area, first, form.stride)
        });
        let [woven_queries, woven_douts] =
            [plan.woven_queries, plan.woven_douts].map(|area| self.woven(e, area, first));
        let (scores, slopes) = (self.area(e, plan.scores), self.area(e, plan.slopes));
        let words = e.i64(form.words as i64);
        let inner = form.micro(form.span, (form.stride, 1), form.span, plan.line);
        let all = self.window.seen(e, self.attention, tile.query);
        // Scores become weights right after their product, while they are in the nearest cache.
        e.for_each((zero, tile.lanes, form.span as i64), &[], |e, lane, _| {
            // Whether the first query sees all keys of the panel; then they all do.
            let span = e.i64(form.span as i64);
            let end = e.add(tile.key, lane);
            let end = e.add(end, span);
            let whole = e.cmp(Cmp::Le, end, all);
            e.for_range((zero, padded, form.rows as i64), |e, row| {
                for (rows, panels, to) in [(queries, plan.k_panels, scores), (douts, plan.v_panels, slopes)] {
                    let panels = self.area(e, panels);
                    let panel = self.panel(e, panels, lane);
                    let (a, c) = (e.offset_words(rows, row, form.stride), e.offset_words(to, row, plan.line));
                    let c = e.at(c, Elem::F32, lane);
                    e.micro_words((form.word, inner), (a, panel, c), words, zero);
                }
                let weigh = |e: &mut Emitter, masked: bool| {
                    self.weigh(e, tile, (row, lane), masked);
                    Vec::new()
                };
                e.if_else(whole, &[], |e| weigh(e, false), |e| weigh(e, true));
            });
            Vec::new()
        });
        if self.by_keys {
            let inner = form.micro(form.breadth, (1, plan.line), form.woven, form.woven);
            let pair = e.i64(form.word.depth() as i64);
            let words = e.div_unsigned(padded, pair);
            let rows = e.next_multiple(tile.keys, form.rows);
            self.close(e, (padded, rows), tile.lanes);
            for (weights, with, sums) in
                [(plan.woven_weights, woven_douts, plan.v_sums), (plan.woven_slopes, woven_queries, plan.k_sums)]
            {
                let (weights, sums) = (self.area(e, weights), self.key_sums(e, sums, tile.key));
                self.columns(e, (zero, rows), |e, row, d| {
                    let (a, b) = (e.at(weights, Elem::F32, row), e.at(with, Elem::F32, d));
                    let c = e.offset_words(sums, row, form.woven);
                    let c = e.at(c, Elem::F32, d);
                    (inner, (a, b, c), words)
                });
            }
        }
        if self.by_queries {
            let inner = form.micro(form.breadth, (plan.half_line, 1), form.woven, form.depth);
            let pair = e.i64(form.word.depth() as i64);
            let words = e.div_unsigned(tile.lanes, pair);
            let (slopes, keys, sums) =
                (self.area(e, plan.slope_rows), self.area(e, plan.keys), self.area(e, plan.q_sums));
            let sums = e.offset_words(sums, first, form.depth);
            self.columns(e, (zero, padded), |e, row, d| {
                let (a, b) = (e.offset_words(slopes, row, plan.half_line), e.at(keys, Elem::F32, d));
                let c = e.offset_words(sums, row, form.depth);
                let c = e.at(c, Elem::F32, d);
                (inner, (a, b, c), words)
            });
        }
    }

    /// Zeros behind the last panel, where tiles of keys reach beyond it.
    fn close(&self, e: &mut Emitter, (queries, keys): (Val, Val), lanes: Val) {
        let (plan, form) = (self.plan, &self.plan.form);
        if form.lanes.is_multiple_of(form.rows) {
            return;
        }
        let beyond = e.cmp(Cmp::Gt, keys, lanes);
        e.if_then(beyond, |e| {
            let zero = e.i64(0);
            e.for_range((zero, queries, 1), |e, row| {
                for area in [plan.woven_weights, plan.woven_slopes] {
                    let line = self.area(e, area);
                    let line = e.offset_words(line, row, plan.line);
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
        let (form, one) = (&self.plan.form, e.i64(1));
        e.for_count(form.depth, form.breadth, |e, d| {
            e.for_each((from, to, form.rows as i64), &[], |e, row, _| {
                let (inner, operands, words) = product(e, row, d);
                e.micro_words((form.word, inner), operands, words, one);
                Vec::new()
            });
        });
    }

    /// Turns a tile of scores from `(first, lane)` on into weights, and products of dout and v into gradients of scores.
    fn weigh(&self, e: &mut Emitter, tile: &Tile, (first, lane): (Val, Val), masked: bool) {
        let (plan, form, vf32) = (self.plan, &self.plan.form, e.vf32());
        let [scores, slopes, lses, deltas] =
            [plan.scores, plan.slopes, plan.lses, plan.deltas].map(|offset| self.area(e, offset));
        let [woven_weights, woven_slopes, slope_rows] =
            [plan.woven_weights, plan.woven_slopes, plan.slope_rows].map(|offset| self.area(e, offset));
        let vectors: Vec<i64> = (0..form.span / form.lanes).map(|vector| (vector * form.lanes) as i64).collect();
        // Rows two by two, whatever the words are.
        let (one, count) = (e.i64(1), e.i64(form.rows as i64));
        let end = e.add(first, count);
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
                    let seen = e.truncate(seen, Elem::I32);
                    e.splat(seen)
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
            for &(i, vector) in &places {
                let score_at = at(e, scores, (rows[i], plan.line), vector);
                let score = e.load(score_at, vf32);
                let factor = e.vconst(self.attention.factor());
                let mut exponent = e.fma(score, factor, numbers[i][0]);
                if let Some(seen) = seen[i] {
                    let key = e.i64(vector);
                    let key = e.add(lane, key);
                    let key = e.truncate(key, Elem::I32);
                    let key = e.splat(key);
                    let steps = e.steps(key.ty);
                    let key = e.add(key, steps);
                    let sees = e.cmp(Cmp::Lt, key, seen);
                    let hidden = e.vconst(f32::NEG_INFINITY);
                    exponent = e.select(sees, exponent, hidden);
                }
                let most = e.vconst(127.0);
                exponents.push(e.min_fast(most, exponent));
            }
            let weights = e.exp2_fast(&exponents);
            let mut cells = Vec::new();
            for (&(i, vector), weight) in places.iter().zip(weights) {
                let slope_at = at(e, slopes, (rows[i], plan.line), vector);
                let slope = e.load(slope_at, vf32);
                let centred = e.sub(slope, numbers[i][1]);
                let slope = e.mul(weight, centred);
                if form.word == Word::F32 {
                    let score_at = at(e, scores, (rows[i], plan.line), vector);
                    e.store(weight, score_at);
                    e.store(slope, slope_at);
                }
                cells.push((weight, slope));
            }
            if form.word == Word::F32 {
                return;
            }
            let two = e.i64(2);
            let half = e.div_unsigned(row, two);
            for (cell, &vector) in cells.chunks(2).zip(&vectors) {
                for (base, low, high) in [(woven_weights, cell[0].0, cell[1].0), (woven_slopes, cell[0].1, cell[1].1)] {
                    let words = e.bf16_pairs(low, high);
                    let to = at(e, base, (half, plan.line), vector);
                    e.store(words, to);
                }
            }
            let lane = e.div_unsigned(lane, two);
            for (i, &row) in rows.iter().enumerate() {
                let none = e.float(vf32, 0.0);
                let next = if vectors.len() == 2 { cells[2 + i].1 } else { none };
                let words = e.bf16_words(cells[i].1, next);
                let line = e.offset_words(slope_rows, row, plan.half_line);
                let to = e.at(line, Elem::F32, lane);
                e.store(words, to);
            }
        });
    }
}
