//! Lowerings against what they lower: every operator, on the cases of the operators' own tests, and every segment of small models.

use emulator_ge::proto::ModelDef;
use emulator_ge::{Tensor, run};
use ir::{Array, Builder, Class, Function, FunctionKind, Interpreter, Precision, Value};
use prost::Message;
use target_ascend::check;
use target_ascend::lower::segment;

use tests::binaries::{command, model, run as run_to_end};
use types::DType;

use crate::cases::{self, Case, Values};

/// A kernel of this operator alone.
fn kernel(case: &Case) -> Function {
    let mut b = Builder::new("k");
    let params: Vec<_> = case.operands.iter().map(|o| b.param(o.ty.clone())).collect();
    let node = b.op(case.op.clone(), &params);
    let results = b.results(node).to_vec();
    let mut function = b.finish().expect("a kernel");
    function.results = results;
    function
}

/// Through bytes, as a reader gets it.
fn reread(model: &target_ascend::proto::ModelDef) -> ModelDef {
    ModelDef::decode(model.encode_to_vec().as_slice()).expect("it decodes")
}

fn tensor(array: &Array) -> Tensor {
    Tensor { shape: array.ty.sizes().to_vec(), data: array.data.clone() }
}

/// Half precision may round at other places, by a few of its last bits; f32 hardly.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 0.03,
        dtype if dtype.is_float() => 3e-5,
        _ => 0.0,
    }
}

fn compare(case: &Case, i: usize, want: &Array, got: &Tensor) {
    assert_eq!(want.ty.sizes().as_slice(), got.shape.as_slice(), "{}", case.text());
    let size = want.data.iter().filter(|v| v.is_finite()).fold(1.0, |a: f64, v| a.max(v.abs()));
    for (k, (&w, &g)) in want.data.iter().zip(&got.data).enumerate() {
        let near = w == g || (w - g).abs() <= tolerance(want.ty.dtype) * size;
        assert!(near, "{}: result {i}, element {k} is {g}, not {w}", case.text());
    }
}

fn check(float: DType, seed: u64) -> usize {
    let cases = cases::all(seed, float);
    let inside = |case: &&Case| case.op.class() != Class::Collective;
    let mut count = 0;
    for case in cases.iter().filter(inside) {
        let made = segment("k", &kernel(case)).unwrap_or_else(|e| panic!("{}: {e}", case.text()));
        check::model(&made.model).unwrap_or_else(|e| panic!("{}: {e:#?}", case.text()));
        let model = reread(&made.model);
        let operands = case.draw(seed);
        let got = run(&model, &operands.iter().map(tensor).collect::<Vec<_>>());
        let types = case.results();
        let want = case.op.eval(&operands.iter().collect::<Vec<_>>(), &types);
        assert_eq!(want.len(), got.len());
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            let data = want.data.iter().map(|&v| want.ty.dtype.round(v)).collect();
            compare(case, i, &Array::new(want.ty.clone(), data), got);
        }
        count += 1;
    }
    count
}

#[test]
fn lowerings_mean_what_their_operators_mean() {
    for seed in 0..6 {
        assert!(check(DType::F32, seed) > 150);
    }
}

#[test]
fn lowerings_mean_what_their_operators_mean_in_bf16() {
    for seed in 0..6 {
        assert!(check(DType::BF16, seed) > 150);
    }
}

/// Every segment of a model's train step, on random operands.
fn check_segments(words: &str, tolerance: f64) {
    let mut words = words.split_whitespace();
    let mut print = command("mmc");
    print.arg("ir").arg(model(words.next().expect("a model"))).args(words);
    let text = run_to_end(print.args(["--target", "ascend-910b3", "--after", "group"])).expect("prints").stdout;
    let module = ir::parse(&String::from_utf8(text).expect("text")).expect("the text reads back");
    let interpreter = Interpreter::new(&module, Precision::Declared);
    let kernels = module.functions.iter().filter(|(_, f)| f.kind == FunctionKind::Kernel);
    for (i, (_, kernel)) in kernels.enumerate() {
        let made = segment(&kernel.name, kernel).expect("a lowering");
        let draw = |(p, ty): (usize, &ir::Type)| {
            let ty = ty.tensor().expect("a tensor").clone();
            let values = if ty.dtype.is_float() { Values::Within(0.1, 1.0) } else { Values::Below(2) };
            cases::random(&cases::Operand { ty, values }, &format!("{i}.{p}"), 7)
        };
        let operands: Vec<Array> = kernel.param_types().enumerate().map(draw).collect();
        let model = reread(&made.model);
        let got = run(&model, &operands.iter().map(tensor).collect::<Vec<_>>());
        let want = interpreter.run(kernel, &operands.into_iter().map(Value::Tensor).collect::<Vec<_>>());
        assert_eq!(want.len(), got.len());
        for (r, (want, got)) in want.iter().map(Value::tensor).zip(&got).enumerate() {
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
            let off = norm(&mut want.data.iter().zip(&got.data).map(|(w, g)| w - g));
            let whole = norm(&mut want.data.iter().copied());
            assert!(off <= tolerance * whole.max(1.0), "{} result {r} is off by {off} of {whole}", kernel.name);
        }
    }
}

#[test]
fn segments_mean_what_their_kernels_mean() {
    check_segments("wan2.2.mm --preset tiny --dtype f32", 2e-5);
    check_segments("qwen3.mm --preset tiny --dtype f32", 2e-5);
    check_segments("wan2.2.mm --preset tiny --batch 2 --tp 2 --overlap 2 --dtype f32", 2e-5);
}

#[test]
fn segments_mean_what_their_kernels_mean_in_bf16() {
    check_segments("wan2.2.mm --preset tiny --dtype bf16 --tp 2", 0.03);
    check_segments("qwen3.mm --preset tiny --dtype bf16 --tp 2", 0.03);
}

/// ApplyAdamW writes over what it reads: where the guard is not finite, it writes what was there.
#[test]
fn an_update_that_is_not_finite_changes_nothing() {
    let cases = cases::all(3, DType::F32);
    let case = cases.iter().find(|case| case.op.name() == "adamw" && case.operands.len() == 8).expect("a case");
    let made = segment("k", &kernel(case)).expect("a lowering");
    let model = reread(&made.model);
    for guard in [f64::NAN, f64::INFINITY] {
        let mut operands = case.draw(5);
        operands[3].data.fill(guard);
        operands[7].data.fill(guard);
        let got = run(&model, &operands.iter().map(tensor).collect::<Vec<_>>());
        let want = case.op.eval(&operands.iter().collect::<Vec<_>>(), &case.results());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!((&got.data, &want.data), (&operands[i].data, &operands[i].data), "result {i} with {guard}");
        }
    }
}
