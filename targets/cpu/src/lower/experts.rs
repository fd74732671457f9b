//! Kernels of products by expert, and of their weights' gradient.

use ir::ops::{GroupedMatmul, GroupedMatmulWeight, Routing};
use ir::{Function, NodeId};
use types::{DType, TensorType};

use super::apply::stored;
use super::{LowerError, Needs, Pointers, behind_views};
use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel};
use crate::experts::{Experts, IDS, OPERANDS, PRODUCTS, ROWS, WEIGHT};
use crate::nest::Dim;

fn known<'a>(routing: Option<Routing<'a>>, spec: &str) -> Result<Routing<'a>, LowerError> {
    routing.ok_or_else(|| LowerError::new(format!("`{spec}` is no product by expert")))
}

pub struct ExpertKernel {
    experts: Experts,
    /// The node whose bytes each operand is; `None` for the result.
    operands: [Option<NodeId>; OPERANDS],
    gradient: bool,
    needs: Needs,
}

impl ExpertKernel {
    pub fn products(
        function: &Function,
        node: NodeId,
        op: &GroupedMatmul,
        cpu: &Cpu,
    ) -> Result<ExpertKernel, LowerError> {
        let routing = known(op.routing(), &op.spec)?;
        Self::new(function, node, &routing, (false, cpu))
    }

    pub fn weight(
        function: &Function,
        node: NodeId,
        op: &GroupedMatmulWeight,
        cpu: &Cpu,
    ) -> Result<ExpertKernel, LowerError> {
        let routing = known(op.routing(), &op.spec)?;
        Self::new(function, node, &routing, (true, cpu))
    }

    fn new(
        function: &Function,
        node: NodeId,
        routing: &Routing,
        (gradient, cpu): (bool, &Cpu),
    ) -> Result<ExpertKernel, LowerError> {
        if function.results != [node] {
            return Err(LowerError::new("a product by expert shares its kernel with something else"));
        }
        let args = &function.nodes[node].args;
        let (third, result) = if gradient { (PRODUCTS, WEIGHT) } else { (WEIGHT, PRODUCTS) };
        let mut nodes = [node; OPERANDS];
        (nodes[ROWS], nodes[IDS], nodes[third]) = (args[0], args[1], args[2]);
        let mut types: Vec<&TensorType> = vec![];
        for node in nodes {
            let ty = function.ty(node).tensor();
            types.push(ty.ok_or_else(|| LowerError::new("a product by expert of what is no tensor"))?);
        }
        let dtype: DType = types[ROWS].dtype;
        if stored(dtype) == Elem::F64 {
            return Err(LowerError::new("no code for products by expert in f64"));
        }
        let letters = [routing.rows, routing.weight, routing.products, routing.ids];
        let dim = |letter: u8| {
            let place = |operand: usize| letters[operand].iter().position(|own| *own == letter);
            let size = (0..OPERANDS).find_map(|operand| Some(types[operand].dims[place(operand)?].size)).unwrap_or(1);
            let stride = |operand| place(operand).map_or(0, |at| types[operand].strides()[at] as i64);
            Dim::new(size as u64, &(0..OPERANDS).map(stride).collect::<Vec<i64>>())
        };
        let experts = Experts {
            ids: crate::nest::merge(&routing.ids.iter().map(|&letter| dim(letter)).collect::<Vec<_>>()),
            experts: dim(routing.expert),
            from: dim(routing.from),
            to: dim(routing.to),
            number: stored(types[IDS].dtype),
            elem: stored(dtype),
        };
        let mut operands = nodes.map(|node| Some(behind_views(function, node)));
        operands[result] = None;
        if experts.count() > i32::MAX as u64 {
            return Err(LowerError::new(format!(
                "{} rows that are sent to experts, at most {}",
                experts.count(),
                i32::MAX
            )));
        }
        let (workspace, parts) = experts.needs(cpu, gradient);
        let needs = Needs { workspace, parts, in_place: Vec::new() };
        Ok(ExpertKernel { experts, operands, gradient, needs })
    }

    pub fn needs(&self) -> Needs {
        self.needs.clone()
    }

    pub fn emit(
        &self,
        e: &mut Emitter,
        kernel: &Kernel,
        function: &Function,
        pointers: &Pointers,
    ) -> Result<(), LowerError> {
        let mut bases = [pointers.results[0]; OPERANDS];
        for (base, node) in bases.iter_mut().zip(self.operands) {
            let Some(node) = node else { continue };
            let stored = pointers.bases.get(&node).copied();
            *base = stored.ok_or_else(|| LowerError::new("a product by expert of a computed operand"))?;
        }
        let workspace = Pointers::workspace(e, function, kernel);
        // Scratch is there for so many parts.
        let most = e.i64(self.needs.parts as i64);
        let works = e.cmp(Cmp::Lt, kernel.part, most);
        e.if_then(works, |e| match self.gradient {
            false => e.expert_products(kernel, &self.experts, &bases, workspace),
            true => e.expert_weights(kernel, &self.experts, &bases, workspace),
        });
        Ok(())
    }
}
