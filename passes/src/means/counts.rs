//! Which values are 0 where nothing counts: sums over data, and what is made of them that stays 0 with them.

use ir::{Call, Function, Inst, Module, Node, NodeId, Op};
use smallvec::{SmallVec, smallvec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The same whatever the data: constants, and what is computed of them alone.
    Fixed,
    /// A sum over data, or a function of sums that is 0 at 0. Quotients by it are guarded, so they are 0 there, too.
    Count,
    /// A positive multiple of the logarithm of a count.
    Log,
    /// A negative multiple of it.
    NegativeLog,
    Other,
}

use Quantity::{Count, Fixed, Log, NegativeLog, Other};

/// For each node and each of its results; of a stack, what holds for its elements.
pub type Quantities = Vec<SmallVec<[Quantity; 1]>>;

pub fn of(module: &Module, function: &Function, params: &[Quantity]) -> Quantities {
    let mut all: Quantities = Vec::with_capacity(function.nodes.len());
    for (_, node) in function.nodes.iter() {
        let args: Vec<Quantity> = node.args.iter().map(|&a| first(&all, a)).collect();
        let one = match &node.inst {
            Inst::Param(i) => params.get(*i).copied().unwrap_or(Other),
            Inst::Get(i) => all[node.args[0].index()].get(*i).copied().unwrap_or(Other),
            Inst::Chunk { .. } | Inst::Unchunk | Inst::Repeat { .. } => joined(&args),
            Inst::Call(call) => {
                all.push(called(module, call, &args).1);
                continue;
            }
            Inst::Op(op) => applied(function, node, op, &args),
        };
        all.push(smallvec![one]);
    }
    all
}

pub fn first(all: &Quantities, node: NodeId) -> Quantity {
    all[node.index()].first().copied().unwrap_or(Other)
}

/// What the callee's parameters are in all turns of a call, and what its results are.
pub fn called(module: &Module, call: &Call, args: &[Quantity]) -> (Vec<Quantity>, SmallVec<[Quantity; 1]>) {
    let callee = &module.functions[call.callee];
    let carried = if call.times.is_some() { call.carried } else { 0 };
    let mut params = args.to_vec();
    loop {
        let inside = of(module, callee, &params);
        let results: SmallVec<[Quantity; 1]> = callee.results.iter().map(|&r| first(&inside, r)).collect();
        let grown: Vec<Quantity> = params.iter().zip(&results).take(carried).map(|(&a, &r)| join(a, r)).collect();
        if grown[..] == params[..carried] {
            return (params, results);
        }
        params[..carried].copy_from_slice(&grown);
    }
}

/// One of both, as in turns of a loop that starts from 0.
fn join(a: Quantity, b: Quantity) -> Quantity {
    match (a, b) {
        (a, b) if a == b => a,
        (Fixed, Count) | (Count, Fixed) => Count,
        _ => Other,
    }
}

fn joined(args: &[Quantity]) -> Quantity {
    args.iter().copied().reduce(join).unwrap_or(Other)
}

fn applied(function: &Function, node: &Node, op: &Op, args: &[Quantity]) -> Quantity {
    // Draws of the runtime are feeds, so an operator without operands is fixed.
    if args.iter().all(|&a| a == Fixed) {
        return Fixed;
    }
    let number = |i: usize| fixed(function, node.args[i]);
    match (op, args) {
        (Op::ReduceSum(_) | Op::Matmul(_), _) => Count,
        (
            Op::Cast(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Reshard(_)
            | Op::Gather(_)
            | Op::ReduceMax(_),
            [one, ..],
        ) => *one,
        (Op::Concat(_), _) => joined(args),
        (
            Op::Abs(_)
            | Op::Sqrt(_)
            | Op::Rsqrt(_)
            | Op::Tanh(_)
            | Op::Sin(_)
            | Op::Erf(_)
            | Op::Expm1(_)
            | Op::Silu(_)
            | Op::GeluTanh(_),
            [Count],
        ) => Count,
        (Op::Neg(_), [Count]) => Count,
        (Op::Neg(_), [Log]) => NegativeLog,
        (Op::Neg(_), [NegativeLog]) | (Op::Log(_), [Count]) => Log,
        (Op::Exp(_), [Log | NegativeLog]) => Count,
        (Op::Add(_) | Op::Sub(_), [Count, Count | Fixed] | [Fixed, Count]) => Count,
        (Op::Mul(_) | Op::Div(_), &[log @ (Log | NegativeLog), Fixed]) => scaled(log, number(1)),
        (Op::Mul(_), &[Fixed, log @ (Log | NegativeLog)]) => scaled(log, number(0)),
        (Op::Mul(_), [Count, _] | [_, Count]) => Count,
        // A count that divides is guarded: such a quotient is 0 where nothing counts.
        (Op::Div(_), [Count, _] | [_, Count]) => Count,
        (Op::Max(_) | Op::Min(_), [Count, Count]) => Count,
        (Op::Max(_), [Count, Fixed]) if number(1).is_some_and(|x| x <= 0.0) => Count,
        (Op::Max(_), [Fixed, Count]) if number(0).is_some_and(|x| x <= 0.0) => Count,
        (Op::Min(_), [Count, Fixed]) if number(1).is_some_and(|x| x >= 0.0) => Count,
        (Op::Min(_), [Fixed, Count]) if number(0).is_some_and(|x| x >= 0.0) => Count,
        (Op::Select(_), [_, Count, Count]) => Count,
        (Op::Select(_), [_, Count, Fixed]) if number(2) == Some(0.0) => Count,
        (Op::Select(_), [_, Fixed, Count]) if number(1) == Some(0.0) => Count,
        _ => Other,
    }
}

fn scaled(log: Quantity, by: Option<f64>) -> Quantity {
    match (log, by) {
        (log, Some(by)) if by > 0.0 => log,
        (Log, Some(by)) if by < 0.0 => NegativeLog,
        (_, Some(by)) if by < 0.0 => Log,
        _ => Other,
    }
}

/// The value of a constant, however it is arranged.
fn fixed(function: &Function, mut node: NodeId) -> Option<f64> {
    let mut sign = 1.0;
    loop {
        let at = &function.nodes[node];
        match &at.inst {
            Inst::Op(Op::Constant(c)) => return Some(sign * c.value),
            Inst::Op(Op::Cast(_) | Op::Reshape(_) | Op::Broadcast(_) | Op::Transpose(_)) => node = at.args[0],
            Inst::Op(Op::Neg(_)) => (sign, node) = (-sign, at.args[0]),
            _ => return None,
        }
    }
}
