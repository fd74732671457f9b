//! Kernels of one product: elementwise operators that follow it run on its accumulators.

use std::collections::BTreeMap;

use ir::{Function, Inst, NodeId};
use types::TensorType;

use super::apply::{apply, constant, stored, truth};
use super::form::Form;
use super::{LowerError, Needs, Pointers, behind_views};
use crate::cpu::Cpu;
use crate::emit::{Elem, Emitter, Kernel, Val};
use crate::matmul::{Buffers, EXTRA, Epilogue, Matmul, OUT, Site, Tiling};
use crate::nest::Dim;

pub struct ProductKernel {
    node: NodeId,
    lhs: NodeId,
    rhs: NodeId,
    matmul: Matmul,
    tiling: Tiling,
    /// Operand numbers of what the epilogue reads.
    operands: BTreeMap<NodeId, usize>,
}

impl ProductKernel {
    pub fn new(
        function: &Function,
        node: NodeId,
        op: &ir::ops::Matmul,
        cpu: &Cpu,
    ) -> Result<ProductKernel, LowerError> {
        let letters = op.letters().ok_or_else(|| LowerError::new(format!("`{}` is no matmul", op.spec)))?;
        let args = &function.nodes[node].args;
        let (a, b) = (tensor(function, args[0])?, tensor(function, args[1])?);
        let out = tensor(function, node)?;
        let operands = epilogue_operands(function, node);

        let stride = |own: &[u8], ty: &TensorType, letter: u8| {
            own.iter().position(|&other| other == letter).map_or(0, |place| ty.strides()[place] as i64)
        };
        let size = |letter: u8| {
            let left = letters.lhs.iter().position(|&other| other == letter).map(|place| a.dims[place].size);
            let right = letters.rhs.iter().position(|&other| other == letter).map(|place| b.dims[place].size);
            left.or(right).unwrap_or(1) as u64
        };
        let dim = |letter: u8| -> Result<Dim, LowerError> {
            let mut strides =
                vec![stride(letters.lhs, a, letter), stride(letters.rhs, b, letter), stride(letters.out, out, letter)];
            let name = letters.out.iter().position(|&other| other == letter).map(|place| &out.dims[place].name);
            let mut extra: Vec<(usize, i64)> = Vec::new();
            for (&operand, &number) in &operands {
                let ty = tensor(function, operand)?;
                let place = name.and_then(|name| ty.position(name));
                extra.push((number, place.map_or(0, |place| ty.strides()[place] as i64)));
            }
            extra.sort_unstable();
            strides.extend(extra.into_iter().map(|(_, stride)| stride));
            Ok(Dim::new(size(letter), &strides))
        };
        let pick = |from: &[u8], in_lhs: bool, in_rhs: bool, in_out: bool| -> Result<Vec<Dim>, LowerError> {
            let fits = |letter: &&u8| {
                letters.lhs.contains(letter) == in_lhs
                    && letters.rhs.contains(letter) == in_rhs
                    && letters.out.contains(letter) == in_out
            };
            from.iter().filter(fits).map(|&letter| dim(letter)).collect()
        };
        let plain = Matmul {
            batch: pick(letters.out, true, true, true)?,
            m: pick(letters.out, true, false, true)?,
            n: pick(letters.out, false, true, true)?,
            k: pick(letters.lhs, true, true, false)?,
            lhs: stored(a.dtype),
            rhs: stored(b.dtype),
        };
        if !a.dtype.is_float() || stored(a.dtype) == Elem::F64 {
            return Err(LowerError::new(format!("no code for `matmul` of {}", a.dtype)));
        }
        let matmul = plain.normal();
        let (lhs, rhs) = if plain.exchanges() { (args[1], args[0]) } else { (args[0], args[1]) };
        let tiling = matmul.tiling(cpu);
        Ok(ProductKernel { node, lhs, rhs, matmul, tiling, operands })
    }

    pub fn needs(&self) -> Needs {
        Needs { workspace: self.tiling.workspace_bytes(), parts: self.tiling.useful_parts(), in_place: Vec::new() }
    }

    pub fn emit(
        &self,
        e: &mut Emitter,
        kernel: &Kernel,
        function: &Function,
        pointers: &Pointers,
    ) -> Result<(), LowerError> {
        let base = |node: NodeId| {
            let node = behind_views(function, node);
            pointers.bases.get(&node).copied().ok_or_else(|| LowerError::new("a product of a computed operand"))
        };
        let workspace = Pointers::workspace(e, function, kernel);
        let buffers = Buffers { lhs: base(self.lhs)?, rhs: base(self.rhs)?, workspace };
        let mut result = Ok(());
        e.matmul(kernel, &self.matmul, buffers, Finish { plan: self, function, pointers, result: &mut result });
        result
    }

