//! The builder reports the first mismatch; the rewriter copies what lives and infers types again.

use ir::ops::{Exp, Neg, Reshape};
use ir::{Builder, Function, Inst, Op, Rewriter, Type, parse};
use types::{DType, Dim};

use crate::cases::ty;

fn function(text: &str) -> Function {
    let module = parse(text).unwrap_or_else(|e| panic!("{e} at {:?}", e.at));
    module.functions[ir::Id::new(0)].clone()
}

const CHAIN: &str = "fn @f(%0: f32[A:2], %1: f32[A:2]) {
  %2 = exp(%0) : f32[A:2]
  %3 = sin(%1) : f32[A:2]
  %4 = neg(%2) : f32[A:2]
  %5 = cos(%4) : f32[A:2]
  return %4, %4
}
";

#[test]
fn what_nothing_reads_is_left_behind() {
    let from = function(CHAIN);
    let expected = "fn @f(%0: f32[A:2], %1: f32[A:2]) {
  %2 = exp(%0) : f32[A:2]
  %3 = neg(%2) : f32[A:2]
  return %3, %3
}
";
    assert_eq!(Rewriter::new(&from).finish().unwrap().to_string(), expected);
}

#[test]
fn a_node_becomes_what_it_is_set_to() {
    let from = function(CHAIN);
    let mut rewriter = Rewriter::new(&from);
    for id in from.nodes.ids() {
        if matches!(&from.nodes[id].inst, Inst::Op(Op::Exp(_))) {
            let args = rewriter.args(id);
            let first = rewriter.b.op(Neg {}, &args);
            let new = rewriter.b.op(Exp {}, &[first]);
            rewriter.set(id, new);
        }
    }
    let expected = "fn @f(%0: f32[A:2], %1: f32[A:2]) {
  %2 = neg(%0) : f32[A:2]
  %3 = exp(%2) : f32[A:2]
  %4 = neg(%3) : f32[A:2]
  return %4, %4
}
";
    assert_eq!(rewriter.finish().unwrap().to_string(), expected);
}

#[test]
fn types_follow_the_parameters() {
    let from = function(CHAIN);
    let bf16 = |_: usize, t: &Type| t.map(&|t| t.with_dtype(DType::BF16));
    let to = Rewriter::with_param_types(&from, bf16).finish().unwrap();
    assert!(to.nodes.iter().all(|(_, n)| n.ty.element().unwrap().dtype == DType::BF16), "{to}");
    // What no longer fits is an error, not a panic.
    let integers = |_: usize, t: &Type| t.map(&|t| t.with_dtype(DType::I64));
    let error = Rewriter::with_param_types(&from, integers).finish().unwrap_err();
    assert!(error.message.contains("`exp` of i64"), "{error}");
}

#[test]
fn the_first_mismatch_is_reported() {
    let mut b = Builder::new("f");
    let (x, y) = (b.param(ty(DType::F32, &[("A", 2)])), b.param(ty(DType::F32, &[("A", 3)])));
    let bad = b.add(x, y);
    let worse = b.op(Reshape { dims: vec![Dim::new("B", 7)] }, &[bad]);
    b.results(worse);
    assert!(b.finish().unwrap_err().message.contains("dim A is 2 in `f32[A:2]` and 3 in `f32[A:3]`"));
}

#[test]
fn sums_and_arrangements_reach_the_type_asked_for() {
    let from = ty(DType::F32, &[("A", 2), ("B", 3), ("C", 5)]);
    for to in [&[("C", 5), ("A", 2)][..], &[("B", 3), ("Z", 7)], &[], &[("C", 5), ("B", 3), ("A", 2)]] {
        let mut b = Builder::new("f");
        let x = b.param(from.clone());
        let to = ty(DType::F32, to);
        let y = b.sum_to(x, &to);
        assert_eq!(b.ty(y), &to);
        b.finish().unwrap();
    }
    let mut b = Builder::new("f");
    let x = b.param(from.clone());
    assert_eq!([b.sum_to(x, &from), b.arrange(x, &from), b.reshape(x, &from), b.cast(x, DType::F32)], [x; 4]);
}
