//! A module as a plan, and the plan on all its ranks, each with its threads in this process.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use comm::{Communicator, Local};
use data::{Feeds, Inputs, Share, initialise};
use diag::Sources;
use ir::{Array, Function, Interpreter, Module, Precision, Value};
use passes::{Budget, Gradients, MemoryPolicy, Offload, Stages};
use plan::{Access, EmitId, Header, KERNEL_ABI, Layout, Plan, StateInit, Verified};
use runtime_core::{Argument, Executor, Feeder, Interpreted, Kernels, Options};
use target::Target;
use types::{DType, Mesh, Name, TensorType};

use crate::numbers::{decode, encode};
use crate::overwriting::Overwriting;
use crate::{SEED, Values, of_step};

/// How long a rank waits for the others before it says that they hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plan, and the functions that are its kernels.
pub struct Compiled {
    pub plan: Plan,
    pub functions: Vec<Function>,
}

/// What a case does about values that wait for its backward: in most of them everything is kept.
pub fn policy(gradients: Gradients, numbers: &[u32]) -> MemoryPolicy {
    let roll = numbers.iter().fold(0u32, |sum, n| sum.wrapping_mul(31).wrapping_add(*n)) >> 7;
    let offload = |all: u32| match roll % 8 {
        3 | 4 => Offload::Auto,
        n if n == all => Offload::All,
        _ => Offload::None,
    };
    MemoryPolicy {
        gradients,
        recompute: matches!(roll % 8, 2 | 3),
        activations: offload(5),
        optimizer: offload(6),
        sleeping_parameters: false,
        // What nothing fits in makes decisions as far as they go.
        budget: Some(Budget { bytes: 1, communicator: 0 }),
        eager: roll % 2 == 1,
    }
}

/// The closing steps of a compilation; the module has gone through its passes. The plan is not verified yet.
pub fn compile(
    mut module: Module,
    target: &dyn Target,
    stages: Option<&Stages>,
    policy: &MemoryPolicy,
) -> Result<Compiled, String> {
    let said = |e: diag::Diagnostics| e.to_string();
    passes::group(&mut module, target, stages.is_some()).map_err(said)?;
    ir::verify(&module).map_err(|v| lines(&v))?;
    let machine = target.machine();
    let one = Mesh::new([("tp", 1)]).map_err(|e| e.to_string())?;
    let header = Header {
        model: "m".into(),
        preset: "p".into(),
        task: "train".into(),
        target: target.name().into(),
        device: machine.cpu.into(),
        features: machine.features.into_iter().map(Name::from).collect(),
        dtype: DType::F32,
        seed: SEED,
        compiler: "test".into(),
        mesh: if module.mesh.axes.is_empty() { one } else { module.mesh.clone() },
        schedule_end: 0,
        kernel_abi: KERNEL_ABI,
        configs: vec![],
    };
    let (sources, cost) = (Sources::default(), cost::typical());
    let mut plan = passes::lower(&module, &sources, target, header, &cost, stages, policy).map_err(said)?;
    let functions: Vec<(Name, Function)> = passes::kernels(&module).map(|(_, k)| (k.name.clone(), k.clone())).collect();
    let named: Vec<(&str, &Function)> = functions.iter().map(|(n, f)| (n.as_str(), f)).collect();
    plan.object = target.emit(&named).map_err(|e| e.to_string())?;
    Ok(Compiled { plan, functions: functions.into_iter().map(|(_, f)| f).collect() })
}

pub fn verified(plan: Plan) -> Result<Verified, String> {
    let text = plan.to_string();
    Verified::new(plan).map_err(|v| format!("{}\n{text}", lines(&v)))
}

fn lines<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// By result of a kernel function: the argument that takes it. Kernels that read and write one are those of [`Overwriting`].
fn places(accesses: &[Access], function: &Function) -> Vec<usize> {
    let changes = accesses.contains(&Access::ReadWrite);
    let pairs = if changes { Overwriting.describe(function).overwrites } else { vec![] };
    let mut own = function.params.len()..;
    let results = 0..function.results.len();
    let place = |r| pairs.iter().find(|(_, result)| *result == r).map(|(p, _)| *p).or_else(|| own.next());
    results.filter_map(place).collect()
}

