//! The text form: what is printed reads back, and text that is no module is refused with a place, never a panic.

use diag::Sources;
use ir::ops::{Add, Constant, Mul, ReduceSum};
use ir::{
    Builder, Call, Feed, Function, FunctionKind, Input, Module, NodeId, Output, Parameter, ParameterInfo, Program,
    State, Type, parse, verify,
};
use proptest::prelude::*;
use types::{DType, Distribution, Init, Mesh, Runs, TensorType};

use crate::cases::{self, ty};

fn reads_back(module: &Module) {
    let text = module.to_string();
    let back = parse(&text).unwrap_or_else(|e| panic!("{e} at {:?} in\n{text}", e.at));
    assert_eq!(&back, module, "reads back otherwise:\n{text}");
    assert_eq!(back.to_string(), text);
}

#[test]
fn every_operator_reads_back() {
    for dtype in [DType::F32, DType::BF16, DType::Work, DType::F64] {
        for (i, case) in cases::all(5, dtype).into_iter().enumerate() {
            let mut b = Builder::new(format!("f{i}"));
            let args: Vec<NodeId> = case.operands.iter().map(|o| b.param(o.ty.clone())).collect();
            let id = b.op(case.op.clone(), &args);
            let results = b.results(id);
            let mut function = b.finish().unwrap();
            function.results = results.to_vec();
            let mut module = Module { name: "one operator".into(), ..Module::default() };
            module.functions.add(function);
            verify(&module).unwrap_or_else(|v| panic!("{}: {}", case.text(), v[0]));
            reads_back(&module);
        }
    }
}

#[test]
fn every_number_reads_back() {
    for value in [0.1, 1.0 / 3.0, -0.0, 1e-320, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, 3.0] {
        let mut b = Builder::new("f");
        let c = b.constant(value, DType::F64);
        let mut module = Module::default();
        b.function.results = vec![c];
        module.functions.add(b.finish().unwrap());
        let back = parse(&module.to_string()).unwrap();
        let ir::Inst::Op(ir::Op::Constant(Constant { value: found, .. })) =
            &back.functions[ir::Id::new(0)].nodes[c].inst
        else {
            panic!("no constant in\n{back}");
        };
        assert_eq!(found.to_bits(), value.to_bits(), "{value}");
    }
}

fn finished(b: Builder, results: &[NodeId]) -> Function {
    let mut function = b.finish().unwrap();
    function.results = results.to_vec();
    function
}

/// A module with something of everything: a stack of four blocks, a train-like program, random feeds, families.
pub fn module() -> Module {
    let mut module = Module { name: "toy \"model\" \u{c}\u{301}\n".into(), ..Module::default() };
    module.mesh = Mesh::new([("dp", 2), ("tp", 4)]).unwrap();
    let (x, w) = (ty(DType::F32, &[("B", 4), ("DIM", 3)]), ty(DType::F32, &[("DIM", 3)]));

    let mut b = Builder::new("Block::forward");
    b.function.recompute = true;
    let (px, pw) = (b.param(x.clone()), b.param(w.clone()));
    let y = b.op(Mul {}, &[px, pw]);
    let sum = b.reduce_sum(y, &["DIM".into()]);
    let block = module.functions.add(finished(b, &[y, sum]));

    let mut b = Builder::new("kernel.1");
    b.function.kind = FunctionKind::Kernel;
    let (a, c) = (b.param(w.clone()), b.param(w.clone()));
    let sum = b.add(a, c);
    let kernel = module.functions.add(finished(b, &[sum]));

    let mut b = Builder::new("step");
    let weights = b.param(Type::Stack { count: 4, of: w.clone() });
    let moment = b.param(w.clone());
    let data = b.param(x.clone());
    let call = Call { callee: block, times: Some(4), carried: 1, shared: 0, reverse: true };
    let callee = module.functions[block].clone();
    let out = b.call(call, &callee, &[data, weights]);
    let out = b.results(out);
    let sums = b.unchunk(out[1]);
    let cut = b.chunk(sums, 2);
    let joined = b.unchunk(cut);
    let total = b.reduce_sum(joined, &["B".into()]);
    let spread = b.repeat(moment, 4);
    let again =
        b.call(Call { carried: 0, reverse: false, times: Some(4), callee: block, shared: 1 }, &callee, &[data, spread]);
    let again = b.results(again);
    let callee = module.functions[kernel].clone();
    let next = b.call(Call::once(kernel), &callee, &[moment, moment]);
    let all = b.unchunk(again[1]);
    let step = module.functions.add(finished(b, &[weights, next, total, weights, all]));

    let record = ParameterInfo {
        init: Init::Random(Distribution::Normal { mean: 0.0, std: 0.02 }),
        trainable: true,
        aliases: vec!["old.{}.weight".into()],
        stored: Some(DType::BF16),
        tied: vec!["head.weight".into()],
        forms: vec![],
    };
    module.parameters.insert("blocks.{}.w".into(), Parameter { ty: Type::Stack { count: 4, of: w.clone() }, record });
    module.states.insert(
        "moment".into(),
        State { ty: w.into(), init: Init::Constant(0.1), of: Some((ir::Holds::Copy, "blocks.{}.w".into())) },
    );
    let draw = Some(Distribution::Uniform { lo: 0.0, hi: 1.0 });
    module.programs.push(Program {
        name: "train".into(),
        runs: Runs::Times(3),
        function: step,
        inputs: vec![
            Input::Parameter("blocks.{}.w".into()),
            Input::State("moment".into()),
            Input::Feed(Feed { name: "noise".into(), aliases: vec![], draw, indices: None }),
        ],
        outputs: vec![
            Output::Parameter("blocks.{}.w".into()),
            Output::State("moment".into()),
            Output::Loss("loss".into()),
            Output::Gradient("blocks.{}.w".into()),
            Output::Emit("sums".into()),
        ],
        logical: vec![],
    });
    module
}

