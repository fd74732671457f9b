//! Values and gradients of operators against PyTorch's, computed in f64 and rounded once to f32.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ir::ops::*;
use ir::{Array, Builder, Interpreter, Module, NodeId, Precision, Value};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use types::{DType, Dim, Name, TensorType};

use crate::differentiate::gradients;

/// One file: its attributes, and its tensors by name (`d_y` is the cotangent of `y`, or the gradient of an input).
struct Golden {
    case: String,
    attributes: Json,
    inputs: Vec<(String, Array)>,
    outputs: Vec<(String, Array)>,
}

impl Golden {
    fn read(path: &PathBuf) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &header.metadata().as_ref().unwrap()["op"];
        let attributes: Json = serde_json::from_str(text).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let list = |kind: &str| {
            let of = |(i, entry): (usize, &Json)| {
                let tensor = tensors.tensor(&format!("{kind}{i}")).unwrap();
                let names: Vec<&str> = strings(&entry["dims"]);
                assert_eq!(names.len(), tensor.shape().len());
                let dims = names.iter().zip(tensor.shape()).map(|(n, s)| Dim::new(*n, *s));
                let bytes = tensor.data();
                let (dtype, data) = match tensor.dtype() {
                    Dtype::F32 => (DType::F32, floats(bytes)),
                    Dtype::I64 => (DType::I64, integers(bytes)),
                    other => panic!("{other:?}"),
                };
                (entry["name"].as_str().unwrap().to_string(), Array::new(TensorType::new(dtype, dims), data))
            };
            attributes[kind].as_array().unwrap().iter().enumerate().map(of).collect()
        };
        let (inputs, outputs) = (list("in"), list("out"));
        Self { case: path.file_stem().unwrap().to_string_lossy().into_owned(), attributes, inputs, outputs }
    }

    fn number(&self, name: &str) -> f64 {
        self.attributes[name].as_f64().unwrap_or_else(|| panic!("{} has no number {name}", self.case))
    }

    fn names(&self, name: &str) -> Vec<Name> {
        strings(&self.attributes[name]).into_iter().map(Name::from).collect()
    }

    fn sizes(&self, name: &str) -> Vec<usize> {
        let list = self.attributes[name].as_array().unwrap();
        list.iter().map(|v| v.as_u64().unwrap() as usize).collect()
    }
}

fn strings(list: &Json) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

fn integers(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
}

