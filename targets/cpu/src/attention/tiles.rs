//! Tiles in scratch: rows as they lie, rows interleaved in pairs, and panels, in which lanes run along rows.

use crate::cpu::Cpu;
use crate::emit::{Elem, Emitter, Ty, Val};
use crate::matmul::{Micro, Word};

/// How the rows of one head are tiled; sizes are in words of 32 bits, but for `depth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileLayout {
    pub word: Word,
    /// Rows of the inner kernel's tile.
    pub rows: u64,
    pub lanes: u64,
    /// Lanes of a panel: the width of the inner kernel's tile.
    pub span: u64,
    /// The same where lanes run along a head.
    pub breadth: u64,
    /// Elements of a row, padded to whole tiles.
    pub depth: u64,
    /// Words of a row.
    pub words: u64,
    /// Words of a panel.
    pub panel: u64,
    /// Words of a copied row, padded.
    pub copied: u64,
    /// From one copied row to the next; no power of two, so that rows fall into different cache sets.
    pub stride: u64,
    /// From one pair of rows (of `f32`: from one row) to the next.
    pub interleaved: u64,
}

impl TileLayout {
    /// Panels run along a dim of size `across`.
    pub fn new(cpu: &Cpu, word: Word, head: u64, across: u64) -> TileLayout {
        let lanes = u64::from(cpu.lanes);
        let width = |size: u64| if size > lanes { 2 * lanes } else { lanes };
        let (span, breadth) = (width(across), width(head));
        let words = head.div_ceil(word.depth());
        let depth = head.next_multiple_of(breadth);
        let copied = if word == Word::F32 { depth } else { words.next_multiple_of(lanes) };
        TileLayout {
            word,
            rows: if cpu.registers >= 32 { 8 } else { 6 },
            lanes,
            span,
            breadth,
            depth,
            words,
            panel: words.next_multiple_of(lanes) * span,
            copied,
            stride: copied + lanes,
            interleaved: depth + lanes,
        }
    }

    /// The least number of rows from `least` on that is whole tiles of the inner kernel and whole runs of `of` lanes.
    pub fn tile(&self, least: u64, of: u64) -> u64 {
        let mut rows = least.next_multiple_of(of);
        while !rows.is_multiple_of(self.rows) {
            rows += of;
        }
        rows
    }

    /// The inner kernel whose columns are lanes of a panel of `width`; strides in words.
    pub fn micro(&self, width: u64, (a_row, a_k): (u64, u64), b_k: u64, c_row: u64) -> Micro {
        Micro {
            rows: self.rows as u32,
            vectors: (width / self.lanes) as u32,
            a_row: a_row as i64,
            a_k: a_k as i64,
            b_k: b_k as i64,
            c_row: c_row as i64,
        }
    }
}

/// Rows of one operand: element `(row, d)` is `start + row * row_stride + d * depth_stride`.
#[derive(Clone, Copy)]
pub struct Rows {
    pub base: Val,
    pub elem: Elem,
    pub start: Val,
    pub row_stride: i64,
    pub depth_stride: i64,
    /// Width of a row.
    pub depth: u64,
}

impl Rows {
    /// The address of `(row, d)`.
    pub fn at(&self, e: &mut Emitter, row: Val, d: Val) -> Val {
        let (row_stride, depth_stride) = (e.i64(self.row_stride), e.i64(self.depth_stride));
        let (row, d) = (e.mul(row, row_stride), e.mul(d, depth_stride));
        let offset = e.add(self.start, row);
        let offset = e.add(offset, d);
        e.at(self.base, self.elem, offset)
    }

