//! From a command line to a plan without code: the model, the target, the machine, and `passes::compile`.

use std::path::Path;
use std::time::{Duration, Instant};

use cost::Machine;
use diag::{Diagnostic, Diagnostics, Sources};
use ir::Module;
use passes::{Compiled, Context, DefaultPipeline, MemoryPolicy};
use plan::{Header, KERNEL_ABI, Plan};
use report::quantity;
use target::Target;
use types::{DType, Mesh, Name, Runs};

use crate::args::{Compile, Options};
use crate::memory_limit::Limit;
use crate::{directives, machines, mesh, model, optim, output, targets};

/// A plan without code, and what it was made of.
pub struct Built {
    pub plan: Plan,
    pub module: Module,
    pub warnings: Diagnostics,
    /// Of a task that samples.
    pub settings: Vec<eval::Setting>,
    pub target: Box<dyn Target>,
    /// The machine whose figures decided the order of instructions.
    pub machine: Machine,
    /// The machine that it is for, if that is known.
    pub known: Option<Machine>,
    pub evaluation: Duration,
    pub passes: Duration,
}

/// The target and the machines of a compilation.
pub struct Place {
    pub target: Box<dyn Target>,
    /// The machine of `--machine`.
    asked: Option<Machine>,
    /// The machine that the plan is for, if that is known.
    pub known: Option<Machine>,
    /// The machine whose figures decide.
    pub machine: Machine,
}

impl Place {
    pub fn of(options: &Options, cache: Option<&Path>) -> Result<Self, Diagnostics> {
        let target = targets::target(options, cache)?;
        let asked = options.machine.as_deref().map(machines::named).transpose()?;
        let known = asked.clone().or_else(|| cost::built_in(target.name()));
        let machine = known.clone().unwrap_or_else(|| machines::of_target(target.name()));
        Ok(Self { target, asked, known, machine })
    }
}

/// The pipeline of a model that was traced, and the memory that it may use.
pub fn pipeline(
    traced: &model::Traced,
    options: &Options,
    known: Option<&Machine>,
) -> Result<(DefaultPipeline, Option<Limit>), Diagnostics> {
    let own = directives::filled(&options.policy, &traced.evaluated)?;
    let optim = optim::checked(&options.policy.optim)?;
    let own = passes::Options { dtype: Some(targets::work_type(options, traced.precision)), optim, ..own };
    let limit = Limit::of(&own, known);
    let stages = mesh::stages(&own.mesh, &traced.evaluated.directives);
    let policy = MemoryPolicy::of(&own, limit.as_ref().map(|limit| limit.budget));
    let pipeline = DefaultPipeline::new(&traced.evaluated.module, traced.microbatches, &own, stages, policy);
    Ok((pipeline, limit))
}

/// Everything up to the plan; what its kernels do is not compiled yet.
pub fn build(args: &Compile, sources: &mut Sources) -> Result<Built, Diagnostics> {
    let start = Instant::now();
    let Place { target, asked, known, machine } = Place::of(&args.options, args.cache.as_deref())?;
    let traced = model::trace(&args.model, &args.options.policy, sources)?;
    let (pipeline, limit) = pipeline(&traced, &args.options, known.as_ref())?;
    let model::Traced { evaluated, microbatches, sized, precision } = traced;
    let mut warnings = evaluated.warnings;
    let evaluation = start.elapsed();

    let start_passes = Instant::now();
    let samples = evaluated.batch as u64 * u64::from(microbatches);
    let tokens = tokens_of(samples, mesh::tokens(&evaluated.directives, &evaluated.dims))?;
    let dtype = targets::work_type(&args.options, precision).into();
    let mut header = header(args, &*target, evaluated.module.mesh.clone(), (&evaluated.preset, dtype));
    header.configs = evaluated.configs;
    let settings = evaluated.settings;
    if let Some(machine) = asked.as_ref().filter(|_| header.device.is_empty()) {
        header.device = machine.name.as_str().into();
    }
    let mut cx = Context { target: Some(&*target), machine: Some(&machine), sized, ..Context::default() };
    let mut printed = Ok(());
    let compiled = passes::compile(evaluated.module, &pipeline, header, &mut cx, sources, |name, module| {
        if args.dump_after.as_deref() == Some(name) && printed.is_ok() {
            printed = output::print(&module.to_string());
        }
    });
    let Compiled { mut plan, module, unhoisted } = compiled?;
    printed?;
    warnings.0.extend(unhoisted.zip(limit).map(|((class, need), limit)| too_much(&class, need.bytes, &limit)));
    warnings.0.append(&mut cx.warnings.0);
    plan.header.schedule_end = cx.schedule_end.unwrap_or(0);
    for program in &mut plan.programs {
        program.tokens = if program.runs == Runs::Prepare { 0 } else { tokens };
    }
    let passes = start_passes.elapsed();
    Ok(Built { plan, module, warnings, settings, target, machine, known, evaluation, passes })
}

/// Tokens of a step.
fn tokens_of(samples: u64, tokens: u64) -> Result<u64, Diagnostics> {
    samples.checked_mul(tokens).ok_or_else(|| {
        Diagnostic::error(format!("{samples} samples of {tokens} tokens are too many to count"))
            .help("make --batch smaller, or the dims that the plan cuts over cp")
            .into()
    })
}

/// Why parameters are not gathered once a step: a plan that does has no place in the memory there is.
fn too_much(class: &str, bytes: u64, limit: &Limit) -> Diagnostic {
    let what = "each micro-batch gathers parameters and scatters gradients";
    let bytes = quantity::bytes(bytes);
    Diagnostic::warning(format!("{what}: once a step, ranks of `{class}` would need {bytes}")).note(format!(
        "{} has {}",
        limit.whose,
        quantity::bytes(limit.budget.bytes)
    ))
}

fn header(args: &Compile, target: &dyn Target, mesh: Mesh, (preset, dtype): (&str, DType)) -> Header {
    let machine = target.machine();
    let file = args.model.model.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Header {
        model: file.into(),
        preset: preset.into(),
        task: args.model.task.as_str().into(),
        target: target.name().into(),
        device: machine.cpu.into(),
        features: machine.features.into_iter().map(Name::from).collect(),
        dtype,
        seed: args.options.seed,
        compiler: env!("CARGO_PKG_VERSION").into(),
        mesh,
        schedule_end: 0,
        kernel_abi: KERNEL_ABI,
        configs: vec![],
    }
}
