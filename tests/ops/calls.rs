//! Calls, repeated calls and stacks: their types and what the interpreter makes of them.

use ir::ops::Reshape;
use ir::{Array, Builder, Call, Function, Id, Interpreter, NodeId, Precision, Type, Value, parse, verify};
use types::{DType, Dim};

use crate::cases::ty;

fn run(text: &str, args: Vec<Value>) -> Vec<Value> {
    let module = parse(text).unwrap_or_else(|e| panic!("{e} at {:?}", e.at));
    verify(&module).unwrap_or_else(|v| panic!("{}", v[0]));
    let last = Id::new(module.functions.len() - 1);
    Interpreter::new(&module, Precision::Exact).call(last, &args)
}

fn vector(values: &[f64]) -> Value {
    Array::new(ty(DType::F32, &[("A", values.len())]), values.to_vec()).into()
}

fn stack(values: &[&[f64]]) -> Value {
    let array = |v: &&[f64]| Array::new(ty(DType::F32, &[("A", v.len())]), v.to_vec());
    Value::Stack(values.iter().map(array).collect())
}

/// x -> x w + s, and x itself: order matters.
const BLOCK: &str = "
fn @block(%0: f32[X:2], %1: f32[X:2], %2: f32[X:2]) {
  %3 = mul(%0, %2) : f32[X:2]
  %4 = add(%3, %1) : f32[X:2]
  return %4, %0
}
";

fn repeat(how: &str) -> Vec<Value> {
    let text = format!(
        "{BLOCK}
        fn @main(%0: f32[A:2], %1: f32[A:2], %2: 3 x f32[A:2]) {{
          %3 = call @block x3 carry 1 share 1{how}(%0, %1, %2) : (f32[A:2], 3 x f32[A:2])
          %4 = get 0(%3) : f32[A:2]
          %5 = get 1(%3) : 3 x f32[A:2]
          return %4, %5
        }}"
    );
    run(&text, vec![vector(&[1.0, 2.0]), vector(&[10.0, 0.0]), stack(&[&[2.0, 3.0], &[5.0, 1.0], &[-1.0, 2.0]])])
}

#[test]
fn a_repeated_call_carries_shares_and_stacks() {
    // 1 -> 12 -> 70 -> -60 and 2 -> 6 -> 6 -> 12.
    let expected = [vector(&[-60.0, 12.0]), stack(&[&[1.0, 2.0], &[12.0, 6.0], &[70.0, 6.0]])];
    assert_eq!(repeat(""), expected);
}

#[test]
fn reversed_it_takes_the_last_element_first_and_keeps_places() {
    // 1 -> 9 -> 55 -> 120 and 2 -> 4 -> 4 -> 12; what the last call saw stands first.
    let expected = [vector(&[120.0, 12.0]), stack(&[&[55.0, 4.0], &[9.0, 4.0], &[1.0, 2.0]])];
    assert_eq!(repeat(" reverse"), expected);
}

#[test]
fn a_plain_call_takes_the_names_of_the_caller() {
    let text = format!(
        "{BLOCK}
        fn @main(%0: f32[A:2], %1: f32[A:2]) {{
          %2 = call @block(%0, %1, %1) : (f32[A:2], f32[A:2])
          %3 = get 0(%2) : f32[A:2]
          return %3
        }}"
    );
    assert_eq!(run(&text, vec![vector(&[1.0, 2.0]), vector(&[3.0, 4.0])]), [vector(&[6.0, 12.0])]);
}

#[test]
fn chunks_are_pieces_along_the_first_dim() {
    let text = "fn @main(%0: f32[A:6], %1: f32[A:2]) {
      %2 = chunk 3(%0) : 3 x f32[A:2]
      %3 = unchunk(%2) : f32[A:6]
      %4 = repeat 2(%1) : 2 x f32[A:2]
      return %2, %3, %4
    }";
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let found = run(text, vec![vector(&x), vector(&[7.0, 8.0])]);
    let pieces = stack(&[&[1.0, 2.0], &[3.0, 4.0], &[5.0, 6.0]]);
    assert_eq!(found, [pieces, vector(&x), stack(&[&[7.0, 8.0], &[7.0, 8.0]])]);
}

