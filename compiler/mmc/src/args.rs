//! The command line of `mmc`: what can be asked, and the legal values.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::targets;

/// Samples of a step: the products that follow stay inside 64 bits.
pub const MAX_BATCH: u32 = 1 << 30;

/// Compiles a multimodal model ahead of time into one program per rank.
#[derive(Parser, Debug)]
#[command(name = "mmc", version, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Compile a model into a plan that `mmrun` runs.
    Compile(Compile),
    /// List the built-in models: the published classes, presets and tasks of each.
    Models(Models),
    /// Evaluate a model and say what it is; nothing is written.
    Check(Model),
    /// Print the graph.
    Ir(Ir),
    /// List the parameters: name, type, shape.
    Manifest(Model),
    /// Run passes on a graph or on programs in text form.
    Opt(Opt),
    /// Say what a plan needs and does: memory, work, kernels.
    Explain(Explain),
    /// Write the predicted timeline of a plan, for Perfetto.
    Timeline(Timeline),
    /// Measure this machine's CPU and write its figures, for predictions.
    #[cfg(feature = "cpu")]
    Calibrate(Calibrate),
    /// Write an Ascend plan's segments for CANN, with the commands that compile them.
    #[cfg(feature = "ascend")]
    Export(Export),
    /// Take the segments that CANN compiled into the plan.
    #[cfg(feature = "ascend")]
    Pack(Pack),
    /// Draw a plan as text for Graphviz: `mmc dot plan.bin | dot -Tsvg > plan.svg`.
    Dot(Dot),
    /// Say what two plans hold and do differently.
    Diff(Diff),
    /// Find the first module whose output differs between two runs of `mmrun --probe` or `probe_hf.py`.
    Compare(Compare),
}

/// Which model, in which size, for which task.
#[derive(Args, Debug, Clone)]
#[command(allow_negative_numbers = true)]
pub struct Model {
    /// The model's `.mm` file (the published ones are built in and found by name), or the folder of a published checkpoint,
    /// whose config.json names the built-in model and its sizes.
    #[arg(value_name = "MODEL.mm|DIR")]
    pub model: PathBuf,
    /// A published config, or the folder that holds it, for a `.mm` file of your own that declares its class in `config!`.
    #[arg(long, value_name = "F|DIR")]
    pub config: Option<PathBuf>,
    /// A named set of dims from the file; its first by default.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Override a dim or a constant of the file.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// The task function to compile.
    #[arg(long, default_value = "train")]
    pub task: String,
    /// Another file's `plan` in place of the model's own.
    #[arg(long, value_name = "OTHER.mm")]
    pub plan: Option<PathBuf>,
    /// Samples in one step, over all replicas and micro-batches.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_BATCH)))]
    pub batch: Option<u32>,
    /// Make what modules compute whose paths match this regular expression results of the plan, for `mmrun --probe`.
    #[arg(long, value_name = "REGEX")]
    pub probe: Option<String>,
}

#[derive(Args, Debug)]
pub struct Models {
    /// One of them: the name of its file, or of a class.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print its `.mm` file, to start from.
    #[arg(long, requires = "name")]
    pub source: bool,
}

#[derive(Args, Debug, Clone)]
#[command(allow_negative_numbers = true)]
pub struct Compile {
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub options: Options,
    /// Where the plan goes.
    #[arg(short, long, default_value = "plan.bin", value_name = "FILE")]
    pub output: PathBuf,
    /// Keep compiled kernels here and use those of earlier compilations. It may be shared, and deleted at any time.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Print the graph after this pass too.
    #[arg(long, value_name = "PASS", hide = true)]
    pub dump_after: Option<String>,
}

/// How the graph becomes a plan.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// What the kernels are for.
    #[arg(long, default_value = targets::names().next(), value_parser = PossibleValuesParser::new(targets::names()))]
    pub target: String,
    /// The machine to order instructions and to predict for: the name of a built-in one, or a file.
    #[arg(long, value_name = "NAME|F.toml")]
    pub machine: Option<String>,
    /// The processor of the target `cpu`: native, x86-64-v3, x86-64-v4 or x86-64-v4-bf16; native by default.
    #[arg(long)]
    pub cpu: Option<String>,
    /// Seed of initialisers and draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub policy: passes::Options,
}

#[derive(Args, Debug)]
#[command(allow_negative_numbers = true)]
pub struct Ir {
    #[command(flatten)]
    pub model: Model,
    #[command(flatten)]
    pub options: Options,
    /// Stop after this pass: `eval` is the graph as traced, `group` shows the kernels, `unroll` and what follows the programs of ranks; `simplify` by
    /// default.
    #[arg(long, value_name = "PASS")]
    pub after: Option<String>,
    /// Print what each pass did and how often each rule fired, instead of the graph.
    #[arg(long)]
    pub stats: bool,
}

