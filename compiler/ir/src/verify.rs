//! The verifier of modules. After it, these hold:
//! - functions have distinct names, and so have programs; names read back from text;
//! - operands come before their users, and each is a node of the same function;
//! - the n-th parameter of a function is its only node that says so;
//! - parameters and results of a function are tensors or stacks, not tuples;
//! - every type is what the operator, call or structure infers from its operands;
//! - a function calls only functions that stand before it in the module (so there is no recursion), and calls nest at most
//!   [`MAX_CALLS`] deep;
//! - the dims of a tensor have distinct names, and each has an element at least; no tensor, stack, number of calls or
//!   operator's work is beyond the limits of `types`;
//! - every input and output of a program names a parameter or state of the module, and has its type;
//! - a step writes each parameter and state at most once, and a loss is one floating number;
//! - at [`Level::Sharded`], operands and results of each operator are cut as its factors allow, and no change of
//!   sharding hides outside a `reshard`;
//! - at [`Level::Local`], inputs and outputs of programs are a rank's parts of the tensors they name.

use std::collections::HashSet;
use std::fmt;

use types::{MAX_FLOP, MAX_PADDED_ELEMENTS, MAX_STACK};

use crate::{Assignment, Function, Id, Input, Inst, Level, Module, NodeId, Op, Output, Sharding, Type, same_sizes};

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

/// Calls within calls; passes follow them by recursion.
pub const MAX_CALLS: usize = 256;