    /// `lanes` elements from `(row, d)` on as they are stored; those past the end are zero, all if the row is not there.
    fn load(&self, e: &mut Emitter, row: Val, d: Val, lanes: u64, exists: Option<Val>) -> Val {
        let at = self.at(e, row, d);
        let mask = (exists.is_some() || !self.depth.is_multiple_of(lanes)).then(|| {
            let depth = e.i64(self.depth as i64);
            let mut left = e.sub(depth, d);
            if let Some(exists) = exists {
                let none = e.i64(0);
                left = e.select(exists, left, none);
            }
            e.first_lanes(left, lanes as u32)
        });
        match self.elem {
            Elem::Bf16 if self.depth_stride <= 1 => {
                let ty = Ty::vector(Elem::I16, lanes as u32);
                match mask {
                    None => e.load(at, ty),
                    Some(mask) => {
                        let zero = e.int(ty, 0);
                        e.load_masked(at, mask, zero)
                    }
                }
            }
            _ => e.load_strided(at, self.elem, self.depth_stride, mask),
        }
    }

    /// A full vector of words from word `at` of a row on, as `f32` bits.
    fn words(&self, e: &mut Emitter, form: &TileLayout, row: Val, at: Val, exists: Option<Val>) -> Val {
        let pair = e.i64(form.word.depth() as i64);
        let d = e.mul(at, pair);
        let loaded = self.load(e, row, d, form.lanes * form.word.depth(), exists);
        match (form.word, loaded.ty.elem) {
            (Word::Bf16Pair, _) => e.words_of(loaded),
            (Word::F32, Elem::I16) => e.bf16_bits_to_f32(loaded),
            (Word::F32, _) => loaded,
        }
    }

    /// A full vector of values from `(row, d)` on, as `f32`.
    pub fn values(&self, e: &mut Emitter, row: Val, d: Val) -> Val {
        self.values_where(e, row, d, None)
    }

    /// The same, or zeros if the row is not there.
    pub fn values_where(&self, e: &mut Emitter, row: Val, d: Val, exists: Option<Val>) -> Val {
        let lanes = u64::from(e.lanes());
        let loaded = self.load(e, row, d, lanes, exists);
        if loaded.ty.elem == Elem::I16 { e.bf16_bits_to_f32(loaded) } else { loaded }
    }
}

impl Emitter {
    /// Copies `count` rows from `first` on, and zeros for the rows up to `padded`.
    pub(super) fn copy_rows(
        &mut self,
        rows: Rows,
        form: &TileLayout,
        first: Val,
        (count, padded): (Val, Val),
        to: Val,
    ) {
        let zero = self.i64(0);
        self.for_range((zero, count, 1), |e, row| {
            let line = e.offset_words(to, row, form.stride);
            let row = e.add(first, row);
            e.for_count(form.copied, form.lanes, |e, word| {
                let values = rows.words(e, form, row, word, None);
                let to = e.at(line, Elem::F32, word);
                e.store(values, to);
            });
        });
        self.for_range((count, padded, 1), |e, row| {
            let line = e.offset_words(to, row, form.stride);
            e.clear(line, form.copied);
        });
    }

    /// Copies rows for products that sum over rows: of pairs of `bf16`, rows are interleaved two by two. Zeros up to `padded`,
    /// which is even.
    pub(super) fn interleave_rows(
        &mut self,
        rows: Rows,
        form: &TileLayout,
        first: Val,
        (count, padded): (Val, Val),
        to: Val,
    ) {
        if form.word == Word::F32 {
            return self.copy_rows(rows, form, first, (count, padded), to);
        }
        self.weave_rows(rows, form, first, (count, padded), to, None);
    }

    /// The same with zeros for what is not finite; returns whether there was any.
    pub(super) fn interleave_finite_rows(
        &mut self,
        rows: Rows,
        form: &TileLayout,
        first: Val,
        (count, padded): (Val, Val),
        to: Val,
    ) -> Val {
        if form.word == Word::Bf16Pair {
            let none = self.nothing_seen(2 * form.lanes as u32, Elem::I16);
            let seen = self.weave_rows(rows, form, first, (count, padded), to, Some(none));
            return self.any_seen(seen[0]);
        }
        let (zero, copied) = (self.i64(0), self.i64(form.copied as i64));
        let none = self.nothing_seen(form.lanes as u32, Elem::I32);
        let seen = self.for_each((zero, count, 1), &[none], |e, row, seen| {
            let line = e.offset_words(to, row, form.stride);
            let row = e.add(first, row);
            e.for_each((zero, copied, form.lanes as i64), seen, |e, word, seen| {
                let values = rows.words(e, form, row, word, None);
                let (values, seen) = e.finite(values, seen[0]);
                let to = e.at(line, Elem::F32, word);
                e.store(values, to);
                vec![seen]
            })
        });
        self.for_range((count, padded, 1), |e, row| {
            let line = e.offset_words(to, row, form.stride);
            e.clear(line, form.copied);
        });
        self.any_seen(seen[0])
    }

