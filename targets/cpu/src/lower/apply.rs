//! Elementwise operators on values in registers: one function from operator and operands to the rounded result.

use ir::ops::Comparison;
use types::DType;

use super::form::Scalar;
use crate::emit::{Cmp, Elem, Emitter, Round, Ty, Val};

/// How an element type is stored.
pub fn stored(dtype: DType) -> Elem {
    match dtype {
        DType::Work | DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        DType::BF16 => Elem::Bf16,
        DType::F16 => Elem::F16,
        DType::I64 => Elem::I64,
        DType::I32 => Elem::I32,
        DType::Bool => Elem::I8,
    }
}

/// How it is held in a register: 16-bit floats as `f32`, truth values as bits.
pub fn held(dtype: DType) -> Elem {
    match dtype {
        DType::Bool => Elem::I1,
        dtype => match stored(dtype) {
            Elem::Bf16 | Elem::F16 => Elem::F32,
            elem => elem,
        },
    }
}

/// A number as a scalar of `dtype` in a register.
pub fn constant(e: &mut Emitter, value: f64, dtype: DType) -> Val {
    let ty = Ty::scalar(held(dtype));
    let value = dtype.round(value);
    match ty.elem.is_float() {
        true => e.float(ty, value),
        false => e.int(ty, value as i64),
    }
}

/// All operands as scalars, or all as vectors.
pub fn alike(e: &mut Emitter, args: &[Val]) -> Vec<Val> {
    let lanes = args.iter().map(|arg| arg.ty.lanes).max().unwrap_or(0);
    args.iter().map(|&arg| if arg.ty.lanes == lanes { arg } else { e.broadcast(arg, lanes) }).collect()
}

/// The value of an elementwise operator, rounded to `to`; `None` if it has no code for this type.
pub fn apply(e: &mut Emitter, scalar: Scalar, args: &[Val], from: DType, to: DType) -> Option<Val> {
    let args = alike(e, args);
    let x = *args.first()?;
    let y = args.get(1).copied().unwrap_or(x);
    // These are written out in f32.
    let single = |e: &mut Emitter, function: fn(&mut Emitter, Val) -> Val| match x.ty.elem {
        Elem::F32 => Some(function(e, x)),
        _ => None,
    };
    let value = match scalar {
        Scalar::Add => e.add(x, y),
        Scalar::Sub => e.sub(x, y),
        Scalar::Mul => e.mul(x, y),
        Scalar::Div if x.ty.elem.is_float() => e.div(x, y),
        Scalar::Div => Quotient::of(e, x, y).toward_zero(e),
        Scalar::FloorDiv => Quotient::of(e, x, y).down(e)[0],
        Scalar::Remainder => Quotient::of(e, x, y).down(e)[1],
        Scalar::Neg => e.neg(x),
        Scalar::Max => extreme(e, Cmp::Gt, x, y),
        Scalar::Min => extreme(e, Cmp::Lt, x, y),
        Scalar::Compare(kind) => e.cmp(comparison(kind), x, y),
        Scalar::Select => e.select(x, y, *args.get(2)?),
        Scalar::Abs => match x.ty.elem.is_float() {
            true => e.abs(x),
            false => {
                let negative = e.neg(x);
                e.max_int(x, negative)
            }
        },
        Scalar::Cast => cast(e, x, from, to),
        Scalar::Floor => e.round(x, Round::Floor),
        Scalar::Round => e.round(x, Round::Even),
        Scalar::Sqrt => e.sqrt(x),
        Scalar::Rsqrt => e.rsqrt(x),
        Scalar::Exp => single(e, Emitter::exp)?,
        Scalar::Expm1 => single(e, Emitter::expm1)?,
        Scalar::Log => single(e, Emitter::log)?,
        Scalar::Tanh => single(e, Emitter::tanh)?,
        Scalar::Sin => single(e, Emitter::sin)?,
        Scalar::Cos => single(e, Emitter::cos)?,
        Scalar::Sigmoid => single(e, Emitter::sigmoid)?,
        Scalar::Erf => single(e, Emitter::erf)?,
    };
    Some(e.round_through(value, stored(to)))
}

/// A division of whole numbers that never traps: where the divisor is 0 all results are 0, and the least number by -1
/// wraps.
struct Quotient {
    x: Val,
    y: Val,
    /// Rounded toward zero; of a divisor of 0 anything.
    value: Val,
    by_zero: Val,
}

