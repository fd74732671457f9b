//! A copy of each function for each call of it, so that one call's shardings do not bind another's.

use ir::{Arena, Function, Id, Inst, Module};
use types::Name;

pub fn by_call(module: &mut Module) {
    let mut called = vec![false; module.functions.len()];
    for (_, node) in module.functions.iter().flat_map(|(_, f)| f.nodes.iter()) {
        if let Inst::Call(call) = &node.inst {
            called[call.callee.index()] = true;
        }
    }
    let mut copies = Copies { from: module, out: Arena::default(), times: vec![0; module.functions.len()] };
    let mut roots = vec![None; module.functions.len()];
    for id in module.functions.ids().filter(|id| !called[id.index()]) {
        roots[id.index()] = Some(copies.add(id));
    }
    // A program may run a function that others call.
    let programs: Vec<Id<Function>> = module.programs.iter().map(|p| p.function).collect();
    let programs: Vec<Id<Function>> =
        programs.into_iter().map(|f| *roots[f.index()].get_or_insert_with(|| copies.add(f))).collect();
    let functions = copies.out;
    for (program, function) in module.programs.iter_mut().zip(programs) {
        program.function = function;
    }
    module.functions = functions;
}

struct Copies<'m> {
    from: &'m Module,
    out: Arena<Function>,
    /// How often each was copied.
    times: Vec<usize>,
}

impl Copies<'_> {
    fn add(&mut self, id: Id<Function>) -> Id<Function> {
        let mut function = self.from.functions[id].clone();
        for (_, node) in function.nodes.iter_mut() {
            if let Inst::Call(call) = &mut node.inst {
                call.callee = self.add(call.callee);
            }
        }
        self.times[id.index()] += 1;
        if self.times[id.index()] > 1 {
            function.name = self.fresh(&function.name, self.times[id.index()]);
        }
        self.out.add(function)
    }

    fn fresh(&self, name: &Name, nth: usize) -> Name {
        let mut fresh = format!("{name}.call{nth}");
        while self.from.function_named(&fresh).is_some() {
            fresh.push('_');
        }
        fresh.into()
    }
}