    fn epilogue(
        &self,
        e: &mut Emitter,
        function: &Function,
        pointers: &Pointers,
        site: &Site<'_>,
        sum: Val,
        values: &mut BTreeMap<NodeId, Val>,
    ) -> Result<(), LowerError> {
        let rounded = e.round_through(sum, stored(tensor(function, self.node)?.dtype));
        values.insert(self.node, rounded);
        let mut stores = Vec::new();
        for &result in &function.results {
            stores.push(self.value(e, function, pointers, site, behind_views(function, result), values)?);
        }
        for ((&result, &base), value) in function.results.iter().zip(&pointers.results).zip(stores) {
            let dtype = tensor(function, result)?.dtype;
            let value = super::eval::widen(e, value, site.lanes(e));
            let value = if value.ty.elem == Elem::I1 { e.extend_unsigned(value, Elem::I8) } else { value };
            site.store(e, value, base, stored(dtype), OUT);
        }
        Ok(())
    }

    fn value(
        &self,
        e: &mut Emitter,
        function: &Function,
        pointers: &Pointers,
        site: &Site<'_>,
        node: NodeId,
        values: &mut BTreeMap<NodeId, Val>,
    ) -> Result<Val, LowerError> {
        if let Some(&value) = values.get(&node) {
            return Ok(value);
        }
        let ty = tensor(function, node)?;
        let args = &function.nodes[node].args;
        let value = match form(function, node) {
            Some(Form::Constant(op)) => constant(e, op.value, op.dtype),
            Some(Form::Elementwise(scalar)) => {
                let from = tensor(function, args[0])?.dtype;
                let mut operands = Vec::new();
                for &arg in args {
                    operands.push(self.value(e, function, pointers, site, arg, values)?);
                }
                apply(e, scalar, &operands, from, ty.dtype)
                    .ok_or_else(|| LowerError::new(format!("no code for `{scalar:?}` on {from}")))?
            }
            _ => {
                let base = pointers.bases.get(&behind_views(function, node)).copied();
                let (Some(&operand), Some(base)) = (self.operands.get(&node), base) else {
                    return Err(LowerError::new("an epilogue reads what is neither elementwise nor stored"));
                };
                let raw = site.load(e, base, stored(ty.dtype), operand);
                truth(e, raw, ty.dtype)
            }
        };
        values.insert(node, value);
        Ok(value)
    }
}

/// What follows the product elementwise.
struct Finish<'a> {
    plan: &'a ProductKernel,
    function: &'a Function,
    pointers: &'a Pointers,
    result: &'a mut Result<(), LowerError>,
}

impl Epilogue for Finish<'_> {
    fn finish(&mut self, e: &mut Emitter, site: &Site<'_>, sum: Val) {
        let done = self.plan.epilogue(e, self.function, self.pointers, site, sum, &mut BTreeMap::new());
        if self.result.is_ok() {
            *self.result = done;
        }
    }

    fn ahead(&self, e: &mut Emitter, site: &Site<'_>) -> Vec<(Val, Elem)> {
        let (function, pointers) = (self.function, self.pointers);
        let read = self.plan.operands.iter().filter_map(|(node, operand)| {
            Some((*operand, *pointers.bases.get(&behind_views(function, *node))?, *node))
        });
        let written = function.results.iter().zip(&pointers.results).map(|(node, base)| (OUT, *base, *node));
        let all: Vec<(usize, Val, NodeId)> =
            read.chain(written).filter(|(operand, ..)| site.is_row_of(*operand)).collect();
        let mut addresses = Vec::new();
        for (operand, base, node) in all {
            let Ok(ty) = tensor(function, node) else { continue };
            let (elem, offset) = (stored(ty.dtype), site.offset(e, operand));
            addresses.push((e.at(base, elem, offset), elem));
        }
        addresses
    }
}

fn tensor(function: &Function, node: NodeId) -> Result<&TensorType, LowerError> {
    function.ty(node).tensor().ok_or_else(|| LowerError::new("a product with an operand that is no tensor"))
}

fn form(function: &Function, node: NodeId) -> Option<Form<'_>> {
    match &function.nodes[node].inst {
        Inst::Op(op) => Some(Form::of(op)),
        _ => None,
    }
}

/// Stored values that operators after the product read, numbered as operands of the product's dims.
fn epilogue_operands(function: &Function, product: NodeId) -> BTreeMap<NodeId, usize> {
    let mut operands = BTreeMap::new();
    let mut pending: Vec<NodeId> = function.results.iter().map(|&result| behind_views(function, result)).collect();
    let mut seen = Vec::new();
    while let Some(node) = pending.pop() {
        if node == product || seen.contains(&node) {
            continue;
        }
        seen.push(node);
        match form(function, node) {
            Some(Form::Elementwise(_)) => pending.extend(&function.nodes[node].args),
            Some(Form::Constant(_)) => {}
            _ => {
                let next = EXTRA + operands.len();
                operands.entry(node).or_insert(next);
            }
        }
    }
    operands
}
