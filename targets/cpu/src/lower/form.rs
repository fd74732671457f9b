//! What an operator is to the lowering: how its elements follow from those of its operands. Every operator is listed here.

use ir::Op;
use ir::ops::{
    Argsort, Attention, AttentionBiasGrad, AttentionGrad, Comparison, Constant, Cumsum, Gather, GroupedMatmul,
    GroupedMatmulWeight, Matmul, Pad, ReduceMax, ReduceSum, ScatterAdd, Slice, TopK, Window, Write,
};
use types::Name;

use super::eval::Fold;

#[derive(Clone, Copy)]
pub enum Form<'o> {
    Constant(&'o Constant),
    Iota,
    Table,
    /// Each element from the operands' elements in the same place.
    Elementwise(Scalar),
    /// The same elements under other dims.
    Reshape,
    /// The operand's element whose dims have the same indices.
    Renamed,
    Slice(&'o Slice),
    Concat(&'o Name),
    Pad(&'o Pad),
    Window(&'o Window),
    Gather(&'o Gather),
    /// Dims are folded.
    Fold(Fold, &'o [Name]),
    Whole(Whole<'o>),
    /// Written out in simpler operators before anything is lowered.
    Composite,
    /// Asks other ranks: in no kernel.
    Collective,
}

/// What is computed of single elements.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Remainder,
    Max,
    Min,
    Select,
    Neg,
    Abs,
    Exp,
    Expm1,
    Log,
    Floor,
    Round,
    Sqrt,
    Rsqrt,
    Tanh,
    Sin,
    Cos,
    Sigmoid,
    Erf,
    Cast,
    Compare(Comparison),
}

/// Operators that have kernels of their own kind.
#[derive(Clone, Copy)]
pub enum Whole<'o> {
    Matmul(&'o Matmul),
    GroupedMatmul(&'o GroupedMatmul),
    GroupedMatmulWeight(&'o GroupedMatmulWeight),
    ScatterAdd(&'o ScatterAdd),
    Write(&'o Write),
    Cumsum(&'o Cumsum),
    Argsort(&'o Argsort),
    TopK(&'o TopK),
    Attention(&'o Attention),
    AttentionGrad(&'o AttentionGrad),
    AttentionBiasGrad(&'o AttentionBiasGrad),
}

impl<'o> Form<'o> {
    pub fn of(op: &'o Op) -> Self {
        match op {
            Op::Constant(op) => Form::Constant(op),
            Op::Iota(_) => Form::Iota,
            Op::Table(_) => Form::Table,
            Op::Add(_) => Form::Elementwise(Scalar::Add),
            Op::Sub(_) => Form::Elementwise(Scalar::Sub),
            Op::Mul(_) => Form::Elementwise(Scalar::Mul),
            Op::Div(_) => Form::Elementwise(Scalar::Div),
            Op::FloorDiv(_) => Form::Elementwise(Scalar::FloorDiv),
            Op::Remainder(_) => Form::Elementwise(Scalar::Remainder),
            Op::Max(_) => Form::Elementwise(Scalar::Max),
            Op::Min(_) => Form::Elementwise(Scalar::Min),
            Op::Select(_) => Form::Elementwise(Scalar::Select),
            Op::Neg(_) => Form::Elementwise(Scalar::Neg),
            Op::Abs(_) => Form::Elementwise(Scalar::Abs),
            Op::Exp(_) => Form::Elementwise(Scalar::Exp),
            Op::Expm1(_) => Form::Elementwise(Scalar::Expm1),
            Op::Log(_) => Form::Elementwise(Scalar::Log),
            Op::Floor(_) => Form::Elementwise(Scalar::Floor),
            Op::Round(_) => Form::Elementwise(Scalar::Round),
            Op::Sqrt(_) => Form::Elementwise(Scalar::Sqrt),
            Op::Rsqrt(_) => Form::Elementwise(Scalar::Rsqrt),
            Op::Tanh(_) => Form::Elementwise(Scalar::Tanh),
            Op::Sin(_) => Form::Elementwise(Scalar::Sin),
            Op::Cos(_) => Form::Elementwise(Scalar::Cos),
            Op::Sigmoid(_) => Form::Elementwise(Scalar::Sigmoid),
            Op::Erf(_) => Form::Elementwise(Scalar::Erf),
            Op::Cast(_) => Form::Elementwise(Scalar::Cast),
            Op::Compare(op) => Form::Elementwise(Scalar::Compare(op.kind)),
            Op::Reshape(_) => Form::Reshape,
            Op::Transpose(_) | Op::Broadcast(_) => Form::Renamed,
            Op::Slice(op) => Form::Slice(op),
            Op::Concat(op) => Form::Concat(&op.dim),
            Op::Pad(op) => Form::Pad(op),
            Op::Window(op) => Form::Window(op),
            Op::Gather(op) => Form::Gather(op),
            Op::ReduceSum(ReduceSum { dims }) => Form::Fold(Fold::Sum, dims),
            Op::ReduceMax(ReduceMax { dims }) => Form::Fold(Fold::Max, dims),
            Op::Matmul(op) => Form::Whole(Whole::Matmul(op)),
            Op::GroupedMatmul(op) => Form::Whole(Whole::GroupedMatmul(op)),
            Op::GroupedMatmulWeight(op) => Form::Whole(Whole::GroupedMatmulWeight(op)),
            Op::ScatterAdd(op) => Form::Whole(Whole::ScatterAdd(op)),
            Op::Write(op) => Form::Whole(Whole::Write(op)),
            Op::Cumsum(op) => Form::Whole(Whole::Cumsum(op)),
            Op::Argsort(op) => Form::Whole(Whole::Argsort(op)),
            Op::TopK(op) => Form::Whole(Whole::TopK(op)),
            Op::Attention(op) => Form::Whole(Whole::Attention(op)),
            Op::AttentionGrad(op) => Form::Whole(Whole::AttentionGrad(op)),
            Op::AttentionBiasGrad(op) => Form::Whole(Whole::AttentionBiasGrad(op)),
            Op::Log1p(_)
            | Op::GeluTanh(_)
            | Op::GeluTanhGrad(_)
            | Op::Silu(_)
            | Op::SiluGrad(_)
            | Op::Swiglu(_)
            | Op::SwigluGrad(_)
            | Op::RmsNorm(_)
            | Op::RmsNormGrad(_)
            | Op::LayerNorm(_)
            | Op::LayerNormGrad(_)
            | Op::Softmax(_)
            | Op::SoftmaxGrad(_)
            | Op::Rope(_)
            | Op::CrossEntropy(_)
            | Op::CrossEntropyGrad(_)
            | Op::Adamw(_) => Form::Composite,
            Op::Reshard(_)
            | Op::Coordinate(_)
            | Op::AllReduce(_)
            | Op::AllGather(_)
            | Op::ReduceScatter(_)
            | Op::AllToAll(_)
            | Op::Permute(_) => Form::Collective,
        }
    }
}
