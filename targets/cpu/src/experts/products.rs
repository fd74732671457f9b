//! Products by expert: parts share panels of rows of the same expert.

use super::MOST_PARTS;
use super::order::Order;
use super::problem::{Bases, Experts, PRODUCTS, ROWS, WEIGHT};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Val};
use crate::matmul::{
    Lhs, Matmul, Micro, Panels, RHS_BYTES, Source, Span, Tiling, pack_columns, whole_row, word_by_word,
};

/// Bytes that memory moves at a time.
const LINE: u64 = 64;

impl Experts {
    /// All of a row is multiplied at a time.
    fn product_tiling(&self, cpu: &Cpu) -> (Matmul, Tiling) {
        let matmul = self.product();
        let tiling = matmul.tiling_of(cpu, Lhs::Rows, u64::MAX, RHS_BYTES);
        (matmul, tiling)
    }

    /// Words of scratch for a part, and parts.
    pub(super) fn product_needs(&self, cpu: &Cpu) -> (u64, u64) {
        let (_, tiling) = self.product_tiling(cpu);
        (Order::words(self) + tiling.scratch()[3], self.count().min(MOST_PARTS))
    }
}

/// What a part works on.
struct Work<'a> {
    experts: &'a Experts,
    bases: &'a Bases,
    matmul: &'a Matmul,
    tiling: &'a Tiling,
    order: Order,
    span: Span,
    lhs: Val,
    rhs: Val,
    tile: Val,
}

/// Rows of one expert, packed.
struct Block {
    /// The place of the first in the order, and how many there are.
    first: Val,
    rows: Val,
}

impl Emitter {
    /// Writes the product of each row; zeros where its number names no expert.
    pub fn expert_products(&mut self, kernel: &Kernel, experts: &Experts, bases: &Bases, workspace: Val) {
        let (matmul, tiling) = &experts.product_tiling(self.cpu());
        let (words, parts) = experts.product_needs(self.cpu());
        let (order, packed) = Order::of_part(self, experts, bases, (kernel.part, words), workspace);
        let [lhs, rhs, tile, _] = tiling.scratch().map(|words| {
            let words = self.i64(words as i64);
            self.at(packed, Elem::F32, words)
        });
        let zero = self.i64(0);
        let depth = experts.from.size;
        let span = Span {
            batch: zero,
            k_outer: zero,
            first_k: zero,
            k: self.i64(depth as i64),
            words: self.i64(depth.div_ceil(tiling.word.depth()) as i64),
        };
        let work = Work { experts, bases, matmul, tiling, order, span, lhs, rhs, tile };

        let count = self.i64(experts.experts.size as i64);
        let total = self.for_each((zero, count, 1), &[zero], |e, expert, sum| {
            let (first, end) = order.bounds(e, expert);
            let own = work.panels(e, first, end);
            vec![e.add(sum[0], own)]
        });
        let (from, to) = self.share_of(kernel, total[0], parts);
        self.for_each((zero, count, 1), &[zero], |e, expert, before| {
            let (first, end) = order.bounds(e, expert);
            let own = work.panels(e, first, end);
            let low = e.sub(from, before[0]);
            let low = e.max_int(low, zero);
            let high = e.sub(to, before[0]);
            let high = e.min_int(high, own);
            let any = e.cmp(Cmp::Lt, low, high);
            e.if_then(any, |e| work.expert(e, expert, (first, end), (low, high)));
            vec![e.add(before[0], own)]
        });
        // What names no expert.
        let (first, end) = order.bounds(self, count);
        let nothing = self.sub(end, first);
        let (from, to) = self.share_of(kernel, nothing, parts);
        let (from, to) = (self.add(first, from), self.add(first, to));
        self.for_each((from, to, 1), &[], |e, place, _| {
            let index = order.index(e, place);
            let width = e.i64(experts.to.size as i64);
            let lanes = i64::from(e.lanes());
            e.for_each((zero, width, lanes), &[], |e, column, _| {
                let left = e.sub(width, column);
                let value = e.vconst(0.0);
                work.store(e, value, index, column, Some(left));
                Vec::new()
            });
            Vec::new()
        });
    }
}

