//! The kernels of a program by their share of the work, with how often each is launched.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

use plan::{Body, Kernel, Op, Plan};

use crate::summary::{bytes, count};

pub fn table(out: &mut String, plan: &Plan, body: &Body) {
    let mut times: BTreeMap<usize, u64> = BTreeMap::new();
    for instruction in &body.instructions {
        if let Op::Launch(launch) = &instruction.op {
            *times.entry(launch.kernel.index()).or_default() += 1;
        }
    }
    let kernels = times.iter().filter_map(|(&k, &n)| plan.kernels.get(k).map(|kernel| (kernel, n)));
    let mut rows: Vec<(u64, u64, &Kernel)> =
        kernels.map(|(kernel, n)| (kernel.flops.saturating_mul(n), n, kernel)).collect();
    rows.sort_by_key(|(work, _, kernel)| (Reverse(*work), kernel.symbol.clone()));
    let _ = writeln!(out, "  {:>8} {:>10} {:>10} {:>6}  kernel", "FLOP", "traffic", "scratch", "runs");
    for (work, n, kernel) in rows {
        let _ = writeln!(
            out,
            "  {:>8} {:>10} {:>10} {:>6}  {}",
            count(work),
            bytes(kernel.bytes.saturating_mul(n)),
            bytes(kernel.workspace),
            n,
            kernel.symbol
        );
    }
}
