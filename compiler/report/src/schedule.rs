//! The schedule of a pipeline, drawn: one line for each stage, those of a rank together, and a letter and a number for each
//! stage's work on a micro-batch.

use std::fmt::Write;

use cost::{Layout, Machine, Timeline, Unit, UnitSpan};
use diag::{Diagnostic, Diagnostics};
use plan::{Body, LaneId, Plan, Program, UnitKind};

use crate::describe;
use crate::quantity::milliseconds;

const COMPUTE: LaneId = LaneId(0);

/// Drawings of at most so many columns.
pub fn text(plan: &Plan, machine: Option<&Machine>, columns: usize) -> Result<String, Diagnostics> {
    let mut out = String::new();
    let _ = writeln!(out, "{}", describe::title(plan));
    let _ = writeln!(out, "mesh  {}", describe::mesh(&plan.header.mesh));
    let piped: Vec<&Program> = plan.programs.iter().filter(|p| p.bodies.iter().any(|b| !b.units.is_empty())).collect();
    if piped.is_empty() {
        return Err(Diagnostic::error("the plan has no pipeline, and so no schedule of stages")
            .help("compile it with --pp 2 or more; `mmc explain` without --schedule says what else is in it")
            .into());
    }
    for program in piped {
        let layout = layout(program)?;
        let _ = writeln!(
            out,
            "\nprogram {}: {} stages on {} ranks, {} micro-batch{}",
            program.name,
            layout.rank_of.len(),
            layout.ranks,
            layout.microbatches,
            if layout.microbatches == 1 { "" } else { "es" }
        );
        legend(&mut out, &layout);
        ideal(&mut out, program, &layout, columns)?;
        if let Some(machine) = machine {
            predicted(&mut out, plan, program, layout, machine, columns)?;
        }
    }
    Ok(out)
}

/// As the program's units have it.
fn layout(program: &Program) -> Result<Layout, Diagnostics> {
    let units = || program.bodies.iter().flat_map(|body| &body.units);
    let stages = units().map(|unit| unit.stage as usize + 1).max().unwrap_or(1);
    let microbatches = units().map(|unit| unit.microbatch as usize + 1).max().unwrap_or(1);
    let of_stage = |stage: usize| {
        let holds = |body: &Body| body.units.iter().any(|unit| unit.stage as usize == stage);
        program.bodies.iter().position(holds).ok_or_else(|| no_schedule(&format!("no rank works on stage {stage}")))
    };
    let rank_of = (0..stages).map(of_stage).collect::<Result<_, _>>()?;
    let kinds = [UnitKind::Forward, UnitKind::Backward, UnitKind::Weights];
    let kinds = kinds.into_iter().filter(|kind| units().any(|unit| unit.kind == *kind)).collect();
    Ok(Layout { ranks: program.bodies.len(), rank_of, microbatches, kinds })
}

fn no_schedule(why: &str) -> Diagnostic {
    Diagnostic::error(format!("the plan's units of work are no schedule: {why}"))
}

fn splits(layout: &Layout) -> bool {
    layout.kinds.contains(&UnitKind::Weights)
}

fn legend(out: &mut String, layout: &Layout) {
    let rest = match (layout.kinds.len(), splits(layout)) {
        (1, _) => "",
        (_, false) => ", B its backward",
        (_, true) => ", B the gradients of a stage's inputs, W those of its weights",
    };
    let _ = writeln!(out, "F is a forward of a micro-batch{rest}");
}

/// Stages of equal length on a machine where messages take no time.
fn ideal(out: &mut String, program: &Program, layout: &Layout, columns: usize) -> Result<(), Diagnostics> {
    let orders: Vec<Vec<Unit>> = program.bodies.iter().map(|body| body.units.iter().map(unit).collect()).collect();
    let timeline = Timeline::play(layout.clone(), &orders, |unit| layout.ideal_length(unit))
        .map_err(|e| no_schedule(&e.to_string()))?;
    let as_long = match (layout.kinds.len(), splits(layout)) {
        (1, _) => "all take equally long",
        (_, false) => "B takes twice as long as F",
        (_, true) => "F, B and W take equally long",
    };
    let _ = writeln!(
        out,
        "\nwhere {as_long} and messages no time: bubble {:.1} % ({} of {} of all ranks' time)",
        timeline.bubble() * 100.0,
        timeline.idle(),
        timeline.length() * layout.ranks as f64
    );
    out.push_str(&timeline.draw(timeline.length(), timeline.columns().min(columns)));
    Ok(())
}

/// As the plan's instructions are predicted to run.
fn predicted(
    out: &mut String,
    plan: &Plan,
    program: &Program,
    layout: Layout,
    machine: &Machine,
    columns: usize,
) -> Result<(), Diagnostics> {
    let predictions = crate::predicted(machine, plan, program)?;
    let step = predictions.iter().map(|p| p.step_seconds).fold(0.0, f64::max);
    let bubble = predictions.iter().map(|p| p.bubble_fraction).sum::<f64>() / predictions.len().max(1) as f64;
    let ranks = predictions.iter().zip(&program.bodies).map(|(p, body)| spans(p, body)).collect();
    let _ = writeln!(
        out,
        "\npredicted on {}: {} a step, bubble {:.1} %, one column is {}",
        machine.name,
        milliseconds(step),
        bubble * 100.0,
        milliseconds(step / columns as f64)
    );
    out.push_str(&Timeline { layout, ranks }.draw(step, columns));
    Ok(())
}

/// When compute is at work on each unit.
fn spans(prediction: &cost::Prediction, body: &Body) -> Vec<UnitSpan> {
    let idle = |of: &plan::Unit| UnitSpan { unit: unit(of), start: f64::INFINITY, end: f64::NEG_INFINITY };
    let mut spans: Vec<UnitSpan> = body.units.iter().map(idle).collect();
    for span in prediction.spans.iter().filter(|s| body.instructions[s.instruction].lane == COMPUTE) {
        let after = body.units.partition_point(|unit| unit.first as usize <= span.instruction);
        let Some(at) = after.checked_sub(1).filter(|at| span.instruction < body.units[*at].end as usize) else {
            continue;
        };
        spans[at].start = spans[at].start.min(span.begin);
        spans[at].end = spans[at].end.max(span.end);
    }
    spans.retain(|span| span.start < span.end);
    spans
}

fn unit(of: &plan::Unit) -> Unit {
    Unit { stage: of.stage as usize, microbatch: of.microbatch as usize, kind: of.kind }
}
