//! The mesh of a compilation, and what the flags and the model's plan ask of it.

use std::collections::BTreeSet;

use diag::{Diagnostic, Diagnostics, PlaceId};
use eval::{Evaluated, PlanDirective, PlanDirectives};
use indexmap::IndexMap;
use ir::{Inst, MAX_OPERATORS, Module, Op, ShardingHint, Stored};
use passes::{Grid, MeshOptions, Stages};
use types::{GROUPS, MAX_RANKS, Mesh, Name};

use crate::args::MAX_BATCH;

/// Numbers of micro-batches that a message lists are at most this.
const LISTED: u32 = 64;

/// The axes that cut samples.
const DATA: [&str; 2] = ["dp", "fsdp"];

/// Micro-batches of a replica that trains: as many as asked for; by default one, and in a pipeline the most that the batch
/// falls into, up to four for each of its ranks.
pub fn microbatches(args: &MeshOptions, batch: Option<u32>) -> u32 {
    let most = if args.pp > 1 { args.pp.saturating_mul(4) } else { 1 };
    let replicas = args.replicas();
    let own = batch.filter(|batch| batch.is_multiple_of(replicas)).map(|batch| batch / replicas);
    let (schedule, chunks) = args.schedule();
    let rounds = |m: &u32| {
        let grid = Grid { ranks: args.pp as usize, chunks, microbatches: *m as usize };
        schedule.check(&grid).is_ok()
    };
    let falls = |m: &u32| own.is_some_and(|own| own.is_multiple_of(*m));
    args.microbatches.unwrap_or_else(|| match batch {
        None => most,
        Some(_) => (1..=most).rev().filter(rounds).find(falls).unwrap_or(1),
    })
}

/// Samples that all replicas together compute at a time. A batch falls into equal micro-batches of equal parts.
pub fn micro_batch(args: &MeshOptions, parts: u32, batch: Option<u32>) -> Result<usize, Diagnostics> {
    let replicas = args.replicas();
    let batch = batch.unwrap_or(replicas.saturating_mul(parts));
    if parts == 1 {
        return Ok(batch as usize);
    }
    let own = batch / replicas;
    if batch.is_multiple_of(replicas) && own.is_multiple_of(parts) && own > 0 {
        return Ok((batch / parts) as usize);
    }
    let least = replicas.saturating_mul(parts);
    let message = format!("--batch {batch} does not fall into {parts} micro-batches on each of {replicas} replicas");
    let mut error = Diagnostic::error(message).help(format!("give --batch {least} or a multiple of it"));
    if batch.is_multiple_of(replicas) && own > 0 {
        let divides = |m: &u32| own.is_multiple_of(*m);
        let legal: Vec<String> = (1..=own.min(LISTED)).filter(divides).map(|m| m.to_string()).collect();
        error = error.help(format!("or --microbatches {}", legal.join(", ")));
    }
    Err(error.into())
}

/// Data groups of a micro-batch of so many samples, if a step has several. Fewer samples than replicas are one.
pub fn groups(args: &MeshOptions, microbatches: u32, samples: usize) -> Option<usize> {
    let replicas = args.replicas() as usize;
    (replicas as u64 * u64::from(microbatches) > 1 && samples >= replicas).then_some(replicas)
}

/// Gives the module its mesh and its sharding hints.
pub fn plan(args: &MeshOptions, evaluated: &mut Evaluated) -> Result<(), Diagnostics> {
    evaluated.module.mesh = mesh(args, evaluated)?;
    let trains = evaluated.module.trains();
    if let Some(parts) = args.microbatches.filter(|parts| *parts > 1 && !trains) {
        return Err(Diagnostic::error(format!("--microbatches {parts} for a task that does not train"))
            .help("micro-batches add up gradients: leave the flag out, or compile --task train")
            .into());
    }
    if evaluated.module.mesh.world() == 1 {
        return Ok(());
    }
    let replicas = args.replicas() as usize;
    let few = evaluated.batch < replicas;
    if few && trains {
        return Err(Diagnostic::error(format!("{} samples for {replicas} replicas", evaluated.batch))
            .help(format!("give --batch {replicas} or more, or fewer replicas: dp * fsdp is {replicas}"))
            .into());
    }
    if few {
        let message = format!("{} samples for {replicas} replicas: each replica computes all of them", evaluated.batch);
        evaluated.warnings.0.push(Diagnostic::warning(message));
    }
    let hints = hints(args, evaluated, few)?;
    evaluated.module.hints = hints;
    let idle = idle(args, &evaluated.directives);
    evaluated.warnings.0.extend(idle);
    Ok(())
}

