//! What integers that come into a function are for: the rows that operators pick by them, through calls and moves.

use types::Indices;

use crate::{Class, Function, Id, Inst, Module};

impl Module {
    /// Which numbers are in range for a parameter of a function; `None` if no operator picks rows by it.
    pub fn indices(&self, function: Id<Function>, param: usize) -> Option<Indices> {
        let function = &self.functions[function];
        let mut holds = vec![false; function.nodes.len()];
        let mut found: Option<Indices> = None;
        let mut note = |more: Option<Indices>| {
            found = match (found, more) {
                (Some(one), Some(other)) => Some(one.and(other)),
                (one, other) => one.or(other),
            };
        };
        for (id, node) in function.nodes.iter() {
            let has = |arg: usize| node.args.get(arg).is_some_and(|a| holds[a.index()]);
            let any = (0..node.args.len()).any(has);
            holds[id.index()] = match &node.inst {
                Inst::Param(n) => *n == param,
                Inst::Chunk { .. } | Inst::Unchunk | Inst::Repeat { .. } => any,
                Inst::Get(_) => false,
                Inst::Call(call) => {
                    (0..node.args.len()).filter(|&arg| has(arg)).for_each(|arg| note(self.indices(call.callee, arg)));
                    false
                }
                Inst::Op(op) => {
                    let types: Vec<_> = node.args.iter().filter_map(|a| function.ty(*a).element()).collect();
                    if any && types.len() == node.args.len() {
                        note(op.indices(&types).filter(|(arg, _)| has(*arg)).map(|(_, indices)| indices));
                    }
                    let integers = node.ty.element().is_some_and(|ty| !ty.dtype.is_float());
                    any && integers && matches!(op.class(), Class::View | Class::Move)
                }
            };
        }
        found
    }
}
