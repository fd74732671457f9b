//! Gradient rules against central finite differences in f64, and what they say at ties.

use ir::ops::*;
use ir::{Array, Builder, Class, Function, Interpreter, Mismatch, Module, NodeId, Precision, Type, Value};
use types::DType;

use crate::cases::{self, Case, Operand, Values, random, ty};
use crate::differentiate::gradients;

/// A function of the operands and a cotangent for each floating result, and which operands it differentiates.
fn backward(case: &Case) -> Result<(Function, Vec<usize>), Mismatch> {
    let mut b = Builder::new("backward");
    let args: Vec<NodeId> = case.operands.iter().map(|o| b.param(o.ty.clone())).collect();
    let id = b.op(case.op.clone(), &args);
    let seeds: Vec<(NodeId, NodeId)> =
        seeded(case).into_iter().map(|i| (b.results(id)[i], b.param(case.results()[i].clone()))).collect();
    let found = gradients(&mut b, &seeds, &args);
    let mut function = b.finish()?;
    let of: Vec<usize> = (0..args.len()).filter(|&i| found[i].is_some()).collect();
    function.results = found.into_iter().flatten().collect();
    Ok((function, of))
}

/// The results that take part in the loss.
fn seeded(case: &Case) -> Vec<usize> {
    let results = case.results();
    let float: Vec<usize> = (0..results.len()).filter(|&i| results[i].dtype.is_float()).collect();
    if case.op.name() == Attention::NAME { vec![0] } else { float }
}

use ir::Semantics;

fn run(function: &Function, args: &[Array]) -> Vec<Array> {
    let module = Module::default();
    let args: Vec<Value> = args.iter().cloned().map(Value::from).collect();
    let results = Interpreter::new(&module, Precision::Exact).run(function, &args);
    results.iter().map(|v| v.tensor().clone()).collect()
}

fn refuses(case: &Case) -> bool {
    // Partition, which makes what asks other ranks, comes after gradients are made.
    let made_late =
        case.op.class() == Class::Collective && ![Reshard::NAME, Coordinate::NAME].contains(&case.op.name());
    made_late
        || case.op.name().ends_with("_grad")
        || [Adamw::NAME, Window::NAME, GroupedMatmulWeight::NAME].contains(&case.op.name())
}

