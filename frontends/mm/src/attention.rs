//! Attention.

use crate::{Operand, Size, Tensor};

/// softmax(q k / sqrt(head)) v. Each operand ends in the axes [length, heads, head]; with fewer heads in k and v, each
/// serves a group of q's. The heads of v may be of another axis, which the result then has.
pub fn attend(q: Tensor, _k: Tensor, _v: Tensor) -> Tensor {
    q
}

/// Who sees whom, and how scores are scaled: right behind `attend(..)` or `attend_causal(..)`.
impl Tensor {
    /// Only those see each other whose segments are equal and positive. Each is an i64 of its length, with any batch axes.
    #[must_use]
    pub fn segments(self, _of_q: Tensor, _of_k: Tensor) -> Tensor {
        self
    }

    /// Where queries and keys stand, for `attend_causal` and windows; without them they count on.
    #[must_use]
    pub fn positions(self, _of_q: Tensor, _of_k: Tensor) -> Tensor {
        self
    }

    /// Only keys at most so far before a query and behind it are seen.
    #[must_use]
    pub fn window(self, _left: impl Into<Size>, _right: impl Into<Size>) -> Tensor {
        self
    }

    /// Added to the scaled scores: any of their axes, and the keys' under a name that queries do not have.
    #[must_use]
    pub fn bias(self, _bias: Tensor) -> Tensor {
        self
    }

    /// Scores are multiplied by this, and not divided by the root of the head's size.
    #[must_use]
    pub fn scale(self, _scale: impl Operand) -> Tensor {
        self
    }
}

/// The same, where a position sees itself and those before it.
pub fn attend_causal(q: Tensor, _k: Tensor, _v: Tensor) -> Tensor {
    q
}