    /// Interleaves rows of `bf16` two by two; with `seen`, only what is finite.
    fn weave_rows(
        &mut self,
        rows: Rows,
        form: &TileLayout,
        first: Val,
        (count, padded): (Val, Val),
        to: Val,
        seen: Option<Val>,
    ) -> Vec<Val> {
        let (zero, two) = (self.i64(0), self.i64(2));
        let whole = self.div_unsigned(count, two);
        let pairs = self.div_unsigned(padded, two);
        let weave = |e: &mut Emitter, pair: Val, seen: &[Val], partly: bool| {
            let line = e.offset_words(to, pair, form.interleaved);
            let row = e.mul(pair, two);
            let one = e.i64(1);
            let next = e.add(row, one);
            let exists = |e: &mut Emitter, row| partly.then(|| e.cmp(crate::emit::Cmp::Lt, row, count));
            let there = [exists(e, row), exists(e, next)];
            let at = [e.add(first, row), e.add(first, next)];
            let step = |e: &mut Emitter, d: Val, seen: &[Val]| {
                let mut low = rows.load(e, at[0], d, 2 * form.lanes, there[0]);
                let mut high = rows.load(e, at[1], d, 2 * form.lanes, there[1]);
                let mut seen = seen.to_vec();
                if let [one] = seen.as_mut_slice() {
                    (low, *one) = e.finite(low, *one);
                    (high, *one) = e.finite(high, *one);
                }
                let run = 2 * form.lanes as u32;
                for half in 0..(form.breadth / form.lanes).min(2) as u32 {
                    let order: Vec<u32> = (0..run).map(|lane| half * run / 2 + lane / 2 + lane % 2 * run).collect();
                    let words = e.shuffle(low, high, &order);
                    let words = e.words_of(words);
                    let offset = e.i64(i64::from(half * run / 2));
                    let offset = e.add(d, offset);
                    let to = e.at(line, Elem::F32, offset);
                    e.store(words, to);
                }
                seen
            };
            if seen.is_empty() {
                e.for_count(form.depth, 2 * form.lanes, |e, d| drop(step(e, d, &[])));
                return Vec::new();
            }
            let depth = e.i64(form.depth as i64);
            e.for_each((zero, depth, 2 * form.lanes as i64), seen, step)
        };
        let seen: Vec<Val> = seen.into_iter().collect();
        if seen.is_empty() {
            self.for_range((zero, whole, 1), |e, pair| drop(weave(e, pair, &[], false)));
            self.for_range((whole, pairs, 1), |e, pair| drop(weave(e, pair, &[], true)));
            return seen;
        }
        let seen = self.for_each((zero, whole, 1), &seen, |e, pair, seen| weave(e, pair, seen, false));
        self.for_each((whole, pairs, 1), &seen, |e, pair, seen| weave(e, pair, seen, true))
    }

    /// A panel, `to[word, lane]`, of the rows from `first` on; rows from `limit` on are zero.
    pub(super) fn transpose_rows(&mut self, rows: Rows, form: &TileLayout, (first, limit): (Val, Val), to: Val) {
        let lanes = form.lanes;
        self.for_count(form.span, lanes, |e, lane| {
            e.for_count(form.words.next_multiple_of(lanes), lanes, |e, word| {
                let start = e.add(first, lane);
                let mut square = Vec::new();
                for offset in 0..lanes {
                    let offset = e.i64(offset as i64);
                    let row = e.add(start, offset);
                    let exists = e.cmp(crate::emit::Cmp::Lt, row, limit);
                    square.push(rows.words(e, form, row, word, Some(exists)));
                }
                let line = e.offset_words(to, word, form.span);
                let line = e.at(line, Elem::F32, lane);
                for (offset, values) in e.transpose(square).into_iter().enumerate() {
                    let offset = e.i64((offset as u64 * form.span) as i64);
                    let to = e.at(line, Elem::F32, offset);
                    e.store(values, to);
                }
            });
        });
    }

