//! What follows from parameters and state alone: it is done ahead, wherever it stands.

use ir::{Function, Input, Inst, Module};

/// By function and parameter.
pub fn params(module: &Module) -> Vec<Vec<bool>> {
    let mut params_only: Vec<Vec<bool>> = module.functions.iter().map(|(_, f)| vec![true; f.params.len()]).collect();
    for program in &module.programs {
        let of = &mut params_only[program.function.index()];
        for (params_only, input) in of.iter_mut().zip(&program.inputs) {
            *params_only &= !matches!(input, Input::Feed(_));
        }
    }
    // Callers stand behind what they call.
    for id in module.functions.ids().collect::<Vec<_>>().into_iter().rev() {
        let function = &module.functions[id];
        let nodes = nodes(function, &params_only[id.index()]);
        for (_, node) in function.nodes.iter() {
            let Inst::Call(call) = &node.inst else { continue };
            let carried = if call.times.is_some() { call.carried } else { 0 };
            for (i, (params_only, arg)) in params_only[call.callee.index()].iter_mut().zip(&node.args).enumerate() {
                *params_only &= nodes[arg.index()] && i >= carried;
            }
        }
    }
    params_only
}

/// By node of a function of which so much is known of the parameters.
pub fn nodes(function: &Function, params: &[bool]) -> Vec<bool> {
    let mut params_only = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        params_only[id.index()] = match &node.inst {
            Inst::Param(i) => params.get(*i).copied().unwrap_or(false),
            Inst::Call(_) => false,
            _ => node.args.iter().all(|arg| params_only[arg.index()]),
        };
    }
    params_only
}
