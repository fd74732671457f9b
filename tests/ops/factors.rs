//! Factors are what they claim: an operator on parts of its operands gives parts of its results.

use std::collections::BTreeSet;
use std::ops::Range;

use ir::{Array, Class, FactorKind, Factors, Op, dot, for_each_index};
use smallvec::SmallVec;
use types::{DType, TensorType};

use crate::cases::{self, Case};

/// The part of `whole` where factor `cut` lies in `range`.
fn part(whole: &Array, dims: &[SmallVec<[usize; 2]>], factors: &Factors, cut: usize, range: &Range<usize>) -> Array {
    // For each dim, the indices that stay.
    let kept: Vec<Vec<usize>> = whole
        .ty
        .dims
        .iter()
        .zip(dims)
        .map(|(dim, own)| {
            let Some(at) = own.iter().position(|&f| f == cut) else { return (0..dim.size).collect() };
            let minor: usize = own[at + 1..].iter().map(|&f| factors.factors[f].size).product();
            (0..dim.size).filter(|i| range.contains(&(i / minor % factors.factors[cut].size))).collect()
        })
        .collect();
    let mut ty = whole.ty.clone();
    for (dim, kept) in ty.dims.iter_mut().zip(&kept) {
        dim.size = kept.len();
    }
    let strides = whole.ty.strides();
    let mut data = vec![];
    for_each_index(&ty.sizes(), |index| {
        let at: Vec<usize> = index.iter().zip(&kept).map(|(&i, k)| k[i]).collect();
        data.push(whole.data[dot(&at, &strides)]);
    });
    Array::new(ty, data)
}

fn close(a: &Array, b: &Array) -> bool {
    let size = a.data.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
    a.ty == b.ty && a.data.iter().zip(&b.data).all(|(x, y)| x == y || (x - y).abs() <= 1e-12 * size)
}

/// Cuts each factor that may be cut; returns their kinds.
fn check(case: &Case, seed: u64) -> Vec<FactorKind> {
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
    let whole = case.op.eval(&args.iter().collect::<Vec<_>>(), &results);
    let mut cut_kinds = vec![];
    for (cut, factor) in factors.factors.iter().enumerate() {
        if factor.kind == FactorKind::Whole || factor.size < 2 {
            continue;
        }
        cut_kinds.push(factor.kind);
        // Ceil blocks: the last may be short.
        let middle = factor.size.div_ceil(2);
        let parts = [0..middle, middle..factor.size].map(|range| {
            let own: Vec<Array> =
                args.iter().zip(&factors.args).map(|(a, dims)| part(a, dims, &factors, cut, &range)).collect();
            let expected: Vec<Array> =
                whole.iter().zip(&factors.results).map(|(a, dims)| part(a, dims, &factors, cut, &range)).collect();
            let types: Vec<TensorType> = expected.iter().map(|a| a.ty.clone()).collect();
            let op: Op = case.op.local(&types);
            let inferred = op.infer(&own.iter().map(|a| &a.ty).collect::<Vec<_>>());
            let inferred = inferred.unwrap_or_else(|e| panic!("{}, {} cut: {e}", case.text(), factor.name));
            assert_eq!(inferred.as_slice(), types, "{}: types with {} cut", case.text(), factor.name);
            (op.eval(&own.iter().collect::<Vec<_>>(), &types), expected)
        });
        for (i, dims) in factors.results.iter().enumerate() {
            let has = dims.iter().any(|d| d.contains(&cut));
            let what = || format!("{}: result {i} with {} ({:?}) cut", case.text(), factor.name, factor.kind);
            if has || factor.kind == FactorKind::Parallel {
                for (found, expected) in &parts {
                    assert!(close(&found[i], &expected[i]), "{}", what());
                }
            } else {
                let [(a, _), (b, _)] = &parts;
                let join = |v: &[f64]| if factor.kind == FactorKind::Sum { v[0] + v[1] } else { v[0].max(v[1]) };
                assert!(close(&Array::zip(&results[i], &[&a[i], &b[i]], join), &whole[i]), "{}", what());
            }
        }
    }
    cut_kinds
}

#[test]
fn parts_of_operands_give_parts_of_results() {
    let (mut cut, mut kinds) = (BTreeSet::new(), vec![]);
    let cases: Vec<(u64, Case)> =
        (0..8).flat_map(|seed| cases::all(seed, DType::F32).into_iter().map(move |c| (seed, c))).collect();
    for (seed, case) in &cases {
        let found = check(case, *seed);
        if !found.is_empty() {
            cut.insert(case.op.name());
        }
        kinds.extend(found);
    }
    for kind in [FactorKind::Parallel, FactorKind::Sum, FactorKind::Max] {
        assert!(kinds.iter().filter(|k| **k == kind).count() > 20, "{kind:?} factors were hardly cut");
    }
    for (_, case) in cases.iter().filter(|(_, c)| c.op.class() != Class::Source) {
        assert!(cut.contains(case.op.name()), "`{}` was never cut", case.op.name());
    }
}
