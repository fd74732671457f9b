//! `schedule`: turns a module of kernel calls into the straight-line instructions and buffers of a plan.
//!
//! Repeated calls are written out, views and stacks become slices, state is updated in place where the target proves
//! that it may be. Offsets come from `allocate`.

mod ahead;
mod buckets;
mod fill;
mod keep;
mod lanes;
mod lives;
mod order;
mod pick;
mod places;
mod project;
pub mod times;
pub mod unroll;
mod update;

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::thread;

use cost::Machine;
use diag::{Diagnostic, Diagnostics, Sources};
use ir::{Collective, FunctionKind, Input, Inst, Module, Output, Type};
use plan::{
    Access, Buffer, BufferId, BufferKind, Class, Header, Kernel, Layout, Life, Manifest, Plan, Ranks, Space, StateInit,
};
use target::Target;
use types::{DType, Name, TensorType};

use keep::Surroundings;
pub use keep::{Gradients, Keeping, Offload, Room};
use lanes::Messages;
use pick::{Counted, Picked};
pub use project::Pipelining;
use project::Share;

/// Everything of a plan but its code: `object` is left empty. Instructions are ordered by what they take on `machine`.
pub fn schedule(
    module: &Module,
    sources: &Sources,
    target: &dyn Target,
    header: Header,
    machine: &Machine,
    pipelining: Option<&Pipelining>,
    keeping: &Keeping,
) -> Result<Plan, Diagnostics> {
    let alignment = target.alignment();
    let facts: Vec<_> = kernels(module).map(|(_, k)| target.describe(k)).collect();
    let kernels: Vec<Kernel> = kernels(module)
        .zip(&facts)
        .map(|((_, k), facts)| {
            let pairs = facts.in_place.iter().map(|&(p, r)| (p as u32, (k.params.len() + r) as u32)).collect();
            let mut args = vec![Access::Read; k.params.len()];
            args.resize(k.params.len() + k.results.len(), Access::Write);
            if facts.workspace > 0 {
                args.push(Access::Write);
            }
            Kernel {
                symbol: k.name.clone(),
                args,
                in_place: pairs,
                scalars: 0,
                max_parts: facts.max_parts,
                flops: facts.flops,
                products: facts.products,
                elementwise: facts.elementwise,
                bytes: facts.bytes,
                workspace: facts.workspace,
            }
        })
        .collect();

    let times = times::Times::new(machine, &header.mesh, &kernels);
    let places = places::Recorder::new(module, sources);
    let mut counted = Counted { collects: 0, communicators: lanes::Communicators::default(), places };
    let (persistent, mut manifest) = persistent(module, alignment);
    let ranks = pipelining.map_or(1, |p| p.ranks);
    let mut classes: Vec<Class> = (0..ranks).map(|rank| class(rank, pipelining, &persistent)).collect();
    let (mut programs, mut holds) = (vec![], vec![vec![false; persistent.len()]; ranks]);
    for program in &module.programs {
        let (unrolled, origins) = unroll::unroll(
            module,
            program,
            &kernels,
            &persistent,
            &mut manifest,
            &mut counted.places,
            &mut counted.collects,
        )?;
        let shares = match pipelining {
            None => {
                let (sites, holds) = (keep::sites(&origins), vec![true; persistent.len()]);
                vec![Share { unrolled, sites, holds, settles: HashMap::new(), order: vec![] }]
            }
            Some(pipelining) => {
                let seconds = times.seconds(&unrolled, &persistent);
                let written = project::Written::new(&unrolled, &origins, &kernels, &persistent, &manifest.emits);
                project::project(&written, pipelining, &seconds, &mut counted.collects)?
            }
        };
        // Each rank counts on from here by itself, and is renumbered after that.
        let begin = counted.clone();
        let lowered = at_once(shares.into_iter().enumerate(), |(rank, share)| {
            let Share { unrolled, sites, holds, settles, order } = share;
            let messages = Messages { here: rank, order, settles };
            let mut lower =
                |unrolled, persistent: &[Buffer], around: &mut Surroundings<'_, '_>, counted: &mut Counted<'_>| {
                    let kernels = around.kernels;
                    let unrolled = ahead::in_each_block(unrolled, kernels, persistent.len(), &mut counted.collects);
                    let unrolled = update::in_place(unrolled, kernels, &facts, persistent.len());
                    let unrolled =
                        order::arrange(unrolled, persistent, kernels, keeping, around.times, &mut counted.places);
                    let unrolled = keep::bring(unrolled, persistent, kernels, alignment);
                    order::close(unrolled, kernels, persistent, &mut counted.communicators, &messages)
                };
            let (mut counted, mut times) = (begin.clone(), times.clone());
            let (persistent, kernels) = (&persistent[..], &kernels[..]);
            let mut around = Surroundings { persistent, kernels, alignment, times: &mut times };
            let picked = if keeping.asks() {
                pick::pick(&unrolled, &sites, &holds, keeping, &mut around, &mut counted, &mut lower)
            } else {
                let body = lower(unrolled, persistent, &mut around, &mut counted);
                Picked { body, persistent: persistent.to_vec() }
            };
            (picked, holds, counted)
        });
        let mut bodies = vec![];
        for (rank, (Picked { mut body, persistent }, held, own)) in lowered.into_iter().enumerate() {
            counted.take_in(own, &begin, &mut body);
            bodies.push(body);
            for (known, new) in classes[rank].persistent.iter_mut().zip(persistent) {
                known.space = known.space.max(new.space);
            }
            holds[rank].iter_mut().zip(held).for_each(|(known, held)| *known |= held);
        }
        programs.push(plan::Program { name: program.name.clone(), times: 0, bodies });
    }
    narrow(&mut classes, &mut programs, &mut manifest, &holds);
    let launched = programs.iter().flat_map(|p| &p.bodies).flat_map(|b| &b.instructions).filter_map(|i| match &i.op {
        plan::Op::Launch(l) => kernels.get(l.kernel.index()).map(|k| k.flops),
        _ => None,
    });
    let flops_per_step = launched.sum::<u64>() * (header.world() / ranks) as u64;
    let header = Header { flops_per_step, ..header };
    Ok(Plan { header, kernels, classes, programs, manifest, places: counted.places.finish(), object: vec![] })
}

