//! What lowerings share: the operator at hand with its operands, and short ways to the commonest nodes.

use ir::{Function, Inst, NodeId, Type};
use types::{DType, TensorType};

use crate::dtype::{DataType, Ty};
use crate::graph::{Graph, Tensor};
use crate::infer::Value;
use crate::table::Op;

pub struct Cx<'f> {
    pub g: Graph,
    function: &'f Function,
    node: NodeId,
    args: Vec<Tensor>,
    /// The mask that stands for every causal attention.
    pub triangle: Option<Tensor>,
}

impl<'f> Cx<'f> {
    pub fn new(function: &'f Function) -> Self {
        Self { g: Graph::default(), function, node: NodeId::new(0), args: vec![], triangle: None }
    }

    pub fn enter(&mut self, node: NodeId, args: Vec<Tensor>) {
        (self.node, self.args) = (node, args);
    }

    /// The operator's name.
    pub fn name(&self) -> &'static str {
        match &self.function.nodes[self.node].inst {
            Inst::Op(op) => op.name(),
            _ => "get",
        }
    }

    pub fn count(&self) -> usize {
        self.args.len()
    }

    pub fn arg(&self, i: usize) -> Tensor {
        self.args[i]
    }

    /// The type of operand `i`, dims by name.
    pub fn of(&self, i: usize) -> &'f TensorType {
        tensor(self.function.ty(self.function.nodes[self.node].args[i]), 0)
    }

    /// The type of result `i`.
    pub fn result(&self, i: usize) -> &'f TensorType {
        tensor(self.function.ty(self.node), i)
    }

    pub fn dtype(&self, tensor: Tensor) -> DataType {
        self.g.ty(tensor).dtype
    }

    pub fn reshape(&mut self, x: Tensor, to: &[i64]) -> Tensor {
        if self.g.ty(x).shape == to {
            return x;
        }
        let shape = self.g.ints(to);
        self.g.op(Op::Reshape, &[x, shape], &[])
    }

    pub fn transpose(&mut self, x: Tensor, order: &[usize]) -> Tensor {
        if order.iter().copied().eq(0..order.len()) {
            return x;
        }
        let order: Vec<i64> = order.iter().map(|&i| i as i64).collect();
        let perm = self.g.ints(&order);
        self.through(Op::Transpose, &[x, perm], 1, &[])
    }

    /// `x` with dim `from` moved to where `to` is.
    pub fn move_dim(&mut self, x: Tensor, from: usize, to: usize) -> Tensor {
        let mut order: Vec<usize> = (0..self.g.ty(x).shape.len()).collect();
        let dim = order.remove(from);
        order.insert(to, dim);
        self.transpose(x, &order)
    }

    pub fn broadcast(&mut self, x: Tensor, to: &[i64]) -> Tensor {
        if self.g.ty(x).shape == to {
            return x;
        }
        let shape = self.g.ints(to);
        self.g.op(Op::BroadcastTo, &[x, shape], &[])
    }

    pub fn cast(&mut self, x: Tensor, to: DataType) -> Tensor {
        if self.dtype(x) == to {
            return x;
        }
        self.g.op(Op::Cast, &[x], &[("dst_type", Value::Int(to.in_attributes()))])
    }

    /// An operator of which `count` inputs hold values of one type; where it does not take that type, through one that holds
    /// its values: f32 for sixteen bits, a byte for bool.
    pub fn through(&mut self, op: Op, inputs: &[Tensor], count: usize, attributes: &[(&'static str, Value)]) -> Tensor {
        // `SelectV2` asks a condition first; all others have their values in front.
        let first = usize::from(op == Op::SelectV2);
        let own = self.dtype(inputs[first]);
        let port = &op.spec().inputs[first];
        let wide = match own {
            _ if port.types.has(own) => own,
            DataType::Bool => DataType::Uint8,
            half if half.is_half() => DataType::Float,
            other => other,
        };
        let inputs: Vec<Tensor> = (inputs.iter().enumerate())
            .map(|(i, &x)| if (first..first + count).contains(&i) { self.cast(x, wide) } else { x })
            .collect();
        let out = self.g.op(op, &inputs, attributes);
        if self.dtype(out) == wide { self.cast(out, own) } else { out }
    }

    /// One number. CANN's constants have no bf16: those are cast, which GE folds.
    pub fn scalar(&mut self, value: f64, dtype: DataType) -> Tensor {
        self.numbers(&[value], &[], dtype)
    }

    /// One number as a tensor of one element.
    pub fn single(&mut self, value: f64, dtype: DataType) -> Tensor {
        self.numbers(&[value], &[1], dtype)
    }

    pub fn numbers(&mut self, values: &[f64], shape: &[i64], dtype: DataType) -> Tensor {
        let stored = if dtype.is_half() { DataType::Float } else { dtype };
        let round = |ty: DType, v: f64| ty.round(v);
        let data: Vec<u8> = match stored {
            DataType::Double => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DataType::Int64 => values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
            DataType::Int32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
            DataType::Bool | DataType::Uint8 => values.iter().map(|&v| u8::from(v != 0.0)).collect(),
            _ => values.iter().flat_map(|&v| (round(DType::F32, v) as f32).to_le_bytes()).collect(),
        };
        let constant = self.g.constant(Ty::new(stored, shape), data);
        self.cast(constant, dtype)
    }

    pub fn fill(&mut self, value: f64, shape: &[i64], dtype: DataType) -> Tensor {
        let (dims, value) = (self.g.ints(shape), self.scalar(value, dtype));
        self.g.op(Op::Fill, &[dims, value], &[])
    }

    /// The numbers from 0 on, as i64.
    pub fn count_up(&mut self, n: i64) -> Tensor {
        let [zero, limit, one] = [0, n, 1].map(|v| self.g.int(v));
        self.g.op(Op::Range, &[zero, limit, one], &[])
    }

    pub fn slice(&mut self, x: Tensor, offsets: &[i64], sizes: &[i64]) -> Tensor {
        let (offsets, sizes) = (self.g.ints(offsets), self.g.ints(sizes));
        self.through(Op::Slice, &[x, offsets, sizes], 1, &[])
    }

    pub fn concat(&mut self, parts: &[Tensor], dim: usize) -> Tensor {
        let axis = self.g.int(dim as i64);
        let inputs = [parts, &[axis]].concat();
        self.g.op(Op::ConcatV2, &inputs, &[("N", Value::Int(parts.len() as i64))])
    }

    /// `x`, whose dims are those of `own`, so that it broadcasts to dims named as in `to`.
    pub fn align(&mut self, x: Tensor, own: &TensorType, to: &TensorType) -> Tensor {
        let sizes: Vec<i64> = to.dims.iter().map(|d| own.size_of(&d.name).map_or(1, |s| s as i64)).collect();
        // Dims that are missing in front need no ones.
        let front = to.dims.iter().take_while(|d| own.position(&d.name).is_none()).count();
        self.reshape(x, &sizes[front..])
    }
}

fn tensor(ty: &Type, i: usize) -> &TensorType {
    const SCALAR: &TensorType = &TensorType { dtype: DType::F32, dims: smallvec::SmallVec::new_const() };
    match ty {
        Type::Tuple(items) => items.get(i).and_then(Type::tensor).unwrap_or(SCALAR),
        ty => ty.tensor().unwrap_or(SCALAR),
    }
}

/// A type's sizes as CANN counts them.
pub fn sizes(ty: &TensorType) -> Vec<i64> {
    ty.dims.iter().map(|d| d.size as i64).collect()
}
