//! A GE graph under construction: nodes of the table's operators, their types inferred as they are added.

use std::collections::HashMap;

use crate::check;
use crate::dtype::{DataType, Ty};
use crate::infer::{self, Site, Value};
use crate::table::{Op, Preset};

/// One output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tensor {
    pub node: usize,
    pub output: usize,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub op: Op,
    pub inputs: Vec<Option<Tensor>>,
    pub attributes: Vec<(&'static str, Value)>,
    pub outputs: Vec<Ty>,
    /// The bytes of a `Const`.
    pub data: Option<Vec<u8>>,
    /// The operator of the kernel that it was first made for: an index into what the lowering counts.
    pub origin: usize,
}

/// A graph whose every node fits.
pub struct Finished {
    pub nodes: Vec<Node>,
    /// Every use that an operator of the kernel made of a node, as (origin, node): equal nodes are one.
    pub made: Vec<(usize, usize)>,
}

/// The first mistake is noted and a placeholder goes on, so that lowerings read as formulas; [`Graph::finish`] reports it.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    /// Given to every node added from now on.
    pub origin: usize,
    made: Vec<(usize, usize)>,
    constants: HashMap<(DataType, Vec<i64>, Vec<u8>), Tensor>,
    /// Nodes by all that they are.
    known: HashMap<String, usize>,
    mistake: Option<String>,
}

impl Graph {
    pub fn fail(&mut self, message: impl Into<String>) {
        self.mistake.get_or_insert(message.into());
    }

    pub fn finish(self) -> Result<Finished, String> {
        match self.mistake {
            Some(mistake) => Err(mistake),
            None => Ok(Finished { nodes: self.nodes, made: self.made }),
        }
    }

    pub fn ty(&self, tensor: Tensor) -> &Ty {
        &self.nodes[tensor.node].outputs[tensor.output]
    }

    pub fn shape(&self, tensor: Tensor) -> Vec<i64> {
        self.ty(tensor).shape.clone()
    }

    /// The n-th input of the graph.
    pub fn data(&mut self, ty: Ty) -> Tensor {
        let index = self.nodes.iter().filter(|n| n.op == Op::Data).count();
        let attributes = vec![("index", Value::Int(index as i64))];
        self.push(Node { op: Op::Data, inputs: vec![], attributes, outputs: vec![ty], data: None, origin: self.origin })
    }

    pub fn constant(&mut self, ty: Ty, data: Vec<u8>) -> Tensor {
        let key = (ty.dtype, ty.shape.clone(), data);
        if let Some(&known) = self.constants.get(&key) {
            return known;
        }
        let data = Some(key.2.clone());
        let node =
            Node { op: Op::Const, inputs: vec![], attributes: vec![], outputs: vec![ty], data, origin: self.origin };
        let tensor = self.push(node);
        self.constants.insert(key, tensor);
        tensor
    }

    /// A list of i64.
    pub fn ints(&mut self, values: &[i64]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(Ty::new(DataType::Int64, [values.len() as i64]), data)
    }

    /// A list of i32.
    pub fn ints32(&mut self, values: &[i32]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(Ty::new(DataType::Int32, [values.len() as i64]), data)
    }

    /// One i64, as a scalar.
    pub fn int(&mut self, value: i64) -> Tensor {
        self.constant(Ty::new(DataType::Int64, []), value.to_le_bytes().to_vec())
    }

