//! Products of two tensors over any dims: packed operands, a register-tiled inner kernel, and an epilogue in the last pass.
//!
//! The result is cut into tasks of `MC x NC`; a task packs its rows of the left operand and its columns of the right one,
//! block by block along K, and accumulates in `f32` scratch. Tasks are spread over parts; each is done by one part, in an
//! order that depends on the shape alone, so parts never change bits. Scratch: [`Tiling::scratch_bytes`] for each part.

mod micro;
mod pack;

pub use micro::{Micro, Word, register_tile};

use crate::cpu::Cpu;
use crate::emit::{Cmp, Elem, Emitter, Kernel, Val};
use crate::nest::{Dim, merge, points, sizes};

/// Operand numbers in [`Dim::strides`]; numbers from [`EXTRA`] on belong to the epilogue.
pub const LHS: usize = 0;
pub const RHS: usize = 1;
pub const OUT: usize = 2;
pub const EXTRA: usize = 3;

/// `out[batch, m, n] = sum over k of lhs[batch, m, k] * rhs[batch, k, n]`, each letter a list of dims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    pub batch: Vec<Dim>,
    pub m: Vec<Dim>,
    pub n: Vec<Dim>,
    pub k: Vec<Dim>,
    pub lhs: Elem,
    pub rhs: Elem,
}

/// The blocks that a product is cut into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    rows: u32,
    vectors: u32,
    /// Columns of a panel.
    width: u64,
    /// Panels and blocks of each direction.
    m_panels: u64,
    n_panels: u64,
    /// Panels in the innermost run of columns.
    run_panels: u64,
    mc_panels: u64,
    nc_panels: u64,
    kc: u64,
    kc_padded: u64,
    k_blocks: u64,
    /// K blocks in the innermost run of K.
    run_blocks: u64,
    batch: u64,
}

/// Scratch is handed out for at most this many parts.
pub const MOST_PARTS: u64 = 64;

impl Tiling {
    pub fn tasks(&self) -> u64 {
        self.batch * self.m_panels.div_ceil(self.mc_panels) * self.n_panels.div_ceil(self.nc_panels)
    }

    /// Parts that get any work.
    pub fn useful_parts(&self) -> u64 {
        self.tasks().min(MOST_PARTS)
    }

    fn a_floats(&self) -> u64 {
        self.mc_panels * u64::from(self.rows) * self.kc_padded
    }

    fn b_floats(&self) -> u64 {
        self.nc_panels * self.width * self.kc_padded
    }

    fn c_floats(&self) -> u64 {
        let tile = u64::from(self.rows) * self.width;
        if self.k_blocks > 1 { self.mc_panels * self.nc_panels * tile } else { tile }
    }

    /// Scratch of one part.
    pub fn scratch_bytes(&self) -> u64 {
        // The last panel may be read a vector past its end.
        (self.a_floats() + self.b_floats() + self.c_floats() + 64) * 4
    }

    /// Scratch of all parts.
    pub fn workspace_bytes(&self) -> u64 {
        self.scratch_bytes() * self.useful_parts()
    }
}

/// Where an epilogue stands: one vector of one row of the result.
pub struct Site<'a> {
    matmul: &'a Matmul,
    batch: Val,
    m: Val,
    n_outer: Val,
    n_inner: Val,
    /// Lanes that exist.
    pub mask: Val,
}