#[test]
fn modules_read_back() {
    let module = module();
    verify(&module).unwrap_or_else(|v| panic!("{}", v[0]));
    reads_back(&module);
}

#[test]
fn errors_show_in_the_listing() {
    let text = "module \"m\"\n\nfn @f(%0: f32[A:2]) {\n  %1 = exq(%0) : f32[A:2]\n  return %1\n}\n";
    let error = parse(text).unwrap_err();
    let mut sources = Sources::default();
    let file = sources.add("m.ir", text);
    let shown = diag::render(&error.diagnostic(file).into(), &sources, false);
    let expected = "\
error: there is no operator `exq`
 --> m.ir:4:8
  |
4 |   %1 = exq(%0) : f32[A:2]
  |        ^^^^^^^
";
    assert_eq!(shown, expected);
}

#[test]
fn each_mistake_has_its_message() {
    let check = |body: &str, expected: &str| {
        let text = format!("fn @f(%0: f32[A:2]) {{\n{body}\n}}");
        let error = parse(&text).unwrap_err();
        assert!(error.message.contains(expected), "{body}: {error}");
    };
    check("%1 = exp(%7) : f32[A:2] return %1", "%7 is not declared before this line");
    check("%0 = exp(%0) : f32[A:2] return %0", "%0 is declared twice");
    check("%1 = exp(%0) : f32[A:2, A:3] return %1", "a dim named twice");
    check("%1 = slice(%0) {\"dim\":\"A\"} : f32[A:2] return %1", "missing field `start`");
    check("%1 = exp(%0) {\"fast\":true} : f32[A:2] return %1", "`exp` has no attribute `fast`");
    check("%1 = compare(%0, %0) {\"kind\":\"lesser\"} : bool[A:2] return %1", "unknown variant `lesser`");
    check("%1 = call @g(%0) : f32[A:2] return %1", "there is no function @g before this line");
    check("%1 = get 99999999999999999999(%0) : f32[A:2] return %1", "expected a whole number");
    check("%1 = exp(%0) return %1", "expected `:`, found `return %1`");
    check("%1 = slice(%0) {\"dim\":\"A\",\"start\":0,\"size\":0} : f32[A:0] return %1", "has no elements: A is 0");
    check("%1 = exp(%0) : f32[A:1099511627776, B:1099511627776] return %1", "more than 2^50 elements");
}

/// Reads `text`, whatever it is; a module that comes of it may be verified and printed.
fn survives(text: &str) {
    match parse(text) {
        Ok(module) => {
            if verify(&module).is_ok() {
                reads_back_in_order(&module);
            }
        }
        Err(error) => {
            assert!(error.at.start <= error.at.end && error.at.end <= text.len(), "{error:?}");
            assert!(text.get(error.at.clone()).is_some(), "{error:?} cuts a character");
            let mut sources = Sources::default();
            let file = sources.add("m.ir", text);
            assert!(!diag::render(&error.diagnostic(file).into(), &sources, false).is_empty());
        }
    }
}

/// Text may declare names in any order; printed once, they are in order.
fn reads_back_in_order(module: &Module) {
    let text = module.to_string();
    let back = parse(&text).unwrap_or_else(|e| panic!("{e} at {:?} in\n{text}", e.at));
    assert_eq!(back.to_string(), text);
}

