//! `mmc explain`: what a plan needs and does. All figures are sums over its buffers and instructions.

use std::collections::BTreeMap;
use std::fmt::Write;

use diag::Diagnostic;
use plan::{Op, Plan};
use serde_json::json;

use crate::args::Explain;
use crate::summary::{bytes, count};
use crate::{Done, print};

pub fn explain(args: &Explain) -> Done {
    let bytes = std::fs::read(&args.plan)
        .map_err(|e| Diagnostic::error(format!("cannot read the plan {}: {e}", args.plan.display())))?;
    let (plan, hash) = Plan::from_bytes(&bytes).map_err(|e| {
        Diagnostic::error(format!("{}: {e}", args.plan.display())).help("compile the plan again with `mmc compile`")
    })?;
    let plan = &plan;
    if args.json {
        print(&format!("{:#}\n", figures(plan, &hash.to_string())));
    } else if args.listing {
        print(&plan.to_string());
    } else {
        print(&text(plan, &hash.to_string(), args.kernels));
    }
    Ok(diag::Diagnostics::default())
}

fn figures(plan: &Plan, hash: &str) -> serde_json::Value {
    let mut ranks = vec![];
    for program in &plan.programs {
        for (class, body) in plan.classes.iter().zip(&program.bodies) {
            let m = plan::memory(plan, class, body);
            let held = (0..plan.header.world())
                .filter(|&r| class.ranks.contain(&plan.header.mesh, &plan.header.mesh.coordinates(r)));
            ranks.push(json!({
                "program": program.name,
                "count": held.count(),
                "params_bytes": m.params_bytes,
                "gradients_bytes": m.gradients_bytes,
                "optimizer_bytes": m.optimizer_bytes,
                "activations_peak_bytes": m.activations_peak_bytes,
                "comm_bytes": m.comm_bytes,
                "workspace_bytes": m.workspace_bytes,
                "peak_bytes": m.peak_bytes,
                "arena_bytes": m.arena_bytes,
                "flops": flops(plan, body),
            }));
        }
    }
    let mesh: serde_json::Map<String, serde_json::Value> =
        plan.header.mesh.axes.iter().map(|a| (a.name.to_string(), json!(a.size))).collect();
    json!({
        "model": plan.header.model,
        "preset": plan.header.preset,
        "task": plan.header.task,
        "world": plan.header.world(),
        "mesh": mesh,
        "plan_hash": hash,
        "ranks": ranks,
    })
}

fn flops(plan: &Plan, body: &plan::Body) -> u64 {
    launches(body).filter_map(|k| plan.kernels.get(k)).map(|k| k.flops).sum()
}

fn launches(body: &plan::Body) -> impl Iterator<Item = usize> + '_ {
    body.instructions.iter().filter_map(|i| match &i.op {
        Op::Launch(launch) => Some(launch.kernel.index()),
        _ => None,
    })
}

fn text(plan: &Plan, hash: &str, kernels: bool) -> String {
    let h = &plan.header;
    let mut out = String::new();
    let _ = writeln!(out, "{} {} {}, {} on {} {}", h.model, h.preset, h.task, h.dtype, h.target, h.cpu);
    let _ = writeln!(out, "plan {hash}");
    let (feeds, emits) = (&plan.manifest.feeds, &plan.manifest.emits);
    for feed in feeds {
        let from = if feed.source == plan::Source::Data { "data" } else { "drawn" };
        let _ = writeln!(out, "  feed  {} {} ({from})", feed.name, feed.ty);
    }
    for emit in emits.iter().filter(|e| e.when == plan::When::Always) {
        let _ = writeln!(out, "  emit  {} {}", emit.name, emit.ty);
    }
    for program in &plan.programs {
        for (class, body) in plan.classes.iter().zip(&program.bodies) {
            let m = plan::memory(plan, class, body);
            let _ = writeln!(out, "program {}: {} instructions", program.name, body.instructions.len());
            for (what, n) in [
                ("parameters", m.params_bytes),
                ("optimiser", m.optimizer_bytes),
                ("gradients when the optimiser starts", m.gradients_bytes),
                ("activations at their peak", m.activations_peak_bytes),
                ("workspace at its peak", m.workspace_bytes),
                ("the whole arena", m.arena_bytes),
            ] {
                let _ = writeln!(out, "  {:>10}  {what}", bytes(n));
            }
            let _ = writeln!(out, "  {:>10}  work in one run", format!("{}FLOP", count(flops(plan, body))));
            if kernels {
                kernel_table(&mut out, plan, body);
            }
        }
    }
    out
}

/// Kernels by their share of the work, with how often each is launched.
fn kernel_table(out: &mut String, plan: &Plan, body: &plan::Body) {
    let mut times: BTreeMap<usize, u64> = BTreeMap::new();
    for k in launches(body) {
        *times.entry(k).or_default() += 1;
    }
    let mut rows: Vec<(u64, u64, &plan::Kernel)> =
        times.iter().filter_map(|(&k, &n)| plan.kernels.get(k).map(|kernel| (kernel.flops * n, n, kernel))).collect();
    rows.sort_by_key(|(work, _, kernel)| (std::cmp::Reverse(*work), kernel.symbol.clone()));
    let _ = writeln!(out, "  {:>8} {:>10} {:>10} {:>6}  kernel", "FLOP", "traffic", "scratch", "runs");
    for (work, n, kernel) in rows {
        let _ = writeln!(
            out,
            "  {:>8} {:>10} {:>10} {:>6}  {}",
            count(work),
            bytes(kernel.bytes * n),
            bytes(kernel.workspace),
            n,
            kernel.symbol
        );
    }
}