impl Quotient {
    fn of(e: &mut Emitter, x: Val, y: Val) -> Quotient {
        let (zero, one, minus) = (e.int(y.ty, 0), e.int(y.ty, 1), e.int(y.ty, -1));
        let (by_zero, by_minus) = (e.cmp(Cmp::Eq, y, zero), e.cmp(Cmp::Eq, y, minus));
        let traps = e.or(by_zero, by_minus);
        let safe = e.select(traps, one, y);
        let value = e.div(x, safe);
        let negative = e.neg(x);
        Quotient { x, y, value: e.select(by_minus, negative, value), by_zero }
    }

    fn toward_zero(&self, e: &mut Emitter) -> Val {
        let zero = e.int(self.x.ty, 0);
        e.select(self.by_zero, zero, self.value)
    }

    /// The quotient rounded down, and what it leaves.
    fn down(&self, e: &mut Emitter) -> [Val; 2] {
        let (zero, one) = (e.int(self.x.ty, 0), e.int(self.x.ty, 1));
        let product = e.mul(self.value, self.y);
        let rest = e.sub(self.x, product);
        let some = e.cmp(Cmp::Ne, rest, zero);
        let signs = e.xor(rest, self.y);
        let apart = e.cmp(Cmp::Lt, signs, zero);
        let above = e.and(some, apart);
        let (lower, fuller) = (e.sub(self.value, one), e.add(rest, self.y));
        let results = [e.select(above, lower, self.value), e.select(above, fuller, rest)];
        results.map(|result| e.select(self.by_zero, zero, result))
    }
}

fn comparison(kind: Comparison) -> Cmp {
    match kind {
        Comparison::Less => Cmp::Lt,
        Comparison::LessEqual => Cmp::Le,
        Comparison::Equal => Cmp::Eq,
        Comparison::Greater => Cmp::Gt,
        Comparison::GreaterEqual => Cmp::Ge,
        Comparison::NotEqual => Cmp::Ne,
    }
}

/// `x` where it is NaN or wins over `y`, else `y`.
pub fn extreme(e: &mut Emitter, wins: Cmp, x: Val, y: Val) -> Val {
    let won = e.cmp(wins, x, y);
    let picked = e.select(won, x, y);
    if !x.ty.elem.is_float() {
        return picked;
    }
    let nan = e.cmp(Cmp::Ne, x, x);
    e.select(nan, x, picked)
}

fn cast(e: &mut Emitter, x: Val, from: DType, to: DType) -> Val {
    let (source, target) = (held(from), held(to));
    if source == target {
        return x;
    }
    if target == Elem::I1 {
        let zero = if source.is_float() { e.float(x.ty, 0.0) } else { e.int(x.ty, 0) };
        return e.cmp(Cmp::Ne, x, zero);
    }
    match (source.is_float(), target.is_float()) {
        (true, true) if source.bytes() < target.bytes() => e.extend_float(x, target),
        (true, true) => e.round_float(x, target),
        (true, false) => e.float_to_int(x, target),
        (false, _) => {
            let wide = match source {
                Elem::I1 => e.extend_unsigned(x, Elem::I32),
                _ => x,
            };
            if target.is_float() {
                e.int_to_float(wide, target)
            } else if wide.ty.elem.bytes() < target.bytes() {
                e.extend_signed(wide, target)
            } else {
                e.truncate(wide, target)
            }
        }
    }
}

/// Loads elements of `dtype` into registers; lanes outside `mask` are zero.
pub fn load(e: &mut Emitter, at: Val, dtype: DType, lanes: u32, mask: Option<Val>) -> Val {
    let raw = e.load_wide(at, stored(dtype), lanes, mask);
    truth(e, raw, dtype)
}

/// Bytes of truth values as bits; anything else as it is.
pub fn truth(e: &mut Emitter, raw: Val, dtype: DType) -> Val {
    if dtype != DType::Bool {
        return raw;
    }
    let zero = e.int(raw.ty, 0);
    e.cmp(Cmp::Ne, raw, zero)
}

/// Stores a register as `dtype`.
pub fn store(e: &mut Emitter, value: Val, at: Val, dtype: DType, mask: Option<Val>) {
    let value = if dtype == DType::Bool { e.extend_unsigned(value, Elem::I8) } else { value };
    e.store_narrow(value, at, stored(dtype), mask);
}
