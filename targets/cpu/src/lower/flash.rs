//! Kernels of attention and of its gradient.

use ir::{Function, Inst, NodeId};
use types::{Name, TensorType};

use super::apply::stored;
use super::eval::Eval;
use super::{LowerError, Needs, Pointers, behind_views};
use crate::attention::{
    Attention, BIAS, Bases, DBIAS, DK, DOUT, DQ, DV, K, K_POSITION, K_SEGMENT, LSE, OPERANDS, OUT, Q, Q_POSITION,
    Q_SEGMENT, V, Visibility, Window,
};
use crate::cpu::Cpu;
use crate::emit::{Elem, Emitter, Kernel, Val};
use crate::nest::Dim;

pub struct AttentionKernel {
    node: NodeId,
    attention: Attention,
    /// The operand numbers of the node's arguments, but for those of a part.
    operands: Vec<usize>,
    results: &'static [usize],
    needs: Needs,
}

impl AttentionKernel {
    pub fn forward(
        function: &Function,
        node: NodeId,
        op: &ir::ops::Attention,
        cpu: &Cpu,
    ) -> Result<AttentionKernel, LowerError> {
        let operands = [&[Q, K, V], &others(op)[..]].concat();
        let attention = describe(function, node, op, &operands, &[OUT, LSE])?;
        let needs = Needs {
            workspace: attention.forward_workspace(cpu),
            parts: attention.forward_parts(cpu),
            in_place: Vec::new(),
        };
        Ok(AttentionKernel { node, attention, operands, results: &[OUT, LSE], needs })
    }

    pub fn backward(
        function: &Function,
        node: NodeId,
        op: &ir::ops::AttentionGrad,
        cpu: &Cpu,
    ) -> Result<AttentionKernel, LowerError> {
        Self::gradient(function, node, &op.forward(), cpu, &[DQ, DK, DV])
    }

    /// The gradients of the scores, to which a bias is added.
    pub fn of_scores(
        function: &Function,
        node: NodeId,
        op: &ir::ops::AttentionBiasGrad,
        cpu: &Cpu,
    ) -> Result<AttentionKernel, LowerError> {
        Self::gradient(function, node, &op.forward(), cpu, &[DBIAS])
    }

    fn gradient(
        function: &Function,
        node: NodeId,
        op: &ir::ops::Attention,
        cpu: &Cpu,
        results: &'static [usize],
    ) -> Result<AttentionKernel, LowerError> {
        let operands = [&[Q, K, V, OUT, LSE, DOUT], &others(op)[..]].concat();
        let attention = describe(function, node, op, &operands, results)?;
        let needs = Needs {
            workspace: attention.backward_workspace(cpu),
            parts: attention.backward_parts(cpu),
            in_place: Vec::new(),
        };
        Ok(AttentionKernel { node, attention, operands, results, needs })
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
        let mut bases: Bases = [None; OPERANDS];
        let operands = &self.operands;
        let args = &function.nodes[self.node].args;
        for (&operand, &arg) in operands.iter().zip(args.iter()) {
            bases[operand] = Some(stored_at(function, pointers, arg)?);
        }
        let window = match args[operands.len()..] {
            [reach, length] => {
                let mut eval = Eval::new(function, pointers.bases.clone());
                let (reach, length) = (eval.value(e, reach, &[])?, eval.value(e, length, &[])?);
                Window::new(e, &self.attention, reach, length)
            }
            _ => Window::whole(e, &self.attention),
        };
        for (&result, &base) in function.results.iter().zip(&pointers.results) {
            let made = behind_views(function, result);
            let index = match function.nodes[made].inst {
                Inst::Get(index) => index,
                _ if made == self.node => 0,
                _ => return Err(LowerError::new("attention shares its kernel with something else")),
            };
            bases[self.results[index]] = Some(base);
        }
        let workspace = Pointers::workspace(e, function, kernel);
        match self.results.contains(&OUT) {
            true => e.attention(kernel, &self.attention, &bases, window, workspace),
            false => e.attention_grad(kernel, &self.attention, &bases, window, workspace),
        }
        Ok(())
    }
}

