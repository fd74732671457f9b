//! A pipeline: passes in the order of a text like `precision{dtype=bf16} | autodiff | inline`, and its runner.

use std::fmt;
use std::ops::Range;
use std::time::Instant;

use diag::{Diagnostic, Diagnostics, SourceId, Sources, Span};
use ir::Module;
use program::RankModule;
use serde_json::{Map, Value};
use target::{NoTarget, Target};

use crate::microbatches::SizedConstants;
use crate::ranks::RankPass;
use crate::registry::{AnyPass, Entry, REGISTRY};
use crate::stats::{PassStats, Stats};
use crate::{diagnostics, ranks, unroll};

/// One step from module to module. Valid input never fails: an error is a wish that cannot be met.
pub trait Pass {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics>;
}

/// The same over the programs of all ranks together.
pub trait ProgramPass {
    fn run(&self, module: &mut RankModule, cx: &mut Context<'_>) -> Result<(), Diagnostics>;
}

/// What a pipeline works on: a graph, and after `unroll` the programs of ranks.
#[derive(Clone, Debug)]
pub enum Form {
    Graph(Module),
    Programs(RankModule),
}

/// What passes may need from outside, and what they leave behind beside the module.
#[derive(Default)]
pub struct Context<'a> {
    /// The texts that places in the graph point into.
    pub sources: Option<&'a Sources>,
    pub target: Option<&'a dyn Target>,
    /// The machine whose figures decide; a typical one if there is none.
    pub machine: Option<&'a cost::Machine>,
    pub stats: Stats,
    pub warnings: Diagnostics,
    /// The step at which the schedule of the learning rate ends, if it has an end.
    pub schedule_end: Option<u64>,
    /// Where a batch falls into micro-batches: the constants that the number of samples is in, if they are known.
    pub sized: Option<SizedConstants>,
}

impl Context<'_> {
    pub fn machine(&self) -> cost::Machine {
        self.machine.cloned().unwrap_or_else(cost::typical)
    }
}

pub struct Pipeline {
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    options: Vec<(String, String)>,
    pass: AnyPass,
}

/// Why a text is no pipeline; `at` is a byte range of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineError {
    pub message: String,
    pub help: String,
    pub at: Range<usize>,
}

impl PipelineError {
    /// `source` is the pipeline's text.
    pub fn diagnostic(&self, source: SourceId) -> Diagnostic {
        let span = Span::new(source, self.at.start, self.at.end);
        Diagnostic::error(self.message.as_str()).at(span, "").help(self.help.as_str())
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.help)
    }
}

impl std::error::Error for PipelineError {}

impl Pipeline {
    /// The empty text is the pipeline that does nothing.
    pub fn parse(text: &str) -> Result<Self, PipelineError> {
        let mut steps = vec![];
        let mut start = 0;
        for piece in text.split('|') {
            if !(piece.trim().is_empty() && steps.is_empty() && start + piece.len() == text.len()) {
                steps.push(step(text, start..start + piece.len())?);
            }
            start += piece.len() + 1;
        }
        Ok(Self { steps })
    }

    /// A pipeline whose errors show its text.
    pub fn read(text: &str, sources: &mut Sources) -> Result<Self, Diagnostics> {
        let source = sources.add("the pipeline", text);
        Ok(Self::parse(text).map_err(|e| e.diagnostic(source))?)
    }

    /// The same as far as the pass of that name; `None` if it has no such pass.
    pub fn until(mut self, name: &str) -> Option<Self> {
        let last = self.steps.iter().position(|s| s.name == name)?;
        self.steps.truncate(last + 1);
        Some(self)
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.steps.iter().map(|s| s.name)
    }

    /// The passes over one rank's program, with their names.
    pub fn rank_passes(&self) -> impl Iterator<Item = (&'static str, &dyn RankPass)> {
        self.steps.iter().filter_map(|step| match &step.pass {
            AnyPass::Rank(pass) => Some((step.name, &**pass)),
            _ => None,
        })
    }

    /// [`Pipeline::run_on`] for passes over graphs alone.
    pub fn run(
        &self,
        module: &mut Module,
        cx: &mut Context<'_>,
        mut after: impl FnMut(&str, &Module),
    ) -> Result<(), Diagnostics> {
        let mut form = Form::Graph(std::mem::take(module));
        let done = self.run_on(&mut form, cx, |name, form| {
            if let Form::Graph(module) = form {
                after(name, module);
            }
        });
        match form {
            Form::Graph(graph) => *module = graph,
            Form::Programs(_) => return Err(Diagnostic::internal("a graph was asked for and became programs").into()),
        }
        done
    }

