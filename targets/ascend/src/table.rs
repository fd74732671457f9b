//! The operators of CANN that mmc writes: the only place that knows their names, inputs, outputs, attributes and types.
//!
//! What stands here is what REG_OP says in the `torch-npu` 2.14.0 wheel, of the types that mmc can write; where the wheel
//! names a type by a letter or lacks the operator, what the header in hicann/ops-* (August 2026) says. `tests/table.rs`
//! compares it with extracts of both. Where the two differ, as in the fourth input of RotaryPositionEmbedding or an attribute
//! `output_mask` of LayerNormGradV3, the wheel is newer (October 2026), and wins. Which types go together is in
//! [`crate::columns`], with its sources.

use DataType::{Bf16, Bool, Double, Float, Float16, Int8, Int32, Int64, Uint8};

use crate::dtype::{DataType, Types};

#[derive(Debug, PartialEq)]
pub struct Operator {
    pub name: &'static str,
    pub inputs: &'static [Port],
    pub outputs: &'static [Port],
    pub attributes: &'static [Attr],
}

#[derive(Debug, PartialEq)]
pub struct Port {
    pub name: &'static str,
    pub presence: Presence,
    pub types: Types,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Required,
    /// An input that is not fed keeps its place if a later one is fed, and is left out otherwise: older releases do not know
    /// the last inputs of newer ones. TorchAir leaves them out too (`ge_op` in its `compat_ir.py`).
    Optional,
    /// Any number of tensors: `x0`, `x1`, ...
    Dynamic,
}

#[derive(Debug, PartialEq)]
pub struct Attr {
    pub name: &'static str,
    pub preset: Preset,
}

/// What an attribute is if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    Int(i64),
    Float(f32),
    Bool(bool),
    Text(&'static str),
    Ints(&'static [i64]),
    /// It must be said.
    RequiredInt,
    RequiredText,
    /// The value of a constant.
    RequiredTensor,
}

const FLOATS: Types = Types::of(&[Float, Float16, Bf16]);
const HALVES: Types = Types::of(&[Float16, Bf16]);
const F32: Types = Types::of(&[Float]);
const BOOL: Types = Types::of(&[Bool]);
const MASK: Types = Types::of(&[Bool, Uint8]);
const BYTE: Types = Types::of(&[Uint8]);
const I64: Types = Types::of(&[Int64]);
const I32: Types = Types::of(&[Int32]);
/// `TensorType::IndexNumberType()`.
const INDEX: Types = Types::of(&[Int32, Int64]);
/// `TensorType::UnaryDataType()`.
const UNARY: Types = FLOATS.and(Types::of(&[Double]));
/// `TensorType::FloatingDataType()`, which has no bf16.
const FLOATING: Types = Types::of(&[Double, Float, Float16]);
/// `TensorType::RealNumberType()`, `NumberType()` and `BasicType()`.
const NUMBER: Types = Types::of(&[Float, Float16, Bf16, Double, Int8, Uint8, Int32, Int64]);
const ALL: Types = NUMBER.and(BOOL);
const EXTREME: Types = Types::of(&[Float, Float16, Double, Int32, Int64]);
const SIGNED: Types = Types::of(&[Float, Float16, Bf16, Double, Int32, Int64]);
const RANGE: Types = SIGNED;
const SOFTMAX: Types = UNARY;
const SOFTMAX_GRAD: Types = Types::of(&[Float16, Bf16, Float, Int32, Int8, Uint8]);
const CONST: Types = Types::of(&[Float, Float16, Int8, Uint8, Int32, Int64, Bool, Double]);
const FILL: Types = ALL;
const ONE_HOT: Types = Types::of(&[Uint8, Int32, Int64]);
const SORTED: Types = Types::of(&[Float16, Float, Int8, Uint8, Int32, Int64]);
const PICKED: Types = Types::of(&[Float16, Bf16, Float, Int8, Int32, Int64, Uint8, Bool]);
/// Offsets of quantised products, which mmc never feeds.
const QUANTISED: Types = Types::of(&[Int8]);

macro_rules! presence {
    () => {
        Presence::Required
    };
    (optional) => {
        Presence::Optional
    };
    (dynamic) => {
        Presence::Dynamic
    };
}

macro_rules! operators {
    ($($op:ident (
        $($([$mark:ident])? $input:literal : $types:expr),* $(,)?
    ) -> ( $($output:literal : $out:expr),* $(,)? ) { $($attr:literal : $default:expr),* $(,)? })*) => {
        /// An operator by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Op { $($op),* }

        impl Op {
            pub const ALL: &'static [Op] = &[$(Op::$op),*];

            pub fn spec(self) -> &'static Operator {
                match self {
                    $(Op::$op => {
                        const SPEC: &Operator = &Operator {
                            name: stringify!($op),
                            inputs: &[$(Port { name: $input, presence: presence!($($mark)?), types: $types }),*],
                            outputs: &[$(Port { name: $output, presence: Presence::Required, types: $out }),*],
                            attributes: &[$(Attr { name: $attr, preset: $default }),*],
                        };
                        SPEC
                    }),*
                }
            }
        }
    };
}

