//! The forward pass: for each block of queries, one sweep over the keys with a running maximum and sum.
//!
//! Lanes run along queries, so that softmax needs no horizontal step: panels hold the queries, tiles of keys and values
//! are packed once for all heads and queries of a task.

mod soften;

use self::soften::Hidden;
use super::bias::{AlongQueries, BiasTile};
use super::tiles::TileLayout;
use super::visibility::{Extent, Side};
use super::{Attention, BIAS, Bases, K, LSE, MOST_PARTS, OUT, Place, Q, Scratch, V, Window};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Val};
use crate::matmul::{Micro, Word};
use crate::nest::points;

/// Queries of a task, over all heads that share its keys: keys are copied once for all of them. Fewer where there would be
/// too few tasks.
const QUERIES: u64 = 1024;
const FEWEST: u64 = 256;
const TASKS: u64 = 16;

/// The same where numbers hide keys: each tile of keys then belongs to few queries.
const NUMBERED: u64 = 512;

/// Keys in a tile, at the least.
const KEYS: u64 = 128;

/// Words of what the numbers of a panel extend over.
const EXTENT: u64 = 2 * Extent::SAVED;

/// The tasks of a problem and their scratch, in words.
struct Layout {
    form: TileLayout,
    /// Keys in a tile.
    tile: u64,
    /// Queries of a task: whole panels.
    block: u64,
    blocks: u64,
    tasks: u64,
    columns: u64,
    sums: u64,
    highest: u64,
    totals: u64,
    keys: u64,
    values: u64,
    scores: u64,
    weights: u64,
    line: u64,
    /// What the numbers of each panel's queries extend over.
    extents: u64,
    /// A bias that is turned.
    biases: u64,
    scratch: u64,
}

impl Layout {
    /// Where weights are as the product with values reads them.
    fn ready(&self) -> u64 {
        if self.form.word == Word::F32 { self.scores } else { self.weights }
    }
}

impl Attention {
    fn forward(&self, cpu: &Cpu) -> Layout {
        let form = self.form(cpu, self.queries.size);
        let heads = points(&self.batch) * self.kv_heads.size;
        let few = |queries: &u64| heads * (self.queries.size * self.group_size()).div_ceil(*queries) < TASKS;
        let halves =
            std::iter::successors(Some(if self.visibility.is_some() { NUMBERED } else { QUERIES }), |queries| {
                Some(queries / 2)
            });
        let queries = halves.take_while(|queries| *queries >= FEWEST).find(|queries| !few(queries)).unwrap_or(FEWEST);
        let most = (queries / self.group_size()).max(form.span);
        let block = self.queries.size.div_ceil(self.queries.size.div_ceil(most)).next_multiple_of(form.span);
        let blocks = self.queries.size.div_ceil(block);
        let panels = block / form.span * self.group_size();
        let tile = form.tile(KEYS, form.lanes);
        let mut scratch = Scratch::default();
        Layout {
            form,
            tile,
            block,
            blocks,
            tasks: heads * blocks,
            columns: scratch.take(panels * form.panel),
            sums: scratch.take(panels * form.depth * form.span),
            highest: scratch.take(panels * form.span),
            totals: scratch.take(panels * form.span),
            keys: scratch.take(tile * form.stride),
            values: scratch.take(tile * form.interleaved),
            scores: scratch.take(tile * form.span),
            weights: scratch.take(tile * form.span),
            line: scratch.take(form.lanes * form.lanes),
            extents: scratch.take(if self.visibility.is_some() { panels * EXTENT } else { 0 }),
            biases: scratch.take(match self.along_queries() {
                Some(AlongQueries::Turned) => (tile + form.lanes) * form.span,
                _ => 0,
            }),
            scratch: scratch.words,
        }
    }

    /// Parts that get any work in the forward pass.
    pub fn forward_parts(&self, cpu: &Cpu) -> u64 {
        self.forward(cpu).tasks.min(MOST_PARTS)
    }

    pub fn forward_workspace(&self, cpu: &Cpu) -> u64 {
        4 * self.forward(cpu).scratch * self.forward_parts(cpu)
    }
}

