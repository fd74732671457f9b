//! The order of instructions: where two programs part.

use plan::{Body, Op, Plan};

use super::counted::name;
use crate::explain::figures::Figures;

pub type Side<'a> = (&'a Plan, &'a Figures, &'a Body);

/// The first instruction that does something else than the other plan's at the same place, or else the first that does
/// the same to other bytes. Places in the model's file do not count.
pub fn first_that_differs(a: Side<'_>, b: Side<'_>) -> String {
    let most = a.2.instructions.len().max(b.2.instructions.len());
    let means_other = (0..most).find(|&at| meaning(a, at) != meaning(b, at));
    let is_other = (0..most).find(|&at| operation(a, at) != operation(b, at));
    let show = |at: usize| {
        let line = |side| describe(side, at).unwrap_or_else(|| "nothing: the program has ended".into());
        format!("    A  {}\n    B  {}\n", line(a), line(b))
    };
    match (means_other, is_other) {
        (Some(0), _) => format!("  instructions differ from the first on:\n{}", show(0)),
        (Some(at), _) => format!("  instructions: the first {at} do the same, then\n{}", show(at)),
        (None, Some(at)) => {
            format!("  instructions do the same in the same order, from #{at} on to other bytes:\n{}", show(at))
        }
        (None, None) => String::new(),
    }
}

fn operation((_, _, body): Side<'_>, at: usize) -> Option<&Op> {
    body.instructions.get(at).map(|instruction| &instruction.op)
}

/// The instruction in full, as `mmc explain --listing` has it.
fn describe((plan, figures, body): Side<'_>, at: usize) -> Option<String> {
    let class = plan.classes.iter().find(|class| class.name == *figures.class)?;
    (at < body.instructions.len()).then(|| plan.describe(class, body, at))
}

/// What an instruction does and why, without any number that follows from the numbering of kernels, events or buffers.
fn meaning((plan, _, body): Side<'_>, at: usize) -> Option<String> {
    let instruction = body.instructions.get(at)?;
    Some(match &instruction.op {
        Op::Launch(_) => name(&plan.title(&instruction.op)).to_owned(),
        Op::Collect(c) => format!("{} over {:?}: {}", c.kind.name(), c.group, c.why),
        Op::Record { .. } => "record".into(),
        Op::Wait { .. } => "wait".into(),
        op => plan.title(op),
    })
}
