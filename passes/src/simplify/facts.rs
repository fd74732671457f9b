//! What is known of a class of equal values: their type, where they come from, and their numbers if those are constant.

use std::sync::Arc;

use diag::PlaceId;
use egg::{Analysis, DidMerge, EGraph, Id};
use ir::ops::{Broadcast, Constant, Table};
use ir::{Array, Class, Inst, Op, Type};
use types::{DType, TensorType};

use super::term::Term;

pub type Graph = EGraph<Term, Facts>;

/// State of the analysis: the place that new values get.
#[derive(Debug)]
pub struct Facts {
    pub place: PlaceId,
}

#[derive(Clone, Debug)]
pub struct Fact {
    pub ty: Type,
    pub place: PlaceId,
    pub known: Option<Known>,
    /// Whether it is a sum over ranks, or added up from what is one: rules that look for those need not walk far.
    pub has_sums: bool,
}

/// The elements of a constant.
#[derive(Clone, Debug)]
pub enum Known {
    /// All are this one.
    Same(f64),
    Each(Arc<Vec<f64>>),
}

/// Larger tables are quicker to compute in each step than to carry in the plan.
const MAX_BYTES: usize = 64 << 10;
/// ... but targets need not know f64: what is computed in it is folded whatever its size, up to this many elements.
const MAX_ELEMENTS_F64: usize = Table::MAX_BYTES / 4;
/// ... and with this much work for one operator.
const MAX_FLOPS: u64 = 1 << 24;

impl Analysis<Term> for Facts {
    type Data = Fact;

    fn make(graph: &mut Graph, term: &Term, _: Id) -> Fact {
        let place = graph.analysis.place;
        // A rule that builds nonsense gets a type that no value has, and is not believed.
        let ty = type_of(graph, term).unwrap_or(Type::Tuple(vec![]));
        let known = ty.tensor().and_then(|ty| constant(graph, term, ty)).filter(|k| k.is_plain(&ty));
        Fact { ty, place, known, has_sums: has_sums(graph, term) }
    }

    /// What a class knows already is not computed again; constants may be large.
    fn remake(graph: &mut Graph, term: &Term, id: Id) -> Fact {
        let known = &graph[id].data;
        if known.known.is_some() {
            Fact { has_sums: known.has_sums || has_sums(graph, term), ..known.clone() }
        } else {
            Self::make(graph, term, id)
        }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        let known = a.known.is_none() && b.known.is_some();
        let place = a.place == PlaceId::NONE && b.place != PlaceId::NONE;
        let sums = b.has_sums && !a.has_sums;
        let theirs = (b.known.is_none() && a.known.is_some()) || a.place != b.place || (a.has_sums && !b.has_sums);
        a.has_sums |= b.has_sums;
        if known {
            a.known = b.known;
        }
        if place {
            a.place = b.place;
        }
        DidMerge(known || place || sums, theirs)
    }

    /// Constants get a source, if one can hold them.
    fn modify(graph: &mut Graph, id: Id) {
        let Fact { ty: Type::Tensor(ty), known: Some(known), .. } = &graph[id].data else { return };
        let source = |t: &Term| match t.as_op() {
            Some(Op::Constant(_) | Op::Table(_)) => true,
            Some(Op::Broadcast(_)) => {
                matches!(known, Known::Same(_)) && graph[t.children[0]].data.ty.tensor().is_some_and(|t| t.rank() == 0)
            }
            _ => false,
        };
        if graph[id].nodes.iter().any(source) {
            return;
        }
        let (ty, known) = (ty.clone(), known.clone());
        let new = match known {
            Known::Same(value) => {
                let scalar = graph.add(Term::op(Constant { value, dtype: ty.dtype }.into(), &[]));
                if ty.rank() == 0 {
                    scalar
                } else {
                    graph.add(Term::op(Broadcast { dims: ty.dims.to_vec() }.into(), &[scalar]))
                }
            }
            Known::Each(data) if ty.bytes() <= Table::MAX_BYTES => {
                let table = Table { dims: ty.dims.to_vec(), dtype: ty.dtype, data: data.to_vec() };
                graph.add(Term::op(table.into(), &[]))
            }
            Known::Each(_) => return,
        };
        graph.union(id, new);
    }
}