impl Emitter {
    /// Emits `out` and `lse` from `q`, `k`, `v`. The workspace has [`Attention::forward_workspace`] bytes.
    pub fn attention(&mut self, kernel: &Kernel, attention: &Attention, bases: &Bases, window: Window, workspace: Val) {
        let layout = attention.forward(self.cpu());
        let parts = attention.forward_parts(self.cpu());
        let (from, to) = self.share(kernel, layout.tasks, parts);
        let scratch = self.offset_words(workspace, kernel.part, layout.scratch);
        self.for_each((from, to, 1), &[], |e, task, _| {
            let at = e.unravel(task, &[points(&attention.batch), attention.kv_heads.size, layout.blocks]);
            let size = e.i64(layout.block as i64);
            let first = e.mul(at[2], size);
            let sides = attention.sides(e, bases, at[0]);
            let (batch, kv_head) = (at[0], at[1]);
            let task = Task { attention, window, bases, sides, layout: &layout, scratch, batch, kv_head, first };
            task.emit(e);
            Vec::new()
        });
    }
}

/// What is known of the numbers of a tile: that they hide nothing, and that only how far queries see does.
struct Known {
    whole: Val,
    alike: Val,
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
    /// The first query.
    first: Val,
}

/// One panel of queries.
struct Panel {
    place: Place,
    /// The first query.
    first: Val,
    columns: Val,
    sums: Val,
    highest: Val,
    totals: Val,
    extent: Val,
}

