//! Modules of a plan with probes, in the order in which a step computes them.

use std::collections::BTreeMap;

use plan::{EmitId, Op, Plan, makers};

/// What the names of a plan's probes begin with.
pub const PROBE: &str = "probe/";

/// The names of these emits, programs with emits, in order of computation, each with its place in the model.
pub fn modules(plan: &Plan, emits: &[(usize, EmitId)]) -> Vec<(String, String)> {
    let computed: Vec<_> = (0..plan.programs.len()).map(|p| computed(plan, p)).collect();
    let module = |&(p, id): &(usize, EmitId)| {
        let name = &plan.programs[p].emits[id.index()].name;
        let (order, place) = computed[p].get(&id).cloned().unwrap_or_default();
        // Gradients come behind all modules.
        let order = (name.starts_with("grad/"), p, order);
        (order, (name.strip_prefix(PROBE).unwrap_or(name).to_string(), place))
    };
    let mut found: Vec<_> = emits.iter().map(module).collect();
    found.sort_by_key(|(order, _)| *order);
    found.into_iter().map(|(_, module)| module).collect()
}

/// By emit of a program: the class and the instruction that first compute it, and its place in the model.
fn computed(plan: &Plan, program: usize) -> BTreeMap<EmitId, ((usize, usize), String)> {
    let mut found = BTreeMap::new();
    for (c, (class, body)) in plan.classes.iter().zip(&plan.programs[program].bodies).enumerate() {
        let makers = makers(plan, class, body);
        for instruction in &body.instructions {
            let Op::Emit { emit, from } = instruction.op else { continue };
            let own = from.buffer.index().checked_sub(class.persistent.len());
            let maker = own.and_then(|own| makers.get(own).copied().flatten());
            let place = maker.map_or(instruction.place, |maker| body.instructions[maker].place);
            let place = plan.places.get(place.index()).map(ToString::to_string).unwrap_or_default();
            found.entry(emit).or_insert(((c, maker.unwrap_or(0)), place));
        }
    }
    found
}
