//! Phases of a step. An instruction that feeds both the loss and a gradient counts as forward.

use plan::{BufferKind, Emit, Op, Phase, Slice, When};
use program::{DefUse, RankProgram};

/// A forward is what leads to emits that are always given, a backward what leads to gradients, and an update the rest. An
/// emit that is made of gradients, such as their norm, is no result of either.
pub fn set(program: &mut RankProgram, emits: &[Emit]) {
    let def_use = program.def_use();
    let follows = follow_gradients(program, &def_use);
    let is_always = |i: usize| match &program.instructions[i].op {
        Op::Emit { emit, .. } if !follows[i] => emits.get(emit.index()).map(|e| e.when == When::Always),
        _ => None,
    };
    let forward = lead_to(&def_use, |i| is_always(i) == Some(true));
    let backward = lead_to(&def_use, |i| is_always(i) == Some(false));
    for (instruction, leads) in program.instructions.iter_mut().zip(forward.into_iter().zip(backward)) {
        instruction.origin.phase = match leads {
            (true, _) => Phase::Forward,
            (false, true) => Phase::Backward,
            (false, false) => Phase::Update,
        };
    }
}

/// By instruction: whether what it reads is made of gradients, such as their norm. An emit of a gradient does not.
fn follow_gradients(program: &RankProgram, def_use: &DefUse) -> Vec<bool> {
    let is_gradient = |s: &Slice| program.buffer(s.buffer).kind == BufferKind::Gradient;
    let mut made = vec![false; def_use.buffers()];
    let follows = program.instructions.iter().enumerate().map(|(i, instruction)| {
        let is_emit = matches!(instruction.op, Op::Emit { .. });
        let follows = def_use.reads(i).any(|s| made[s.buffer.index()] || (!is_emit && is_gradient(&s)));
        if follows {
            def_use.writes(i).for_each(|s| made[s.buffer.index()] = true);
        }
        follows
    });
    follows.collect()
}

/// By instruction: whether any of these needs it, or is it.
fn lead_to(def_use: &DefUse, ends: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut wanted = vec![false; def_use.buffers()];
    let mut leads = vec![false; def_use.len()];
    for i in (0..def_use.len()).rev() {
        leads[i] = ends(i) || def_use.writes(i).any(|s| wanted[s.buffer.index()]);
        if leads[i] {
            def_use.reads(i).for_each(|s| wanted[s.buffer.index()] = true);
        }
    }
    leads
}