/// The same for all of these, each on a thread of its own.
fn at_once<T: Send, R: Send>(of: impl Iterator<Item = T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = of.map(|item| scope.spawn(move || work(item))).collect();
        let ends = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ends.map(|end| end.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// The ranks at one place of the pipeline, with all persistent buffers.
fn class(rank: usize, pipelining: Option<&Pipelining>, persistent: &[Buffer]) -> Class {
    let persistent = persistent.to_vec();
    match pipelining {
        None => Class { name: "all".into(), ranks: Ranks::all(), persistent },
        Some(_) => {
            Class { name: format!("pp {rank}").into(), ranks: Ranks { at: vec![("pp".into(), rank)] }, persistent }
        }
    }
}

/// Takes from each class the persistent buffers that it does not hold.
fn narrow(classes: &mut [Class], programs: &mut [plan::Program], manifest: &mut Manifest, holds: &[Vec<bool>]) {
    let mut kept = vec![];
    for (c, (class, holds)) in classes.iter_mut().zip(holds).enumerate() {
        let before = class.persistent.len();
        let mut places: Vec<Option<BufferId>> = vec![];
        let mut count = 0;
        for &held in holds {
            places.push(held.then(|| BufferId::new(count)));
            count += usize::from(held);
        }
        let mut held = holds.iter();
        class.persistent.retain(|_| held.next().copied().unwrap_or(false));
        let slices = programs.iter_mut().flat_map(|p| &mut p.bodies[c].instructions);
        for slice in slices.flat_map(|i| update::slices_mut(&mut i.op)) {
            let id = slice.buffer.index();
            slice.buffer = places.get(id).copied().flatten().unwrap_or_else(|| BufferId::new(id + count - before));
        }
        kept.push(places);
    }
    let of = |buffers: &mut Vec<Option<BufferId>>| {
        let whole = buffers.first().copied().flatten();
        *buffers = kept.iter().map(|places| whole.and_then(|id| places.get(id.index()).copied().flatten())).collect();
    };
    manifest.parameters.iter_mut().for_each(|p| of(&mut p.buffers));
    manifest.states.iter_mut().for_each(|s| of(&mut s.buffers));
}

/// The kernel functions in the order of the plan's kernels.
pub fn kernels(module: &Module) -> impl Iterator<Item = (ir::Id<ir::Function>, &ir::Function)> {
    module.functions.iter().filter(|(_, f)| f.kind == FunctionKind::Kernel)
}

/// How parameters and states are cut, by whether it is a parameter and by name.
fn cuts(module: &Module) -> HashMap<(bool, &Name), Layout> {
    let mut cuts = HashMap::new();
    for program in &module.programs {
        let inputs = program.inputs.iter().map(|input| match input {
            Input::Parameter(n) => Some((true, n)),
            Input::State(n) => Some((false, n)),
            Input::Feed(_) => None,
        });
        let outputs = program.outputs.iter().map(|output| match output {
            Output::Parameter(n) => Some((true, n)),
            Output::State(n) => Some((false, n)),
            _ => None,
        });
        for (key, logical) in inputs.chain(outputs).zip(&program.logical) {
            if let Some(key) = key.filter(|_| logical.cuts.iter().any(|c| !c.axes.is_empty())) {
                cuts.insert(key, Layout { cuts: logical.cuts.clone() });
            }
        }
    }
    cuts
}

/// The state that holds a rank's coordinate.
fn coordinate(axis: &str) -> Name {
    format!("coordinate/{axis}").into()
}

/// Buffers of parameters and state, families written out, and their entries in the manifest.
fn persistent(module: &Module, alignment: u64) -> (Vec<Buffer>, Manifest) {
    let cuts = cuts(module);
    let layout = |parameter: bool, name| cuts.get(&(parameter, name)).cloned().unwrap_or_else(Layout::whole);
    let mut buffers = vec![];
    let mut manifest = Manifest::default();
    let mut add = |name: Name, kind: BufferKind, ty: &TensorType, layout: &Layout| {
        let ty = &module.mesh.local(ty, &layout.cuts);
        let bytes = (ty.bytes() as u64).next_multiple_of(alignment);
        buffers.push(Buffer {
            name,
            kind,
            space: Space::Device,
            offset: 0,
            bytes,
            ty: Some(ty.clone().into()),
            life: Life::Persistent,
        });
        vec![Some(BufferId::new(buffers.len() - 1))]
    };
    for (family, parameter) in &module.parameters {
        let layout = layout(true, family);
        for (name, i, ty) in members(family, &parameter.ty) {
            let expand = |n: &Name| if i.is_some() { ir::indexed_name(n, i.unwrap_or(0)).into() } else { n.clone() };
            let record = &parameter.record;
            manifest.parameters.push(plan::Parameter {
                buffers: add(name.clone(), BufferKind::Parameter, ty, &layout),
                name,
                aliases: record.aliases.iter().chain(&record.tied).map(expand).collect(),
                ty: ty.clone(),
                layout: layout.clone(),
                init: record.init,
                trainable: record.trainable,
            });
        }
    }
    for (family, state) in &module.states {
        let layout = layout(false, family);
        // Optimiser state is named after its parameter: `exp_avg/blocks.{}.ffn.net.2.weight`.
        let of_parameter = family.split_once('/').is_some_and(|(_, p)| module.parameters.contains_key(p));
        let kind = match of_parameter {
            _ if state.of.is_some() => BufferKind::Parameter,
            true => BufferKind::Optimizer,
            false => BufferKind::State,
        };
        for (name, i, ty) in members(family, &state.ty) {
            manifest.states.push(plan::State {
                buffers: add(name.clone(), kind, ty, &layout),
                name,
                ty: ty.clone(),
                layout: layout.clone(),
                init: match &state.of {
                    Some(of) => StateInit::Parameter(i.map_or_else(|| of.clone(), |i| ir::indexed_name(of, i).into())),
                    None => StateInit::Value(state.init),
                },
            });
        }
    }
    let mut asked: Vec<Name> = vec![];
    for (_, node) in module.functions.iter().flat_map(|(_, f)| f.nodes.iter()) {
        if let Inst::Op(op) = &node.inst
            && let Some(Collective::Coordinate(axis)) = op.collective()
            && !asked.contains(&axis)
        {
            asked.push(axis);
        }
    }
    for axis in asked {
        let (name, ty) = (coordinate(&axis), TensorType::scalar(DType::I64));
        manifest.states.push(plan::State {
            buffers: add(name.clone(), BufferKind::State, &ty, &Layout::whole()),
            name,
            ty,
            layout: Layout::whole(),
            init: StateInit::Coordinate(axis),
        });
    }
    (buffers, manifest)
}

/// Each tensor of a family with its name; a plain tensor as the only one.
fn members<'a>(family: &'a Name, ty: &'a Type) -> impl Iterator<Item = (Name, Option<usize>, &'a TensorType)> {
    let stacked = matches!(ty, Type::Stack { .. });
    ty.element().into_iter().flat_map(move |of| {
        (0..ty.count()).map(move |i| match stacked {
            true => (Name::from(ir::indexed_name(family, i)), Some(i), of),
            false => (family.clone(), None, of),
        })
    })
}

fn internal(message: impl Into<String>) -> Diagnostics {
    Diagnostic::error(message).note("this is a mistake of the compiler, not of the model").into()
}

/// The parameter whose gradient an output is.
fn gradient_of(output: &Output) -> Option<&Name> {
    match output {
        Output::Gradient(name) => Some(name),
        _ => None,
    }
}