    /// Runs all steps; what they work on is verified before the first and after each. `after` sees each pass's name and
    /// what it made: for dumps and diffs.
    pub fn run_on(
        &self,
        form: &mut Form,
        cx: &mut Context<'_>,
        mut after: impl FnMut(&str, &Form),
    ) -> Result<(), Diagnostics> {
        verify(form, "the passes were given a wrong module")?;
        for step in &self.steps {
            let span = tracing::info_span!("pass", name = step.name).entered();
            let start = Instant::now();
            cx.stats.passes.push(PassStats { pass: step.name.into(), ..PassStats::default() });
            step.run(form, cx)?;
            let elapsed = start.elapsed();
            drop(span);
            if let Some(stats) = cx.stats.passes.last_mut() {
                stats.elapsed = elapsed;
                (stats.functions, stats.nodes) = form.size();
            }
            tracing::debug!(pass = step.name, ?elapsed, "done");
            verify(form, &format!("`{}` made a wrong module", step.name))?;
            after(step.name, form);
        }
        Ok(())
    }
}

impl Step {
    fn run(&self, form: &mut Form, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        match (&self.pass, &mut *form) {
            (AnyPass::Graph(pass), Form::Graph(module)) => pass.run(module, cx)?,
            (AnyPass::Unroll, Form::Graph(module)) => {
                let (none, target) = (Sources::default(), cx.target.unwrap_or(&NoTarget));
                *form = Form::Programs(unroll::unroll(module, cx.sources.unwrap_or(&none), target)?);
            }
            (AnyPass::Programs(pass), Form::Programs(module)) => pass.run(module, cx)?,
            (AnyPass::Rank(pass), Form::Programs(module)) => {
                ranks::each(module, &cx.machine(), |program, cx| pass.run(program, cx));
            }
            (AnyPass::Graph(_) | AnyPass::Unroll, Form::Programs(_)) => {
                let message = format!("`{}` works on graphs, and these are programs", self.name);
                return Err(Diagnostic::error(message).help("put it before `unroll`").into());
            }
            (_, Form::Graph(_)) => {
                let message = format!("`{}` works on programs, and this is a graph", self.name);
                return Err(Diagnostic::error(message).help("put it behind `unroll`").into());
            }
        }
        Ok(())
    }
}

impl Form {
    /// Functions and nodes, or programs and instructions.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Graph(module) => (module.functions.len(), module.functions.iter().map(|(_, f)| f.nodes.len()).sum()),
            Self::Programs(module) => {
                (module.rank_programs().count(), module.rank_programs().map(|p| p.instructions.len()).sum())
            }
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graph(module) => module.fmt(f),
            Self::Programs(module) => module.fmt(f),
        }
    }
}

/// The text that parses to this pipeline; options stand as they were given.
impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { " | " } else { "" }, step.name)?;
            for (k, (name, value)) in step.options.iter().enumerate() {
                write!(f, "{}{name}={value}", if k > 0 { "," } else { "{" })?;
            }
            f.write_str(if step.options.is_empty() { "" } else { "}" })?;
        }
        Ok(())
    }
}

fn verify(form: &Form, step: &str) -> Result<(), Diagnostics> {
    match form {
        Form::Graph(module) => {
            ir::check_extent(module).map_err(|found| diagnostics::too_long(module, &found))?;
            ir::verify(module).map_err(|found| diagnostics::violations(module, step, found))
        }
        Form::Programs(module) => program::verify(module).map_err(|found| {
            Diagnostics(found.into_iter().map(|v| Diagnostic::internal(format!("{step}: {v}"))).collect())
        }),
    }
}

/// One step of `text`, at `range`.
fn step(text: &str, range: Range<usize>) -> Result<Step, PipelineError> {
    let range = trimmed(text, range);
    let piece = &text[range.clone()];
    let name_end = piece.find('{').unwrap_or(piece.len());
    let name_at = trimmed(text, range.start..range.start + name_end);
    let name = &text[name_at.clone()];
    let Some(entry) = REGISTRY.iter().find(|e| e.name == name) else {
        let message = if name.is_empty() { "expected a pass".into() } else { format!("there is no pass `{name}`") };
        return Err(PipelineError { message, help: choices("the passes are", name, pass_names()), at: name_at });
    };
    let mut options = vec![];
    if name_end < piece.len() {
        let body = range.start + name_end + 1..range.end;
        if !piece.ends_with('}') {
            let help = "write options as `name{option=value,option=value}`".into();
            return Err(PipelineError { message: "the options have no closing `}`".into(), help, at: range });
        }
        options = parse_options(text, body.start..body.end - 1, entry)?;
    }
    let fields: Map<String, Value> = options.iter().map(|(name, value)| (name.clone(), typed(value))).collect();
    let pass = entry.make(fields).map_err(|reason| PipelineError {
        message: format!("`{name}` does not take these options: {reason}"),
        help: defaults(entry),
        at: range,
    })?;
    Ok(Step { name: entry.name, options, pass })
}

