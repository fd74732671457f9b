//! `mmc compile`: a model in, a verified plan out.

use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use std::time::Instant;

use diag::{Diagnostic, Diagnostics, Sources};
use ir::Module;
use plan::Plan;
use report::summary;
use target::Target;

use crate::args::Compile;
use crate::build::{Built, build};
use crate::memory_limit::{Excess, Limit};
use crate::plan_file::verify;
use crate::{Done, changes, output};

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
    if let Some(excess) = Excess::of(&built.plan, &Limit::of_any_machine()) {
        return Err(excess.diagnostic(&built.plan).help("make the dims smaller, or cut them over more ranks").into());
    }
    let wide = changes::wide(args, &built);
    #[cfg(feature = "ascend")]
    let is_narrower = wide.is_some();
    built.warnings.0.extend(wide);
    let limit = Limit::of(&args.options.policy, built.known.as_ref());
    if let Some(excess) = limit.as_ref().and_then(|limit| Excess::of(&built.plan, limit)) {
        let mut said = excess.diagnostic(&built.plan);
        if excess.is_refused() {
            return Err(changes::add(said, args, &built, &excess.limit).into());
        }
        said.severity = diag::Severity::Warning;
        built.warnings.push(said);
    }
    let Built { plan, module, mut warnings, settings, target, evaluation, passes, .. } = built;
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
    let summary = summary::of_plan(&plan, &args.output, bytes.len() as u64, &hash.to_string(), &times);
    output::tell(&(summary + &output::settings(&settings)));
    Ok(warnings)
}

fn with_code(mut plan: Plan, module: &Module, target: &dyn Target) -> Result<Plan, Diagnostics> {
    let _span = tracing::info_span!("emit").entered();
    let kernels: Vec<(&str, &ir::Function)> = passes::kernels(module).map(|(_, k)| (k.name.as_str(), k)).collect();
    plan.object = target
        .emit(&kernels)
        .map_err(|e| Diagnostic::internal(format!("the target `{}` makes no code: {e}", target.name())))?;
    Ok(plan)
}
