//! `mmc dot`: a plan as a picture for Graphviz.

use diag::Diagnostics;

use crate::args::{Dot, Level};
use crate::plan_file::{self, Read};
use crate::{Done, print};

pub fn dot(args: &Dot) -> Done {
    let Read { plan, .. } = plan_file::read(&args.plan)?;
    let level = match args.level {
        Level::Stages => report::dot::Level::Stages,
        Level::Blocks => report::dot::Level::Blocks,
        Level::Ops => report::dot::Level::Ops,
    };
    print(&report::dot::text(&plan, level, args.rank)?);
    Ok(Diagnostics::default())
}
