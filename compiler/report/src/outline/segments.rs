//! Parts of a program as its model names them: a loop over blocks, a run of launches under one call, the optimiser.

use std::collections::BTreeSet;

use plan::{Op, Place, Plan};

use super::{Outline, Phase, common};

#[derive(Clone, Debug)]
pub struct Segment {
    pub phase: Phase,
    /// Loops around it that do not go over blocks, outermost first.
    pub around: Vec<usize>,
    /// `blocks`, `patch_embedding`, `wan2.2.mm:326-327`.
    pub name: String,
    /// What the names of its parameters begin with, `blocks.{}`; empty if they have nothing in common.
    pub stem: String,
    /// Turns of its loop; 1 without one.
    pub times: usize,
}

pub struct Segments {
    pub list: Vec<Segment>,
    /// For each launch and copy, its segment.
    pub of: Vec<Option<usize>>,
}

/// The calls that lead to a place, outermost first, its own call not among them.
pub fn sites(place: &Place) -> Vec<&str> {
    let mut sites: Vec<&str> = place.chain.split(" < ").skip(1).collect();
    sites.reverse();
    sites
}

#[derive(PartialEq)]
enum Key<'a> {
    Optimiser,
    Loop(usize),
    Calls(Vec<&'a str>),
}

pub fn segments(plan: &Plan, outline: &Outline<'_>) -> Segments {
    let instructions = &outline.body.instructions;
    let calls = |index: usize| plan.places.get(instructions[index].place.index()).map(sites).unwrap_or_default();
    let works = |index: &usize| matches!(instructions[*index].op, Op::Launch(_) | Op::Copy { .. });
    let launches: Vec<usize> = (0..instructions.len()).filter(works).collect();
    let depth = depth(outline, &launches, calls);
    let mut members: Vec<Vec<usize>> = vec![];
    let mut keys: Vec<(Phase, Vec<usize>, Key<'_>)> = vec![];
    let mut of: Vec<Option<usize>> = vec![None; instructions.len()];
    let mut last = None;
    for index in launches.iter().copied().filter(|&i| outline.first[i] == i) {
        let phase = outline.phase[index];
        let blocks = outline.blocks(index);
        let around = outline.around[index].iter().copied().take_while(|l| Some(*l) != blocks).collect();
        let key = match (phase, blocks) {
            (Phase::Update, _) => (phase, vec![], Key::Optimiser),
            (_, Some(l)) => (outline.phase[outline.loops[l].work[0]], around, Key::Loop(l)),
            _ => (phase, around, Key::Calls(calls(index).into_iter().take(depth).collect())),
        };
        let known = match &key.2 {
            Key::Calls(_) => last.filter(|&s: &usize| keys[s] == key),
            _ => keys.iter().position(|k| *k == key),
        };
        let segment = known.unwrap_or_else(|| {
            keys.push(key);
            members.push(vec![]);
            keys.len() - 1
        });
        members[segment].push(index);
        of[index] = Some(segment);
        last = Some(segment);
    }
    let list = keys.into_iter().zip(members).map(|((phase, around, key), members)| {
        let parameters = || members.iter().flat_map(|&i| &outline.parameters[i]).map(String::as_str);
        let (mut stem, mut times) = (common(parameters()).unwrap_or_default(), 1);
        let name = match key {
            Key::Optimiser => "optimiser".to_owned(),
            Key::Loop(l) => {
                times = outline.loops[l].times;
                let all = outline.loops[l].work.iter().flat_map(|&i| &outline.parameters[i]);
                stem = common(all.map(String::as_str)).unwrap_or_default();
                let name = stem.trim_end_matches(".{}");
                if name.is_empty() { lines(plan, outline, &members) } else { name.to_owned() }
            }
            Key::Calls(_) => name(plan, outline, &members, &stem),
        };
        Segment { phase, around, name, stem, times }
    });
    let list: Vec<Segment> = list.collect();
    for &index in &launches {
        of[index] = of[outline.first[index]];
    }
    Segments { list, of }
}

/// How many calls tell the parts of the model apart: one more than lead to its blocks and to something else as well.
fn depth<'a>(outline: &Outline<'_>, launches: &[usize], calls: impl Fn(usize) -> Vec<&'a str>) -> usize {
    let (inside, outside): (Vec<usize>, Vec<usize>) = launches
        .iter()
        .filter(|&&i| outline.first[i] == i && outline.phase[i] != Phase::Update)
        .partition(|&&i| outline.blocks(i).is_some());
    let Some(&block) = inside.first() else { return 1 };
    let path = calls(block);
    let shared = |i: &usize| calls(*i).iter().zip(&path).take_while(|(a, b)| a == b).count();
    1 + outside.iter().map(shared).max().unwrap_or(0)
}

fn name(plan: &Plan, outline: &Outline<'_>, members: &[usize], stem: &str) -> String {
    if !stem.is_empty() {
        return stem.trim_end_matches(".weight").trim_end_matches(".bias").to_owned();
    }
    let all = members.iter().flat_map(|&i| &outline.parameters[i]);
    let heads: BTreeSet<&str> = all.map(|p| p.split('.').next().unwrap_or(p)).collect();
    match heads.len() {
        1..=2 => heads.into_iter().collect::<Vec<_>>().join(", "),
        _ => lines(plan, outline, members),
    }
}

/// `wan2.2.mm:326-340`.
fn lines(plan: &Plan, outline: &Outline<'_>, members: &[usize]) -> String {
    let places = members.iter().filter_map(|&i| plan.places.get(outline.body.instructions[i].place.index()));
    let known: Vec<&Place> = places.filter(|p| p.line > 0).collect();
    let file = known.first().map_or("", |p| p.file.as_str());
    let here = || known.iter().filter(|p| p.file == *file).map(|p| p.line);
    match (here().min(), here().max()) {
        (Some(first), Some(last)) if first == last => format!("{file}:{first}"),
        (Some(first), Some(last)) => format!("{file}:{first}-{last}"),
        _ => "made by the compiler".to_owned(),
    }
}
