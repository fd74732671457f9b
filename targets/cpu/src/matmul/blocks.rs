//! The loops of a product around the inner kernel, and the hand-over of finished tiles to the epilogue.

use super::tiling::Lhs;
use super::{Buffers, Epilogue, LHS, Matmul, Micro, Site, Tiling, columns, rows};
use crate::emit::{Cmp, Elem, Emitter, Kernel, Val};
use crate::nest::points;

/// Bytes that memory moves at a time.
const LINE: u64 = 64;

/// The part of K that is multiplied at a time.
pub struct Span {
    pub batch: Val,
    pub k_outer: Val,
    pub first_k: Val,
    /// Steps of K.
    pub k: Val,
    pub words: Val,
}

impl Span {
    /// The offset of `operand` where the span starts.
    pub fn offset(&self, e: &mut Emitter, matmul: &Matmul, operand: usize) -> Val {
        let (outer, inner) = matmul.depth();
        let batch = e.offset_linear(&matmul.batch, self.batch, operand);
        let k_outer = e.offset_linear(outer, self.k_outer, operand);
        let stride = e.i64(inner.strides[operand]);
        let k_inner = e.mul(self.first_k, stride);
        let sum = e.add(batch, k_outer);
        e.add(sum, k_inner)
    }
}

/// Panels of one direction: the first and how many.
#[derive(Clone, Copy)]
pub struct Panels {
    pub first: Val,
    pub count: Val,
}

struct Scratch {
    lhs: Val,
    rhs: Val,
    sums: Val,
}

/// A block of columns, packed, for the rows that pass it.
struct Region<'a> {
    matmul: &'a Matmul,
    tiling: &'a Tiling,
    buffers: Buffers,
    scratch: Scratch,
    batch: Val,
    n: Panels,
}

/// Rows that are multiplied while they are in the cache.
struct Block<'a> {
    region: &'a Region<'a>,
    m: Panels,
    /// Panels from the first of those whose sums are in scratch.
    past: Val,
}

impl Emitter {
    /// Emits the product of a [`Matmul::normal`] form.
    pub fn matmul(&mut self, kernel: &Kernel, matmul: &Matmul, buffers: Buffers, mut epilogue: impl Epilogue) {
        let tiling = &matmul.tiling(self.cpu());
        let (from, to) = self.share(kernel, tiling.units(), tiling.useful_parts());
        let [lhs, rhs, sums, all] = tiling.scratch().map(|words| self.i64(words as i64));
        let own = self.mul(kernel.part, all);
        let own = self.at(buffers.workspace, Elem::F32, own);
        let [lhs, rhs, sums] = [lhs, rhs, sums].map(|words| self.at(own, Elem::F32, words));

        let (zero, one) = (self.i64(0), self.i64(1));
        let rows = self.i64(tiling.m_panels as i64);
        let first = self.div_unsigned(from, rows);
        let end = self.add(to, rows);
        let end = self.sub(end, one);
        let end = self.div_unsigned(end, rows);
        self.for_range((first, end, 1), |e, columns| {
            let at = e.unravel(columns, &[tiling.batch, tiling.n_blocks()]);
            let n = tiling.block_of_columns(e, at[1]);
            let batch = at[0];
            let whole_k = (tiling.k_blocks == 1).then(|| span(e, matmul, tiling, batch, zero));
            if let Some(span) = &whole_k {
                columns::pack(e, matmul, tiling, buffers.rhs, span, (n, rhs));
            }
            let start = e.mul(columns, rows);
            let m_from = e.sub(from, start);
            let m_from = e.max_int(m_from, zero);
            let m_to = e.sub(to, start);
            let m_to = e.min_int(m_to, rows);
            let scratch = Scratch { lhs, rhs, sums };
            let region = Region { matmul, tiling, buffers, scratch, batch, n };
            if let Some(span) = &whole_k {
                return region.rows(e, (m_from, m_to), (span, zero), &mut epilogue);
            }
            // Sums of some rows wait in scratch while K goes on.
            e.for_range((m_from, m_to, tiling.sum_panels as i64), |e, first| {
                let most = e.i64(tiling.sum_panels as i64);
                let end = e.add(first, most);
                let end = e.min_int(end, m_to);
                e.for_count(tiling.k_blocks, 1, |e, k_block| {
                    let span = span(e, matmul, tiling, batch, k_block);
                    columns::pack(e, matmul, tiling, buffers.rhs, &span, (n, rhs));
                    region.rows(e, (first, end), (&span, k_block), &mut epilogue);
                });
            });
        });
    }
}

