//! What two plans hold and do differently. What they share is left out, or counted in one line.

mod counted;
mod listed;
mod order;
mod quantity;

use std::fmt::Write;

use cost::Machine;
use diag::Diagnostics;
use plan::{Plan, Scope};

use self::listed::list;
use self::quantity::Row;
use crate::describe;
use crate::explain::figures::{Figures, figures};
use crate::quantity::bytes;

/// One of the two plans.
pub struct Side<'a> {
    /// Its file.
    pub file: String,
    pub plan: &'a Plan,
    pub hash: &'a str,
    /// Its figures predict times.
    pub machine: Option<&'a Machine>,
}

/// Every difference, or with `all` unset only the largest of each kind.
pub fn text(a: &Side<'_>, b: &Side<'_>, all: bool) -> Result<String, Diagnostics> {
    let mut out = String::new();
    for (name, side) in [("A", a), ("B", b)] {
        let (title, mesh) = (describe::title(side.plan), describe::mesh(&side.plan.header.mesh));
        let _ = writeln!(out, "{name}  {} ({}): {title}, {mesh}", side.file, short(side.hash));
    }
    if a.hash == b.hash {
        let _ = writeln!(out, "the same plan, byte for byte");
    } else {
        differences(&mut out, a, b, all)?;
    }
    Ok(out)
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn differences(out: &mut String, a: &Side<'_>, b: &Side<'_>, all: bool) -> Result<(), Diagnostics> {
    let before = out.len();
    let (plan_a, plan_b) = (a.plan, b.plan);
    list(out, "header", &listed::header(plan_a, plan_b), all);
    list(out, "manifest", &listed::manifest(plan_a, plan_b), all);
    let (figures_a, figures_b) = (figures(plan_a, a.machine)?, figures(plan_b, b.machine)?);
    for pair in pairs(&figures_a, &figures_b) {
        match pair {
            (Some(f), Some(g)) => section(out, [(plan_a, f), (plan_b, g)], all),
            (Some(f), None) => {
                let _ = writeln!(out, "\nprogram {} on {}: only in A", f.program, describe::ranges(&f.ranks));
            }
            (None, Some(g)) => {
                let _ = writeln!(out, "\nprogram {} on {}: only in B", g.program, describe::ranges(&g.ranks));
            }
            (None, None) => {}
        }
    }
    if plan_a.object != plan_b.object {
        let [size_a, size_b] = [plan_a, plan_b].map(|plan| bytes(plan.object.len() as u64));
        let _ = match size_a == size_b {
            true => writeln!(out, "\ncode: other bytes, {size_a} in both"),
            false => writeln!(out, "\ncode: {size_a} -> {size_b}"),
        };
    }
    if out.len() == before {
        let _ = writeln!(out, "they hold and do the same; only places in the model's file differ, or ids");
    }
    Ok(())
}

/// The programs of both, class by class. Where one plan has fewer classes of ranks, its last stands beside the other's rest.
fn pairs<'a>(a: &'a [Figures], b: &'a [Figures]) -> Vec<(Option<&'a Figures>, Option<&'a Figures>)> {
    let mut names: Vec<&str> = vec![];
    for figures in a.iter().chain(b) {
        if !names.contains(&figures.program.as_str()) {
            names.push(&figures.program);
        }
    }
    let of = |side: &'a [Figures], name: &str| side.iter().filter(|f| f.program == name).collect::<Vec<_>>();
    let beside = |name: &str| {
        let (a, b) = (of(a, name), of(b, name));
        let pick = |side: &[&'a Figures], i: usize| side.get(i).or(side.last()).copied();
        (0..a.len().max(b.len())).map(|i| (pick(&a, i), pick(&b, i))).collect::<Vec<_>>()
    };
    names.into_iter().flat_map(beside).collect()
}

fn section(out: &mut String, [(plan_a, f), (plan_b, g)]: [(&Plan, &Figures); 2], all: bool) {
    let mut text = String::new();
    quantity::table(&mut text, &rows(f, g));
    list(&mut text, "collectives, and why each is there", &counted::reshards(&f.reshards, &g.reshards), all);
    let scopes = [(plan_a, f), (plan_b, g)].map(|(plan, figures)| scope(plan, figures));
    if let [Some(in_a), Some(in_b)] = scopes {
        list(&mut text, "kernels", &counted::kernels((plan_a, in_a.body), (plan_b, in_b.body)), all);
        text.push_str(&order::first_that_differs(in_a, in_b));
    }
    if !text.is_empty() {
        let [ranks_a, ranks_b] = [f, g].map(|figures| describe::ranges(&figures.ranks));
        let who = if ranks_a == ranks_b { ranks_a } else { format!("{ranks_a} -> {ranks_b}") };
        let _ = writeln!(out, "\nprogram {} on {who}\n{}", f.program, text.trim_end());
    }
}

fn scope<'a>(plan: &'a Plan, figures: &Figures) -> Option<Scope<'a>> {
    plan.scopes().find(|s| s.program.name == *figures.program && s.class.name == *figures.class)
}

/// The figures of `mmc explain` that both have.
fn rows(f: &Figures, g: &Figures) -> Vec<Row> {
    let mut rows: Vec<Row> =
        f.memory_rows().into_iter().zip(g.memory_rows()).map(|((what, a), (_, b))| Row::bytes(what, a, b)).collect();
    rows.push(Row::flops("work", f.flops, g.flops));
    rows.push(Row::count("launches", f.launches as u64, g.launches as u64));
    rows.push(Row::count("instructions", f.instructions as u64, g.instructions as u64));
    rows.extend(counted::traffic(&f.traffic, &g.traffic));
    if let (Some(p), Some(q)) = (&f.prediction, &g.prediction) {
        rows.push(Row::seconds("predicted: one run", p.step_seconds, q.step_seconds));
        rows.push(Row::seconds("predicted: in kernels and copies", p.compute_seconds, q.compute_seconds));
        rows.push(Row::seconds("predicted: exposed collectives", p.exposed_comm_seconds, q.exposed_comm_seconds));
    }
    rows
}
