//! How values depend on the samples of a batch: sample by sample, through a sum over all of them, or in another way.
//!
//! The factors of an operator tell: a dim of samples that every result keeps leaves samples apart, one that is summed
//! adds them up. What is linear in such a sum is a sum over samples itself; anything else is not.

use std::collections::BTreeSet;

use diag::PlaceId;
use ir::{Call, Factor, FactorKind, Factors, Function, Id, Inst, Module, Node, NodeId, Op, Type};
use smallvec::{SmallVec, smallvec};
use types::{MICROBATCHES, Name, TensorType};

use super::sized::{Growth, SizedConstants};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    /// The number 0.
    Zero,
    /// The same whatever the samples.
    None,
    /// A number that follows from the number of samples alone.
    Sized(Growth),
    /// Cut along these dims, each part follows from its own samples.
    Apart(BTreeSet<usize>),
    /// A sum over samples.
    Sum(Total),
    /// What makes it depend on all samples at once.
    Mixed(&'static str, PlaceId),
}

/// What the parts of a sum over samples, one for each micro-batch, make together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// Their sum. Each is a sum over so many elements, which nothing has divided it by yet.
    Sum { elements: u64 },
    /// Their mean.
    Mean,
    /// Sums and means of them were added.
    Both,
}

impl Total {
    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }

    /// A sum of so many of them.
    fn summed(self, count: u64) -> Self {
        match self {
            Self::Sum { elements } => Self::Sum { elements: elements.saturating_mul(count) },
            other => other,
        }
    }

    /// A product with a number that grows with the batch.
    fn times(self, growth: Growth) -> Option<Self> {
        match (self, growth) {
            (Self::Sum { .. }, Growth::Power(-1)) => Some(Self::Mean),
            (Self::Mean, Growth::Power(1)) => Some(Self::Sum { elements: 1 }),
            _ => None,
        }
    }

    /// What a quotient by a constant is: a mean, once the quotient is by all that was summed.
    fn over(self, divisor: Option<u64>) -> Self {
        match (self, divisor) {
            (Self::Sum { elements }, Some(by)) if by == elements => Self::Mean,
            (Self::Sum { elements }, Some(by)) if by > 1 && elements % by == 0 => Self::Sum { elements: elements / by },
            (other, _) => other,
        }
    }
}

pub type Results = SmallVec<[Samples; 1]>;

/// The dim of samples in the feeds.
pub struct Batch<'c> {
    pub name: Name,
    pub size: usize,
    /// Constants that the number of samples is in; where that is not known, the counts of means are told by their values.
    pub sized: Option<&'c SizedConstants>,
}

impl Samples {
    pub fn is_fed(&self) -> bool {
        !matches!(self, Self::Zero | Self::None | Self::Sized(_))
    }

    fn is_sized(&self) -> bool {
        matches!(self, Self::Sized(_))
    }

    fn is_sum(&self) -> bool {
        matches!(self, Self::Sum(_))
    }

    /// Where a value is one or the other, in turns of a loop.
    fn or(self, other: &Self, place: PlaceId) -> Self {
        match (self, other) {
            (Self::Mixed(op, at), _) | (_, &Self::Mixed(op, at)) => Self::Mixed(op, at),
            (Self::Zero, one) => one.clone(),
            (one, Self::Zero) => one,
            (Self::None, one) if !one.is_sum() && !one.is_sized() => one.clone(),
            (one, Self::None) if !one.is_sum() && !one.is_sized() => one,
            (Self::Sized(a), Self::Sized(b)) if a == *b => Self::Sized(a),
            (Self::Apart(a), Self::Apart(b)) => Self::Apart(a.union(b).copied().collect()),
            (Self::Sum(a), Self::Sum(b)) => Self::Sum(a.and(*b)),
            _ => Self::Mixed("call", place),
        }
    }
}

/// For each node and each of its results; of a stack, what holds for its elements. Nodes of `known` count as known
/// before a step.
pub fn of(
    module: &Module,
    function: &Function,
    batch: &Batch<'_>,
    params: &[Samples],
    known: &BTreeSet<usize>,
) -> Vec<Results> {
    let mut all: Vec<Results> = Vec::with_capacity(function.nodes.len());
    for (id, node) in function.nodes.iter() {
        if known.contains(&id.index()) {
            all.push(smallvec![Samples::None]);
            continue;
        }
        let args: Vec<Samples> =
            node.args.iter().map(|a| all[a.index()].first().cloned().unwrap_or(Samples::None)).collect();
        let results = match &node.inst {
            Inst::Param(i) => smallvec![params.get(*i).cloned().unwrap_or(Samples::None)],
            Inst::Get(i) => {
                let tuple = &all[node.args[0].index()];
                smallvec![tuple.get(*i).or(tuple.first()).cloned().unwrap_or(Samples::None)]
            }
            Inst::Call(call) => called(module, call, batch, args, node.place),
            Inst::Chunk { .. } | Inst::Unchunk | Inst::Repeat { .. } => args.into_iter().take(1).collect(),
            Inst::Op(op) => applied(function, node, op, batch, &args),
        };
        all.push(results);
    }
    all
}

