//! Kernels that put rows in order: all of a row by merging, or the first few elements by insertion.
//!
//! Elements become whole numbers of the same order, NaN the last, and of equal ones the earlier stays in front. So the
//! order is exact, and the same for any number of parts.

use ir::ops::{Argsort, TopK};
use ir::{Function, Inst, NodeId};

use super::apply::{held, load, store};
use super::rows::Rows;
use super::{LowerError, Needs, Pointers, behind_views};
use crate::emit::{Cmp, Elem, Emitter, Kernel, Ty, Val};

/// Scratch is handed out for at most this many parts.
const MOST_PARTS: u64 = 64;

pub struct SortKernel {
    rows: Rows,
    descending: bool,
    /// How many of a row are kept; `None` for all, of which only the order is wanted.
    first: Option<u64>,
    /// Of each result of the kernel, which result of the operator it is.
    items: Vec<usize>,
}

impl SortKernel {
    pub fn whole(function: &Function, node: NodeId, op: &Argsort) -> Result<SortKernel, LowerError> {
        let rows = Rows::new(function, node, &op.dim)?;
        Ok(SortKernel { rows, descending: op.descending, first: None, items: vec![1; function.results.len()] })
    }

    pub fn first(function: &Function, node: NodeId, op: &TopK) -> Result<SortKernel, LowerError> {
        let rows = Rows::new(function, node, &op.dim)?;
        let item = |&result: &NodeId| match function.nodes[behind_views(function, result)].inst {
            Inst::Get(item) => item,
            _ => 0,
        };
        let items = function.results.iter().map(item).collect();
        Ok(SortKernel { rows, descending: true, first: Some(op.to.size as u64), items })
    }

    /// Numbers of scratch that one part needs.
    fn scratch(&self) -> u64 {
        let numbers = match self.first {
            Some(first) => 2 * first,
            None => 4 * self.rows.size,
        };
        numbers.next_multiple_of(8)
    }

    fn parts(&self) -> u64 {
        self.rows.count().min(MOST_PARTS)
    }

    pub fn needs(&self) -> Needs {
        Needs { workspace: self.parts() * self.scratch() * 8, parts: self.parts(), in_place: Vec::new() }
    }

    pub fn emit(
        &self,
        e: &mut Emitter,
        kernel: &Kernel,
        function: &Function,
        pointers: &Pointers,
    ) -> Result<(), LowerError> {
        let x = self.rows.operand(pointers)?;
        let workspace = Pointers::workspace(e, function, kernel);
        let own = e.i64(self.scratch() as i64);
        let own = e.mul(kernel.part, own);
        let scratch = e.at(workspace, Elem::I64, own);
        let (from, to) = e.share(kernel, self.rows.count(), self.parts());
        e.for_each((from, to, 1), &[], |e, index, _| {
            let at = e.unravel(index, &[self.rows.outer, self.rows.inner]);
            let start = self.rows.start(e, at[0], at[1]);
            let order = match self.first {
                Some(first) => self.insert_all(e, x, start, scratch, first),
                None => self.merge_all(e, x, start, scratch),
            };
            self.put(e, x, start, (at[0], at[1]), order, &pointers.results);
            Vec::new()
        });
        Ok(())
    }

    /// A whole number that stands where the element at `place` does.
    fn key(&self, e: &mut Emitter, x: Val, place: Val) -> Val {
        let at = e.at(x, self.rows.elem(), place);
        let value = load(e, at, self.rows.dtype, 0, None);
        let own = held(self.rows.dtype);
        if !own.is_float() {
            let wide = e.extend_signed(value, Elem::I64);
            return self.turned(e, wide);
        }
        let zero = e.float(value.ty, 0.0);
        let is_zero = e.cmp(Cmp::Eq, value, zero);
        let one_zero = e.select(is_zero, zero, value);
        let bits = e.bitcast(one_zero, own.as_int());
        // The digits of negative numbers run the other way.
        let (sign, digits) = match own {
            Elem::F64 => (63, i64::MAX),
            _ => (31, i64::from(i32::MAX)),
        };
        let (sign, digits) = (e.int(bits.ty, sign), e.int(bits.ty, digits));
        let sign = e.shr_signed(bits, sign);
        let flips = e.and(sign, digits);
        let ordered = e.xor(bits, flips);
        let wide = e.extend_signed(ordered, Elem::I64);
        let key = self.turned(e, wide);
        let last = e.i64(i64::MAX);
        let is_nan = e.cmp(Cmp::Ne, value, value);
        e.select(is_nan, last, key)
    }

    fn turned(&self, e: &mut Emitter, key: Val) -> Val {
        let ones = e.i64(-1);
        if self.descending { e.xor(key, ones) } else { key }
    }

    /// Merges runs of 1, 2, 4 ... elements from one half of the scratch into the other; gives where the order is.
    fn merge_all(&self, e: &mut Emitter, x: Val, start: Val, scratch: Val) -> Val {
        let size = self.rows.size;
        let (zero, n, one) = (e.i64(0), e.i64(size as i64), e.i64(1));
        let half = e.i64(2 * size as i64);
        let other = e.at(scratch, Elem::I64, half);
        e.for_each((zero, n, 1), &[], |e, k, _| {
            let place = self.rows.place(e, start, k);
            let key = self.key(e, x, place);
            self.set(e, scratch, k, key, k);
            Vec::new()
        });
        let passes = e.i64(i64::from(size.next_power_of_two().ilog2()));
        let sorted = e.for_each((zero, passes, 1), &[scratch, other], |e, pass, buffers| {
            let width = e.shl(one, pass);
            let pair = e.add(width, width);
            let blocks = e.add(n, pair);
            let blocks = e.sub(blocks, one);
            let shift = e.add(pass, one);
            let blocks = e.shr_unsigned(blocks, shift);
            e.for_each((zero, blocks, 1), &[], |e, block, _| {
                let first = e.mul(block, pair);
                let middle = e.add(first, width);
                let middle = e.min_int(middle, n);
                let end = e.add(first, pair);
                let end = e.min_int(end, n);
                self.merge(e, (buffers[0], buffers[1]), (first, middle, end));
                Vec::new()
            });
            vec![buffers[1], buffers[0]]
        });
        e.at(sorted[0], Elem::I64, n)
    }

