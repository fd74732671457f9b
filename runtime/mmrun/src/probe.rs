//! Modules of a plan with probes, in the order in which a step computes them.

use plan::{EmitId, Op, Plan, makers};

/// What the names of a plan's probes begin with.
pub const PROBE: &str = "probe/";

/// The names of these emits, programs with emits, in order of computation, each with its place in the model.
pub fn modules(plan: &Plan, emits: &[(usize, EmitId)]) -> Vec<(String, String)> {
    let mut found = vec![];
    for &(p, id) in emits {
        let program = &plan.programs[p];
        let emit = &program.emits[id.index()];
        let given = plan.classes.iter().zip(&program.bodies).enumerate().find_map(|(c, (class, body))| {
            let mut emits = body.instructions.iter().filter_map(|i| match i.op {
                Op::Emit { emit, from } if emit == id => Some((i, from)),
                _ => None,
            });
            let (instruction, from) = emits.next()?;
            let own = from.buffer.index().checked_sub(class.persistent.len());
            let maker = own.and_then(|own| makers(plan, class, body).get(own).copied().flatten());
            let at = maker.unwrap_or(0);
            let place = maker.map_or(instruction.place, |maker| body.instructions[maker].place);
            let place = plan.places.get(place.index()).map(ToString::to_string).unwrap_or_default();
            Some((c, at, place))
        });
        let (class, at, place) = given.unwrap_or_default();
        let name = emit.name.strip_prefix(PROBE).unwrap_or(&emit.name);
        // Gradients come behind all modules.
        found.push(((emit.name.starts_with("grad/"), p, class, at), (name.to_string(), place)));
    }
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, module)| module).collect()
}
