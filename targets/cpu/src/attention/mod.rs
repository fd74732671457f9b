//! Flash attention, forward and backward, for any layout: scores exist only as tiles that fit the cache.
//!
//! Tiles are kept transposed: lanes run along queries (keys in the pass for dk and dv), so that softmax needs no
//! horizontal step and keys and values are read as they lie. The parts share the tasks (batch, head, block of queries
//! or keys); each result element is made by one task, in an order that depends on shapes alone.

mod backward;
mod forward;
mod tiles;

use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Val};
use crate::matmul::{Micro, register_tile};
use crate::nest::{Dim, points};

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
pub const OPERANDS: usize = 9;

/// Scratch is handed out for at most this many parts.
const MOST_PARTS: u64 = 64;

/// Keys (or queries, in the pass for dk and dv) in a tile.
const ROWS: u64 = 64;

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
    /// Bits of the `f64` by which scores are multiplied.
    pub scale: u64,
    /// Of everything but `lse`, which is `f32`.
    pub elem: Elem,
}

/// Base addresses, by operand number; those of results may be missing.
pub type Bases = [Option<Val>; OPERANDS];

/// Which keys are seen; numbers known while emitting, or not.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    reach: Val,
    /// Keys from here on are seen by no query.
    length: Val,
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

    /// The keys that some of the queries before `end` sees: `0..last_key`.
    fn last_key(self, e: &mut Emitter, attention: &Attention, end: Val) -> Val {
        if !attention.causal {
            return self.length;
        }
        let (zero, past) = (e.i64(0), e.add(end, self.reach));
        let last = e.min_int(past, self.length);
        e.max_int(last, zero)
    }
}

/// The tile sizes of a problem on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Rows of the inner kernel's tile.
    rows: u32,
    /// Vectors of the lanes' side.
    vectors: u32,
    lanes: u64,
    /// Elements of a tile along the lanes' side.
    span: u64,
    /// Width of a head, padded.
    depth: u64,
    /// Elements from one row of a copied tile to the next; no power of two.
    stride: u64,
}

impl Attention {
    /// `across` is the size of the dim that lanes run along.
    fn shape(&self, lanes: u32, registers: u32, across: u64) -> Shape {
        let (rows, most) = if registers >= 32 { (8, 2) } else { (4, 2) };
        let vectors = u64::min(most, across.div_ceil(u64::from(lanes))) as u32;
        let depth = self.head.size.next_multiple_of(u64::from(lanes));
        Shape {
            rows,
            vectors,
            lanes: u64::from(lanes),
            span: u64::from(vectors * lanes),
            depth,
            stride: depth + u64::from(lanes),
        }
    }

    fn query_tasks(&self, cpu: &Cpu) -> u64 {
        let shape = self.shape(cpu.lanes, cpu.registers, self.queries.size);
        points(&self.batch) * self.heads.size * self.queries.size.div_ceil(shape.span)
    }

    fn key_tasks(&self, cpu: &Cpu) -> u64 {
        let shape = self.shape(cpu.lanes, cpu.registers, self.keys.size);
        points(&self.batch) * self.kv_heads.size * self.keys.size.div_ceil(shape.span)
    }

    /// Parts that get any work in the forward pass.
    pub fn forward_parts(&self, cpu: &Cpu) -> u64 {
        self.query_tasks(cpu).min(MOST_PARTS)
    }

    pub fn backward_parts(&self, cpu: &Cpu) -> u64 {
        self.query_tasks(cpu).max(self.key_tasks(cpu)).min(MOST_PARTS)
    }

    /// Floats of scratch for one part: enough for either pass.
    fn scratch(&self, shape: Shape) -> u64 {
        // Four transposed operands, three copied ones, two score tiles, and a few rows.
        4 * shape.depth * shape.span + 3 * ROWS * shape.stride + 2 * ROWS * shape.span + 16 * shape.span + 64
    }

    fn scratch_bytes(&self, cpu: &Cpu) -> u64 {
        let floats = |across| self.scratch(self.shape(cpu.lanes, cpu.registers, across));
        4 * floats(self.queries.size).max(floats(self.keys.size))
    }

    pub fn forward_workspace(&self, cpu: &Cpu) -> u64 {
        self.scratch_bytes(cpu) * self.forward_parts(cpu)
    }

    pub fn backward_workspace(&self, cpu: &Cpu) -> u64 {
        self.scratch_bytes(cpu) * self.backward_parts(cpu)
    }

    fn group_size(&self) -> u64 {
        self.heads.size / self.kv_heads.size
    }

    fn scale(&self) -> f64 {
        f64::from_bits(self.scale)
    }
}

/// Scratch of one part, handed out in order.
struct Scratch {
    base: Val,
    used: u64,
}

impl Scratch {
    fn take(&mut self, e: &mut Emitter, floats: u64) -> Val {
        let offset = e.i64(self.used as i64);
        self.used += floats;
        e.at(self.base, Elem::F32, offset)
    }
}

/// A tile of the score matrix under construction: products of copied rows with a transposed operand.
#[derive(Clone, Copy)]
struct Products {
    shape: Shape,
}

impl Products {
    /// `to[row, lane] = sum over d of rows[row, d] * columns[d, lane]`, for all rows of a tile of `count`.
    fn scores(self, e: &mut Emitter, rows: Val, columns: Val, to: Val, count: Val, depth: u64) {
        let shape = self.shape;
        let span = shape.span as i64;
        let micro = Micro {
            rows: shape.rows,
            vectors: shape.vectors,
            a_row: shape.stride as i64,
            a_k: 1,
            b_k: span,
            c_row: span,
        };
        let (zero, depth) = (e.i64(0), e.i64(depth as i64));
        e.for_each((zero, count, i64::from(shape.rows)), &[], |e, row, _| {
            let (a_step, c_step) = (e.i64(shape.stride as i64), e.i64(span));
            let (a, c) = (e.mul(row, a_step), e.mul(row, c_step));
            let (a, c) = (e.at(rows, Elem::F32, a), e.at(to, Elem::F32, c));
            e.micro(micro, (a, columns, c), depth, zero);
            Vec::new()
        });
    }

    /// `to[d, lane] += sum over rows of rows[row, d] * weights[row, lane]`.
    fn weigh(self, e: &mut Emitter, rows: Val, weights: Val, to: Val, count: Val) {
        let shape = self.shape;
        let span = shape.span as i64;
        let micro = Micro {
            rows: shape.rows,
            vectors: shape.vectors,
            a_row: 1,
            a_k: shape.stride as i64,
            b_k: span,
            c_row: span,
        };
        let one = e.i64(1);
        e.for_count(shape.depth, u64::from(shape.rows), |e, d| {
            let step = e.i64(span);
            let c = e.mul(d, step);
            let (a, c) = (e.at(rows, Elem::F32, d), e.at(to, Elem::F32, c));
            e.micro(micro, (a, weights, c), count, one);
        });
    }
}

/// `score` where the key is seen, minus infinity elsewhere; `edge` is `query + reach - key`.
fn visible(e: &mut Emitter, score: Val, edge: Val) -> Val {
    let zero = e.int(edge.ty, 0);
    let sees = e.cmp(Cmp::Ge, edge, zero);
    let hidden = e.float(score.ty, f64::NEG_INFINITY);
    e.select(sees, score, hidden)
}

/// The shape of a problem whose lanes run along `across`.
fn shape_of(e: &Emitter, attention: &Attention, across: u64) -> Shape {
    debug_assert_eq!(register_tile(e).1, 2);
    attention.shape(e.lanes(), e.cpu().registers, across)
}