impl Known {
    fn of(array: Array, dtype: DType) -> Self {
        let data: Vec<f64> = array.data.iter().map(|v| dtype.round(*v)).collect();
        // Bits, so that zeros of both signs stay apart.
        match data.first() {
            Some(first) if data.iter().all(|v| v.to_bits() == first.to_bits()) => Known::Same(*first),
            _ => Known::Each(Arc::new(data)),
        }
    }

    fn array(&self, ty: &TensorType) -> Array {
        match self {
            Known::Same(v) => Array::scalar(ty.clone(), *v),
            Known::Each(data) => Array::new(ty.clone(), data.to_vec()),
        }
    }

    /// Numbers that the text form and f64 can hold.
    fn is_plain(&self, ty: &Type) -> bool {
        let integer = ty.element().is_some_and(|t| !t.dtype.is_float());
        let plain = |v: &f64| !v.is_nan() && (!integer || v.abs() < 9e15);
        match self {
            Known::Same(v) => plain(v),
            Known::Each(data) => data.iter().all(plain),
        }
    }
}

fn has_sums(graph: &Graph, term: &Term) -> bool {
    match term.as_op() {
        Some(Op::AllReduce(_) | Op::ReduceScatter(_)) => true,
        Some(Op::Add(_) | Op::Reshape(_)) => term.children.iter().any(|&c| graph[c].data.has_sums),
        _ => false,
    }
}

fn type_of(graph: &Graph, term: &Term) -> Option<Type> {
    let op = match &term.kind.inst {
        Inst::Op(op) => op,
        _ => return term.kind.ty.clone(),
    };
    let args: Option<Vec<&TensorType>> = term.children.iter().map(|&c| graph[c].data.ty.tensor()).collect();
    let mut results = op.infer(&args?).ok()?;
    Some(match results.len() {
        1 => Type::Tensor(results.remove(0)),
        _ => Type::Tuple(results.into_iter().map(Type::Tensor).collect()),
    })
}

/// The numbers of `term` if those of its operands are constant.
fn constant(graph: &Graph, term: &Term, ty: &TensorType) -> Option<Known> {
    // What comes from other ranks, or depends on which rank this is, is known to no one here.
    let op = term.as_op().filter(|op| op.class() != Class::Collective)?;
    let types: Vec<&TensorType> = term.children.iter().filter_map(|&c| graph[c].data.ty.tensor()).collect();
    let known: Option<Vec<&Known>> = term.children.iter().map(|&c| graph[c].data.known.as_ref()).collect();
    let known = known?;
    // What the working type rounds to is not decided yet.
    if types.len() != known.len() || types.iter().any(|t| t.dtype == DType::Work) || ty.dtype == DType::Work {
        return None;
    }
    let same: Option<Vec<f64>> = known.iter().map(|k| if let Known::Same(v) = k { Some(*v) } else { None }).collect();
    match (op, same) {
        (Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Slice(_), Some(values)) => {
            return Some(Known::Same(values[0]));
        }
        (_, Some(values)) if op.class() == Class::Elementwise => {
            let scalars: Vec<Array> =
                types.iter().zip(values).map(|(t, v)| Array::scalar(TensorType::scalar(t.dtype), v)).collect();
            let args: Vec<&Array> = scalars.iter().collect();
            let result = op.eval(&args, &[TensorType::scalar(ty.dtype)]).into_iter().next()?;
            return Some(Known::of(result, ty.dtype));
        }
        _ => {}
    }
    let mut all = types.iter().copied().chain([ty]);
    let small = if all.clone().any(|t| t.dtype == DType::F64) {
        all.all(|t| t.elements() <= MAX_ELEMENTS_F64)
    } else {
        all.all(|t| t.bytes() <= MAX_BYTES)
    };
    if !small || ty.elements() == 0 || op.flops(&types, std::slice::from_ref(ty)) > MAX_FLOPS {
        return None;
    }
    let arrays: Vec<Array> = known.iter().zip(types).map(|(k, t)| k.array(t)).collect();
    let args: Vec<&Array> = arrays.iter().collect();
    let result = op.eval(&args, std::slice::from_ref(ty)).into_iter().next()?;
    Some(Known::of(result, ty.dtype))
}