    /// Merges two neighbouring runs; of equal elements those of the first come first.
    fn merge(&self, e: &mut Emitter, (from, to): (Val, Val), (first, middle, end): (Val, Val, Val)) {
        let last = e.i64(self.rows.size as i64 - 1);
        e.for_each((first, end, 1), &[first, middle], |e, k, heads| {
            let [a, b] = [heads[0], heads[1]].map(|head| e.min_int(head, last));
            let [key_a, key_b] = [a, b].map(|at| self.get(e, from, at));
            let left = e.cmp(Cmp::Lt, heads[0], middle);
            let done = e.cmp(Cmp::Ge, heads[1], end);
            let before = e.cmp(Cmp::Le, key_a, key_b);
            let before = e.or(done, before);
            let takes = e.and(left, before);
            let at = e.select(takes, a, b);
            let key = e.select(takes, key_a, key_b);
            let index = self.index(e, from, at);
            self.set(e, to, k, key, index);
            let took = e.extend_unsigned(takes, Elem::I64);
            let one = e.i64(1);
            let other = e.sub(one, took);
            vec![e.add(heads[0], took), e.add(heads[1], other)]
        });
    }

    /// Keeps the first few of all elements so far in order; gives where their indices are.
    fn insert_all(&self, e: &mut Emitter, x: Val, start: Val, scratch: Val, first: u64) -> Val {
        let (zero, n, most) = (e.i64(0), e.i64(self.rows.size as i64), e.i64(first as i64));
        e.for_each((zero, most, 1), &[], |e, k, _| {
            let place = self.rows.place(e, start, k);
            let key = self.key(e, x, place);
            let pushed = self.insert(e, scratch, k, (key, k));
            self.set(e, scratch, k, pushed[0], pushed[1]);
            Vec::new()
        });
        let last = e.i64(first as i64 - 1);
        e.for_each((most, n, 1), &[], |e, k, _| {
            let place = self.rows.place(e, start, k);
            let key = self.key(e, x, place);
            let least = self.get(e, scratch, last);
            let belongs = e.cmp(Cmp::Lt, key, least);
            e.if_then(belongs, |e| {
                self.insert(e, scratch, most, (key, k));
            });
            Vec::new()
        });
        e.at(scratch, Elem::I64, most)
    }

    /// Puts an element into `count` ordered ones; gives the one that is pushed out.
    fn insert(&self, e: &mut Emitter, scratch: Val, count: Val, (key, index): (Val, Val)) -> Vec<Val> {
        let zero = e.i64(0);
        let still = e.int(Ty::scalar(Elem::I1), 0);
        e.for_each((zero, count, 1), &[key, index, still], |e, j, carried| {
            let (own, own_index) = (self.get(e, scratch, j), self.index(e, scratch, j));
            // Once one is pushed on, so are all behind it: equal ones do not pass each other.
            let before = e.cmp(Cmp::Lt, carried[0], own);
            let moves = e.or(carried[2], before);
            let key = e.select(moves, carried[0], own);
            let index = e.select(moves, carried[1], own_index);
            self.set(e, scratch, j, key, index);
            vec![e.select(moves, own, carried[0]), e.select(moves, own_index, carried[1]), moves]
        })
    }

    /// How far behind keys their indices lie.
    fn behind(&self) -> i64 {
        self.first.unwrap_or(self.rows.size) as i64
    }

    fn get(&self, e: &mut Emitter, buffer: Val, at: Val) -> Val {
        let at = e.at(buffer, Elem::I64, at);
        e.load(at, Ty::I64)
    }

    fn index(&self, e: &mut Emitter, buffer: Val, at: Val) -> Val {
        let behind = e.i64(self.behind());
        let at = e.add(at, behind);
        self.get(e, buffer, at)
    }

    fn set(&self, e: &mut Emitter, buffer: Val, at: Val, key: Val, index: Val) {
        let behind = e.i64(self.behind());
        let of_index = e.add(at, behind);
        let (at, of_index) = (e.at(buffer, Elem::I64, at), e.at(buffer, Elem::I64, of_index));
        e.store(key, at);
        e.store(index, of_index);
    }

    /// Stores the row's indices, and the elements that they name.
    fn put(&self, e: &mut Emitter, x: Val, start: Val, (outer, inner): (Val, Val), order: Val, results: &[Val]) {
        let kept = self.behind();
        let (zero, count, run) = (e.i64(0), e.i64(kept), e.i64(kept * self.rows.inner as i64));
        let first = e.mul(outer, run);
        let first = e.add(first, inner);
        e.for_each((zero, count, 1), &[], |e, k, _| {
            let index = self.get(e, order, k);
            let to = self.rows.place(e, first, k);
            for (&item, &base) in self.items.iter().zip(results) {
                if item == 1 {
                    let at = e.at(base, Elem::I64, to);
                    e.store(index, at);
                    continue;
                }
                let from = self.rows.place(e, start, index);
                let from = e.at(x, self.rows.elem(), from);
                let value = load(e, from, self.rows.dtype, 0, None);
                let at = e.at(base, self.rows.elem(), to);
                store(e, value, at, self.rows.dtype, None);
            }
            Vec::new()
        });
    }
}
