//! Factors are what they claim: the parts of an operator, as ranks compute and join them, are the whole.

use std::collections::BTreeSet;

use ir::{
    Array, Builder, Class, FactorKind, Factors, Function, Interpreter, Module, NodeId, PartContext, PartOf, Precision,
    Value, for_each_index,
};
use smallvec::SmallVec;
use types::{DType, TensorType};

use crate::cases::{self, Case};

type Dims = Vec<SmallVec<[usize; 2]>>;

/// What one rank has of a factor: ceil blocks, of which the last may be short or empty.
#[derive(Clone, Copy)]
struct Piece {
    factor: usize,
    block: usize,
    start: usize,
    length: usize,
    short: bool,
}

impl Piece {
    fn of(factors: &Factors, factor: usize, ranks: usize, rank: usize) -> Self {
        let size = factors.factors[factor].size;
        let block = size.div_ceil(ranks);
        let start = rank * block;
        Self { factor, block, start, length: size.saturating_sub(start).min(block), short: !size.is_multiple_of(ranks) }
    }
}

/// The size of a dim on one rank.
fn local_size(of: &[usize], size: usize, factors: &Factors, pieces: &[Piece]) -> usize {
    let piece = |f: usize| pieces.iter().find(|p| p.factor == f);
    if of.is_empty() {
        size
    } else {
        of.iter().map(|&f| piece(f).map_or(factors.factors[f].size, |p| p.block)).product()
    }
}

fn local_type(ty: &TensorType, dims: &Dims, factors: &Factors, pieces: &[Piece]) -> TensorType {
    let mut ty = ty.clone();
    for (dim, of) in ty.dims.iter_mut().zip(dims) {
        dim.size = local_size(of, dim.size, factors, pieces);
    }
    ty
}

/// Where the element of a rank is in the whole, or the factor along which it is missing.
fn place(index: &[usize], ty: &TensorType, dims: &Dims, factors: &Factors, pieces: &[Piece]) -> Result<usize, usize> {
    let mut at = 0;
    for ((&index, dim), of) in index.iter().zip(&ty.dims).zip(dims) {
        let (mut rest, mut minor, mut logical) = (index, 1, 0);
        for &f in of.iter().rev() {
            let size = factors.factors[f].size;
            let own = match pieces.iter().find(|p| p.factor == f) {
                None => rest % size,
                Some(p) if rest % p.block < p.length => p.start + rest % p.block,
                Some(_) => return Err(f),
            };
            rest /= local_size(&[f], size, factors, pieces);
            logical += own * minor;
            minor *= size;
        }
        at = at * dim.size + if of.is_empty() { index } else { logical };
    }
    Ok(at)
}

/// One rank's part of `whole`; `missing` says what stands where its last block is short.
fn part(
    whole: &Array,
    dims: &Dims,
    factors: &Factors,
    pieces: &[Piece],
    missing: impl Fn(FactorKind, DType) -> f64,
) -> Array {
    let ty = local_type(&whole.ty, dims, factors, pieces);
    let mut data = vec![];
    for_each_index(&ty.sizes(), |index| {
        data.push(match place(index, &whole.ty, dims, factors, pieces) {
            Ok(at) => whole.data[at],
            Err(f) => missing(factors.factors[f].kind, ty.dtype),
        });
    });
    Array::new(ty, data)
}

/// What no result may depend on.
fn anything(_: FactorKind, dtype: DType) -> f64 {
    match dtype {
        DType::Bool => 1.0,
        dtype if dtype.is_float() => f64::NAN,
        _ => 777.0,
    }
}

/// What operators see of missing elements: nothing that changes a sum or a maximum.
fn masked(kind: FactorKind, dtype: DType) -> f64 {
    match kind {
        FactorKind::Sum => 0.0,
        FactorKind::Max => f64::NEG_INFINITY,
        _ => anything(kind, dtype),
    }
}

fn run(b: Builder, results: &[NodeId], args: Vec<Array>) -> Vec<Array> {
    let mut function: Function = b.finish().unwrap();
    function.results = results.to_vec();
    let module = Module::default();
    let args: Vec<Value> = args.into_iter().map(Value::from).collect();
    let found = Interpreter::new(&module, Precision::Exact).run(&function, &args);
    found.into_iter().map(|v| v.tensor().clone()).collect()
}

/// An operator under test, and what the tests came across.
struct Check<'a> {
    case: &'a Case,
    factors: Factors,
    args: Vec<Array>,
    whole: Vec<Array>,
    seen: &'a mut Seen,
}

#[derive(Default)]
struct Seen {
    cut: BTreeSet<&'static str>,
    knows_its_part: BTreeSet<&'static str>,
    kinds: Vec<FactorKind>,
    short: usize,
    merged: usize,
}

