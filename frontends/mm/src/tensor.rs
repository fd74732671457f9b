//! Tensors, their element types, and what can be done with them.

use crate::{Chunks, Operand, Part, Size};

/// A value of the graph. Its dims are named and its element type is known; neither shows in the Rust type.
#[derive(Clone, Copy, Debug)]
pub struct Tensor;

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DType;

pub const f32: DType = DType;
/// For tables that are computed at compile time.
pub const f64: DType = DType;
pub const i64: DType = DType;
pub const i32: DType = DType;
/// The model's working type: f32 or bf16, as `--dtype` says.
pub const work: DType = DType;
/// The type of a residual stream: f32, or the working type under `--precision pure`.
pub const stream: DType = DType;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(self) -> Tensor { self })*
    };
}

macro_rules! pair {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(self, _other: impl Operand) -> Tensor { self })*
    };
}

/// Functions of each element.
impl Tensor {
    unary!(
        abs, exp, expm1, log,
        /// log(1 + x), exact near 0.
        log1p,
        sqrt, rsqrt, tanh, sin, cos, sigmoid, erf, gelu_tanh, silu, square,
        /// The largest whole number that is not above.
        floor,
        /// The nearest whole number, of two the even one.
        round,
        /// 1, 0 or -1.
        sign,
        relu,
        /// x times the normal distribution's integral up to x.
        gelu,
        /// x sigmoid(1.702 x).
        quick_gelu,
        /// log(1 + e^x).
        softplus,
    );

    pair!(
        max, min,
        /// Less than; true and false as a tensor of bool.
        lt,
        /// At most.
        le,
        /// Greater than.
        gt,
        /// At least.
        ge,
        /// Equal.
        eq,
        /// Not equal.
        ne,
    );

    /// Within these bounds.
    #[must_use]
    pub fn clamp(self, _low: impl Operand, _high: impl Operand) -> Tensor {
        self
    }

    /// Whether both are true.
    #[must_use]
    pub fn and(self, _other: Tensor) -> Tensor {
        self
    }

    /// Whether one of both is true.
    #[must_use]
    pub fn or(self, _other: Tensor) -> Tensor {
        self
    }

    #[must_use]
    pub fn cast(self, _to: DType) -> Tensor {
        self
    }

    /// Runs `body` on this tensor in f32, and casts what it returns back to this tensor's type.
    pub fn in_f32<R>(self, body: impl FnOnce(Tensor) -> R) -> R {
        body(self)
    }
}

/// Axes, by name.
#[allow(clippy::unused_self)]
impl Tensor {
    /// One axis as several, major first.
    #[must_use]
    pub fn split<const N: usize>(self, _dim: Size, _into: [Size; N]) -> Tensor {
        self
    }

    /// Neighbouring axes as one.
    #[must_use]
    pub fn merge<const N: usize>(self, _dims: [Size; N], _into: Size) -> Tensor {
        self
    }

    /// The same axis under another name.
    #[must_use]
    pub fn rename(self, _from: Size, _to: Size) -> Tensor {
        self
    }

    /// The axes in this order.
    #[must_use]
    pub fn transpose<const N: usize>(self, _order: [Size; N]) -> Tensor {
        self
    }

    /// Repeated along the axes it lacks; the result has these axes in this order.
    #[must_use]
    pub fn expand<const N: usize>(self, _dims: [Size; N]) -> Tensor {
        self
    }

    /// Without this axis, which has length 1.
    #[must_use]
    pub fn squeeze(self, _dim: Size) -> Tensor {
        self
    }

    #[must_use]
    pub fn slice(self, _dim: Size, _part: impl Part) -> Tensor {
        self
    }

    /// One element along an axis, which goes away.
    #[must_use]
    pub fn at(self, _dim: Size, _index: i64) -> Tensor {
        self
    }

    /// The elements along an axis, which goes away, as an array.
    #[must_use]
    pub fn unstack<const N: usize>(self, _dim: Size) -> [Tensor; N] {
        [self; N]
    }

    /// More elements of this value before and after.
    #[must_use]
    pub fn pad(self, _dim: Size, _before: impl Into<Size>, _after: impl Into<Size>, _value: impl Operand) -> Tensor {
        self
    }

    /// The first axis cut into this many equal pieces, to be folded over.
    pub fn chunks(self, _dim: Size, _count: Size) -> Chunks<Tensor> {
        Chunks::of(self)
    }
}

/// Sums, norms and products.
impl Tensor {
    unary!(
        /// Over all axes.
        sum,
        /// Over all axes.
        mean,
        /// This number is no sum over samples, such as a product of two means; where a step is cut into micro-batches,
        /// each has its own, and the loss has their mean.
        mean_over_microbatches,
    );