impl Task<'_> {
    fn area(&self, e: &mut Emitter, offset: u64) -> Val {
        let offset = e.i64(offset as i64);
        e.at(self.scratch, Elem::F32, offset)
    }

    /// For each panel of each head that has queries.
    fn panels(&self, e: &mut Emitter, body: impl FnOnce(&mut Emitter, &Panel)) {
        let (layout, form) = (self.layout, &self.layout.form);
        let group = self.attention.group_size();
        let (zero, size) = (e.i64(0), e.i64(self.attention.queries.size as i64));
        let left = e.sub(size, self.first);
        let block = e.i64(layout.block as i64);
        let here = e.min_int(left, block);
        e.for_count(group, 1, |e, member| {
            e.for_each((zero, here, form.span as i64), &[], |e, query, _| {
                let (members, span) = (e.i64(group as i64), e.i64(form.span as i64));
                let head = e.mul(self.kv_head, members);
                let head = e.add(head, member);
                let count = e.i64((layout.block / form.span) as i64);
                let index = e.mul(member, count);
                let own = e.div_unsigned(query, span);
                let index = e.add(index, own);
                let area = |e: &mut Emitter, offset, words| {
                    let base = self.area(e, offset);
                    e.offset_words(base, index, words)
                };
                let panel = Panel {
                    place: Place { batch: self.batch, head, kv_head: self.kv_head },
                    first: e.add(self.first, query),
                    columns: area(e, layout.columns, form.panel),
                    sums: area(e, layout.sums, form.depth * form.span),
                    highest: area(e, layout.highest, form.span),
                    totals: area(e, layout.totals, form.span),
                    extent: if self.sides.is_some() { area(e, layout.extents, EXTENT) } else { self.scratch },
                };
                body(e, &panel);
                Vec::new()
            });
        });
    }

    fn emit(&self, e: &mut Emitter) {
        let (attention, layout, form) = (self.attention, self.layout, &self.layout.form);
        let size = e.i64(attention.queries.size as i64);
        self.panels(e, |e, panel| {
            let Some(q) = attention.rows(e, self.bases, &panel.place, Q) else { return };
            e.transpose_rows(q, form, (panel.first, size), panel.columns);
            if let Some([queries, _]) = &self.sides {
                let span = e.i64(form.span as i64);
                queries.extent(e, panel.first, span).save(e, panel.extent);
            }
            e.clear(panel.sums, form.depth * form.span);
            e.clear(panel.totals, form.span);
            e.for_count(form.span, form.lanes, |e, lane| {
                let lowest = e.vconst(f32::NEG_INFINITY);
                let at = e.at(panel.highest, Elem::F32, lane);
                e.store(lowest, at);
            });
        });

        let place = Place { batch: self.batch, head: self.kv_head, kv_head: self.kv_head };
        let (Some(k), Some(v)) = (attention.rows(e, self.bases, &place, K), attention.rows(e, self.bases, &place, V))
        else {
            return;
        };
        let (keys, values) = (self.area(e, layout.keys), self.area(e, layout.values));
        let (zero, block) = (e.i64(0), e.i64(layout.block as i64));
        let past = e.add(self.first, block);
        let end = self.window.seen_before(e, attention, past);
        let own = self.sides.as_ref().map(|[queries, _]| queries.extent(e, self.first, block));
        e.for_each((zero, end, self.layout.tile as i64), &[], |e, key, _| {
            let left = e.sub(end, key);
            let most = e.i64(self.layout.tile as i64);
            let count = e.min_int(left, most);
            let padded = e.next_multiple(count, form.rows);
            let tile = |e: &mut Emitter, extent: Option<&Extent>| {
                e.copy_rows(k, form, key, (count, padded), keys);
                // Nothing of one sample may reach another through a weight of zero.
                let odd = match self.sides.is_some() {
                    true => Some(e.interleave_finite_rows(v, form, key, (count, padded), values)),
                    false => {
                        e.interleave_rows(v, form, key, (count, padded), values);
                        None
                    }
                };
                self.panels(e, |e, panel| match (&self.sides, extent) {
                    (Some(sides), Some(extent)) => {
                        let queries = Extent::read(&sides[0], e, panel.extent);
                        let any = attention.may_see(e, &queries, extent);
                        e.if_then(any, |e| {
                            let part = attention.trim(e, &queries, &sides[1], (key, count));
                            let some = e.cmp(Cmp::Lt, part.from, part.to);
                            e.if_then(some, |e| {
                                let rows = e.i64(form.rows as i64);
                                let from = e.div_unsigned(part.from, rows);
                                let from = e.mul(from, rows);
                                let to = e.next_multiple(part.to, form.rows);
                                let size = e.sub(to, from);
                                let (whole, alike) = (e.cmp(Cmp::Eq, part.all, size), e.cmp(Cmp::Eq, part.alike, size));
                                let known = Known { whole, alike };
                                self.tile(e, panel, (key, (from, to)), (keys, values), Some(known));
                                if let Some(odd) = odd {
                                    let limit = e.i64(attention.keys.size as i64);
                                    let weights = self.area(e, self.layout.ready());
                                    e.if_then(odd, |e| {
                                        e.add_not_finite(v, form, (key, limit), (from, to), (weights, panel.sums));
                                    });
                                }
                            });
                        });
                    }
                    _ => self.tile(e, panel, (key, (zero, padded)), (keys, values), None),
                });
            };
            match (&self.sides, &own) {
                (Some([_, numbers]), Some(own)) => {
                    let extent = numbers.extent(e, key, count);
                    let any = attention.may_see(e, own, &extent);
                    e.if_then(any, |e| tile(e, Some(&extent)));
                }
                _ => tile(e, None),
            }
            Vec::new()
        });
        self.panels(e, |e, panel| self.finish(e, panel));
    }

    /// Some rows of one tile of keys for one panel of queries.
    fn tile(
        &self,
        e: &mut Emitter,
        panel: &Panel,
        (key, (from, count)): (Val, (Val, Val)),
        (keys, values): (Val, Val),
        known: Option<Known>,
    ) {
        let (attention, layout, form) = (self.attention, self.layout, &self.layout.form);
        let (scores, weights) = (self.area(e, layout.scores), self.area(e, layout.ready()));
        let bias = attention.bias_rows(e, self.bases, &panel.place, BIAS).zip(attention.along_queries());
        let turned = self.area(e, layout.biases);
        let bias = bias.map(|(rows, along)| BiasTile { rows, along, first: panel.first, key, turned });
        let span = e.i64(form.span as i64);
        let past = e.add(panel.first, span);
        let seen = self.window.seen_before(e, attention, past);
        let any = e.cmp(Cmp::Lt, key, seen);
        e.if_then(any, |e| {
            let zero = e.i64(0);
            // Nothing is computed behind the last key that the last query sees.
            let left = e.sub(seen, key);
            let left = e.next_multiple(left, form.rows);
            let count = e.min_int(count, left);
            let inner = form.micro(form.span, (form.stride, 1), form.span, form.span);
            let words = e.i64(form.words as i64);
            e.for_each((from, count, form.rows as i64), &[], |e, row, _| {
                let (a, c) = (e.offset_words(keys, row, form.stride), e.offset_words(scores, row, form.span));
                e.micro_words((form.word, inner), (a, panel.columns, c), words, zero);
                Vec::new()
            });
            // Whether the first query sees all keys; then they all do.
            let all = self.window.seen(e, attention, panel.first);
            let end = e.add(key, count);
            let whole = e.cmp(Cmp::Le, end, all);
            let whole = known.as_ref().map_or(whole, |known| e.and(whole, known.whole));
            if let Some(bias) = &bias {
                bias.turn(e, attention, form, (from, count));
            }
            let soften = |e: &mut Emitter, hidden: Hidden| {
                self.soften(e, panel, (key, (from, count)), (scores, weights), bias.as_ref(), hidden);
                Vec::new()
            };
            let hidden = |e: &mut Emitter| match &known {
                None => soften(e, Hidden::Run),
                Some(known) if attention.is_run() => {
                    e.if_else(known.alike, &[], |e| soften(e, Hidden::Run), |e| soften(e, Hidden::Numbers))
                }
                Some(_) => soften(e, Hidden::Numbers),
            };
            e.if_else(whole, &[], |e| soften(e, Hidden::Nothing), hidden);
            let pair = e.i64(form.word.depth() as i64);
            let here = e.sub(count, from);
            let (words, one) = (e.div_unsigned(here, pair), e.i64(1));
            let behind = e.div_unsigned(from, pair);
            let values = e.offset_words(values, behind, form.interleaved);
            let weights = e.offset_words(weights, behind, form.span);
            let inner = form.micro(form.span, (1, form.interleaved), form.span, form.span);
            let sums = |e: &mut Emitter, d: Val, rows: u64| {
                let (a, c) = (e.at(values, Elem::F32, d), e.offset_words(panel.sums, d, form.span));
                let inner = Micro { rows: rows as u32, ..inner };
                e.micro_words((form.word, inner), (a, weights, c), words, one);
            };
            let (depth, rest) = (attention.head.size, attention.head.size % form.rows);
            e.for_count(depth - rest, form.rows, |e, d| sums(e, d, form.rows));
            if rest > 0 {
                let d = e.i64((depth - rest) as i64);
                sums(e, d, rest);
            }
        });
    }

    /// Stores what a panel has summed.
    fn finish(&self, e: &mut Emitter, panel: &Panel) {
        let (attention, form) = (self.attention, &self.layout.form);
        let vf32 = e.vf32();
        if let Some(out) = attention.rows(e, self.bases, &panel.place, OUT) {
            let line = self.area(e, self.layout.line);
            let limit = attention.queries.size;
            e.store_turned(out, form, (panel.first, limit), (panel.sums, line), |e, sum, lane| {
                let at = e.at(panel.totals, Elem::F32, lane);
                let total = e.load(at, vf32);
                let share = e.div(sum, total);
                // A query that sees no key.
                let none = e.vconst(0.0);
                let blind = e.cmp(Cmp::Eq, total, none);
                e.select(blind, none, share)
            });
        }
        if let Some(lse) = attention.rows(e, self.bases, &panel.place, LSE) {
            e.for_count(form.span, form.lanes, |e, lane| {
                let (total, high) = (e.at(panel.totals, Elem::F32, lane), e.at(panel.highest, Elem::F32, lane));
                let (total, high) = (e.load(total, vf32), e.load(high, vf32));
                let log = e.log(total);
                let ln2 = e.vconst(std::f32::consts::LN_2);
                let value = e.fma(high, ln2, log);
                let query = e.add(panel.first, lane);
                let size = e.i64(attention.queries.size as i64);
                let left = e.sub(size, query);
                let mask = e.lanes_below(left);
                let stride = e.i64(lse.row_stride);
                let offset = e.mul(query, stride);
                let offset = e.add(lse.start, offset);
                let to = e.at(lse.base, Elem::F32, offset);
                e.store_strided(value, to, Elem::F32, lse.row_stride, Some(mask));
            });
        }
    }
}