fn parse_options(text: &str, body: Range<usize>, entry: &Entry) -> Result<Vec<(String, String)>, PipelineError> {
    let mut options: Vec<(String, String)> = vec![];
    let mut start = body.start;
    for piece in text[body].split(',') {
        let at = trimmed(text, start..start + piece.len());
        start += piece.len() + 1;
        let option = &text[at.clone()];
        if option.is_empty() {
            continue;
        }
        let Some((name, value)) = option.split_once('=') else {
            let message = format!("`{option}` has no value");
            return Err(PipelineError { message, help: format!("write `{option}=value`"), at });
        };
        let (name, value) = (name.trim(), value.trim());
        let at = at.start..at.start + name.len();
        let known: Vec<String> = entry.options().into_iter().map(|(name, _)| name).collect();
        if known.is_empty() {
            let message = format!("`{}` has no option `{name}`", entry.name);
            return Err(PipelineError { message, help: "it has no options at all".into(), at });
        }
        if !known.iter().any(|k| k == name) {
            let message = format!("`{}` has no option `{name}`", entry.name);
            return Err(PipelineError { message, help: choices("its options are", name, known), at });
        }
        if options.iter().any(|(n, _)| n == name) {
            let message = format!("option `{name}` is given twice");
            return Err(PipelineError { message, help: "drop one of them".into(), at });
        }
        options.push((name.into(), value.into()));
    }
    Ok(options)
}

/// Numbers and truth values as such, anything else as text.
fn typed(value: &str) -> Value {
    match serde_json::from_str(value) {
        Ok(v @ (Value::Number(_) | Value::Bool(_))) => v,
        _ => Value::String(value.into()),
    }
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let piece = &text[range.clone()];
    let start = range.start + (piece.len() - piece.trim_start().len());
    start..start + piece.trim().len()
}

fn pass_names() -> Vec<String> {
    REGISTRY.iter().map(|e| e.name.to_owned()).collect()
}

fn defaults(entry: &Entry) -> String {
    let options: Vec<String> = entry.options().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("its options and their defaults are {}", options.join(", "))
}

/// The nearest of `known` if one is near, and all of them.
fn choices(lead: &str, wrong: &str, known: Vec<String>) -> String {
    let all = format!("{lead} {}", known.join(", "));
    match types::nearest(wrong, known.iter().map(String::as_str)).first() {
        Some(name) => format!("did you mean `{name}`? {all}"),
        None => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let found = match Pipeline::parse(text) {
            Ok(pipeline) => pipeline.to_string(),
            Err(e) => format!("{} at `{}` ({})", e.message, &text[e.at.clone()], e.help),
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn pipelines_read_back() {
        check("", "");
        check(" precision{ dtype = bf16 }|autodiff | inline", "precision{dtype=bf16} | autodiff | inline");
    }

    #[test]
    fn errors_name_the_place_and_the_choices() {
        let all = pass_names().join(", ");
        check(
            "autodif",
            &format!("there is no pass `autodif` at `autodif` (did you mean `autodiff`? the passes are {all})"),
        );
        check("inline | | inline", &format!("expected a pass at `` (the passes are {all})"));
        check(
            "precision{dtyp=f32}",
            "`precision` has no option `dtyp` at `dtyp` (did you mean `dtype`? its options are dtype)",
        );
        check(
            "precision{dtype=i64}",
            "`precision` does not take these options: unknown variant `i64`, expected `f32` or `bf16` at \
             `precision{dtype=i64}` (its options and their defaults are dtype=f32)",
        );
        check("inline{a=1}", "`inline` has no option `a` at `a` (it has no options at all)");
        check("precision{dtype}", "`dtype` has no value at `dtype` (write `dtype=value`)");
        check(
            "precision{dtype=f32",
            "the options have no closing `}` at `precision{dtype=f32` (write options as `name{option=value,option=value}`)",
        );
    }
}