#[test]
fn declared_precision_rounds_every_result() {
    let text = "fn @main(%0: f32[A:1]) {
      %1 = cast(%0) {\"to\":\"bf16\"} : bf16[A:1]
      %2 = cast(%1) {\"to\":\"f32\"} : f32[A:1]
      %3 = sub(%0, %2) : f32[A:1]
      return %3
    }";
    let module = parse(text).unwrap();
    let args = [vector(&[1.0 + 1.0 / 1024.0])];
    let run = |precision| Interpreter::new(&module, precision).call(Id::new(0), &args);
    assert_eq!(run(Precision::Declared), [vector(&[1.0 / 1024.0])]);
    assert_eq!(run(Precision::Exact), [vector(&[0.0])]);
}

fn callee(params: &[Type], results: impl Fn(&mut Builder, &[NodeId]) -> Vec<NodeId>) -> Function {
    let mut b = Builder::new("callee");
    let params: Vec<NodeId> = params.iter().map(|t| b.param(t.clone())).collect();
    let results = results(&mut b, &params);
    let mut function = b.finish().unwrap();
    function.results = results;
    function
}

fn tensor(dims: &[(&str, usize)]) -> Type {
    ty(DType::F32, dims).into()
}

/// The type of a call, or its mismatch.
fn typed(call: Call, callee: &Function, args: &[Type]) -> Result<String, String> {
    let args: Vec<&Type> = args.iter().collect();
    call.infer(callee, &args).map(|t| t.to_string()).map_err(|e| e.message)
}

#[test]
fn dims_of_results_take_the_names_of_operands() {
    let both = [tensor(&[("A", 2)]), tensor(&[("B", 3)])];
    let outer = callee(&both, |b, p| vec![b.mul(p[0], p[1])]);
    let once = || Call::once(Id::new(0));
    let call = |x: &str, y: &str| typed(once(), &outer, &[tensor(&[(x, 2)]), tensor(&[(y, 3)])]);
    assert_eq!(call("L", "M"), Ok("f32[L:2, M:3]".into()));
    assert_eq!(call("B", "A"), Ok("f32[B:2, A:3]".into()));
    // One name for both: the second keeps the callee's.
    assert_eq!(call("L", "L"), Ok("f32[L:2, B:3]".into()));
    assert_eq!(call("B", "B"), Ok("f32[B:2, B_:3]".into()));
    // A dim that the callee makes itself keeps its name, unless the caller's took it.
    let made = callee(&[tensor(&[("A", 6)])], |b, p| {
        vec![b.op(Reshape { dims: vec![Dim::new("A", 6), Dim::new("ONE", 1)] }, p)]
    });
    assert_eq!(typed(once(), &made, &[tensor(&[("L", 6)])]), Ok("f32[L:6, ONE:1]".into()));
    assert_eq!(typed(once(), &made, &[tensor(&[("ONE", 6)])]), Ok("f32[ONE:6, ONE_:1]".into()));
}

#[test]
fn operands_must_fit() {
    let x = tensor(&[("A", 2)]);
    let same = callee(&[x.clone(), x.clone()], |_, p| p.to_vec());
    let times = |carried, shared| Call { times: Some(3), carried, shared, ..Call::once(Id::new(0)) };
    let stack = Type::Stack { count: 3, of: ty(DType::F32, &[("A", 2)]) };
    let refused = |call: Call, args: &[Type], expected: &str| {
        let found = typed(call, &same, args).expect_err(expected);
        assert!(found.contains(expected), "`{expected}` is not in `{found}`");
    };
    let once = || Call::once(Id::new(0));
    refused(once(), std::slice::from_ref(&x), "takes 2 operands, here are 1");
    refused(once(), &[x.clone(), tensor(&[("A", 3)])], "operand 1 of @callee is `f32[A:3]`, expected `f32[A:2]`");
    refused(once(), &[x.clone(), ty(DType::BF16, &[("A", 2)]).into()], "is `bf16[A:2]`");
    refused(once(), &[x.clone(), stack.clone()], "is `3 x f32[A:2]`");
    refused(times(1, 0), &[x.clone(), x.clone()], "expected a stack of 3");
    refused(times(1, 0), &[stack.clone(), stack.clone()], "is `3 x f32[A:2]`");
    refused(times(2, 1), &[x.clone(), x.clone()], "cannot carry 2 values and share 1");
    refused(times(0, 2), &[x.clone(), tensor(&[("A", 5)])], "is `f32[A:5]`");
    assert_eq!(typed(times(1, 0), &same, &[x.clone(), stack.clone()]), Ok("(f32[A:2], 3 x f32[A:2])".into()));
    assert_eq!(typed(times(1, 1), &same, &[x.clone(), x.clone()]), Ok("(f32[A:2], 3 x f32[A:2])".into()));

    // Stacks agree in their count, sizes and element type.
    let takes = callee(std::slice::from_ref(&stack), |b, p| vec![b.unchunk(p[0])]);
    let of = |count: usize, dtype: DType, size: usize| Type::Stack { count, of: ty(dtype, &[("B", size)]) };
    assert_eq!(typed(once(), &takes, &[of(3, DType::F32, 2)]), Ok("f32[B:6]".into()));
    for other in [of(4, DType::F32, 2), of(3, DType::BF16, 2), of(3, DType::F32, 3)] {
        let found = typed(once(), &takes, std::slice::from_ref(&other)).expect_err("another stack");
        assert!(found.contains("expected `3 x f32[A:2]`"), "{found}");
    }

    let shrinks = callee(std::slice::from_ref(&x), |b, _| vec![b.constant(1.0, DType::F32)]);
    let found = typed(times(1, 0), &shrinks, std::slice::from_ref(&x)).expect_err("another type comes out");
    assert!(found.contains("carries `f32[A:2]` in and `f32[]` out"), "{found}");
    let stacked = callee(std::slice::from_ref(&stack), |_, p| p.to_vec());
    let found = typed(times(0, 1), &stacked, std::slice::from_ref(&stack)).expect_err("a stack of stacks");
    assert!(found.contains("would stack"), "{found}");
}
