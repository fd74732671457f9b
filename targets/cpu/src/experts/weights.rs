//! The gradient of the experts' matrices: parts share panels of rows of the matrices, each of which takes as long as its
//! expert has rows.

use super::MOST_PARTS;
use super::order::Order;
use super::problem::{Bases, Experts, OPERANDS, PRODUCTS, ROWS, WEIGHT};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Val};
use crate::matmul::{Lhs, Matmul, Micro, Panels, RHS_BYTES, Tiling, Word, weave};
use crate::nest::Dim;

/// Words of numbers that are summed in registers before a tile goes to memory.
const MOST_WORDS: u64 = 768;

/// Bytes that memory moves at a time.
const LINE: u64 = 64;

/// One side of the outer products.
#[derive(Clone, Copy)]
struct Side<'a> {
    dim: &'a Dim,
    operand: usize,
}

impl Experts {
    /// Rows and columns of a matrix: columns are what lies together in the result.
    fn sides(&self) -> (Side<'_>, Side<'_>) {
        let from = Side { dim: &self.from, operand: ROWS };
        let to = Side { dim: &self.to, operand: PRODUCTS };
        let lies = |side: Side<'_>| side.dim.strides[WEIGHT] == 1 && side.dim.size > 1;
        if lies(from) && !lies(to) { (to, from) } else { (from, to) }
    }

    /// The sums of one expert that has all rows.
    fn weight_tiling(&self, cpu: &Cpu) -> Tiling {
        let (left, right) = self.sides();
        let numbers = Dim::new(self.count(), &[0; OPERANDS]);
        let matmul = Matmul {
            batch: vec![],
            m: vec![left.dim.clone()],
            n: vec![right.dim.clone()],
            k: vec![numbers],
            lhs: self.elem,
            rhs: self.elem,
        };
        matmul.tiling_of(cpu, Lhs::Steps, MOST_WORDS, 2 * RHS_BYTES)
    }

    /// Words of scratch for a part, and parts.
    pub(super) fn weight_needs(&self, cpu: &Cpu) -> (u64, u64) {
        let tiling = self.weight_tiling(cpu);
        (Order::words(self) + tiling.scratch()[3], (self.experts.size * tiling.m_panels).min(MOST_PARTS))
    }
}

/// What a part works on.
struct Work<'a> {
    experts: &'a Experts,
    bases: &'a Bases,
    tiling: &'a Tiling,
    order: Order,
    lhs: Val,
    rhs: Val,
    sums: Val,
}

/// Numbers of one expert that are summed at a time: the place of the first, how many there are, and their words.
struct Run {
    first: Val,
    count: Val,
    words: Val,
    /// Which run of its expert it is, and whether it is the last one.
    index: Val,
    last: Val,
}

impl Emitter {
    /// Writes the sums of the outer products of each expert's rows.
    pub fn expert_weights(&mut self, kernel: &Kernel, experts: &Experts, bases: &Bases, workspace: Val) {
        let tiling = &experts.weight_tiling(self.cpu());
        let (words, parts) = experts.weight_needs(self.cpu());
        let (order, packed) = Order::of_part(self, experts, bases, (kernel.part, words), workspace);
        let [lhs, rhs, sums, _] = tiling.scratch().map(|words| {
            let words = self.i64(words as i64);
            self.at(packed, Elem::F32, words)
        });
        let work = Work { experts, bases, tiling, order, lhs, rhs, sums };

        let (zero, count) = (self.i64(0), self.i64(experts.experts.size as i64));
        let panels = self.i64(tiling.m_panels as i64);
        let (all, _) = order.bounds(self, count);
        let total = self.mul(all, panels);
        let (from, to) = self.share_of(kernel, total, parts);
        self.for_each((zero, count, 1), &[], |e, expert, _| {
            let (first, end) = order.bounds(e, expert);
            let rows = e.sub(end, first);
            // Panel i of an expert begins behind i times as many rows as it has.
            let start = e.mul(first, panels);
            let [low, high] = [from, to].map(|bound| {
                let ahead = e.sub(bound, start);
                let ahead = e.max_int(ahead, zero);
                let one = e.i64(1);
                let some = e.max_int(rows, one);
                let up = e.sub(some, one);
                let ahead = e.add(ahead, up);
                let panel = e.div_unsigned(ahead, some);
                e.min_int(panel, panels)
            });
            let there = e.cmp(Cmp::Lt, first, end);
            let mine = e.cmp(Cmp::Lt, low, high);
            let any = e.and(there, mine);
            e.if_then(any, |e| work.expert(e, expert, (first, rows), (low, high)));
            Vec::new()
        });
        let (from, to) = self.share(kernel, experts.experts.size, parts);
        self.for_each((from, to, 1), &[], |e, expert, _| {
            let (first, end) = order.bounds(e, expert);
            let none = e.cmp(Cmp::Eq, first, end);
            e.if_then(none, |e| work.clear(e, expert));
            Vec::new()
        });
    }
}

