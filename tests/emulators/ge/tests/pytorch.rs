//! Every operator against what PyTorch makes of the same inputs (`tests/goldens/cann.py`).

use std::collections::{BTreeSet, HashMap};

use emulator_ge::proto::{
    AttrDef, Attribute, DataType, GraphDef, ListValue, ModelDef, OpDef, ShapeDef, TensorDescriptor,
};
use emulator_ge::{Tensor, run};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const GOLDENS: &[u8] = include_bytes!("../../../goldens/cann.safetensors");
/// Results are f32, from inputs that are.
const TOLERANCE: f64 = 5e-6;

struct Goldens {
    tensors: SafeTensors<'static>,
    cases: Vec<Value>,
}

fn goldens() -> Goldens {
    let (_, metadata) = SafeTensors::read_metadata(GOLDENS).expect("a header");
    let text = &metadata.metadata().as_ref().expect("metadata")["cases"];
    let cases = serde_json::from_str(text).expect("JSON");
    Goldens { tensors: SafeTensors::deserialize(GOLDENS).expect("safetensors"), cases }
}

impl Goldens {
    /// A tensor by its name, or the causal triangle by its side; none for what is not fed, or not compared.
    fn tensor(&self, value: &Value) -> Option<(DataType, Tensor)> {
        if let Some(side) = value.as_u64().map(|n| n as usize) {
            let data = (0..side * side).map(|i| f64::from(u8::from(i % side > i / side))).collect();
            return Some((DataType::Bool, Tensor { shape: vec![side, side], data }));
        }
        let view = self.tensors.tensor(value.as_str()?).expect("a tensor of that name");
        let dtype = match view.dtype() {
            Dtype::F32 => DataType::Float,
            Dtype::BF16 => DataType::Bf16,
            Dtype::I64 => DataType::Int64,
            Dtype::BOOL => DataType::Bool,
            other => panic!("no case has elements of type {other:?}"),
        };
        Some((dtype, Tensor { shape: view.shape().to_vec(), data: dtype.decode(view.data()) }))
    }
}

fn list<'a>(case: &'a Value, key: &str) -> &'a [Value] {
    case[key].as_array().expect("a list")
}

fn attribute(value: &Value) -> AttrDef {
    let value = match value {
        Value::Bool(b) => Attribute::Bool(*b),
        Value::String(s) => Attribute::Text(s.clone().into_bytes()),
        Value::Array(items) => Attribute::List(ListValue { i: items.iter().filter_map(Value::as_i64).collect() }),
        number => match number.as_i64() {
            Some(i) => Attribute::Int(i),
            None => Attribute::Float(number.as_f64().expect("a number") as f32),
        },
    };
    AttrDef { value: Some(value) }
}

fn desc(dtype: DataType, shape: &[usize]) -> TensorDescriptor {
    let shape = ShapeDef { dim: shape.iter().map(|&d| d as i64).collect() };
    TensorDescriptor { name: String::new(), dtype: dtype as i32, shape: Some(shape) }
}

fn node(name: &str, kind: &str, input: Vec<String>, output_desc: Vec<TensorDescriptor>) -> OpDef {
    OpDef { name: name.into(), r#type: kind.into(), input, output_desc, ..OpDef::default() }
}

/// What an output should be; none if that is not compared.
type Wanted = (DataType, Option<Tensor>);

/// A graph of one operator, with its inputs and what its outputs should be.
fn graph(goldens: &Goldens, case: &Value) -> (ModelDef, Vec<Tensor>, Vec<Wanted>) {
    let (mut ops, mut inputs, mut edges) = (vec![], vec![], vec![]);
    for fed in list(case, "inputs").iter().map(|value| goldens.tensor(value)) {
        let Some((dtype, tensor)) = fed else {
            edges.push(String::new());
            continue;
        };
        let name = format!("arg{}", inputs.len());
        let mut data = node(&name, "Data", vec![], vec![desc(dtype, &tensor.shape)]);
        data.attr.insert("index".into(), AttrDef { value: Some(Attribute::Int(inputs.len() as i64)) });
        ops.push(data);
        edges.push(format!("{name}:0"));
        inputs.push(tensor);
    }
    let wanted = list(case, "outputs").iter().map(|value| match goldens.tensor(value) {
        Some((dtype, tensor)) => (dtype, Some(tensor)),
        None => (DataType::Float, None),
    });
    let wanted: Vec<Wanted> = wanted.collect();
    let descs = wanted.iter().map(|(dtype, t)| desc(*dtype, t.as_ref().map_or(&[0], |t| &t.shape))).collect();
    let mut op = node("op", case["op"].as_str().expect("an operator"), edges, descs);
    op.attr = case["attrs"].as_object().expect("attributes").iter().map(|(k, v)| (k.clone(), attribute(v))).collect();
    ops.push(op);
    ops.push(node("out", "NetOutput", (0..wanted.len()).map(|i| format!("op:{i}")).collect(), vec![]));
    (ModelDef { graph: vec![GraphDef { op: ops }], attr: HashMap::new() }, inputs, wanted)
}

fn check(case: &Value, i: usize, dtype: DataType, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape, want.shape, "output {i} of {}", case["name"]);
    let mean = want.data.iter().map(|w| w.abs()).sum::<f64>() / want.data.len() as f64;
    for (k, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
        let exact = !matches!(dtype, DataType::Float);
        let near = g == w || (!exact && (g - w).abs() <= TOLERANCE * w.abs().max(mean));
        assert!(near, "output {i} of {}: element {k} is {g}, and PyTorch's is {w}", case["name"]);
    }
}

#[test]
fn operators_are_those_of_pytorch() {
    let goldens = goldens();
    for case in &goldens.cases {
        let (model, inputs, wanted) = graph(&goldens, case);
        let got = run(&model, &inputs);
        assert_eq!(got.len(), wanted.len());
        for (i, (got, (dtype, want))) in got.iter().zip(&wanted).enumerate() {
            want.iter().for_each(|want| check(case, i, *dtype, got, want));
        }
    }
}

/// All that mmc writes, but for what a graph begins with.
#[test]
fn every_operator_has_a_case() {
    let goldens = goldens();
    let cases: BTreeSet<&str> = goldens.cases.iter().filter_map(|case| case["op"].as_str()).collect();
    let written = include_str!("../../../../targets/ascend/tests/wheel/operators.txt");
    let all: BTreeSet<&str> = written.split_whitespace().filter(|op| !["Data", "Const"].contains(op)).collect();
    assert_eq!(cases, all);
}
