//! The outline of a plan: its instructions in phases and in parts of the model, with the loops that were written out folded again.
//!
//! A plan is straight-line. What made it is found again from the instructions alone: loops are runs of equal stretches
//! of (place, kernel) on the compute lane, and names from the parameters that
//! are read, the gradients that are written and the places in the `.mm` file.

mod flow;
mod fold;
mod names;
mod phases;
mod segments;

use std::collections::HashMap;

pub use plan::Phase;
use plan::{Body, Class, Op, Plan};

pub use self::flow::Read;
pub use self::fold::Loop;
pub use self::segments::{Segments, segments, sites};

/// One program on one class of ranks.
pub struct Outline<'p> {
    pub body: &'p Body,
    pub reads: Vec<Vec<Read>>,
    /// For each instruction.
    pub phase: Vec<Phase>,
    /// For each instruction, the one that stands for it: the same of a loop's first turn, or itself.
    pub first: Vec<usize>,
    /// Turns are lists of instructions.
    pub loops: Vec<Loop>,
    /// For each instruction, the parameters that it reads, gathered or cast or as they are, or whose gradient it makes.
    pub parameters: Vec<Vec<String>>,
    /// For each instruction, whether what it gives is made of parameters alone: a gathered or a cast weight.
    pub weight: Vec<bool>,
    /// For each instruction that stands for itself, the loops around it, outermost first.
    pub around: Vec<Vec<usize>>,
    /// For each loop, whether its turns use different parameters: it goes over blocks and not over micro-batches or pieces.
    pub over_blocks: Vec<bool>,
}

/// One outline for each class of a program.
pub fn outline<'p>(plan: &'p Plan, program: &'p plan::Program) -> Vec<Outline<'p>> {
    let parts: Vec<_> = plan.classes.iter().zip(&program.bodies).collect();
    let reads: Vec<_> = parts.iter().map(|(class, body)| flow::reads(plan, class, body)).collect();
    let phases = phases::phases(parts.iter().map(|(_, body)| *body));
    let each = parts.into_iter().zip(reads).zip(phases);
    each.map(|(((class, body), reads), phase)| of_body(class, body, reads, phase)).collect()
}

fn of_body<'p>(class: &'p Class, body: &'p Body, reads: Vec<Vec<Read>>, phase: Vec<Phase>) -> Outline<'p> {
    let mut keys: HashMap<(u32, u32), u32> = HashMap::new();
    let mut tokens = vec![];
    for (index, instruction) in body.instructions.iter().enumerate() {
        let what = match &instruction.op {
            Op::Launch(launch) => launch.kernel.0,
            Op::Copy { .. } => u32::MAX,
            _ => continue,
        };
        // The optimiser goes over parameters, not over blocks.
        if phase[index] != Phase::Update {
            let next = keys.len() as u32;
            tokens.push((index, *keys.entry((instruction.place.0, what)).or_insert(next)));
        }
    }
    let folded = fold::fold(&tokens.iter().map(|(_, key)| *key).collect::<Vec<_>>());
    let instruction = |token: usize| tokens[token].0;
    let mut first: Vec<usize> = (0..body.instructions.len()).collect();
    for (token, &of) in folded.first.iter().enumerate() {
        first[instruction(token)] = instruction(of);
    }
    let turns = |l: Loop| Loop {
        turns: l.turns.into_iter().map(|turn| turn.into_iter().map(instruction).collect()).collect(),
        ..l
    };
    let loops: Vec<Loop> = folded.loops.into_iter().map(turns).collect();
    let mut around = vec![vec![]; body.instructions.len()];
    for (l, of) in loops.iter().enumerate() {
        for &index in &of.turns[0] {
            around[first[index]].push(l);
        }
    }
    around.iter_mut().for_each(|list| list.dedup());
    let (parameters, weight) = names::parameters(class, body, &reads);
    let used = |turn: &[usize]| turn.iter().flat_map(|&i| parameters[i].clone()).collect::<Vec<_>>();
    let over_blocks = loops.iter().map(|l| used(&l.turns[0]) != used(&l.turns[1])).collect();
    Outline { body, reads, phase, first, loops, parameters, weight, around, over_blocks }
}

impl Outline<'_> {
    /// The outermost loop over blocks that an instruction is in.
    pub fn blocks(&self, index: usize) -> Option<usize> {
        self.around[self.first[index]].iter().copied().find(|&l| self.over_blocks[l])
    }
}

/// `blocks.{}.attn1`: what dotted names have in common, numbers that differ left open; none if that is nothing.
pub fn common<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let mut names = names.into_iter().map(|n| n.split('.').collect::<Vec<_>>());
    let mut shared: Vec<&str> = names.next()?;
    for name in names {
        let number = |part: &str| part.parse::<u32>().is_ok();
        let equal = shared.iter().zip(&name).map(|(a, b)| match (a == b, *a == "{}" || number(a), number(b)) {
            (true, ..) => Some(*a),
            (false, true, true) => Some("{}"),
            _ => None,
        });
        shared = equal.map_while(|part| part).collect();
    }
    (!shared.is_empty()).then(|| shared.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_stem_in_common() {
        let check = |names: &[&str], want: Option<&str>| {
            assert_eq!(common(names.iter().copied()).as_deref(), want, "{names:?}");
        };
        check(&["blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_q.bias"], Some("blocks.0.attn1.to_q"));
        check(&["blocks.0.attn1.to_q.weight", "blocks.1.ffn.net.2.bias", "blocks.2.x"], Some("blocks.{}"));
        check(&["proj_out.weight"], Some("proj_out.weight"));
        check(&["proj_out.weight", "blocks.0.x"], None);
        check(&[], None);
    }
}
