//! The sampler against its own definition: Euler steps over the model's forward.

use ir::{Array, Input, Interpreter, Module, Output, Precision, Type, Value};
use types::{DType, TensorType};

use crate::{evaluate, model, options};

/// Parameters from their initialisers, and for every other input what `given` says.
fn arguments(module: &Module, given: &mut dyn FnMut(&str, &TensorType) -> Array) -> Vec<Value> {
    let program = &module.programs[0];
    let types: Vec<Type> = module.functions[program.function].param_types().cloned().collect();
    let drawn = |name: &str, ty: &TensorType| {
        let mut numbers = vec![0.0f32; ty.elements()];
        module.parameters[name].record.init.fill(3, name, 0, &mut numbers);
        Array::new(ty.clone(), numbers.into_iter().map(f64::from).collect())
    };
    let value = |(input, ty): (&Input, &Type)| match (input, ty) {
        (Input::Parameter(name), Type::Tensor(ty)) => Value::Tensor(drawn(name, ty)),
        (Input::Parameter(name), Type::Stack { count, of }) => Value::Stack(vec![drawn(name, of); *count]),
        (Input::State(name), Type::Tensor(ty)) => Value::Tensor(given(name, ty)),
        (Input::Feed(feed), Type::Tensor(ty)) => Value::Tensor(given(&feed.name, ty)),
        other => panic!("no such input: {other:?}"),
    };
    program.inputs.iter().zip(&types).map(value).collect()
}

fn numbers(ty: &TensorType, scale: f64) -> Array {
    let wave = (0..ty.elements()).map(|i| DType::F32.round((i as f64 * scale).sin())).collect();
    Array::new(ty.clone(), wave)
}

#[test]
fn sampling_is_euler_steps_over_forward() {
    let text = model("wan2.2.mm");
    let settings = [("GUIDED", "1"), ("GUIDANCE_HIGH", "2.5")];
    let module = |task| {
        let evaluated = evaluate("wan2.2.mm", &text, &options(task, Some("tiny"), &settings));
        evaluated.unwrap_or_else(|e| panic!("{e}"))
    };
    let (sample, forward) = (module("sample"), module("forward"));
    assert_eq!(sample.runs, [("denoise".into(), 4)]);
    let call = |module: &Module, args: &[Value]| {
        Interpreter::new(module, Precision::Declared).call(module.programs[0].function, args)
    };

    let start = |ty: &TensorType| numbers(ty, 0.7);
    let (mut latent, mut expected): (Option<Array>, Option<Array>) = (None, None);
    for step in 0..4 {
        let args = arguments(&sample.module, &mut |name, ty| match name {
            "step" => Array::scalar(ty.clone(), f64::from(step)),
            "latent" => latent.clone().unwrap_or_else(|| start(ty)),
            "negative" => numbers(ty, 0.3),
            _ => numbers(ty, 0.2),
        });
        let results = call(&sample.module, &args);
        let outputs = &sample.module.programs[0].outputs;
        assert_eq!(
            *outputs,
            [Output::State("latent".into()), Output::Emit("latent".into()), Output::State("step".into())]
        );
        assert_eq!(results[2].tensor().data, [f64::from(step + 1)]);
        latent = Some(results[0].tensor().clone());

        let level = |i: i32| {
            let share = 1.0 - f64::from(i) / 4.0;
            3.0 * share / (1.0 + 2.0 * share)
        };
        let flow = |text: f64| {
            let args = arguments(&forward.module, &mut |name, ty| match name {
                "hidden_states" => {
                    let now = expected.clone().unwrap_or_else(|| start(ty));
                    Array::new(ty.clone(), now.data)
                }
                "timestep" => Array::scalar(ty.clone(), DType::F32.round(1000.0 * level(step))),
                _ => numbers(ty, text),
            });
            call(&forward.module, &args)[0].tensor().clone()
        };
        let (towards, away) = (flow(0.2), flow(0.3));
        let now = expected.take().unwrap_or_else(|| start(&towards.ty));
        let moved = now
            .data
            .iter()
            .zip(&towards.data)
            .zip(&away.data)
            .map(|((x, to), from)| x + (level(step + 1) - level(step)) * (from + 2.5 * (to - from)));
        expected = Some(Array::new(towards.ty.clone(), moved.collect()));
    }
    let (found, expected) = (latent.expect("steps"), expected.expect("steps"));
    for (a, b) in found.data.iter().zip(&expected.data) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }
}

#[test]
fn two_experts_share_the_steps() {
    let runs = |preset| {
        let evaluated = evaluate("wan2.2.mm", &model("wan2.2.mm"), &options("sample", Some(preset), &[]));
        let runs = evaluated.unwrap_or_else(|e| panic!("{e}")).runs;
        runs.iter().map(|(name, times)| format!("{name} x{times}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(runs("t2v-a14b"), "denoise_high x26, denoise_low x14");
    assert_eq!(runs("i2v-a14b"), "denoise_high x15, denoise_low x25");
    assert_eq!(runs("ti2v-5b"), "denoise x50");
}
