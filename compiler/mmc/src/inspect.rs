//! `mmc check`, `ir`, `manifest` and `opt`: what a model is, without a plan.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Instant;

use diag::{Diagnostic, Diagnostics, Sources};
use ir::{Input, Type};
use passes::{Context, DefaultPipeline, Form, MemoryPolicy, Options, Pipeline, Stats};
use report::quantity::{count, seconds};
use types::FileForm;

use crate::args::{Ir, Model, Opt};
use crate::build::{self, Place};
use crate::output::{self, print};
use crate::{Done, directives, input, model};

pub fn check(args: &Model, sources: &mut Sources) -> Done {
    let start = Instant::now();
    let evaluated = model::trace(args, &Options::default(), sources)?.evaluated;
    directives::filled(&Options::default(), &evaluated)?;
    ir::verify(&evaluated.module)
        .map_err(|found| unsound(Diagnostic::internal("the traced graph is not sound"), &found))?;
    ir::check_extent(&evaluated.module).map_err(|found| passes::too_long(&evaluated.module, &found))?;
    let module = &evaluated.module;
    let tensors: usize = module.parameters.values().map(|p| p.ty.count()).sum();
    let nodes: usize = module.functions.iter().map(|(_, f)| f.nodes.len()).sum();
    let mut out = String::new();
    let _ = writeln!(out, "{} {} {}: sound", args.model.display(), evaluated.preset, args.task);
    let _ = writeln!(out, "  parameters  {} in {tensors} tensors", count(module.parameter_count()));
    for program in &module.programs {
        let function = &module.functions[program.function];
        let of = if module.programs.len() > 1 { format!("{}/", program.name) } else { String::new() };
        for (input, ty) in program.inputs.iter().zip(function.param_types()) {
            if let ir::Input::Feed(feed) = input {
                let what = if feed.draw.is_some() { "draw" } else { "feed" };
                let _ = writeln!(out, "  {what}        {of}{} {ty}", feed.name);
            }
        }
        for (output, ty) in program.outputs.iter().zip(function.result_types()) {
            if let ir::Output::Loss(name) | ir::Output::Emit(name) = output {
                let _ = writeln!(out, "  gives       {of}{name} {ty}");
            }
        }
    }
    out.push_str(&output::settings(&evaluated.settings));
    let _ = writeln!(out, "  graph       {nodes} nodes in {} functions", module.functions.len());
    let _ = writeln!(out, "  checked in  {}", seconds(start.elapsed()));
    print(&out)?;
    Ok(evaluated.warnings)
}

pub fn manifest(args: &Model, sources: &mut Sources) -> Done {
    let evaluated = model::trace(args, &Options::default(), sources)?.evaluated;
    ir::check_extent(&evaluated.module).map_err(|found| passes::too_long(&evaluated.module, &found))?;
    let (mut out, mut told) = (String::new(), BTreeSet::new());
    for (family, parameter) in &evaluated.module.parameters {
        let Some(of) = parameter.ty.element() else { continue };
        let stored = parameter.record.stored.unwrap_or(of.dtype);
        let readers = readers(&evaluated.module, family);
        let form = parameter.record.forms.iter().find(|form| form.saved);
        let shape = form.map_or_else(|| of.sizes().to_vec(), |form| form.shape());
        for i in 0..parameter.ty.count() {
            let name = match parameter.ty {
                Type::Stack { .. } => ir::indexed_name(family, i),
                _ => family.to_string(),
            };
            // As the class saves it; a tensor that several parameters are parts of, once.
            let tensors = match form {
                Some(form) => {
                    let placed = FileForm { name: ir::indexed_name(&form.name, i).into(), ..form.clone() };
                    placed.tensors(of).collect()
                }
                None => vec![name],
            };
            for tensor in tensors.into_iter().filter(|tensor| form.is_none() || told.insert(tensor.clone())) {
                let _ = writeln!(out, "{tensor} {stored} {shape:?}{readers}");
            }
        }
    }
    print(&out)?;
    Ok(evaluated.warnings)
}

