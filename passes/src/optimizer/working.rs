//! Working copies: a trained parameter that is read in a narrower type alone is kept in that type too, so that it is cast
//! once, by its update, and not wherever it is gathered and read.

use std::collections::HashMap;

use ir::ops::Cast;
use ir::{Call, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter, ShardingHint, Stored, Type};
use smallvec::SmallVec;
use types::{DType, Name};

/// The name of the state that holds a copy of a parameter, or of a family.
pub fn name(parameter: &str) -> Name {
    format!("working/{parameter}").into()
}

/// Whether parameters may have copies: where the optimiser's state alone is kept in parts, a copy would be gathered
/// beside the parameter.
pub fn allowed(module: &Module) -> bool {
    !module.hints.iter().any(|(hint, _)| matches!(hint, ShardingHint::Store { what: Stored::Optimizer, .. }))
}

/// Who reads the values of a function.
pub struct Readers<'f> {
    function: &'f Function,
    users: Vec<SmallVec<[NodeId; 4]>>,
    live: Vec<bool>,
    returned: Vec<bool>,
}

impl<'f> Readers<'f> {
    pub fn of(function: &'f Function) -> Self {
        Self { function, users: function.users(), live: function.live(), returned: function.returned() }
    }
}

/// The one narrower type to which every reader of a value casts it, inside what it is handed to as well. With `gathered`,
/// rows that are picked from a table count as read in that type.
pub fn wanted(module: &Module, readers: &Readers<'_>, value: NodeId, gathered: Option<DType>) -> Option<DType> {
    let function = readers.function;
    if readers.returned[value.index()] {
        return None;
    }
    let full = function.ty(value).element()?.dtype;
    let mut found = None;
    for &id in readers.users[value.index()].iter().filter(|id| readers.live[id.index()]) {
        let node = &function.nodes[id];
        let mut meets = |to: Option<DType>| match (to, found) {
            (Some(to), None) if to.bytes() < full.bytes() => {
                found = Some(to);
                Some(())
            }
            (Some(to), Some(known)) if to == known => Some(()),
            _ => None,
        };
        match &node.inst {
            Inst::Op(Op::Cast(_)) => meets(function.ty(id).element().map(|ty| ty.dtype))?,
            Inst::Op(Op::Gather(_)) if node.args[1] != value => meets(gathered)?,
            Inst::Call(call) => {
                let callee = Readers::of(&module.functions[call.callee]);
                for (at, _) in node.args.iter().enumerate().filter(|(_, a)| **a == value) {
                    meets(wanted(module, &callee, callee.function.params[at], gathered))?;
                }
            }
            _ => return None,
        }
    }
    found
}

/// Functions that take some of their operands in a narrower type, by the function and those operands.
pub type Narrowed = HashMap<(Id<Function>, Vec<(usize, DType)>), Id<Function>>;

/// Copies a node into a new function, where it reads copies instead of parameters: `narrow` says which of the old
/// function's values have one.
pub fn copy(
    module: &mut Module,
    rewriter: &mut Rewriter<'_>,
    id: NodeId,
    narrow: &dyn Fn(NodeId) -> Option<NodeId>,
    made: &mut Narrowed,
) -> Result<(), Mismatch> {
    let node = &rewriter.from.nodes[id];
    let copies: Vec<Option<NodeId>> = node.args.iter().map(|&a| narrow(a)).collect();
    if copies.iter().all(Option::is_none) {
        rewriter.copy(id);
        return Ok(());
    }
    let args: Vec<NodeId> =
        node.args.iter().zip(&copies).map(|(&a, copy)| copy.unwrap_or_else(|| rewriter.get(a))).collect();
    rewriter.b.place = node.place;
    let new = match &node.inst {
        Inst::Op(Op::Cast(Cast { .. })) => args[0],
        Inst::Op(Op::Gather(gather)) => {
            let rows = rewriter.b.op(gather.clone(), &args);
            let full = node.ty.element().map_or(DType::F32, |ty| ty.dtype);
            rewriter.b.cast(rows, full)
        }
        Inst::Call(call) => {
            let operands: Vec<(usize, DType)> = args
                .iter()
                .enumerate()
                .filter(|(i, _)| copies[*i].is_some())
                .filter_map(|(i, &a)| Some((i, rewriter.b.function.ty(a).element()?.dtype)))
                .collect();
            let callee = narrowed(module, call.callee, &operands, made)?;
            rewriter.b.push(Inst::Call(Call { callee, ..call.clone() }), args, node.ty.clone())
        }
        _ => return Err(Mismatch::new("a parameter with a working copy is read in full")),
    };
    rewriter.set(id, new);
    Ok(())
}

/// A function that takes some of its operands in the types to which it would cast them.
pub fn narrowed(
    module: &mut Module,
    id: Id<Function>,
    operands: &[(usize, DType)],
    made: &mut Narrowed,
) -> Result<Id<Function>, Mismatch> {
    let key = (id, operands.to_vec());
    if let Some(known) = made.get(&key) {
        return Ok(*known);
    }
    let old = module.functions[id].clone();
    let to = |at: usize| operands.iter().find(|(i, _)| *i == at).map(|(_, dtype)| *dtype);
    let mut rewriter = Rewriter::with_param_types(&old, |at, ty: &Type| match to(at) {
        Some(dtype) => ty.map(&|t| t.with_dtype(dtype)),
        None => ty.clone(),
    });
    let copies: Vec<(NodeId, NodeId)> =
        operands.iter().map(|&(at, _)| (old.params[at], rewriter.get(old.params[at]))).collect();
    let narrow = |value: NodeId| copies.iter().find(|(of, _)| *of == value).map(|(_, copy)| *copy);
    let live = old.live();
    for id in old.nodes.ids() {
        if live[id.index()] && !rewriter.done(id) {
            copy(module, &mut rewriter, id, &narrow, made)?;
        }
    }
    let function = rewriter.finish()?;
    let name = module.fresh_name(&function.name);
    let new = module.functions.add(Function { name, ..function });
    made.insert(key, new);
    Ok(new)
}
