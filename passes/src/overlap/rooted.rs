//! What follows from parameters and state alone: it is done ahead, wherever it stands.

use ir::{Function, Input, Inst, Module};

/// By function and parameter.
pub fn params(module: &Module) -> Vec<Vec<bool>> {
    let mut rooted: Vec<Vec<bool>> = module.functions.iter().map(|(_, f)| vec![true; f.params.len()]).collect();
    for program in &module.programs {
        let of = &mut rooted[program.function.index()];
        for (rooted, input) in of.iter_mut().zip(&program.inputs) {
            *rooted &= !matches!(input, Input::Feed(_));
        }
    }
    // Callers stand behind what they call.
    for id in module.functions.ids().collect::<Vec<_>>().into_iter().rev() {
        let function = &module.functions[id];
        let nodes = nodes(function, &rooted[id.index()]);
        for (_, node) in function.nodes.iter() {
            let Inst::Call(call) = &node.inst else { continue };
            let carried = if call.times.is_some() { call.carried } else { 0 };
            for (i, (rooted, arg)) in rooted[call.callee.index()].iter_mut().zip(&node.args).enumerate() {
                *rooted &= nodes[arg.index()] && i >= carried;
            }
        }
    }
    rooted
}

/// By node of a function of which so much is known of the parameters.
pub fn nodes(function: &Function, params: &[bool]) -> Vec<bool> {
    let mut rooted = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        rooted[id.index()] = match &node.inst {
            Inst::Param(i) => params.get(*i).copied().unwrap_or(false),
            Inst::Call(_) => false,
            _ => node.args.iter().all(|arg| rooted[arg.index()]),
        };
    }
    rooted
}
