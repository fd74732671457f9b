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

/// A quotient by a plain number from data keeps its value at 0: it is no mean.
#[test]
fn quotients_that_are_no_means_stay() {
    let text = model(BY_PRODUCT).replace("reduce_sum(%7) {\"dims\":[\"B\"]}", "reduce_max(%7) {\"dims\":[\"B\"]}");
    let (loss, _) = train(&text, "autodiff", &[1.0; 4], &[0.0; 2]);
    assert!(loss[0].is_nan(), "{loss:?}");
}
