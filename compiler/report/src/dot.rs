//! A plan as a picture for Graphviz, with classes of ranks as clusters, at three levels of detail.
//!
//! All levels draw in one way: instructions gather into units (a phase, a part of the model, a few launches of one
//! place), collectives hang between the units that they serve, and edges carry the bytes that flow.

mod draw;
mod picture;
mod units;

use diag::{Diagnostic, Diagnostics};
use plan::Plan;

use crate::describe;

/// How much of a plan a picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Phases of each class of ranks.
    Stages,
    /// Parts of the model; equal blocks are drawn once.
    Blocks,
    /// Every operator.
    Ops,
}

/// The picture as text for Graphviz; of one rank alone, its peers have numbers.
pub fn text(plan: &Plan, level: Level, rank: Option<usize>) -> Result<String, Diagnostics> {
    let world = plan.header.world();
    if let Some(rank) = rank.filter(|rank| *rank >= world) {
        return Err(Diagnostic::error(format!("there is no rank {rank}: the plan is for {world} ranks"))
            .help(format!("--rank takes 0 to {}", world - 1))
            .into());
    }
    let mut picture = picture::Picture {
        title: vec![describe::title(plan), describe::mesh(&plan.header.mesh)],
        ..picture::Picture::default()
    };
    for program in &plan.programs {
        draw::program(&mut picture, plan, program, level, rank);
    }
    Ok(picture.to_string())
}
