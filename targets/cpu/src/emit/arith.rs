//! Constants, arithmetic, comparisons and casts.

use super::{Elem, Emitter, Ty, Val};

/// A comparison; on floats ordered (false on NaN), except `Ne`, which is true on NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Cmp {
    fn int(self) -> &'static str {
        match self {
            Cmp::Eq => "eq",
            Cmp::Ne => "ne",
            Cmp::Lt => "slt",
            Cmp::Le => "sle",
            Cmp::Gt => "sgt",
            Cmp::Ge => "sge",
        }
    }

    fn float(self) -> &'static str {
        match self {
            Cmp::Eq => "oeq",
            Cmp::Ne => "une",
            Cmp::Lt => "olt",
            Cmp::Le => "ole",
            Cmp::Gt => "ogt",
            Cmp::Ge => "oge",
        }
    }
}

/// A rounding to an integral float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Floor,
    Ceil,
    Even,
}

impl Emitter {
    pub fn i64(&mut self, value: i64) -> Val {
        self.constant(Ty::I64, &value.to_string(), Some(value))
    }

    /// An integer constant of any shape.
    pub fn int(&mut self, ty: Ty, value: i64) -> Val {
        let literal = match ty.elem {
            Elem::I1 => (value != 0).to_string(),
            _ => value.to_string(),
        };
        self.splat_literal(ty, &literal, (ty == Ty::I64).then_some(value))
    }

    /// A float constant of any shape; it is rounded to `ty`'s element once.
    pub fn float(&mut self, ty: Ty, value: f64) -> Val {
        let literal = match ty.elem {
            Elem::F64 => format!("0x{:016X}", value.to_bits()),
            Elem::F32 => format!("0x{:08X}", (value as f32).to_bits()),
            Elem::F16 => format!("0x{:04X}", half::f16::from_f64(value).to_bits()),
            _ => format!("0x{:04X}", half::bf16::from_f64(value).to_bits()),
        };
        self.splat_literal(ty, &literal, None)
    }

    /// An `f32` vector constant.
    pub fn vconst(&mut self, value: f32) -> Val {
        let ty = self.vf32();
        self.float(ty, f64::from(value))
    }

    fn splat_literal(&mut self, ty: Ty, literal: &str, known: Option<i64>) -> Val {
        match ty.is_vector() {
            true => self.constant(ty, &format!("dense<{literal}>"), None),
            false => self.constant(ty, literal, known),
        }
    }

    /// The vector `0, 1, 2, ...`.
    pub fn steps(&mut self, ty: Ty) -> Val {
        let list: Vec<String> = (0..ty.lanes).map(|lane| lane.to_string()).collect();
        self.constant(ty, &format!("dense<[{}]>", list.join(", ")), None)
    }

    fn binary(&mut self, float: &str, int: &str, a: Val, b: Val) -> Val {
        debug_assert_eq!(a.ty, b.ty, "{float}/{int}");
        let name = if a.ty.elem.is_float() { float } else { int };
        self.op(a.ty, format_args!("arith.{name} {a}, {b} : {}", a.ty))
    }