impl Tiling {
    /// The panels of block `index`; blocks differ by one panel at most, so that parts that get as many blocks get as much
    /// work.
    pub fn block_of_columns(&self, e: &mut Emitter, index: Val) -> Panels {
        let (panels, blocks) = (e.i64(self.n_panels as i64), e.i64(self.n_blocks() as i64));
        let bound = |e: &mut Emitter, index: Val| {
            let scaled = e.mul(index, panels);
            e.div_unsigned(scaled, blocks)
        };
        let one = e.i64(1);
        let next = e.add(index, one);
        let (first, end) = (bound(e, index), bound(e, next));
        Panels { first, count: e.sub(end, first) }
    }
}

fn span(e: &mut Emitter, matmul: &Matmul, tiling: &Tiling, batch: Val, k_block: Val) -> Span {
    let (k_outer, k_inner) = matmul.depth();
    let at = e.unravel(k_block, &[points(k_outer), tiling.run_blocks]);
    let (kc, total) = (e.i64(tiling.kc as i64), e.i64(k_inner.size as i64));
    let first_k = e.mul(at[1], kc);
    let left = e.sub(total, first_k);
    let k = if tiling.run_blocks == 1 { total } else { e.min_int(left, kc) };
    let (depth, rest) = (e.i64(tiling.word.depth() as i64), e.i64(tiling.word.depth() as i64 - 1));
    let words = e.add(k, rest);
    let words = e.div_unsigned(words, depth);
    Span { batch, k_outer: at[0], first_k, k, words }
}

impl Region<'_> {
    /// Multiplies panels `from` to `to`; their sums begin with the scratch.
    fn rows(
        &self,
        e: &mut Emitter,
        (from, to): (Val, Val),
        (span, k_block): (&Span, Val),
        epilogue: &mut impl Epilogue,
    ) {
        let tiling = self.tiling;
        e.for_range((from, to, tiling.mc_panels as i64), |e, panel| {
            let left = e.sub(to, panel);
            let most = e.i64(tiling.mc_panels as i64);
            let m = Panels { first: panel, count: e.min_int(left, most) };
            let past = e.sub(panel, from);
            Block { region: self, m, past }.multiply(e, span, k_block, epilogue);
        });
    }
}

