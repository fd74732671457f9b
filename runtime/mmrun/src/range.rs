//! Which programs a run goes through, and up to which steps.

use plan::{Header, Plan};

use crate::cli::Args;

/// The programs that a run goes through: all of a plan of fixed runs, or the one.
pub fn programs(plan: &Plan, program: usize) -> impl Iterator<Item = usize> {
    let fixed = plan.programs.iter().any(|p| p.times > 0);
    (0..plan.programs.len()).filter(move |p| fixed || *p == program)
}

/// The programs in order, each with the step before which it ends. A plan of fixed runs goes through them once, and
/// `--steps` or `--until` may end it early; any other repeats one program as often as the user asks.
pub fn runs(args: &Args, plan: &Plan, program: usize, first: u64) -> Vec<(usize, Option<u64>)> {
    let asked = args.until.or(args.steps.map(|n| first.saturating_add(n)));
    if plan.programs.iter().all(|p| p.times == 0) {
        let one = args.seconds.is_none().then(|| first.saturating_add(1));
        return vec![(program, asked.or(one))];
    }
    let last = asked.unwrap_or(u64::MAX);
    let mut end = 0u64;
    let ends = plan.programs.iter().map(|p| {
        end = end.saturating_add(p.times);
        Some(end.min(last))
    });
    ends.enumerate().collect()
}

/// What to say of a run that goes on where the schedule of the learning rate has ended; nothing if it does not, or if its
/// end is not known.
pub fn past_schedule(header: &Header, first: u64, steps: Option<u64>) -> Option<String> {
    let (last, end) = (header.schedule_end, first.saturating_add(steps?));
    (last > 0 && end > last.max(first)).then(|| {
        format!("the schedule of the learning rate ends at step {last}, and this run goes on to step {end}: it keeps its last value")
    })
}