/// Kernels that run their own graph function through the interpreter.
pub fn interpreting(plan: &Plan, functions: Vec<Function>) -> impl Kernels + use<> {
    let empty = Module::default();
    let places: Vec<Vec<usize>> = plan.kernels.iter().zip(&functions).map(|(k, f)| places(&k.args, f)).collect();
    Interpreted::new(plan, move |kernel, args: &mut [Argument<'_>], _| {
        let function = &functions[kernel.index()];
        let tensors: Vec<&TensorType> = function.param_types().filter_map(|t| t.tensor()).collect();
        let operands: Vec<Value> = tensors
            .iter()
            .zip(args.iter())
            .map(|(ty, bytes)| {
                let numbers = decode(ty.dtype, &bytes.bytes()[..ty.bytes()]);
                Array::new((*ty).clone(), numbers).into()
            })
            .collect();
        let results = Interpreter::new(&empty, Precision::Declared).run(function, &operands);
        for (value, place) in results.iter().zip(&places[kernel.index()]) {
            let array = value.tensor();
            if let Some(to) = args[*place].bytes_mut() {
                encode(array.ty.dtype, &array.data, to);
            }
        }
    })
}

/// Bytes that a rank gives of each emit at one step; empty for those it does not have.
type Given = Vec<Vec<u8>>;

/// Runs the first program from initial values and draws of [`SEED`].
pub fn run(plan: &Verified, kernels: impl Kernels, options: &Options, steps: u64) -> Result<Values, String> {
    let kernels = Arc::new(kernels);
    let world = plan.plan().header.world();
    let seats: Vec<Option<Arc<dyn Communicator>>> = match world {
        1 => vec![None],
        _ => Local::world(world, Some(PATIENCE)).into_iter().map(|local| Some(Arc::new(local) as _)).collect(),
    };
    let mut executors = vec![];
    for (rank, seat) in seats.into_iter().enumerate() {
        let mut executor = Executor::new(plan, kernels.clone(), seat, options).map_err(|e| e.to_string())?;
        fill(&mut executor, plan.plan(), rank)?;
        executors.push(executor);
    }
    let manifest = &plan.plan().manifest;
    let program = &plan.plan().programs[0];
    let (mesh, feeds) = (&plan.plan().header.mesh, program.feeds.clone());
    let inputs = Inputs::none(&feeds);
    let feeds = Feeds::new(feeds, SEED, inputs, None);
    let given = thread::scope(|scope| {
        let run = |(rank, executor): (usize, &mut Executor)| -> Result<Vec<Given>, (bool, String)> {
            let failed = |e: runtime_core::ExecError| (e.is_of_a_peer(), e.to_string());
            let feeds = feeds.at(mesh, &mesh.coordinates(rank));
            let mut feeder = Feeder::new(executor, 0, feeds, 0, Some(steps)).map_err(failed)?;
            let mut given = vec![];
            for _ in 0..steps {
                executor.run(0, &mut feeder).map_err(failed)?;
                given.push((0..program.emits.len()).map(|e| executor.emitted(0, EmitId::new(e)).clone()).collect());
            }
            Ok(given)
        };
        let ranks: Vec<_> = executors.iter_mut().enumerate().map(|rank| scope.spawn(move || run(rank))).collect();
        ranks.into_iter().map(|r| r.join().unwrap_or_else(|_| Err((false, "a rank panicked".into())))).collect()
    });
    let given = first_error(given)?;

    let mut out = Values::new();
    for step in 0..steps {
        for (e, emit) in program.emits.iter().enumerate() {
            let held = given.iter().map(|steps| Some(steps[step as usize][e].as_slice()).filter(|b| !b.is_empty()));
            out.insert(of_step(step, &emit.name), whole(mesh, &emit.name, (&emit.ty, &emit.layout), held)?);
        }
    }
    for p in &manifest.parameters {
        let held = executors.iter().map(|e| e.read(p.buffer(e.class())?).ok()?);
        out.insert(p.name.to_string(), whole(mesh, &p.name, (&p.ty, &p.layout), held)?);
    }
    for s in manifest.states.iter().filter(|s| !matches!(s.init, StateInit::Coordinate(_))) {
        let held = executors.iter().map(|e| e.read(s.buffer(e.class())?).ok()?);
        out.insert(s.name.to_string(), whole(mesh, &s.name, (&s.ty, &s.layout), held)?);
    }
    Ok(out)
}

