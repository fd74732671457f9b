//! The plan's directives, written down as data: which dims to shard over which mesh axes, where to cut a pipeline. And
//! the programs of a task that has several.

use diag::Diagnostic;

use crate::args::Args;
use crate::directives::PlanDirective;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::suggest::listed;
use crate::value::{Function, Value};

pub const METHODS: &[&str] = &["shard", "pipeline", "fsdp", "recompute", "offload", "precision"];

pub const ON_RUNS: &[&str] = &["repeat", "prepare", "offer"];

/// `run.repeat(step, STEPS)`, `run.prepare(fold)`, `run.offer(step)`.
pub fn on_run<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let (what, count, example) = match args.name.as_str() {
        "repeat" => ("repeat", 2, "run.repeat(step, STEPS)"),
        "prepare" => ("prepare", 1, "run.prepare(fold)"),
        _ => ("offer", 1, "run.offer(step)"),
    };
    args.expect(count, example)?;
    let (Value::Function(Function::Free { instance, syntax }), _) = args.get(0)? else {
        return Err(Diagnostic::error(format!("`{what}` takes a function of this file"))
            .at(args.span(0), "")
            .help(format!("write `{example}`, with `pub fn step(model: &Model, ..)`"))
            .into());
    };
    match what {
        "prepare" => ev.prepare(instance, syntax, args.span(0))?,
        "offer" => ev.offer(instance, syntax, args.span(0))?,
        _ => {
            let times = args.count(1)?;
            if times > 0 {
                ev.repeat(instance, syntax, times)?;
            }
        }
    }
    Ok(Value::Run)
}

pub fn method<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let axis = |i| Ok::<_, crate::stop::Stop<'a>>(args.text(i)?.to_string());
    let directive = match args.name.as_str() {
        "shard" => {
            args.expect(2, "p.shard(DIM, \"tp\")")?;
            PlanDirective::Shard { dim: args.dim(0)?.name, axis: axis(1)? }
        }
        "pipeline" => {
            let example = super::schedules().next().unwrap_or_default();
            args.expect(3, &format!("p.pipeline(LAYERS, \"pp\", {example})"))?;
            let (Value::Schedule(schedule), _) = args.get(2)? else {
                return Err(Diagnostic::error("expected a schedule")
                    .at(args.span(2), "")
                    .help(format!("the schedules are {}", listed(super::schedules())))
                    .into());
            };
            PlanDirective::Pipeline { dim: args.dim(0)?.name, axis: axis(1)?, schedule: schedule.into() }
        }
        "fsdp" => {
            args.expect(1, "p.fsdp([\"fsdp\", \"cp\"])")?;
            if ev.directives.0.iter().any(|(directive, _)| matches!(directive, PlanDirective::Fsdp { .. })) {
                return Err(Diagnostic::error("a plan says `fsdp` once")
                    .at(args.site.span, "the second time")
                    .help("name all axes in one: `p.fsdp([\"fsdp\", \"cp\"])`")
                    .into());
            }
            let axes = match args.get(0)?.0 {
                Value::Array(items) => items
                    .iter()
                    .map(|item| match item {
                        Value::Str(axis) => Ok(axis.to_string()),
                        other => {
                            Err(Diagnostic::error(format!("an axis of the mesh is a text, not {}", other.describe()))
                                .at(args.span(0), "")
                                .into())
                        }
                    })
                    .collect::<Result<_, crate::stop::Stop<'a>>>()?,
                _ => vec![axis(0)?],
            };
            PlanDirective::Fsdp { axes }
        }
        "recompute" => {
            args.expect(1, "p.recompute(\"auto\")")?;
            PlanDirective::Recompute(axis(0)?)
        }
        "offload" => {
            args.expect(1, "p.offload(\"none\")")?;
            PlanDirective::Offload(axis(0)?)
        }
        _ => {
            args.expect(1, "p.precision(\"autocast\")")?;
            PlanDirective::Precision(axis(0)?)
        }
    };
    ev.directives.0.push((directive, args.site.span));
    Ok(Value::Plan)
}
