//! The outline of a plan: its instructions in phases, loops and parts of the model.
//!
//! Phases, blocks and micro-batches are the origins of instructions. Parts have their names from the parameters that they
//! read, the gradients that they write and their places in the `.mm` file.

mod flow;
mod loops;
mod names;
mod phases;
mod segments;

pub use plan::Phase;
use plan::{Body, Plan};

pub use self::flow::Read;
use self::loops::{Loop, Loops};
pub use self::segments::{Segments, segments, sites};

/// One program on one class of ranks.
pub struct Outline<'p> {
    pub body: &'p Body,
    pub reads: Vec<Vec<Read>>,
    /// For each instruction.
    pub phase: Vec<Phase>,
    /// For each instruction, the one that stands for it: the same of a loop's first turn, or itself.
    pub first: Vec<usize>,
    pub loops: Vec<Loop>,
    /// For each instruction, the parameters that it reads, gathered or cast or as they are, or whose gradient it makes.
    pub parameters: Vec<Vec<String>>,
    /// For each instruction, whether what it gives is made of parameters alone: a gathered or a cast weight.
    pub weight: Vec<bool>,
    /// For each instruction that stands for itself, the loops around it, outermost first.
    pub around: Vec<Vec<usize>>,
}

/// One outline for each class of a program.
pub fn outline<'p>(plan: &'p Plan, program: &'p plan::Program) -> Vec<Outline<'p>> {
    let parts: Vec<_> = plan.classes.iter().zip(&program.bodies).collect();
    let reads: Vec<_> = parts.iter().map(|(class, body)| flow::reads(plan, class, body)).collect();
    let phases = phases::phases(parts.iter().map(|(_, body)| *body));
    let each = parts.into_iter().zip(reads).zip(phases);
    each.map(|(((class, body), reads), phase)| {
        let Loops { list: loops, first, around } = loops::loops(&body.instructions, &phase);
        let gradients = names::gradients(plan, program, body);
        let (parameters, weight) = names::parameters(class, body, &gradients, &reads);
        Outline { body, reads, phase, first, loops, parameters, weight, around }
    })
    .collect()
}

impl Outline<'_> {
    /// The outermost loop over blocks that an instruction is in.
    pub fn blocks(&self, index: usize) -> Option<usize> {
        self.around[self.first[index]].iter().copied().find(|&l| self.loops[l].over_blocks)
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