impl Check<'_> {
    /// The results of one rank.
    fn rank(&mut self, pieces: &[Piece]) -> Vec<Array> {
        let (op, factors) = (&self.case.op, &self.factors);
        let each = |missing: fn(FactorKind, DType) -> f64| -> Vec<Array> {
            self.args.iter().zip(&factors.args).map(|(a, d)| part(a, d, factors, pieces, missing)).collect()
        };
        let mut arrays = [each(anything), each(masked)].concat();
        let results: Vec<TensorType> =
            self.whole.iter().zip(&factors.results).map(|(a, d)| local_type(&a.ty, d, factors, pieces)).collect();
        let mut b = Builder::new("rank");
        let nodes: Vec<NodeId> = arrays.iter().map(|a| b.param(a.ty.clone())).collect();
        let (args, masked) = nodes.split_at(self.args.len());
        let mut cuts: Vec<Option<PartOf>> = vec![None; factors.factors.len()];
        for piece in pieces {
            let number = |x: usize| Array::new(TensorType::scalar(DType::I64), vec![x as f64]);
            let start = b.param(TensorType::scalar(DType::I64));
            arrays.push(number(piece.start));
            let length = piece.short.then(|| b.param(TensorType::scalar(DType::I64)));
            arrays.extend(length.map(|_| number(piece.length)));
            cuts[piece.factor] = Some(PartOf { start, length });
        }
        let mut cx = PartContext { b: &mut b, args, results: &results, factors, cuts: &cuts, masked };
        let values = match op.partition(&mut cx) {
            Some(values) => {
                self.seen.knows_its_part.insert(op.name());
                values
            }
            None => {
                let all = b.op(op.localize(&results), masked);
                b.results(all)
            }
        };
        let found: Vec<TensorType> = values.iter().map(|&v| b.ty(v).clone()).collect();
        assert_eq!(found, results, "{}: types of a part", self.case.text());
        run(b, &values, arrays)
    }

    /// `None` where the operator has no rule for it.
    fn merge(&self, one: &[Array], other: &[Array]) -> Option<Vec<Array>> {
        let mut b = Builder::new("merge");
        let arrays = [one, other].concat();
        let nodes: Vec<NodeId> = arrays.iter().map(|a| b.param(a.ty.clone())).collect();
        let joined = self.case.op.merge(&mut b, &nodes[..one.len()], &nodes[one.len()..])?;
        let results = run(b, &joined, arrays).into_iter().zip(&self.whole);
        Some(results.map(|(r, w)| Array::new(r.ty.with_dtype(w.ty.dtype), r.data)).collect())
    }

    /// Merges the results of the ranks along a factor whose parts merge; others stay as they are.
    fn join(&mut self, factor: usize, ranks: Vec<Vec<Array>>) -> Vec<Vec<Array>> {
        if self.factors.factors[factor].kind != FactorKind::Merge || self.merge(&ranks[0], &ranks[1]).is_none() {
            return ranks;
        }
        self.seen.merged += 1;
        ranks.into_iter().reduce(|a, b| self.merge(&a, &b).unwrap()).into_iter().collect()
    }

    /// Compares what is there with the whole; for results without a factor, joins over it.
    fn compare(&self, i: usize, pieces: &[Piece], found: &Array) {
        let (whole, dims) = (&self.whole[i], &self.factors.results[i]);
        let size = whole.data.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
        let mut own = found.data.iter();
        for_each_index(&found.ty.sizes(), |index| {
            let found = *own.next().unwrap();
            let Ok(at) = place(index, &whole.ty, dims, &self.factors, pieces) else { return };
            let same = found == whole.data[at] || (found - whole.data[at]).abs() <= 1e-12 * size;
            let cut: Vec<_> = pieces.iter().map(|p| (&self.factors.factors[p.factor], p.start, p.length)).collect();
            assert!(same, "{}: result {i} with {cut:?} cut: {found}, not {}", self.case.text(), whole.data[at]);
        });
    }

    /// One factor among so many ranks.
    fn cut_one(&mut self, factor: usize, ranks: usize) {
        let pieces: Vec<Piece> = (0..ranks).map(|r| Piece::of(&self.factors, factor, ranks, r)).collect();
        self.seen.short += usize::from(pieces[0].short);
        let found = pieces.iter().map(|&p| self.rank(&[p])).collect();
        let found = self.join(factor, found);
        self.settle(factor, &pieces, &[], &found);
    }

    /// `found` by rank along `factor`, with `others` cut as well.
    fn settle(&self, factor: usize, pieces: &[Piece], others: &[Piece], found: &[Vec<Array>]) {
        for (i, dims) in self.factors.results.iter().enumerate() {
            let kind = self.factors.factors[factor].kind;
            if dims.iter().any(|d| d.contains(&factor)) || kind == FactorKind::Parallel {
                for (piece, values) in pieces.iter().zip(found) {
                    self.compare(i, &[&[*piece], others].concat(), &values[i]);
                }
                continue;
            }
            let join = |a: Array, b: &Vec<Array>| {
                let both = |v: &[f64]| if kind == FactorKind::Max { v[0].max(v[1]) } else { v[0] + v[1] };
                Array::zip(&a.ty.clone(), &[&a, &b[i]], both)
            };
            let joined = found[1..].iter().fold(found[0][i].clone(), join);
            self.compare(i, others, &joined);
        }
    }

    /// Two factors, each among two ranks; the second is one whose parts join.
    fn cut_two(&mut self, stays: usize, joins: usize) {
        for r in 0..2 {
            let other = Piece::of(&self.factors, stays, 2, r);
            let pieces = [0, 1].map(|r| Piece::of(&self.factors, joins, 2, r));
            let found = pieces.iter().map(|&p| self.rank(&[p, other])).collect();
            let found = self.join(joins, found);
            let kept = |dims: &Dims| dims.iter().any(|d| d.contains(&stays));
            // Results that lack the first are sums over it as well; they were compared with it alone.
            if self.factors.results.iter().all(kept) {
                self.settle(joins, &pieces, &[other], &found);
            }
        }
    }

    /// Cuts whatever may be cut.
    fn all(&mut self) {
        let may = |f: usize, ranks: usize| {
            let factor = &self.factors.factors[f];
            let tensors = self.factors.args.iter().chain(&self.factors.results);
            // Among several factors of a dim, only even blocks stand on borders.
            let alone = tensors.flatten().all(|of| !of.contains(&f) || of.len() == 1);
            factor.kind != FactorKind::Whole && factor.size > 1 && (alone || factor.size.is_multiple_of(ranks))
        };
        let count = self.factors.factors.len();
        let single: Vec<(usize, usize)> =
            (0..count).flat_map(|f| [2, 3].map(|n| (f, n))).filter(|&(f, n)| may(f, n)).collect();
        let pairs: Vec<(usize, usize)> = (0..count)
            .flat_map(|f| (0..count).map(move |g| (f, g)))
            .filter(|&(f, g)| f != g && may(f, 2) && may(g, 2))
            .collect();
        for (f, ranks) in single {
            self.seen.cut.insert(self.case.op.name());
            self.seen.kinds.push(self.factors.factors[f].kind);
            self.cut_one(f, ranks);
        }
        for (f, g) in pairs {
            self.cut_two(f, g);
        }
    }
}

