//! A lone transpose that moves the last dim: squares are turned in registers.

use ir::{Function, Inst, NodeId, Op};

use super::apply::stored;
use super::{LowerError, Needs, Pointers};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Ty, Val};
use crate::nest::{Dim, merge, sizes};

/// Operand numbers in the strides.
const FROM: usize = 0;
const TO: usize = 1;

pub struct TransposeKernel {
    param: NodeId,
    elem: Elem,
    /// Dims that squares do not run along.
    outer: Vec<Dim>,
    /// The operand's last dim.
    rows: Dim,
    /// The result's last dim.
    columns: Dim,
    lanes: u64,
}

impl TransposeKernel {
    /// `None` unless the kernel is one transpose, and its operand and result end in different dims.
    pub fn new(function: &Function, cpu: &Cpu) -> Option<TransposeKernel> {
        let (&[param], &[result]) = (&function.params[..], &function.results[..]) else { return None };
        let node = &function.nodes[result];
        if !matches!(&node.inst, Inst::Op(Op::Transpose(_))) || node.args[..] != [param] {
            return None;
        }
        let (from, to) = (function.ty(param).tensor()?, function.ty(result).tensor()?);
        let (from_strides, to_strides) = (from.strides(), to.strides());
        let dims: Vec<Dim> = to
            .dims
            .iter()
            .zip(to_strides)
            .map(|(dim, stride)| {
                let from = from.position(&dim.name).map_or(0, |place| from_strides[place] as i64);
                Dim::new(dim.size as u64, &[from, stride as i64])
            })
            .collect();
        let mut outer = merge(&dims);
        let columns = outer.pop()?;
        let place = outer.iter().position(|dim| dim.strides[FROM] == 1)?;
        let rows = outer.remove(place);
        Some(TransposeKernel {
            param,
            elem: stored(to.dtype).as_int(),
            outer,
            rows,
            columns,
            lanes: u64::from(cpu.lanes),
        })
    }

    fn squares(&self) -> Vec<u64> {
        let mut squares = sizes(&self.outer);
        squares.extend([self.rows.size.div_ceil(self.lanes), self.columns.size.div_ceil(self.lanes)]);
        squares
    }

    pub fn needs(&self) -> Needs {
        let parts = self.squares().iter().product::<u64>().clamp(1, 1 << 16);
        Needs { workspace: 0, parts, in_place: Vec::new() }
    }

    pub fn emit(&self, e: &mut Emitter, kernel: &Kernel, pointers: &Pointers) -> Result<(), LowerError> {
        let squares = self.squares();
        let count = squares.iter().product();
        let (first, end) = e.share(kernel, count, count);
        let (from, to) = (pointers.bases[&self.param], pointers.results[0]);
        e.for_each((first, end, 1), &[], |e, index, _| {
            let at = e.unravel(index, &squares);
            let (outer, inner) = at.split_at(self.outer.len());
            let bases = [(from, FROM), (to, TO)].map(|(base, operand)| {
                let offset = e.offset(&self.outer, outer, operand);
                e.at(base, self.elem, offset)
            });
            let lanes = e.i64(self.lanes as i64);
            let (row, column) = (e.mul(inner[0], lanes), e.mul(inner[1], lanes));
            self.square(e, bases, (row, column));
            Vec::new()
        });
        Ok(())
    }

    fn square(&self, e: &mut Emitter, [from, to]: [Val; 2], (row, column): (Val, Val)) {
        let lanes = self.lanes as u32;
        let ty = Ty::vector(self.elem, lanes);
        let last = e.i64(self.columns.size as i64 - 1);
        let mask = self.mask(e, &self.rows, row);
        let mut square = Vec::new();
        for lane in 0..i64::from(lanes) {
            // Columns past the end repeat the last one.
            let lane = e.i64(lane);
            let column = e.add(column, lane);
            let column = e.min_int(column, last);
            let stride = e.i64(self.columns.strides[FROM]);
            let offset = e.mul(column, stride);
            let offset = e.add(offset, row);
            let at = e.at(from, self.elem, offset);
            square.push(match mask {
                None => e.load(at, ty),
                Some(mask) => {
                    let zero = e.int(ty, 0);
                    e.load_masked(at, mask, zero)
                }
            });
        }
        let mask = self.mask(e, &self.columns, column);
        let whole = self.rows.size.is_multiple_of(self.lanes);
        let size = e.i64(self.rows.size as i64);
        for (lane, values) in e.transpose(square).into_iter().enumerate() {
            let lane = e.i64(lane as i64);
            let row = e.add(row, lane);
            let stride = e.i64(self.rows.strides[TO]);
            let offset = e.mul(row, stride);
            let offset = e.add(offset, column);
            let put = |e: &mut Emitter| {
                let at = e.at(to, self.elem, offset);
                match mask {
                    None => e.store(values, at),
                    Some(mask) => e.store_masked(values, at, mask),
                }
            };
            match whole {
                true => put(e),
                false => {
                    let exists = e.cmp(Cmp::Lt, row, size);
                    e.if_then(exists, put);
                }
            }
        }
    }

    /// The lanes from `start` on that lie inside of `dim`; `None` if all always do.
    fn mask(&self, e: &mut Emitter, dim: &Dim, start: Val) -> Option<Val> {
        let end = e.i64(dim.size as i64);
        e.lanes_before((start, end), dim.size)
    }
}