/// The bias, and the operands that number queries and keys.
fn others(op: &ir::ops::Attention) -> Vec<usize> {
    let (segments, positions) = (op.visibility.segments, op.visibility.positions);
    let there = [(segments, [Q_SEGMENT, K_SEGMENT]), (positions, [Q_POSITION, K_POSITION])];
    let ids = there.into_iter().filter(|(there, _)| *there).flat_map(|(_, operands)| operands);
    op.bias.iter().map(|_| BIAS).chain(ids).collect()
}

fn stored_at(function: &Function, pointers: &Pointers, node: NodeId) -> Result<Val, LowerError> {
    let node = behind_views(function, node);
    pointers.bases.get(&node).copied().ok_or_else(|| LowerError::new("attention of a computed operand"))
}

/// The problem in strides: `operands` and `results` are the operand numbers of the node's arguments and results.
fn describe(
    function: &Function,
    node: NodeId,
    op: &ir::ops::Attention,
    operands: &[usize],
    results: &[usize],
) -> Result<Attention, LowerError> {
    let mut types: Vec<Option<&TensorType>> = vec![None; OPERANDS];
    for (&operand, &arg) in operands.iter().zip(&function.nodes[node].args) {
        types[operand] = function.ty(arg).tensor();
    }
    for (&result, ty) in results.iter().zip(function.ty(node).tensors()) {
        types[result] = Some(ty);
    }
    let (Some(q), Some(k)) = (types[Q], types[K]) else {
        return Err(LowerError::new("attention of what is no tensor"));
    };
    let elem = stored(q.dtype);
    if elem == Elem::F64 {
        return Err(LowerError::new("no code for attention of f64"));
    }
    // Keys and queries may share the name of a dim: which one it is depends on the operand.
    let of_queries =
        |operand: usize| matches!(operand, Q | OUT | LSE | DOUT | DQ | Q_SEGMENT | Q_POSITION | BIAS | DBIAS);
    let dim = |name: &Name, size: usize, wanted: &dyn Fn(usize) -> bool| -> Dim {
        let stride = |operand: usize| match types[operand] {
            Some(ty) if wanted(operand) => ty.position(name).map_or(0, |place| ty.strides()[place] as i64),
            _ => 0,
        };
        Dim::new(size as u64, &(0..OPERANDS).map(stride).collect::<Vec<i64>>())
    };
    let size = |ty: &TensorType, name: &Name| ty.size_of(name).ok_or_else(|| LowerError::new("attention lacks a dim"));
    let own = [&op.q_len, &op.heads, &op.head];
    let batch = q
        .dims
        .iter()
        .filter(|batch| !own.contains(&&batch.name))
        .map(|batch| dim(&batch.name, batch.size, &|_| true))
        .collect();
    let mut keys = dim(&op.kv_len, size(k, &op.kv_len)?, &|operand| !of_queries(operand));
    if let Some(name) = &op.bias {
        let of_bias = dim(name, 1, &|operand| matches!(operand, BIAS | DBIAS));
        [BIAS, DBIAS].into_iter().for_each(|operand| keys.strides[operand] = of_bias.strides[operand]);
    }
    Ok(Attention {
        batch,
        queries: dim(&op.q_len, size(q, &op.q_len)?, &of_queries),
        keys,
        heads: dim(&op.heads, size(q, &op.heads)?, &of_queries),
        kv_heads: dim(&op.kv_heads, size(k, &op.kv_heads)?, &|operand| !of_queries(operand)),
        head: dim(&op.head, size(q, &op.head)?, &|_| true),
        causal: op.causal && op.visibility.is_plain(),
        visibility: (!op.visibility.is_plain()).then(|| {
            let [left, right] = op.reach();
            let ir::ops::Visibility { segments, positions, .. } = op.visibility;
            Visibility { segments, positions, left, right }
        }),
        bias: types[BIAS].map(|ty| stored(ty.dtype)),
        windowed: function.nodes[node].args.len() > operands.len(),
        scale: op.scale.to_bits(),
        elem,
    })
}
