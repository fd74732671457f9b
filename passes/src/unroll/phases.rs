//! Phases of a step. An instruction that feeds both the loss and a gradient counts as forward.

use plan::{BufferKind, Emit, Op, Phase, When};
use program::{DefUse, RankProgram};

/// The forward leads to emits that are always given, the backward to gradients; the update is the rest. An emit that is made
/// of gradients, such as their norm, is a result of neither.
pub fn set(program: &mut RankProgram, emits: &[Emit]) {
    let def_use = program.def_use();
    let of_gradients = made_of_gradients(program, &def_use);
    let is_always = |i: usize| match &program.instructions[i].op {
        Op::Emit { emit, .. } => emits.get(emit.index()).map(|e| e.when == When::Always),
        _ => None,
    };
    let forward = lead_to(&def_use, |i| is_always(i) == Some(true) && !of_gradients[i]);
    let backward = lead_to(&def_use, |i| is_always(i) == Some(false));
    for (instruction, leads) in program.instructions.iter_mut().zip(forward.into_iter().zip(backward)) {
        instruction.origin.phase = match leads {
            (true, _) => Phase::Forward,
            (false, true) => Phase::Backward,
            (false, false) => Phase::Update,
        };
    }
}

/// By instruction: whether it reads a gradient, or what is made of one.
fn made_of_gradients(program: &RankProgram, def_use: &DefUse) -> Vec<bool> {
    let mut made: Vec<bool> = program.buffers.iter().map(|b| b.kind == BufferKind::Gradient).collect();
    let reads_them = (0..def_use.len()).map(|i| {
        let reads = def_use.reads(i).any(|s| made[s.buffer.index()]);
        if reads {
            def_use.writes(i).for_each(|s| made[s.buffer.index()] = true);
        }
        reads
    });
    reads_them.collect()
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
