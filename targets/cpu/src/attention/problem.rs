//! An attention in strides: its dims, which keys its queries see, and where its operands lie.

use super::tiles::{Rows, TileLayout};
use super::visibility::Visibility;
use crate::cpu::Cpu;
use crate::emit::{Elem, Emitter, Val};
use crate::matmul::Word;
use crate::nest::Dim;

/// Operand numbers in the strides of an [`Attention`]'s dims.
pub const Q: usize = 0;
pub const K: usize = 1;
pub const V: usize = 2;
pub const OUT: usize = 3;
pub const LSE: usize = 4;
pub const DOUT: usize = 5;
pub const DQ: usize = 6;
pub const DK: usize = 7;
pub const DV: usize = 8;
pub const Q_SEGMENT: usize = 9;
pub const K_SEGMENT: usize = 10;
pub const Q_POSITION: usize = 11;
pub const K_POSITION: usize = 12;
pub const BIAS: usize = 13;
/// The gradients of scores: what the bias lacks is summed over elsewhere.
pub const DBIAS: usize = 14;
pub const OPERANDS: usize = 15;

/// Scratch is handed out for at most this many parts.
pub const MOST_PARTS: u64 = 64;

/// The problem. Each dim has a stride for every operand, 0 where the operand lacks the dim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    pub batch: Vec<Dim>,
    pub queries: Dim,
    pub keys: Dim,
    pub heads: Dim,
    /// Divides the number of heads.
    pub kv_heads: Dim,
    pub head: Dim,
    /// Query i sees key j if j <= i + reach.
    pub causal: bool,
    /// Reach and number of keys are operands of the kernel; else keys - queries, and all of them.
    pub windowed: bool,
    /// Queries and keys are compared by numbers; then it is neither causal nor windowed.
    pub visibility: Option<Visibility>,
    /// What is added to scaled scores is stored so.
    pub bias: Option<Elem>,
    /// Bits of the `f64` by which scores are multiplied.
    pub scale: u64,
    /// Of everything but `lse` and the gradients of scores, which are `f32`, and the bias.
    pub elem: Elem,
}

/// Base addresses, by operand number; those of results may be missing.
pub type Bases = [Option<Val>; OPERANDS];

/// Which keys are seen; numbers known while emitting, or not.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub reach: Val,
    /// Keys from here on are seen by no query.
    pub length: Val,
}

impl Window {
    /// Both are clamped to what the sizes can tell apart, so that sums of them fit 32 bits.
    pub fn new(e: &mut Emitter, attention: &Attention, reach: Val, length: Val) -> Window {
        let (none, all) = (e.i64(-(attention.queries.size as i64)), e.i64(attention.keys.size as i64));
        let (zero, most) = (e.i64(0), e.max_int(reach, none));
        let reach = e.min_int(most, all);
        let length = e.max_int(length, zero);
        Window { reach, length: e.min_int(length, all) }
    }

    /// All keys, the last query level with the last key.
    pub fn whole(e: &mut Emitter, attention: &Attention) -> Window {
        let keys = attention.keys.size as i64;
        Window { reach: e.i64(keys - attention.queries.size as i64), length: e.i64(keys) }
    }

    /// The keys that `query` sees: `0..seen`.
    pub fn seen(self, e: &mut Emitter, attention: &Attention, query: Val) -> Val {
        if !attention.causal {
            return self.length;
        }
        let (zero, one) = (e.i64(0), e.i64(1));
        let past = e.add(query, self.reach);
        let past = e.add(past, one);
        let last = e.min_int(past, self.length);
        e.max_int(last, zero)
    }

    /// The keys that some of the queries before `end` sees: `0..seen`.
    pub fn seen_before(self, e: &mut Emitter, attention: &Attention, end: Val) -> Val {
        let one = e.i64(1);
        let last = e.sub(end, one);
        self.seen(e, attention, last)
    }
}

/// The heads that a task reads and writes.
pub struct Place {
    pub batch: Val,
    pub head: Val,
    pub kv_head: Val,
}

impl Attention {
    pub fn group_size(&self) -> u64 {
        self.heads.size / self.kv_heads.size
    }

    /// By what products of queries and keys are multiplied to be exponents of 2.
    pub fn factor(&self) -> f32 {
        (self.scale() * std::f64::consts::LOG2_E) as f32
    }

    pub fn scale(&self) -> f64 {
        f64::from_bits(self.scale)
    }

    /// The words of a CPU's products of this problem's operands.
    pub fn word(&self, cpu: &Cpu) -> Word {
        match self.elem {
            // Rows are read as words.
            Elem::Bf16 if cpu.bf16_dot && self.head.strides.iter().all(|&stride| stride <= 1) => Word::Bf16Pair,
            _ => Word::F32,
        }
    }

    /// The tile form of rows of a head: `across` runs along the lanes of a panel.
    pub fn form(&self, cpu: &Cpu, across: u64) -> TileLayout {
        TileLayout::new(cpu, self.word(cpu), self.head.size, across)
    }

    /// The rows of an operand at one place.
    pub fn rows(&self, e: &mut Emitter, bases: &Bases, place: &Place, operand: usize) -> Option<Rows> {
        let base = bases[operand]?;
        let start = e.offset_linear(&self.batch, place.batch, operand);
        let of_queries = matches!(operand, Q | OUT | LSE | DOUT | DQ);
        let (heads, index, row) = match of_queries {
            true => (&self.heads, place.head, &self.queries),
            false => (&self.kv_heads, place.kv_head, &self.keys),
        };
        let stride = e.i64(heads.strides[operand]);
        let head = e.mul(index, stride);
        let start = e.add(start, head);
        Some(Rows {
            base,
            elem: if operand == LSE { Elem::F32 } else { self.elem },
            start,
            row_stride: row.strides[operand],
            depth_stride: self.head.strides[operand],
            depth: self.head.size,
        })
    }
}

/// Scratch of one part, handed out in order, in words of 32 bits.
#[derive(Default)]
pub struct Scratch {
    pub words: u64,
}

impl Scratch {
    /// The offset of a new area; areas begin with a cache line.
    pub fn take(&mut self, words: u64) -> u64 {
        let offset = self.words;
        self.words += words.next_multiple_of(16);
        offset
    }
}
