//! Attention.

use crate::Tensor;

/// softmax(q k / sqrt(head)) v. Each operand ends in the axes [length, heads, head]; with fewer heads in k and v, each
/// serves a group of q's.
pub fn attend(q: Tensor, _k: Tensor, _v: Tensor) -> Tensor {
    q
}

/// The same, where a position sees itself and those before it.
pub fn attend_causal(q: Tensor, _k: Tensor, _v: Tensor) -> Tensor {
    q
}
