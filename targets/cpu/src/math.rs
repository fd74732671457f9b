//! Vector math: exp, log, tanh, erf, sin, cos and what follows from them, on `f32` of any shape.
//!
//! Each function is a fixed sequence of IEEE operations, so that its bits are the same on every machine and at every
//! vector width. All take 0, infinities, NaN and huge arguments; errors are those of `tests/math.rs`.

use crate::emit::{Cmp, Elem, Emitter, Round, Val};

impl Emitter {
    fn like(&mut self, x: Val, value: f64) -> Val {
        self.float(x.ty, value)
    }

    /// Horner's rule with one rounding a step, highest power first.
    fn horner(&mut self, x: Val, coefficients: &[f32]) -> Val {
        let mut sum = self.like(x, f64::from(coefficients[0]));
        for &coefficient in &coefficients[1..] {
            let term = self.like(x, f64::from(coefficient));
            sum = self.fma(sum, x, term);
        }
        sum
    }

    /// `e^x`, within 1 ulp; results below the normal range are denormal.
    pub fn exp(&mut self, x: Val) -> Val {
        // Above 128 ln 2 and below the smallest denormal the answer no longer changes; NaN fails both tests and stays.
        let (high, low) = (self.like(x, 89.0), self.like(x, -104.0));
        let above = self.cmp(Cmp::Gt, x, high);
        let clipped = self.select(above, high, x);
        let below = self.cmp(Cmp::Lt, clipped, low);
        let clipped = self.select(below, low, clipped);

        let (log2e, magic) = (self.like(x, std::f64::consts::LOG2_E), self.like(x, 12_582_912.0));
        let shifted = self.fma(clipped, log2e, magic);
        let n = self.sub(shifted, magic);
        let r = self.exp_rest(clipped, n);
        // 2^n in two factors, so that neither over- nor underflows before the product does.
        let bits = self.bitcast(shifted, Elem::I32);
        let base = self.int(bits.ty, 0x4b40_0000);
        let n = self.sub(bits, base);
        let one = self.int(bits.ty, 1);
        let half = self.shr_signed(n, one);
        let other = self.sub(n, half);
        let (a, b) = (self.power_of_two(half), self.power_of_two(other));
        let scaled = self.mul(r, a);
        self.mul(scaled, b)
    }

    /// `e^x` within 1 ulp of arguments from -87 to 88, where it is in the normal range; of others anything, of NaN NaN.
    fn exp_normal(&mut self, x: Val) -> Val {
        // The lowest bits of the sum are those of the exponent of 2, its bias included.
        let (log2e, magic) = (self.like(x, std::f64::consts::LOG2_E), self.like(x, 12_582_912.0 + 127.0));
        let shifted = self.fma(x, log2e, magic);
        let n = self.sub(shifted, magic);
        let r = self.exp_rest(x, n);
        let bits = self.bitcast(shifted, Elem::I32);
        let shift = self.int(bits.ty, 23);
        let power = self.shl(bits, shift);
        let power = self.bitcast(power, Elem::F32);
        self.mul(r, power)
    }

    /// `e^(x - n ln 2)`, where that is near 1.
    fn exp_rest(&mut self, x: Val, n: Val) -> Val {
        let (ln2_high, ln2_low) = (self.like(x, -6.931_457_5e-1), self.like(x, -1.428_606_8e-6));
        let f = self.fma(n, ln2_high, x);
        let f = self.fma(n, ln2_low, f);
        self.horner(f, &[1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0])
    }

    /// `2^x` within 3 ulp for `x` up to 127; 0 from -127 on. For softmax, where it is most of the work.
    ///
    /// Several at once, step by step for all of them: each waits for its own steps, not for those of the others.
    pub fn exp2_fast(&mut self, xs: &[Val]) -> Vec<Val> {
        let Some(&first) = xs.first() else { return Vec::new() };
        let (low, magic) = (self.like(first, -127.0), self.like(first, 12_582_912.0));
        let xs: Vec<Val> = xs.iter().map(|&x| self.max_fast(low, x)).collect();
        let shifted: Vec<Val> = xs.iter().map(|&x| self.add(x, magic)).collect();
        let ns: Vec<Val> = shifted.iter().map(|&shifted| self.sub(shifted, magic)).collect();
        let fs: Vec<Val> = xs.iter().zip(ns).map(|(&x, n)| self.sub(x, n)).collect();
        let mut sums = vec![self.like(first, 1.326_472_7e-3); xs.len()];
        for coefficient in [9.671_512e-3, 5.550_734e-2, 2.402_224_2e-1, 6.931_469e-1, 1.0] {
            let term = self.like(first, coefficient);
            for (sum, &f) in sums.iter_mut().zip(&fs) {
                *sum = self.fma(*sum, f, term);
            }
        }
        // At -127 the exponent of 1 becomes that of 0. The magic number's own bits leave with the shift.
        let shift = self.int(first.ty.with(Elem::I32), 23);
        let scaled = sums.iter().zip(shifted).map(|(&r, shifted)| {
            let (n, r) = (self.bitcast(shifted, Elem::I32), self.bitcast(r, Elem::I32));
            let n = self.shl(n, shift);
            let bits = self.add(r, n);
            self.bitcast(bits, Elem::F32)
        });
        scaled.collect()
    }

