//! The register-tiled inner kernel of every product: `C[MR, NR] (+)= A[MR, K] B[K, NR]`.
//!
//! A step along K is one word of 32 bits in each operand: an `f32`, or a pair of `bf16` that are neighbours along K.

use crate::emit::{Cmp, Elem, Emitter, Ty, Val};

/// What a word of an operand holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    F32,
    /// Two steps of K, multiplied and added to an `f32` by one instruction. Needs [`crate::cpu::Cpu::bf16_dot`].
    Bf16Pair,
}

impl Word {
    /// How each of its elements is stored.
    pub fn elem(self) -> Elem {
        match self {
            Word::F32 => Elem::F32,
            Word::Bf16Pair => Elem::Bf16,
        }
    }

    /// Steps of K in a word.
    pub fn depth(self) -> u64 {
        match self {
            Word::F32 => 1,
            Word::Bf16Pair => 2,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Word::F32 => "f32",
            Word::Bf16Pair => "bf16",
        }
    }
}

/// What one inner kernel is specialised to; strides are in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Micro {
    /// Rows of the tile.
    pub rows: u32,
    /// Vectors in a row of the tile.
    pub vectors: u32,
    pub a_row: i64,
    pub a_k: i64,
    pub b_k: i64,
    pub c_row: i64,
}

impl Micro {
    fn name(&self, word: Word) -> String {
        let Micro { rows, vectors, a_row, a_k, b_k, c_row } = self;
        format!("micro_{}_{rows}x{vectors}_a{a_row}_{a_k}_b{b_k}_c{c_row}", word.name())
    }
}

/// Rows and vectors that fill the registers without spilling.
pub fn register_tile(e: &Emitter) -> (u32, u32) {
    if e.cpu().registers >= 32 { (8, 2) } else { (4, 2) }
}

const UNROLL: i64 = 4;

impl Emitter {
    /// Calls the inner kernel of `f32` over `k` steps; it adds to `c` where `accumulate` (an `i64`) is not 0 and overwrites
    /// it otherwise.
    pub fn micro(&mut self, micro: Micro, buffers: (Val, Val, Val), k: Val, accumulate: Val) {
        self.micro_words((Word::F32, micro), buffers, k, accumulate);
    }

    /// The same on words of either kind; `k` counts words. C is always `f32`.
    pub fn micro_words(&mut self, (word, micro): (Word, Micro), (a, b, c): (Val, Val, Val), k: Val, accumulate: Val) {
        let name = micro.name(word);
        self.function(&name, &[Ty::PTR, Ty::PTR, Ty::PTR, Ty::I64, Ty::I64], &[], |e, args| {
            body(e, (word, micro), args);
            Vec::new()
        });
        self.call(&name, &[a, b, c, k, accumulate]);
    }

    /// `sum + a * b` in each lane, of words held as `f32`: one rounding for `f32`; for pairs, the upper product is added to
    /// the sum first and then the lower one, denormals taken as zero.
    fn multiply_add(&mut self, word: Word, a: Val, b: Val, sum: Val) -> Val {
        match word {
            Word::F32 => self.fma(a, b, sum),
            Word::Bf16Pair => self.dot_pairs(a, b, sum),
        }
    }
}

fn body(e: &mut Emitter, (word, micro): (Word, Micro), args: &[Val]) {
    let &[a, b, c, k, accumulate] = args else { return };
    let vf32 = e.vf32();
    let width = i64::from(e.lanes());
    let cells: Vec<(i64, i64)> = (0..i64::from(micro.rows))
        .flat_map(|row| (0..i64::from(micro.vectors)).map(move |vector| (row, vector)))
        .collect();
    let address = |e: &mut Emitter, row: i64, vector: i64| {
        let offset = e.i64(row * micro.c_row + vector * width);
        e.at(c, Elem::F32, offset)
    };

    let zero = e.i64(0);
    let adds = e.cmp(Cmp::Ne, accumulate, zero);
    let types = vec![vf32; cells.len()];
    let start = e.if_else(
        adds,
        &types,
        |e| {
            let mut loaded = Vec::new();
            for &(row, vector) in &cells {
                let at = address(e, row, vector);
                loaded.push(e.load(at, vf32));
            }
            loaded
        },
        |e| {
            let nothing = e.float(vf32, 0.0);
            vec![nothing; cells.len()]
        },
    );

    let unroll = e.i64(UNROLL);
    let whole = e.div_unsigned(k, unroll);
    let whole = e.mul(whole, unroll);
    let sums = e.for_each((zero, whole, UNROLL), &start, |e, k, sums| {
        (0..UNROLL).fold(sums.to_vec(), |sums, step| accumulate_step(e, (word, micro), (a, b), k, step, &sums))
    });
    let sums = e.for_each((whole, k, 1), &sums, |e, k, sums| accumulate_step(e, (word, micro), (a, b), k, 0, sums));
    for (&(row, vector), &sum) in cells.iter().zip(&sums) {
        let at = address(e, row, vector);
        e.store(sum, at);
    }
}

/// Adds the outer product of column `k + step` of A and its row of B.
fn accumulate_step(
    e: &mut Emitter,
    (word, micro): (Word, Micro),
    (a, b): (Val, Val),
    k: Val,
    step: i64,
    sums: &[Val],
) -> Vec<Val> {
    let vf32 = e.vf32();
    let width = i64::from(e.lanes());
    let (a_k, b_k) = (e.i64(micro.a_k), e.i64(micro.b_k));
    let (a_index, b_index) = (e.mul(k, a_k), e.mul(k, b_k));
    let (a, b) = (e.at(a, Elem::F32, a_index), e.at(b, Elem::F32, b_index));
    let mut row_of_b = Vec::new();
    for vector in 0..i64::from(micro.vectors) {
        let offset = e.i64(step * micro.b_k + vector * width);
        let at = e.at(b, Elem::F32, offset);
        row_of_b.push(e.load(at, vf32));
    }
    let mut next = Vec::new();
    for row in 0..i64::from(micro.rows) {
        let offset = e.i64(step * micro.a_k + row * micro.a_row);
        let at = e.at(a, Elem::F32, offset);
        let one = e.load(at, Ty::F32);
        let one = e.splat(one);
        for (vector, &b) in row_of_b.iter().enumerate() {
            next.push(e.multiply_add(word, one, b, sums[row as usize * row_of_b.len() + vector]));
        }
    }
    next
}