/// Of several failed ranks, the one that failed first has the error to show.
fn first_error<T>(results: Vec<Result<T, (bool, String)>>) -> Result<Vec<T>, String> {
    let errors = results.iter().filter_map(|r| r.as_ref().err());
    match errors.min_by_key(|(of_a_peer, _)| *of_a_peer) {
        Some((_, message)) => Err(message.clone()),
        None => Ok(results.into_iter().flatten().collect()),
    }
}

fn fill(executor: &mut Executor, plan: &Plan, rank: usize) -> Result<(), String> {
    let (mesh, class) = (&plan.header.mesh, executor.class());
    let coordinates = mesh.coordinates(rank);
    let share = |ty: &TensorType, layout: &Layout| Share::new(mesh, &coordinates, ty, layout);
    let missing = |name: &Name| format!("{name} has no buffer");
    for p in &plan.manifest.parameters {
        // Other ranks of a pipeline hold it.
        let Some(id) = p.buffer(class) else { continue };
        let to = executor.write(id).ok().flatten().ok_or_else(|| missing(&p.name))?;
        initialise(&p.init, SEED, &p.name, &share(&p.ty, &p.layout), to);
    }
    for s in &plan.manifest.states {
        let Some(id) = s.buffer(class) else { continue };
        let of = match &s.init {
            StateInit::Parameter => {
                let of =
                    s.of.and_then(|of| plan.manifest.parameters.get(of.index())).ok_or_else(|| missing(&s.name))?;
                let held = of.buffer(class).and_then(|id| executor.read(id).ok()?).ok_or_else(|| missing(&of.name))?;
                decode(of.ty.dtype, held)
            }
            _ => vec![],
        };
        let to = executor.write(id).ok().flatten().ok_or_else(|| missing(&s.name))?;
        match &s.init {
            StateInit::Value(init) => initialise(init, SEED, &s.name, &share(&s.ty, &s.layout), to),
            StateInit::Coordinate(axis) => {
                let at = mesh.position(axis).map_or(0, |p| coordinates[p]);
                encode(s.ty.dtype, &[at as f64], to);
            }
            StateInit::Parameter => encode(s.ty.dtype, &of, to),
            // Its program makes it.
            StateInit::Prepared => {}
        }
    }
    for e in 0..plan.programs[0].emits.len() {
        executor.request(0, EmitId::new(e), true);
    }
    Ok(())
}

/// A tensor out of what ranks hold of it, which must be all of it, and the same bits wherever several hold the same.
fn whole<'a>(
    mesh: &Mesh,
    name: &str,
    (ty, layout): (&TensorType, &Layout),
    held: impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<Vec<f64>, String> {
    let size = ty.dtype.bytes();
    let mut out: Vec<Option<&[u8]>> = vec![None; ty.elements()];
    for (rank, bytes) in held.enumerate() {
        let Some(bytes) = bytes else { continue };
        let share = Share::new(mesh, &mesh.coordinates(rank), ty, layout);
        for run in share.runs() {
            for i in 0..run.count {
                let own = &bytes[(run.local + i) * size..][..size];
                let there = out[run.logical + i].get_or_insert(own);
                if *there != own {
                    return Err(format!(
                        "rank {rank} holds other bits of {name}, at {}, than a rank before",
                        run.logical + i
                    ));
                }
            }
        }
    }
    let bytes: Option<Vec<&[u8]>> = out.into_iter().collect();
    let bytes = bytes.ok_or_else(|| format!("no rank holds all of {name}"))?;
    Ok(decode(ty.dtype, &bytes.concat()))
}
