//! Which operators of a kernel CANN has nothing for, in which types, and their expansion before the lowering.

use ir::ops::{Attention, AttentionGrad};
use ir::{Builder, Function, Inst, Node, NodeId, Op, Type};
use types::{DType, TensorType};

use super::rope::Layout;
use crate::report::Origin;

/// For each node of the expanded function, the operator of the kernel that it comes from.
pub struct Origins {
    pub list: Vec<Origin>,
    pub of: Vec<usize>,
}

/// Why an operator is taken apart, and whether by its own expansion; otherwise its lowering writes the parts.
fn reason(op: &Op, args: &[&TensorType]) -> Option<(&'static str, bool)> {
    let by_expansion = match op {
        Op::CrossEntropy(_) | Op::CrossEntropyGrad(_) => {
            return Some(("CrossEntropyLoss is not in every release's headers, LogSoftmaxV2 is", false));
        }
        Op::Argsort(_) => return Some(("Sort leaves open where NaN stands, two stable sorts do not", false)),
        Op::Write(_) => Some("ScatterUpdate wants ids in range, and a variable"),
        Op::TopK(_) => Some("TopKV2 leaves open which of equal elements come first, a stable sort does not"),
        Op::GroupedMatmul(_) | Op::GroupedMatmulWeight(_) => {
            Some("GroupedMatmul wants rows in the order of experts; here are the products with all experts")
        }
        Op::Window(_) => return Some(("Slice wants offsets that are known when it is compiled", false)),
        Op::Attention(Attention { bias, scale, .. }) | Op::AttentionGrad(AttentionGrad { bias, scale, .. }) => {
            let at = if matches!(op, Op::Attention(_)) { 3 } else { 6 };
            let whole = |scale: f64| scale > 0.0 && scale.log2().fract() == 0.0;
            if !matches!(args[0].dtype, DType::BF16 | DType::F16) {
                Some("FlashAttentionScore takes f16 and bf16 only")
            } else if bias.is_some() && (args[at].dtype != args[0].dtype || !whole(*scale)) {
                Some(
                    "FlashAttentionScore scales the bias too, which is exact for one of the queries' type and powers of 2 only",
                )
            } else {
                None
            }
        }
        Op::AttentionBiasGrad(_) => Some("FlashAttentionScoreGrad gives no gradient of scores"),
        Op::Adamw(adamw) => {
            let alike = args[..4].iter().all(|a| a.dtype == DType::F32);
            if !alike {
                Some("ApplyAdamW takes parameter, moments and gradient of one type")
            } else if adamw.beta1 <= 0.0 || adamw.beta2 <= 0.0 {
                Some("ApplyAdamW takes powers of the betas, which are zero here")
            } else {
                None
            }
        }
        Op::Rope(rope) => {
            let at = args[0].position(&rope.dim)?;
            let fits = Layout::of(args[0], args[1], at).is_some_and(|layout| layout.fits(args[0], at, rope.form));
            match fits && args[0].dtype != DType::F64 {
                true => None,
                false => Some(
                    "RotaryPositionEmbedding takes four dims, fewer than 1,000 rows an angle and 896 elements a row",
                ),
            }
        }
        Op::Constant(_)
        | Op::Iota(_)
        | Op::Table(_)
        | Op::Add(_)
        | Op::Sub(_)
        | Op::Mul(_)
        | Op::Div(_)
        | Op::FloorDiv(_)
        | Op::Remainder(_)
        | Op::Max(_)
        | Op::Min(_)
        | Op::Compare(_)
        | Op::Select(_)
        | Op::Neg(_)
        | Op::Abs(_)
        | Op::Exp(_)
        | Op::Expm1(_)
        | Op::Log(_)
        | Op::Log1p(_)
        | Op::Floor(_)
        | Op::Round(_)
        | Op::Sqrt(_)
        | Op::Rsqrt(_)
        | Op::Tanh(_)
        | Op::Sin(_)
        | Op::Cos(_)
        | Op::Sigmoid(_)
        | Op::Erf(_)
        | Op::Cast(_)
        | Op::GeluTanh(_)
        | Op::GeluTanhGrad(_)
        | Op::Silu(_)
        | Op::SiluGrad(_)
        | Op::Swiglu(_)
        | Op::SwigluGrad(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Concat(_)
        | Op::Pad(_)
        | Op::Gather(_)
        | Op::ScatterAdd(_)
        | Op::ReduceSum(_)
        | Op::ReduceMax(_)
        | Op::Cumsum(_)
        | Op::Matmul(_)
        | Op::RmsNorm(_)
        | Op::RmsNormGrad(_)
        | Op::LayerNorm(_)
        | Op::LayerNormGrad(_)
        | Op::Softmax(_)
        | Op::SoftmaxGrad(_)
        | Op::Reshard(_)
        | Op::Coordinate(_)
        | Op::AllReduce(_)
        | Op::AllGather(_)
        | Op::ReduceScatter(_)
        | Op::AllToAll(_)
        | Op::Permute(_) => None,
    };
    by_expansion.map(|reason| (reason, true))
}

/// The kernel with those operators in simpler ones.
pub fn expand(kernel: &Function) -> Result<(Function, Origins), String> {
    let mut b = Builder::new(kernel.name.clone());
    let mut origins = Origins { list: vec![], of: vec![] };
    // What each node became; several for an operator with several results that was taken apart.
    let mut map: Vec<Vec<NodeId>> = vec![vec![]; kernel.nodes.len()];
    for &p in &kernel.params {
        map[p.index()] = vec![b.param(kernel.ty(p).clone())];
    }
    for (id, node) in kernel.nodes.iter() {
        if matches!(node.inst, Inst::Param(_)) {
            continue;
        }
        b.place = node.place;
        map[id.index()] = place(&mut b, kernel, id, node, &map, &mut origins);
        origins.of.resize(b.function.nodes.len(), origins.list.len().saturating_sub(1));
    }
    let results = kernel.results.iter().filter_map(|r| map[r.index()].first().copied()).collect();
    let mut function = b.finish().map_err(|mismatch| mismatch.to_string())?;
    function.results = results;
    Ok((function, origins))
}

fn place(
    b: &mut Builder,
    kernel: &Function,
    id: NodeId,
    node: &Node,
    map: &[Vec<NodeId>],
    origins: &mut Origins,
) -> Vec<NodeId> {
    let args: Vec<NodeId> = node.args.iter().filter_map(|a| map[a.index()].first().copied()).collect();
    match &node.inst {
        Inst::Op(op) => {
            let types: Vec<&TensorType> = node.args.iter().filter_map(|&a| kernel.ty(a).tensor()).collect();
            let reason = reason(op, &types);
            let ty = types.first().copied().or(node.ty.tensor());
            let dtype = ty.map_or(DType::F32, |t| t.dtype);
            origins.list.push(Origin { op: op.name(), node: id.index(), dtype, reason: reason.map(|r| r.0) });
            match reason.filter(|r| r.1).and_then(|_| op.expand(b, &args)) {
                Some(parts) => parts.into_iter().collect(),
                None => vec![b.push(node.inst.clone(), args, node.ty.clone())],
            }
        }
        Inst::Get(i) => {
            let of = &map[node.args[0].index()];
            // The items of an operator that was taken apart are nodes already.
            let apart = !matches!(b.function.ty(of[0]), Type::Tuple(_));
            match of.get(*i).filter(|_| apart) {
                Some(&item) => vec![item],
                None => vec![b.push(node.inst.clone(), args, node.ty.clone())],
            }
        }
        inst => vec![b.push(inst.clone(), args, node.ty.clone())],
    }
}
