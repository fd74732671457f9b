//! Memory over time as a picture: what each kind of buffer holds, stacked, for each program and class of ranks.

use std::fmt::Write;

use cost::{Machine, Prediction};
use diag::Diagnostics;
use plan::{Body, BufferKind, LaneId, Plan, Scope};

use super::memory::{Held, peak};
use crate::describe;
use crate::quantity::{bytes, milliseconds};

const COMPUTE: LaneId = LaneId(0);

/// Of the whole picture, and of a drawing in it.
const WIDTH: f64 = 1060.0;
const LEFT: f64 = 76.0;
const PLOT: f64 = 800.0;
const HEIGHT: f64 = 300.0;
/// Of the title above a drawing, and of the axis below it.
const TITLE: f64 = 54.0;
const AXIS: f64 = 58.0;
/// Of a line of text.
const LINE: f64 = 17.0;

/// Tensors at the peak that are named below a drawing.
const NAMED: usize = 8;

/// Points of a drawing: no more than can be told apart.
const COLUMNS: usize = 1600;

/// Kinds from the bottom up, what keeps its place first.
const STACKED: [(BufferKind, &str, &str); 8] = [
    (BufferKind::Parameter, "parameters", "#4e79a7"),
    (BufferKind::Optimizer, "optimiser", "#76b7b2"),
    (BufferKind::State, "other state", "#9c755f"),
    (BufferKind::Gradient, "gradients", "#59a14f"),
    (BufferKind::Activation, "activations", "#f28e2b"),
    (BufferKind::Feed, "feeds", "#edc948"),
    (BufferKind::Comm, "communication", "#b07aa1"),
    (BufferKind::Workspace, "workspace", "#bab0ac"),
];

/// A moment of a drawing: where it is from left to right, from 0 to 1, and the bytes of each kind.
struct Moment {
    at: f64,
    held: [u64; STACKED.len()],
}

/// Drawings of all programs and classes, one below the other.
pub fn picture(plan: &Plan, machine: Option<&Machine>) -> Result<String, Diagnostics> {
    let (mut drawn, mut top) = (String::new(), 0.0);
    for program in &plan.programs {
        let predictions = machine.map(|machine| crate::predicted(machine, plan, program)).transpose()?;
        for (c, scope) in plan.scopes_of(program).enumerate() {
            let who = match plan.classes.len() {
                1 => String::new(),
                _ => format!(" on {}", describe::ranges(&describe::ranks(plan, scope.class))),
            };
            let title = format!("{}, program {}{who}", describe::title(plan), program.name);
            let prediction = predictions.as_ref().and_then(|p| p.get(c));
            top += drawing(&mut drawn, top, &title, scope, machine, prediction);
        }
    }
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" viewBox=\"0 0 {WIDTH} {top}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#222\">"
    );
    let _ = writeln!(out, "<rect width=\"{WIDTH}\" height=\"{top}\" fill=\"white\"/>\n{drawn}</svg>");
    Ok(out)
}

