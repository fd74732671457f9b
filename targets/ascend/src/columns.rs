//! The combinations of element types that kernels of an Ascend 910B take, an operator at a time.
//!
//! CANN lists types by port, and the i-th entries over all ports are one *column*: GE places a node on a kernel only if a
//! whole column fits, and under `precision_mode_v2=origin` it casts nothing to find one. REG_OP, which [`crate::table`]
//! holds, says what a port may be and not in which company.
//!
//! Sources:
//! * hicann/ops-nn `matmul/mat_mul_v3/op_host/mat_mul_v3_def.cpp`, `matmul/batch_mat_mul_v3/op_host/batch_mat_mul_v3_def.cpp`,
//!   `norm/layer_norm_v4/op_host/layer_norm_v4_def.cpp`, `norm/layer_norm_grad_v3/op_host/layer_norm_grad_v3_def.cpp`, and
//!   hicann/ops-transformer `posembedding/rotary_position_embedding/op_host/rotary_position_embedding_def.cpp`: what they
//!   register for `ascend910b` and `ascend910_93`, layout ND.
//! * All others: `opp/built-in/op_impl/ai_core/tbe/config/ascend910b/aic-ascend910b-ops-info.json` of CANN 8.1.RC1.
//!
//! Operators without columns here are checked port by port: Data, Const, NetOutput and Reshape have no kernel; for Add, Mul,
//! Slice, UnsortedSegmentSum and others that table leaves the types to code (`dynamicFormat`), or was not read. Elementwise
//! operators, movements and reductions also have kernels on the AI CPU.

use DataType::{
    Bf16 as BF16, Bool as BOOL, Float as F32, Float16 as F16, Int8 as I8, Int32 as I32, Int64 as I64, Uint8 as U8,
    Undefined as OTHER,
};

use crate::dtype::DataType;
use crate::table::Op;

/// The types of each port over some columns; one type alone is the same in all of them.
pub type Rows = &'static [(&'static str, &'static [DataType])];

/// Columns side by side.
#[derive(Debug)]
pub struct Block {
    pub inputs: Rows,
    pub outputs: Rows,
}

impl Block {
    /// How many columns it has.
    pub fn width(&self) -> usize {
        self.inputs.iter().chain(self.outputs).map(|(_, types)| types.len()).max().unwrap_or(0)
    }

    /// The type of a port in a column.
    pub fn at(rows: Rows, port: &str, column: usize) -> Option<DataType> {
        let (_, types) = rows.iter().find(|(name, _)| *name == port)?;
        types.get(if types.len() == 1 { 0 } else { column }).copied()
    }
}

macro_rules! columns {
    ($($op:ident { $([$($input:ident: $in:expr),*] -> [$($output:ident: $out:expr),*])* })*) => {
        /// Empty for an operator that is checked port by port.
        pub fn of(op: Op) -> &'static [Block] {
            match op {
                $(Op::$op => &[$(Block {
                    inputs: &[$((stringify!($input), &$in)),*],
                    outputs: &[$((stringify!($output), &$out)),*],
                }),*],)*
                _ => &[],
            }
        }
    };
}

const FLOATS: [DataType; 3] = [F16, F32, BF16];
const PICKED: [DataType; 8] = [BF16, F16, F32, I8, U8, I32, I64, BOOL];
const ELEMENTS: [DataType; 7] = [F16, BF16, F32, I8, U8, I32, I64];
const SUMMED: [DataType; 5] = [F16, F32, I32, I64, BF16];
const CHOSEN: [DataType; 7] = [BF16, F16, F32, I32, I8, U8, I64];
const EXTREME: [DataType; 6] = [BF16, F16, F32, I32, I8, I64];
const SUB: [DataType; 8] = [BF16, F16, F32, I32, I64, U8, I8, BOOL];
const ABS: [DataType; 5] = [BF16, F16, F32, I32, I64];
// Of normalisations: what is normalised, and its weights.
const NORMED: [DataType; 5] = [F16, BF16, F16, F32, BF16];
const GAMMA: [DataType; 5] = [F32, F32, F16, F32, BF16];
const LAYER: [DataType; 5] = [F32, F16, F16, BF16, BF16];
const LAYER_GAMMA: [DataType; 5] = [F32, F32, F16, F32, BF16];
const LAYER_GRAD: [DataType; 7] = [F32, F16, F16, BF16, BF16, F16, BF16];
const LAYER_GRAD_GAMMA: [DataType; 7] = [F32, F32, F16, F32, BF16, F16, BF16];
const LAYER_GRAD_WEIGHT: [DataType; 7] = [F32, F32, F32, F32, F32, F16, BF16];
const PRODUCT: [DataType; 4] = [F16, F16, F32, BF16];
const BATCH: [DataType; 6] = [F16, F16, F16, F32, BF16, BF16];
// Of attention: what is attended to, and what is added to the scores.
const HEADS: [DataType; 10] = [F16, BF16, F16, BF16, F16, BF16, F16, BF16, F32, F32];
const SHIFT: [DataType; 10] = [F16, BF16, F16, BF16, F32, F32, F32, F32, F32, F32];
const MASK: [DataType; 10] = [U8, U8, BOOL, BOOL, U8, U8, BOOL, BOOL, U8, BOOL];
const MASK_GRAD: [DataType; 10] = [U8, U8, BOOL, BOOL, U8, U8, BOOL, BOOL, BOOL, BOOL];

