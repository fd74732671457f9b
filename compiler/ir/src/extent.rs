//! What a program comes to when its repeated calls are written out, and which node makes it so long.

use std::fmt;

use crate::{Function, Id, Inst, Module, NodeId, Type};

/// Operators, calls of kernels and tensors of stacks, written out: a train step of eighty layers in 200 micro-batches.
/// A plan has up to one and a half instructions for each of them, at about a kibibyte and ten microseconds in the compiler:
/// these are half a minute and some gibibytes.
pub const MAX_OPERATORS: u128 = 1 << 21;

/// Bytes of everything that is computed, written out: what is added up in a plan stays inside 64 bits.
pub const MAX_BYTES: u128 = 1 << 62;

/// A function that is beyond a limit when it is written out. No function that it calls is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub function: Id<Function>,
    /// The node with the largest share of it.
    pub node: NodeId,
    /// How often that node is repeated.
    pub times: u128,
    pub what: Measure,
    pub total: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Operators,
    Bytes,
}

impl Measure {
    pub const fn most(self) -> u128 {
        match self {
            Measure::Operators => MAX_OPERATORS,
            Measure::Bytes => MAX_BYTES,
        }
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, most) = (self.total, self.what.most());
        match self.what {
            Measure::Operators => write!(f, "{total} operators when all repetitions are written out, at most {most}"),
            Measure::Bytes => write!(f, "{total} bytes of values when all repetitions are written out, at most {most}"),
        }
    }
}

/// That no program of a module whose calls go to earlier functions is too long.
pub fn check_extent(module: &Module) -> Result<(), TooLong> {
    // What a program reads counts once, where it comes in.
    let enters: Vec<Id<Function>> = module.programs.iter().map(|p| p.function).collect();
    let mut known: Vec<[u128; 2]> = vec![];
    for (id, function) in module.functions.iter() {
        let mut total = [0u128; 2];
        let mut largest = [(0u128, NodeId::new(0), 1u128); 2];
        for (node_id, node) in function.nodes.iter() {
            let (times, own) = match &node.inst {
                Inst::Call(call) => {
                    let callee = known.get(call.callee.index()).copied().unwrap_or_default();
                    (call.times.unwrap_or(1) as u128, [callee[0].max(1), callee[1]])
                }
                Inst::Param(_) if enters.contains(&id) => (tensors(&node.ty), [1, bytes(&node.ty)]),
                Inst::Param(_) | Inst::Get(_) => (1, [0, 0]),
                Inst::Chunk { .. } | Inst::Repeat { .. } => (tensors(&node.ty), [1, 0]),
                Inst::Op(_) | Inst::Unchunk => (1, [1, bytes(&node.ty)]),
            };
            for (i, own) in own.into_iter().enumerate() {
                let share = own.saturating_mul(times);
                total[i] = total[i].saturating_add(share);
                if share > largest[i].0 {
                    largest[i] = (share, node_id, times);
                }
            }
        }
        for (i, what) in [Measure::Operators, Measure::Bytes].into_iter().enumerate() {
            let (_, node, times) = largest[i];
            if total[i] > what.most() {
                return Err(TooLong { function: id, node, times, what, total: total[i] });
            }
        }
        known.push(total);
    }
    Ok(())
}

fn tensors(ty: &Type) -> u128 {
    match ty {
        Type::Stack { count, .. } => *count as u128,
        _ => 1,
    }
}

/// Of one tensor of a stack, or of all of a tuple.
fn bytes(ty: &Type) -> u128 {
    match ty {
        Type::Tuple(items) => items.iter().map(bytes).sum(),
        ty => ty.element().map_or(0, |t| t.bytes() as u128),
    }
}
