//! Which programs a run goes through, and up to which steps.

use plan::{Header, Plan, Program};
use types::Runs;

use crate::cli::Args;
use crate::failure::Failure;

/// The programs that a run goes through, in order: all that run a fixed number of times, or else the one that is repeated.
pub fn programs(plan: &Plan) -> Result<Vec<usize>, Failure> {
    let all = || plan.programs.iter().enumerate();
    let fixed: Vec<usize> = all().filter(|(_, p)| matches!(p.runs, Runs::Times(_))).map(|(i, _)| i).collect();
    if !fixed.is_empty() {
        return Ok(fixed);
    }
    let repeated: Vec<(usize, &Program)> = all().filter(|(_, p)| p.runs == Runs::Asked).collect();
    let of_task = repeated.iter().find(|(_, p)| p.name == plan.header.task).or(repeated.first());
    of_task.map(|(i, _)| vec![*i]).ok_or_else(|| Failure::new("the plan has no program that a run could repeat"))
}

/// Those programs in order, each with the step before which it ends. A plan of fixed runs goes through them once, and
/// `--steps` or `--until` may end it early; any other repeats one program as often as the user asks.
pub fn runs(args: &Args, plan: &Plan, programs: &[usize], first: u64) -> Vec<(usize, Option<u64>)> {
    let asked = args.until.or(args.steps.map(|n| first.saturating_add(n)));
    let last = asked.unwrap_or(u64::MAX);
    let mut end = 0u64;
    let runs = programs.iter().map(|&program| match plan.programs[program].runs {
        Runs::Times(times) => {
            end = end.saturating_add(times);
            (program, Some(end.min(last)))
        }
        _ => (program, asked.or(args.seconds.is_none().then(|| first.saturating_add(1)))),
    });
    runs.collect()
}

/// What to say of a run that goes on where the schedule of the learning rate has ended; nothing if it does not, or if its
/// end is not known.
pub fn past_schedule(header: &Header, first: u64, steps: Option<u64>) -> Option<String> {
    let (last, end) = (header.schedule_end, first.saturating_add(steps?));
    (last > 0 && end > last.max(first)).then(|| {
        format!("the schedule of the learning rate ends at step {last}, and this run goes on to step {end}: it keeps its last value")
    })
}
