//! `mmc dot`: a plan as a picture for Graphviz, with classes of ranks as clusters, at three levels of detail.
//!
//! All levels draw in one way: instructions gather into units (a phase, a part of the model, a few launches of one
//! place), collectives hang between the units that they serve, and edges carry the bytes that flow.

mod draw;
mod picture;
mod units;

use diag::{Diagnostic, Diagnostics};
use plan::Plan;

use crate::args::{Dot, Level};
use crate::plan_file::{self, Read};
use crate::{Done, print};

pub fn dot(args: &Dot) -> Done {
    let Read { plan, .. } = plan_file::read(&args.plan)?;
    if let Some(rank) = args.rank
        && rank >= plan.header.world()
    {
        let world = plan.header.world();
        return Err(Diagnostic::error(format!("there is no rank {rank}: the plan is for {world} ranks"))
            .help(format!("--rank takes 0 to {}", world - 1))
            .into());
    }
    print(&picture(&plan, args.level, args.rank));
    Ok(Diagnostics::default())
}

fn picture(plan: &Plan, level: Level, rank: Option<usize>) -> String {
    let mut picture = picture::Picture {
        title: vec![plan_file::title(plan), plan_file::mesh(&plan.header.mesh)],
        ..picture::Picture::default()
    };
    for program in &plan.programs {
        draw::program(&mut picture, plan, program, level, rank);
    }
    picture.to_string()
}
