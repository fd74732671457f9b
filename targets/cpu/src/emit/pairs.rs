//! Words of two `bf16` held as one `f32` lane: how they are made and multiplied.
//!
//! A CPU of [`Cpu::bf16_dot`](crate::cpu::Cpu::bf16_dot) without the instructions does the same in more steps, so that
//! kernels over words run, and are tested, on any machine.

use super::{Elem, Emitter, Ty, Val};

impl Emitter {
    /// `sum + a * b` over both halves of each word. Denormals may count as zero.
    pub fn dot_pairs(&mut self, a: Val, b: Val, sum: Val) -> Val {
        let ty = sum.ty;
        if !self.cpu().has_bf16_instructions() {
            let [(a_low, a_high), (b_low, b_high)] = [a, b].map(|words| self.halves(words));
            let sum = self.fma(a_high, b_high, sum);
            return self.fma(a_low, b_low, sum);
        }
        let pairs = Ty::vector(Elem::Bf16, 2 * ty.lanes);
        let [a, b] =
            [a, b].map(|words| self.op(pairs, format_args!("vector.bitcast {words} : {} to {pairs}", words.ty)));
        self.op(
            ty,
            format_args!(
                "llvm.call_intrinsic \"llvm.x86.avx512bf16.dpbf16ps.512\"({sum}, {a}, {b}) : ({ty}, {pairs}, {pairs}) -> {ty}"
            ),
        )
    }

    /// Words of `low` and `high`, both `f32`, rounded to nearest even: what [`Emitter::dot_pairs`] takes.
    pub fn bf16_pairs(&mut self, low: Val, high: Val) -> Val {
        let lanes = low.ty.lanes;
        let all = self.bf16_run(low, high);
        let order: Vec<u32> = (0..2 * lanes).map(|lane| lane / 2 + lane % 2 * lanes).collect();
        let interleaved = self.shuffle(all, all, &order);
        self.words_of(interleaved)
    }

    /// Neighbours of two vectors that follow each other as words: the same, before they are interleaved.
    pub fn bf16_words(&mut self, first: Val, second: Val) -> Val {
        let all = self.bf16_run(first, second);
        self.words_of(all)
    }

    /// Pairs of 16-bit lanes as `f32` bits.
    pub fn words_of(&mut self, halves: Val) -> Val {
        let to = Ty::vector(Elem::F32, halves.ty.lanes / 2);
        self.op(to, format_args!("vector.bitcast {halves} : {} to {to}", halves.ty))
    }

    /// Two vectors of `f32` after each other, as the bits of `bf16`.
    fn bf16_run(&mut self, first: Val, second: Val) -> Val {
        let lanes = first.ty.lanes;
        if !self.cpu().has_bf16_instructions() {
            let [first, second] = [first, second].map(|half| self.f32_to_bf16_bits(half));
            let order: Vec<u32> = (0..2 * lanes).collect();
            return self.shuffle(first, second, &order);
        }
        let (from, narrow) = (first.ty, Ty::vector(Elem::Bf16, 2 * lanes));
        let to = narrow.with(Elem::I16);
        let all = self.op(
            narrow,
            format_args!(
                "llvm.call_intrinsic \"llvm.x86.avx512bf16.cvtne2ps2bf16.512\"({second}, {first}) : ({from}, {from}) -> {narrow}"
            ),
        );
        self.op(to, format_args!("vector.bitcast {all} : {narrow} to {to}"))
    }

    /// The low and the high halves of words, as `f32`.
    fn halves(&mut self, words: Val) -> (Val, Val) {
        let bits = self.bitcast(words, Elem::I32);
        let (sixteen, upper) = (self.int(bits.ty, 16), self.int(bits.ty, -0x1_0000));
        let (low, high) = (self.shl(bits, sixteen), self.and(bits, upper));
        (self.bitcast(low, Elem::F32), self.bitcast(high, Elem::F32))
    }
}
