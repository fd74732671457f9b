//! How a product is cut: register tiles, panels, blocks that fit the caches, and what is read in place.

use super::{LHS, Matmul, Word};
use crate::cpu::Cpu;
use crate::emit::Elem;
use crate::nest::{Dim, points};

/// Scratch is handed out for at most this many parts.
pub const MOST_PARTS: u64 = 32;

/// Words of K that are summed in registers before a tile goes to memory.
const MOST_WORDS: u64 = 2048;

/// The same where rows are packed: columns then pass in wider blocks, and rows are packed less often.
const MOST_WORDS_PACKED: u64 = 512;

/// Bytes of packed columns, which are read again for each block of rows.
pub const RHS_BYTES: u64 = 1 << 20;

/// Bytes of a block of rows, which stays in the second-level cache while all columns pass.
const LHS_BYTES: u64 = 384 << 10;

/// Bytes of sums that wait for the next block of K.
const SUM_BYTES: u64 = 5 << 18;

/// Where the inner kernel reads the left operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lhs {
    /// Rows as they are stored.
    InPlace,
    /// Packed rows, each whole.
    Rows,
    /// Packed: for one word of K after another, that of each row.
    Steps,
}

/// The blocks that a product is cut into. They depend on the shape and the CPU alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    pub word: Word,
    pub lhs: Lhs,
    /// The register tile: rows, and vectors in each.
    pub rows: u32,
    pub vectors: u32,
    /// Columns of a panel.
    pub width: u64,
    pub m_panels: u64,
    pub n_panels: u64,
    /// Panels in the innermost run of columns.
    pub run_panels: u64,
    /// Panels in a block.
    pub mc_panels: u64,
    pub nc_panels: u64,
    /// Panels of rows whose sums wait in scratch for the next block of K.
    pub sum_panels: u64,
    /// Steps of K in a block.
    pub kc: u64,
    pub k_blocks: u64,
    /// K blocks in the innermost run of K.
    pub run_blocks: u64,
    pub batch: u64,
}

impl Matmul {
    /// What the inner kernel multiplies.
    pub fn word(&self, cpu: &Cpu) -> Word {
        match (self.lhs, self.rhs) {
            (Elem::Bf16, Elem::Bf16) if cpu.bf16_dot => Word::Bf16Pair,
            _ => Word::F32,
        }
    }

    /// How a normal product is cut.
    pub fn tiling(&self, cpu: &Cpu) -> Tiling {
        let lhs = self.lhs_form(self.word(cpu));
        self.tiling_of(cpu, lhs, if lhs == Lhs::InPlace { MOST_WORDS } else { MOST_WORDS_PACKED }, RHS_BYTES)
    }

    /// How it is cut where the inner kernel reads rows so, at most so many words of K at a time, and where packed columns
    /// may have so many bytes.
    pub fn tiling_of(&self, cpu: &Cpu, lhs: Lhs, most_words: u64, rhs_bytes: u64) -> Tiling {
        let word = self.word(cpu);
        let lanes = u64::from(cpu.lanes);
        let (m, batch) = (points(&self.m), points(&self.batch));
        let ((n_outer, n_inner), (k_outer, k_inner)) = (self.columns(), self.depth());
        let (rows, vectors) = register_tile(cpu, m, n_inner.size);
        let width = u64::from(vectors) * lanes;
        let m_panels = m.div_ceil(u64::from(rows));
        let run_panels = n_inner.size.div_ceil(width);
        let n_panels = points(n_outer) * run_panels;

        let run_blocks = k_inner.size.div_ceil(most_words.saturating_mul(word.depth()));
        let kc = k_inner.size.div_ceil(run_blocks).next_multiple_of(4).min(k_inner.size);
        let words = kc.div_ceil(word.depth());
        let k_blocks = points(k_outer) * run_blocks;

        let even = |total: u64, most: u64| total.div_ceil(total.div_ceil(most.max(1)));
        let fits = |bytes: u64, words: u64| bytes / (4 * words);
        let nc_panels = even(n_panels, fits(rhs_bytes, words * width));
        let tile = u64::from(rows) * width;
        let sum_panels = if k_blocks > 1 { even(m_panels, fits(SUM_BYTES, tile * nc_panels)) } else { m_panels };
        let mc_panels = fits(LHS_BYTES, words * u64::from(rows)).max(4).min(sum_panels);
        Tiling {
            word,
            lhs,
            rows,
            vectors,
            width,
            m_panels,
            n_panels,
            run_panels,
            mc_panels: even(sum_panels, mc_panels),
            nc_panels,
            sum_panels,
            kc,
            k_blocks,
            run_blocks,
            batch,
        }
    }

