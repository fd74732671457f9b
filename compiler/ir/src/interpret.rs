//! The reference interpreter: the one meaning that every target must agree with.

use crate::{Array, Call, Function, Id, Inst, Module, NodeId, Type};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Every result rounds to its declared type (`work` as f32).
    Declared,
    /// Nothing floating rounds: for finite differences and references.
    Exact,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Tensor(Array),
    Stack(Vec<Array>),
    Tuple(Vec<Value>),
}

impl Value {
    pub fn tensor(&self) -> &Array {
        match self {
            Value::Tensor(a) => a,
            _ => panic!("a verified module reads tensors where tensors are"),
        }
    }

    fn stack(&self) -> &[Array] {
        match self {
            Value::Stack(items) => items,
            _ => panic!("a verified module reads stacks where stacks are"),
        }
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Value::Tensor(array)
    }
}

/// Runs functions of a module that [`crate::verify`] accepts.
pub struct Interpreter<'m> {
    pub module: &'m Module,
    pub precision: Precision,
}

impl<'m> Interpreter<'m> {
    pub fn new(module: &'m Module, precision: Precision) -> Self {
        Self { module, precision }
    }

    pub fn call(&self, function: Id<Function>, args: &[Value]) -> Vec<Value> {
        self.run(&self.module.functions[function], args)
    }

    /// Results of `function` on `args`; a plain function of no module may be run too if it calls none.
    pub fn run(&self, function: &Function, args: &[Value]) -> Vec<Value> {
        let live = function.live();
        let mut last_use = vec![usize::MAX; function.nodes.len()];
        for (id, node) in function.nodes.iter() {
            for arg in &node.args {
                last_use[arg.index()] = id.index();
            }
        }
        for r in &function.results {
            last_use[r.index()] = usize::MAX;
        }
        let mut values: Vec<Option<Value>> = vec![None; function.nodes.len()];
        for (id, node) in function.nodes.iter() {
            if !live[id.index()] {
                continue;
            }
            values[id.index()] = Some(self.node(function, id, args, &values));
            for arg in &node.args {
                if last_use[arg.index()] == id.index() {
                    values[arg.index()] = None;
                }
            }
        }
        let result = |r: &NodeId| values[r.index()].clone().expect("results are live");
        function.results.iter().map(result).collect()
    }

    fn node(&self, function: &Function, id: NodeId, args: &[Value], values: &[Option<Value>]) -> Value {
        let node = &function.nodes[id];
        let operand = |i: usize| values[node.args[i].index()].as_ref().expect("operands come before their users");
        match &node.inst {
            Inst::Param(i) => retype(args[*i].clone(), &node.ty),
            Inst::Get(i) => match operand(0) {
                Value::Tuple(items) => items[*i].clone(),
                Value::Stack(items) => Value::Tensor(items[*i].clone()),
                other => other.clone(),
            },
            Inst::Call(call) => {
                let operands: Vec<Value> = (0..node.args.len()).map(|i| operand(i).clone()).collect();
                let mut results = self.repeat(call, &operands);
                for (i, r) in results.iter_mut().enumerate() {
                    let ty = match &node.ty {
                        Type::Tuple(items) => &items[i],
                        ty => ty,
                    };
                    *r = retype(std::mem::replace(r, Value::Tuple(vec![])), ty);
                }
                if matches!(node.ty, Type::Tuple(_)) { Value::Tuple(results) } else { results.remove(0) }
            }
            Inst::Chunk { count } => {
                let Type::Stack { of, .. } = &node.ty else { panic!("`chunk` makes a stack") };
                let (size, data) = (of.elements(), &operand(0).tensor().data);
                let piece = |i: usize| Array::new(of.clone(), data[i * size..(i + 1) * size].to_vec());
                Value::Stack((0..*count).map(piece).collect())
            }
            Inst::Unchunk => {
                let data = operand(0).stack().iter().flat_map(|a| a.data.iter().copied()).collect();
                Value::Tensor(Array::new(node.ty.tensor().expect("`unchunk` makes a tensor").clone(), data))
            }
            Inst::Repeat { count } => Value::Stack(vec![operand(0).tensor().clone(); *count]),
            Inst::Op(op) => {
                let operands: Vec<&Array> = (0..node.args.len()).map(|i| operand(i).tensor()).collect();
                let types: Vec<_> = node.ty.tensors().cloned().collect();
                let mut results: Vec<Value> =
                    op.eval(&operands, &types).into_iter().map(|a| Value::Tensor(self.round(a))).collect();
                if matches!(node.ty, Type::Tuple(_)) { Value::Tuple(results) } else { results.remove(0) }
            }
        }
    }

    fn repeat(&self, call: &Call, operands: &[Value]) -> Vec<Value> {
        let Some(times) = call.times else { return self.call(call.callee, operands) };
        let callee = &self.module.functions[call.callee];
        let mut args = operands.to_vec();
        let mut stacks: Vec<Vec<Option<Array>>> = vec![vec![None; times]; callee.results.len() - call.carried];
        for turn in 0..times {
            let i = if call.reverse { times - 1 - turn } else { turn };
            for (k, operand) in operands.iter().enumerate().skip(call.carried + call.shared) {
                args[k] = Value::Tensor(operand.stack()[i].clone());
            }
            let mut results = self.run(callee, &args).into_iter();
            for slot in args.iter_mut().take(call.carried) {
                *slot = results.next().expect("as many results as carried values");
            }
            for (stack, result) in stacks.iter_mut().zip(results) {
                stack[i] = Some(result.tensor().clone());
            }
        }
        args.truncate(call.carried);
        args.extend(stacks.into_iter().map(|s| Value::Stack(s.into_iter().flatten().collect())));
        args
    }

    fn round(&self, mut array: Array) -> Array {
        let dtype = array.ty.dtype;
        if self.precision == Precision::Declared || !dtype.is_float() {
            for v in &mut array.data {
                *v = dtype.round(*v);
            }
        }
        array
    }
}

/// Dims may have other names on the two sides of a call.
fn retype(value: Value, ty: &Type) -> Value {
    match (value, ty) {
        (Value::Tensor(a), Type::Tensor(ty)) => Value::Tensor(Array { ty: ty.clone(), data: a.data }),
        (Value::Stack(items), Type::Stack { of, .. }) => {
            Value::Stack(items.into_iter().map(|a| Array { ty: of.clone(), data: a.data }).collect())
        }
        (value, _) => value,
    }
}
