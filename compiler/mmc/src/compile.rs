//! `mmc compile`: a model in, a verified plan out.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use cost::Machine;
use diag::{Diagnostic, Diagnostics, Sources};
use ir::Module;
use passes::{Budget, Context, Gradients, MemoryPolicy, Stages};
use plan::{Header, KERNEL_ABI, Plan};
use report::{quantity, summary};
use target::Target;
use types::{DType, Mesh, Name, Runs};

use crate::args::{Compile, Grads, Offload, Options, Recompute, WorkType};
use crate::directives::Directives;
use crate::fit::{Excess, Limit};
use crate::{Done, changes, machines, model, optim, output, targets};

/// A plan without code, and what it was made of.
pub struct Built {
    pub plan: Plan,
    pub module: Module,
    pub warnings: Diagnostics,
    pub target: Box<dyn Target>,
    /// The machine whose figures decided the order of instructions.
    pub machine: Machine,
    /// The machine that it is for, if that is known.
    pub known: Option<Machine>,
    pub evaluation: Duration,
    pub passes: Duration,
}

pub fn compile(args: &Compile, sources: &mut Sources) -> Done {
    let start = Instant::now();
    let (plan, machine) = (args.model.plan.as_deref(), args.options.machine.as_deref().map(Path::new));
    let inputs = [("the model", Some(&*args.model.model)), ("the model of --plan", plan), ("the machine", machine)];
    output::apart(&args.output, &inputs)?;
    if args.output.is_file() && args.output.extension().is_some_and(|extension| extension == "mm") {
        let what = format!("{} is a model's source, and the plan would replace it", args.output.display());
        return Err(Diagnostic::error(what).help("choose another place with -o").into());
    }
    output::probe(&args.output)?;
    let mut built = build(args, sources)?;
    if let Some(excess) = Excess::of(&built, &Limit::of_any_machine()) {
        return Err(excess.diagnostic(&built.plan).help("make the dims smaller, or cut them over more ranks").into());
    }
    let wide = changes::wide(args, &built);
    #[cfg(feature = "ascend")]
    let is_narrower = wide.is_some();
    built.warnings.0.extend(wide);
    let limit = Limit::of(&args.options, built.known.as_ref());
    if let Some(excess) = limit.as_ref().and_then(|limit| Excess::of(&built, limit)) {
        let mut said = excess.diagnostic(&built.plan);
        if excess.is_refused() {
            return Err(changes::add(said, args, &built, &excess.limit).into());
        }
        said.severity = diag::Severity::Warning;
        built.warnings.push(said);
    }
    let Built { plan, module, mut warnings, target, evaluation, passes, .. } = built;
    let start_code = Instant::now();
    let plan = with_code(plan, &module, &*target)?;
    let code = start_code.elapsed();
    let (bytes, hash) = thread::scope(|scope| {
        let bytes = scope.spawn(|| plan.to_bytes());
        verify(&plan)?;
        let bytes = bytes.join().unwrap_or_else(|panic| resume_unwind(panic));
        bytes.map_err(|e| Diagnostics::from(Diagnostic::error(e.to_string())))
    })?;
    output::write(&args.output, &bytes)?;
    #[cfg(feature = "ascend")]
    warnings.0.extend(crate::ascend::too_large(&plan, is_narrower));
    let times = summary::Times { evaluation, passes, code, whole: start.elapsed() };
    output::tell(&summary::of_plan(&plan, &args.output, bytes.len() as u64, &hash.to_string(), &times));
    Ok(warnings)
}

/// Everything up to the plan; what its kernels do is not compiled yet.
pub fn build(args: &Compile, sources: &mut Sources) -> Result<Built, Diagnostics> {
    let start = Instant::now();
    let target = targets::target(&args.options, args.cache.as_deref())?;
    let asked = args.options.machine.as_deref().map(machines::named).transpose()?;
    let optim = optim::checked(&args.options.optim)?;
    let traced = model::trace(&args.model, &args.options.mesh, sources)?;
    let options = Options { optim, ..Directives::of(&traced.evaluated)?.fill(&args.options) };
    let pipeline = model::pipeline(&traced, &options);
    let group = model::group(&options, &traced.evaluated.module.mesh);
    let hoists = model::hoists_collectives(&traced, &options.mesh);
    let stages = crate::mesh::stages(&options.mesh, &traced.evaluated.wishes);
    let model::Traced { evaluated, microbatches } = traced;
    let mut module = evaluated.module;
    let mut warnings = evaluated.warnings;
    let evaluation = start.elapsed();

    let start_passes = Instant::now();
    let known = asked.clone().or_else(|| cost::built_in(target.name()));
    let machine = known.clone().unwrap_or_else(|| machines::of_target(target.name()));
    let mut cx = Context { target: Some(&*target), machine: Some(&machine), ..Context::default() };
    let mut pass = |text: &str, module: &mut Module, sources: &mut Sources| {
        let mut printed = Ok(());
        model::run(text, module, &mut cx, sources, |name, module| {
            if args.dump_after.as_deref() == Some(name) {
                printed = output::print(&module.to_string());
            }
        })?;
        printed
    };
    pass(&pipeline, &mut module, sources)?;
    let tokens = evaluated.dims.get("TOKENS").copied().unwrap_or(1);
    let samples = evaluated.batch as u64 * u64::from(microbatches);
    let tokens = tokens_of(samples, tokens as u64)?;
    let mut header = header(args, &*target, module.mesh.clone(), &evaluated.preset);
    header.configs = evaluated.configs;
    if let Some(machine) = asked.as_ref().filter(|_| header.cpu.is_empty()) {
        header.cpu = machine.name.as_str().into();
    }
    let limit = Limit::of(&options, known.as_ref());
    let mut plan = None;
    if hoists {
        let mut module = module.clone();
        pass(&format!("hoist-collectives | {group}"), &mut module, sources)?;
        let made =
            lower(&module, sources, &*target, header.clone(), &options, &machine, (stages.as_ref(), limit.as_ref()))?;
        match limit.as_ref().and_then(|limit| too_much(&made, limit)) {
            None => plan = Some((made, module)),
            Some(warning) => warnings.0.push(warning),
        }
    }
    let (mut plan, module) = match plan {
        Some(made) => made,
        None => {
            pass(&group, &mut module, sources)?;
            (lower(&module, sources, &*target, header, &options, &machine, (stages.as_ref(), limit.as_ref()))?, module)
        }
    };
    warnings.0.append(&mut cx.warnings.0);
    plan.header.schedule_end = cx.schedule_end.unwrap_or(0);
    for program in &mut plan.programs {
        program.tokens = if program.runs == Runs::Prepare { 0 } else { tokens };
    }
    Ok(Built { plan, module, warnings, target, machine, known, evaluation, passes: start_passes.elapsed() })
}

