//! The closed set of operators. To add one: a file here, a line in the macro call below, and each target's lowering.

mod bias;
mod elementwise;
#[macro_use]
mod identity;
mod routing;
mod row;
mod visibility;

/// Declares the modules, the enum, and the dispatch of [`Semantics`] over it.
macro_rules! operators {
    ($($file:ident :: $op:ident),* $(,)?) => {
        $(mod $file; pub use $file::$op;)*

        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op { $($op($op)),* }

        $(impl From<$op> for Op {
            fn from(op: $op) -> Self { Op::$op(op) }
        })*

        impl Op {
            /// Every operator's name in text IR, in the order of declaration.
            pub const NAMES: &'static [&'static str] = &[$(<$op as Semantics>::NAME),*];

            pub fn name(&self) -> &'static str {
                match self { $(Op::$op(_) => <$op as Semantics>::NAME),* }
            }

            /// The form in text of the operator called `name`; `None` if there is none of that name.
            pub(crate) fn text_form(name: &str) -> Option<TextForm> {
                $(if name == <$op as Semantics>::NAME {
                    return Some(<$op as Semantics>::TEXT);
                })*
                None
            }

            pub fn class(&self) -> Class {
                match self { $(Op::$op(_) => <$op as Semantics>::CLASS),* }
            }

            pub fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
                match self { $(Op::$op(op) => op.infer(args)),* }
            }

            pub fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
                match self { $(Op::$op(op) => op.dims()),* }
            }

            pub fn reason(&mut self) -> Option<&mut Name> {
                match self { $(Op::$op(op) => op.reason()),* }
            }

            pub fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
                match self { $(Op::$op(op) => op.factors(args, results)),* }
            }

            pub fn flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
                match self { $(Op::$op(op) => op.flops(args, results)),* }
            }

            pub fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
                match self { $(Op::$op(op) => op.matmul_flops(args, results)),* }
            }

            pub fn vector_ops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
                match self { $(Op::$op(op) => op.vector_ops(args, results)),* }
            }

            pub fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
                match self { $(Op::$op(op) => op.vjp(cx)),* }
            }

            pub fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
                match self { $(Op::$op(op) => op.eval(args, results)),* }
            }

            pub fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
                match self { $(Op::$op(op) => op.expand(b, args)),* }
            }

            pub fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
                match self { $(Op::$op(op) => op.partition(cx)),* }
            }

            pub fn merge(&self, b: &mut Builder, one: &[NodeId], other: &[NodeId]) -> Option<NodeIds> {
                match self { $(Op::$op(op) => op.merge(b, one, other)),* }
            }

            pub fn indices(&self, args: &[&TensorType]) -> Option<(usize, Indices)> {
                match self { $(Op::$op(op) => op.indices(args)),* }
            }

            #[must_use]
            pub fn describe_chunk(&self, count: usize) -> Self {
                match self { $(Op::$op(op) => Op::$op(op.describe_chunk(count))),* }
            }

            pub fn collective(&self) -> Option<Collective> {
                match self { $(Op::$op(op) => op.collective()),* }
            }

            #[must_use]
            pub fn localize(&self, results: &[TensorType]) -> Self {
                match self { $(Op::$op(op) => op.localize(results).into()),* }
            }

            /// The attributes as a JSON object; `{}` if there are none.
            pub fn attributes(&self) -> serde_json::Value {
                let object = match self { $(Op::$op(op) => serde_json::to_value(op)),* };
                object.expect("attributes are plain data")
            }

            /// The operator called `name` with these attributes.
            pub fn from_attributes(name: &str, attributes: serde_json::Value) -> Result<Self, String> {
                $(if name == <$op as Semantics>::NAME {
                    return read::<$op>(attributes).map(Op::$op);
                })*
                Err(format!("there is no operator `{name}`"))
            }
        }
    };
}

use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;
use types::{Indices, Name, TensorType};

pub use compare::Comparison;
pub use rope::RopeForm;
pub use routing::Routing;
pub use visibility::Visibility;

use crate::op::{Class, Collective, NodeIds, PartContext, Semantics, TextForm, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Reads attributes; one that the operator does not have is a mistake, not a remark.
fn read<O: Semantics + Serialize + DeserializeOwned>(attributes: serde_json::Value) -> Result<O, String> {
    let given: Vec<String> = attributes.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default();
    let op: O = serde_json::from_value(attributes).map_err(|e| e.to_string())?;
    let known = serde_json::to_value(&op).map_err(|e| e.to_string())?;
    match given.iter().find(|name| known.get(name).is_none()) {
        Some(name) => Err(format!("`{}` has no attribute `{name}`", O::NAME)),
        None => Ok(op),
    }
}

operators! {
    // Sources.
    constant::Constant,
    iota::Iota,
    table::Table,
    // Elementwise.
    add::Add,
    sub::Sub,
    mul::Mul,
    div::Div,
    floor_div::FloorDiv,
    remainder::Remainder,
    max::Max,
    min::Min,
    compare::Compare,
    select::Select,
    neg::Neg,
    abs::Abs,
    exp::Exp,
    expm1::Expm1,
    log::Log,
    floor::Floor,
    round::Round,
    sqrt::Sqrt,
    rsqrt::Rsqrt,
    tanh::Tanh,
    sin::Sin,
    cos::Cos,
    sigmoid::Sigmoid,
    erf::Erf,
    cast::Cast,
    // Elementwise formulas of several steps.
    log1p::Log1p,
    gelu_tanh::GeluTanh,
    gelu_tanh_grad::GeluTanhGrad,
    silu::Silu,
    silu_grad::SiluGrad,
    swiglu::Swiglu,
    swiglu_grad::SwigluGrad,
    // Movement.
    reshape::Reshape,
    transpose::Transpose,
    broadcast::Broadcast,
    slice::Slice,
    concat::Concat,
    pad::Pad,
    gather::Gather,
    // Reductions and contractions.
    scatter_add::ScatterAdd,
    write::Write,
    reduce_sum::ReduceSum,
    reduce_max::ReduceMax,
    cumsum::Cumsum,
    argsort::Argsort,
    matmul::Matmul,
    grouped_matmul::GroupedMatmul,
    grouped_matmul_weight::GroupedMatmulWeight,
    // Composites.
    rms_norm::RmsNorm,
    rms_norm_grad::RmsNormGrad,
    layer_norm::LayerNorm,
    layer_norm_grad::LayerNormGrad,
    softmax::Softmax,
    softmax_grad::SoftmaxGrad,
    top_k::TopK,
    rope::Rope,
    attention::Attention,
    attention_grad::AttentionGrad,
    attention_bias_grad::AttentionBiasGrad,
    cross_entropy::CrossEntropy,
    cross_entropy_grad::CrossEntropyGrad,
    adamw::Adamw,
    // Between ranks.
    reshard::Reshard,
    window::Window,
    coordinate::Coordinate,
    all_reduce::AllReduce,
    all_gather::AllGather,
    reduce_scatter::ReduceScatter,
    all_to_all::AllToAll,
    permute::Permute,
}
