//! The meaning of a GE graph: every operator that mmc writes, on f64, each output rounded to its declared type.
//!
//! Written from CANN's formulas, not from mmc's lowerings, and without the compiler. What CANN leaves open is NaN here, so
//! that relying on it shows.

pub mod om;
mod operators;
pub mod proto;
mod taken;
mod tensor;

use std::collections::HashMap;

use proto::{Attribute, ModelDef, OpDef, TensorDescriptor};
pub use tensor::Tensor;

/// The outputs of the graph on its inputs.
///
/// # Panics
/// If the graph is not one that CANN would take, or uses an operator that has no meaning here.
pub fn run(model: &ModelDef, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut values: HashMap<String, Tensor> = HashMap::new();
    for op in &model.graph[0].op {
        let args: Vec<Option<&Tensor>> = op.input.iter().map(|edge| values.get(edge)).collect();
        let outputs = match op.r#type.as_str() {
            "NetOutput" => return args.into_iter().flatten().cloned().collect(),
            "Data" => vec![inputs[operators::int(op, "index") as usize].data.clone()],
            "Const" => vec![constant(op)],
            _ => {
                taken::check(op);
                operators::node(op, &args)
            }
        };
        for (i, (desc, data)) in op.output_desc.iter().zip(outputs).enumerate() {
            values.insert(format!("{}:{i}", op.name), declared(op, desc, data));
        }
    }
    panic!("the graph has no NetOutput");
}

/// The types of the graph's inputs, by their number, and of its outputs.
pub fn interface(model: &ModelDef) -> (Vec<TensorDescriptor>, Vec<TensorDescriptor>) {
    let nodes = || model.graph.iter().take(1).flat_map(|g| &g.op);
    let mut inputs: Vec<&OpDef> = nodes().filter(|op| op.r#type == "Data").collect();
    inputs.sort_by_key(|op| operators::int(op, "index"));
    let inputs = inputs.iter().filter_map(|op| op.output_desc.first().cloned()).collect();
    (inputs, nodes().filter(|op| op.r#type == "NetOutput").flat_map(|op| op.input_desc.clone()).collect())
}

/// Bytes of constants, and of all that nodes give.
pub fn sizes(model: &ModelDef) -> (usize, usize) {
    let bytes = |op: &OpDef| op.output_desc.iter().map(|d| d.bytes().next_multiple_of(512)).sum::<usize>();
    let nodes = || model.graph.iter().take(1).flat_map(|g| &g.op);
    let constants = nodes().filter(|op| op.r#type == "Const").map(bytes).sum();
    let values = nodes().filter(|op| !["Const", "Data", "NetOutput"].contains(&op.r#type.as_str())).map(bytes).sum();
    (constants, values)
}

fn declared(op: &OpDef, desc: &TensorDescriptor, data: Vec<f64>) -> Tensor {
    let (dtype, shape) = (desc.element(), desc.sizes());
    assert_eq!(shape.iter().product::<usize>(), data.len(), "{} of {}", desc.name, op.name);
    Tensor { shape, data: data.into_iter().map(|v| dtype.round(v)).collect() }
}

fn constant(op: &OpDef) -> Vec<f64> {
    let Some(Attribute::Tensor(tensor)) = op.attr["value"].value.as_ref() else { panic!("{} has no value", op.name) };
    tensor.desc.as_ref().expect("a type").element().decode(&tensor.data)
}
