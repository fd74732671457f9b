//! What a node of the e-graph is: an instruction without its place, over classes of equal values.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use egg::{Id, Language};
use ir::{Inst, Op, Type};
use smallvec::SmallVec;

#[derive(Clone, Debug)]
pub struct Term {
    pub kind: Arc<Kind>,
    pub children: SmallVec<[Id; 4]>,
}

#[derive(Debug)]
pub struct Kind {
    pub inst: Inst,
    /// Of all but operators, whose type follows from their operands.
    pub ty: Option<Type>,
    /// The instruction without its reason, if it has one: a collective is the same for whatever reason it is there.
    bare: Option<Inst>,
    hash: u64,
}

impl Term {
    pub fn new(inst: Inst, ty: &Type, children: impl IntoIterator<Item = Id>) -> Self {
        let ty = (!matches!(inst, Inst::Op(_))).then(|| ty.clone());
        Self { kind: Arc::new(Kind::new(inst, ty)), children: children.into_iter().collect() }
    }

    pub fn op(op: Op, children: &[Id]) -> Self {
        Self { kind: Arc::new(Kind::new(Inst::Op(op), None)), children: children.into() }
    }

    pub fn as_op(&self) -> Option<&Op> {
        match &self.kind.inst {
            Inst::Op(op) => Some(op),
            _ => None,
        }
    }
}

impl Kind {
    fn new(inst: Inst, ty: Option<Type>) -> Self {
        let mut bare = inst.clone();
        let reason = if let Inst::Op(op) = &mut bare { op.reason().map(std::mem::take) } else { None };
        let mut kind = Self { inst, ty, bare: reason.map(|_| bare), hash: 0 };
        let mut hasher = DefaultHasher::new();
        kind.identity().hash(&mut hasher);
        kind.hash = hasher.finish();
        kind
    }

    /// Operators are in the order of their names, so that an operator more in the table changes no plan.
    fn identity(&self) -> impl Ord + Hash + '_ {
        let inst = self.bare.as_ref().unwrap_or(&self.inst);
        let name = if let Inst::Op(op) = inst { op.name() } else { "" };
        (name, inst, &self.ty)
    }

    fn cmp(self: &Arc<Self>, other: &Arc<Self>) -> Ordering {
        if Arc::ptr_eq(self, other) { Ordering::Equal } else { self.identity().cmp(&other.identity()) }
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.children == other.children && self.matches(other)
    }
}

impl Eq for Term {}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.children.cmp(&other.children))
    }
}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash.hash(state);
        self.children.hash(state);
    }
}

impl Language for Term {
    type Discriminant = u64;

    fn discriminant(&self) -> u64 {
        self.kind.hash
    }

    fn matches(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kind, &other.kind)
            || (self.kind.hash == other.kind.hash && self.kind.identity() == other.kind.identity())
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}