fn called(module: &Module, call: &Call, batch: &Batch<'_>, mut args: Vec<Samples>, place: PlaceId) -> Results {
    let callee: (Id<Function>, &Function) = (call.callee, &module.functions[call.callee]);
    let carried = if call.times.is_some() { call.carried } else { 0 };
    loop {
        let inside = of(module, callee.1, batch, &args, &BTreeSet::new());
        let results: Results =
            callee.1.results.iter().map(|r| inside[r.index()].first().cloned().unwrap_or(Samples::None)).collect();
        let grown: Vec<Samples> =
            args.iter().zip(&results).take(carried).map(|(arg, result)| arg.clone().or(result, place)).collect();
        if grown[..] == args[..carried] {
            return results;
        }
        args[..carried].clone_from_slice(&grown);
    }
}

fn applied(function: &Function, node: &Node, op: &Op, batch: &Batch<'_>, args: &[Samples]) -> Results {
    let types: Vec<&TensorType> = node.args.iter().filter_map(|&a| function.ty(a).element()).collect();
    let results: Vec<TensorType> = node.ty.items().iter().filter_map(|ty| ty.element().cloned()).collect();
    let mixed = Samples::Mixed(op.name(), node.place);
    // The model says that each micro-batch has a number of its own.
    if matches!(op, Op::Reshape(_)) && results.iter().any(|ty| ty.position(MICROBATCHES).is_some()) {
        let own = if args.iter().any(Samples::is_fed) { Samples::Sum(Total::Mean) } else { Samples::None };
        return results.iter().map(|_| own.clone()).collect();
    }
    let every = |samples: Samples| -> Results { results.iter().map(|_| samples.clone()).collect() };
    if let Some(&Samples::Mixed(earlier, place)) = args.iter().find(|a| matches!(a, Samples::Mixed(..))) {
        // A count is compared with 0 where it divides; the quotient is what was written there.
        let guarded = place == node.place && matches!(earlier, "compare" | "select");
        return every(if guarded { mixed } else { Samples::Mixed(earlier, place) });
    }
    if !args.iter().any(Samples::is_fed) {
        if let Some(sized) = sized(node, op, batch, args) {
            return every(sized.map_or(mixed, Samples::Sized));
        }
        let zero = match op {
            Op::Constant(c) => c.value == 0.0,
            Op::Cast(_) | Op::Reshape(_) | Op::Broadcast(_) => args == [Samples::Zero],
            _ => false,
        };
        return every(if zero { Samples::Zero } else { Samples::None });
    }
    if args.iter().any(Samples::is_sum) {
        let spread = results.iter().any(|ty| ty.size_of(&batch.name).is_some());
        let total = linear(function, node, op, batch, args).filter(|_| !spread);
        return every(total.map_or(mixed, Samples::Sum));
    }
    // Dims of size 1 cannot be told apart by their sizes, but a dim of one sample keeps its name.
    if let (Op::Reshape(_), 1, [Samples::Apart(dims)], [ty], [new]) = (op, batch.size, args, &types[..], &results[..])
        && let Some(to) = new.position(&batch.name)
        && ty.position(&batch.name).is_some_and(|from| *dims == BTreeSet::from([from]))
    {
        return every(Samples::Apart([to].into()));
    }
    if args.iter().any(Samples::is_sized) {
        return every(mixed);
    }
    let factors = op.factors(&types, &results);
    let sets: Option<Vec<BTreeSet<usize>>> = args
        .iter()
        .enumerate()
        .filter_map(|(i, arg)| match arg {
            Samples::Apart(dims) => Some(cut(op, types[i], dims, factors.args.get(i)?, &factors, batch)),
            _ => None,
        })
        .collect();
    match sets.as_deref() {
        Some([first, rest @ ..]) if rest.iter().all(|other| other == first) => {
            (0..results.len()).map(|r| result(first, &factors, r).unwrap_or_else(|| mixed.clone())).collect()
        }
        _ if matches!(op, Op::Reshape(_)) && batch.size == 1 => every(Samples::Sum(Total::Sum { elements: 1 })),
        _ => every(mixed),
    }
}

