//! Kernels of one scatter-add: parts share the rows of the result, and each walks all updates in order; where there are
//! more tables than rows in each, parts share the tables.
//!
//! A row is then summed in the order of the updates, by one part. Sums are `f32`, in scratch where the result is narrower.

use ir::{Function, NodeId};
use types::{DType, TensorType};

use super::apply::stored;
use super::coord::Coord;
use super::eval::{Eval, widen};
use super::{LowerError, Needs, Pointers};
use crate::emit::{Cmp, Elem, Emitter, Kernel, Ty, Val};

pub struct ScatterKernel {
    node: NodeId,
    updates: NodeId,
    ids: NodeId,
    /// Updates before, in and after the dims of the ids.
    before: Vec<u64>,
    picked: Vec<u64>,
    after: Vec<u64>,
    rows: u64,
    /// For each dim of the ids, the place of its coordinate among those before and picked.
    of_ids: Vec<usize>,
    /// Parts share what is before the rows.
    by_table: bool,
    dtype: DType,
}

impl ScatterKernel {
    pub fn new(function: &Function, node: NodeId, op: &ir::ops::ScatterAdd) -> Result<ScatterKernel, LowerError> {
        let args = &function.nodes[node].args;
        let tensor = |node: NodeId| -> Result<&TensorType, LowerError> {
            function.ty(node).tensor().ok_or_else(|| LowerError::new("a scatter-add of what is no tensor"))
        };
        let (updates, ids, out) = (tensor(args[0])?, tensor(args[1])?, tensor(node)?);
        let dims = op.picked(updates, ids).ok_or_else(|| LowerError::new("a scatter-add whose ids do not fit"))?;
        let of_ids = ids.dims.iter().filter_map(|dim| updates.position(&dim.name)).collect();
        let size = |dims: &[types::Dim]| dims.iter().map(|dim| dim.size as u64).collect::<Vec<u64>>();
        if function.results.len() != 1 || function.results[0] != node || stored(out.dtype) == Elem::F64 {
            return Err(LowerError::new("a scatter-add stands alone in its kernel, and not in f64"));
        }
        Ok(ScatterKernel {
            node,
            updates: args[0],
            ids: args[1],
            before: size(&updates.dims[..dims.start]),
            picked: size(&updates.dims[dims.clone()]),
            after: size(&updates.dims[dims.end..]),
            rows: op.dim.size as u64,
            of_ids,
            by_table: !op.batch.is_empty()
                && updates.dims[..dims.start].iter().map(|d| d.size).product::<usize>() > op.dim.size,
            dtype: out.dtype,
        })
    }

    fn wide(&self) -> bool {
        stored(self.dtype) == Elem::F32
    }

    fn shares(&self) -> u64 {
        if self.by_table { self.before.iter().product() } else { self.rows }
    }

    fn elements(&self) -> u64 {
        self.before.iter().product::<u64>() * self.rows * self.after.iter().product::<u64>()
    }

    pub fn needs(&self) -> Needs {
        let workspace = if self.wide() { 0 } else { self.elements() * 4 };
        Needs { workspace, parts: self.shares().min(256), in_place: Vec::new() }
    }

    pub fn emit(
        &self,
        e: &mut Emitter,
        kernel: &Kernel,
        function: &Function,
        pointers: &Pointers,
    ) -> Result<(), LowerError> {
        let out = pointers.results[0];
        let sums = if self.wide() { out } else { Pointers::workspace(e, function, kernel) };
        let share = e.share(kernel, self.shares(), self.shares().min(256));
        let mut eval = Eval::new(function, pointers.bases.clone());
        let (outer, row) = (self.before.iter().product::<u64>(), self.after.iter().product::<u64>());
        let mut result = Ok(());
        let zero = e.i64(0);
        let [tables, (from, to)] = match self.by_table {
            true => [share, (zero, e.i64(self.rows as i64))],
            false => [(zero, e.i64(outer as i64)), share],
        };
        e.for_range((tables.0, tables.1, 1), |e, outer_index| {
            let size = e.i64(self.rows as i64);
            let first = e.mul(outer_index, size);
            let zero = e.float(Ty::F32, 0.0);
            self.fill(e, sums, first, (from, to), zero);
            let count = self.picked.iter().product::<u64>();
            e.for_count(count, 1, |e, index| {
                result = eval.scope(|eval| {
                    let picked: Vec<Coord> = e.unravel(index, &self.picked).into_iter().map(Coord::one).collect();
                    let before: Vec<Coord> = e.unravel(outer_index, &self.before).into_iter().map(Coord::one).collect();
                    let all = [&before[..], &picked].concat();
                    let own: Vec<Coord> = self.of_ids.iter().map(|&place| all[place]).collect();
                    let id = eval.value(e, self.ids, &own)?;
                    let id = e.extend_signed(id, Elem::I64);
                    let exists = e.below(id, size);
                    let mine = {
                        let after = e.cmp(Cmp::Ge, id, from);
                        let until = e.cmp(Cmp::Lt, id, to);
                        e.and(after, until)
                    };
                    let mut done = Ok(());
                    e.if_then(mine, |e| {
                        let target = e.add(first, id);
                        done = eval.scope(|eval| self.add_row(e, eval, sums, target, (&before, &picked), row));
                    });
                    let ones = e.int(exists.ty, 1);
                    let lost = e.xor(exists, ones);
                    e.if_then(lost, |e| {
                        let nan = e.float(Ty::F32, f64::NAN);
                        self.fill(e, sums, first, (from, to), nan);
                    });
                    done
                });
            });
            if !self.wide() {
                self.narrow(e, sums, out, first, (from, to));
            }
        });
        debug_assert_eq!(function.results[0], self.node);
        result
    }