use self::Preset as D;

operators! {
    // What a graph begins and ends with. NetOutput is internal to GE and has no public declaration.
    Data("x": ALL) -> ("y": ALL) { "index": D::Int(0) }
    Const() -> ("y": CONST) { "value": D::RequiredTensor }
    NetOutput([dynamic] "input": ALL) -> () {}

    // Elementwise.
    Add("x1": NUMBER, "x2": NUMBER) -> ("y": NUMBER) {}
    Sub("x1": NUMBER, "x2": NUMBER) -> ("y": NUMBER) {}
    // The wheel names the types of Mul by letters; these are of hicann/ops-math.
    Mul("x1": ALL, "x2": ALL) -> ("y": ALL) {}
    RealDiv("x1": NUMBER, "x2": NUMBER) -> ("y": NUMBER) {}
    FloorDiv("x1": NUMBER, "x2": NUMBER) -> ("y": NUMBER) {}
    FloorMod("x1": EXTREME, "x2": EXTREME) -> ("y": EXTREME) {}
    Maximum("x1": EXTREME, "x2": EXTREME) -> ("y": EXTREME) {}
    Minimum("x1": EXTREME, "x2": EXTREME) -> ("y": EXTREME) {}
    Less("x1": NUMBER, "x2": NUMBER) -> ("y": BOOL) {}
    LessEqual("x1": NUMBER, "x2": NUMBER) -> ("y": BOOL) {}
    Equal("x1": ALL, "x2": ALL) -> ("y": BOOL) {}
    Greater("x1": NUMBER, "x2": NUMBER) -> ("y": BOOL) {}
    GreaterEqual("x1": NUMBER, "x2": NUMBER) -> ("y": BOOL) {}
    NotEqual("x1": NUMBER, "x2": NUMBER) -> ("y": BOOL) {}
    LogicalOr("x1": BOOL, "x2": BOOL) -> ("y": BOOL) {}
    SelectV2("condition": BOOL, "then": NUMBER, "else": NUMBER) -> ("result": NUMBER) {}
    Neg("x": SIGNED) -> ("y": SIGNED) {}
    Abs("x": SIGNED.and(QUANTISED)) -> ("y": SIGNED.and(QUANTISED)) {}
    Exp("x": UNARY) -> ("y": UNARY) { "base": D::Float(-1.0), "scale": D::Float(1.0), "shift": D::Float(0.0) }
    Expm1("x": UNARY) -> ("y": UNARY) {}
    Log("x": ALL) -> ("y": UNARY) { "base": D::Float(-1.0), "scale": D::Float(1.0), "shift": D::Float(0.0) }
    Log1p("x": UNARY) -> ("y": UNARY) {}
    Floor("x": FLOATING) -> ("y": FLOATING) {}
    Rint("x": FLOATING) -> ("y": FLOATING) {}
    Sqrt("x": UNARY) -> ("y": UNARY) {}
    Rsqrt("x": UNARY) -> ("y": UNARY) {}
    Tanh("x": UNARY) -> ("y": UNARY) {}
    Sin("x": UNARY) -> ("y": UNARY) {}
    Cos("x": UNARY) -> ("y": UNARY) {}
    Sigmoid("x": UNARY) -> ("y": UNARY) {}
    Erf("x": FLOATING) -> ("y": FLOATING) {}
    Cast("x": ALL) -> ("y": ALL) { "dst_type": D::RequiredInt }
    GeluV2("x": FLOATS) -> ("y": FLOATS) { "approximate": D::Text("none") }
    GeluGradV2("dy": FLOATS, "x": FLOATS) -> ("z": FLOATS) { "approximate": D::Text("none") }
    Swish("x": FLOATS) -> ("y": FLOATS) { "scale": D::Float(1.0) }
    SwishGrad("grad": FLOATS, "x": FLOATS, "y": FLOATS) -> ("grad_x": FLOATS) { "scale": D::Float(1.0) }
    SwiGlu("x": FLOATS) -> ("y": FLOATS) { "dim": D::Int(-1) }
    SwiGluGrad("y_grad": FLOATS, "x": FLOATS) -> ("y": FLOATS) { "dim": D::Int(-1) }

    // Movement.
    Reshape("x": ALL, "shape": INDEX) -> ("y": ALL) { "axis": D::Int(0), "num_axes": D::Int(-1) }
    Transpose("x": NUMBER, "perm": INDEX) -> ("y": NUMBER) {}
    BroadcastTo("x": ALL, "shape": INDEX) -> ("y": ALL) {}
    Slice("x": NUMBER, "offsets": INDEX, "size": INDEX) -> ("y": NUMBER) {}
    ConcatV2([dynamic] "x": ALL, "concat_dim": INDEX) -> ("y": ALL) { "N": D::Int(1) }
    PadV3("x": NUMBER, "paddings": INDEX, [optional] "constant_values": NUMBER) -> ("y": NUMBER) {
        "mode": D::Text("constant"), "paddings_contiguous": D::Bool(true),
    }
    GatherV2("x": NUMBER, "indices": INDEX, "axis": INDEX) -> ("y": NUMBER) {
        "batch_dims": D::Int(0), "is_preprocessed": D::Bool(false), "negative_index_support": D::Bool(false),
    }
    GatherElements("x": PICKED, "index": INDEX) -> ("y": PICKED) { "dim": D::Int(0) }
    OneHot("x": ONE_HOT, "depth": INDEX, "on_value": NUMBER, "off_value": NUMBER) -> ("y": NUMBER) { "axis": D::Int(-1) }
    Range("start": RANGE, "limit": RANGE, "delta": RANGE) -> ("y": RANGE) {}
    Fill("dims": INDEX, "value": FILL) -> ("y": FILL) {}

    // Reductions and products.
    ReduceSum("x": NUMBER, "axes": INDEX) -> ("y": NUMBER) { "keep_dims": D::Bool(false) }
    ReduceMax("x": NUMBER, "axes": INDEX) -> ("y": NUMBER) { "keep_dims": D::Bool(false) }
    Cumsum("x": NUMBER, "axis": INDEX) -> ("y": NUMBER) { "exclusive": D::Bool(false), "reverse": D::Bool(false) }
    Sort("x": SORTED) -> ("y1": SORTED, "y2": I32) {
        "axis": D::Int(-1), "descending": D::Bool(false), "stable": D::Bool(false),
    }
    UnsortedSegmentSum("x": NUMBER, "segment_ids": INDEX, "num_segments": INDEX) -> ("y": NUMBER) {
        "is_preprocessed": D::Bool(false),
    }
    // Not in the wheel: hicann/ops-nn. It leaves the type of the result to the graph, and the columns say which there are.
    MatMulV3("x1": FLOATS, "x2": FLOATS, [optional] "bias": FLOATS, [optional] "offset_w": QUANTISED) -> ("y": FLOATS) {
        "transpose_x1": D::Bool(false), "transpose_x2": D::Bool(false), "offset_x": D::Int(0), "opImplMode": D::Int(1),
    }
    BatchMatMulV3("x1": FLOATS, "x2": FLOATS, [optional] "bias": FLOATS, [optional] "offset_w": QUANTISED) -> ("y": FLOATS) {
        "adj_x1": D::Bool(false), "adj_x2": D::Bool(false), "offset_x": D::Int(0), "enable_hf32": D::Bool(false),
    }

    // Whole formulas.
    SoftmaxV2("x": SOFTMAX) -> ("y": SOFTMAX) { "axes": D::Ints(&[-1]), "half_to_float": D::Bool(false) }
    SoftmaxGrad("softmax": SOFTMAX_GRAD, "grad_softmax": SOFTMAX_GRAD) -> ("grad_x": SOFTMAX_GRAD) { "axes": D::Ints(&[-1]) }
    LogSoftmaxV2("logits": SOFTMAX) -> ("logsoftmax": SOFTMAX) { "axes": D::Ints(&[-1]) }
    RmsNorm("x": FLOATS, "gamma": FLOATS) -> ("y": FLOATS, "rstd": F32) { "epsilon": D::Float(1e-6) }
    RmsNormGrad("dy": FLOATS, "x": FLOATS, "rstd": F32, "gamma": FLOATS) -> ("dx": FLOATS, "dgamma": F32) {}
    // The wheel names the types of LayerNormV4 by letters; these are of hicann/ops-nn.
    LayerNormV4("x": FLOATS, "normalized_shape": INDEX, [optional] "gamma": FLOATS, [optional] "beta": FLOATS)
        -> ("y": FLOATS, "mean": FLOATS, "rstd": FLOATS) { "epsilon": D::Float(1e-5) }
    LayerNormGradV3("dy": FLOATS, "x": FLOATS, "rstd": FLOATS, "mean": FLOATS, "gamma": FLOATS)
        -> ("pd_x": FLOATS, "pd_gamma": FLOATS, "pd_beta": FLOATS) {}
    RotaryPositionEmbedding("x": FLOATS, "cos": FLOATS, "sin": FLOATS, [optional] "rotate": FLOATS) -> ("y": FLOATS) {
        "mode": D::Int(0),
    }
    FlashAttentionScore(
        "query": HALVES, "key": HALVES, "value": HALVES,
        [optional] "real_shift": HALVES, [optional] "drop_mask": BYTE, [optional] "padding_mask": HALVES,
        [optional] "atten_mask": MASK, [optional] "prefix": I64, [optional] "actual_seq_qlen": I64,
        [optional] "actual_seq_kvlen": I64, [optional] "q_start_idx": I64, [optional] "kv_start_idx": I64,
    ) -> ("softmax_max": F32, "softmax_sum": F32, "softmax_out": HALVES, "attention_out": HALVES) {
        "scale_value": D::Float(1.0), "keep_prob": D::Float(1.0),
        "pre_tockens": D::Int(2147483647), "next_tockens": D::Int(2147483647),
        "head_num": D::RequiredInt, "input_layout": D::RequiredText,
        "inner_precise": D::Int(1), "sparse_mode": D::Int(0),
    }
    FlashAttentionScoreGrad(
        "query": HALVES, "key": HALVES, "value": HALVES, "dy": HALVES,
        [optional] "pse_shift": HALVES, [optional] "drop_mask": BYTE, [optional] "padding_mask": HALVES,
        [optional] "atten_mask": MASK, [optional] "softmax_max": F32, [optional] "softmax_sum": F32,
        [optional] "softmax_in": HALVES, [optional] "attention_in": HALVES, [optional] "prefix": I64,
        [optional] "actual_seq_qlen": I64, [optional] "actual_seq_kvlen": I64,
        [optional] "q_start_idx": I64, [optional] "kv_start_idx": I64,
    ) -> ("dq": HALVES, "dk": HALVES, "dv": HALVES, "dpse": HALVES) {
        "scale_value": D::Float(1.0), "keep_prob": D::Float(1.0),
        "pre_tockens": D::Int(65536), "next_tockens": D::Int(65536),
        "head_num": D::RequiredInt, "input_layout": D::RequiredText,
        "inner_precise": D::Int(1), "sparse_mode": D::Int(0),
    }
    ApplyAdamW(
        "var": NUMBER, "m": NUMBER, "v": NUMBER, "beta1_power": NUMBER, "beta2_power": NUMBER, "lr": NUMBER,
        "weight_decay": NUMBER, "beta1": NUMBER, "beta2": NUMBER, "epsilon": NUMBER, "grad": NUMBER,
        [optional] "max_grad_norm": NUMBER,
    ) -> ("var": NUMBER, "m": NUMBER, "v": NUMBER) { "amsgrad": D::Bool(false), "maximize": D::Bool(false) }
}

