//! The order of instructions: where two programs part.

use plan::{Op, Scope};

use super::counted::name;

/// The first instruction that does something else than the other plan's at the same place, or else the first that does
/// the same to other bytes. Places in the model's file do not count.
pub fn first_that_differs(a: Scope<'_>, b: Scope<'_>) -> String {
    let most = a.body.instructions.len().max(b.body.instructions.len());
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

fn operation(scope: Scope<'_>, at: usize) -> Option<&Op> {
    scope.body.instructions.get(at).map(|instruction| &instruction.op)
}

/// The instruction in full, as `mmc explain --listing` has it.
fn describe(scope: Scope<'_>, at: usize) -> Option<String> {
    (at < scope.body.instructions.len()).then(|| scope.describe(at))
}

/// What an instruction does and why, without any number that follows from the numbering of kernels, events or buffers.
fn meaning(scope: Scope<'_>, at: usize) -> Option<String> {
    let instruction = scope.body.instructions.get(at)?;
    Some(match &instruction.op {
        Op::Launch(_) => name(&scope.title(&instruction.op)).to_owned(),
        Op::Collect(c) => format!("{} over {:?}: {}", c.kind.name(), c.group, c.why),
        Op::Record { .. } => "record".into(),
        Op::Wait { .. } => "wait".into(),
        op => scope.title(op),
    })
}
