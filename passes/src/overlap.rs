//! `overlap`: a product and the collective beside it in pieces, so that one piece travels while the next is computed.
//!
//! Runs on the graph of one rank. Where compute would wait for a gather before products, or for a sum behind one, and no
//! other work is there to be done meanwhile, both are cut along a dim that is neither summed nor exchanged. Each element is
//! computed as before, so no bit changes. The figures of a machine say whether that pays, and into how many pieces.

mod params_only;
mod pieces;
mod region;
mod times;
mod waits;

use diag::{Diagnostic, Diagnostics};
use ir::{Class, Function, FunctionKind, Inst, Module, NodeId};
use serde::{Deserialize, Serialize};

use self::region::Region;
use self::times::Times;
use crate::{Context, Pass, diagnostics};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overlap {
    /// Into how many pieces all falls that can be cut into so many; 0 asks the figures of the machine.
    pub pieces: usize,
}

/// The most pieces that may be asked for: each is written out in the graph.
pub const MAX_PIECES: usize = 64;
/// More pieces than this would mostly pay for latencies.
const MOST: usize = 8;
/// Of what the best number of pieces would gain, a smaller number is enough that gains this share.
const ENOUGH: f64 = 0.85;
/// The least gain, as a share of the collective's time.
const WORTH: f64 = 0.05;

impl Pass for Overlap {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        if self.pieces > MAX_PIECES {
            let message = format!("collectives in {} pieces, at most {MAX_PIECES}", self.pieces);
            return Err(Diagnostic::error(message).help("give fewer, or 0 for as many as pay").into());
        }
        if module.mesh.world() == 1 {
            return Ok(());
        }
        let typical;
        let machine = match cx.machine {
            Some(machine) => machine,
            None => {
                typical = cost::typical();
                &typical
            }
        };
        let params_only = params_only::params(module);
        let mesh = module.mesh.clone();
        let mut times = Times::new(machine, &mesh);
        for (id, params_only) in module.functions.ids().collect::<Vec<_>>().into_iter().zip(&params_only) {
            let function = &module.functions[id];
            if function.kind != FunctionKind::Plain || !exchanges(function) {
                continue;
            }
            let mut plans = self.plans(function, params_only, &mut times);
            // One node is in one region.
            let mut taken = vec![false; function.nodes.len()];
            plans.retain(|plan| {
                let free = plan.region.steps.keys().all(|m| !taken[m.index()]);
                plan.region.steps.keys().filter(|_| free).for_each(|m| taken[m.index()] = true);
                free
            });
            if plans.is_empty() {
                continue;
            }
            cx.stats.count("collectives in pieces", plans.len() as u64);
            let new = pieces::rewrite(function, &plans).map_err(|m| diagnostics::unfit("overlap", function, &m))?;
            module.functions[id] = new;
        }
        Ok(())
    }
}

/// A region and the number of pieces.
pub struct Cutting {
    region: Region,
    count: usize,
}

impl Overlap {
    fn plans(&self, function: &Function, params_only: &[bool], times: &mut Times<'_>) -> Vec<Cutting> {
        let depends = params_only::nodes(function, params_only);
        let exposed = waits::exposed(function, &depends, times);
        let (mut plans, readers) = (vec![], region::Readers::of(function));
        let waits = |id: NodeId| self.pieces > 0 || exposed[id.index()] > 0.0;
        for id in function.nodes.ids().filter(|id| !depends[id.index()] && is_exchange(function, *id) && waits(*id)) {
            let regions = region::around(function, &readers, id);
            let best = match self.pieces {
                0 => best(regions, function, exposed[id.index()], times),
                count => {
                    let fits = |r: &Region| r.size.is_multiple_of(count) && r.size > count;
                    regions.into_iter().find(fits).map(|region| Cutting { region, count })
                }
            };
            plans.extend(best);
        }
        plans
    }
}

/// The cutting that gains most, if any gains enough.
fn best(regions: Vec<Region>, function: &Function, exposed: f64, times: &mut Times<'_>) -> Option<Cutting> {
    let mut best: Option<(f64, Cutting)> = None;
    for region in regions {
        let counts = (2..=MOST).filter(|count| region.size.is_multiple_of(*count) && region.size > *count);
        let gains: Vec<(usize, f64)> =
            counts.filter_map(|count| Some((count, times.gain(function, &region, count, exposed)?))).collect();
        let most = gains.iter().map(|(_, gain)| *gain).fold(0.0, f64::max);
        let least = times.node(function, region.collective) * WORTH;
        let enough = gains.into_iter().find(|(_, gain)| *gain >= most * ENOUGH && *gain > least);
        if let Some((count, gain)) = enough
            && best.as_ref().is_none_or(|(known, _)| gain > *known)
        {
            best = Some((gain, Cutting { region, count }));
        }
    }
    best.map(|(_, cutting)| cutting)
}

fn exchanges(function: &Function) -> bool {
    function.nodes.iter().any(|(id, _)| is_exchange(function, id))
}

/// Whether a node asks other ranks for something.
fn is_exchange(function: &Function, id: NodeId) -> bool {
    let node = &function.nodes[id];
    matches!(&node.inst, Inst::Op(op) if op.class() == Class::Collective && !node.args.is_empty())
}