impl Work<'_> {
    /// Panels `low..high` of rows of an expert's matrix.
    fn expert(&self, e: &mut Emitter, expert: Val, (first, rows): (Val, Val), (low, high): (Val, Val)) {
        let tiling = self.tiling;
        let (zero, one) = (e.i64(0), e.i64(1));
        let most = e.i64(tiling.kc as i64);
        let up = e.sub(most, one);
        // Runs of an expert are about as long as each other, and of whole words.
        let runs = e.add(rows, up);
        let runs = e.div_unsigned(runs, most);
        let each = e.add(rows, runs);
        let each = e.sub(each, one);
        let each = e.div_unsigned(each, runs);
        let each = e.next_multiple(each, 4);
        let most = e.min_int(each, most);
        let runs = e.add(rows, most);
        let runs = e.sub(runs, one);
        let runs = e.div_unsigned(runs, most);
        let last = e.sub(runs, one);
        e.for_count(tiling.n_blocks(), 1, |e, block| {
            let n = tiling.block_of_columns(e, block);
            // Sums of some rows wait in scratch while numbers go on.
            e.for_range((low, high, tiling.sum_panels as i64), |e, from| {
                let some = e.i64(tiling.sum_panels as i64);
                let to = e.add(from, some);
                let to = e.min_int(to, high);
                e.for_each((zero, runs, 1), &[], |e, index, _| {
                    let done = e.mul(index, most);
                    let left = e.sub(rows, done);
                    let count = e.min_int(left, most);
                    let (depth, rest) = (tiling.word.depth() as i64, tiling.word.depth() as i64 - 1);
                    let (depth, rest) = (e.i64(depth), e.i64(rest));
                    let words = e.add(count, rest);
                    let words = e.div_unsigned(words, depth);
                    let run = Run { first: e.add(first, done), count, words, index, last };
                    self.pack_columns(e, &run, n);
                    e.for_range((from, to, tiling.mc_panels as i64), |e, panel| {
                        let some = e.i64(tiling.mc_panels as i64);
                        let left = e.sub(to, panel);
                        let m = Panels { first: panel, count: e.min_int(left, some) };
                        let past = e.sub(panel, from);
                        self.pack_rows(e, &run, m);
                        self.multiply(e, expert, &run, (m, past), n);
                    });
                    Vec::new()
                });
            });
        });
    }

    /// The words of one step: neighbours along a side, from `first` on; of `left` elements, if not all are there.
    fn words(
        &self,
        e: &mut Emitter,
        side: Side<'_>,
        (starts, odd): (&[Val], Option<Val>),
        first: Val,
        left: Option<Val>,
    ) -> Val {
        let elem = self.experts.elem;
        let stride = side.dim.strides[side.operand];
        let step = e.i64(stride);
        let within = e.mul(first, step);
        let mask = left.map(|left| e.lanes_below(left));
        let values: Vec<Val> = starts
            .iter()
            .map(|&start| {
                let offset = e.add(start, within);
                let at = e.at(self.bases[side.operand], elem, offset);
                // A single column has no stride: the other lanes do not exist.
                e.load_strided(at, elem, stride.max(1), mask)
            })
            .collect();
        match (&values[..], odd) {
            (&[even, next], Some(exists)) => {
                let zero = e.float(next.ty, 0.0);
                let exists = e.broadcast(exists, next.ty.lanes);
                let next = e.select(exists, next, zero);
                weave(e, even, next)
            }
            _ => values[0],
        }
    }

    /// Calls `body` for each word of a run, with where the rows of its numbers begin.
    fn each_word(
        &self,
        e: &mut Emitter,
        run: &Run,
        operand: usize,
        body: impl FnOnce(&mut Emitter, Val, &[Val], Option<Val>),
    ) {
        let zero = e.i64(0);
        e.for_each((zero, run.words, 1), &[], |e, word, _| {
            let start = |e: &mut Emitter, k: Val| {
                let place = e.add(run.first, k);
                let index = self.order.index(e, place);
                e.offset_linear(&self.experts.ids, index, operand)
            };
            match self.tiling.word {
                Word::F32 => {
                    let starts = [start(e, word)];
                    body(e, word, &starts, None);
                }
                Word::Bf16Pair => {
                    let (one, two) = (e.i64(1), e.i64(2));
                    let k = e.mul(word, two);
                    let next = e.add(k, one);
                    let exists = e.cmp(Cmp::Lt, next, run.count);
                    let safe = e.select(exists, next, k);
                    let starts = [start(e, k), start(e, safe)];
                    body(e, word, &starts, Some(exists));
                }
            }
            Vec::new()
        });
    }

    /// What a vector holds beyond a panel's rows is overwritten by the next word's.
    fn pack_rows(&self, e: &mut Emitter, run: &Run, m: Panels) {
        let tiling = self.tiling;
        let (side, _) = self.experts.sides();
        let [panel_step, _, k_step] = tiling.lhs_steps();
        let lanes = u64::from(e.lanes());
        // Panels before this one can be read as whole vectors.
        let full = (side.dim.size + u64::from(tiling.rows)).saturating_sub(lanes) / u64::from(tiling.rows);
        self.each_word(e, run, side.operand, |e, word, starts, odd| {
            let step = e.i64(k_step as i64);
            let line = e.mul(word, step);
            let line = e.at(self.lhs, Elem::F32, line);
            let copy = |e: &mut Emitter, panel: Val, whole: bool| {
                let (rows, step) = (e.i64(i64::from(tiling.rows)), e.i64(panel_step as i64));
                let to = e.mul(panel, step);
                let to = e.at(line, Elem::F32, to);
                let first = e.add(m.first, panel);
                let first = e.mul(first, rows);
                let size = e.i64(side.dim.size as i64);
                let left = (!whole).then(|| e.sub(size, first));
                let words = self.words(e, side, (starts, odd), first, left);
                e.store(words, to);
                Vec::new()
            };
            let (zero, full) = (e.i64(0), e.i64(full as i64));
            let full = e.sub(full, m.first);
            let full = e.max_int(full, zero);
            let full = e.min_int(full, m.count);
            e.for_each((zero, full, 1), &[], |e, panel, _| copy(e, panel, true));
            e.for_each((full, m.count, 1), &[], |e, panel, _| copy(e, panel, false));
        });
    }

    fn pack_columns(&self, e: &mut Emitter, run: &Run, n: Panels) {
        let tiling = self.tiling;
        let (_, side) = self.experts.sides();
        let whole = side.dim.size.is_multiple_of(tiling.width);
        self.each_word(e, run, side.operand, |e, word, starts, odd| {
            let width = e.i64(tiling.width as i64);
            let line = e.mul(word, width);
            let line = e.at(self.rhs, Elem::F32, line);
            let zero = e.i64(0);
            e.for_each((zero, n.count, 1), &[], |e, panel, _| {
                let step = e.i64(tiling.panel_words() as i64);
                let to = e.mul(panel, step);
                let to = e.at(line, Elem::F32, to);
                let first = e.add(n.first, panel);
                let first = e.mul(first, width);
                for vector in 0..tiling.vectors {
                    let shift = e.i64(i64::from(vector * e.lanes()));
                    let first = e.add(first, shift);
                    let size = e.i64(side.dim.size as i64);
                    let left = (!whole).then(|| e.sub(size, first));
                    let words = self.words(e, side, (starts, odd), first, left);
                    let to = e.at(to, Elem::F32, shift);
                    e.store(words, to);
                }
                Vec::new()
            });
        });
    }

    fn multiply(&self, e: &mut Emitter, expert: Val, run: &Run, (m, past): (Panels, Val), n: Panels) {
        let tiling = self.tiling;
        let zero = e.i64(0);
        let [panel_step, a_row, a_k] = tiling.lhs_steps();
        let width = tiling.width as i64;
        let micro = Micro {
            rows: tiling.rows,
            vectors: tiling.vectors,
            a_row: a_row as i64,
            a_k: a_k as i64,
            b_k: width,
            c_row: width,
        };
        e.for_each((zero, n.count, 1), &[], |e, n_panel, _| {
            let size = e.i64(tiling.panel_words() as i64);
            let b = e.mul(n_panel, size);
            let b = e.at(self.rhs, Elem::F32, b);
            e.for_each((zero, m.count, 1), &[], |e, m_panel, _| {
                let step = e.i64(panel_step as i64);
                let a = e.mul(m_panel, step);
                let a = e.at(self.lhs, Elem::F32, a);
                let c = match tiling.k_blocks {
                    1 => self.sums,
                    _ => {
                        let (across, tile) = (e.i64(tiling.sum_panels as i64), e.i64(tiling.tile_floats() as i64));
                        let index = e.mul(n_panel, across);
                        let index = e.add(index, past);
                        let index = e.add(index, m_panel);
                        let index = e.mul(index, tile);
                        // One tile after another, where none waits for a next run.
                        let alone = e.cmp(Cmp::Eq, run.last, zero);
                        let index = e.select(alone, zero, index);
                        e.at(self.sums, Elem::F32, index)
                    }
                };
                let (row, column) = (e.add(m.first, m_panel), e.add(n.first, n_panel));
                let (rows, width) = (e.i64(i64::from(tiling.rows)), e.i64(tiling.width as i64));
                let (row, column) = (e.mul(row, rows), e.mul(column, width));
                let done = e.cmp(Cmp::Eq, run.index, run.last);
                e.if_then(done, |e| self.ask(e, expert, (row, column)));
                e.micro_words((tiling.word, micro), (a, b, c), run.words, run.index);
                e.if_then(done, |e| self.finish(e, expert, (row, column), c));
                Vec::new()
            });
            Vec::new()
        });
    }

    /// Rows of a tile that begins with row `first` of a matrix.
    fn rows_from(&self, e: &mut Emitter, first: Val) -> Val {
        let (left, _) = self.experts.sides();
        let (size, rows) = (e.i64(left.dim.size as i64), e.i64(i64::from(self.tiling.rows)));
        let there = e.sub(size, first);
        e.min_int(there, rows)
    }

    /// Asks for the lines that a tile will be written to.
    fn ask(&self, e: &mut Emitter, expert: Val, (first, column): (Val, Val)) {
        let (_, right) = self.experts.sides();
        if right.dim.strides[WEIGHT] != 1 {
            return;
        }
        let elem = self.experts.elem;
        let (zero, rows) = (e.i64(0), self.rows_from(e, first));
        e.for_each((zero, rows, 1), &[], |e, row, _| {
            let row = e.add(first, row);
            let from = self.place(e, expert, row, column);
            for line in 0..(self.tiling.width * elem.bytes()).div_ceil(LINE) {
                let elements = e.i64((line * LINE / elem.bytes()) as i64);
                let at = e.at(from, elem, elements);
                e.prefetch(at);
            }
            Vec::new()
        });
    }

    /// Stores a tile of sums.
    fn finish(&self, e: &mut Emitter, expert: Val, (first, column): (Val, Val), c: Val) {
        let tiling = self.tiling;
        let (_, right) = self.experts.sides();
        let whole = right.dim.size.is_multiple_of(tiling.width);
        let (zero, rows) = (e.i64(0), self.rows_from(e, first));
        e.for_each((zero, rows, 1), &[], |e, row, _| {
            let width = e.i64(tiling.width as i64);
            let line = e.mul(row, width);
            let line = e.at(c, Elem::F32, line);
            let row = e.add(first, row);
            for vector in 0..tiling.vectors {
                let shift = e.i64(i64::from(vector * e.lanes()));
                let from = e.at(line, Elem::F32, shift);
                let column = e.add(column, shift);
                let vf32 = e.vf32();
                let sum = e.load(from, vf32);
                self.store(e, sum, expert, (row, column), whole);
            }
            Vec::new()
        });
    }

    /// Zeros where no row is sent.
    fn clear(&self, e: &mut Emitter, expert: Val) {
        let (left, right) = self.experts.sides();
        let (zero, rows) = (e.i64(0), e.i64(left.dim.size as i64));
        let (columns, lanes) = (e.i64(right.dim.size as i64), i64::from(e.lanes()));
        e.for_each((zero, rows, 1), &[], |e, row, _| {
            e.for_each((zero, columns, lanes), &[], |e, column, _| {
                let nothing = e.vconst(0.0);
                self.store(e, nothing, expert, (row, column), false);
                Vec::new()
            });
            Vec::new()
        });
    }

    /// The address of an element of an expert's matrix.
    fn place(&self, e: &mut Emitter, expert: Val, row: Val, column: Val) -> Val {
        let (left, right) = self.experts.sides();
        let dims = [self.experts.experts.clone(), left.dim.clone(), right.dim.clone()];
        let offset = e.offset(&dims, &[expert, row, column], WEIGHT);
        e.at(self.bases[WEIGHT], self.experts.elem, offset)
    }

    /// Stores a vector of an expert's matrix: the columns from one on, as far as they go, which may be known to be far
    /// enough.
    fn store(&self, e: &mut Emitter, value: Val, expert: Val, (row, column): (Val, Val), whole: bool) {
        let (_, right) = self.experts.sides();
        let size = e.i64(right.dim.size as i64);
        let mask = (!whole).then(|| {
            let there = e.sub(size, column);
            e.lanes_below(there)
        });
        let at = self.place(e, expert, row, column);
        e.store_strided(value, at, self.experts.elem, right.dim.strides[WEIGHT], mask);
    }
}