/// What an operator makes of sums over samples, if it is linear in them and no operand has samples apart.
fn linear(function: &Function, node: &Node, op: &Op, batch: &Batch<'_>, args: &[Samples]) -> Option<Total> {
    let fed = args.iter().filter(|a| a.is_fed()).count();
    let totals: Vec<Total> =
        args.iter().filter_map(|a| if let Samples::Sum(t) = a { Some(*t) } else { None }).collect();
    if totals.len() < fed {
        return None;
    }
    let one = totals.first().copied()?;
    match op {
        Op::Cast(_) | Op::Reshape(_) | Op::Transpose(_) | Op::Broadcast(_) | Op::Neg(_) => Some(one),
        Op::ReduceSum(_) => Some(one.summed(summed_elements(function, node))),
        Op::Add(_) | Op::Sub(_) => {
            let all = totals.into_iter().reduce(Total::and)?;
            // A mean of numbers to each of which the same is added.
            (!args.iter().any(Samples::is_sized)).then_some(())?;
            (all == Total::Mean || !args.contains(&Samples::None)).then_some(all)
        }
        Op::Mul(_) if fed == 1 => {
            let other = usize::from(args[0].is_fed());
            if let Samples::Sized(growth) = args[other] {
                return one.times(growth);
            }
            let by = constant(function, node.args[other]).filter(|_| batch.sized.is_none());
            Some(one.over(by.filter(|x| *x != 0.0).and_then(|x| whole(1.0 / x))))
        }
        Op::Div(_) if fed == 1 && args[0].is_fed() => {
            if let Samples::Sized(growth) = args[1] {
                return one.times(inverse(growth));
            }
            let by = constant(function, node.args[1]).filter(|_| batch.sized.is_none());
            Some(one.over(by.and_then(whole)))
        }
        _ => None,
    }
}

/// How a number that no sample is in grows with the batch: `None` if it does not, `Some(None)` if no power of it tells.
fn sized(node: &Node, op: &Op, batch: &Batch<'_>, args: &[Samples]) -> Option<Option<Growth>> {
    if let Op::Constant(constant) = op {
        return batch.sized?.growth(node.place, constant.value).map(Some);
    }
    let of = |i: usize| if let Samples::Sized(growth) = &args[i] { Some(*growth) } else { None };
    let first = (0..args.len()).find_map(of)?;
    Some(match op {
        Op::Cast(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Neg(_) => Some(first),
        Op::Mul(_) if args.iter().filter(|a| a.is_sized()).count() == 1 => Some(first),
        Op::Div(_) => match (of(0), of(1)) {
            (Some(growth), None) => Some(growth),
            (None, Some(growth)) => Some(inverse(growth)),
            _ => None,
        },
        _ => None,
    })
}

fn inverse(growth: Growth) -> Growth {
    match growth {
        Growth::Power(power) => Growth::Power(-power),
        Growth::Other => Growth::Other,
    }
}

/// How many elements of its operand each element of a sum takes.
fn summed_elements(function: &Function, node: &Node) -> u64 {
    let elements = |ty: &Type| ty.element().map_or(1, |t| t.elements() as u64);
    elements(function.ty(node.args[0])) / elements(&node.ty).max(1)
}

fn constant(function: &Function, node: NodeId) -> Option<f64> {
    match &function.nodes[node].inst {
        Inst::Op(Op::Constant(c)) => Some(c.value),
        _ => None,
    }
}

/// A whole number, but for the rounding of its inverse to f32.
fn whole(x: f64) -> Option<u64> {
    ((x - x.round()).abs() <= x.abs() * 1e-7).then(|| x.round() as u64)
}

/// The factors of the dims of samples; `None` if one of them has none, or if samples do not come first in one.
fn cut(
    op: &Op,
    ty: &TensorType,
    dims: &BTreeSet<usize>,
    of_arg: &[SmallVec<[usize; 2]>],
    factors: &Factors,
    batch: &Batch<'_>,
) -> Option<BTreeSet<usize>> {
    let mut cut = BTreeSet::new();
    for &dim in dims {
        let all = of_arg.get(dim)?;
        if all.is_empty() && ty.dims[dim].size != 1 {
            return None;
        }
        // Where a dim is split, samples are the outermost part of it.
        let mut size = 1;
        for &f in all {
            if matches!(op, Op::Reshape(_)) && size >= batch.size && size > 1 {
                break;
            }
            size *= factors.factors[f].size;
            cut.insert(f);
        }
    }
    (!cut.is_empty()).then_some(cut)
}

fn result(cut: &BTreeSet<usize>, factors: &Factors, index: usize) -> Option<Samples> {
    let kind = |f: &usize| -> &Factor { &factors.factors[*f] };
    let dims = factors.results.get(index)?;
    let kept: BTreeSet<usize> = dims.iter().flatten().copied().filter(|f| cut.contains(f)).collect();
    if kept.is_empty() {
        let all = factors.factors.iter().filter(|f| f.kind == FactorKind::Sum).map(|f| f.size as u64);
        let elements = all.fold(1, u64::saturating_mul);
        let sums = cut.iter().all(|f| kind(f).kind == FactorKind::Sum);
        return sums.then_some(Samples::Sum(Total::Sum { elements }));
    }
    let whole = |f: &usize| !matches!(kind(f).kind, FactorKind::Parallel | FactorKind::Sum);
    // In a merged dim, a factor outside of the samples would part them.
    let inner = dims.iter().any(|of| {
        let first = of.iter().position(|f| cut.contains(f)).unwrap_or(0);
        of[..first].iter().any(|f| kind(f).size != 1)
    });
    if kept != *cut || cut.iter().any(whole) || inner {
        return None;
    }
    Some(Samples::Apart((0..dims.len()).filter(|&d| dims[d].iter().any(|f| cut.contains(f))).collect()))
}