    fn lhs_form(&self, word: Word) -> Lhs {
        let (k_outer, k_inner) = self.depth();
        if k_inner.strides[LHS] != 1 && k_inner.size != 1 {
            return Lhs::Steps;
        }
        let row = match &self.m[..] {
            [] => 0,
            [dim] => dim.strides[LHS],
            _ => return Lhs::Rows,
        };
        // Words of a row must be whole, and rows must start at words.
        let whole = k_inner.size.is_multiple_of(word.depth()) && row % word.depth() as i64 == 0;
        let is_word = self.lhs == word.elem();
        if k_outer.is_empty() && whole && is_word { Lhs::InPlace } else { Lhs::Rows }
    }
}

/// Rows and vectors of the register tile.
fn register_tile(cpu: &Cpu, m: u64, n_inner: u64) -> (u32, u32) {
    let lanes = u64::from(cpu.lanes);
    let (most_rows, most_vectors) = if cpu.registers >= 32 { (6, 4) } else { (6, 2) };
    let vectors = u64::min(most_vectors, n_inner.div_ceil(lanes));
    (u64::min(most_rows, m.max(1)) as u32, vectors as u32)
}

impl Tiling {
    /// Blocks of columns.
    pub fn n_blocks(&self) -> u64 {
        self.n_panels.div_ceil(self.nc_panels)
    }

    /// What parts share: panels of rows, for each block of columns.
    pub fn units(&self) -> u64 {
        self.batch * self.n_blocks() * self.m_panels
    }

    /// Parts that get any work.
    pub fn useful_parts(&self) -> u64 {
        self.units().min(MOST_PARTS)
    }

    /// Words in a block of K.
    fn words(&self) -> u64 {
        self.kc.div_ceil(self.word.depth())
    }

    /// Words of a packed panel of columns: the transposition of columns writes whole squares, and panels shall not be a
    /// power of two apart.
    pub fn panel_words(&self) -> u64 {
        self.width * self.words().next_multiple_of(16) + 16
    }

    /// Words of a packed panel of rows, from row to row in it, and from one word of K to the next. Distances that are a
    /// power of two would fall into the same cache sets.
    pub fn lhs_steps(&self) -> [u64; 3] {
        let rows = u64::from(self.rows);
        let row = self.words().next_multiple_of(16) + 16;
        match self.lhs {
            // Rows are written as whole vectors, so that the last ones reach beyond the panel.
            Lhs::Steps => [(self.words() * rows).next_multiple_of(16) + 16, 1, rows],
            _ => [rows * row, row, 1],
        }
    }

    /// Words of a packed block of rows.
    fn lhs_words(&self) -> u64 {
        if self.lhs == Lhs::InPlace { 0 } else { self.mc_panels * self.lhs_steps()[0] }
    }

    /// Words from one sum of a row to the next row's.
    pub fn tile_floats(&self) -> u64 {
        u64::from(self.rows) * self.width
    }

    /// Where the parts of a part's scratch begin, in words: left operand, right operand, sums, end.
    pub fn scratch(&self) -> [u64; 4] {
        let sums = if self.k_blocks > 1 { self.sum_panels * self.nc_panels } else { 1 };
        let line = |words: u64| words.next_multiple_of(16);
        let right_at = line(self.lhs_words());
        let sums_at = right_at + line(self.nc_panels * self.panel_words());
        [0, right_at, sums_at, sums_at + line(sums * self.tile_floats())]
    }

    /// Scratch of all parts.
    pub fn workspace_bytes(&self) -> u64 {
        self.scratch()[3] * 4 * self.useful_parts()
    }
}

/// The last dim, which always exists in a normal product, and those before.
pub fn split_last(dims: &[Dim]) -> (&[Dim], &Dim) {
    let (last, outer) = dims.split_last().expect("a normal product has columns and depth");
    (outer, last)
}