    pub fn op(&mut self, op: Op, inputs: &[Tensor], attributes: &[(&'static str, Value)]) -> Tensor {
        self.several(op, inputs, attributes)[0]
    }

    /// All outputs of a node all of whose first inputs are fed; optional ones that remain are left out.
    pub fn several(&mut self, op: Op, inputs: &[Tensor], attributes: &[(&'static str, Value)]) -> Vec<Tensor> {
        let all: Vec<Option<Tensor>> = inputs.iter().copied().map(Some).collect();
        self.node(op, &all, attributes, None)
    }

    /// All outputs of a node; inputs at the end that are not fed are left out. `declared` is the first output's element type
    /// where the operator leaves a choice.
    pub fn node(
        &mut self,
        op: Op,
        inputs: &[Option<Tensor>],
        attributes: &[(&'static str, Value)],
        declared: Option<DataType>,
    ) -> Vec<Tensor> {
        let inputs = &inputs[..inputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1)];
        let key = format!("{op:?} {inputs:?} {attributes:?} {declared:?}");
        if let Some(&node) = self.known.get(&key) {
            self.made.push((self.origin, node));
            return self.outputs(node);
        }
        self.known.insert(key, self.nodes.len());
        let spec = op.spec();
        let said = |name| attributes.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
        let mut all = vec![];
        for attr in spec.attributes {
            let value = said(attr.name).or(match attr.preset {
                Preset::Int(i) => Some(Value::Int(i)),
                Preset::Float(f) => Some(Value::Float(f)),
                Preset::Bool(b) => Some(Value::Bool(b)),
                Preset::Text(t) => Some(Value::Text(t.into())),
                Preset::Ints(v) => Some(Value::Ints(v.to_vec())),
                Preset::RequiredInt | Preset::RequiredText | Preset::RequiredTensor => None,
            });
            match value {
                Some(value) => all.push((attr.name, value)),
                None => self.fail(format!("{} lacks its attribute `{}`", spec.name, attr.name)),
            }
        }
        if let Some((name, _)) = attributes.iter().find(|(n, _)| !spec.attributes.iter().any(|a| a.name == *n)) {
            self.fail(format!("{} has no attribute `{name}`", spec.name));
        }
        let types: Vec<Option<Ty>> = inputs.iter().map(|i| i.map(|t| self.ty(t).clone())).collect();
        let constants: Vec<Option<Vec<i64>>> = inputs.iter().map(|i| i.and_then(|t| self.integers_of(t))).collect();
        let site = Site { op, inputs: &types, constants: &constants, attributes: &all, declared };
        let typed = check::ports(spec, &types).and_then(|()| infer::infer(&site));
        let typed = typed.and_then(|outputs| check::column(op, &types, &outputs).map(|()| outputs));
        let outputs = typed.unwrap_or_else(|reason| {
            let shown: Vec<String> = types.iter().map(|t| t.as_ref().map_or("-".into(), Ty::to_string)).collect();
            self.fail(format!("{}({}): {reason}", spec.name, shown.join(", ")));
            let ty = types.iter().flatten().next().cloned().unwrap_or(Ty::new(DataType::Float, []));
            vec![ty; spec.outputs.len().max(1)]
        });
        self.made.push((self.origin, self.nodes.len()));
        let node =
            self.push(Node { op, inputs: inputs.to_vec(), attributes: all, outputs, data: None, origin: self.origin });
        self.outputs(node.node)
    }

    fn outputs(&self, node: usize) -> Vec<Tensor> {
        (0..self.nodes[node].outputs.len()).map(|output| Tensor { node, output }).collect()
    }

    /// The integers of a constant.
    fn integers_of(&self, tensor: Tensor) -> Option<Vec<i64>> {
        let node = &self.nodes[tensor.node];
        node.data.as_ref().and_then(|data| integers(node.outputs[0].dtype, data))
    }

    fn push(&mut self, node: Node) -> Tensor {
        self.nodes.push(node);
        Tensor { node: self.nodes.len() - 1, output: 0 }
    }
}

/// Bytes of a constant as integers; `None` for other element types.
pub fn integers(dtype: DataType, data: &[u8]) -> Option<Vec<i64>> {
    match dtype {
        DataType::Int64 => data.chunks_exact(8).map(|b| b.try_into().ok().map(i64::from_le_bytes)).collect(),
        DataType::Int32 => {
            data.chunks_exact(4).map(|b| b.try_into().ok().map(|b| i64::from(i32::from_le_bytes(b)))).collect()
        }
        _ => None,
    }
}
