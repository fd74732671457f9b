//! Five steps of training against the optimisers' formulas, written out once more in plain f64.

use std::collections::HashMap;
use std::f64::consts::PI;

use ir::{Input, Module, Output, Precision, Type, Value};

use crate::run;

/// torch.optim.AdamW and SGD, clip_grad_norm_, and the schedules of transformers.
#[derive(Clone, Copy)]
struct Reference {
    sgd: bool,
    lr: f64,
    weight_decay: f64,
    clip: f64,
    factor: fn(f64) -> f64,
}

const BETA: [f64; 2] = [0.9, 0.999];
const PLAIN: Reference = Reference { sgd: false, lr: 1e-4, weight_decay: 0.01, clip: 1.0, factor: |_| 1.0 };

#[derive(Clone, Default)]
struct Moments(Vec<f64>, Vec<f64>);

impl Reference {
    fn step(&self, step: usize, p: &mut [f64], g: &[f64], coefficient: f64, moments: &mut Moments) {
        let lr = self.lr * (self.factor)(step as f64);
        moments.0.resize(p.len(), 0.0);
        moments.1.resize(p.len(), 0.0);
        let correction = BETA.map(|b| 1.0 - b.powi(step as i32 + 1));
        for (i, p) in p.iter_mut().enumerate() {
            let g = g[i] * coefficient;
            if self.sgd {
                *p -= lr * (g + self.weight_decay * *p);
                continue;
            }
            let (m, v) = (&mut moments.0[i], &mut moments.1[i]);
            *p *= 1.0 - lr * self.weight_decay;
            *m = BETA[0] * *m + (1.0 - BETA[0]) * g;
            *v = BETA[1] * *v + (1.0 - BETA[1]) * g * g;
            let (m, v) = (*m / correction[0], *v / correction[1]);
            *p -= lr * m / (v.sqrt() + 1e-8);
        }
    }
}

/// The initial inputs of the program: samples, and zeros for state.
fn start(module: &Module) -> Vec<Value> {
    let program = &module.programs[0];
    let types = module.functions[program.function].param_types();
    let zeros = |ty: &Type| {
        let mut value = run::sample("", ty);
        (0..run::elements(&value).len()).for_each(|i| *run::element(&mut value, i) = 0.0);
        value
    };
    let one = |(input, ty): (&Input, &Type)| match input {
        Input::Parameter(n) => run::sample(n, ty),
        Input::Feed(f) => run::sample(&f.name, ty),
        Input::State(_) => zeros(ty),
    };
    program.inputs.iter().zip(types).map(one).collect()
}