impl Op {
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    pub fn named(name: &str) -> Option<Op> {
        Op::ALL.iter().copied().find(|op| op.name() == name)
    }
}

impl Operator {
    /// The port of each of `count` inputs, with the place of the input within its port. Optional inputs at the end may be
    /// left out.
    pub fn input_ports(&self, count: usize) -> Option<Vec<(&'static Port, usize)>> {
        let dynamic = self.inputs.iter().any(|p| p.presence == Presence::Dynamic);
        let own = if dynamic { self.inputs.len() } else { count.min(self.inputs.len()) };
        let (own, left_out) = self.inputs.split_at(own);
        if left_out.iter().any(|p| p.presence != Presence::Optional) {
            return None;
        }
        let fixed = own.iter().filter(|p| p.presence != Presence::Dynamic).count();
        let spread = count.checked_sub(fixed)?;
        let mut ports = vec![];
        for port in own {
            match port.presence {
                Presence::Dynamic => ports.extend((0..spread).map(|i| (port, i))),
                _ => ports.push((port, 0)),
            }
        }
        (ports.len() == count).then_some(ports)
    }

    /// `x`, or `x0` for the first of several.
    pub fn input_name(port: &Port, place: usize) -> String {
        match port.presence {
            Presence::Dynamic => format!("{}{place}", port.name),
            _ => port.name.to_owned(),
        }
    }
}
