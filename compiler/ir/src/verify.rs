//! The verifier of modules. After it, these hold:
//! - operands come before their users, and each is a node of the same function;
//! - every type is what the operator, call or structure infers from its operands;
//! - a function calls only functions that stand before it in the module (so there is no recursion);
//! - the dims of a tensor have distinct names;
//! - every input and output of a program names a parameter or state of the module, and has its type.

use std::fmt;

use crate::{Function, Id, Input, Inst, Module, NodeId, Output, Type, same_sizes};

/// One broken invariant, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub function: Option<Id<Function>>,
    pub node: Option<NodeId>,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node {
            Some(node) => write!(f, "{node}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

pub fn verify(module: &Module) -> Result<(), Vec<Violation>> {
    let mut found = vec![];
    for (id, function) in module.functions.iter() {
        for (node, message) in function_violations(module, id, function) {
            found.push(Violation { function: Some(id), node, message: format!("in @{}: {message}", function.name) });
        }
    }
    for program in &module.programs {
        for message in program_violations(module, program) {
            let message = format!("program {}: {message}", program.name);
            found.push(Violation { function: Some(program.function), node: None, message });
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn function_violations(module: &Module, at: Id<Function>, function: &Function) -> Vec<(Option<NodeId>, String)> {
    let mut found = vec![];
    for (id, node) in function.nodes.iter() {
        if let Some(arg) = node.args.iter().find(|a| a.index() >= id.index()) {
            found.push((Some(id), format!("reads {arg}, which is not computed before it")));
            continue;
        }
        if let Err(message) = node_type(module, at, function, id) {
            found.push((Some(id), message));
        }
        if let Some(ty) = node.ty.element()
            && let Some(i) = (1..ty.rank()).find(|&i| ty.dims[..i].iter().any(|d| d.name == ty.dims[i].name))
        {
            found.push((Some(id), format!("`{ty}` has dim {} twice", ty.dims[i].name)));
        }
    }
    for r in &function.results {
        if r.index() >= function.nodes.len() {
            found.push((None, format!("returns {r}, which does not exist")));
        }
    }
    found
}

fn node_type(module: &Module, at: Id<Function>, function: &Function, id: NodeId) -> Result<(), String> {
    let node = &function.nodes[id];
    let types: Vec<&Type> = node.args.iter().map(|&a| function.ty(a)).collect();
    let expected = match (&node.inst, types.as_slice()) {
        (Inst::Param(i), []) => {
            if function.params.get(*i) != Some(&id) {
                return Err(format!("is not parameter {i} of the function"));
            }
            node.ty.clone()
        }
        (Inst::Get(i), [Type::Tuple(items)]) => items.get(*i).cloned().ok_or("reads past the end of a tuple")?,
        (Inst::Call(call), _) => {
            if call.callee >= at {
                return Err("calls a function that does not stand before it".into());
            }
            call.infer(&module.functions[call.callee], &types).map_err(|m| m.to_string())?
        }
        (Inst::Chunk { count }, [Type::Tensor(ty)]) => {
            let mut of = ty.clone();
            match of.dims.first_mut() {
                Some(d) if *count > 0 && d.size.is_multiple_of(*count) => d.size /= count,
                _ => return Err(format!("`{ty}` does not fall into {count} chunks")),
            }
            Type::Stack { count: *count, of }
        }
        (Inst::Unchunk, [Type::Stack { count, of }]) => {
            let mut ty = of.clone();
            ty.dims.first_mut().ok_or("joins a stack of scalars")?.size *= count;
            Type::Tensor(ty)
        }
        (Inst::Spread { count }, [Type::Tensor(of)]) => Type::Stack { count: *count, of: of.clone() },
        (Inst::Op(op), _) => {
            let tensors: Option<Vec<_>> = types.iter().map(|t| t.tensor()).collect();
            let tensors = tensors.ok_or_else(|| format!("`{}` takes tensors only", op.name()))?;
            let mut results = op.infer(&tensors).map_err(|m| m.to_string())?;
            match results.len() {
                1 => Type::Tensor(results.remove(0)),
                _ => Type::Tuple(results.into_iter().map(Type::Tensor).collect()),
            }
        }
        _ => return Err("has operands of the wrong kind".into()),
    };
    // Calls may rename dims; everything else must agree to the letter.
    let agrees = if matches!(node.inst, Inst::Call(_)) { same_sizes(&expected, &node.ty) } else { expected == node.ty };
    if agrees { Ok(()) } else { Err(format!("is declared `{}` but is `{expected}`", node.ty)) }
}

fn program_violations(module: &Module, program: &crate::Program) -> Vec<String> {
    let mut found = vec![];
    let Some(function) = module.functions.get(program.function) else {
        return vec!["its function does not exist".into()];
    };
    if program.inputs.len() != function.params.len() || program.outputs.len() != function.results.len() {
        found.push("inputs and outputs do not match the function's signature".into());
    }
    let mut check = |what: &str, name: &str, declared: Option<&Type>, ty: &Type| match declared {
        None => found.push(format!("there is no {what} `{name}`")),
        Some(d) if !same_sizes(d, ty) => found.push(format!("{what} `{name}` is `{d}`, the program uses `{ty}`")),
        Some(_) => {}
    };
    for (input, ty) in program.inputs.iter().zip(function.param_types()) {
        match input {
            Input::Parameter(n) => check("parameter", n, module.parameters.get(n).map(|p| &p.ty), ty),
            Input::State(n) => check("state", n, module.states.get(n).map(|s| &s.ty), ty),
            Input::Feed(_) => {}
        }
    }
    for (output, ty) in program.outputs.iter().zip(function.result_types()) {
        match output {
            Output::Parameter(n) | Output::Gradient(n) => {
                check("parameter", n, module.parameters.get(n).map(|p| &p.ty), ty);
            }
            Output::State(n) => check("state", n, module.states.get(n).map(|s| &s.ty), ty),
            Output::Loss(_) | Output::Emit(_) => {}
        }
    }
    found
}