fn check(case: &Case, seed: u64, seen: &mut Seen) {
    let (args, results) = (case.draw(seed), case.results());
    let factors = case.op.factors(&case.types(), &results);
    let types: Vec<&TensorType> = case.types().into_iter().chain(&results).collect();
    let all: Vec<_> = factors.args.iter().chain(&factors.results).collect();
    assert_eq!(all.len(), types.len(), "{}: a list of dims for each tensor", case.text());
    for (ty, dims) in types.iter().zip(&all) {
        assert_eq!(dims.len(), ty.rank(), "{}: factors for each dim of `{ty}`", case.text());
        for (dim, own) in ty.dims.iter().zip(*dims) {
            let size: usize = own.iter().map(|&f| factors.factors[f].size).product();
            assert!(own.is_empty() || size == dim.size, "{}: factors of {dim} make {size}", case.text());
        }
    }
    let mut b = Builder::new("whole");
    let nodes: Vec<NodeId> = args.iter().map(|a| b.param(a.ty.clone())).collect();
    let all = b.op(case.op.clone(), &nodes);
    let values = b.results(all);
    let whole = run(b, &values, args.clone());
    Check { case, factors, args, whole, seen }.all();
}

/// Windows are what cutting an attention makes: they are not cut again.
fn windowed(case: &Case) -> bool {
    match &case.op {
        ir::Op::Attention(op) => op.visibility.is_plain() && case.operands.len() == 5 + op.biases(),
        ir::Op::AttentionGrad(op) => {
            op.visibility.is_plain() && case.operands.len() == 8 + usize::from(op.bias.is_some())
        }
        ir::Op::AttentionBiasGrad(op) => op.visibility.is_plain() && case.operands.len() == 9,
        _ => false,
    }
}

#[test]
fn parts_of_operands_give_parts_of_results() {
    let mut seen = Seen::default();
    let cases: Vec<(u64, Case)> = (0..8)
        .flat_map(|seed| cases::all(seed, DType::F32).into_iter().map(move |c| (seed, c)))
        .filter(|(_, c)| c.op.class() != Class::Collective && !windowed(c))
        .collect();
    for (seed, case) in &cases {
        check(case, *seed, &mut seen);
    }
    for kind in [FactorKind::Parallel, FactorKind::Sum, FactorKind::Max, FactorKind::Merge] {
        assert!(seen.kinds.iter().filter(|k| **k == kind).count() > 20, "{kind:?} factors were hardly cut");
    }
    assert!(seen.merged > 50, "only {} cuts were merged", seen.merged);
    assert!(seen.short > 200, "only {} cuts left a short part", seen.short);
    for (_, case) in cases.iter().filter(|(_, c)| c.op.class() != Class::Source) {
        assert!(seen.cut.contains(case.op.name()), "`{}` was never cut", case.op.name());
    }
    let knowing = [
        "attention",
        "attention_bias_grad",
        "attention_grad",
        "gather",
        "grouped_matmul",
        "grouped_matmul_weight",
        "iota",
        "scatter_add",
        "write",
    ];
    assert!(seen.knows_its_part.iter().eq(&knowing), "{:?}", seen.knows_its_part);
}
