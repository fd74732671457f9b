//! Which programs a run goes through, and up to which steps.

use plan::{Header, Plan, Program};
use types::Runs;

use crate::cli::Args;
use crate::failure::Failure;

/// The programs that a run goes through, in order: those of `--programs`, or all that run a fixed number of times, or else
/// the one that is repeated.
pub fn programs(args: &Args, plan: &Plan) -> Result<Vec<usize>, Failure> {
    let all = || plan.programs.iter().enumerate();
    let on_demand: Vec<&str> = all().filter(|(_, p)| p.runs == Runs::OnDemand).map(|(_, p)| p.name.as_str()).collect();
    if !args.programs.is_empty() {
        let known = |name: &String| all().find(|(_, p)| p.name == **name && p.runs == Runs::OnDemand).map(|(i, _)| i);
        let unknown = |name: &String| {
            let failure = Failure::new(format!("--programs: `{name}` is no program of the plan that runs on demand"));
            match on_demand.is_empty() {
                true => failure.help("none of its programs does: leave out --programs"),
                false => failure.help(format!("those are {}", on_demand.join(", "))),
            }
        };
        return args.programs.iter().map(|name| known(name).ok_or_else(|| unknown(name))).collect();
    }
    let fixed: Vec<usize> = all().filter(|(_, p)| matches!(p.runs, Runs::Times(_))).map(|(i, _)| i).collect();
    if !fixed.is_empty() {
        return Ok(fixed);
    }
    let repeated: Vec<(usize, &Program)> = all().filter(|(_, p)| p.runs == Runs::Asked).collect();
    let of_task = repeated.iter().find(|(_, p)| p.name == plan.header.task).or(repeated.first());
    match of_task {
        Some((program, _)) => Ok(vec![*program]),
        None if on_demand.is_empty() => Err(Failure::new("the plan has no program that a run could repeat")),
        None => Err(Failure::new(format!("the programs of this plan run on demand: {}", on_demand.join(", ")))
            .help("say which ones to run, in order: --programs A,B,A")),
    }
}

/// Those programs in order, each with the step before which it ends. A plan of fixed runs goes through them once, and
/// `--steps` or `--until` may end it early; any other repeats one program as often as the user asks.
pub fn runs(args: &Args, plan: &Plan, programs: &[usize], first: u64) -> Vec<(usize, Option<u64>)> {
    let asked = args.until.or(args.steps.map(|n| first.saturating_add(n)));
    let last = asked.unwrap_or(u64::MAX);
    let (mut end, mut called) = (0u64, first);
    let runs = programs.iter().map(|&program| match plan.programs[program].runs {
        Runs::Times(times) => {
            end = end.saturating_add(times);
            (program, Some(end.min(last)))
        }
        Runs::OnDemand => {
            called = called.saturating_add(1);
            (program, Some(called.min(last)))
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
