//! Things that a plan has or has not: lines of the header, entries of the manifest.

use std::fmt::Write;

use indexmap::IndexMap;
use plan::{Plan, When};

use crate::describe;
use crate::explain::wrapped;

/// Rows of a list without `--all`.
const TOP: usize = 12;
/// Of what stands behind a sign.
const WIDTH: usize = 92;

pub struct Listed {
    /// `-` only in A, `+` only in B, `~` in both.
    pub sign: char,
    pub text: String,
    /// A second line; empty for none.
    pub below: String,
}

impl Listed {
    pub fn new(in_a: bool, in_b: bool, text: String, below: String) -> Self {
        let sign = match (in_a, in_b) {
            (true, false) => '-',
            (false, true) => '+',
            _ => '~',
        };
        Self { sign, text, below }
    }
}

pub fn list(out: &mut String, title: &str, rows: &[Listed], all: bool) {
    if rows.is_empty() {
        return;
    }
    let shown = if all { rows.len() } else { TOP.min(rows.len()) };
    let _ = writeln!(out, "  {title}:");
    for row in &rows[..shown] {
        let mut lines = wrapped(&row.text, WIDTH);
        lines.extend(wrapped(&row.below, WIDTH).into_iter().map(|line| format!("  {line}")));
        for (i, line) in lines.iter().enumerate() {
            let _ = writeln!(out, "    {} {line}", if i == 0 { row.sign } else { ' ' });
        }
    }
    if shown < rows.len() {
        let _ = writeln!(out, "      {} more: --all shows them", rows.len() - shown);
    }
}

/// What the title and the mesh do not say: seed, compiler, processor's features.
pub fn header(a: &Plan, b: &Plan) -> Vec<Listed> {
    changed(about(a), about(b))
}

fn about(plan: &Plan) -> Vec<(String, String)> {
    let h = &plan.header;
    let features: Vec<&str> = h.features.iter().map(|f| f.as_str()).collect();
    let programs: Vec<&str> = plan.programs.iter().map(|p| p.name.as_str()).collect();
    let mut about = vec![
        ("seed".into(), h.seed.to_string()),
        ("compiler".into(), h.compiler.to_string()),
        ("features of the processor".into(), features.join(" ")),
        ("programs".into(), programs.join(", ")),
        ("distinct kernels".into(), plan.kernels.len().to_string()),
    ];
    let residencies: Vec<&str> = plan.residencies.iter().map(|r| r.name.as_str()).collect();
    if !residencies.is_empty() {
        about.push(("residencies".into(), residencies.join(", ")));
    }
    for program in &plan.programs {
        let what = describe::of_program(plan, program, "tokens in one run");
        about.push((what, format!("{}{}", program.tokens, describe::runs(program))));
    }
    about
}

/// Feeds, parameters, state and emits by their global types; how ranks share them out shows in the figures.
///
/// Emits on request are left out: gradients and parameters have the types of the parameters.
pub fn manifest(a: &Plan, b: &Plan) -> Vec<Listed> {
    changed(entries(a), entries(b))
}

fn entries(plan: &Plan) -> Vec<(String, String)> {
    let m = &plan.manifest;
    let name = |program, name| describe::of_program(plan, program, name);
    let feeds = plan.programs.iter().flat_map(|p| p.feeds.iter().map(move |f| (p, f))).map(|(p, f)| {
        let from = if f.source.is_data() { "data" } else { "drawn" };
        (format!("feed {}", name(p, &f.name)), format!("{} ({from})", f.ty))
    });
    let parameters = m.parameters.iter().map(|p| {
        let frozen = if p.trainable { "" } else { ", frozen" };
        (format!("parameter {}", p.name), format!("{}{frozen}", p.ty))
    });
    let states = m.states.iter().map(|s| (format!("state {}", s.name), s.ty.to_string()));
    let emits = plan.programs.iter().flat_map(|p| p.emits.iter().map(move |e| (p, e)));
    let emits = emits.filter(|(_, e)| e.when == When::Always);
    let emits = emits.map(|(p, e)| (format!("emit {}", name(p, &e.name)), e.ty.to_string()));
    feeds.chain(parameters).chain(states).chain(emits).collect()
}

/// In the order of A, then what only B has.
fn changed(a: Vec<(String, String)>, b: Vec<(String, String)>) -> Vec<Listed> {
    let mut rows: IndexMap<String, [Option<String>; 2]> = IndexMap::new();
    for (side, entries) in [a, b].into_iter().enumerate() {
        for (what, text) in entries {
            rows.entry(what).or_default()[side] = Some(text);
        }
    }
    let differing = rows.into_iter().filter(|(_, [a, b])| a != b);
    differing
        .map(|(what, [a, b])| {
            let nothing = |text: &String| if text.is_empty() { "nothing".to_owned() } else { text.clone() };
            let texts: Vec<String> = [&a, &b].into_iter().flatten().map(nothing).collect();
            Listed::new(a.is_some(), b.is_some(), format!("{what}: {}", texts.join(" -> ")), String::new())
        })
        .collect()
}
