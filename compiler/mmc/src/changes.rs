//! Changes to a command line that would make a plan fit, each tried and with its predicted price.

use diag::{Diagnostic, Sources};

use passes::{OffloadChoice, Options, OverlapChoice, RecomputeChoice, StageSchedule, WorkType};
use report::quantity::bytes;

use crate::args::Compile;
use crate::build::{Built, build};
use crate::memory_limit::Limit;
use crate::targets;

/// Changes that a message names.
const NAMED: usize = 5;
/// What is tried first for a target whose default it is.
const BF16: &str = "--dtype bf16";

/// Instructions of all ranks together: a plan of more takes seconds to make, and each change makes one or several.
const MAX_INSTRUCTIONS: usize = 400_000;
/// Instructions of all changes together.
const MAX_WORK: usize = 800_000;
/// Plans that a change makes on its way to one, where recomputation or offloading goes by what there is room for.
const PLANS_OF_A_SEARCH: usize = 4;
/// By how much a change brings down what no order of instructions does: it doubles an axis, which may cut two dims of a
/// value, or halves an element type.
const FACTOR: u64 = 4;

/// One change, and what it would give.
struct Tried {
    flags: String,
    ranks: usize,
    need: u64,
    seconds: f64,
    instructions: usize,
}

/// Adds the cheapest changes that would fit, or how near the best of them comes.
pub fn add(said: Diagnostic, args: &Compile, built: &Built, limit: &Limit) -> Diagnostic {
    if let Some(why) = hopeless(args, built, limit) {
        return said.help(why);
    }
    let instructions = instructions(built);
    if instructions > MAX_INSTRUCTIONS {
        let message = format!("no changes were tried: the plan has {instructions} instructions");
        return said.help(format!("{message}, and each would take as long as this one"));
    }
    let now = seconds(built);
    let ranks = built.plan.header.world();
    let (mut tried, mut left, mut work) = (vec![], vec![], 0);
    for (flags, args) in candidates(args) {
        if work > MAX_WORK {
            left.push(flags);
            continue;
        }
        let searches = is_search(&args.options.policy);
        let result = attempt(flags, &args, limit);
        let made = result.as_ref().map_or(instructions, |tried| tried.instructions);
        work += made * if searches { PLANS_OF_A_SEARCH } else { 1 };
        tried.extend(result);
    }
    let said = match left.is_empty() {
        true => said,
        false => said.note(format!("not tried, since each takes as long as this plan: {}", left.join(", "))),
    };
    // A step on twice the ranks is not cheaper because it is over sooner.
    tried.sort_by(|a, b| {
        let cost = |t: &Tried| t.seconds * t.ranks as f64;
        (b.flags == BF16).cmp(&(a.flags == BF16)).then(cost(a).total_cmp(&cost(b))).then(a.need.cmp(&b.need))
    });
    let fits: Vec<&Tried> = tried.iter().filter(|t| t.need <= limit.budget.bytes).take(NAMED).collect();
    if fits.is_empty() {
        return match tried.iter().min_by_key(|t| t.need) {
            Some(least) => said.help(format!(
                "of the changes that were tried none is enough; {} comes nearest with {}",
                least.flags,
                bytes(least.need)
            )),
            None => said,
        };
    }
    let mut text = String::from("any of these would fit, the cheapest first:");
    for t in fits {
        let price = match now {
            Some(now) if now > 0.0 => format!("a step of {} instead of {}", time(t.seconds), time(now)),
            _ => format!("a step of {}", time(t.seconds)),
        };
        let more = if t.ranks > ranks { format!(", on {} ranks instead of {ranks}", t.ranks) } else { String::new() };
        text.push_str(&format!("\n{:<36} {:>10}, {price}{more}", t.flags, bytes(t.need)));
    }
    said.help(text)
}

/// Whether recomputation or offloading goes by what there is room for.
fn is_search(options: &Options) -> bool {
    options.recompute == Some(RecomputeChoice::Auto) || options.offload == Some(OffloadChoice::Auto)
}

fn instructions(built: &Built) -> usize {
    built.plan.programs.iter().flat_map(|p| &p.bodies).map(|body| body.instructions.len()).sum()
}

