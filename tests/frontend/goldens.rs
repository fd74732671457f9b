//! The traced graphs of the published models, interpreted, against diffusers and transformers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eval::Options;
use ir::{Array, Input, Interpreter, Module, Precision, Type, Value, indexed_name};
use safetensors::{Dtype, SafeTensors};
use types::TensorType;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("a golden file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let number = |dtype: Dtype, b: &[u8]| match dtype {
        Dtype::F32 => f64::from(f32::from_le_bytes(b.try_into().expect("4 bytes"))),
        Dtype::I64 => i64::from_le_bytes(b.try_into().expect("8 bytes")) as f64,
        other => panic!("goldens hold no {other:?}"),
    };
    let tensor = |t: &safetensors::tensor::TensorView<'_>| {
        let width = if t.dtype() == Dtype::I64 { 8 } else { 4 };
        (t.shape().to_vec(), t.data().chunks_exact(width).map(|b| number(t.dtype(), b)).collect())
    };
    file.tensors().iter().map(|(name, t)| (name.clone(), tensor(t))).collect()
}

struct Case {
    name: String,
    task: String,
    dtype: String,
    module: Module,
    inputs: Tensors,
    weights: Tensors,
    expected: Tensors,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![];
    for model in ["wan", "qwen3", "layers"] {
        let inside = std::fs::read_dir(root.join("goldens").join(model)).expect("golden cases");
        folders.extend(inside.map(|e| e.expect("an entry").path()).filter(|p| p.join("case.json").is_file()));
    }
    folders.sort();
    folders.iter().map(|folder| case(root, folder)).collect()
}

fn case(root: &Path, folder: &Path) -> Case {
    let text = std::fs::read_to_string(folder.join("case.json")).expect("a case");
    let spec: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let field = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    let said = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let set = spec["set"].as_object().expect("dims").iter().map(|(k, v)| (k.clone(), said(v)));
    let options = Options {
        preset: spec["preset"].as_str().map(Into::into),
        set: set.collect(),
        task: field("task"),
        batch: spec["batch"].as_u64().map(|b| b as usize),
        ..Options::default()
    };
    let model = std::fs::read_to_string(root.join("../models").join(field("model"))).expect("a model");
    let mut sources = diag::Sources::default();
    let file = sources.add(field("model"), model);
    let evaluated = eval::evaluate(&mut sources, file, &options, &mut crate::used)
        .unwrap_or_else(|e| panic!("{}", diag::render(&e, &sources, false)));
    ir::verify(&evaluated.module).expect("a sound module");
    Case {
        name: folder.strip_prefix(root).expect("inside").display().to_string(),
        task: field("task"),
        dtype: field("dtype"),
        module: evaluated.module,
        inputs: read(&folder.join("inputs.safetensors")),
        weights: read(&folder.join("weights.safetensors")),
        expected: read(&folder.join("expected.safetensors")),
    }
}

impl Case {
    /// The program's results on the golden weights and inputs.
    fn run(&self) -> Vec<Value> {
        let program = &self.module.programs[0];
        let types: Vec<Type> = self.module.functions[program.function].param_types().cloned().collect();
        let array = |tensors: &Tensors, name: &str, ty: &TensorType| {
            let (shape, data) = tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor `{name}`", self.name));
            assert_eq!(*shape, ty.sizes().to_vec(), "{}: shape of `{name}`", self.name);
            Array::new(ty.clone(), data.clone())
        };
        let mut args = vec![];
        for (input, ty) in program.inputs.iter().zip(&types) {
            args.push(match (input, ty) {
                (Input::Parameter(name), Type::Tensor(ty)) => Value::Tensor(array(&self.weights, name, ty)),
                (Input::Parameter(family), Type::Stack { count, of }) => {
                    Value::Stack((0..*count).map(|i| array(&self.weights, &indexed_name(family, i), of)).collect())
                }
                (Input::Feed(feed), Type::Tensor(ty)) if !self.inputs.contains_key(feed.name.as_str()) => {
                    let function = &self.module.functions[program.function];
                    let read = function.nodes.iter().any(|(_, node)| node.args.contains(&function.params[args.len()]));
                    assert!(!read, "{}: no tensor `{}`", self.name, feed.name);
                    Value::Tensor(Array::zeros(ty.clone()))
                }
                (Input::Feed(feed), Type::Tensor(ty)) => Value::Tensor(array(&self.inputs, &feed.name, ty)),
                other => panic!("no such input: {other:?}"),
            });
        }
        Interpreter::new(&self.module, Precision::Declared).call(program.function, &args)
    }

    /// That the checkpoint holds the model's parameters and no others.
    fn check_names(&self) {
        let mut names: Vec<String> = vec![];
        for (name, p) in &self.module.parameters {
            match &p.ty {
                Type::Stack { count, .. } => names.extend((0..*count).map(|i| indexed_name(name, i))),
                _ => names.push(name.to_string()),
            }
        }
        names.sort();
        let stored: Vec<String> = self.weights.keys().cloned().collect();
        assert_eq!(names, stored, "{}", self.name);
    }
}

/// Norm of the difference over the norm.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}

#[test]
fn checkpoints_hold_just_the_models_parameters() {
    cases().iter().for_each(Case::check_names);
}

#[test]
fn models_agree_with_pytorch_in_f32() {
    let mut worst = vec![];
    for case in cases() {
        let results = case.run();
        let found = &results[0].tensor().data;
        let first = case.expected.keys().find(|name| !name.contains('/')).expect("a result");
        let key = if case.task == "train" { "loss" } else { first };
        let expected = &case.expected[key].1;
        let far = distance(found, &expected[..found.len()]);
        println!("{} {far:.1e}", case.name);
        if far.is_nan() || far > 1e-5 {
            worst.push(format!("{}: {key} is {far:.1e} away", case.name));
        }
    }
    assert!(worst.is_empty(), "{}", worst.join("\n"));
}

/// What the precision pass makes of the graph, but for casts that do nothing: the working type is bf16.
fn in_bf16(module: &Module) -> Module {
    let text = module.to_string().replace("work[", "bf16[").replace("\"work\"", "\"bf16\"");
    ir::parse(&text).expect("the same module in bf16")
}

#[test]
fn models_are_near_pytorch_in_bf16() {
    for mut case in cases() {
        if case.dtype != "bf16" {
            continue;
        }
        case.module = in_bf16(&case.module);
        let results = case.run();
        let found = &results[0].tensor().data;
        let (key, limit) = match (case.task.as_str(), case.expected.contains_key("logits")) {
            ("train", _) => ("loss", 1e-3),
            (_, true) => ("logits", 2e-2),
            _ => ("sample", 2e-2),
        };
        let far = distance(found, &case.expected[key].1[..found.len()]);
        let autocast = case.expected.get("autocast/sample").map(|t| t.1[0]);
        println!("{} {key} {far:.1e}, autocast's output {autocast:?}", case.name);
        assert!(far < limit, "{}: {key} is {far:.1e} away", case.name);
    }
}