pub fn verify(module: &Module) -> Result<(), Vec<Violation>> {
    let mut found: Vec<Violation> = too_deep(module).into_iter().collect();
    let mut names: HashSet<&str> = HashSet::new();
    let kept = module.parameters.iter().map(|(name, p)| (name, &p.ty));
    for (name, ty) in kept.chain(module.states.iter().map(|(name, s)| (name, &s.ty))) {
        if let Err(message) = dims(ty) {
            found.push(Violation { function: None, node: None, message: format!("`{name}`: {message}") });
        }
    }
    for (name, state) in &module.states {
        if let Some(of) = state.parameter().filter(|of| !module.parameters.contains_key(*of)) {
            let message = format!("the state `{name}` belongs to `{of}`, and there is no such parameter");
            found.push(Violation { function: None, node: None, message });
        }
    }
    for (id, function) in module.functions.iter() {
        if !names.insert(function.name.as_str()) {
            let message = format!("a second function is called @{}", function.name);
            found.push(Violation { function: Some(id), node: None, message });
        }
        for (node, message) in function_violations(module, id, function) {
            found.push(Violation { function: Some(id), node, message: format!("in @{}: {message}", function.name) });
        }
    }
    for (i, program) in module.programs.iter().enumerate() {
        if module.programs[..i].iter().any(|p| p.name == program.name) {
            let message = format!("a second program is called {}", program.name);
            found.push(Violation { function: Some(program.function), node: None, message });
        }
        for message in program_violations(module, program) {
            let message = format!("program {}: {message}", program.name);
            found.push(Violation { function: Some(program.function), node: None, message });
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// The first function in which calls nest too deep.
fn too_deep(module: &Module) -> Option<Violation> {
    let mut depths = vec![0; module.functions.len()];
    for (id, function) in module.functions.iter() {
        for (_, node) in function.nodes.iter() {
            // A call of what does not stand before it is reported by itself.
            if let Inst::Call(call) = &node.inst
                && call.callee < id
            {
                depths[id.index()] = depths[id.index()].max(depths[call.callee.index()] + 1);
            }
        }
        if depths[id.index()] > MAX_CALLS {
            let message = format!("calls in @{} nest more than {MAX_CALLS} deep", function.name);
            return Some(Violation { function: Some(id), node: None, message });
        }
    }
    None
}

fn function_violations(module: &Module, at: Id<Function>, function: &Function) -> Vec<(Option<NodeId>, String)> {
    let mut found = vec![];
    if !readable(&function.name, "(") {
        found.push((None, "a function's name has no spaces and no parentheses".into()));
    }
    let exists = |id: &NodeId| id.index() < function.nodes.len();
    for (i, p) in function.params.iter().enumerate() {
        if !exists(p) || !matches!(function.nodes[*p].inst, Inst::Param(n) if n == i) {
            found.push((None, format!("{p} is listed as parameter {i}, but is not")));
        }
    }
    for r in function.results.iter().filter(|r| !exists(r)) {
        found.push((None, format!("returns {r}, which does not exist")));
    }
    if !found.is_empty() {
        return found;
    }
    for id in function.params.iter().chain(&function.results) {
        if matches!(function.ty(*id), Type::Tuple(_)) {
            found.push((Some(*id), "a tuple crosses the border of a function".into()));
        }
    }
    for (id, node) in function.nodes.iter() {
        if let Some(arg) = node.args.iter().find(|a| a.index() >= id.index()) {
            found.push((Some(id), format!("reads {arg}, which is not computed before it")));
            continue;
        }
        let sound = node_type(module, at, function, id).and_then(|()| dims(&node.ty));
        if let Err(message) = sound.and_then(|()| node_sharding(module, function, id)) {
            found.push((Some(id), message));
        }
    }
    found
}

/// At the sharded level, that the node's operands are held as it takes them.
fn node_sharding(module: &Module, function: &Function, id: NodeId) -> Result<(), String> {
    if module.level != Level::Sharded {
        return Ok(());
    }
    let node = &function.nodes[id];
    let held = |i: usize| function.nodes[node.args[i]].sharding(0);
    let same = |a: &Sharding, b: &Sharding, what: &str| {
        if a.same(b) { Ok(()) } else { Err(format!("{what} is not sharded as it is used")) }
    };
    match &node.inst {
        Inst::Param(_) | Inst::Op(Op::Reshard(_)) => Ok(()),
        Inst::Get(i) => same(&function.nodes[node.args[0]].sharding(*i), &node.sharding(0), "the item"),
        Inst::Chunk { .. } | Inst::Unchunk | Inst::Repeat { .. } => same(&held(0), &node.sharding(0), "the operand"),
        Inst::Call(call) => {
            let callee = &module.functions[call.callee];
            for (i, p) in callee.params.iter().enumerate() {
                same(&held(i), &callee.nodes[*p].sharding(0), &format!("operand {i}"))?;
            }
            for (i, r) in callee.results.iter().enumerate() {
                same(&callee.nodes[*r].sharding(0), &node.sharding(i), &format!("result {i}"))?;
            }
            Ok(())
        }
        Inst::Op(op) => {
            let types: Option<Vec<_>> = node.args.iter().map(|&a| function.ty(a).tensor()).collect();
            let types = types.ok_or("takes tensors only")?;
            let results: Vec<_> = node.ty.tensors().cloned().collect();
            let factors = op.factors(&types, &results);
            let args: Vec<Sharding> = (0..node.args.len()).map(held).collect();
            let given: Vec<Sharding> = (0..results.len()).map(|i| node.sharding(i)).collect();
            Assignment::of(&module.mesh, &factors, &args, &given).map(|_| ())
        }
    }
}

/// That the dims of each tensor have distinct names that read back from text, and sizes within the limits.
fn dims(ty: &Type) -> Result<(), String> {
    if let Type::Tuple(items) = ty {
        return items.iter().try_for_each(dims);
    }
    if let Type::Stack { count, of } = ty {
        repeated(*count).map_err(|e| format!("a stack of `{of}` {e}"))?;
    }
    let Some(ty) = ty.element() else { return Ok(()) };
    ty.check_size(MAX_PADDED_ELEMENTS).map_err(|e| e.to_string())?;
    for (i, dim) in ty.dims.iter().enumerate() {
        if ty.dims[..i].iter().any(|d| d.name == dim.name) {
            return Err(format!("`{ty}` has dim {} twice", dim.name));
        }
        if !readable(&dim.name, ",:[]") {
            return Err(format!("`{ty}` has a dim called {:?}", dim.name));
        }
    }
    Ok(())
}

fn repeated(count: usize) -> Result<(), String> {
    match count {
        0 => Err("has nothing in it".into()),
        1..=MAX_STACK => Ok(()),
        _ => Err(format!("has {count} in it, at most {MAX_STACK}")),
    }
}

fn readable(name: &str, delimiters: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || delimiters.contains(c))
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
        (Inst::Get(i), [Type::Stack { count, of }]) if i < count => Type::Tensor(of.clone()),
        (Inst::Call(call), _) => {
            if call.callee >= at {
                return Err("calls a function that does not stand before it".into());
            }
            let callee = &module.functions[call.callee];
            if callee.params.iter().chain(&callee.results).any(|id| id.index() >= callee.nodes.len()) {
                return Err(format!("calls @{}, which is broken itself", callee.name));
            }
            if let Some(times) = call.times.filter(|times| !(1..=MAX_STACK).contains(times)) {
                return Err(format!("repeats @{} {times} times, at least once and at most {MAX_STACK}", callee.name));
            }
            call.infer(callee, &types).map_err(|m| m.to_string())?
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
            let first = ty.dims.first_mut().ok_or("joins a stack of scalars")?;
            first.size = first.size.saturating_mul(*count);
            Type::Tensor(ty)
        }
        (Inst::Repeat { count }, [Type::Tensor(of)]) => Type::Stack { count: *count, of: of.clone() },
        (Inst::Op(op), _) => {
            let tensors: Option<Vec<_>> = types.iter().map(|t| t.tensor()).collect();
            let tensors = tensors.ok_or_else(|| format!("`{}` takes tensors only", op.name()))?;
            tensors.iter().try_for_each(|ty| ty.check_size(MAX_PADDED_ELEMENTS)).map_err(|e| e.to_string())?;
            let mut results = op.infer(&tensors).map_err(|m| m.to_string())?;
            results.iter().try_for_each(|ty| ty.check_size(MAX_PADDED_ELEMENTS)).map_err(|e| e.to_string())?;
            if op.flops(&tensors, &results) > MAX_FLOP {
                return Err(format!("`{}` takes more than 2^{} FLOP", op.name(), MAX_FLOP.ilog2()));
            }
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
    if function.params.iter().chain(&function.results).any(|id| id.index() >= function.nodes.len()) {
        return found;
    }
    if program.inputs.len() != function.params.len() || program.outputs.len() != function.results.len() {
        found.push("inputs and outputs do not match the function's signature".into());
    }
    let mut check = |what: &str, name: &str, declared: Option<&Type>, ty: &Type| match declared {
        None => found.push(format!("there is no {what} `{name}`")),
        Some(d) if !same_sizes(d, ty) => found.push(format!("{what} `{name}` is `{d}`, the program uses `{ty}`")),
        Some(_) => {}
    };
    let local = (module.level == Level::Local).then_some(&program.logical);
    let held = |i: usize, ty: &Type| match local.and_then(|l| l.get(i)) {
        Some(logical) => ty.map(&|_| logical.ty.clone()),
        None => ty.clone(),
    };
    if let Some(logical) = local {
        let types = function.param_types().chain(function.result_types());
        let wrong = logical.len() != program.inputs.len() + program.outputs.len()
            || types
                .zip(logical)
                .any(|(ty, l)| ty.element().is_none_or(|t| module.mesh.local(&l.ty, &l.cuts).sizes() != t.sizes()));
        if wrong {
            return vec!["its inputs and outputs are not parts of the tensors they are of".into()];
        }
    }
    let inputs = function.param_types().enumerate().map(|(i, ty)| held(i, ty));
    for (input, ty) in program.inputs.iter().zip(inputs) {
        let ty = &ty;
        match input {
            Input::Parameter(n) => check("parameter", n, module.parameters.get(n).map(|p| &p.ty), ty),
            Input::State(n) => check("state", n, module.states.get(n).map(|s| &s.ty), ty),
            Input::Feed(_) => {}
        }
    }
    let outputs = function.result_types().enumerate().map(|(i, ty)| held(program.inputs.len() + i, ty));
    for (output, ty) in program.outputs.iter().zip(outputs) {
        let ty = &ty;
        match output {
            Output::Parameter(n) | Output::Gradient(n) => {
                check("parameter", n, module.parameters.get(n).map(|p| &p.ty), ty);
            }
            Output::State(n) => check("state", n, module.states.get(n).map(|s| &s.ty), ty),
            Output::Loss(_) | Output::Emit(_) | Output::Probe(_) => {}
        }
    }
    let mut written: HashSet<(bool, &str)> = HashSet::new();
    for (output, ty) in program.outputs.iter().zip(function.result_types()) {
        match output {
            Output::Parameter(n) | Output::State(n)
                if !written.insert((matches!(output, Output::Parameter(_)), n.as_str())) =>
            {
                found.push(format!("`{n}` is written twice"));
            }
            Output::Loss(n) if !ty.tensor().is_some_and(|t| t.rank() == 0 && t.dtype.is_float()) => {
                found.push(format!("loss `{n}` is `{ty}`, not one floating number"));
            }
            _ => {}
        }
    }
    found
}
