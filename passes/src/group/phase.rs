//! What operators are for: the loss, gradients, or the update that follows both.

use ir::{Call, Function, Id, Inst, Module, NodeId, Output, Program};

use super::chain::Chain;

/// In the order in which a later one takes over: what leads to the loss is of the forward, whatever else it leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Update,
    Backward,
    Forward,
}

/// By function and node; inside blocks all are alike, since a block's call is of one phase.
pub fn phases(module: &Module, chain: &Chain) -> Vec<Vec<Phase>> {
    let phases = module.functions.iter().map(|(_, f)| vec![Phase::default(); f.nodes.len()]).collect();
    let mut walk = Walk { module, chain, phases };
    for program in &module.programs {
        let follows = follows_gradients(module, program);
        let output = |(output, result): (&Output, &NodeId)| match output {
            Output::Loss(_) | Output::Emit(_) | Output::Probe(_) if !follows[result.index()] => Phase::Forward,
            Output::Gradient(_) => Phase::Backward,
            // What is told of the gradients, their norm for one, is known with the update.
            _ => Phase::Update,
        };
        let results = &module.functions[program.function].results;
        let outputs: Vec<Phase> = program.outputs.iter().zip(results).map(output).collect();
        walk.function(program.function, &outputs);
    }
    walk.phases
}

/// By node of the program's function: whether it is made of a gradient.
fn follows_gradients(module: &Module, program: &Program) -> Vec<bool> {
    let function = &module.functions[program.function];
    let mut gradient = vec![false; function.nodes.len()];
    for (output, result) in program.outputs.iter().zip(&function.results) {
        gradient[result.index()] |= matches!(output, Output::Gradient(_));
    }
    let mut follows = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        follows[id.index()] = node.args.iter().any(|a| gradient[a.index()] || follows[a.index()]);
    }
    follows
}

struct Walk<'m> {
    module: &'m Module,
    chain: &'m Chain,
    phases: Vec<Vec<Phase>>,
}

impl Walk<'_> {
    /// What the function's parameters lead to, if its results lead to these.
    fn function(&mut self, id: Id<Function>, results: &[Phase]) -> Vec<Phase> {
        let function = &self.module.functions[id];
        // By node: one for each item of a tuple.
        let none = |node: &ir::Node| vec![Phase::default(); node.ty.items().len()];
        let mut leads: Vec<Vec<Phase>> = function.nodes.iter().map(|(_, node)| none(node)).collect();
        for (result, phase) in function.results.iter().zip(results) {
            raise(&mut leads[result.index()], *phase);
        }
        for (at, node) in function.nodes.iter().rev() {
            let own = leads[at.index()].clone();
            let most = own.iter().copied().max().unwrap_or_default();
            match &node.inst {
                Inst::Get(i) => {
                    let items = &mut leads[node.args[0].index()];
                    // A stack is one.
                    let i = if items.len() == 1 { 0 } else { *i };
                    let item = &mut items[i];
                    *item = most.max(*item);
                }
                Inst::Call(call) if !self.chain.stacks.contains(&(id, at)) => {
                    let params = self.call(call, own);
                    node.args.iter().zip(params).for_each(|(arg, phase)| raise(&mut leads[arg.index()], phase));
                }
                _ => node.args.iter().for_each(|arg| raise(&mut leads[arg.index()], most)),
            }
            let phase = &mut self.phases[id.index()][at.index()];
            *phase = most.max(*phase);
        }
        let phase = |param: &NodeId| leads[param.index()].iter().copied().max().unwrap_or_default();
        function.params.iter().map(phase).collect()
    }

    /// A value that is carried leads to what the next turn makes of it.
    fn call(&mut self, call: &Call, mut results: Vec<Phase>) -> Vec<Phase> {
        loop {
            let params = self.function(call.callee, &results);
            let mut grew = false;
            for (result, &param) in results.iter_mut().zip(&params).take(call.carried) {
                grew |= param > *result;
                *result = param.max(*result);
            }
            if !grew {
                return params;
            }
        }
    }
}

fn raise(items: &mut [Phase], phase: Phase) {
    items.iter_mut().for_each(|item| *item = phase.max(*item));
}
