//! Passes that promise to keep the numbers: every result of every case is the same with `simplify` and without.

use std::path::Path;

use ir::{Input, Module, Precision, Value};

use crate::run;

fn results(text: &str, pipeline: &str) -> Option<Vec<Vec<f64>>> {
    let (module, _): (Module, _) = run::run(text, pipeline).ok()?;
    let program = &module.programs[0];
    let types = module.functions[program.function].param_types();
    let name = |input: &Input| match input {
        Input::Parameter(n) | Input::State(n) => n.to_string(),
        Input::Feed(f) => f.name.to_string(),
    };
    let mut inputs: Vec<Value> = program.inputs.iter().zip(types).map(|(i, ty)| run::sample(&name(i), ty)).collect();
    for (input, value) in program.inputs.iter().zip(&mut inputs) {
        // Second moments are squares.
        if name(input).starts_with("exp_avg_sq/") {
            (0..run::elements(value).len()).for_each(|i| *run::element(value, i) = run::element(value, i).abs());
        }
    }
    let results = run::interpret(&module, program, &inputs, Precision::Declared);
    Some(results.iter().map(run::elements).collect())
}

#[test]
fn simplify_keeps_every_bit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("passes/autodiff");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).expect("cases") {
        let path = entry.expect("a case").path();
        let text = std::fs::read_to_string(&path).expect("a case");
        for pipeline in
            ["autodiff", "autodiff | inline", "autodiff | optimizer | inline", "autodiff | optimizer{kind=sgd}"]
        {
            let (Some(before), Some(after)) =
                (results(&text, pipeline), results(&text, &format!("{pipeline} | simplify")))
            else {
                continue;
            };
            assert!(before == after, "{}: {pipeline}", path.display());
            compared += 1;
        }
    }
    assert!(compared >= 30, "{compared}");
}

/// Turns of the loss come in another order, those of gradients do not.
#[test]
fn fuse_keeps_gradients_to_the_bit() {
    for case in ["fuse/counted.ir", "fuse/plain.ir", "autodiff/recompute.ir"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("passes").join(case);
        let text = std::fs::read_to_string(&path).expect("a case");
        let before = results(&text, "autodiff | inline").expect("numbers");
        let after = results(&text, "autodiff | inline | fuse | simplify").expect("numbers");
        assert_eq!(before.len(), after.len());
        assert!((before[0][0] - after[0][0]).abs() <= 1e-6 * before[0][0].abs(), "{case}: {before:?} {after:?}");
        assert!(before[0][0] != 0.0 && before[1..] == after[1..], "{case}: {before:?} {after:?}");
    }
}