    #[must_use]
    pub fn sum_over<const N: usize>(self, _dims: [Size; N]) -> Tensor {
        self
    }

    #[must_use]
    pub fn mean_over<const N: usize>(self, _dims: [Size; N]) -> Tensor {
        self
    }

    #[must_use]
    pub fn max_over<const N: usize>(self, _dims: [Size; N]) -> Tensor {
        self
    }

    #[must_use]
    pub fn softmax(self, _dim: Size) -> Tensor {
        self
    }

    #[must_use]
    pub fn log_softmax(self, _dim: Size) -> Tensor {
        self
    }

    /// x / sqrt(sum x^2 + eps).
    #[must_use]
    pub fn l2_normalize(self, _dim: Size, _eps: f64) -> Tensor {
        self
    }

    /// Layer normalisation without weight and bias.
    #[must_use]
    pub fn normalize(self, _dim: Size, _eps: f64) -> Tensor {
        self
    }

    /// Root-mean-square normalisation without weight.
    #[must_use]
    pub fn rms_normalize(self, _dim: Size, _eps: f64) -> Tensor {
        self
    }

    /// Products summed over these axes; other axes that both have are batch axes.
    #[must_use]
    pub fn contract<const N: usize>(self, _other: impl Operand, _over: [Size; N]) -> Tensor {
        self
    }

    /// Rows of this table, one for each id. At each index of other axes that both have, of its own part of the table.
    #[must_use]
    pub fn gather(self, _dim: Size, _ids: Tensor) -> Tensor {
        self
    }

    /// This state with rows in the places that ids name, changed where it lies: what it was must not be read any more. An id
    /// below 0 writes nothing; no two are the same.
    #[must_use]
    pub fn write(self, _dim: Size, _ids: Tensor, _rows: Tensor) -> Tensor {
        self
    }

    /// Sums of these rows: row i is added to the row `ids[i]` of TO, which takes the place of the axis. Other axes of the ids
    /// are batch axes.
    #[must_use]
    pub fn scatter_add(self, _dim: Size, _ids: Tensor, _to: Size) -> Tensor {
        self
    }

    /// Turns the pairs of neighbours 2i and 2i + 1 by the angles whose cosines and sines these are.
    #[must_use]
    pub fn rotate_pairs(self, _head: Size, _cos: Tensor, _sin: Tensor) -> Tensor {
        self
    }

    /// The same, where i and i + n/2 are a pair.
    #[must_use]
    pub fn rotate_halves(self, _head: Size, _cos: Tensor, _sin: Tensor) -> Tensor {
        self
    }
}

/// Arithmetic of indices.
impl Tensor {
    /// The sum of each element and those before it.
    #[must_use]
    pub fn cumsum(self, _dim: Size) -> Tensor {
        self
    }

    /// Where the elements stand in order, the least first: equal ones in their own order, NaN last.
    #[must_use]
    pub fn argsort(self, _dim: Size) -> Tensor {
        self
    }

    /// The largest elements, as many as the second axis has, and their indices; of equal ones the first.
    #[must_use]
    pub fn top_k(self, _dim: Size, _to: Size) -> (Tensor, Tensor) {
        (self, self)
    }

    /// The index of the largest element, of equal ones the first.
    #[must_use]
    pub fn argmax(self, _dim: Size) -> Tensor {
        self
    }

    pair!(
        /// The quotient of whole numbers, rounded down; 0 where the divisor is 0.
        floor_div,
        /// What `floor_div` leaves, with the divisor's sign; 0 where the divisor is 0.
        remainder,
    );
}

/// Experts by number.
impl Tensor {
    /// The product of each row with the matrix of the expert that a number names, and how many numbers name each expert.
    /// A matrix has an axis of the rows, which is summed, and one of its own; a number of -1 gives a row of zeros.
    #[must_use]
    pub fn grouped_matmul(self, _experts: Size, _ids: Tensor, _w: impl Operand) -> (Tensor, Tensor) {
        (self, self)
    }
}

/// `a` where the condition holds, else `b`.
pub fn select(condition: Tensor, _a: impl Operand, _b: impl Operand) -> Tensor {
    condition
}

/// Tensors side by side along an axis.
pub fn concat<const N: usize>(_dim: Size, _parts: [Tensor; N]) -> Tensor {
    Tensor
}

/// `silu(gate) * up`.
pub fn swiglu(gate: Tensor, _up: Tensor) -> Tensor {
    gate
}

/// `gelu(gate) * up`.
pub fn geglu(gate: Tensor, _up: Tensor) -> Tensor {
    gate
}

/// The loss of each row of logits, in f32; 0 where the label is `ignored`.
pub fn cross_entropy(_logits: Tensor, labels: Tensor, _classes: Size, _ignored: i64) -> Tensor {
    labels
}