/// Draws one rank's memory and gives the height that it took.
fn drawing(
    out: &mut String,
    top: f64,
    title: &str,
    scope: Scope<'_>,
    machine: Option<&Machine>,
    prediction: Option<&Prediction>,
) -> f64 {
    let (body, peak) = (scope.body, peak(scope));
    let times = times(body, prediction);
    let moments = moments(scope, &times);
    let limit = machine.map(Machine::memory_bytes).filter(|limit| *limit < body.arena_bytes * 2);
    let highest = body.arena_bytes.max(limit.unwrap_or(0)).max(1) as f64 * 1.06;
    let x = |at: f64| LEFT + at * PLOT;
    let y = |bytes: u64| top + TITLE + HEIGHT * (1.0 - bytes as f64 / highest);
    text(out, LEFT, top + 22.0, "font-size=\"15\" font-weight=\"bold\"", title);
    let over = (body.arena_bytes as f64 / peak.fullest.bytes.max(1) as f64 - 1.0) * 100.0;
    let (arena, most) = (bytes(body.arena_bytes), bytes(peak.fullest.bytes));
    text(out, LEFT, top + 40.0, "", &format!("at most {most} live at once; the arena is {over:.1} % larger"));
    scale(out, highest, y);
    areas(out, &moments, x, y);
    line(out, y(body.arena_bytes), "#222", &format!("arena {arena}"));
    if let Some((limit, machine)) = limit.zip(machine) {
        line(out, y(limit), "#d62728", &format!("{} {}", machine.name, bytes(limit)));
    }
    let here = x(times.get(peak.fullest.instruction).copied().unwrap_or(0.0));
    let (above, below) = (top + TITLE, top + TITLE + HEIGHT);
    let _ = writeln!(
        out,
        "<path d=\"M{here:.1} {above:.1}V{below:.1}\" stroke=\"#222\" stroke-width=\"0.8\" stroke-dasharray=\"2 3\"/>"
    );
    let until = match prediction {
        Some(p) => format!("{} predicted", milliseconds(p.step_seconds)),
        None => format!("{} instructions", body.instructions.len()),
    };
    text(out, LEFT, below + 16.0, "", "0");
    text(out, LEFT + PLOT, below + 16.0, "text-anchor=\"end\"", &until);
    let anchor = if here > LEFT + PLOT / 2.0 { "end" } else { "start" };
    let note = format!("most lives at instruction {}", peak.fullest.instruction);
    text(out, here, below + 32.0, &format!("text-anchor=\"{anchor}\" font-style=\"italic\""), &note);
    legend(out, &moments, top + TITLE);
    let named = &peak.held[..NAMED.min(peak.held.len())];
    text(out, LEFT, below + AXIS, "font-weight=\"bold\"", "At the peak, the largest:");
    for (i, held) in named.iter().enumerate() {
        let line = below + AXIS + LINE * (i + 1) as f64;
        let colour = STACKED.iter().find(|(kind, ..)| *kind == held.kind).map_or("#222", |s| s.2);
        let _ =
            writeln!(out, "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"{colour}\"/>", line - 9.0);
        text(out, LEFT + 80.0, line, "text-anchor=\"end\"", &bytes(held.bytes));
        text(out, LEFT + 90.0, line, "", &name(held));
    }
    TITLE + HEIGHT + AXIS + LINE * (named.len() + 2) as f64
}

/// One line of at most so many letters.
fn name(held: &Held) -> String {
    const LETTERS: usize = 150;
    let count = if held.count > 1 { format!("{} x ", held.count) } else { String::new() };
    let whole = [&format!("{count}{}", held.what), &held.ty, &held.place];
    let whole = whole.iter().filter(|part| !part.is_empty()).map(|part| part.as_str()).collect::<Vec<_>>().join("  ");
    match whole.char_indices().nth(LETTERS) {
        Some((at, _)) => format!("{}...", &whole[..at]),
        None => whole,
    }
}

/// By instruction: when it begins, as a share of the step; where no machine is known, each takes equally long.
fn times(body: &Body, prediction: Option<&Prediction>) -> Vec<f64> {
    let count = body.instructions.len();
    let Some(p) = prediction.filter(|p| p.step_seconds > 0.0) else {
        return (0..count).map(|i| i as f64 / count as f64).collect();
    };
    let mut begins = vec![None; count];
    for span in p.spans.iter().filter(|s| body.instructions[s.instruction].lane == COMPUTE) {
        begins[span.instruction] = Some(span.begin / p.step_seconds);
    }
    let mut now = 0.0_f64;
    let times = begins.into_iter().map(|begin| {
        now = now.max(begin.unwrap_or(now));
        now
    });
    times.collect()
}