/// A warning for each axis of the mesh over which the plan cuts no dim.
fn idle(args: &MeshOptions, directives: &PlanDirectives) -> Vec<Diagnostic> {
    let cuts = |axis: &str| {
        directives.0.iter().any(|(directive, _)| match directive {
            PlanDirective::Shard { axis: of, .. } => {
                let of = of.split('.').next().unwrap_or(of);
                of == axis || (DATA.contains(&of) && DATA.contains(&axis))
            }
            _ => false,
        })
    };
    // Stages are cut whether the plan names the stack or not.
    let open = args.axes().into_iter().filter(|(axis, size)| *axis != "pp" && *size > 1 && !cuts(axis));
    open.map(|(axis, size)| {
        Diagnostic::warning(format!("--{axis} {size}, and the model's plan cuts no dim over `{axis}`"))
            .note(format!("{size} ranks at a time compute the same"))
            .help(format!("write `p.shard(DIM, \"{axis}\")` in its `plan`, or leave the flag out"))
    })
    .collect()
}

/// Refuses what no model could be compiled for.
pub fn refuse(args: &MeshOptions, batch: Option<u32>) -> Result<(), Diagnostics> {
    let axes: Vec<(&str, u32)> = args.axes().into_iter().filter(|(_, n)| *n > 1).collect();
    let ranks = axes.iter().fold(1u128, |n, (_, size)| n.saturating_mul(u128::from(*size)));
    if ranks > MAX_RANKS as u128 {
        let flags: Vec<String> = axes.iter().map(|(name, size)| format!("--{name} {size}")).collect();
        return Err(Diagnostic::error(format!("{} are {ranks} ranks, at most {MAX_RANKS}", flags.join(" ")))
            .help("make one of them smaller")
            .into());
    }
    // The work of a stage on a micro-batch is one operator at least.
    let chunks = args.schedule().1;
    let (stages, parts) = (u128::from(args.pp) * chunks as u128, microbatches(args, batch));
    let units = stages * u128::from(parts);
    if units > MAX_OPERATORS {
        return Err(Diagnostic::error(format!(
            "{stages} stages (--pp {} --virtual-stages {chunks}) on {parts} micro-batches are {units} units of work, at most {MAX_OPERATORS}",
            args.pp
        ))
        .help("give fewer stages, or fewer --microbatches")
        .into());
    }
    let samples = u64::from(args.replicas()) * u64::from(parts);
    if samples > u64::from(MAX_BATCH) {
        return Err(Diagnostic::error(format!(
            "{parts} micro-batches on each of {} replicas are {samples} samples at least, at most {MAX_BATCH}",
            args.replicas()
        ))
        .help("give fewer --microbatches, or a smaller --dp or --fsdp")
        .into());
    }
    if args.ep > 1 {
        return Err(Diagnostic::error(format!("--ep {} is not there yet", args.ep))
            .help("this version cuts over --pp, --dp, --fsdp, --cp and --tp")
            .into());
    }
    let is_virtual = args.virtual_stages.is_some_and(|chunks| chunks > 1);
    if args.pp == 1 && (is_virtual || args.schedule.is_some()) {
        let flag = if is_virtual { "--virtual-stages" } else { "--schedule" };
        return Err(Diagnostic::error(format!("{flag} without a pipeline"))
            .help("give --pp 2 or more, or leave it out")
            .into());
    }
    Ok(())
}

/// The pipeline, if there is one, with the directive that asks for it.
pub fn stages(args: &MeshOptions, directives: &PlanDirectives) -> Option<Stages> {
    let mut asked = directives.0.iter().filter(|(directive, _)| matches!(directive, PlanDirective::Pipeline { .. }));
    let (schedule, chunks) = args.schedule();
    let (ranks, at) = (args.pp as usize, asked.next().map(|(_, span)| *span));
    (ranks > 1).then_some(Stages { ranks, chunks, schedule, at })
}

/// Tokens of a sample: the sizes of the dims that the plan cuts over cp, which are those of different tensors.
pub fn tokens(directives: &PlanDirectives, dims: &IndexMap<Name, usize>) -> u64 {
    let cut = directives.0.iter().filter_map(|(directive, _)| match directive {
        PlanDirective::Shard { dim, axis } if axis == "cp" => Some(dim),
        _ => None,
    });
    let cut: BTreeSet<&Name> = cut.collect();
    let sizes = cut.into_iter().filter_map(|dim| dims.get(dim));
    sizes.fold(0, |tokens: u64, size| tokens.saturating_add(*size as u64)).max(1)
}

/// The most ranks that exchange heads in all attention of the model, on a rank of tp where the plan cuts them.
fn exchangeable(module: &Module, directives: &PlanDirectives, cp: usize, tp: usize) -> usize {
    let cut = |heads: &Name| {
        let mut directives = directives.0.iter().map(|(directive, _)| directive);
        directives.any(|d| matches!(d, PlanDirective::Shard { dim, axis } if dim == heads && axis == "tp"))
    };
    let mut most = None;
    for (_, function) in module.functions.iter() {
        for (_, node) in function.nodes.iter() {
            let Inst::Op(Op::Attention(attention)) = &node.inst else { continue };
            let keys = node.args.get(1).and_then(|keys| function.nodes[*keys].ty.tensor());
            let heads = keys.and_then(|keys| keys.dims.iter().find(|dim| dim.name == attention.kv_heads));
            let heads = heads.map_or(1, |dim| if cut(&dim.name) { dim.size / tp } else { dim.size });
            most = Some(gcd(most.unwrap_or(cp), heads));
        }
    }
    most.unwrap_or(1)
}

