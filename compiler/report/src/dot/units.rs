//! Units: what is one box in the picture at a level, and which box each instruction belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plan::{Op, Plan};

use crate::dot::Level;
use crate::outline::{Outline, Phase, Segments, sites};
use crate::quantity::{bytes, flops};

pub struct Unit {
    pub phase: Phase,
    /// None at the level of stages, where a unit is a phase.
    pub segment: Option<usize>,
    /// The first line is its name.
    pub lines: Vec<String>,
    /// Launches and copies, all turns of loops.
    pub members: Vec<usize>,
}

pub struct Units {
    pub list: Vec<Unit>,
    /// For each launch and copy, its unit.
    pub of: Vec<Option<usize>>,
}

pub fn units(plan: &Plan, outline: &Outline<'_>, segments: &Segments, level: Level) -> Units {
    let instructions = &outline.body.instructions;
    let mut list: Vec<Unit> = vec![];
    let mut of: Vec<Option<usize>> = vec![None; instructions.len()];
    let mut keys: HashMap<String, usize> = HashMap::new();
    let mut last: Option<usize> = None;
    for index in 0..instructions.len() {
        let Some(segment) = segments.of[index] else { continue };
        let first = outline.first[index];
        let phase = segments.list[segment].phase;
        let unit = if first != index {
            of[first]
        } else {
            let key = match level {
                Level::Stages => format!("{phase:?}"),
                Level::Blocks => format!("{segment}"),
                Level::Ops if phase == Phase::Update => step_of_optimiser(plan, outline, &of, &list, index),
                Level::Ops => {
                    let next =
                        last.filter(|&u| list[u].segment == Some(segment) && follows(plan, outline, &list[u], index));
                    next.map_or_else(|| format!("#{index}"), |u| format!("#{}", list[u].members[0]))
                }
            };
            Some(*keys.entry(key).or_insert_with(|| {
                list.push(Unit {
                    phase,
                    segment: (level != Level::Stages).then_some(segment),
                    lines: vec![],
                    members: vec![],
                });
                list.len() - 1
            }))
        };
        if let Some(unit) = unit {
            list[unit].members.push(index);
            of[index] = Some(unit);
            last = Some(unit);
        }
    }
    for unit in &mut list {
        unit.lines = match level {
            Level::Stages => vec![unit.phase.name().to_owned(), figures(plan, outline, &unit.members)],
            Level::Blocks => {
                let segment = &segments.list[unit.segment.unwrap_or_default()];
                let times = if segment.times > 1 { format!(" \u{d7} {}", segment.times) } else { String::new() };
                vec![format!("{}{times}", segment.name), figures(plan, outline, &unit.members)]
            }
            Level::Ops => of_ops(plan, outline, segments, unit),
        };
    }
    Units { list, of }
}

/// `1.2 PFLOP, 4320 launches`.
pub fn figures(plan: &Plan, outline: &Outline<'_>, members: &[usize]) -> String {
    let (mut work, mut launches) = (0u128, 0);
    for &index in members {
        if let Op::Launch(launch) = &outline.body.instructions[index].op {
            work += plan.kernels.get(launch.kernel.index()).map_or(0, |k| u128::from(k.flops));
            launches += 1;
        }
    }
    format!("{}, {launches} launch{}", flops(work), if launches == 1 { "" } else { "es" })
}

/// Whether a launch belongs in the box of the one before: the same place, and no collective between.
fn follows(plan: &Plan, outline: &Outline<'_>, unit: &Unit, index: usize) -> bool {
    let instructions = &outline.body.instructions;
    let place = |index: usize| plan.places.get(instructions[index].place.index());
    let same = unit.members.last().and_then(|&l| place(l)).zip(place(index)).is_some_and(|(a, b)| {
        (&a.file, a.line, a.column, sites(a)) == (&b.file, b.line, b.column, sites(b)) && a.line > 0
    });
    let collective = |writer: usize| matches!(instructions[writer].op, Op::Collect(_)) && !outline.weight[writer];
    same && !outline.reads[index].iter().filter_map(|r| r.writer).any(collective)
}

