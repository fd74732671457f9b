//! Where operators stand along the chain of blocks: behind how many stacks of them.
//!
//! `schedule` cuts a pipeline between blocks, so what stands before a stack and what stands behind it may be on different
//! ranks. A backward goes the chain back: what follows it stands where the forward of its stack began.

use std::collections::{HashMap, HashSet};

use ir::{Call, Function, Id, Input, Inst, Module, Node, NodeId, Type};

pub struct Chain {
    /// By function and node; none for what every rank can do for itself, and inside blocks.
    pub links: Vec<Vec<Option<u32>>>,
    /// Repeated calls whose turns have parameters of their own.
    pub stacks: HashSet<(Id<Function>, NodeId)>,
}

/// What a value follows from.
#[derive(Clone)]
enum Value {
    /// Counters and constants, and feeds if it is fed.
    Common {
        fed: bool,
    },
    /// Parameters alone, of which this is one.
    Rooted(usize),
    /// Work that stands there.
    At(u32),
    Tuple(Vec<Value>),
}

pub fn chain(module: &Module) -> Chain {
    let links = module.functions.iter().map(|(_, f)| vec![None; f.nodes.len()]).collect();
    let mut walk = Walk { module, chain: Chain { links, stacks: HashSet::new() }, ends: HashMap::new(), last: 0 };
    let mut roots = 0;
    for program in &module.programs {
        let input = |input: &Input| {
            let root = match input {
                Input::Parameter(_) => true,
                // Moments and master weights are named after their parameters.
                Input::State(name) => name.contains('/'),
                Input::Feed(_) => return Value::Common { fed: true },
            };
            roots += usize::from(root);
            if root { Value::Rooted(roots) } else { Value::Common { fed: false } }
        };
        let inputs = program.inputs.iter().map(input).collect();
        walk.function(program.function, inputs);
    }
    walk.chain
}

struct Walk<'m> {
    module: &'m Module,
    chain: Chain,
    /// By parameter of a stack: the links before and behind it.
    ends: HashMap<usize, (u32, u32)>,
    last: u32,
}

impl Walk<'_> {
    fn function(&mut self, id: Id<Function>, args: Vec<Value>) -> Vec<Value> {
        let function = &self.module.functions[id];
        let mut values: Vec<Value> = vec![];
        for (at, node) in function.nodes.iter() {
            let value = match &node.inst {
                Inst::Param(i) => args[*i].clone(),
                Inst::Get(i) => item(&values[node.args[0].index()], *i),
                Inst::Chunk { .. } | Inst::Unchunk | Inst::Spread { .. } => values[node.args[0].index()].clone(),
                Inst::Op(_) => worked(function, node, &values),
                Inst::Call(call) => self.call((id, at), call, &values),
            };
            values.push(value);
        }
        let mut links: Vec<Option<u32>> = values.iter().map(link).collect();
        follow_readers(function, &values, &mut links);
        self.chain.links[id.index()] = links;
        function.results.iter().map(|r| values[r.index()].clone()).collect()
    }

    fn call(&mut self, at: (Id<Function>, NodeId), call: &Call, values: &[Value]) -> Value {
        let args = &self.module.functions[at.0].nodes[at.1].args;
        let args: Vec<Value> = args.iter().map(|a| values[a.index()].clone()).collect();
        let root = |arg: &Value| if let Value::Rooted(root) = arg { Some(*root) } else { None };
        let stacked = args.iter().enumerate().filter(|(i, _)| call.is_stacked(*i));
        let roots: Vec<usize> = stacked.filter_map(|(_, arg)| root(arg)).collect();
        if call.carried == 0 || roots.is_empty() {
            let mut results = self.function(call.callee, args);
            return if results.len() == 1 { results.remove(0) } else { Value::Tuple(results) };
        }
        self.chain.stacks.insert(at);
        let known = roots.iter().find_map(|root| self.ends.get(root).copied());
        let (before, behind) = known.unwrap_or_else(|| {
            self.last += 1;
            (args.iter().filter_map(link).max().unwrap_or(0), self.last)
        });
        for root in roots {
            self.ends.entry(root).or_insert((before, behind));
        }
        Value::At(if call.reverse { before } else { behind })
    }
}

fn item(value: &Value, i: usize) -> Value {
    match value {
        Value::Tuple(items) => items[i].clone(),
        value => value.clone(),
    }
}

fn link(value: &Value) -> Option<u32> {
    match value {
        Value::At(link) => Some(*link),
        Value::Tuple(items) => items.iter().filter_map(link).max(),
        _ => None,
    }
}

/// Where its largest operand is, and of equal ones the last. The first work on a feed and a parameter begins the chain.
fn worked(function: &Function, node: &Node, values: &[Value]) -> Value {
    let operands = || node.args.iter().map(|a| (bytes(function.ty(*a)), &values[a.index()]));
    let placed = operands().filter_map(|(bytes, value)| Some((bytes, link(value)?))).max();
    if let Some((_, link)) = placed {
        return Value::At(link);
    }
    let fed = operands().any(|(_, value)| matches!(value, Value::Common { fed: true }));
    let root = operands().find_map(|(_, value)| if let Value::Rooted(root) = value { Some(*root) } else { None });
    match root {
        Some(_) if fed => Value::At(0),
        Some(root) => Value::Rooted(root),
        None => Value::Common { fed },
    }
}

/// What follows from parameters alone stands with the first that reads it; what any rank can do, with its readers if
/// they stand in one place.
fn follow_readers(function: &Function, values: &[Value], links: &mut [Option<u32>]) {
    let users = function.users();
    for (id, node) in function.nodes.iter().rev() {
        if links[id.index()].is_some() || !matches!(node.inst, Inst::Op(_) | Inst::Get(_)) {
            continue;
        }
        let mut readers = users[id.index()].iter().map(|u| links[u.index()]);
        links[id.index()] = match &values[id.index()] {
            Value::Rooted(_) => readers.flatten().min(),
            _ if function.results.contains(&id) => None,
            _ => readers.next().flatten().filter(|first| readers.all(|link| link == Some(*first))),
        };
    }
}

fn bytes(ty: &Type) -> usize {
    match ty {
        Type::Tuple(items) => items.iter().map(bytes).sum(),
        one => one.count() * one.element().map_or(0, |t| t.bytes()),
    }
}
