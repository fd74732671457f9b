//! A finished graph as a `ModelDef`, written as torchair writes what it hands to GE.

use std::collections::BTreeMap;

use crate::dtype::{DataType, Ty};
use crate::graph::{Node, Tensor};
use crate::infer::Value;
use crate::proto::{AttrDef, Attribute, GraphDef, ListValue, ModelDef, OpDef, ShapeDef, TensorDef, TensorDescriptor};
use crate::table::{Op, Operator};

/// Marks the descriptor of an optional input that is not fed.
pub const UNFED: &str = "_is_unfed_optional";

/// `origins` names the operator that each node comes from; `results` are what the graph returns, in order.
pub fn model(name: &str, nodes: &[Node], results: &[Tensor], origins: &[String]) -> ModelDef {
    let live = live(nodes, results);
    let names: Vec<String> = nodes.iter().enumerate().map(|(i, n)| node_name(i, n, origins)).collect();
    let mut op: Vec<OpDef> = nodes
        .iter()
        .enumerate()
        .filter(|(i, _)| live[*i])
        .map(|(i, node)| define(node, &names[i], |t| edge(&names, t), |t| nodes[t.node].outputs[t.output].clone()))
        .collect();
    let inputs = results.iter().copied().map(Some).collect();
    let end = Node { op: Op::NetOutput, inputs, attributes: vec![], outputs: vec![], data: None, origin: 0 };
    op.push(define(&end, "NetOutput", |t| edge(&names, t), |t| nodes[t.node].outputs[t.output].clone()));
    let graph = GraphDef { name: name.into(), op, ..GraphDef::default() };
    ModelDef { name: name.into(), version: 1, graph: vec![graph], ..ModelDef::default() }
}

/// Nodes that a result depends on. Inputs are kept: a segment's arguments do not depend on what is used.
pub fn live(nodes: &[Node], results: &[Tensor]) -> Vec<bool> {
    let mut live = vec![false; nodes.len()];
    for result in results {
        live[result.node] = true;
    }
    for (i, node) in nodes.iter().enumerate().rev() {
        live[i] |= node.op == Op::Data;
        if live[i] {
            for input in node.inputs.iter().flatten() {
                live[input.node] = true;
            }
        }
    }
    live
}

/// `matmul_12_MatMulV3_40`: the operator of the kernel, its node there, CANN's operator, and a number.
fn node_name(i: usize, node: &Node, origins: &[String]) -> String {
    match (node.op, origins.get(node.origin)) {
        (Op::Data, _) => format!("arg{}", index(node)),
        (op, Some(origin)) => format!("{origin}_{}_{i}", op.name()),
        (op, None) => format!("{}_{i}", op.name()),
    }
}

fn index(node: &Node) -> i64 {
    match node.attributes.first() {
        Some((_, Value::Int(i))) => *i,
        _ => 0,
    }
}

fn edge(names: &[String], tensor: Tensor) -> String {
    format!("{}:{}", names[tensor.node], tensor.output)
}

fn define(node: &Node, name: &str, edge: impl Fn(Tensor) -> String, ty: impl Fn(Tensor) -> Ty) -> OpDef {
    let spec = node.op.spec();
    let mut attr: BTreeMap<String, AttrDef> =
        node.attributes.iter().map(|(name, value)| ((*name).to_owned(), attribute(value).into())).collect();
    let output_desc: Vec<TensorDescriptor> =
        spec.outputs.iter().zip(&node.outputs).map(|(port, ty)| describe(port.name, ty)).collect();
    let input_desc: Vec<TensorDescriptor> = if node.op == Op::Data {
        node.outputs.iter().map(|ty| describe("x", ty)).collect()
    } else {
        let ports = spec.input_ports(node.inputs.len()).unwrap_or_default();
        let names = ports.iter().map(|(port, place)| Operator::input_name(port, *place));
        names.zip(&node.inputs).map(|(name, i)| i.map_or_else(|| unfed(&name), |t| describe(&name, &ty(t)))).collect()
    };
    if let Some(data) = &node.data {
        let desc = output_desc.first().cloned().map(|d| TensorDescriptor { name: String::new(), ..d });
        let tensor = TensorDef { desc, data: data.clone() };
        attr.insert("value".into(), Attribute::Tensor(tensor).into());
    }
    for (list, key, value) in [
        (&input_desc, "_input_name_key", "_input_name_value"),
        (&output_desc, "_output_name_key", "_output_name_value"),
    ] {
        attr.insert(key.into(), ListValue::texts(list.iter().map(|d| d.name.as_str())).into());
        attr.insert(value.into(), ListValue::ints(0..list.len() as i64).into());
    }
    OpDef {
        name: name.into(),
        r#type: spec.name.into(),
        input: node.inputs.iter().map(|i| i.map_or_else(String::new, &edge)).collect(),
        attr,
        input_desc,
        output_desc,
    }
}

fn attribute(value: &Value) -> Attribute {
    match value {
        Value::Int(i) => Attribute::Int(*i),
        Value::Float(f) => Attribute::Float(*f),
        Value::Bool(b) => Attribute::Bool(*b),
        Value::Text(t) => Attribute::Text(t.as_bytes().to_vec()),
        Value::Ints(v) => ListValue::ints(v.iter().copied()),
    }
}

fn describe(name: &str, ty: &Ty) -> TensorDescriptor {
    TensorDescriptor {
        name: name.into(),
        dtype: ty.dtype as i32,
        shape: Some(ShapeDef { dim: ty.shape.clone() }),
        layout: "ND".into(),
        attr: BTreeMap::new(),
        device_type: "NPU".into(),
    }
}

fn unfed(name: &str) -> TensorDescriptor {
    TensorDescriptor {
        name: name.into(),
        dtype: DataType::Undefined as i32,
        attr: [(UNFED.to_owned(), Attribute::Int(1).into())].into_iter().collect(),
        ..TensorDescriptor::default()
    }
}
