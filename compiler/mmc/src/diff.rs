//! `mmc diff`: what two plans hold and do differently.

use diag::Diagnostics;
use report::diff::Side;

use crate::args::Diff;
use crate::output::print;
use crate::{Done, machines, plan_file};

pub fn diff(args: &Diff) -> Done {
    let paths = [&args.a, &args.b];
    let [a, b] = [plan_file::read(paths[0])?, plan_file::read(paths[1])?];
    let [on_a, on_b] = [&a, &b].map(|read| machines::of_plan(args.machine.as_deref(), &read.plan));
    let (on_a, on_b) = (on_a?, on_b?);
    let [a, b] = [(paths[0], &a, &on_a), (paths[1], &b, &on_b)].map(|(path, read, machine)| Side {
        file: path.display().to_string(),
        plan: &read.plan,
        hash: &read.hash,
        machine: machine.as_ref(),
    });
    print(&report::diff::text(&a, &b, args.all)?)?;
    Ok(Diagnostics::default())
}