fn check(case: &Case, seed: u64) {
    let (function, of) = backward(case).unwrap_or_else(|e| panic!("{}: {e}", case.text()));
    let (mut args, results, seeded) = (case.draw(seed), case.results(), seeded(case));
    let expected: Vec<usize> = (0..args.len())
        .filter(|i| args[*i].ty.dtype.is_float() && !case.constant.contains(i) && !seeded.is_empty())
        .collect();
    assert_eq!(of, expected, "{}: which operands have gradients", case.text());

    let cotangent = |i: &usize| random(&Operand { ty: results[*i].clone(), values: Values::Normal }, "g", seed);
    let cotangents: Vec<Array> = seeded.iter().map(cotangent).collect();
    let all: Vec<Array> = args.iter().chain(&cotangents).cloned().collect();
    let found = run(&function, &all);

    let loss = |args: &[Array]| -> f64 {
        let results = case.op.eval(&args.iter().collect::<Vec<_>>(), &results);
        // Padding with an infinity is no part of a loss.
        let finite = |(a, b): (&f64, &f64)| if a.is_finite() { a * b } else { 0.0 };
        let dot = |(i, g): (&usize, &Array)| -> f64 { results[*i].data.iter().zip(&g.data).map(finite).sum() };
        seeded.iter().zip(&cotangents).map(dot).sum()
    };
    for (&operand, gradient) in of.iter().zip(&found) {
        let size = gradient.data.iter().fold(1.0, |m: f64, g| m.max(g.abs()));
        // A few elements of a large operand are enough; the stride is odd so that they are not one column.
        for at in (0..gradient.data.len()).step_by(gradient.data.len() / 24 * 2 + 1) {
            let (old, h) = (args[operand].data[at], 1e-5);
            let mut moved = |x: f64| {
                args[operand].data[at] = x;
                loss(&args)
            };
            let slope = (moved(old + h) - moved(old - h)) / (2.0 * h);
            args[operand].data[at] = old;
            let off = (slope - gradient.data[at]).abs();
            assert!(
                off <= 1e-7 * size,
                "{}: operand {operand}, element {at}: {} but finite differences say {slope}",
                case.text(),
                gradient.data[at]
            );
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    for seed in 0..8 {
        for case in cases::all(seed, DType::F32).iter().filter(|c| !refuses(c)) {
            check(case, seed);
        }
    }
}

#[test]
fn gradient_operators_refuse_to_be_differentiated() {
    let mut count = 0;
    for case in cases::all(1, DType::F32).iter().filter(|c| refuses(c)) {
        let error = backward(case).expect_err("no second derivatives").to_string();
        assert!(error.contains("second derivatives"), "{error}");
        count += 1;
    }
    assert!(count > 10);
}

#[test]
fn rules_do_no_more_than_is_wanted() {
    for case in cases::all(3, DType::F32).iter().filter(|c| !refuses(c) && c.operands.len() > 1) {
        for only in (0..case.operands.len()).filter(|i| case.operands[*i].ty.dtype.is_float()) {
            if case.constant.contains(&only) || seeded(case).is_empty() {
                continue;
            }
            let mut b = Builder::new("backward");
            let args: Vec<NodeId> = case.operands.iter().map(|o| b.param(o.ty.clone())).collect();
            let id = b.op(case.op.clone(), &args);
            let results = b.results(id);
            let mut cotangents = vec![None; results.len()];
            cotangents[0] = Some(b.param(case.results()[0].clone()));
            let wanted: Vec<bool> = (0..args.len()).map(|i| i == only).collect();
            let mut cx =
                ir::Vjp { b: &mut b, args: &args, results: &results, cotangents: &cotangents, wanted: &wanted };
            let found = case.op.vjp(&mut cx);
            assert!(found[only].is_some(), "{}: operand {only} is wanted", case.text());
            // Elementwise operators do each operand's part on its own.
            if case.op.class() == Class::Elementwise && !case.op.name().starts_with("swiglu") {
                assert_eq!(found.iter().flatten().count(), 1, "{}: only operand {only} is wanted", case.text());
            }
            b.finish().unwrap_or_else(|e| panic!("{}: {e}", case.text()));
        }
    }
}

fn tied(op: impl Into<ir::Op>, operands: &[&[f64]], cotangent: &[f64]) -> Vec<Vec<f64>> {
    let operand = |x: &&[f64]| Operand { ty: ty(DType::F32, &[("A", x.len())]), values: Values::Normal };
    let case = Case { op: op.into(), operands: operands.iter().map(operand).collect(), constant: vec![] };
    let (function, _) = backward(&case).unwrap();
    let mut args: Vec<Array> =
        operands.iter().zip(&case.operands).map(|(x, o)| Array::new(o.ty.clone(), x.to_vec())).collect();
    args.push(Array::new(case.results()[0].clone(), cotangent.to_vec()));
    run(&function, &args).into_iter().map(|a| a.data).collect()
}

/// As torch.max(a, b), torch.amax and torch.abs have it.
#[test]
fn ties_share_the_gradient() {
    let (a, b) = ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]);
    assert_eq!(tied(Max {}, &[&a, &b], &[10.0, 10.0, 10.0]), [[5.0, 0.0, 10.0], [5.0, 10.0, 0.0]]);
    assert_eq!(tied(Min {}, &[&a, &b], &[10.0, 10.0, 10.0]), [[5.0, 10.0, 0.0], [5.0, 0.0, 10.0]]);
    assert_eq!(tied(ReduceMax { dims: vec!["A".into()] }, &[&[4.0, 1.0, 4.0]], &[10.0]), [[5.0, 0.0, 5.0]]);
    assert_eq!(tied(Abs {}, &[&[-2.0, 0.0, 2.0]], &[10.0, 10.0, 10.0]), [[-10.0, 0.0, 10.0]]);
}

#[test]
fn the_log_sum_exp_of_attention_is_not_differentiated() {
    let op = Attention {
        q_len: "L".into(),
        kv_len: "L".into(),
        heads: "H".into(),
        kv_heads: "H".into(),
        head: "D".into(),
        causal: true,
        scale: 1.0,
        visibility: Visibility::default(),
        bias: None,
    };
    let mut b = Builder::new("backward");
    let qkv = [(); 3].map(|()| b.param(ty(DType::F32, &[("L", 3), ("H", 1), ("D", 2)])));
    let id = b.op(op, &qkv);
    let results = b.results(id);
    let seed = b.param(Type::Tensor(b.ty(results[1]).clone()));
    gradients(&mut b, &[(results[1], seed)], &qkv);
    assert!(b.finish().is_err_and(|e| e.message.contains("log-sum-exp")));
}