fn check(case: &str, options: &str, reference: &Reference) {
    let path = format!("{}/passes/autodiff/{case}.ir", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("a case");
    let (module, _) = run::run(&text, &format!("autodiff | optimizer{options} | inline")).expect("a pipeline");
    let program = &module.programs[0];
    let mut inputs = start(&module);
    let mut expected: HashMap<String, Vec<f64>> = HashMap::new();
    for (input, value) in program.inputs.iter().zip(&inputs) {
        if let Input::Parameter(n) = input {
            expected.insert(n.to_string(), run::elements(value));
        }
    }
    let mut moments: HashMap<String, Moments> = HashMap::new();
    for step in 0..5 {
        let results = run::interpret(&module, program, &inputs, Precision::Exact);
        let gradients: Vec<(String, Vec<f64>)> = (program.outputs.iter().zip(&results))
            .filter_map(|(o, v)| match o {
                Output::Gradient(n) => Some((n.to_string(), run::elements(v))),
                _ => None,
            })
            .collect();
        let norm = gradients.iter().flat_map(|(_, g)| g).map(|g| g * g).sum::<f64>().sqrt();
        let coefficient = if reference.clip > 0.0 { (reference.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        for (name, g) in &gradients {
            let p = expected.get_mut(name).expect("a parameter");
            reference.step(step, p, g, coefficient, moments.entry(name.clone()).or_default());
        }
        for (output, value) in program.outputs.iter().zip(&results) {
            let input = match output {
                Output::Parameter(n) => Input::Parameter(n.clone()),
                Output::State(n) => Input::State(n.clone()),
                _ => continue,
            };
            if let Output::Parameter(n) = output {
                for (i, (a, b)) in run::elements(value).iter().zip(&expected[n.as_str()]).enumerate() {
                    let close = (a - b).abs() < 1e-13 * b.abs().max(1.0);
                    assert!(close, "{case}{options}: {n}[{i}] is {a} after step {step}, expected {b}");
                }
            }
            let at = program.inputs.iter().position(|i| *i == input).expect("what is written is read");
            inputs[at] = value.clone();
        }
    }
    let step = program.inputs.iter().position(|i| *i == Input::State("step".into())).expect("a step counter");
    assert_eq!(run::elements(&inputs[step]), [5.0]);
}

#[test]
fn adamw() {
    for case in ["linear", "blocks", "stacks"] {
        check(case, "", &PLAIN);
        check(case, "{clip=0}", &Reference { clip: 0.0, ..PLAIN });
        let strong = Reference { lr: 0.1, weight_decay: 0.5, clip: 0.01, ..PLAIN };
        check(case, "{lr=0.1,weight_decay=0.5,clip=0.01}", &strong);
    }
}

#[test]
fn sgd() {
    for case in ["linear", "blocks"] {
        check(case, "{kind=sgd,lr=0.01}", &Reference { sgd: true, lr: 0.01, ..PLAIN });
        let bare = Reference { sgd: true, weight_decay: 0.0, clip: 0.0, ..PLAIN };
        check(case, "{kind=sgd,weight_decay=0,clip=0}", &bare);
    }
}

#[test]
fn schedules() {
    check("linear", "{warmup=3}", &Reference { factor: |t| (t / 3.0).min(1.0), ..PLAIN });
    let half = |t: f64| 0.5 * (1.0 + (PI * t / 4.0).cos());
    check("linear", "{schedule=cosine,total=4}", &Reference { factor: half, ..PLAIN });
    let risen = |t: f64| if t < 2.0 { t / 2.0 } else { 0.5 * (1.0 + (PI * (t - 2.0) / 2.0).cos()) };
    check("linear", "{schedule=cosine,warmup=2,total=4}", &Reference { factor: risen, ..PLAIN });
    // After `total` the end value holds; transformers' own formula would rise again.
    let ended = |t: f64| 0.5 * (1.0 + (PI * t.min(2.0) / 2.0).cos());
    check("linear", "{schedule=cosine,total=2}", &Reference { factor: ended, ..PLAIN });
    let risen_and_ended = |t: f64| if t < 1.0 { t } else { 0.5 * (1.0 + (PI * (t - 1.0).min(2.0) / 2.0).cos()) };
    check("linear", "{schedule=cosine,warmup=1,total=3}", &Reference { factor: risen_and_ended, ..PLAIN });
}

/// Whatever is not finite, be it one number of a feed, changes nothing: no parameter, moment or copy, and not the step.
#[test]
fn a_step_that_is_not_finite_updates_nothing() {
    for case in ["linear", "blocks", "stacks"] {
        for options in ["", "{clip=0}", "{kind=sgd,lr=0.1}", "{kind=sgd,lr=0.1,weight_decay=0,clip=0}"] {
            for (number, simplify) in [(f64::NAN, ""), (f64::INFINITY, " | simplify"), (1e30, " | simplify")] {
                let path = format!("{}/passes/autodiff/{case}.ir", env!("CARGO_MANIFEST_DIR"));
                let text = std::fs::read_to_string(path).expect("a case");
                let pipeline = format!("autodiff | optimizer{options} | inline{simplify}");
                let (module, _) = run::run(&text, &pipeline).expect("a pipeline");
                let program = &module.programs[0];
                let types = module.functions[program.function].param_types();
                // Moments and the step are not at their start.
                let sample = |(input, ty): (&Input, &Type)| match input {
                    Input::Parameter(n) | Input::State(n) => run::sample(n, ty),
                    Input::Feed(f) => run::sample(&f.name, ty),
                };
                let mut inputs: Vec<Value> = program.inputs.iter().zip(types).map(sample).collect();
                let feed = program.inputs.iter().position(|i| matches!(i, Input::Feed(_))).expect("a feed");
                *run::element(&mut inputs[feed], 0) = number;
                let results = run::interpret(&module, program, &inputs, Precision::Declared);
                let mut kept = 0;
                for (output, value) in program.outputs.iter().zip(&results) {
                    let input = match output {
                        Output::Parameter(n) => Input::Parameter(n.clone()),
                        Output::State(n) => Input::State(n.clone()),
                        Output::Emit(n) if n == "grad_norm" => {
                            assert!(!run::elements(value)[0].is_finite(), "{case}{options}: {number}");
                            continue;
                        }
                        _ => continue,
                    };
                    let at = program.inputs.iter().position(|i| *i == input).expect("what is written is read");
                    let bits = |v: &Value| run::elements(v).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(value), bits(&inputs[at]), "{case}{options}: {input:?} with {number}");
                    kept += 1;
                }
                assert!(kept > 2, "{case}{options}");
            }
        }
    }
}
