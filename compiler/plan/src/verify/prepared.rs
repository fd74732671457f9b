//! Prepared values: what a program that prepares reads and writes.
//!
//! - It reads parameters, a rank's coordinates and prepared values of programs before it, and nothing else that lives from
//!   step to step: its results follow from parameters, whenever it runs.
//! - It writes prepared values and buffers of its own.
//! - A prepared value is written by one such program, whole, on each class that holds it, and by no other program.

use rustc_hash::FxHashMap;
use types::Runs;

use crate::violation::{Findings, Rule};
use crate::{BufferId, ClassId, Plan, StateInit};

/// What a persistent buffer holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Parameter,
    Coordinate,
    Prepared,
    Other,
}

pub fn check(plan: &Plan, findings: &mut Findings) {
    for (c, class) in plan.classes.iter().enumerate() {
        let contents = contents(plan, ClassId::new(c), class.persistent.len());
        // The program that writes each prepared value, and the ranges of its bytes.
        let mut written: FxHashMap<BufferId, (usize, Vec<(u64, u64)>)> = FxHashMap::default();
        for (p, program) in plan.programs.iter().enumerate() {
            let Some(scope) = plan.scope(p, ClassId::new(c)) else { continue };
            findings.scope = format!("{}, {}", program.name, class.name);
            let prepares = program.runs == Runs::Prepare;
            for (index, instruction) in scope.body.instructions.iter().enumerate() {
                for (slice, access) in instruction.op.slices(|k| plan.accesses(k)) {
                    let Some(content) = contents.get(slice.buffer.index()).copied() else { continue };
                    let name = scope.buffer(slice.buffer).map_or("?", |b| b.name.as_str());
                    let mut add = |what: &str| {
                        findings.add(Rule::Prepared, format!("{} {what}: `{name}`", scope.describe(index)));
                    };
                    if content == Content::Prepared && access.writes() {
                        let (by, ranges) = written.entry(slice.buffer).or_insert((p, vec![]));
                        ranges.push((slice.offset, slice.offset.saturating_add(slice.bytes)));
                        if !prepares {
                            add("writes a prepared value, and its program does not prepare");
                        } else if *by != p {
                            add("writes a prepared value that another program has made");
                        }
                    } else if prepares && access.writes() {
                        add("writes what is no prepared value");
                    }
                    if prepares && access.reads() && content == Content::Other {
                        add("reads what does not follow from parameters");
                    }
                    if prepares
                        && content == Content::Prepared
                        && access.reads()
                        && !written.contains_key(&slice.buffer)
                    {
                        add("reads a prepared value before any program has made it");
                    }
                }
            }
        }
        findings.scope = class.name.to_string();
        let prepared = plan.manifest.states.iter().filter(|s| s.init == StateInit::Prepared);
        for (state, id) in prepared.filter_map(|s| Some((s, s.buffer(ClassId::new(c))?))) {
            let want = class.persistent.get(id.index()).and_then(|b| Some(b.ty.as_ref()?.bytes() as u64));
            let made = written.remove(&id).map_or(0, |(_, ranges)| covered(ranges));
            if want.is_none_or(|want| made < want) {
                findings.add(Rule::Prepared, format!("no program prepares all of `{}`", state.name));
            }
        }
    }
    findings.scope.clear();
}

/// How many bytes from the first on are in these ranges.
fn covered(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    ranges.into_iter().fold(0, |end, (from, to)| if from <= end { end.max(to) } else { end })
}

/// By persistent buffer of a class.
fn contents(plan: &Plan, class: ClassId, count: usize) -> Vec<Content> {
    let mut contents = vec![Content::Other; count];
    let mut set = |id: Option<BufferId>, content| {
        if let Some(slot) = id.and_then(|id| contents.get_mut(id.index())) {
            *slot = content;
        }
    };
    plan.manifest.parameters.iter().for_each(|p| set(p.buffer(class), Content::Parameter));
    for state in &plan.manifest.states {
        let content = match state.init {
            StateInit::Value(_) => Content::Other,
            StateInit::Parameter => Content::Parameter,
            StateInit::Coordinate(_) => Content::Coordinate,
            StateInit::Prepared => Content::Prepared,
        };
        set(state.buffer(class), content);
    }
    contents
}