impl Block<'_> {
    fn multiply(&self, e: &mut Emitter, span: &Span, k_block: Val, epilogue: &mut impl Epilogue) {
        let Region { matmul, tiling, buffers, scratch, .. } = self.region;
        if tiling.lhs != Lhs::InPlace {
            rows::pack(e, matmul, tiling, buffers.lhs, span, (self.m, scratch.lhs));
        }
        let zero = e.i64(0);
        let right = tiling.panel_words();
        // All rows of the last panel but one exist; the last may be shorter.
        let total = points(&matmul.m);
        let rest = (total % u64::from(tiling.rows)) as u32;
        let full_panels = e.i64((total / u64::from(tiling.rows)) as i64);
        let full = e.sub(full_panels, self.m.first);
        let full = e.min_int(full, self.m.count);
        e.for_range((zero, self.region.n.count, 1), |e, n_panel| {
            let size = e.i64(right as i64);
            let b = e.mul(n_panel, size);
            let b = e.at(scratch.rhs, Elem::F32, b);
            e.for_range((zero, full, 1), |e, m_panel| {
                self.tile(e, (span, k_block), tiling.rows, (m_panel, n_panel, b), epilogue);
            });
            if rest > 0 {
                let short = e.cmp(Cmp::Lt, full, self.m.count);
                e.if_then(short, |e| self.tile(e, (span, k_block), rest, (full, n_panel, b), epilogue));
            }
        });
    }

    fn tile(
        &self,
        e: &mut Emitter,
        (span, k_block): (&Span, Val),
        rows: u32,
        (m_panel, n_panel, b): (Val, Val, Val),
        epilogue: &mut impl Epilogue,
    ) {
        let Region { tiling, scratch, .. } = self.region;
        let (a, a_row, a_k) = self.lhs_panel(e, span, m_panel);
        let c = match tiling.k_blocks {
            1 => scratch.sums,
            _ => {
                let (across, tile) = (e.i64(tiling.sum_panels as i64), e.i64(tiling.tile_floats() as i64));
                let index = e.mul(n_panel, across);
                let index = e.add(index, self.past);
                let index = e.add(index, m_panel);
                let index = e.mul(index, tile);
                e.at(scratch.sums, Elem::F32, index)
            }
        };
        if tiling.k_blocks == 1 {
            self.ask(e, rows, (m_panel, n_panel), epilogue);
        }
        let width = tiling.width as i64;
        let micro = Micro { rows, vectors: tiling.vectors, a_row, a_k, b_k: width, c_row: width };
        e.micro_words((tiling.word, micro), (a, b, c), span.words, k_block);
        let last = e.i64(tiling.k_blocks as i64 - 1);
        match tiling.k_blocks {
            1 => self.finish(e, rows, (m_panel, n_panel), c, epilogue),
            _ => {
                let is_last = e.cmp(Cmp::Eq, k_block, last);
                e.if_then(is_last, |e| self.finish(e, rows, (m_panel, n_panel), c, epilogue));
            }
        }
    }

    /// Where a panel of the left operand starts; words from row to row and from one word of K to the next.
    fn lhs_panel(&self, e: &mut Emitter, span: &Span, m_panel: Val) -> (Val, i64, i64) {
        let Region { matmul, tiling, buffers, scratch, .. } = self.region;
        let [panel, row, k] = tiling.lhs_steps();
        match tiling.lhs {
            Lhs::Rows | Lhs::Steps => {
                let step = e.i64(panel as i64);
                let offset = e.mul(m_panel, step);
                (e.at(scratch.lhs, Elem::F32, offset), row as i64, k as i64)
            }
            Lhs::InPlace => {
                let row = matmul.m.first().map_or(0, |dim| dim.strides[LHS]);
                let start = span.offset(e, matmul, LHS);
                let panel = e.add(self.m.first, m_panel);
                let step = e.i64(i64::from(tiling.rows) * row);
                let offset = e.mul(panel, step);
                let offset = e.add(start, offset);
                let at = e.at(buffers.lhs, tiling.word.elem(), offset);
                (at, row / tiling.word.depth() as i64, 1)
            }
        }
    }

    /// The first row of a tile, the run of columns that it is in, and the first column of that.
    fn corner(&self, e: &mut Emitter, (m_panel, n_panel): (Val, Val)) -> [Val; 3] {
        let Region { matmul, tiling, n, .. } = self.region;
        let panel_rows = e.i64(i64::from(tiling.rows));
        let m = e.add(self.m.first, m_panel);
        let m = e.mul(m, panel_rows);
        let panel = e.add(n.first, n_panel);
        let at = e.unravel(panel, &[points(matmul.columns().0), tiling.run_panels]);
        let width = e.i64(tiling.width as i64);
        [m, at[0], e.mul(at[1], width)]
    }

    /// Asks for what the epilogue of a tile will read and write.
    fn ask(&self, e: &mut Emitter, rows: u32, panels: (Val, Val), epilogue: &impl Epilogue) {
        let Region { matmul, tiling, batch, .. } = self.region;
        let [first_m, n_outer, n_inner] = self.corner(e, panels);
        e.for_count(u64::from(rows), 1, |e, row| {
            let m = e.add(first_m, row);
            let site = Site { matmul, batch: *batch, m, n_outer, n_inner, mask: None };
            for (from, elem) in epilogue.ahead(e, &site) {
                for line in 0..(tiling.width * elem.bytes()).div_ceil(LINE) {
                    let elements = e.i64((line * LINE / elem.bytes()) as i64);
                    let at = e.at(from, elem, elements);
                    e.prefetch(at);
                }
            }
        });
    }

    /// Hands each vector of a finished tile to the epilogue.
    fn finish(&self, e: &mut Emitter, rows: u32, panels: (Val, Val), c: Val, epilogue: &mut impl Epilogue) {
        let Region { matmul, tiling, batch, .. } = self.region;
        let n_inner = matmul.columns().1;
        let zero = e.i64(0);
        let [first_m, n_outer, first_n] = self.corner(e, panels);
        let width = e.i64(tiling.width as i64);
        let whole = n_inner.size.is_multiple_of(tiling.width);
        e.for_count(u64::from(rows), 1, |e, row| {
            let m = e.add(first_m, row);
            let line = e.mul(row, width);
            let line = e.at(c, Elem::F32, line);
            for vector in 0..tiling.vectors {
                let column = e.i64(i64::from(vector * e.lanes()));
                let from = e.at(line, Elem::F32, column);
                let n = e.add(first_n, column);
                let mut hand_over = |e: &mut Emitter, mask: Option<Val>| {
                    let vf32 = e.vf32();
                    let sum = e.load(from, vf32);
                    let site = Site { matmul, batch: *batch, m, n_outer, n_inner: n, mask };
                    epilogue.finish(e, &site, sum);
                };
                if whole {
                    hand_over(e, None);
                    continue;
                }
                let size = e.i64(n_inner.size as i64);
                let left = e.sub(size, n);
                let exists = e.cmp(Cmp::Gt, left, zero);
                e.if_then(exists, |e| {
                    let mask = e.lanes_below(left);
                    hand_over(e, Some(mask));
                });
            }
        });
    }
}
