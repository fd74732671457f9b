//! Kernels of one write: parts share the rows, and copy each to its place in the table; all else of the table stays.

use ir::{Function, NodeId};
use types::TensorType;

use super::apply::stored;
use super::coord::Coord;
use super::eval::Eval;
use super::{LowerError, Needs, Pointers, behind_views};
use crate::emit::{Elem, Emitter, Kernel, Ty, Val};

pub struct WriteKernel {
    /// The parameter that changes.
    pub table: usize,
    base: NodeId,
    ids: NodeId,
    rows: NodeId,
    /// Rows before, in and after the dims of the ids.
    before: Vec<u64>,
    picked: Vec<u64>,
    after: u64,
    /// Rows of one table.
    size: u64,
    /// For each dim of the ids, the place of its coordinate among those before and picked; those of batch dims behind the
    /// table's own are in `after`, which has none.
    of_ids: Vec<usize>,
    elem: Elem,
    /// Bytes that it reads and writes.
    pub bytes: u64,
}

impl WriteKernel {
    pub fn new(function: &Function, node: NodeId, op: &ir::ops::Write) -> Result<WriteKernel, LowerError> {
        let args = &function.nodes[node].args;
        let tensor = |node: NodeId| -> Result<&TensorType, LowerError> {
            function.ty(node).tensor().ok_or_else(|| LowerError::new("a write of what is no tensor"))
        };
        let (table, ids, rows) = (tensor(args[0])?, tensor(args[1])?, tensor(args[2])?);
        let p = table.position(&op.dim).ok_or_else(|| LowerError::new("a write along a dim that is not there"))?;
        let picked = op.picked(table, ids).len();
        let of_ids: Vec<usize> = ids.dims.iter().filter_map(|dim| rows.position(&dim.name)).collect();
        let base = behind_views(function, args[0]);
        let param = function.params.iter().position(|&param| param == base);
        let alone = function.results.len() == 1 && behind_views(function, function.results[0]) == node;
        let (Some(table_param), true) = (param, alone) else {
            return Err(LowerError::new("a write stands alone in its kernel, and changes a parameter of it"));
        };
        if of_ids.iter().any(|&at| at >= p + picked) {
            return Err(LowerError::new("a write whose ids differ along dims behind the rows"));
        }
        let size = |dims: &[types::Dim]| dims.iter().map(|dim| dim.size as u64).collect::<Vec<u64>>();
        Ok(WriteKernel {
            table: table_param,
            base,
            ids: args[1],
            rows: behind_views(function, args[2]),
            before: size(&rows.dims[..p]),
            picked: size(&rows.dims[p..p + picked]),
            after: size(&rows.dims[p + picked..]).iter().product(),
            size: table.dims[p].size as u64,
            of_ids,
            // Elements move as they are.
            elem: match stored(table.dtype) {
                Elem::F64 | Elem::I64 => Elem::I64,
                Elem::Bf16 | Elem::F16 => Elem::I16,
                Elem::F32 | Elem::I32 => Elem::I32,
                other => other,
            },
            bytes: (2 * rows.bytes() + ids.bytes()) as u64,
        })
    }

    fn count(&self) -> u64 {
        self.before.iter().chain(&self.picked).product()
    }

    pub fn needs(&self) -> Needs {
        Needs { workspace: 0, parts: self.count().min(256), in_place: Vec::new() }
    }

    pub fn emit(
        &self,
        e: &mut Emitter,
        kernel: &Kernel,
        function: &Function,
        pointers: &Pointers,
    ) -> Result<(), LowerError> {
        let get = |node: NodeId| pointers.bases.get(&node).copied();
        let (Some(table), Some(rows)) = (get(self.base), get(self.rows)) else {
            return Err(LowerError::new("a write of computed rows"));
        };
        let (from, to) = e.share(kernel, self.count(), self.count().min(256));
        let mut eval = Eval::new(function, pointers.bases.clone());
        let sizes = [&self.before[..], &self.picked].concat();
        let mut result = Ok(());
        e.for_range((from, to, 1), |e, index| {
            result = eval.scope(|eval| {
                let at: Vec<Coord> = e.unravel(index, &sizes).into_iter().map(Coord::one).collect();
                let own: Vec<Coord> = self.of_ids.iter().map(|&place| at[place]).collect();
                let id = eval.value(e, self.ids, &own)?;
                let id = e.extend_signed(id, Elem::I64);
                let size = e.i64(self.size as i64);
                let exists = e.below(id, size);
                e.if_then(exists, |e| {
                    let picked = e.i64(self.picked.iter().product::<u64>() as i64);
                    let outer = e.div_unsigned(index, picked);
                    let first = e.mul(outer, size);
                    let target = e.add(first, id);
                    self.copy(e, (rows, index), (table, target));
                });
                Ok(())
            });
        });
        result
    }

    fn copy(&self, e: &mut Emitter, (from, row): (Val, Val), (to, target): (Val, Val)) {
        let (lanes, length) = (e.lanes(), e.i64(self.after as i64));
        let (from_row, to_row) = (e.mul(row, length), e.mul(target, length));
        let whole = self.after / u64::from(lanes) * u64::from(lanes);
        e.for_count(whole, u64::from(lanes), |e, at| self.move_lanes(e, lanes, (from, from_row), (to, to_row), at));
        let (begin, end) = (e.i64(whole as i64), length);
        e.for_range((begin, end, 1), |e, at| self.move_lanes(e, 0, (from, from_row), (to, to_row), at));
    }

    fn move_lanes(&self, e: &mut Emitter, lanes: u32, from: (Val, Val), to: (Val, Val), at: Val) {
        let [from, to] = [from, to].map(|(base, row)| {
            let offset = e.add(row, at);
            e.at(base, self.elem, offset)
        });
        let ty = if lanes == 0 { Ty::scalar(self.elem) } else { Ty::vector(self.elem, lanes) };
        let values = e.load(from, ty);
        e.store(values, to);
    }
}