    fn fill(&self, e: &mut Emitter, sums: Val, first: Val, (from, to): (Val, Val), value: Val) {
        let (begin, end) = self.span(e, first, (from, to));
        let lanes = e.lanes();
        e.for_each((begin, end, i64::from(lanes)), &[], |e, index, _| {
            let mask = e.lanes_before((index, end), self.after.iter().product());
            let at = e.at(sums, Elem::F32, index);
            let value = e.broadcast(value, lanes);
            e.store_narrow(value, at, Elem::F32, mask);
            Vec::new()
        });
    }

    /// The elements of rows `from..to`.
    fn span(&self, e: &mut Emitter, first: Val, (from, to): (Val, Val)) -> (Val, Val) {
        let row = e.i64(self.after.iter().product::<u64>() as i64);
        let (begin, end) = (e.add(first, from), e.add(first, to));
        (e.mul(begin, row), e.mul(end, row))
    }

    fn add_row(
        &self,
        e: &mut Emitter,
        eval: &mut Eval<'_>,
        sums: Val,
        target: Val,
        (before, picked): (&[Coord], &[Coord]),
        row: u64,
    ) -> Result<(), LowerError> {
        let lanes = e.lanes();
        let size = e.i64(row as i64);
        let start = e.mul(target, size);
        let (outer, last) = match self.after.split_last() {
            Some((&last, outer)) => (outer.to_vec(), last),
            None => (Vec::new(), 1),
        };
        let mut result = Ok(());
        e.for_count(outer.iter().product(), 1, |e, outer_index| {
            let end = e.i64(last as i64);
            let zero = e.i64(0);
            e.for_each((zero, end, i64::from(lanes)), &[], |e, index, _| {
                result = eval.scope(|eval| {
                    let mut at = [before, picked].concat();
                    at.extend(e.unravel(outer_index, &outer).into_iter().map(Coord::one));
                    if !self.after.is_empty() {
                        at.push(Coord::Run { first: index, step: 1, multiple: u64::from(lanes) });
                    }
                    let mask = e.lanes_before((index, end), last);
                    (eval.lanes, eval.mask) = (lanes, mask);
                    let value = eval.value(e, self.updates, &at);
                    (eval.lanes, eval.mask) = (0, None);
                    let value = widen(e, value?, lanes);
                    let line = e.mul(outer_index, end);
                    let offset = e.add(start, line);
                    let offset = e.add(offset, index);
                    let at = e.at(sums, Elem::F32, offset);
                    let sum = e.load_wide(at, Elem::F32, lanes, mask);
                    let sum = e.add(sum, value);
                    e.store_narrow(sum, at, Elem::F32, mask);
                    Ok(())
                });
                Vec::new()
            });
        });
        result
    }

    fn narrow(&self, e: &mut Emitter, sums: Val, out: Val, first: Val, share: (Val, Val)) {
        let (begin, end) = self.span(e, first, share);
        let lanes = e.lanes();
        e.for_each((begin, end, i64::from(lanes)), &[], |e, index, _| {
            let mask = e.lanes_before((index, end), self.after.iter().product());
            let from = e.at(sums, Elem::F32, index);
            let value = e.load_wide(from, Elem::F32, lanes, mask);
            let to = e.at(out, stored(self.dtype), index);
            e.store_narrow(value, to, stored(self.dtype), mask);
            Vec::new()
        });
    }
}