columns! {
    Abs { [x: ABS] -> [y: ABS] }
    Sub { [x1: SUB, x2: SUB] -> [y: SUB] }
    Maximum { [x1: EXTREME, x2: EXTREME] -> [y: EXTREME] }
    Minimum { [x1: EXTREME, x2: EXTREME] -> [y: EXTREME] }
    SelectV2 { [condition: [BOOL], then: CHOSEN, else: CHOSEN] -> [result: CHOSEN] }
    Sin { [x: FLOATS] -> [y: FLOATS] }
    Tanh { [x: FLOATS] -> [y: FLOATS] }
    Sigmoid { [x: FLOATS] -> [y: FLOATS] }
    GeluV2 { [x: FLOATS] -> [y: FLOATS] }
    Swish { [x: FLOATS] -> [y: FLOATS] }
    SwishGrad { [grad: FLOATS, x: FLOATS, y: FLOATS] -> [grad_x: FLOATS] }
    SwiGlu { [x: FLOATS] -> [y: FLOATS] }
    SwiGluGrad { [y_grad: FLOATS, x: FLOATS] -> [y: FLOATS] }
    GatherV2 {
        [x: PICKED, indices: [I32], axis: [I32]] -> [y: PICKED]
        [x: PICKED, indices: [I64], axis: [I32]] -> [y: PICKED]
        [x: PICKED, indices: [I32], axis: [I64]] -> [y: PICKED]
        [x: PICKED, indices: [I64], axis: [I64]] -> [y: PICKED]
    }
    GatherElements {
        [x: ELEMENTS, index: [I32]] -> [y: ELEMENTS]
        [x: ELEMENTS, index: [I64]] -> [y: ELEMENTS]
    }
    ReduceSum {
        [x: SUMMED, axes: [I32]] -> [y: SUMMED]
        [x: SUMMED, axes: [I64]] -> [y: SUMMED]
    }
    MatMulV3 {
        [x1: PRODUCT, x2: PRODUCT, bias: [F16, F32, F32, F32], offset_w: [I8, I8, OTHER, I8]] -> [y: PRODUCT]
    }
    // Alone in giving f32 from sixteen bits.
    BatchMatMulV3 {
        [x1: BATCH, x2: BATCH, bias: [F16, F32, F32, F32, F32, F32], offset_w: [I8, I8, I8, OTHER, I8, I8]]
            -> [y: [F16, F16, F32, F32, BF16, F32]]
    }
    RmsNorm { [x: NORMED, gamma: GAMMA] -> [y: NORMED, rstd: [F32]] }
    RmsNormGrad { [dy: NORMED, x: NORMED, rstd: [F32], gamma: GAMMA] -> [dx: NORMED, dgamma: [F32]] }
    LayerNormV4 {
        [x: LAYER, normalized_shape: [I32], gamma: LAYER_GAMMA, beta: LAYER_GAMMA] -> [y: LAYER, mean: [F32], rstd: [F32]]
    }
    LayerNormGradV3 {
        [dy: LAYER_GRAD, x: LAYER_GRAD, rstd: [F32], mean: [F32], gamma: LAYER_GRAD_GAMMA]
            -> [pd_x: LAYER_GRAD, pd_gamma: LAYER_GRAD_WEIGHT, pd_beta: LAYER_GRAD_WEIGHT]
    }
    RotaryPositionEmbedding { [x: FLOATS, cos: FLOATS, sin: FLOATS, rotate: FLOATS] -> [y: FLOATS] }
    FlashAttentionScore {
        [query: HEADS, key: HEADS, value: HEADS, real_shift: SHIFT, drop_mask: [U8], padding_mask: HEADS,
         atten_mask: MASK, prefix: [I64], actual_seq_qlen: [I64], actual_seq_kvlen: [I64], q_start_idx: [I64],
         kv_start_idx: [I64]]
            -> [softmax_max: [F32], softmax_sum: [F32], softmax_out: HEADS, attention_out: HEADS]
    }
    FlashAttentionScoreGrad {
        [query: HEADS, key: HEADS, value: HEADS, dy: HEADS, pse_shift: SHIFT, drop_mask: [U8], padding_mask: HEADS,
         atten_mask: MASK_GRAD, softmax_max: [F32], softmax_sum: [F32], softmax_in: HEADS, attention_in: HEADS,
         prefix: [I64], actual_seq_qlen: [I64], actual_seq_kvlen: [I64], q_start_idx: [I64], kv_start_idx: [I64]]
            -> [dq: HEADS, dk: HEADS, dv: HEADS, dpse: HEADS]
    }
    ApplyAdamW {
        [var: FLOATS, m: FLOATS, v: FLOATS, beta1_power: FLOATS, beta2_power: FLOATS, lr: FLOATS, weight_decay: FLOATS,
         beta1: FLOATS, beta2: FLOATS, epsilon: FLOATS, grad: FLOATS, max_grad_norm: FLOATS]
            -> [var: FLOATS, m: FLOATS, v: FLOATS]
    }
}