#[derive(Args, Debug)]
#[command(allow_negative_numbers = true)]
pub struct Opt {
    /// A graph in text form, or programs in one that ends in `.prog`.
    #[arg(value_name = "FILE.ir|FILE.prog")]
    pub file: PathBuf,
    /// The pipeline: `"precision{dtype=bf16} | autodiff | simplify"`; by default what `mmc compile` does without flags.
    #[arg(long)]
    pub passes: Option<String>,
}

#[derive(Args, Debug)]
#[command(allow_negative_numbers = true)]
pub struct Explain {
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Machine-readable figures.
    #[arg(long)]
    pub json: bool,
    /// The machine to predict times for: the name of a built-in one, or a file; by default the one it was compiled for.
    #[arg(long, value_name = "NAME|F.toml")]
    pub machine: Option<String>,
    /// Every reshard, not only those that send most.
    #[arg(long)]
    pub all: bool,
    /// List the kernels with their work.
    #[arg(long)]
    pub kernels: bool,
    /// With --kernels: the time of each in a trace of `mmrun --trace`.
    #[arg(long, value_name = "FILE", requires = "kernels")]
    pub trace: Option<PathBuf>,
    /// With --kernels: the most GFLOP/s that the machine does, for shares of it.
    #[arg(long, value_name = "GFLOP/s", requires = "kernels", value_parser = rate)]
    pub peak: Option<f64>,
    /// With --kernels and --peak: the most GB/s that its memory gives, for predicted times where no --machine is known.
    #[arg(long, value_name = "GB/s", requires = "peak", value_parser = rate)]
    pub bandwidth: Option<f64>,
    /// Print every buffer and instruction.
    #[arg(long)]
    pub listing: bool,
    /// Draw memory over time, with the tensors at the peak.
    #[arg(long, value_name = "F.svg")]
    pub memory_svg: Option<PathBuf>,
    /// Draw the schedule of a pipeline: when each stage works on which micro-batch.
    #[arg(long)]
    pub schedule: bool,
}

#[cfg(feature = "cpu")]
#[derive(Args, Debug)]
pub struct Calibrate {
    /// The program that runs plans; by default the one beside `mmc`.
    #[arg(long, value_name = "PATH")]
    pub mmrun: Option<PathBuf>,
    /// Threads of the runs that will be predicted; by default all of the machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Where the figures go.
    #[arg(short, long, default_value = "cpu.toml", value_name = "F.toml")]
    pub output: PathBuf,
}

#[derive(Args, Debug)]
pub struct Diff {
    #[arg(value_name = "A")]
    pub a: PathBuf,
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// The machine to predict times of both for; by default the one each was compiled for.
    #[arg(long, value_name = "NAME|F.toml")]
    pub machine: Option<String>,
    /// Every difference, not only the largest of each kind.
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct Compare {
    /// What a run wrote: the folder of --probe, or a safetensors file.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// The most that the norm of a difference may be of the norm in B.
    #[arg(long, value_name = "X", default_value_t = 1e-4, value_parser = tolerance)]
    pub tolerance: f64,
    /// Every module, not only those over the tolerance.
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct Timeline {
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// The machine: the name of a built-in one, or a file; by default the one the plan was compiled for.
    #[arg(long, value_name = "NAME|F.toml")]
    pub machine: Option<String>,
    /// Where the timeline goes.
    #[arg(short, long, default_value = "timeline.json", value_name = "FILE")]
    pub output: PathBuf,
}

#[cfg(feature = "ascend")]
#[derive(Args, Debug)]
pub struct Export {
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// The folder for the files.
    #[arg(short, long, default_value = "export", value_name = "DIR")]
    pub output: PathBuf,
    /// Servers for the rank table: NAME[=IP][@SUPER_POD],..., or a file with one a line.
    #[arg(long, value_name = "HOSTS")]
    pub hosts: Option<String>,
}

#[cfg(feature = "ascend")]
#[derive(Args, Debug)]
pub struct Pack {
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// The folder with an .om file for each segment.
    #[arg(long, value_name = "DIR")]
    pub om: PathBuf,
    /// Where the packed plan goes; over PLAN by default.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(allow_negative_numbers = true)]
pub struct Dot {
    #[arg(value_name = "PLAN")]
    pub plan: PathBuf,
    /// Phases of each class of ranks, parts of the model, or every operator; equal blocks are drawn once.
    #[arg(long, default_value = "blocks")]
    pub level: Level,
    /// This rank alone, with its peers by number.
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Stages,
    Blocks,
    Ops,
}

/// A positive number.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("expected a number above 0".into()),
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.trim().into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|x: &f64| x.is_finite() && *x >= 0.0)
        .ok_or_else(|| "a number of 0 or more is expected".into())
}