/// The operation as nodes: its inputs in the order of the file (without cotangents) to its outputs (without gradients).
fn build(g: &Golden, b: &mut Builder, x: &[NodeId]) -> Vec<NodeId> {
    let op = g.attributes["op"].as_str().unwrap();
    let axes = || g.names("axes");
    let one = |b: &mut Builder, op: ir::Op| vec![b.op(op, x)];
    match op {
        "exp" => one(b, Exp {}.into()),
        "log" => one(b, Log {}.into()),
        "log1p" => one(b, Log1p {}.into()),
        "floor" => one(b, Floor {}.into()),
        "round" => one(b, Round {}.into()),
        "sqrt" => one(b, Sqrt {}.into()),
        "rsqrt" => one(b, Rsqrt {}.into()),
        "tanh" => one(b, Tanh {}.into()),
        "sin" => one(b, Sin {}.into()),
        "cos" => one(b, Cos {}.into()),
        "sigmoid" => one(b, Sigmoid {}.into()),
        "silu" => one(b, Silu {}.into()),
        "gelu_tanh" => one(b, GeluTanh {}.into()),
        "neg" => one(b, Neg {}.into()),
        "abs" => one(b, Abs {}.into()),
        "square" => vec![b.mul(x[0], x[0])],
        "add" => one(b, Add {}.into()),
        "sub" => one(b, Sub {}.into()),
        "mul" => one(b, Mul {}.into()),
        "div" => one(b, Div {}.into()),
        "max" if x.len() == 2 => one(b, Max {}.into()),
        "min" => one(b, Min {}.into()),
        "matmul" => one(b, einsum(g).into()),
        "grouped_matmul" => {
            let spec = g.attributes["spec"].as_str().unwrap().to_string();
            let dims = g.outputs[0].1.ty.dims.iter().map(|d| d.name.clone()).collect();
            one(b, GroupedMatmul { spec, dims, among: None }.into())
        }
        "sum" => one(b, ReduceSum { dims: axes() }.into()),
        "max" => one(b, ReduceMax { dims: axes() }.into()),
        "mean" => {
            let n: usize = axes().iter().map(|a| b.ty(x[0]).size_of(a).unwrap()).product();
            let sum = b.reduce_sum(x[0], &axes());
            vec![b.scale(sum, 1.0 / n as f64)]
        }
        "layer_norm" | "rms_norm" => {
            let (dim, eps) = (axes().remove(0), g.number("eps"));
            let op: ir::Op = if op == "rms_norm" { RmsNorm { dim, eps }.into() } else { LayerNorm { dim, eps }.into() };
            let mut y = b.op(op, &x[..1]);
            if x.len() > 1 {
                y = b.mul(y, x[1]);
            }
            if x.len() > 2 {
                y = b.add(y, x[2]);
            }
            vec![y]
        }
        "softmax" => one(b, Softmax { dim: axes().remove(0) }.into()),
        "swiglu" => one(b, Swiglu {}.into()),
        "rope_interleaved" => one(b, Rope { dim: "D".into(), form: RopeForm::Interleaved }.into()),
        "rope_half" => one(b, Rope { dim: "D".into(), form: RopeForm::Half }.into()),
        "attention" => {
            let op = Attention {
                q_len: "LQ".into(),
                kv_len: "LK".into(),
                heads: "HQ".into(),
                kv_heads: "HK".into(),
                head: "D".into(),
                causal: g.attributes["causal"].as_bool().unwrap(),
                scale: g.number("scale"),
                visibility: Visibility {
                    segments: g.attributes["segments"].as_bool().unwrap_or(false),
                    positions: g.attributes["positions"].as_bool().unwrap_or(false),
                    left: g.attributes["left"].as_u64(),
                    right: g.attributes["right"].as_u64(),
                },
                bias: g.attributes["bias"].as_str().map(Name::from),
            };
            assert_eq!(
                b.ty(x[0]).size_of("HQ").unwrap() / b.ty(x[1]).size_of("HK").unwrap(),
                g.number("group") as usize
            );
            let both = b.op(op, x);
            b.results(both).to_vec()
        }
        "cumsum" => one(b, Cumsum { dim: axes().remove(0), reverse: false }.into()),
        "argsort" => one(b, Argsort { dim: axes().remove(0), descending: false }.into()),
        "top_k" => {
            let size = g.outputs[0].1.ty.size_of("K").unwrap();
            let both = b.op(TopK { dim: axes().remove(0), to: Dim::new("K", size) }, x);
            b.results(both).to_vec()
        }
        "floor_div" => one(b, FloorDiv {}.into()),
        "remainder" => one(b, Remainder {}.into()),
        "gather" => one(b, Gather { dim: axes().remove(0) }.into()),
        "embedding" => one(b, Gather { dim: "V".into() }.into()),
        "cross_entropy" => {
            let ignore = g.number("ignore_index");
            let losses = b.op(CrossEntropy { dim: "V".into(), ignore: ignore as i64 }, x);
            let sum = b.reduce_sum(losses, &["N".into()]);
            let ignored = b.constant(ignore, DType::I64);
            let counted = b.op(Compare { kind: Comparison::NotEqual }, &[x[1], ignored]);
            let counted = b.cast(counted, DType::I64);
            vec![sum, b.reduce_sum(counted, &["N".into()])]
        }
        "adamw" => {
            let (beta1, beta2, t) = (g.number("beta1"), g.number("beta2"), g.number("step"));
            let op = Adamw { beta1, beta2, eps: g.number("eps"), weight_decay: g.number("weight_decay") };
            let scalars = [g.number("lr"), 1.0 - beta1.powf(t), 1.0 - beta2.powf(t)].map(|v| b.constant(v, DType::F32));
            // The file has param, grad, m, v.
            let all = b.op(op, &[x[0], x[2], x[3], x[1], scalars[0], scalars[1], scalars[2]]);
            b.results(all).to_vec()
        }
        "timestep_embedding" => {
            let n = b.ty(x[0]).size_of("B").map(|_| g.outputs[0].1.ty.size_of("FREQ").unwrap() / 2).unwrap();
            let data = (0..n).map(|i| (-g.number("max_period").ln() * i as f64 / n as f64).exp()).collect();
            let table = b.op(Table { dims: vec![Dim::new("FREQ", n)], dtype: DType::F32, data }, &[]);
            let angle = b.mul(x[0], table);
            let parts = [b.op(Cos {}, &[angle]), b.op(Sin {}, &[angle])];
            vec![b.op(Concat { dim: "FREQ".into() }, &parts)]
        }
        "patch_embed" => {
            // A convolution whose stride is its kernel: split into patches, then multiply.
            let patch = g.sizes("patch");
            let size = |d: &str| b.ty(x[0]).size_of(d).unwrap();
            let out = ["F", "H", "W"].iter().zip(&patch).map(|(d, p)| Dim::new(*d, size(d) / p));
            let mut dims = vec![Dim::new("B", size("B")), Dim::new("C", size("C"))];
            for (d, p) in out.zip(["PF", "PH", "PW"].iter().zip(&patch)) {
                dims.extend([d, Dim::new(*p.0, *p.1)]);
            }
            let tokens = dims.iter().filter(|d| ["F", "H", "W"].contains(&d.name.as_str())).map(|d| d.size).product();
            let to = [Dim::new("B", size("B")), Dim::new("L", tokens), Dim::new("O", b.ty(x[1]).size_of("O").unwrap())];
            let cut = b.op(Reshape { dims }, &x[..1]);
            let spec = "bcfphqwr,ocpqr->bfhwo".into();
            let names = ["B", "F", "H", "W", "O"].map(Name::from).to_vec();
            let y = b.op(Matmul { spec, dims: names, dtype: None }, &[cut, x[1]]);
            let y = b.op(Reshape { dims: to.to_vec() }, &[y]);
            vec![b.add(y, x[2])]
        }
        "unpatchify" => {
            let (patch, grid) = (g.sizes("patch"), g.sizes("grid"));
            let to = g.outputs[0].1.ty.clone();
            let size = |d: &str| to.size_of(d).unwrap();
            let mut dims = vec![Dim::new("B", size("B"))];
            dims.extend(["f", "h", "w"].iter().zip(&grid).map(|(d, n)| Dim::new(*d, *n)));
            dims.extend(["pf", "ph", "pw"].iter().zip(&patch).map(|(d, n)| Dim::new(*d, *n)));
            dims.push(Dim::new("C", size("C")));
            let cut = b.op(Reshape { dims }, x);
            let order = ["B", "C", "f", "pf", "h", "ph", "w", "pw"].map(Name::from).to_vec();
            let moved = b.op(Transpose { order }, &[cut]);
            vec![b.reshape(moved, &to)]
        }
        other => panic!("{}: no operation `{other}`", g.case),
    }
}

