//! Gradients of composed functions against finite differences, on every case of `autodiff` that trains.

use std::fs;
use std::path::Path;

use ir::{Input, Module, Output, Precision, Program, Value};

use crate::run;

fn cases() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("passes/autodiff");
    let mut paths: Vec<_> = fs::read_dir(folder).expect("cases").map(|e| e.expect("a case").path()).collect();
    paths.sort();
    let cases = paths.into_iter().filter(|p| p.extension().is_some_and(|e| e == "ir"));
    cases.map(|p| (p.display().to_string(), fs::read_to_string(&p).expect("a case"))).collect()
}

fn inputs(module: &Module, program: &Program) -> Vec<Value> {
    let types = module.functions[program.function].param_types();
    program.inputs.iter().zip(types).map(|(input, ty)| run::sample(name(input), ty)).collect()
}

fn name(input: &Input) -> &str {
    match input {
        Input::Parameter(n) | Input::State(n) => n,
        Input::Feed(f) => &f.name,
    }
}

/// `None` for the cases that are refused, whose snapshots show why.
fn differentiated(text: &str, pipeline: &str) -> Option<Module> {
    match run::run(text, pipeline) {
        Ok((module, _)) => Some(module),
        Err(e) => {
            let mistake = e.0.iter().any(|d| d.notes.iter().any(|n| n.contains("a mistake of the compiler")));
            assert!(!mistake, "{}", run::rendered(&e));
            None
        }
    }
}

/// Sum of all losses.
fn loss(module: &Module, program: &Program, inputs: &[Value]) -> f64 {
    let results = run::interpret(module, program, inputs, Precision::Exact);
    let losses = program.outputs.iter().zip(&results).filter(|(o, _)| matches!(o, Output::Loss(_)));
    losses.map(|(_, v)| run::elements(v)[0]).sum()
}

/// Each gradient of the differentiated program with its parameter's name.
fn gradients(module: &Module, inputs: &[Value], precision: Precision) -> Vec<(String, Vec<f64>)> {
    let program = &module.programs[0];
    let results = run::interpret(module, program, inputs, precision);
    let pairs = program.outputs.iter().zip(&results);
    pairs
        .filter_map(|(o, v)| match o {
            Output::Gradient(n) => Some((n.to_string(), run::elements(v))),
            _ => None,
        })
        .collect()
}

/// Compares every element of every gradient in `after` with a slope of the loss of `before`. Returns how many.
pub fn compare(before: &Module, after: &Module, case: &str) -> usize {
    let program = &before.programs[0];
    let inputs = inputs(before, program);
    let mut compared = 0;
    for (parameter, gradient) in gradients(after, &inputs, Precision::Exact) {
        let scale = gradient.iter().fold(1.0f64, |m, g| m.max(g.abs()));
        for (i, g) in gradient.iter().enumerate() {
            let at = |step: f64| {
                let mut moved = inputs.clone();
                for (input, value) in program.inputs.iter().zip(&mut moved) {
                    if matches!(input, Input::Parameter(n) if *n == *parameter) {
                        *run::element(value, i) += step;
                    }
                }
                loss(before, program, &moved)
            };
            // Four points: the error falls with the fourth power of the step.
            let h = 1e-5;
            let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
            assert!((slope - g).abs() < 1e-6 * scale, "{case}: {parameter}[{i}] is {g}, differences say {slope}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn agree_with_finite_differences() {
    for (path, text) in cases() {
        if let Some(after) = differentiated(&text, "autodiff") {
            assert!(compare(&run::parse(&text), &after, &path) > 0, "{path} has no gradients");
        }
    }
}

#[test]
fn do_not_depend_on_recompute() {
    for (path, text) in cases() {
        let mut values = vec![];
        for recompute in [false, true] {
            let mut module = run::parse(&text);
            for (_, f) in module.functions.iter_mut() {
                f.recompute = recompute;
            }
            let Some(after) = differentiated(&module.to_string(), "autodiff") else { continue };
            let inputs = inputs(&after, &after.programs[0]);
            values.push(gradients(&after, &inputs, Precision::Declared));
        }
        assert!(values.is_empty() || values[0] == values[1], "{path}: recompute changes gradients");
    }
}

#[test]
fn do_not_depend_on_inlining() {
    for (path, text) in cases() {
        let values: Vec<_> = ["autodiff", "inline | autodiff", "autodiff | inline"]
            .iter()
            .filter_map(|pipeline| differentiated(&text, pipeline))
            .map(|m| gradients(&m, &inputs(&m, &m.programs[0]), Precision::Exact))
            .collect();
        for other in &values {
            for ((name, a), (_, b)) in values[0].iter().zip(other) {
                let scale = a.iter().fold(1.0f64, |m, g| m.max(g.abs()));
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * scale), "{path}: {name}");
            }
        }
    }
}