    pub fn add(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) => self.i64(x.wrapping_add(y)),
            (Some(0), _) => b,
            (_, Some(0)) => a,
            _ => self.binary("addf", "addi", a, b),
        }
    }

    pub fn sub(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) => self.i64(x.wrapping_sub(y)),
            (_, Some(0)) => a,
            _ => self.binary("subf", "subi", a, b),
        }
    }

    pub fn mul(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) => self.i64(x.wrapping_mul(y)),
            (Some(0), _) | (_, Some(0)) => self.i64(0),
            (Some(1), _) => b,
            (_, Some(1)) => a,
            _ => self.binary("mulf", "muli", a, b),
        }
    }

    /// Division; integers are signed and round toward zero.
    pub fn div(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) if y != 0 => self.i64(x / y),
            (_, Some(1)) => a,
            _ => self.binary("divf", "divsi", a, b),
        }
    }

    /// Division of non-negative integers.
    pub fn div_unsigned(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) if y != 0 => self.i64(x / y),
            (_, Some(1)) => a,
            _ => self.binary("divf", "divui", a, b),
        }
    }

    /// Remainder of non-negative integers.
    pub fn rem_unsigned(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) if y != 0 => self.i64(x % y),
            (_, Some(1)) => self.i64(0),
            _ => self.binary("remf", "remui", a, b),
        }
    }

    /// The smaller of two integers.
    pub fn min_int(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) => self.i64(x.min(y)),
            _ => self.binary("minnumf", "minsi", a, b),
        }
    }

    /// The larger of two integers.
    pub fn max_int(&mut self, a: Val, b: Val) -> Val {
        match (a.known, b.known) {
            (Some(x), Some(y)) => self.i64(x.max(y)),
            _ => self.binary("maxnumf", "maxsi", a, b),
        }
    }

    /// A non-negative integer, rounded up to a multiple.
    pub fn next_multiple(&mut self, a: Val, of: u64) -> Val {
        let (up, of) = (self.i64(of as i64 - 1), self.i64(of as i64));
        let up = self.add(a, up);
        let whole = self.div_unsigned(up, of);
        self.mul(whole, of)
    }

    /// `a > b ? a : b`: one instruction; `b` where either is NaN.
    pub fn max_fast(&mut self, a: Val, b: Val) -> Val {
        let greater = self.cmp(Cmp::Gt, a, b);
        self.select(greater, a, b)
    }

    /// The smaller; `b` where one is NaN.
    pub fn min_fast(&mut self, a: Val, b: Val) -> Val {
        let less = self.cmp(Cmp::Lt, a, b);
        self.select(less, a, b)
    }

    pub fn and(&mut self, a: Val, b: Val) -> Val {
        self.binary("", "andi", a, b)
    }

    pub fn or(&mut self, a: Val, b: Val) -> Val {
        self.binary("", "ori", a, b)
    }

    pub fn xor(&mut self, a: Val, b: Val) -> Val {
        self.binary("", "xori", a, b)
    }

    pub fn shl(&mut self, a: Val, b: Val) -> Val {
        self.binary("", "shli", a, b)
    }

    pub fn shr_unsigned(&mut self, a: Val, b: Val) -> Val {
        self.binary("", "shrui", a, b)
    }

    pub fn shr_signed(&mut self, a: Val, b: Val) -> Val {
        self.binary("", "shrsi", a, b)
    }

    pub fn neg(&mut self, a: Val) -> Val {
        if a.ty.elem.is_float() {
            return self.op(a.ty, format_args!("arith.negf {a} : {}", a.ty));
        }
        let zero = self.int(a.ty, 0);
        self.sub(zero, a)
    }

    /// `a * b + c`, rounded once.
    pub fn fma(&mut self, a: Val, b: Val, c: Val) -> Val {
        let ty = a.ty;
        self.op(ty, format_args!("llvm.intr.fma({a}, {b}, {c}) : ({ty}, {ty}, {ty}) -> {ty}"))
    }

    pub fn abs(&mut self, a: Val) -> Val {
        self.intrinsic("fabs", a)
    }

    pub fn sqrt(&mut self, a: Val) -> Val {
        self.intrinsic("sqrt", a)
    }

    pub fn round(&mut self, a: Val, mode: Round) -> Val {
        let name = match mode {
            Round::Floor => "floor",
            Round::Ceil => "ceil",
            Round::Even => "roundeven",
        };
        self.intrinsic(name, a)
    }

    pub fn copysign(&mut self, magnitude: Val, sign: Val) -> Val {
        let ty = sign.ty;
        self.op(ty, format_args!("llvm.intr.copysign({magnitude}, {sign}) : ({ty}, {ty}) -> {ty}"))
    }

    fn intrinsic(&mut self, name: &str, a: Val) -> Val {
        let ty = a.ty;
        self.op(ty, format_args!("llvm.intr.{name}({a}) : ({ty}) -> {ty}"))
    }

    pub fn cmp(&mut self, cmp: Cmp, a: Val, b: Val) -> Val {
        let ty = a.ty;
        match ty.elem.is_float() {
            true => self.op(ty.with(Elem::I1), format_args!("arith.cmpf {}, {a}, {b} : {ty}", cmp.float())),
            false => self.op(ty.with(Elem::I1), format_args!("arith.cmpi {}, {a}, {b} : {ty}", cmp.int())),
        }
    }

    /// Unsigned `a < b`.
    pub fn below(&mut self, a: Val, b: Val) -> Val {
        self.op(a.ty.with(Elem::I1), format_args!("arith.cmpi ult, {a}, {b} : {}", a.ty))
    }

    pub fn select(&mut self, condition: Val, yes: Val, no: Val) -> Val {
        match condition.ty.is_vector() {
            true => {
                self.op(yes.ty, format_args!("arith.select {condition}, {yes}, {no} : {}, {}", condition.ty, yes.ty))
            }
            false => self.op(yes.ty, format_args!("arith.select {condition}, {yes}, {no} : {}", yes.ty)),
        }
    }

    fn cast(&mut self, name: &str, a: Val, elem: Elem) -> Val {
        let to = a.ty.with(elem);
        self.op(to, format_args!("arith.{name} {a} : {} to {to}", a.ty))
    }

    pub fn bitcast(&mut self, a: Val, elem: Elem) -> Val {
        if a.ty.elem == elem { a } else { self.cast("bitcast", a, elem) }
    }

    pub fn extend_unsigned(&mut self, a: Val, elem: Elem) -> Val {
        if a.ty.elem == elem { a } else { self.cast("extui", a, elem) }
    }

    pub fn extend_signed(&mut self, a: Val, elem: Elem) -> Val {
        if a.ty.elem == elem { a } else { self.cast("extsi", a, elem) }
    }

    pub fn truncate(&mut self, a: Val, elem: Elem) -> Val {
        if a.ty.elem == elem { a } else { self.cast("trunci", a, elem) }
    }

    pub fn int_to_float(&mut self, a: Val, elem: Elem) -> Val {
        self.cast("sitofp", a, elem)
    }

    /// Rounds toward zero; NaN gives 0 and what is out of range gives the nearest integer.
    pub fn float_to_int(&mut self, a: Val, elem: Elem) -> Val {
        let (from, to) = (a.ty, a.ty.with(elem));
        self.op(to, format_args!("llvm.call_intrinsic \"llvm.fptosi.sat\"({a}) : ({from}) -> {to}"))
    }

    pub fn extend_float(&mut self, a: Val, elem: Elem) -> Val {
        if a.ty.elem == elem { a } else { self.cast("extf", a, elem) }
    }

    /// Rounds to nearest even. For `bf16` see [`Emitter::f32_to_bf16_bits`], which needs no library.
    pub fn round_float(&mut self, a: Val, elem: Elem) -> Val {
        if a.ty.elem == elem { a } else { self.cast("truncf", a, elem) }
    }

    /// The bits of `a`, an `f32`, rounded to nearest even `bf16`.
    ///
    /// Done on integers on every CPU: the bf16 instructions flush denormals, and then results would depend on `--cpu`.
    pub fn f32_to_bf16_bits(&mut self, a: Val) -> Val {
        let wide = a.ty.with(Elem::I32);
        let bits = self.bitcast(a, Elem::I32);
        let sixteen = self.int(wide, 16);
        let one = self.int(wide, 1);
        let bias = self.int(wide, 0x7fff);
        let high = self.shr_unsigned(bits, sixteen);
        let odd = self.and(high, one);
        let up = self.add(bias, odd);
        let sum = self.add(bits, up);
        let rounded = self.shr_unsigned(sum, sixteen);
        // Rounding could carry a NaN's payload into infinity.
        let quiet = self.int(wide, 0x40);
        let nan_bits = self.or(high, quiet);
        let is_nan = self.cmp(Cmp::Ne, a, a);
        let picked = self.select(is_nan, nan_bits, rounded);
        self.truncate(picked, Elem::I16)
    }

    /// The `f32` of `bf16` bits.
    pub fn bf16_bits_to_f32(&mut self, bits: Val) -> Val {
        let wide = self.extend_unsigned(bits, Elem::I32);
        let sixteen = self.int(wide.ty, 16);
        let shifted = self.shl(wide, sixteen);
        self.bitcast(shifted, Elem::F32)
    }

    /// `a`, an `f32`, as it would come back from storage of type `elem`.
    pub fn round_through(&mut self, a: Val, elem: Elem) -> Val {
        match elem {
            Elem::Bf16 => {
                let bits = self.f32_to_bf16_bits(a);
                self.bf16_bits_to_f32(bits)
            }
            Elem::F16 => {
                let half = self.round_float(a, Elem::F16);
                self.extend_float(half, Elem::F32)
            }
            _ => a,
        }
    }
}