/// Tokens of a step.
fn tokens_of(samples: u64, tokens: u64) -> Result<u64, Diagnostics> {
    samples.checked_mul(tokens).ok_or_else(|| {
        Diagnostic::error(format!("{samples} samples of {tokens} tokens are too many to count"))
            .help("make --batch or the dims of TOKENS smaller")
            .into()
    })
}

/// Why parameters are not gathered once a step, if a plan that does has no place in the memory there is.
fn too_much(plan: &Plan, limit: &Limit) -> Option<Diagnostic> {
    let (class, bytes) = limit.largest(plan)?;
    (bytes > limit.bytes).then(|| {
        let what = "each micro-batch gathers parameters and scatters gradients";
        let (name, bytes) = (&plan.classes[class].name, quantity::bytes(bytes));
        Diagnostic::warning(format!("{what}: once a step, ranks of `{name}` would need {bytes}")).note(format!(
            "{} has {}",
            limit.whose,
            quantity::bytes(limit.bytes)
        ))
    })
}

/// The plan without code: scheduled and with every buffer placed.
pub fn lower(
    module: &Module,
    sources: &Sources,
    target: &dyn Target,
    header: Header,
    options: &Options,
    machine: &Machine,
    (stages, limit): (Option<&Stages>, Option<&Limit>),
) -> Result<Plan, Diagnostics> {
    passes::lower(module, sources, target, header, machine, stages, &policy(options, limit))
}

/// What may be done for less memory.
pub fn policy(options: &Options, limit: Option<&Limit>) -> MemoryPolicy {
    let gradients = match options.grads {
        Grads::Streamed => Gradients::Streamed,
        Grads::Resident => Gradients::Resident,
    };
    let offload = |all: Offload| match options.offload {
        Some(Offload::Auto) => passes::Offload::Auto,
        asked if asked == Some(all) => passes::Offload::All,
        _ => passes::Offload::None,
    };
    let policy = MemoryPolicy {
        gradients,
        recompute: options.recompute == Some(Recompute::Auto),
        activations: offload(Offload::Activations),
        optimizer: offload(Offload::Optimizer),
        sleeping_parameters: options.offload == Some(Offload::Parameters),
        budget: limit.map(|limit| Budget { bytes: limit.bytes, communicator: limit.communicator }),
        eager: false,
    };
    // Where memory is asked for, none of it is spent on time.
    MemoryPolicy { eager: policy.asks(), ..policy }
}

fn with_code(mut plan: Plan, module: &Module, target: &dyn Target) -> Result<Plan, Diagnostics> {
    let _span = tracing::info_span!("emit").entered();
    let kernels: Vec<(&str, &ir::Function)> = passes::kernels(module).map(|(_, k)| (k.name.as_str(), k)).collect();
    plan.object = target
        .emit(&kernels)
        .map_err(|e| Diagnostic::internal(format!("the target `{}` makes no code: {e}", target.name())))?;
    Ok(plan)
}

pub fn verify(plan: &Plan) -> Result<(), Diagnostics> {
    let _span = tracing::info_span!("verify").entered();
    plan::verify(plan).map_err(|violations| {
        let mut error = Diagnostic::internal("the plan failed its verification, so it was not written");
        for violation in violations.iter().take(5) {
            error = error.note(violation.to_string());
        }
        error.into()
    })
}

fn header(args: &Compile, target: &dyn Target, mesh: Mesh, preset: &str) -> Header {
    let machine = target.machine();
    let file = args.model.model.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Header {
        model: file.into(),
        preset: preset.into(),
        task: args.model.task.as_str().into(),
        target: target.name().into(),
        cpu: machine.cpu.into(),
        features: machine.features.into_iter().map(Name::from).collect(),
        dtype: match targets::work_type(&args.options) {
            WorkType::F32 => DType::F32,
            WorkType::Bf16 => DType::BF16,
        },
        seed: args.options.seed,
        compiler: env!("CARGO_PKG_VERSION").into(),
        mesh,
        schedule_end: 0,
        kernel_abi: KERNEL_ABI,
        configs: vec![],
    }
}