/// `B L K, N K -> B L N` as a matmul.
fn einsum(g: &Golden) -> Matmul {
    let text = g.attributes["einsum"].as_str().unwrap();
    let (operands, out) = text.split_once("->").unwrap();
    let letters = |t: &str| t.split_whitespace().collect::<String>().to_lowercase();
    let operands: Vec<String> = operands.split(',').map(letters).collect();
    let spec = format!("{}->{}", operands.join(","), letters(out));
    Matmul { spec, dims: out.split_whitespace().map(Name::from).collect(), dtype: None }
}

fn compare(g: &Golden, name: &str, expected: &Array, found: &Array) {
    let what = format!("{}: {name}", g.case);
    assert_eq!(found.ty.sizes(), expected.ty.sizes(), "{what}");
    let atol = g.attributes["atol"].as_f64().unwrap_or(0.0);
    // Both are exact but for one rounding to f32; sums of many terms cancel, so that what is left is worth less.
    let size = expected.data.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
    for (at, (e, f)) in expected.data.iter().zip(&found.data).enumerate() {
        let near = (e - f).abs() <= atol + 6.1e-8 * e.abs() + 1e-13 * size + 1e-45;
        assert!(near, "{what}, element {at}: {f}, PyTorch has {e}");
    }
}

/// Returns what it compared.
fn check(g: &Golden) -> Vec<String> {
    let mut b = Builder::new("golden");
    let nodes: Vec<NodeId> = g.inputs.iter().map(|(_, a)| b.param(a.ty.clone())).collect();
    let primal = |(n, _): &&(String, Array)| !n.starts_with("d_");
    let x: Vec<NodeId> = nodes.iter().zip(&g.inputs).filter(|(_, i)| primal(i)).map(|(n, _)| *n).collect();
    let outputs = build(g, &mut b, &x);
    let values: Vec<&(String, Array)> = g.outputs.iter().filter(primal).collect();
    assert_eq!(outputs.len(), values.len(), "{}: number of outputs", g.case);

    // Cotangents are among the inputs; a scalar's is one and left out.
    let mut seeds = vec![];
    for (node, (name, value)) in outputs.iter().zip(&values) {
        let given = g.inputs.iter().position(|(n, _)| *n == format!("d_{name}"));
        if let Some(i) = given {
            seeds.push((*node, nodes[i]));
        } else if value.ty.rank() == 0 && value.ty.dtype.is_float() {
            seeds.push((*node, b.constant(1.0, b.ty(*node).dtype)));
        }
    }
    let mut asked: Vec<(String, NodeId, &Array)> = vec![];
    for (node, (name, value)) in outputs.iter().zip(&values) {
        asked.push((name.clone(), *node, value));
    }
    // The gradient of the log-sum-exp is refused by contract.
    let differentiable = !g.inputs.iter().any(|(n, _)| n == "d_lse");
    if differentiable && g.outputs.iter().any(|(n, _)| n.starts_with("d_")) {
        let found = gradients(&mut b, &seeds, &x);
        let by_name: BTreeMap<&str, Option<NodeId>> =
            g.inputs.iter().filter(primal).map(|(n, _)| n.as_str()).zip(found).collect();
        for (name, value) in g.outputs.iter().filter(|o| !primal(o)) {
            let node = by_name[&name[2..]].unwrap_or_else(|| panic!("{}: no gradient {name}", g.case));
            asked.push((name.clone(), node, value));
        }
    }
    let mut function = b.finish().unwrap_or_else(|e| panic!("{}: {e}", g.case));
    function.results = asked.iter().map(|(_, n, _)| *n).collect();
    let args: Vec<Value> = g.inputs.iter().map(|(_, a)| a.clone().into()).collect();
    let module = Module::default();
    let found = Interpreter::new(&module, Precision::Exact).run(&function, &args);
    for ((name, _, expected), found) in asked.iter().zip(&found) {
        compare(g, name, expected, found.tensor());
    }
    asked.into_iter().map(|(name, ..)| name).collect()
}

#[test]
fn values_and_gradients_are_those_of_pytorch() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("goldens/ops");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let compared: Vec<String> = paths.iter().flat_map(|p| check(&Golden::read(p))).collect();
    let gradients = compared.iter().filter(|n| n.starts_with("d_")).count();
    assert!(paths.len() >= 165 && gradients >= 103, "{} files, {gradients} gradients", paths.len());
}