/// Why no change can be enough, if that shows without trying any.
fn hopeless(args: &Compile, built: &Built, limit: &Limit) -> Option<String> {
    let plan = &built.plan;
    let all = plan.scopes().map(|scope| (scope, plan::least(scope)));
    let (scope, least) = all.max_by_key(|(_, least)| least.parameters.max(least.operands))?;
    // In bf16 an Ascend has attention without scores in memory.
    let is_narrow = targets::family(&args.options).is_some_and(|family| family.narrow.is_some());
    let fused = is_narrow && targets::work_type(&args.options, args.options.policy.precision) == WorkType::F32;
    if least.operands / FACTOR > limit.budget.bytes && !fused {
        let instruction = &scope.body.instructions[least.instruction];
        let place = plan.places.get(instruction.place.index()).filter(|p| !p.file.is_empty());
        let place = place.map_or(String::new(), |p| format!(" at {}:{}:{}", p.file, p.line, p.column));
        let (what, operands) = (scope.title(&instruction.op), bytes(least.operands));
        return Some(format!(
            "no changes were tried: the operands of {what}{place} alone are {operands}; make the dims smaller"
        ));
    }
    (least.parameters / FACTOR > limit.budget.bytes).then(|| {
        let parameters = bytes(least.parameters);
        format!("no changes were tried: the parameters alone are {parameters}; cut them over more ranks")
    })
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// What a step takes, on the machine that the plan is made for.
fn seconds(built: &Built) -> Option<f64> {
    let program = built.plan.programs.first()?;
    cost::simulate(&built.machine, &built.plan, program).ok()?.first().map(|p| p.step_seconds)
}

/// What a warning says of f32 for a target with a narrower default, where it is asked for: what a rank needs, and what it
/// would need in bf16.
pub fn wide(args: &Compile, built: &Built) -> Option<Diagnostic> {
    let narrow = targets::family(&args.options)?.narrow.as_ref()?;
    if args.options.policy.dtype != Some(WorkType::F32) {
        return None;
    }
    let limit = Limit::of(&args.options.policy, built.known.as_ref())?;
    let need = limit.budget.largest(&built.plan)?.bytes;
    let mut in_bf16 = args.clone();
    in_bf16.options.policy.dtype = Some(WorkType::Bf16);
    // Of a small model, working copies of the parameters may take more than the scores of attention.
    let less = attempt(BF16.into(), &in_bf16, &limit).filter(|tried| tried.need < need)?;
    let said = Diagnostic::warning(format!("{}: a rank needs {}", narrow.wide, bytes(need)));
    Some(said.help(format!("{BF16}, the default for {}, needs {}", narrow.called, bytes(less.need))))
}

fn attempt(flags: String, args: &Compile, limit: &Limit) -> Option<Tried> {
    let built = build(args, &mut Sources::default()).ok()?;
    let need = limit.budget.largest(&built.plan)?.bytes;
    let (ranks, instructions) = (built.plan.header.world(), instructions(&built));
    Some(Tried { flags, ranks, need, seconds: seconds(&built)?, instructions })
}

/// Each change by the flags that make it.
fn candidates(args: &Compile) -> Vec<(String, Compile)> {
    let mut out = vec![];
    let mut add = |flags: String, change: &dyn Fn(&mut Compile)| {
        let mut changed = args.clone();
        change(&mut changed);
        out.push((flags, changed));
    };
    let recompute = args.options.policy.recompute.unwrap_or(RecomputeChoice::None);
    let offload = args.options.policy.offload.unwrap_or(OffloadChoice::None);
    let is_narrow = targets::family(&args.options).is_some_and(|family| family.narrow.is_some());
    if is_narrow && targets::work_type(&args.options, args.options.policy.precision) == WorkType::F32 {
        add(BF16.into(), &|c| c.options.policy.dtype = Some(WorkType::Bf16));
        if recompute == RecomputeChoice::None {
            add(format!("{BF16} --recompute full"), &|c| {
                (c.options.policy.dtype, c.options.policy.recompute) =
                    (Some(WorkType::Bf16), Some(RecomputeChoice::Full));
            });
        }
    }
    if recompute == RecomputeChoice::None {
        add("--recompute full".into(), &|c| c.options.policy.recompute = Some(RecomputeChoice::Full));
    }
    if recompute != RecomputeChoice::Auto {
        add("--recompute auto".into(), &|c| c.options.policy.recompute = Some(RecomputeChoice::Auto));
    }
    if offload != OffloadChoice::Auto {
        add("--offload auto".into(), &|c| c.options.policy.offload = Some(OffloadChoice::Auto));
    }
    if recompute != RecomputeChoice::Auto || offload != OffloadChoice::Auto {
        add("--recompute auto --offload auto".into(), &|c| {
            (c.options.policy.recompute, c.options.policy.offload) =
                (Some(RecomputeChoice::Auto), Some(OffloadChoice::Auto));
        });
    }
    let mesh = &args.options.policy.mesh;
    // What a deferred gradient of weights needs waits for it, all that was computed again included.
    if mesh.schedule.is_some_and(StageSchedule::splits_backwards) {
        let plain = StageSchedule::of_chunks(1);
        add(format!("--schedule {}", plain.name), &|c| {
            (c.options.policy.mesh.schedule, c.options.policy.mesh.virtual_stages) = (Some(plain), None);
        });
    }
    if args.options.policy.overlap != OverlapChoice::Off && mesh.tp > 1 {
        add("--overlap off".into(), &|c| c.options.policy.overlap = OverlapChoice::Off);
    }
    let (parts, replicas) = (crate::mesh::microbatches(mesh, args.model.batch), mesh.replicas());
    let batch = args.model.batch.unwrap_or(replicas * parts);
    if batch.is_multiple_of(replicas * parts * 2) {
        add(format!("--microbatches {}", parts * 2), &|c| c.options.policy.mesh.microbatches = Some(parts * 2));
    }
    if batch.is_multiple_of(replicas * parts) && batch > replicas * parts {
        let smaller = batch / 2;
        if smaller.is_multiple_of(replicas * parts) {
            add(format!("--batch {smaller}"), &|c| c.model.batch = Some(smaller));
        }
    }
    let fsdp = mesh.fsdp * 2;
    add(format!("--fsdp {fsdp}"), &|c| {
        (c.options.policy.mesh.fsdp, c.model.batch) =
            (fsdp, c.model.batch.map(|b| b.next_multiple_of(mesh.dp * fsdp * parts)));
    });
    for (name, size) in [("tp", mesh.tp), ("cp", mesh.cp), ("pp", mesh.pp)] {
        let size = size * 2;
        add(format!("--{name} {size}"), &|c| {
            let mesh = &mut c.options.policy.mesh;
            match name {
                "tp" => mesh.tp = size,
                "cp" => mesh.cp = size,
                _ => mesh.pp = size,
            }
        });
    }
    out
}
