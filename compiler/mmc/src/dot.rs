//! `mmc dot`: a plan as a picture for Graphviz.

use diag::Diagnostics;

use crate::Done;
use crate::args::{Dot, Level};
use crate::output::print;
use crate::plan_file::{self, Read};

pub fn dot(args: &Dot) -> Done {
    let Read { plan, .. } = plan_file::read(&args.plan)?;
    let level = match args.level {
        Level::Stages => report::dot::Level::Stages,
        Level::Blocks => report::dot::Level::Blocks,
        Level::Ops => report::dot::Level::Ops,
    };
    print(&report::dot::text(&plan, level, args.rank)?)?;
    Ok(Diagnostics::default())
}
