//! Words that are formulas of several operators: values and gradients against PyTorch's, in f32 and in bf16
//! (`tests/goldens/ops.py`).

use std::path::Path;

use ir::{Array, Input, Interpreter, Module, Output, Precision, Value};
use passes::{Context, Pipeline};
use safetensors::SafeTensors;
use types::{DType, TensorType};

use crate::{evaluate, options};

struct Goldens(Vec<u8>);

impl Goldens {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/words.safetensors");
        Self(std::fs::read(path).expect("the goldens"))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a safetensors file")
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let file = self.file();
        let bytes = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data();
        bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    }

    fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = self.file().names().into_iter().map(String::from).collect();
        words.retain(|name| name.ends_with(')'));
        words.sort();
        words
    }
}

/// A model whose only parameter is `x`.
fn model(word: &str, task: &str) -> String {
    let body = match task {
        "train" => format!("    ({word}.cast(f32) * seed).sum()"),
        _ => format!("    {word} + seed.cast(work) * 0.0"),
    };
    let result = if task == "train" { "; f32" } else { "A, B" };
    format!(
        "use mm::prelude::*;
dims! {{ A = 5, B = 67 }}
#[derive(Module)]
pub struct Net {{ x: Param }}
impl Net {{ pub fn new() -> Self {{ Self {{ x: Param::zeros([A, B]) }} }} }}
pub fn {task}(net: &Net, seed: Tensor![A, B; f32]) -> Tensor![{result}] {{
    let x = net.x;
{body}
}}
"
    )
}

/// The result that is wanted of the task: its first one, or the gradient.
fn run(goldens: &Goldens, word: &str, task: &str, passes: &str, wanted: fn(&Output) -> bool) -> Vec<f64> {
    let evaluated =
        evaluate("net.mm", &model(word, task), &options(task, None, &[])).unwrap_or_else(|e| panic!("{word}: {e}"));
    let mut module: Module = evaluated.module;
    let pipeline = Pipeline::parse(passes).expect("a pipeline");
    pipeline.run(&mut module, &mut Context::default(), |_, _| {}).unwrap_or_else(|e| panic!("{word}: {e}"));
    let program = &module.programs[0];
    let ty = TensorType::new(DType::F32, [types::Dim::new("A", 5), types::Dim::new("B", 67)]);
    let value = |input: &Input| -> Value {
        let name = if matches!(input, Input::Parameter(_)) { "x" } else { "seed" };
        Array::new(ty.clone(), goldens.numbers(name)).into()
    };
    let args: Vec<Value> = program.inputs.iter().map(value).collect();
    let results = Interpreter::new(&module, Precision::Declared).call(program.function, &args);
    let at = program.outputs.iter().position(wanted).unwrap_or_else(|| panic!("{word}: no such result"));
    results[at].tensor().data.clone()
}

/// In the tail of a GELU, 1 + erf is what rounding to f32 leaves of 1 - 1, in PyTorch's kernels too.
const CANCELLED: f64 = 2e-6;

fn compare(what: &str, found: &[f64], expected: &[f64], relative: f64, absolute: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(f == e || (f - e).abs() <= relative * e.abs() + absolute, "{what}, element {i}: {f}, PyTorch has {e}");
    }
}

#[test]
fn formulas_are_those_of_pytorch() {
    let goldens = Goldens::read();
    let words = goldens.words();
    assert!(words.len() >= 11, "{words:?}");
    for word in &words {
        let any: fn(&Output) -> bool = |output| matches!(output, Output::Emit(_));
        let y = run(&goldens, word, "forward", "precision", any);
        compare(word, &y, &goldens.numbers(word), 4e-7, CANCELLED);
        let gradient: fn(&Output) -> bool = |output| matches!(output, Output::Gradient(_));
        let known = goldens.numbers(&format!("{word} gradient"));
        if known.iter().any(|g| *g != 0.0) {
            let dx = run(&goldens, word, "train", "precision | autodiff", gradient);
            compare(&format!("the gradient of {word}"), &dx, &known, 2e-6, 1e-6);
        }
    }
}

/// What is computed in f32 rounds once, as PyTorch's kernels do.
#[test]
fn formulas_in_bf16_are_those_of_pytorch() {
    let goldens = Goldens::read();
    let (mut equal, mut all) = (0, 0);
    for word in goldens.words() {
        let any: fn(&Output) -> bool = |output| matches!(output, Output::Emit(_));
        let y = run(&goldens, &word, "forward", "precision{dtype=bf16}", any);
        let known = goldens.numbers(&format!("{word} in bf16"));
        // One unit in the last place.
        compare(&format!("{word} in bf16"), &y, &known, 1.0 / 128.0, CANCELLED);
        equal += y.iter().zip(&known).filter(|(a, b)| a == b).count();
        all += known.len();
    }
    assert!(equal * 100 >= all * 99, "{equal} of {all} are equal");
}