/// Pieces that make garbage look like a module.
fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("fn @f(".to_string()),
        Just("module \"\"".to_string()),
        Just("program \"p\" = @f {".to_string()),
        Just("param \"p\" : ".to_string()),
        Just("f32[A:2]".to_string()),
        Just("f32[A:99999999999, B:99999999999]".to_string()),
        Just("18446744073709551615 x f32[]".to_string()),
        Just("reshape(%0) {\"dims\":[{\"name\":\"A\",\"size\":18446744073709551615}]}".to_string()),
        Just("pad(%0) {\"dim\":\"A\",\"before\":18446744073709551615,\"after\":1,\"value\":\"inf\"}".to_string()),
        Just("call @f x3 carry 9 share 18446744073709551615".to_string()),
        Just("unchunk(%0)".to_string()),
        Just("%0: ".to_string()),
        Just("%1 = ".to_string()),
        Just("exp(%0) : ".to_string()),
        Just("return %0".to_string()),
        Just("((((((((((((((((".to_string()),
        Just(") {".to_string()),
        Just("}".to_string()),
        "[ -~]{0,6}",
        "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(tokens in proptest::collection::vec(token(), 0..24)) {
        survives(&tokens.join(" "));
        survives(&tokens.concat());
    }

    #[test]
    fn damaged_modules_never_panic(from in 0usize..4000, len in 0usize..40, insert in token()) {
        let text = module().to_string();
        let boundary = |i: usize| (0..=i.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap();
        let (start, end) = (boundary(from % text.len()), boundary(from % text.len() + len));
        survives(&format!("{}{insert}{}", &text[..start], &text[end..]));
    }

    #[test]
    fn damaged_operators_never_panic(which in 0usize..1000, digit in 0usize..1000, to in "[0-9]{1,20}|-1|1e9|\"\"|null") {
        let cases = cases::all(2, DType::F32);
        let case = &cases[which % cases.len()];
        let mut b = Builder::new("f");
        let args: Vec<NodeId> = case.operands.iter().map(|o| b.param(o.ty.clone())).collect();
        let id = b.op(case.op.clone(), &args);
        let results = b.results(id);
        let text = finished(b, &results).to_string();
        let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|(i, _)| i).collect();
        let at = digits[digit % digits.len()];
        survives(&format!("{}{to}{}", &text[..at], &text[at + 1..]));
    }
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["(", "[", "{\"a\":", "1 x "] {
        survives(&format!("param \"p\" : {}", open.repeat(100_000)));
        survives(&format!("param \"p\" : f32[] {}", open.repeat(100_000)));
    }
}

#[test]
fn constants_and_additions_print_as_one_would_write_them() {
    let mut b = Builder::new("f");
    let x = b.param(ty(DType::F32, &[("A", 2)]));
    let c = b.constant(0.5, DType::F32);
    let y = b.op(Add {}, &[x, c]);
    let z = b.op(ReduceSum { dims: vec!["A".into()] }, &[y]);
    assert_eq!(
        finished(b, &[z]).to_string(),
        "fn @f(%0: f32[A:2]) {\n  %1 = constant() 0.5 : f32[]\n  %2 = add(%0, %1) : \
         f32[A:2]\n  %3 = reduce_sum(%2) [\"A\"] : f32[]\n  return %3\n}\n"
    );
    let _: TensorType = ty(DType::F32, &[]);
}

const TERSE: &str = r#"module "m"
mesh [tp:2]
hint {"sequence_parallel":{"dim":"L","of":"B","axes":["tp"]}}

fn @f(%0: f32[L:4, D:2], %1: f32[F:3, D:2]) {
  %2 = matmul(%0, %1) "ld,fd->lf" {"dtype":"f64"} : f64[L:4, F:3]
  %3 = cast(%2) : f32[L:4, F:3]
  %4 = transpose(%3) : f32[F:3, L:4]
  %5 = reshape(%4) : f32[R:12]
  %6 = slice(%5) "R" {"start":1,"size":4} : f32[R:4]
  %7 = iota() : i64[R:4]
  %8 = constant() "NaN" : f32[]
  %9 = broadcast(%8) : f32[R:4]
  %10 = compare(%6, %9) "less" : bool[R:4]
  %11 = reduce_sum(%6) ["R"] : f32[]
  return %7, %10, %11
}
"#;

#[test]
fn attributes_are_written_once_and_read_in_either_form() {
    let terse = ir::parse(TERSE).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(terse.to_string(), TERSE);
    let whole = TERSE
        .replace(r#""ld,fd->lf" {"dtype":"f64"}"#, r#"{"spec":"ld,fd->lf","dims":["L","F"],"dtype":"f64"}"#)
        .replace("cast(%2)", r#"cast(%2) {"to":"f32"}"#)
        .replace("transpose(%3)", r#"transpose(%3) {"order":["F","L"]}"#)
        .replace("reshape(%4)", r#"reshape(%4) {"dims":[{"name":"R","size":12}]}"#)
        .replace("iota()", r#"iota() {"dim":{"name":"R","size":4},"dtype":"i64"}"#)
        .replace(r#"hint {"sequence_parallel""#, r#"wish {"fill""#);
    let whole = ir::parse(&whole).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(whole.to_string(), TERSE);
}

#[test]
fn attributes_given_wrongly_are_told() {
    let refused = |from: &str, to: &str| {
        assert!(TERSE.contains(from), "{from}");
        ir::parse(&TERSE.replace(from, to)).expect_err(to).message
    };
    let alone = refused("cast(%2)", "cast(%2) 1.5");
    assert_eq!(alone, "`cast` has no attribute that stands alone; write {\"name\":1.5}");
    let twice = refused(r#""R" {"start""#, r#""R" {"dim":"R","start""#);
    assert_eq!(twice, "`dim` is given twice");
    let missing = refused(r#""less""#, "");
    assert!(missing.contains("kind"), "{missing}");
    // What is said against the type of the result stays, and the verifier compares the two.
    let text = TERSE.replace("cast(%2)", r#"cast(%2) {"to":"bf16"}"#);
    let other = ir::parse(&text).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(ir::verify(&other).is_err());
}