impl Site<'_> {
    /// The offset of the vector's first element in `operand`.
    pub fn offset(&self, e: &mut Emitter, operand: usize) -> Val {
        let (outer, inner) = self.matmul.columns();
        let batch = e.offset_linear(&self.matmul.batch, self.batch, operand);
        let row = e.offset_linear(&self.matmul.m, self.m, operand);
        let column = e.offset_linear(outer, self.n_outer, operand);
        let stride = e.i64(inner.strides[operand]);
        let last = e.mul(self.n_inner, stride);
        let sum = e.add(batch, row);
        let sum = e.add(sum, column);
        e.add(sum, last)
    }

    pub fn lanes(&self, e: &Emitter) -> u32 {
        e.lanes()
    }

    /// Elements of `operand` from one lane to the next.
    pub fn stride(&self, operand: usize) -> i64 {
        self.matmul.columns().1.strides[operand]
    }

    /// Loads `operand`, stored as `elem` at `base`, for this vector.
    pub fn load(&self, e: &mut Emitter, base: Val, elem: Elem, operand: usize) -> Val {
        let offset = self.offset(e, operand);
        let at = e.at(base, elem, offset);
        e.load_strided(at, elem, self.stride(operand), Some(self.mask))
    }

    /// Stores this vector to `operand`.
    pub fn store(&self, e: &mut Emitter, value: Val, base: Val, elem: Elem, operand: usize) {
        let offset = self.offset(e, operand);
        let at = e.at(base, elem, offset);
        e.store_strided(value, at, elem, self.stride(operand), Some(self.mask));
    }
}

impl Matmul {
    /// Whether the normal form has the operands the other way round.
    pub fn exchanges(&self) -> bool {
        let unit = |dims: &[Dim]| dims.iter().any(|dim| dim.strides[OUT] == 1 && dim.size > 1);
        unit(&self.m) && !unit(&self.n)
    }

    /// The same product, dims merged, with the result's unit stride among the columns if it is among the rows.
    pub fn normal(&self) -> Matmul {
        let mut normal = self.clone();
        if self.exchanges() {
            std::mem::swap(&mut normal.m, &mut normal.n);
            std::mem::swap(&mut normal.lhs, &mut normal.rhs);
            for dims in [&mut normal.batch, &mut normal.m, &mut normal.n, &mut normal.k] {
                dims.iter_mut().for_each(|dim| dim.strides.swap(LHS, RHS));
            }
        }
        let operands = [&self.batch, &self.m, &self.n, &self.k]
            .iter()
            .find_map(|dims| dims.first())
            .map_or(3, |dim| dim.strides.len());
        normal.batch = merge(&normal.batch);
        normal.m = merge(&normal.m);
        normal.n = merge(&normal.n);
        normal.k = merge(&normal.k);
        // Vectors run along the last columns: those that are contiguous in the result.
        if let Some(place) = normal.n.iter().position(|dim| dim.strides[OUT] == 1) {
            let inner = normal.n.remove(place);
            normal.n.push(inner);
        }
        for dims in [&mut normal.n, &mut normal.k] {
            if dims.is_empty() {
                dims.push(Dim::new(1, &vec![0; operands]));
            }
        }
        normal
    }

    /// The columns: outer dims, and the innermost one, which vectors run along.
    fn columns(&self) -> (&[Dim], &Dim) {
        split_last(&self.n)
    }

    fn depth(&self) -> (&[Dim], &Dim) {
        split_last(&self.k)
    }

    /// How a normal product is cut. Depends on shapes and the CPU, never on the number of parts.
    pub fn tiling(&self, cpu: &Cpu) -> Tiling {
        let lanes = u64::from(cpu.lanes);
        let (most_rows, most_vectors) = if cpu.registers >= 32 { (8, 2) } else { (4, 2) };
        let (m, batch) = (points(&self.m), points(&self.batch));
        let ((n_outer, n_inner), (k_outer, k_inner)) = (self.columns(), self.depth());
        let rows = (most_rows as u64).min(m.next_power_of_two()) as u32;
        let vectors = u64::min(most_vectors, n_inner.size.div_ceil(lanes)) as u32;
        let width = u64::from(vectors) * lanes;
        let m_panels = m.div_ceil(u64::from(rows));
        let run_panels = n_inner.size.div_ceil(width);
        let n_panels = points(n_outer) * run_panels;
        let even = |total: u64, most: u64| total.div_ceil(total.div_ceil(most));
        let run_blocks = k_inner.size.div_ceil(384);
        let kc = k_inner.size.div_ceil(run_blocks).next_multiple_of(4).min(k_inner.size);
        Tiling {
            rows,
            vectors,
            width,
            m_panels,
            n_panels,
            run_panels,
            mc_panels: even(m_panels, 128 / u64::from(rows)),
            nc_panels: even(n_panels, 256 / width),
            kc,
            // Rows of A that are a power of two apart would fall into the same cache sets.
            kc_padded: kc.next_multiple_of(lanes) + lanes,
            k_blocks: points(k_outer) * run_blocks,
            run_blocks,
            batch,
        }
    }
}