/// The optimiser does the same for every parameter: a box is a kind of operator behind the same kinds of operators.
fn step_of_optimiser(plan: &Plan, outline: &Outline<'_>, of: &[Option<usize>], list: &[Unit], index: usize) -> String {
    let name = operator(plan, &outline.body.instructions[index].op);
    let mut behind = BTreeSet::new();
    for writer in outline.reads[index].iter().filter_map(|r| r.writer) {
        let launch = match &outline.body.instructions[writer].op {
            Op::Collect(_) => outline.reads[writer].iter().find_map(|r| r.writer),
            _ => Some(writer),
        };
        let unit = launch.and_then(|l| of[l]).filter(|&u| list[u].phase == Phase::Update);
        let other =
            unit.and_then(|u| list[u].members.first()).map(|&l| operator(plan, &outline.body.instructions[l].op));
        behind.extend(other.filter(|o| *o != name));
    }
    format!("{name} behind {behind:?}")
}

/// `matmul`, of the kernel `k12_matmul`.
pub fn operator(plan: &Plan, op: &Op) -> String {
    let Op::Launch(launch) = op else { return "copy".to_owned() };
    let Some(kernel) = plan.kernels.get(launch.kernel.index()) else { return String::new() };
    let number = |head: &str| head.strip_prefix('k').is_some_and(|n| n.parse::<u32>().is_ok());
    match kernel.symbol.split_once('_') {
        Some((head, rest)) if number(head) => rest.to_owned(),
        _ => kernel.symbol.to_string(),
    }
}

fn of_ops(plan: &Plan, outline: &Outline<'_>, segments: &Segments, unit: &Unit) -> Vec<String> {
    let instructions = &outline.body.instructions;
    let segment = &segments.list[unit.segment.unwrap_or_default()];
    let shown: Vec<usize> = unit.members.iter().copied().filter(|&i| outline.first[i] == i).collect();
    let mut operators: Vec<(String, usize)> = vec![];
    for &index in &shown {
        let name = operator(plan, &instructions[index].op);
        match operators.last_mut().filter(|(last, _)| *last == name) {
            Some((_, n)) => *n += 1,
            None => operators.push((name, 1)),
        }
    }
    let times = |(name, n): &(String, usize)| if *n > 1 { format!("{n} \u{d7} {name}") } else { name.clone() };
    let operators = operators.iter().map(times).collect::<Vec<_>>();
    let work = figures(plan, outline, &shown);
    let work = work.split(", ").next().unwrap_or_default().to_owned();
    if unit.phase == Phase::Update {
        return vec![operators.join(" "), work];
    }
    let mut lines = vec![];
    let depth = segment.stem.split('.').filter(|part| !part.is_empty()).count();
    let mut about: BTreeMap<String, ()> = BTreeMap::new();
    for name in shown.iter().flat_map(|&i| &outline.parameters[i]) {
        let tail: Vec<&str> = name.split('.').skip(depth).collect();
        let tail = tail.join(".");
        let tail = tail.trim_end_matches("weight").trim_end_matches("bias").trim_end_matches('.').to_owned();
        if !tail.is_empty() {
            about.insert(tail, ());
        }
    }
    if !about.is_empty() {
        lines.push(about.into_keys().take(3).collect::<Vec<_>>().join(", "));
    }
    lines.extend(operators.chunks(4).map(|row| row.join(" \u{b7} ")));
    let place = shown.first().and_then(|&i| plan.places.get(instructions[i].place.index())).filter(|p| p.line > 0);
    let place = place.map_or_else(String::new, |p| format!("{}:{}", p.file, p.line));
    let moved = |index: usize| match &instructions[index].op {
        Op::Copy { from, .. } => from.bytes,
        _ => 0,
    };
    let copied: u64 = shown.iter().map(|&i| moved(i)).sum();
    let work = if copied > 0 { bytes(copied) } else { work };
    lines.push(if place.is_empty() { work } else { format!("{work} at {place}") });
    lines
}