/// The fullest instruction of each column.
fn moments(scope: Scope<'_>, times: &[f64]) -> Vec<Moment> {
    let body = scope.body;
    let kept = |kind| scope.present().filter(|b| b.kind == kind && !b.on_host()).map(|b| b.bytes).sum::<u64>();
    let kept = STACKED.map(|(kind, ..)| kept(kind));
    let live = STACKED.map(|(kind, ..)| plan::occupancy(body, &[kind]));
    let mut moments: Vec<Moment> = vec![];
    let mut column = None;
    for (i, &at) in times.iter().enumerate() {
        let mut held = kept;
        held.iter_mut().zip(&live).for_each(|(sum, live)| *sum += live[i]);
        let here = (at * COLUMNS as f64) as usize;
        match moments.last_mut().filter(|_| column == Some(here)) {
            Some(last) if last.held.iter().sum::<u64>() >= held.iter().sum() => {}
            Some(last) => last.held = held,
            None => moments.push(Moment { at, held }),
        }
        column = Some(here);
    }
    moments
}

fn areas(out: &mut String, moments: &[Moment], x: impl Fn(f64) -> f64, y: impl Fn(u64) -> f64) {
    let sum = |m: &Moment, kinds: usize| m.held[..kinds].iter().sum::<u64>();
    for (k, (_, _, colour)) in STACKED.iter().enumerate() {
        if moments.iter().all(|m| m.held[k] == 0) {
            continue;
        }
        // Steps: what lives changes where an instruction begins.
        let ends = moments.iter().skip(1).map(|m| m.at).chain([1.0]);
        let spans: Vec<(f64, f64, &Moment)> = moments.iter().zip(ends).map(|(m, end)| (x(m.at), x(end), m)).collect();
        let mut path = String::new();
        for (i, (begin, end, m)) in spans.iter().enumerate() {
            let to = y(sum(m, k + 1));
            let _ = write!(path, "{}{begin:.1} {to:.1}H{end:.1}", if i == 0 { 'M' } else { 'L' });
        }
        for (begin, end, m) in spans.iter().rev() {
            let _ = write!(path, "L{end:.1} {:.1}H{begin:.1}", y(sum(m, k)));
        }
        let _ = writeln!(out, "<path d=\"{path}Z\" fill=\"{colour}\"/>");
    }
}

/// The axis of bytes: a line at each round number.
fn scale(out: &mut String, highest: f64, y: impl Fn(u64) -> f64) {
    let mut step = 1.0_f64;
    while highest / step > 8.0 {
        step *= 2.0;
    }
    let mut at = 0.0;
    while at <= highest {
        let here = y(at as u64);
        let _ = writeln!(out, "<path d=\"M{LEFT} {here:.1}h{PLOT}\" stroke=\"#ddd\" stroke-width=\"0.8\"/>");
        text(out, LEFT - 6.0, here + 4.0, "text-anchor=\"end\"", &bytes(at as u64));
        at += step;
    }
}

fn line(out: &mut String, y: f64, colour: &str, what: &str) {
    let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}h{PLOT}\" stroke=\"{colour}\" stroke-width=\"1.2\"/>");
    // Above the line, readable on whatever lies below.
    let halo = format!("fill=\"{colour}\" stroke=\"white\" stroke-width=\"3\" paint-order=\"stroke\"");
    text(out, LEFT + 6.0, y - 4.0, &halo, what);
}

/// The kinds that occur, the uppermost first.
fn legend(out: &mut String, moments: &[Moment], top: f64) {
    let left = LEFT + PLOT + 12.0;
    let shown = STACKED.iter().enumerate().rev().filter(|(k, _)| moments.iter().any(|m| m.held[*k] > 0));
    for (i, (k, (_, what, colour))) in shown.enumerate() {
        let most = moments.iter().map(|m| m.held[k]).max().unwrap_or(0);
        let y = top + 14.0 + LINE * i as f64;
        let _ = writeln!(out, "<rect x=\"{left}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>", y - 9.0);
        text(out, left + 16.0, y, "", &format!("{what} {}", bytes(most)));
    }
}

fn text(out: &mut String, x: f64, y: f64, attributes: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{words}</text>");
}