impl Work<'_> {
    /// Panels of the rows at these places.
    fn panels(&self, e: &mut Emitter, first: Val, end: Val) -> Val {
        let (rows, up) = (e.i64(i64::from(self.tiling.rows)), e.i64(i64::from(self.tiling.rows) - 1));
        let count = e.sub(end, first);
        let count = e.add(count, up);
        e.div_unsigned(count, rows)
    }

    /// Multiplies panels `low..high` of an expert's rows.
    fn expert(&self, e: &mut Emitter, expert: Val, (first, end): (Val, Val), (low, high): (Val, Val)) {
        let Work { experts, bases, matmul, tiling, .. } = self;
        let stride = e.i64(experts.experts.strides[WEIGHT]);
        let offset = e.mul(expert, stride);
        let matrix = e.at(bases[WEIGHT], experts.elem, offset);
        let rows = e.i64(i64::from(tiling.rows));
        let [low, high] = [low, high].map(|panel| {
            let row = e.mul(panel, rows);
            let place = e.add(first, row);
            e.min_int(place, end)
        });
        e.for_count(tiling.n_blocks(), 1, |e, block| {
            let n = tiling.block_of_columns(e, block);
            pack_columns(e, matmul, tiling, matrix, &self.span, (n, self.rhs));
            let most = tiling.mc_panels as i64 * i64::from(tiling.rows);
            e.for_range((low, high, most), |e, first| {
                let most = e.i64(most);
                let left = e.sub(high, first);
                let block = Block { first, rows: e.min_int(left, most) };
                self.pack(e, &block);
                self.block(e, &block, n);
            });
        });
    }

    /// Rows one after another, wherever they come from.
    fn pack(&self, e: &mut Emitter, block: &Block) {
        let Work { experts, bases, tiling, .. } = self;
        let from = &experts.from;
        let source = Source { base: bases[ROWS], elem: experts.elem, word: tiling.word, stride: from.strides[ROWS] };
        let zero = e.i64(0);
        e.for_each((zero, block.rows, 1), &[], |e, row, _| {
            let place = e.add(block.first, row);
            let index = self.order.index(e, place);
            let start = e.offset_linear(&experts.ids, index, ROWS);
            let step = e.i64(tiling.lhs_steps()[1] as i64);
            let to = e.mul(row, step);
            let to = e.at(self.lhs, Elem::F32, to);
            match from.strides[ROWS] == 1 || from.size == 1 {
                true => whole_row(e, &source, start, to, &self.span),
                false => word_by_word(e, &source, start, (to, 1), &self.span),
            }
            Vec::new()
        });
    }

    fn block(&self, e: &mut Emitter, block: &Block, n: Panels) {
        let tiling = self.tiling;
        let zero = e.i64(0);
        e.for_each((zero, n.count, 1), &[], |e, n_panel, _| {
            let size = e.i64(tiling.panel_words() as i64);
            let b = e.mul(n_panel, size);
            let b = e.at(self.rhs, Elem::F32, b);
            let panel = e.add(n.first, n_panel);
            let width = e.i64(tiling.width as i64);
            let column = e.mul(panel, width);
            e.for_each((zero, block.rows, i64::from(tiling.rows)), &[], |e, row, _| {
                let most = e.i64(i64::from(tiling.rows));
                let left = e.sub(block.rows, row);
                let rows = e.min_int(left, most);
                let first = e.add(block.first, row);
                self.ask(e, (first, rows), column);
                self.multiply(e, row, rows, b);
                self.finish(e, (first, rows), column);
                Vec::new()
            });
            Vec::new()
        });
    }

    /// The sums of a tile: as many rows as there are.
    fn multiply(&self, e: &mut Emitter, row: Val, rows: Val, b: Val) {
        let tiling = self.tiling;
        let [_, a_row, a_k] = tiling.lhs_steps().map(|step| step as i64);
        let step = e.i64(a_row);
        let a = e.mul(row, step);
        let a = e.at(self.lhs, Elem::F32, a);
        let width = tiling.width as i64;
        let zero = e.i64(0);
        for count in 1..=tiling.rows {
            let these = e.i64(i64::from(count));
            let fits = e.cmp(Cmp::Eq, rows, these);
            let micro = Micro { rows: count, vectors: tiling.vectors, a_row, a_k, b_k: width, c_row: width };
            e.if_then(fits, |e| e.micro_words((tiling.word, micro), (a, b, self.tile), self.span.words, zero));
        }
    }

    /// Asks for the lines that a tile will be written to.
    fn ask(&self, e: &mut Emitter, (first, rows): (Val, Val), column: Val) {
        let Work { experts, bases, tiling, .. } = self;
        if experts.to.strides[PRODUCTS] != 1 {
            return;
        }
        let zero = e.i64(0);
        e.for_each((zero, rows, 1), &[], |e, row, _| {
            let place = e.add(first, row);
            let index = self.order.index(e, place);
            let offset = experts.at(e, index, &experts.to, column, PRODUCTS);
            for line in 0..(tiling.width * experts.elem.bytes()).div_ceil(LINE) {
                let elements = e.i64((line * LINE / experts.elem.bytes()) as i64);
                let at = e.add(offset, elements);
                let at = e.at(bases[PRODUCTS], experts.elem, at);
                e.prefetch(at);
            }
            Vec::new()
        });
    }

    fn finish(&self, e: &mut Emitter, (first, rows): (Val, Val), column: Val) {
        let Work { experts, tiling, .. } = self;
        let zero = e.i64(0);
        let whole = experts.to.size.is_multiple_of(tiling.width);
        e.for_each((zero, rows, 1), &[], |e, row, _| {
            let place = e.add(first, row);
            let index = self.order.index(e, place);
            let width = e.i64(tiling.width as i64);
            let line = e.mul(row, width);
            let line = e.at(self.tile, Elem::F32, line);
            for vector in 0..tiling.vectors {
                let shift = e.i64(i64::from(vector * e.lanes()));
                let from = e.at(line, Elem::F32, shift);
                let column = e.add(column, shift);
                let hand_over = |e: &mut Emitter, left: Option<Val>| {
                    let vf32 = e.vf32();
                    let sum = e.load(from, vf32);
                    self.store(e, sum, index, column, left);
                };
                if whole {
                    hand_over(e, None);
                    continue;
                }
                let size = e.i64(experts.to.size as i64);
                let left = e.sub(size, column);
                let exists = e.cmp(Cmp::Gt, left, zero);
                e.if_then(exists, |e| hand_over(e, Some(left)));
            }
            Vec::new()
        });
    }

    /// Stores a vector of the product of the number at `index`; of `left` columns, if not all are there.
    fn store(&self, e: &mut Emitter, value: Val, index: Val, column: Val, left: Option<Val>) {
        let Work { experts, bases, .. } = self;
        let mask = left.map(|left| e.lanes_below(left));
        let offset = experts.at(e, index, &experts.to, column, PRODUCTS);
        let at = e.at(bases[PRODUCTS], experts.elem, offset);
        e.store_strided(value, at, experts.elem, experts.to.strides[PRODUCTS], mask);
    }
}
