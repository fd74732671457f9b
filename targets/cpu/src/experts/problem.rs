//! Products by expert in strides: the rows that numbers send to experts, and the experts' matrices.

use crate::cpu::Cpu;
use crate::emit::{Elem, Emitter, Ty, Val};
use crate::matmul::{LHS, Matmul, OUT, RHS};
use crate::nest::{Dim, points};

/// Operand numbers in the strides of [`Experts`]' dims; the first three are those of a [`Matmul`].
pub const ROWS: usize = LHS;
pub const WEIGHT: usize = RHS;
pub const PRODUCTS: usize = OUT;
pub const IDS: usize = 3;
pub const OPERANDS: usize = 4;

/// `products[i] = rows[i] weight[ids[i]]` for each index of the numbers, or the sums of outer products that are the weight's
/// gradient. Each dim has a stride for every operand, 0 where the operand lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Experts {
    /// The numbers' dims, as they lie in memory.
    pub ids: Vec<Dim>,
    pub experts: Dim,
    /// The dim that a product sums.
    pub from: Dim,
    /// The dim that products have.
    pub to: Dim,
    /// How numbers are stored.
    pub number: Elem,
    /// How all else is.
    pub elem: Elem,
}

/// Base addresses, by operand number.
pub type Bases = [Val; OPERANDS];

impl Experts {
    /// Numbers, each of which sends one row away.
    pub fn count(&self) -> u64 {
        points(&self.ids)
    }

    /// The product with one expert's matrix of all rows.
    pub fn product(&self) -> Matmul {
        let rows = Dim::new(self.count(), &[0; OPERANDS]);
        Matmul {
            batch: vec![],
            m: vec![rows],
            n: vec![self.to.clone()],
            k: vec![self.from.clone()],
            lhs: self.elem,
            rhs: self.elem,
        }
    }

    /// Bytes of scratch, and parts that get any work.
    pub fn needs(&self, cpu: &Cpu, gradient: bool) -> (u64, u64) {
        let (words, parts) = if gradient { self.weight_needs(cpu) } else { self.product_needs(cpu) };
        (words * 4 * parts, parts)
    }

    /// The expert that the `index`-th number names; the number of experts if it names none.
    pub fn expert(&self, e: &mut Emitter, bases: &Bases, index: Val) -> Val {
        let offset = e.offset_linear(&self.ids, index, IDS);
        let at = e.at(bases[IDS], self.number, offset);
        let number = e.load(at, Ty::scalar(self.number));
        let number = e.extend_signed(number, Elem::I64);
        let none = e.i64(self.experts.size as i64);
        let exists = e.below(number, none);
        e.select(exists, number, none)
    }

    /// The offset of an operand's element at `index` of the numbers and `along` of a dim.
    pub fn at(&self, e: &mut Emitter, index: Val, dim: &Dim, along: Val, operand: usize) -> Val {
        let start = e.offset_linear(&self.ids, index, operand);
        let stride = e.i64(dim.strides[operand]);
        let within = e.mul(along, stride);
        e.add(start, within)
    }
}