    /// `2^n` of integers in the normal range.
    fn power_of_two(&mut self, n: Val) -> Val {
        let (bias, shift) = (self.int(n.ty, 127), self.int(n.ty, 23));
        let biased = self.add(n, bias);
        let bits = self.shl(biased, shift);
        self.bitcast(bits, Elem::F32)
    }

    /// The natural logarithm, within 1 ulp, denormals included.
    pub fn log(&mut self, x: Val) -> Val {
        let (tiny, scale) = (self.like(x, f64::from(f32::MIN_POSITIVE)), self.like(x, 8_388_608.0));
        let zero = self.like(x, 0.0);
        let denormal = self.cmp(Cmp::Lt, x, tiny);
        let scaled = self.mul(x, scale);
        let a = self.select(denormal, scaled, x);
        let shift = self.like(x, -23.0);
        let exponent = self.select(denormal, shift, zero);

        let bits = self.bitcast(a, Elem::I32);
        let two_thirds = self.int(bits.ty, i64::from(0.666_666_7_f32.to_bits()));
        let mask = self.int(bits.ty, -0x0080_0000);
        let e = self.sub(bits, two_thirds);
        let e = self.and(e, mask);
        let m = self.sub(bits, e);
        let m = self.bitcast(m, Elem::F32);
        let e = self.int_to_float(e, Elem::F32);
        let ulp = self.like(x, 1.192_092_9e-7);
        let exponent = self.fma(e, ulp, exponent);

        let one = self.like(x, 1.0);
        let m = self.sub(m, one);
        let s = self.mul(m, m);
        let r = self.horner(s, &[-0.130_310_06, -0.121_483_51, -0.166_846_13, -0.249_996_2]);
        let t = self.horner(s, &[0.140_869_14, 0.139_814_85, 0.200_120_35]);
        let r = self.fma(t, m, r);
        let (third, half) = (self.like(x, 0.333_331_97), self.like(x, -0.5));
        let r = self.fma(r, m, third);
        let r = self.fma(r, m, half);
        let r = self.fma(r, s, m);
        let ln2 = self.like(x, std::f64::consts::LN_2);
        let r = self.fma(exponent, ln2, r);

        let infinity = self.like(x, f64::INFINITY);
        let (minus_infinity, nan) = (self.like(x, f64::NEG_INFINITY), self.like(x, f64::NAN));
        let is_infinity = self.cmp(Cmp::Eq, x, infinity);
        let r = self.select(is_infinity, infinity, r);
        let is_zero = self.cmp(Cmp::Eq, x, zero);
        let r = self.select(is_zero, minus_infinity, r);
        let valid = self.cmp(Cmp::Ge, x, zero);
        self.select(valid, r, nan)
    }

    /// `e^x - 1`, also near 0 (after Kahan): the errors of `u = e^x` and of `log u` cancel.
    pub fn expm1(&mut self, x: Val) -> Val {
        let u = self.exp(x);
        let (one, minus_one) = (self.like(x, 1.0), self.like(x, -1.0));
        let difference = self.sub(u, one);
        let log = self.log(u);
        let ratio = self.div(x, log);
        let value = self.mul(difference, ratio);
        let (low, high) = (self.like(x, -18.0), self.like(x, 40.0));
        let is_high = self.cmp(Cmp::Gt, x, high);
        let value = self.select(is_high, u, value);
        let is_low = self.cmp(Cmp::Lt, x, low);
        let value = self.select(is_low, minus_one, value);
        let same = self.cmp(Cmp::Eq, u, one);
        self.select(same, x, value)
    }

    /// `1 / (1 + e^-x)`, 0 where that is below the normal range.
    pub fn sigmoid(&mut self, x: Val) -> Val {
        let (low, high) = (self.like(x, -87.0), self.like(x, 88.0));
        let negative = self.neg(x);
        let negative = self.max_fast(low, negative);
        let negative = self.min_fast(high, negative);
        let e = self.exp_normal(negative);
        let one = self.like(x, 1.0);
        let below = self.add(one, e);
        let share = self.div(one, below);
        let (edge, none) = (self.like(x, -87.0), self.like(x, 0.0));
        let vanishes = self.cmp(Cmp::Lt, x, edge);
        self.select(vanishes, none, share)
    }

