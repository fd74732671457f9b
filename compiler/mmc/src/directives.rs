//! What a model's `plan` function asks for besides shardings. A directive fills what the command line leaves open, or is
//! refused at its place.

use clap::ValueEnum;
use diag::{Diagnostic, Diagnostics, Span};
use eval::{Evaluated, PlanDirective};
use passes::{Options, PrecisionMode, StageSchedule};

/// The options of the command line, and where it leaves one open, the plan's.
pub fn filled(options: &Options, evaluated: &Evaluated) -> Result<Options, Diagnostics> {
    let mut planned = Options::default();
    for (directive, span) in &evaluated.directives.0 {
        match directive {
            PlanDirective::Recompute(word) => choose("recompute", &mut planned.recompute, word, *span)?,
            PlanDirective::Offload(word) => choose("offload", &mut planned.offload, word, *span)?,
            PlanDirective::Precision(word) => choose("precision", &mut planned.precision, word, *span)?,
            PlanDirective::Pipeline { dim, axis, schedule } => {
                pipeline(evaluated, dim, axis, *span)?;
                // One that does not take --virtual-stages gives way to it.
                let chunks = options.mesh.virtual_stages.map(|chunks| chunks as usize);
                let takes = |s: &&StageSchedule| chunks.is_none_or(|chunks| s.rules.chunks.contains(&chunks));
                planned.mesh.schedule = StageSchedule::named(schedule).filter(takes);
            }
            PlanDirective::Shard { .. } | PlanDirective::Fsdp { .. } => {}
        }
    }
    Ok(options.or(&planned))
}

/// What the plan says is computed in bf16.
pub fn precision(evaluated: &Evaluated) -> Result<Option<PrecisionMode>, Diagnostics> {
    let mut found = None;
    for (directive, span) in &evaluated.directives.0 {
        if let PlanDirective::Precision(word) = directive {
            choose("precision", &mut found, word, *span)?;
        }
    }
    Ok(found)
}

fn choose<T: ValueEnum + Copy>(what: &str, choice: &mut Option<T>, word: &str, at: Span) -> Result<(), Diagnostics> {
    let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let known: Vec<String> = known.map(|value| format!("`{}`", value.get_name())).collect();
    let Ok(chosen) = T::from_str(word, false) else {
        return Err(Diagnostic::error(format!("`{word}` is no choice for `{what}`"))
            .at(at, "")
            .help(format!("the choices are {}", known.join(", ")))
            .into());
    };
    if choice.replace(chosen).is_some() {
        return Err(Diagnostic::error(format!("the plan asks for `{what}` twice"))
            .at(at, "the second time")
            .help("leave one of them out")
            .into());
    }
    Ok(())
}

/// Stages are cut out of a stack, over the axis of pipelines.
fn pipeline(evaluated: &Evaluated, dim: &str, axis: &str, at: Span) -> Result<(), Diagnostics> {
    if axis != "pp" {
        return Err(Diagnostic::error(format!("a pipeline over `{axis}`"))
            .at(at, "")
            .help("stages are cut over the mesh axis `pp`")
            .into());
    }
    let length = evaluated.dims.get(dim).copied().unwrap_or(1);
    if length > 1 && !evaluated.stacks.contains(&length) {
        return Err(Diagnostic::error(format!("no stack has {dim}, which is {length}, modules"))
            .at(at, "")
            .help("name the dim that a `stack(..)` of the model is made with")
            .into());
    }
    Ok(())
}