fn split_last(dims: &[Dim]) -> (&[Dim], &Dim) {
    let (last, outer) = dims.split_last().expect("a normal product has columns and depth");
    (outer, last)
}

/// The buffers of a product.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    pub lhs: Val,
    pub rhs: Val,
    /// [`Tiling::workspace_bytes`].
    pub workspace: Val,
}

/// The state of one task.
struct Task {
    batch: Val,
    first_m_panel: Val,
    m_panels: Val,
    first_n_panel: Val,
    n_panels: Val,
    a: Val,
    b: Val,
    c: Val,
}

impl Emitter {
    /// Emits the product of a [`Matmul::normal`] form. `epilogue` gets each accumulated vector once, and stores it.
    pub fn matmul(
        &mut self,
        kernel: &Kernel,
        matmul: &Matmul,
        buffers: Buffers,
        mut epilogue: impl FnMut(&mut Emitter, &Site<'_>, Val),
    ) {
        let tiling = matmul.tiling(self.cpu());
        let (from, to) = self.share(kernel, tiling.tasks(), tiling.useful_parts());
        let bytes = self.i64(tiling.scratch_bytes() as i64);
        let start = self.mul(kernel.part, bytes);
        self.for_range((from, to, 1), |e, task| {
            let a = e.at_byte(buffers.workspace, start);
            let (a_size, b_size) = (e.i64(tiling.a_floats() as i64 + 16), e.i64(tiling.b_floats() as i64 + 16));
            let b = e.at(a, Elem::F32, a_size);
            let c = e.at(b, Elem::F32, b_size);
            let blocks =
                [tiling.batch, tiling.n_panels.div_ceil(tiling.nc_panels), tiling.m_panels.div_ceil(tiling.mc_panels)];
            let at = e.unravel(task, &blocks);
            let (first_n_panel, n_panels) = block(e, at[1], tiling.nc_panels, tiling.n_panels);
            let (first_m_panel, m_panels) = block(e, at[2], tiling.mc_panels, tiling.m_panels);
            let task = Task { batch: at[0], first_m_panel, m_panels, first_n_panel, n_panels, a, b, c };
            e.for_count(tiling.k_blocks, 1, |e, k_block| {
                depth_block(e, matmul, &tiling, buffers, &task, k_block, &mut epilogue);
            });
        });
    }
}

/// The first of the panels of block `index`, and how many it has.
fn block(e: &mut Emitter, index: Val, size: u64, total: u64) -> (Val, Val) {
    let (size, total) = (e.i64(size as i64), e.i64(total as i64));
    let first = e.mul(index, size);
    let left = e.sub(total, first);
    (first, e.min_int(left, size))
}

fn depth_block(
    e: &mut Emitter,
    matmul: &Matmul,
    tiling: &Tiling,
    buffers: Buffers,
    task: &Task,
    k_block: Val,
    epilogue: &mut impl FnMut(&mut Emitter, &Site<'_>, Val),
) {
    let (k_outer, k_inner) = matmul.depth();
    let at = e.unravel(k_block, &[points(k_outer), tiling.run_blocks]);
    let (first_k, k) = block(e, at[1], tiling.kc, k_inner.size);
    let span = pack::Span { batch: task.batch, k_outer: at[0], first_k, k };

    let layout = pack::lhs_layout(matmul, tiling);
    pack::lhs(e, matmul, tiling, buffers.lhs, &span, (task.first_m_panel, task.m_panels, task.a));
    pack::rhs(e, matmul, tiling, buffers.rhs, &span, (task.first_n_panel, task.n_panels, task.b));

    let zero = e.i64(0);
    let micro = Micro {
        rows: tiling.rows,
        vectors: tiling.vectors,
        a_row: layout.row,
        a_k: layout.k,
        b_k: tiling.width as i64,
        c_row: tiling.width as i64,
    };
    e.for_range((zero, task.n_panels, 1), |e, n_panel| {
        let b_size = e.i64((tiling.kc_padded * tiling.width) as i64);
        let b = e.mul(n_panel, b_size);
        let b = e.at(task.b, Elem::F32, b);
        e.for_range((zero, task.m_panels, 1), |e, m_panel| {
            let a_size = e.i64((u64::from(tiling.rows) * tiling.kc_padded) as i64);
            let a = e.mul(m_panel, a_size);
            let a = e.at(task.a, Elem::F32, a);
            let c = match tiling.k_blocks {
                1 => task.c,
                _ => {
                    let across = e.i64(tiling.mc_panels as i64);
                    let tile = e.i64(i64::from(tiling.rows) * tiling.width as i64);
                    let index = e.mul(n_panel, across);
                    let index = e.add(index, m_panel);
                    let index = e.mul(index, tile);
                    e.at(task.c, Elem::F32, index)
                }
            };
            e.micro(micro, (a, b, c), k, k_block);
            let panels = (m_panel, n_panel);
            match tiling.k_blocks {
                1 => store_tile(e, matmul, tiling, task, panels, c, epilogue),
                blocks => {
                    let last = e.i64(blocks as i64 - 1);
                    let is_last = e.cmp(Cmp::Eq, k_block, last);
                    e.if_then(is_last, |e| store_tile(e, matmul, tiling, task, panels, c, epilogue));
                }
            }
        });
    });
}

/// Hands each vector of a finished tile to the epilogue.
fn store_tile(
    e: &mut Emitter,
    matmul: &Matmul,
    tiling: &Tiling,
    task: &Task,
    (m_panel, n_panel): (Val, Val),
    c: Val,
    epilogue: &mut impl FnMut(&mut Emitter, &Site<'_>, Val),
) {
    let (n_outer, n_inner) = matmul.columns();
    let zero = e.i64(0);
    let rows = e.i64(i64::from(tiling.rows));
    let total = e.i64(points(&matmul.m) as i64);
    let first_m = e.add(task.first_m_panel, m_panel);
    let first_m = e.mul(first_m, rows);
    let left = e.sub(total, first_m);
    let count = e.min_int(rows, left);
    let panel = e.add(task.first_n_panel, n_panel);
    let at = e.unravel(panel, &[points(n_outer), tiling.run_panels]);
    let width = e.i64(tiling.width as i64);
    let first_n = e.mul(at[1], width);
    let lanes = i64::from(e.lanes());
    e.for_range((zero, count, 1), |e, row| {
        let m = e.add(first_m, row);
        e.for_count(tiling.width, lanes as u64, |e, column| {
            let n = e.add(first_n, column);
            let size = e.i64(n_inner.size as i64);
            let left = e.sub(size, n);
            let exists = e.cmp(Cmp::Gt, left, zero);
            e.if_then(exists, |e| {
                let mask = e.lanes_below(left);
                let index = e.mul(row, width);
                let index = e.add(index, column);
                let from = e.at(c, Elem::F32, index);
                let vf32 = e.vf32();
                let sum = e.load(from, vf32);
                let site = Site { matmul, batch: task.batch, m, n_outer: at[0], n_inner: n, mask };
                epilogue(e, &site, sum);
            });
        });
    });
}

/// The sizes of a product, for names and tests: batch, rows, columns, depth.
pub fn extents(matmul: &Matmul) -> [u64; 4] {
    let count = |dims: &[Dim]| sizes(dims).iter().product();
    [count(&matmul.batch), count(&matmul.m), count(&matmul.n), count(&matmul.k)]
}
