//! Where operators stand along the chain of blocks: behind how many stacks of them.
//!
//! `stages` cuts a pipeline between blocks, so what stands before a stack and what stands behind it may be on different
//! ranks. A backward goes the chain back: what follows it stands where the forward of its stack began.

use std::collections::{HashMap, HashSet};

use ir::{Call, Class, Function, Holds, Id, Input, Inst, Module, Node, NodeId, Type};

/// Where an operator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// Any rank can do it for itself. And inside blocks, where nothing is parted.
    Anywhere,
    /// It follows from parameters alone and is kept apart, since it is the same for all micro-batches: with the first that
    /// reads it, if that is known.
    ParamsOnly(Option<u32>),
    At(u32),
}

pub struct Chain {
    /// By function and node.
    pub links: Vec<Vec<Link>>,
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
    ParamsOnly(usize),
    /// What the optimiser keeps of that parameter.
    Moment(usize),
    /// Work that stands there.
    At(u32),
    Tuple(Vec<Value>),
}

pub fn chain(module: &Module) -> Chain {
    let links = module.functions.iter().map(|(_, f)| vec![Link::Anywhere; f.nodes.len()]).collect();
    let mut walk = Walk {
        module,
        chain: Chain { links, stacks: HashSet::new() },
        ends: HashMap::new(),
        homes: HashMap::new(),
        last: 0,
    };
    for program in &module.programs {
        let root = |name: &str| module.parameters.get_index_of(name);
        let input = |input: &Input| match input {
            Input::Parameter(name) => root(name).map(Value::ParamsOnly),
            Input::State(name) => module.states.get(name).and_then(|s| s.of.as_ref()).and_then(|(holds, of)| {
                let value = if *holds == Holds::Copy { Value::ParamsOnly } else { Value::Moment };
                root(of).map(value)
            }),
            Input::Feed(_) => Some(Value::Common { fed: true }),
        };
        let inputs = program.inputs.iter().map(|i| input(i).unwrap_or(Value::Common { fed: false })).collect();
        walk.function(program.function, inputs);
    }
    walk.chain
}

struct Walk<'m> {
    module: &'m Module,
    chain: Chain,
    /// By parameter of a stack: the links before and behind it.
    ends: HashMap<usize, (u32, u32)>,
    /// By parameter: the first link that reads it.
    homes: HashMap<usize, u32>,
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
                Inst::Chunk { .. } | Inst::Unchunk | Inst::Repeat { .. } => values[node.args[0].index()].clone(),
                Inst::Op(_) => self.worked(function, node, &values),
                Inst::Call(call) => self.call((id, at), call, &values),
            };
            values.push(value);
        }
        self.chain.links[id.index()] = links(function, &values);
        function.results.iter().map(|r| values[r.index()].clone()).collect()
    }

    /// An update is where its parameter is read first. Other work is where its largest operand is, and of equal ones the last;
    /// the first work on a feed and a parameter begins the chain.
    fn worked(&mut self, function: &Function, node: &Node, values: &[Value]) -> Value {
        let operands = || node.args.iter().map(|a| (bytes(function.ty(*a)), &values[a.index()]));
        let placed = operands().filter_map(|(bytes, value)| Some((bytes, link(value)?))).max().map(|(_, link)| link);
        let fed = operands().any(|(_, value)| matches!(value, Value::Common { fed: true }));
        let roots = || operands().filter_map(|(_, v)| if let Value::ParamsOnly(root) = v { Some(*root) } else { None });
        let moment = operands().find_map(|(_, v)| if let Value::Moment(root) = v { Some(*root) } else { None });
        let at = match (moment, roots().next()) {
            (Some(root), _) if placed.is_some() => self.homes.get(&root).copied().or(placed),
            (Some(root), None) => return Value::Moment(root),
            (None, Some(root)) if placed.is_none() && !fed => return Value::ParamsOnly(root),
            (None, None) if placed.is_none() => return Value::Common { fed },
            _ => placed,
        };
        let at = at.unwrap_or(0);
        for root in roots() {
            let home = self.homes.entry(root).or_insert(at);
            *home = at.min(*home);
        }
        Value::At(at)
    }

    fn call(&mut self, at: (Id<Function>, NodeId), call: &Call, values: &[Value]) -> Value {
        let args = &self.module.functions[at.0].nodes[at.1].args;
        let args: Vec<Value> = args.iter().map(|a| values[a.index()].clone()).collect();
        let root = |arg: &Value| if let Value::ParamsOnly(root) = arg { Some(*root) } else { None };
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

/// What work alone reads is part of that work: casts of parameters, and what any rank can do if its readers are in one
/// place.
fn links(function: &Function, values: &[Value]) -> Vec<Link> {
    let (users, returned) = (function.users(), function.returned());
    let mut links = vec![Link::Anywhere; values.len()];
    for (id, node) in function.nodes.iter().rev() {
        let readers = || users[id.index()].iter().map(|u| (&function.nodes[*u].inst, links[u.index()]));
        let works = |inst: &Inst| matches!(inst, Inst::Op(op) if op.class() != Class::Collective);
        let places = || {
            readers().map(|(inst, link)| if let (true, Link::At(at)) = (works(inst), link) { Some(at) } else { None })
        };
        let first = places().flatten().min();
        let is_read = matches!(node.inst, Inst::Op(_)) && !returned[id.index()] && places().all(|p| p.is_some());
        links[id.index()] = match (&values[id.index()], first) {
            (Value::ParamsOnly(_), Some(first)) if is_read => Link::At(first),
            (Value::Common { .. }, Some(first)) if is_read && places().all(|p| p == Some(first)) => Link::At(first),
            (Value::ParamsOnly(_), _) => {
                let reader =
                    |(_, link)| if let Link::At(at) | Link::ParamsOnly(Some(at)) = link { Some(at) } else { None };
                Link::ParamsOnly(readers().filter_map(reader).min())
            }
            (value, _) => link(value).map_or(Link::Anywhere, Link::At),
        };
    }
    links
}

fn bytes(ty: &Type) -> usize {
    match ty {
        Type::Tuple(items) => items.iter().map(bytes).sum(),
        one => one.count() * one.element().map_or(0, |t| t.bytes()),
    }
}