/// The programs that read a parameter, where others do not: ` in denoise_high`.
fn readers(module: &ir::Module, parameter: &str) -> String {
    let is = |input: &Input| matches!(input, Input::Parameter(name) if **name == *parameter);
    let readers: Vec<&str> =
        module.programs.iter().filter(|p| p.inputs.iter().any(is)).map(|p| p.name.as_str()).collect();
    let some = !readers.is_empty() && readers.len() < module.programs.len();
    if some { format!(" in {}", readers.join(", ")) } else { String::new() }
}

pub fn ir(args: &Ir, sources: &mut Sources) -> Done {
    let Place { target, known, machine, .. } = Place::of(&args.options, None)?;
    let traced = model::trace(&args.model, &args.options.policy, sources)?;
    let (pipeline, _) = build::pipeline(&traced, &args.options, known.as_ref())?;
    let mut form = Form::Graph(traced.evaluated.module);
    let mut warnings = traced.evaluated.warnings;
    let (texts, sized) = (sources.clone(), traced.sized);
    let mut cx =
        Context { sources: Some(&texts), target: Some(&*target), machine: Some(&machine), sized, ..Context::default() };
    if args.after.as_deref() != Some("eval") {
        let pipeline = until(&pipeline.to_string(), args.after.as_deref().unwrap_or("simplify"), sources)?;
        pipeline.run_on(&mut form, &mut cx, |_, _| {})?;
    }
    warnings.0.append(&mut cx.warnings.0);
    print(&if args.stats { stats(&cx.stats) } else { form.to_string() })?;
    Ok(warnings)
}

/// The pipeline as far as the pass of that name.
fn until(text: &str, name: &str, sources: &mut Sources) -> Result<Pipeline, Diagnostics> {
    let whole = Pipeline::read(text, sources)?;
    let legal = std::iter::once("eval").chain(whole.names()).collect::<Vec<_>>().join(", ");
    whole.until(name).ok_or_else(|| {
        Diagnostic::error(format!("the pipeline has no pass `{name}`"))
            .help(format!("stop after one of: {legal}"))
            .into()
    })
}

pub fn opt(args: &Opt, sources: &mut Sources) -> Done {
    let text = model::read(&args.file, "the graph", input::MOST_PRINTED)?;
    let source = sources.add(args.file.display().to_string(), text);
    let text = sources.text(source);
    let is_programs = args.file.extension().is_some_and(|extension| extension == "prog");
    let mut form = if is_programs {
        Form::Programs(program::parse(text).map_err(|e| e.diagnostic(source))?)
    } else {
        let module = ir::parse(text).map_err(|e| e.diagnostic(source))?;
        ir::verify(&module).map_err(|found| unsound(Diagnostic::error("this graph is not sound"), &found))?;
        Form::Graph(module)
    };
    let mut cx = Context::default();
    let policy = MemoryPolicy::default();
    let passes = match (&args.passes, &form) {
        (Some(passes), _) => passes.clone(),
        (None, Form::Graph(graph)) => DefaultPipeline::new(graph, 1, &Options::default(), None, policy).to_string(),
        (None, Form::Programs(_)) => passes::closing(&policy),
    };
    Pipeline::read(&passes, sources)?.run_on(&mut form, &mut cx, |_, _| {})?;
    print(&form.to_string())?;
    Ok(cx.warnings)
}

fn stats(stats: &Stats) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{:<12} {:>9} {:>10} {:>8}", "pass", "time", "functions", "nodes");
    for pass in &stats.passes {
        let _ =
            writeln!(out, "{:<12} {:>9} {:>10} {:>8}", pass.pass, seconds(pass.elapsed), pass.functions, pass.nodes);
        for (what, n) in &pass.counts {
            let _ = writeln!(out, "    {n:>6} x {what}");
        }
    }
    out
}

fn unsound(error: Diagnostic, found: &[ir::Violation]) -> Diagnostic {
    found.iter().take(5).fold(error, |error, violation| error.note(violation.to_string()))
}
