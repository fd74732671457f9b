//! `--on-nan`: steps whose loss or gradient norm is not finite. Their updates change nothing, by the plan itself; here it
//! is seen that they did not, and the run ends or goes on.

use clap::ValueEnum;
use data::Feeds;
use plan::State;

use crate::cli::Args;
use crate::failure::Failure;
use crate::progress::plural;
use crate::world::World;

/// What a plan's optimiser emits.
const NORM: &str = "grad_norm";
/// What counts its updates.
const STEP: &str = "step";
/// So many records of a step are named.
const NAMED: usize = 16;
const HELP: &str = "--on-nan skip leaves such steps out and goes on";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnNan {
    Stop,
    Skip,
}

pub struct Finite {
    on: OnNan,
    /// Updates that were made; none in a run that makes no updates.
    updates: Option<i64>,
    skipped: u64,
}

impl Finite {
    /// The world has its values.
    pub fn new(args: &Args, world: &World, programs: &[usize]) -> Result<Self, Failure> {
        let updates = if updates(world, programs) { counter(world)? } else { None };
        Ok(Self { on: args.on_nan, updates, skipped: 0 })
    }

    /// Whether steps are looked at.
    pub fn looks(&self) -> bool {
        self.updates.is_some()
    }

    /// Whether the last step's update was left out. All ranks keep the same count, so all processes find the same.
    pub fn left_out(&mut self, world: &World) -> Result<bool, Failure> {
        let Some(before) = self.updates else { return Ok(false) };
        self.updates = counter(world)?;
        let left_out = self.updates == Some(before);
        self.skipped += u64::from(left_out);
        Ok(left_out)
    }

    /// The end of the run, if what the next step reads is not finite.
    pub fn check_records(&self, step: u64, lines: &[String]) -> Result<(), Failure> {
        if lines.is_empty() || self.on == OnNan::Skip || !self.looks() {
            return Ok(());
        }
        Err(Failure::new(format!("step {step} was not begun: {}", lines.join("; "))).help(HELP))
    }

    /// What is to be said of such a step: the end of the run, or a line.
    pub fn tell(&self, step: u64, numbers: &[(String, f32)], records: &str) -> Result<String, Failure> {
        let strange = numbers.iter().filter(|(_, v)| !v.is_finite()).map(|(name, v)| format!("{name} is {v}"));
        let strange: Vec<_> = strange.collect();
        let strange = match strange.is_empty() {
            true => format!("its loss or {NORM} is not finite"),
            false => strange.join(" and "),
        };
        let told = format!("step {step}: {strange}, so nothing was updated; the step was {records}");
        match self.on {
            OnNan::Stop => Err(Failure::new(told).help(HELP)),
            OnNan::Skip => Ok(told),
        }
    }

    /// The line that closes a run of so many steps; a run that such a step ended has said so already.
    pub fn summary(&self, steps: u64) -> Option<String> {
        let steps = plural(usize::try_from(steps).unwrap_or(usize::MAX), "step");
        (self.skipped > 0 && self.on == OnNan::Skip)
            .then(|| format!("{} of {steps} updated nothing: loss or {NORM} was not finite", self.skipped))
    }
}

/// Says what is wrong with the tensors of `--inputs`, which every step would have.
pub fn check_inputs(args: &Args, world: &World, programs: &[usize], feeds: &[Feeds]) -> Result<(), Failure> {
    let Some(path) = &args.inputs else { return Ok(()) };
    let mut lines: Vec<String> = Vec::new();
    for (name, at) in programs.iter().flat_map(|&p| feeds[p].strange_inputs()) {
        let line = format!("`{name}`: {at}");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let told = format!("{}: {}", path.display(), lines.join("; "));
    if args.on_nan == OnNan::Stop && updates(world, programs) {
        return Err(Failure::new(told).help(HELP));
    }
    world.note(&format!("warning: {told}"));
    Ok(())
}

/// Where the samples of a step come from.
pub fn records(args: &Args, feeds: &Feeds, first: u64, count: u64) -> String {
    let names = feeds.records(first, count);
    let more = names.len().saturating_sub(NAMED);
    match (names.is_empty(), &args.inputs) {
        (false, _) if more > 0 => format!("of {} and {more} more", names[..NAMED].join(", ")),
        (false, _) => format!("of {}", names.join(", ")),
        (true, Some(path)) => format!("of the inputs in {}", path.display()),
        (true, None) => "of synthetic values".into(),
    }
}

/// Whether any of the programs has an optimiser that leaves out updates.
fn updates(world: &World, programs: &[usize]) -> bool {
    let gives_norm = |&p: &usize| {
        let emits = &world.plan().programs[p].emits;
        world.emits(p).iter().any(|id| emits[id.index()].name == NORM)
    };
    programs.iter().any(gives_norm) && state(world).is_some()
}

fn state(world: &World) -> Option<&State> {
    world.plan().manifest.states.iter().find(|s| s.name == STEP && s.ty.rank() == 0)
}

/// The optimiser's count, on the first rank of this process.
fn counter(world: &World) -> Result<Option<i64>, Failure> {
    let Some((executor, state)) = world.executors().next().zip(state(world)) else { return Ok(None) };
    let Some(buffer) = state.buffer(executor.class()) else { return Ok(None) };
    let bytes = executor.read(buffer)?.and_then(|bytes| bytes.first_chunk().copied());
    Ok(bytes.map(i64::from_le_bytes))
}