    pub fn tanh(&mut self, x: Val) -> Val {
        let t = self.abs(x);
        let z = self.mul(x, x);
        let p = self.horner(z, &[-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
        let zp = self.mul(z, p);
        let small = self.fma(zp, x, x);
        // The product turns -0 into 0.
        let small = self.copysign(small, x);

        let (one, two) = (self.like(x, 1.0), self.like(x, 2.0));
        let (doubled, most) = (self.add(t, t), self.like(x, 20.0));
        // The answer is 1 from there on.
        let doubled = self.min_fast(most, doubled);
        let e = self.exp_normal(doubled);
        let below = self.add(e, one);
        let quotient = self.div(two, below);
        let large = self.sub(one, quotient);
        let large = self.copysign(large, x);
        let edge = self.like(x, 0.625);
        let is_large = self.cmp(Cmp::Ge, t, edge);
        self.select(is_large, large, small)
    }

    /// The error function.
    pub fn erf(&mut self, x: Val) -> Val {
        let t = self.abs(x);
        let s = self.mul(x, x);
        let r = self.horner(
            s,
            &[-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_4e-1, 1.283_791_7e-1],
        );
        let small = self.fma(r, x, x);

        // Past 10 the polynomial would lose its sign; erf is 1 there already.
        let ten = self.like(x, 10.0);
        let above = self.cmp(Cmp::Gt, t, ten);
        let clipped = self.select(above, ten, t);
        let s = self.mul(clipped, clipped);
        let r = self.horner(clipped, &[-1.728_534_7e-5, 3.831_971_3e-4]);
        let u = self.horner(clipped, &[-3.883_964_4e-3, 2.425_462_2e-2]);
        let mut r = self.fma(r, s, u);
        for coefficient in [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1] {
            let term = self.like(x, coefficient);
            r = self.fma(r, clipped, term);
        }
        let minus = self.neg(clipped);
        let r = self.fma(r, clipped, minus);
        let e = self.exp(r);
        let one = self.like(x, 1.0);
        let large = self.sub(one, e);
        let large = self.copysign(large, x);
        let edge = self.like(x, 0.927_734_4);
        let is_large = self.cmp(Cmp::Gt, t, edge);
        self.select(is_large, large, small)
    }

    pub fn sin(&mut self, x: Val) -> Val {
        self.sine(x, 0)
    }

    pub fn cos(&mut self, x: Val) -> Val {
        self.sine(x, 1)
    }

    /// The sine of `x + quarters * pi / 2`, accurate while `x` is below 1e9.
    fn sine(&mut self, x: Val, quarters: i64) -> Val {
        // Reduced in f64: three bits of quadrant and 29 bits of argument leave nothing to cancel in f32.
        let wide = self.extend_float(x, Elem::F64);
        let (scale, magic) = (self.like(wide, std::f64::consts::FRAC_2_PI), self.like(wide, 6_755_399_441_055_744.0));
        let shifted = self.fma(wide, scale, magic);
        let n = self.sub(shifted, magic);
        let (high, low) = (self.like(wide, -std::f64::consts::FRAC_PI_2), self.like(wide, -6.123_233_995_736_766e-17));
        let r = self.fma(n, high, wide);
        let r = self.fma(n, low, r);
        let r = self.round_float(r, Elem::F32);
        let bits = self.bitcast(shifted, Elem::I64);
        let quadrant = self.truncate(bits, Elem::I32);
        let offset = self.int(quadrant.ty, quarters);
        let quadrant = self.add(quadrant, offset);

        let z = self.mul(r, r);
        let p = self.horner(z, &[-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
        let zr = self.mul(z, r);
        let sine = self.fma(p, zr, r);
        let sine = self.copysign(sine, r);
        let p = self.horner(z, &[2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
        let zz = self.mul(z, z);
        let (half, one) = (self.like(x, -0.5), self.like(x, 1.0));
        let cosine = self.fma(z, half, one);
        let cosine = self.fma(p, zz, cosine);

        let (bit, two, shift) = (self.int(quadrant.ty, 1), self.int(quadrant.ty, 2), self.int(quadrant.ty, 30));
        let zero = self.int(quadrant.ty, 0);
        let odd = self.and(quadrant, bit);
        let even = self.cmp(Cmp::Eq, odd, zero);
        let value = self.select(even, sine, cosine);
        let sign = self.and(quadrant, two);
        let sign = self.shl(sign, shift);
        let value = self.bitcast(value, Elem::I32);
        let value = self.xor(value, sign);
        self.bitcast(value, Elem::F32)
    }

    /// `1 / sqrt(x)`, both steps rounded correctly.
    pub fn rsqrt(&mut self, x: Val) -> Val {
        let root = self.sqrt(x);
        let one = self.like(x, 1.0);
        self.div(one, root)
    }

    /// `floor(x)`.
    pub fn floor(&mut self, x: Val) -> Val {
        self.round(x, Round::Floor)
    }
}
