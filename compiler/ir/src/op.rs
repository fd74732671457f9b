//! What it takes to be an operator: one trait, implemented in the operator's own file and nowhere else.

use std::hash::Hash;

use smallvec::SmallVec;
use types::{Indices, Name, TensorType};

use crate::{Array, Builder, Factors, Mismatch, NodeId, PartialKind};

pub type NodeIds = SmallVec<[NodeId; 4]>;
pub type Types = SmallVec<[TensorType; 2]>;

/// What passes may ask of an operator without knowing its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No operands: constants, tables, iota.
    Source,
    /// Another type for the same bytes.
    View,
    /// Each result element depends on one element of each operand (operands broadcast by name).
    Elementwise,
    /// Elements move, none is computed.
    Move,
    /// Elements along some dims meet: they are summed, maximised ... away, added up or put in order.
    Reduce,
    /// Products summed over shared dims.
    Contract,
    /// A whole formula with an expansion; targets may have one kernel for it.
    Composite,
    /// Asks the other ranks, or who this rank is; in no kernel.
    Collective,
}

/// What a collective does; the semantics are those of the plan's instruction of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Collective {
    /// The rank's coordinate on an axis.
    Coordinate(Name),
    AllReduce {
        kind: PartialKind,
        axes: Vec<Name>,
        why: Name,
    },
    AllGather {
        axes: Vec<Name>,
        why: Name,
    },
    ReduceScatter {
        axes: Vec<Name>,
        why: Name,
    },
    AllToAll {
        axes: Vec<Name>,
        why: Name,
    },
    Permute {
        axes: Vec<Name>,
        shift: i64,
        why: Name,
    },
}

/// Why one of so many pieces is there.
pub fn piece(why: &str, count: usize) -> Name {
    format!("{why}, in {count} pieces").into()
}

/// The form of an operator's attributes in text IR: `matmul(%1, %0) "bd,fd->bf" {..} : f32[B:2, F:8]`.
pub struct TextForm {
    /// The attribute that stands alone before the others; empty if there is none.
    pub first: &'static str,
    /// Those left out where they say what the first result's type says.
    pub told: &'static [(&'static str, Told)],
}

/// A part of a result's type that an attribute repeats.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    Names,
    /// Names and sizes.
    Dims,
    /// The one dim it has.
    Dim,
    Dtype,
}

/// An operator's whole specification: shape rule, sharding factors, cost, gradient and meaning.
pub trait Semantics: Clone + Ord + Hash {
    /// The name in text IR.
    const NAME: &'static str;
    const CLASS: Class;
    const TEXT: TextForm = TextForm { first: "", told: &[] };

    /// Result types, or why the operands do not fit.
    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch>;

    /// The attributes that are names of dims. Operators that differ in these alone are equal up to names.
    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        SmallVec::new()
    }

    /// The attribute that says why the operator is there, for messages. It changes nothing of what the operator does.
    fn reason(&mut self) -> Option<&mut Name> {
        None
    }

    /// How dims of operands and results correspond.
    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let _ = self;
        Factors::by_name(args, results)
    }

    /// Floating-point operations; a multiply-add counts as two.
    fn flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        let _ = args;
        results.iter().fold(0, |n, r| n.saturating_add(r.elements() as u64))
    }

    /// Those of them in products of matrices, for which machines have units of their own.
    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        let _ = (args, results);
        0
    }

    /// What is done on single elements beside the products, in additions of the same time: an exponential is several.
    fn vector_ops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results).saturating_sub(self.matmul_flops(args, results))
    }

    /// Gradients of the operands: one entry each, `None` where the result does not depend on it or it is not wanted.
    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]>;

    /// The meaning, in f64; the interpreter rounds the results to their types.
    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]>;

    /// The same operator where one rank computes parts of these types: attributes that state sizes follow them.
    fn localize(&self, results: &[TensorType]) -> Self {
        let _ = results;
        self.clone()
    }

    /// One rank's part, for an operator that must know which part it is, or whose operands may be short. The default,
    /// `None`, is [`Semantics::localize`] over operands whose missing elements are zeros (the least number for maxima).
    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let _ = cx;
        None
    }

    /// Joins the results over two parts of a factor of kind [`crate::FactorKind::Merge`].
    fn merge(&self, b: &mut Builder, one: &[NodeId], other: &[NodeId]) -> Option<NodeIds> {
        let _ = (b, one, other);
        None
    }

    /// The operand that picks rows by their numbers, and which numbers are in range.
    fn indices(&self, args: &[&TensorType]) -> Option<(usize, Indices)> {
        let _ = args;
        None
    }

    /// One of so many pieces of it, where ranks exchange them one by one.
    #[must_use]
    fn describe_chunk(&self, count: usize) -> Self {
        let _ = count;
        self.clone()
    }

    /// What it asks of other ranks.
    fn collective(&self) -> Option<Collective> {
        None
    }

    /// A composite in simpler operators. It must agree with `eval`.
    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let _ = (b, args);
        None
    }
}

/// The operands and result types of one rank, for [`Semantics::partition`].
pub struct PartContext<'a> {
    pub b: &'a mut Builder,
    pub args: &'a [NodeId],
    pub results: &'a [TensorType],
    pub factors: &'a Factors,
    /// By factor; `None` where it is whole.
    pub cuts: &'a [Option<PartOf>],
    /// The operands with zeros for what is missing.
    pub masked: &'a [NodeId],
}

/// Which part of a factor a rank has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartOf {
    /// An i64: the logical index of its first element.
    pub start: NodeId,
    /// An i64: how many elements are there; the rest of the part is missing. `None` if no part is ever short.
    pub length: Option<NodeId>,
}

/// What a gradient rule sees. New nodes may use operands and results of the forward operator: those become residuals.
pub struct Vjp<'a> {
    pub b: &'a mut Builder,
    pub args: &'a [NodeId],
    pub results: &'a [NodeId],
    /// One for each result; `None` is zero. At least one is there.
    pub cotangents: &'a [Option<NodeId>],
    pub wanted: &'a [bool],
}

impl Vjp<'_> {
    /// The cotangent of an operator with one result.
    pub fn cotangent(&self) -> NodeId {
        self.cotangents.iter().flatten().next().copied().expect("a gradient rule runs only if a cotangent is there")
    }

    /// No gradients at all: integers, comparisons, sources.
    pub fn none(&self) -> SmallVec<[Option<NodeId>; 4]> {
        SmallVec::from_elem(None, self.args.len())
    }

    /// Notes that the gradient operator `name` has no gradient of its own: a train step differentiates once.
    pub fn refuse(&mut self, name: &str) -> SmallVec<[Option<NodeId>; 4]> {
        self.b.fail(Mismatch::new(format!("`{name}` cannot be differentiated: second derivatives are not supported")));
        self.none()
    }

    /// Sums `gradient` over the dims that operand `arg` was broadcast along.
    pub fn sum_to(&mut self, gradient: NodeId, arg: usize) -> NodeId {
        let ty = self.b.ty(self.args[arg]).clone();
        self.b.sum_to(gradient, &ty)
    }
}
