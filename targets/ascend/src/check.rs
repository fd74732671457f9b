//! Holds a `ModelDef` against the operator table and the shape rules.
//!
//! 1. One graph; names are unique; every operator is in the table.
//! 2. Inputs stand in the table's order under its names; a required input is fed, an optional one may be marked as not, or
//!    left out at the end.
//! 3. Every edge leads to an output of an earlier node, and says of it what that node says.
//! 4. Required attributes are there, each of its kind, and none that the operator does not have.
//! 5. The operator takes the element types of its inputs and outputs, each and all together.
//! 6. The types of outputs follow from inputs and attributes.
//! 7. Inputs of the graph are numbered from 0; one NetOutput ends it.

use std::collections::HashMap;
use std::fmt;

use crate::columns::{self, Block};
use crate::dtype::{DataType, Ty};
use crate::encode::UNFED;
use crate::graph::integers;
use crate::infer::{Site, Value, infer};
use crate::proto::{AttrDef, Attribute, ModelDef, OpDef, TensorDescriptor};
use crate::table::{Op, Operator, Port, Presence, Preset};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The node's name; that of the model where no single node is at fault.
    pub node: String,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.message)
    }
}

pub fn model(model: &ModelDef) -> Result<(), Vec<Finding>> {
    let mut findings = vec![];
    let mut find = |node: &str, message: String| findings.push(Finding { node: node.to_owned(), message });
    let [graph] = model.graph.as_slice() else {
        find(&model.name, format!("{} graphs, not one", model.graph.len()));
        return Err(findings);
    };
    let mut seen: HashMap<&str, &OpDef> = HashMap::new();
    let (mut inputs, mut ends) = (0, 0);
    for op in &graph.op {
        match Op::named(&op.r#type) {
            None => find(&op.name, format!("the table has no operator `{}`", op.r#type)),
            Some(kind) => {
                if let Err(message) = node(kind, op, &seen) {
                    find(&op.name, message);
                }
                ends += usize::from(kind == Op::NetOutput);
                if kind == Op::Data {
                    if int(op, "index") != Some(inputs) {
                        find(&op.name, format!("it is not numbered {inputs}"));
                    }
                    inputs += 1;
                }
            }
        }
        if seen.insert(&op.name, op).is_some() {
            find(&op.name, "another node has that name".into());
        }
    }
    if ends != 1 || graph.op.last().is_none_or(|op| op.r#type != Op::NetOutput.name()) {
        find(&model.name, "one NetOutput must end the graph".into());
    }
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// That inputs of these types (`None`: not fed) suit the operator.
pub fn ports(spec: &Operator, inputs: &[Option<Ty>]) -> Result<(), String> {
    let ports = spec.input_ports(inputs.len()).ok_or_else(|| format!("it does not take {} inputs", inputs.len()))?;
    for ((port, place), input) in ports.iter().zip(inputs) {
        let name = Operator::input_name(port, *place);
        match input {
            None if port.presence == Presence::Optional => {}
            None => return Err(format!("its input `{name}` is not fed")),
            Some(ty) if port.types.has(ty.dtype) => {}
            Some(ty) => return Err(format!("its input `{name}` does not take {}", ty.dtype.text())),
        }
    }
    Ok(())
}

/// That a kernel of a 910B takes and gives these types together, where its columns are known.
pub fn column(op: Op, inputs: &[Option<Ty>], outputs: &[Ty]) -> Result<(), String> {
    let (spec, blocks) = (op.spec(), columns::of(op));
    let ports = spec.input_ports(inputs.len()).unwrap_or_default();
    let fits = |block: &Block, i: usize| {
        let takes = |((port, _), ty): (&(&Port, usize), &Option<Ty>)| {
            ty.as_ref().is_none_or(|ty| Block::at(block.inputs, port.name, i) == Some(ty.dtype))
        };
        let gives = |(port, ty): (&Port, &Ty)| Block::at(block.outputs, port.name, i) == Some(ty.dtype);
        ports.iter().zip(inputs).all(takes) && spec.outputs.iter().zip(outputs).all(gives)
    };
    if blocks.is_empty() || blocks.iter().any(|block| (0..block.width()).any(|i| fits(block, i))) {
        return Ok(());
    }
    let text = |name: &str, ty: &Ty| format!("{name} {}", ty.dtype.text());
    let fed = ports.iter().zip(inputs).filter_map(|((port, _), ty)| Some(text(port.name, ty.as_ref()?)));
    let made = spec.outputs.iter().zip(outputs).map(|(port, ty)| text(port.name, ty));
    let (fed, made) = (fed.collect::<Vec<_>>().join(", "), made.collect::<Vec<_>>().join(", "));
    Err(format!("no kernel of a 910B takes {fed} and gives {made}"))
}

fn node(kind: Op, op: &OpDef, seen: &HashMap<&str, &OpDef>) -> Result<(), String> {
    let spec = kind.spec();
    let attributes = attributes(spec, op)?;
    let outputs: Vec<Ty> = op.output_desc.iter().map(described).collect::<Result<_, _>>()?;
    if outputs.len() != spec.outputs.len() {
        return Err(format!("it has {} outputs, not {}", outputs.len(), spec.outputs.len()));
    }
    for ((port, desc), ty) in spec.outputs.iter().zip(&op.output_desc).zip(&outputs) {
        if desc.name != port.name {
            return Err(format!("its output `{}` stands where `{}` should", desc.name, port.name));
        }
        if !port.types.has(ty.dtype) {
            return Err(format!("its output `{}` is never {}", port.name, ty.dtype.text()));
        }
    }
    if kind == Op::Data {
        return Ok(());
    }
    let inputs = edges(spec, op, seen)?;
    let types: Vec<Option<Ty>> = inputs.iter().map(|i| i.as_ref().map(|(ty, _)| ty.clone())).collect();
    ports(spec, &types)?;
    if kind == Op::Const {
        return constant(op, &outputs[0]);
    }
    let constants: Vec<Option<Vec<i64>>> = inputs.into_iter().map(|i| i.and_then(|(_, value)| value)).collect();
    let declared = outputs.first().map(|ty| ty.dtype);
    let site = Site { op: kind, inputs: &types, constants: &constants, attributes: &attributes, declared };
    let inferred = infer(&site)?;
    match inferred.iter().zip(&outputs).position(|(a, b)| a != b) {
        Some(i) => Err(format!("its output `{}` is {}, not {}", spec.outputs[i].name, inferred[i], outputs[i])),
        None => column(kind, &types, &outputs),
    }
}

type Input = Option<(Ty, Option<Vec<i64>>)>;

/// The type of each input, and its value where it is a constant of integers.
fn edges(spec: &Operator, op: &OpDef, seen: &HashMap<&str, &OpDef>) -> Result<Vec<Input>, String> {
    if op.input.len() != op.input_desc.len() {
        return Err(format!("{} inputs have {} descriptors", op.input.len(), op.input_desc.len()));
    }
    let ports =
        spec.input_ports(op.input.len()).ok_or_else(|| format!("it does not take {} inputs", op.input.len()))?;
    let mut inputs = vec![];
    for (((port, place), edge), desc) in ports.iter().zip(&op.input).zip(&op.input_desc) {
        let name = Operator::input_name(port, *place);
        if desc.name != name {
            return Err(format!("its input `{}` stands where `{name}` should", desc.name));
        }
        if edge.is_empty() {
            if !desc.attr.contains_key(UNFED) {
                return Err(format!("its input `{name}` is neither fed nor marked as not fed"));
            }
            inputs.push(None);
            continue;
        }
        let source = edge.rsplit_once(':').and_then(|(from, i)| Some((*seen.get(from)?, i.parse::<usize>().ok()?)));
        let from = source.and_then(|(from, i)| Some((from, from.output_desc.get(i)?)));
        let (from, output) =
            from.ok_or_else(|| format!("its input `{name}` comes from `{edge}`, which is not there"))?;
        let (ty, told) = (described(output)?, described(desc)?);
        if ty != told {
            return Err(format!("its input `{name}` is said to be {told}, and `{edge}` is {ty}"));
        }
        inputs.push(Some((ty, value(from))));
    }
    match (ports.last(), inputs.last()) {
        (Some((port, _)), Some(None)) if port.presence == Presence::Optional => {
            Err(format!("its last input `{}` is not fed, and must be left out", port.name))
        }
        _ => Ok(inputs),
    }
}

fn value(from: &OpDef) -> Option<Vec<i64>> {
    match from.attr.get("value")?.value.as_ref()? {
        Attribute::Tensor(tensor) => {
            let dtype = DataType::try_from(tensor.desc.as_ref()?.dtype).ok()?;
            integers(dtype, &tensor.data)
        }
        _ => None,
    }
}

fn constant(op: &OpDef, ty: &Ty) -> Result<(), String> {
    let Some(Attribute::Tensor(tensor)) = op.attr.get("value").and_then(|a| a.value.as_ref()) else {
        return Err("a constant without a value".into());
    };
    let own = tensor.desc.as_ref().map(described).transpose()?;
    if own.as_ref() != Some(ty) || tensor.data.len() as u64 != ty.bytes() {
        return Err(format!("its value of {} bytes is no {ty}", tensor.data.len()));
    }
    Ok(())
}

fn described(desc: &TensorDescriptor) -> Result<Ty, String> {
    let dtype = DataType::try_from(desc.dtype).map_err(|_| format!("element type {} is not known", desc.dtype))?;
    let shape = desc.shape.as_ref().map(|s| s.dim.clone()).unwrap_or_default();
    match shape.iter().all(|&size| size >= 0) {
        true => Ok(Ty { dtype, shape }),
        false => Err(format!("the sizes {shape:?} are not fixed")),
    }
}

/// The operator's own attributes; those that begin with `_` are GE's.
fn attributes(spec: &'static Operator, op: &OpDef) -> Result<Vec<(&'static str, Value)>, String> {
    let mut out = vec![];
    for attr in spec.attributes {
        let value = op.attr.get(attr.name).and_then(|a| a.value.as_ref());
        let value = match (attr.preset, value) {
            (Preset::RequiredTensor, _) => continue,
            (Preset::RequiredInt | Preset::RequiredText, None) => {
                return Err(format!("it lacks its attribute `{}`", attr.name));
            }
            (Preset::Int(i), None) => Value::Int(i),
            (Preset::Float(f), None) => Value::Float(f),
            (Preset::Bool(b), None) => Value::Bool(b),
            (Preset::Text(t), None) => Value::Text(t.into()),
            (Preset::Ints(v), None) => Value::Ints(v.to_vec()),
            (Preset::Int(_) | Preset::RequiredInt, Some(Attribute::Int(i))) => Value::Int(*i),
            (Preset::Float(_), Some(Attribute::Float(f))) => Value::Float(*f),
            (Preset::Bool(_), Some(Attribute::Bool(b))) => Value::Bool(*b),
            (Preset::Text(_) | Preset::RequiredText, Some(Attribute::Text(t))) => {
                Value::Text(String::from_utf8_lossy(t).into_owned())
            }
            (Preset::Ints(_), Some(Attribute::List(list))) => Value::Ints(list.i.clone()),
            (_, Some(_)) => return Err(format!("its attribute `{}` is of another kind", attr.name)),
        };
        out.push((attr.name, value));
    }
    let known = |name: &str| name.starts_with('_') || spec.attributes.iter().any(|a| a.name == name);
    match op.attr.keys().find(|name| !known(name)) {
        Some(name) => Err(format!("{} has no attribute `{name}`", spec.name)),
        None => Ok(out),
    }
}

fn int(op: &OpDef, name: &str) -> Option<i64> {
    match op.attr.get(name) {
        Some(AttrDef { value: Some(Attribute::Int(i)) }) => Some(*i),
        _ => None,
    }
}