/// ranks = pp * dp * fsdp * cp * tp, tp fastest; cp falls into a ring of groups that exchange heads.
fn mesh(args: &MeshOptions, evaluated: &Evaluated) -> Result<Mesh, Diagnostics> {
    let cp = args.cp as usize;
    let ulysses = match args.ulysses {
        Some(u) if !cp.is_multiple_of(u as usize) => {
            return Err(Diagnostic::error(format!("--ulysses {u} does not divide --cp {cp}"))
                .help("--cp N is U ranks that exchange heads times a ring of N / U")
                .into());
        }
        Some(u) => u as usize,
        None => exchangeable(&evaluated.module, &evaluated.directives, cp, args.tp as usize),
    };
    let mut axes: Vec<(Name, usize)> = vec![];
    for (name, size) in args.axes() {
        if name == "cp" && cp > 1 {
            axes.push(("cp.ring".into(), cp / ulysses));
            axes.push(("cp.ulysses".into(), ulysses));
        } else {
            axes.push((name.into(), size as usize));
        }
    }
    Mesh::new(axes).map_err(|e| Diagnostic::error(e.to_string()).into())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

fn hints(
    args: &MeshOptions,
    evaluated: &mut Evaluated,
    few: bool,
) -> Result<Vec<(ShardingHint, PlaceId)>, Diagnostics> {
    let Evaluated { module, directives, groups, .. } = evaluated;
    let mut out: Vec<(ShardingHint, PlaceId)> = vec![];
    let mut fsdp = None;
    for (directive, span) in &directives.0 {
        let place = module.places.add(*span, PlaceId::NONE);
        match directive {
            PlanDirective::Shard { dim, axis } => {
                let mut axes = axes(module, axis, place)?;
                let mut dim = dim.clone();
                if DATA.contains(&axis.as_str()) {
                    axes = DATA.iter().flat_map(|a| module.mesh.parts(a)).collect();
                    if few {
                        continue;
                    }
                    if groups.is_some() {
                        dim = GROUPS.into();
                    }
                }
                out.push((ShardingHint::Shard { dim, axes, exact: axis == "tp" }, place));
            }
            PlanDirective::Fsdp { axes: over } => {
                let mut parts = vec![];
                for axis in over {
                    parts.extend(axes(module, axis, place)?);
                }
                fsdp = Some((parts, over.iter().any(|axis| axis == "fsdp"), place));
            }
            PlanDirective::Pipeline { axis, .. } => drop(axes(module, axis, place)?),
            PlanDirective::Recompute(_) | PlanDirective::Offload(_) | PlanDirective::Precision(_) => {}
        }
    }
    let cut_by = |axis: &str, out: &[(ShardingHint, PlaceId)]| -> Vec<Name> {
        let axis = module.mesh.parts(axis);
        let cut = out.iter().filter_map(|(w, _)| match w {
            ShardingHint::Shard { dim, axes, .. } if axes.iter().any(|a| axis.contains(a)) => Some(dim.clone()),
            _ => None,
        });
        cut.collect()
    };
    let (tokens, samples) = (cut_by("cp", &out), cut_by("dp", &out));
    let tp = module.mesh.parts("tp").to_vec();
    for dim in &tokens {
        for of in &samples {
            out.push((
                ShardingHint::SequenceParallel { dim: dim.clone(), of: of.clone(), axes: tp.clone() },
                PlaceId::NONE,
            ));
        }
    }
    out.push((
        ShardingHint::Exchange {
            axes: module.mesh.parts("cp").iter().filter(|a| a.ends_with(".ulysses")).cloned().collect(),
        },
        PlaceId::NONE,
    ));
    match fsdp {
        Some((axes, named, place)) if named || args.fsdp == 1 => {
            out.push((ShardingHint::Store { what: Stored::Parameters, axes }, place));
        }
        _ if args.fsdp > 1 => {
            return Err(Diagnostic::error(format!("--fsdp {} and the model's plan has no fsdp axis", args.fsdp))
                .help("write `p.fsdp([\"fsdp\", \"cp\"])` in its `plan`, or give a plan that does with --plan")
                .into());
        }
        _ => {}
    }
    if args.zero.is_some() {
        let axes = module.mesh.parts("dp").to_vec();
        out.push((ShardingHint::Store { what: Stored::Optimizer, axes }, PlaceId::NONE));
    }
    Ok(out)
}

fn axes(module: &Module, axis: &str, place: PlaceId) -> Result<Vec<Name>, Diagnostics> {
    let parts = module.mesh.parts(axis).to_vec();
    if !parts.is_empty() {
        return Ok(parts);
    }
    let mut error =
        Diagnostic::error(format!("the mesh has no axis `{axis}`")).help("its axes are pp, dp, fsdp, cp, tp");
    if let Some(place) = module.places.get(place) {
        error = error.at(place.span, "");
    }
    Err(error.into())
}
