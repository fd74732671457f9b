//! From a traced graph to its plan: the default pipeline, and the retries where the plan does not fit the memory.

use cost::Machine;
use diag::{Diagnostic, Diagnostics, Sources};
use ir::Module;
use plan::{Header, Plan};
use program::RankModule;
use target::{NoTarget, Target};

use crate::default_pipeline::{DefaultPipeline, closing};
use crate::memory_policy::{MemoryPolicy, Need};
use crate::pipeline::Pipeline;
use crate::ranks::{self, RankPass};
use crate::residencies::Residencies;
use crate::stages::Stages;
use crate::{Context, ProgramPass, memory_search, unroll};

/// A plan without code, and the graph of its kernels.
pub struct Compiled {
    pub plan: Plan,
    pub module: Module,
    /// Set where each micro-batch gathers parameters and scatters gradients, since once a step needs too much: which ranks,
    /// and how much.
    pub unhoisted: Option<(String, Need)>,
}

/// Runs the pipeline. Where the plan does not fit, it is made again with less of what costs memory: without
/// `hoist-collectives`, and each time without delayed work ([`lower`]). Passes that ask for memory search by themselves.
///
/// `after` sees each pass over graphs and what it made.
pub fn compile(
    mut module: Module,
    pipeline: &DefaultPipeline,
    header: Header,
    cx: &mut Context<'_>,
    sources: &mut Sources,
    mut after: impl FnMut(&str, &Module),
) -> Result<Compiled, Diagnostics> {
    let DefaultPipeline { graph, kernels, stages, policy, .. } = pipeline;
    let machine = cx.machine();
    let target = cx.target.unwrap_or(&NoTarget);
    let mut pass = |text: &str, module: &mut Module, sources: &mut Sources| {
        Pipeline::read(text, sources)?.run(module, cx, &mut after)
    };
    let plan = |module: &Module, sources: &Sources| {
        lower(module, sources, target, header.clone(), &machine, stages.as_ref(), policy)
    };
    pass(graph, &mut module, sources)?;
    let mut unhoisted = None;
    if pipeline.hoists {
        let mut module = module.clone();
        pass(&format!("hoist-collectives | {kernels}"), &mut module, sources)?;
        let plan = plan(&module, sources)?;
        let Some(need) = policy.excess(&plan) else { return Ok(Compiled { plan, module, unhoisted: None }) };
        unhoisted = Some((plan.classes[need.class].name.to_string(), need));
    }
    pass(kernels, &mut module, sources)?;
    Ok(Compiled { plan: plan(&module, sources)?, module, unhoisted })
}

/// From the graph of kernels to the plan; `object` is left empty. Instructions are ordered by what they take on `machine`.
///
/// A plan that does not fit the budget is made once more, eagerly, unless the policy has decided about that.
pub fn lower(
    module: &Module,
    sources: &Sources,
    target: &dyn Target,
    header: Header,
    machine: &Machine,
    stages: Option<&Stages>,
    policy: &MemoryPolicy,
) -> Result<Plan, Diagnostics> {
    let make = |policy: &MemoryPolicy| {
        let mut module = span("unroll", || unroll::unroll(module, sources, target))?;
        if let Some(stages) = stages {
            let mut cx = Context { machine: Some(machine), ..Context::default() };
            span("stages", || stages.run(&mut module, &mut cx))?;
        }
        if policy.sleeping_parameters {
            span("residencies", || Residencies {}.run(&mut module, &mut Context::default()))?;
        }
        close(&mut module, machine, policy)?;
        let plan = program::plan(module, header.clone());
        // Counts of a kernel saturate; sums over kernels do not.
        if let Some(kernel) = plan.kernels.iter().find(|k| k.flops == u64::MAX) {
            let what = format!("kernel `{}` takes more than 2^64 FLOP on one rank", kernel.symbol);
            return Err(Diagnostic::error(what).help("make the batch or other dims smaller").into());
        }
        Ok::<Plan, Diagnostics>(plan)
    };
    let plan = make(policy)?;
    if policy.eager || policy.asks() || policy.excess(&plan).is_none() || policy.is_hopeless(&plan) {
        return Ok(plan);
    }
    let eager = MemoryPolicy { eager: true, ..policy.clone() };
    let other = make(&eager)?;
    Ok(if policy.excess(&other).is_none() { other } else { plan })
}

fn span<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let _span = tracing::info_span!("pass", name).entered();
    work()
}

/// Remat and the closing passes, each rank by itself: what one of them decides depends on no other.
fn close(module: &mut RankModule, machine: &Machine, policy: &MemoryPolicy) -> Result<(), Diagnostics> {
    let steps = Pipeline::parse(&closing(policy)).map_err(|e| Diagnostic::internal(e.to_string()))?;
    let steps: Vec<(&'static str, &dyn RankPass)> = steps.rank_passes().collect();
    ranks::each(module, machine, |program, cx| {
        if policy.asks() {
            *program = memory_search::fastest_that_fits(program, policy, &steps, cx);
            return;
        }
        for (name, pass) in &steps {
            span(name, || pass.run(program, cx));
        }
    });
    Ok(())
}