    /// Stores `from[d, lane]`, of `f32` and `span` wide, as rows, as many as there are below `limit`; `finish` gets each
    /// vector of lanes before it is turned, and the lane it starts at.
    pub(super) fn store_turned(
        &mut self,
        rows: Rows,
        form: &TileLayout,
        (first, limit): (Val, u64),
        (from, line): (Val, Val),
        mut finish: impl FnMut(&mut Emitter, Val, Val) -> Val,
    ) {
        let lanes = form.lanes;
        self.for_count(form.span, lanes, |e, lane| {
            e.for_count(rows.depth.next_multiple_of(lanes), lanes, |e, d| {
                let start = e.offset_words(from, d, form.span);
                let start = e.at(start, Elem::F32, lane);
                let vf32 = e.vf32();
                let mut square = Vec::new();
                for offset in 0..lanes {
                    let offset = e.i64((offset * form.span) as i64);
                    let at = e.at(start, Elem::F32, offset);
                    let values = e.load(at, vf32);
                    square.push(finish(e, values, lane));
                }
                // Through scratch, so that the rows can be stored in a loop that stops at the last.
                for (offset, values) in e.transpose(square).into_iter().enumerate() {
                    let offset = e.i64((offset as u64 * lanes) as i64);
                    let to = e.at(line, Elem::F32, offset);
                    e.store(values, to);
                }
                let mask = depth_mask(e, rows.depth, d);
                let zero = e.i64(0);
                let start = e.add(first, lane);
                let limit = e.i64(limit as i64);
                let count = e.sub(limit, start);
                let width = e.i64(lanes as i64);
                let count = e.min_int(count, width);
                e.for_each((zero, count, 1), &[], |e, row, _| {
                    let at = e.offset_words(line, row, lanes);
                    let values = e.load(at, vf32);
                    let row = e.add(start, row);
                    let to = rows.at(e, row, d);
                    e.store_strided(values, to, rows.elem, rows.depth_stride, mask);
                    Vec::new()
                });
            });
        });
    }

    /// Stores `count` rows of sums, `stride` apart, times `scale`.
    pub(super) fn store_rows(
        &mut self,
        rows: Rows,
        (first, count): (Val, Val),
        (from, stride): (Val, u64),
        scale: f64,
    ) {
        let (zero, lanes) = (self.i64(0), u64::from(self.lanes()));
        self.for_range((zero, count, 1), |e, row| {
            let line = e.offset_words(from, row, stride);
            let row = e.add(first, row);
            e.for_count(rows.depth.next_multiple_of(lanes), lanes, |e, d| {
                let at = e.at(line, Elem::F32, d);
                let vf32 = e.vf32();
                let values = e.load(at, vf32);
                let scale = e.float(vf32, scale);
                let values = e.mul(values, scale);
                let mask = depth_mask(e, rows.depth, d);
                let to = rows.at(e, row, d);
                e.store_strided(values, to, rows.elem, rows.depth_stride, mask);
            });
        });
    }

    /// The address of row `row` of a tile of words.
    pub(super) fn offset_words(&mut self, base: Val, row: Val, stride: u64) -> Val {
        let stride = self.i64(stride as i64);
        let offset = self.mul(row, stride);
        self.at(base, Elem::F32, offset)
    }

    /// Sets `words`, a whole number of vectors, to zero.
    pub(super) fn clear(&mut self, to: Val, words: u64) {
        let lanes = u64::from(self.lanes());
        self.for_count(words, lanes, |e, index| {
            let zero = e.vconst(0.0);
            let at = e.at(to, Elem::F32, index);
            e.store(zero, at);
        });
    }
}

/// The lanes of a vector at `d` that lie inside of a row.
fn depth_mask(e: &mut Emitter, depth: u64, d: Val) -> Option<Val> {
    let end = e.i64(depth as i64);
    e.lanes_before((d, end), depth)
}
