//! Means over counts from data: where nothing counts, the loss and all gradients are 0, whatever the micro-batches.

use ir::{Input, Module, Output, Precision, Value};

use crate::run;

/// The loss is a mean over the numbers that the mask lets through; `mask` says which operator lets them.
fn model(masked: &str) -> String {
    format!(
        "module \"means\"
param \"w\" : f32[H:2] {{\"init\":\"zeros\",\"trainable\":true}}
fn @train(%0: f32[B:2, H:2], %1: i64[B:2], %2: f32[H:2]) {{
  %3 = mul(%0, %2) : f32[B:2, H:2]
  %4 = reduce_sum(%3) {{\"dims\":[\"H\"]}} : f32[B:2]
  %5 = constant() {{\"value\":0.0,\"dtype\":\"i64\"}} : i64[]
  %6 = compare(%1, %5) {{\"kind\":\"not_equal\"}} : bool[B:2]
  %7 = cast(%6) {{\"to\":\"f32\"}} : f32[B:2]
  %8 = constant() {{\"value\":0.0,\"dtype\":\"f32\"}} : f32[]
  %9 = {masked} : f32[B:2]
  %10 = reduce_sum(%9) {{\"dims\":[\"B\"]}} : f32[]
  %11 = reduce_sum(%7) {{\"dims\":[\"B\"]}} : f32[]
  %12 = div(%10, %11) : f32[]
  return %12
}}
program \"train\" = @train {{
  in {{\"feed\":{{\"name\":\"x\"}}}}
  in {{\"feed\":{{\"name\":\"mask\"}}}}
  in {{\"parameter\":\"w\"}}
  out {{\"loss\":\"loss\"}}
}}
"
    )
}

const BY_PRODUCT: &str = "mul(%4, %7)";
const BY_CHOICE: &str = "select(%6, %4, %8)";

/// The loss and the gradient; inputs are cut into `count` micro-batches.
fn train(text: &str, pipeline: &str, x: &[f64], mask: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (module, _): (Module, _) = run::run(text, pipeline).expect("a pipeline");
    let program = &module.programs[0];
    let types = module.functions[program.function].param_types();
    let fill = |(input, ty): (&Input, &ir::Type)| {
        let mut value = run::sample("w", ty);
        let given = match input {
            Input::Feed(f) if f.name == "x" => x,
            Input::Feed(_) => mask,
            _ => return value,
        };
        given.iter().enumerate().for_each(|(i, v)| *run::element(&mut value, i) = *v);
        value
    };
    let inputs: Vec<Value> = program.inputs.iter().zip(types).map(fill).collect();
    let results = run::interpret(&module, program, &inputs, Precision::Exact);
    let of = |is: fn(&Output) -> bool| {
        program.outputs.iter().zip(&results).filter(|(o, _)| is(o)).flat_map(|(_, v)| run::elements(v)).collect()
    };
    (of(|o| matches!(o, Output::Emit(_))), of(|o| matches!(o, Output::Gradient(_))))
}

#[test]
fn a_mean_over_nothing_has_no_gradient() {
    let x: Vec<f64> = (1..13).map(f64::from).collect();
    for text in [BY_PRODUCT, BY_CHOICE].map(model) {
        for (pipeline, count) in [
            ("autodiff", 1),
            ("autodiff | inline | microbatches{count=3}", 3),
            ("autodiff | microbatches{count=3} | simplify", 3),
        ] {
            let (loss, gradient) = train(&text, pipeline, &x[..count * 4], &[0.0; 6][..count * 2]);
            assert_eq!((loss, gradient), (vec![0.0], vec![0.0; 2]), "{pipeline}");
        }
    }
}

/// One micro-batch of three counts nothing, another a half: the mean is over the three that count.
#[test]
fn a_micro_batch_may_count_nothing() {
    let x: Vec<f64> = (1..13).map(f64::from).collect();
    let mask = [1.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let (loss, gradient) = train(&model(BY_PRODUCT), "autodiff | microbatches{count=3}", &x, &mask);
    assert_eq!(gradient, [(1.0 + 3.0 + 11.0) / 3.0, (2.0 + 4.0 + 12.0) / 3.0]);
    assert!(loss[0].is_finite());
}

/// What loss is made of the sum %10, the count %11, the batch's size N, and the mask %7; it is %20.
const SPELLINGS: [(&str, &str); 15] = [
    (
        "over a multiple",
        "%12 = constant() {V:8.0} : f32[]\n  %13 = mul(%11, %12) : f32[]\n  %20 = div(%10, %13) : f32[]",
    ),
    ("over its negative", "%12 = neg(%11) : f32[]\n  %20 = div(%10, %12) : f32[]"),
    (
        "mean over mean",
        "%12 = constant() {V:N} : f32[]\n  %13 = div(%10, %12) : f32[]\n  %14 = div(%11, %12) : f32[]\n  %20 = div(%13, %14) : f32[]",
    ),
    (
        "mean by a constant's product over a count",
        "%12 = constant() {V:I} : f32[]\n  %13 = mul(%10, %12) : f32[]\n  %20 = div(%13, %11) : f32[]",
    ),
    ("sum over mean", "%12 = constant() {V:I} : f32[]\n  %13 = mul(%11, %12) : f32[]\n  %20 = div(%10, %13) : f32[]"),
    (
        "times a reciprocal",
        "%12 = constant() {V:1.0} : f32[]\n  %13 = div(%12, %11) : f32[]\n  %20 = mul(%13, %10) : f32[]",
    ),
    (
        "over a reciprocal of a reciprocal",
        "%12 = constant() {V:1.0} : f32[]\n  %13 = div(%12, %11) : f32[]\n  %14 = div(%12, %13) : f32[]\n  %20 = div(%10, %14) : f32[]",
    ),
    ("times its root's inverse", "%12 = rsqrt(%11) : f32[]\n  %20 = mul(%10, %12) : f32[]"),
    (
        "over its root",
        "%12 = sqrt(%11) : f32[]\n  %13 = cast(%12) {\"to\":\"f32\"} : f32[]\n  %20 = div(%10, %13) : f32[]",
    ),
    ("over two counts", "%12 = mul(%11, %11) : f32[]\n  %20 = div(%10, %12) : f32[]"),
    ("over one after another", "%12 = div(%10, %11) : f32[]\n  %13 = neg(%12) : f32[]\n  %20 = div(%13, %11) : f32[]"),
    (
        "times a power",
        "%12 = log(%11) : f32[]\n  %13 = constant() {V:-1.5} : f32[]\n  %14 = mul(%12, %13) : f32[]\n  %15 = exp(%14) : f32[]\n  %20 = mul(%10, %15) : f32[]",
    ),
    (
        "over at least one",
        "%12 = constant() {V:1.0} : f32[]\n  %13 = max(%11, %12) : f32[]\n  %20 = div(%10, %13) : f32[]",
    ),
    ("over one more", "%12 = constant() {V:1.0} : f32[]\n  %13 = add(%11, %12) : f32[]\n  %20 = div(%10, %13) : f32[]"),
    (
        "of all but those that are left out",
        "%12 = constant() {V:1.0} : f32[]\n  %13 = sub(%12, %7) : f32[B:2]\n  %14 = sub(%12, %13) : f32[B:2]\n  %15 = reduce_sum(%14) {\"dims\":[\"B\"]} : f32[]\n  %20 = div(%10, %15) : f32[]",
    ),
];

/// The model with such a loss, of a micro-batch of two samples or a batch of six.
fn spelled(loss: &str, batch: usize) -> String {
    let loss = loss
        .replace("V:N", &format!("V:{batch}.0"))
        .replace("V:I", &format!("V:{}", 1.0 / batch as f64))
        .replace("{V:", "{\"dtype\":\"f32\",\"value\":");
    let text = model(BY_PRODUCT).replace("%12 = div(%10, %11) : f32[]", &loss);
    text.replace("return %12", "return %20").replace("B:2", &format!("B:{batch}"))
}

/// However the count stands in the loss, micro-batches give what the whole batch gives, and 0 where nothing counts.
#[test]
fn spellings_of_a_mean() {
    let x: Vec<f64> = (1..13).map(f64::from).collect();
    for (name, loss) in SPELLINGS {
        for mask in [[1.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0.0; 6]] {
            let one = train(&spelled(loss, 6), "autodiff", &x, &mask);
            for tail in ["", " | simplify"] {
                let pipeline = format!("autodiff | inline | microbatches{{count=3}}{tail}");
                let parts = train(&spelled(loss, 2), &pipeline, &x, &mask);
                let near = |a: &f64, b: &f64| (a - b).abs() <= 1e-6 * a.abs();
                let same = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b));
                assert!(same(&one.0, &parts.0) && same(&one.1, &parts.1), "{name}: {mask:?}: {one:?}, {parts:?}");
            }
            let none = mask == [0.0; 6];
            assert!(one.1.iter().all(|g| g.is_finite() && (*g == 0.0) == none), "{name}: {one:?}");
        }
    }
}

/// A divisor that has a gradient is no count, and a loss that divides by one is no sum over samples.
#[test]
fn a_divisor_with_a_gradient_is_refused() {
    let text = model(BY_PRODUCT).replace("reduce_sum(%7) {\"dims\":[\"B\"]}", "reduce_sum(%4) {\"dims\":[\"B\"]}");
    let refused = run::run(&text, "autodiff | inline | microbatches{count=3}").err().expect("a loss that is no mean");
    let said = run::rendered(&refused);
    assert!(said.contains("`div` is taken of a number for all of them"), "{said}");
}

/// A quotient by a plain number from data keeps its value at 0: it is no mean.
#[test]
fn quotients_that_are_no_means_stay() {
    let text = model(BY_PRODUCT).replace("reduce_sum(%7) {\"dims\":[\"B\"]}", "reduce_max(%7) {\"dims\":[\"B\"]}");
    let (loss, _) = train(&text, "autodiff", &[1.0; 4], &[0.0; 2]);
    assert!(loss[0].is_nan(), "{loss:?}");
}
