//! A place where a rule may apply: one operator of a class, and what rules ask and build there.

use egg::{Id, Language};
use ir::{Op, Type};
use smallvec::SmallVec;
use types::{Dim, Name, TensorType};

use super::facts::{Graph, Known};
use super::term::Term;

/// Operators of one class that a rule sees.
const MOST: usize = 64;

pub struct Site<'a> {
    pub graph: &'a mut Graph,
    pub term: &'a Term,
    pub op: &'a Op,
    pub ty: &'a TensorType,
}

impl Site<'_> {
    pub fn arg(&self, i: usize) -> Id {
        self.term.children[i]
    }

    pub fn args(&self) -> Vec<Id> {
        self.term.children.to_vec()
    }

    /// The tensor type of a class; `None` for stacks and tuples.
    pub fn ty_of(&self, id: Id) -> Option<&TensorType> {
        self.graph[id].data.ty.tensor()
    }

    /// The one number that every element of a class is.
    pub fn same(&self, id: Id) -> Option<f64> {
        match self.graph[id].data.known {
            Some(Known::Same(v)) => Some(v),
            _ => None,
        }
    }

    /// Whether a sum over ranks is this class, or something that it adds up.
    pub fn has_sums(&self, id: Id) -> bool {
        self.graph[id].data.has_sums
    }

    /// Whether two classes are known to be equal.
    pub fn equal(&self, a: Id, b: Id) -> bool {
        self.graph.find(a) == self.graph.find(b)
    }

    /// For each operator of class `id` that `f` accepts: what `f` says of it, and its operands. Operators that are known to
    /// be the same count once, and a class is looked at as far as [`MOST`] says: before the graph is put in order again,
    /// there may be as many of them as the function has.
    pub fn inside<T>(&self, id: Id, f: impl Fn(&Op) -> Option<T>) -> Vec<(T, Vec<Id>)> {
        let mut found = vec![];
        let mut known: SmallVec<[&Term; 4]> = SmallVec::new();
        for term in self.graph[id].nodes.iter().take(MOST) {
            let same = |other: &&Term| {
                let pairs = || other.children.iter().zip(&term.children);
                other.matches(term) && pairs().all(|(a, b)| self.equal(*a, *b))
            };
            if let Some(said) = term.as_op().and_then(&f).filter(|_| !known.iter().any(same)) {
                found.push((said, term.children.to_vec()));
                known.push(term);
            }
        }
        found
    }

    /// A new operator; `None` if it does not take these operands.
    pub fn make(&mut self, op: impl Into<Op>, args: &[Id]) -> Option<Id> {
        let op = op.into();
        let types: Option<Vec<&TensorType>> = args.iter().map(|&a| self.ty_of(a)).collect();
        op.infer(&types?).ok()?;
        Some(self.graph.add(Term::op(op, args)))
    }

    /// A number of the type of this value's elements.
    pub fn number(&mut self, value: f64) -> Option<Id> {
        let dtype = self.ty.dtype;
        // Constants are f64; beyond this, they do not hold every integer.
        if !dtype.is_float() && value.abs() >= 9e15 {
            return None;
        }
        self.make(ir::ops::Constant { value: dtype.round(value), dtype }, &[])
    }

    /// `id` under the dims of this value: itself, or renamed.
    pub fn renamed(&mut self, id: Id) -> Option<Id> {
        self.viewed(id, self.ty.dims.to_vec())
    }

    /// `id` with these dims: itself, or reshaped.
    pub fn viewed(&mut self, id: Id, dims: Vec<Dim>) -> Option<Id> {
        if self.ty_of(id)?.dims.as_slice() == dims {
            return Some(id);
        }
        self.make(ir::ops::Reshape { dims }, &[id])
    }

    /// The operand of each operator in class `id` that only gives its dims other names.
    pub fn renames(&self, id: Id) -> Vec<Id> {
        let Some(ty) = self.ty_of(id) else { return vec![] };
        let reshapes = self.inside(id, |op| matches!(op, Op::Reshape(_)).then_some(()));
        let same_sizes = |x: &Id| self.ty_of(*x).is_some_and(|t| t.sizes() == ty.sizes());
        reshapes.into_iter().map(|(_, args)| args[0]).filter(same_sizes).collect()
    }

    pub fn names(ty: &TensorType) -> Vec<Name> {
        ty.dims.iter().map(|d| d.name.clone()).collect()
    }

    /// Whether class `id` has the type of this value.
    pub fn fits(&self, id: Id) -> bool {
        matches!(&self.graph[id].data.ty, Type::Tensor(t) if t == self.ty)
    }
}
