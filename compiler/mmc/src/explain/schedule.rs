//! The schedule of a pipeline, drawn: one line for each stage, those of a rank together, and a letter and a number for each
//! stage's work on a micro-batch.

use std::fmt::Write;
use std::iter::repeat;

use cost::Machine;
use diag::{Diagnostic, Diagnostics};
use passes::{Grid, Timeline};
use plan::{Body, LaneId, Plan, Program, Unit, UnitKind};
use report::describe;
use report::quantity::milliseconds;

const COMPUTE: LaneId = LaneId(0);

/// A unit and when it is at work.
struct Bar {
    unit: Unit,
    begin: f64,
    end: f64,
}

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
        let grid = grid(program);
        let _ = writeln!(
            out,
            "\nprogram {}: {} stages on {} ranks, {} micro-batch{}",
            program.name,
            grid.stages(),
            grid.ranks,
            grid.microbatches,
            if grid.microbatches == 1 { "" } else { "es" }
        );
        let kinds = program.bodies.iter().flat_map(|b| &b.units).map(|u| u.kind);
        let split = kinds.clone().any(|kind| kind == UnitKind::Weights);
        let has_backward = kinds.clone().any(|kind| kind != UnitKind::Forward);
        legend(&mut out, split, has_backward);
        ideal(&mut out, program, grid, split, has_backward, columns)?;
        if let Some(machine) = machine {
            predicted(&mut out, plan, program, machine, columns)?;
        }
    }
    Ok(out)
}

fn grid(program: &Program) -> Grid {
    let units = || program.bodies.iter().flat_map(|body| &body.units);
    let ranks = program.bodies.len();
    let stages = units().map(|unit| unit.stage as usize + 1).max().unwrap_or(1);
    let microbatches = units().map(|unit| unit.microbatch as usize + 1).max().unwrap_or(1);
    Grid { ranks, chunks: stages.div_ceil(ranks.max(1)), microbatches }
}

fn legend(out: &mut String, split: bool, has_backward: bool) {
    let rest = match (has_backward, split) {
        (false, _) => "",
        (true, false) => ", B its backward",
        (true, true) => ", B the gradients of a stage's inputs, W those of its weights",
    };
    let _ = writeln!(out, "F is a forward of a micro-batch{rest}");
}

/// Stages of equal length on a machine where messages take no time.
fn ideal(
    out: &mut String,
    program: &Program,
    grid: Grid,
    split: bool,
    has_backward: bool,
    columns: usize,
) -> Result<(), Diagnostics> {
    let kinds: &[UnitKind] = match (has_backward, split) {
        (false, _) => &[UnitKind::Forward],
        (true, false) => &[UnitKind::Forward, UnitKind::Backward],
        (true, true) => &[UnitKind::Forward, UnitKind::Backward, UnitKind::Weights],
    };
    let unit = |u: &Unit| passes::Unit { stage: u.stage as usize, microbatch: u.microbatch as usize, kind: u.kind };
    let orders: Vec<Vec<passes::Unit>> = program.bodies.iter().map(|b| b.units.iter().map(unit).collect()).collect();
    let length = |unit: &passes::Unit| if unit.kind == UnitKind::Backward && !split { 2 } else { 1 };
    let timeline = Timeline::play(grid, kinds, &orders, length)
        .map_err(|e| Diagnostic::error(format!("the plan's units of work are no schedule: {e}")))?;
    let bars = timeline.ranks.iter().zip(&program.bodies).map(|(spans, body)| {
        let bars = spans.iter().zip(&body.units);
        bars.map(|(span, &unit)| Bar { unit, begin: span.start as f64, end: span.end as f64 }).collect()
    });
    let bars: Vec<Vec<Bar>> = bars.collect();
    let as_long = if split { "F, B and W take equally long" } else { "B takes twice as long as F" };
    let as_long = if has_backward { as_long } else { "all take equally long" };
    let _ = writeln!(
        out,
        "\nwhere {as_long} and messages no time: bubble {:.1} % ({} of {} of all ranks' time)",
        timeline.bubble() * 100.0,
        timeline.idle(),
        timeline.length() * grid.ranks as u64
    );
    let width = 1 + (grid.microbatches - 1).to_string().len();
    draw(out, &bars, grid, timeline.length() as f64, (timeline.length() as usize * width).min(columns));
    Ok(())
}

/// As the plan's instructions are predicted to run.
fn predicted(
    out: &mut String,
    plan: &Plan,
    program: &Program,
    machine: &Machine,
    columns: usize,
) -> Result<(), Diagnostics> {
    let predictions = report::predicted(machine, plan, program)?;
    let step = predictions.iter().map(|p| p.step_seconds).fold(0.0, f64::max);
    let bubble = predictions.iter().map(|p| p.bubble_fraction).sum::<f64>() / predictions.len().max(1) as f64;
    let bars: Vec<Vec<Bar>> = predictions.iter().zip(&program.bodies).map(|(p, body)| bars(p, body)).collect();
    let _ = writeln!(
        out,
        "\npredicted on {}: {} a step, bubble {:.1} %, one column is {}",
        machine.name,
        milliseconds(step),
        bubble * 100.0,
        milliseconds(step / columns as f64)
    );
    draw(out, &bars, grid(program), step, columns);
    Ok(())
}

/// When compute is at work on each unit.
fn bars(prediction: &cost::Prediction, body: &Body) -> Vec<Bar> {
    let mut bars: Vec<Bar> =
        body.units.iter().map(|&unit| Bar { unit, begin: f64::INFINITY, end: f64::NEG_INFINITY }).collect();
    for span in prediction.spans.iter().filter(|s| body.instructions[s.instruction].lane == COMPUTE) {
        let after = body.units.partition_point(|unit| unit.first as usize <= span.instruction);
        let bar = after.checked_sub(1).and_then(|at| bars.get_mut(at));
        if let Some(bar) = bar.filter(|bar| span.instruction < bar.unit.end as usize) {
            (bar.begin, bar.end) = (bar.begin.min(span.begin), bar.end.max(span.end));
        }
    }
    bars.retain(|bar| bar.begin < bar.end);
    bars
}

/// A line for each stage; `whole` takes all columns.
fn draw(out: &mut String, ranks: &[Vec<Bar>], grid: Grid, whole: f64, columns: usize) {
    let column = |time: f64| (time / whole * columns as f64).round() as usize;
    for (rank, bars) in ranks.iter().enumerate() {
        for stage in (rank..grid.stages()).step_by(grid.ranks) {
            let mut line = vec![' '; columns + 1];
            for bar in bars.iter().filter(|bar| bar.unit.stage as usize == stage) {
                let (begin, end) = (column(bar.begin), column(bar.end));
                let name = format!("{}{}", bar.unit.kind.letter(), bar.unit.microbatch);
                let shown = if name.len() <= end - begin { name.as_str() } else { &name[..1] };
                for (cell, letter) in line[begin..end].iter_mut().zip(shown.chars().chain(repeat('-'))) {
                    *cell = letter;
                }
            }
            let who = if stage == rank { format!("pp {rank}") } else { String::new() };
            let which = if grid.chunks > 1 { format!("stage {stage:<3} ") } else { String::new() };
            let line: String = line.into_iter().collect();
            let _ = writeln!(out, "{}", format!("{who:<6} {which}{line}").trim_end());
        }
    }
}
