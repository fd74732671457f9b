//! The command line of `mmc`: what can be asked, and the legal values.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use passes::{MAX_CHUNKS, MAX_PIECES, SCHEDULES, StageSchedule};
use types::{MAX_RANKS, MAX_STACK};

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
    /// What the kernels are for: cpu, ascend-910b3 and its like, none.
    #[arg(long, default_value = "cpu")]
    pub target: String,
    /// The machine to order instructions and to predict for: the name of a built-in one, or a file.
    #[arg(long, value_name = "NAME|F.toml")]
    pub machine: Option<String>,
    /// The processor of the target `cpu`: native, x86-64-v3, x86-64-v4 or x86-64-v4-bf16; native by default.
    #[arg(long)]
    pub cpu: Option<String>,
    /// The working type of activations; parameters and optimiser stay in f32. By default bf16 for an Ascend, which has fused
    /// attention in it, and f32 otherwise.
    #[arg(long)]
    pub dtype: Option<WorkType>,
    /// Seed of initialisers and draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The optimiser: kind=adamw|sgd, lr, beta1, beta2, eps, weight_decay, clip, schedule=constant|cosine, warmup, total.
    #[arg(long, default_value = "", value_name = "KEY=VALUE,...")]
    pub optim: String,
    /// Free each gradient when its update is done, or keep all until the optimiser starts. Either way updates begin when the
    /// norm of all gradients is known, with clip=0 too.
    #[arg(long, default_value = "streamed")]
    pub grads: Grads,
    /// Activations that are dropped after the forward and computed again: none, all inside each block, or as memory asks
    /// for. By default what the model's plan says, else none.
    #[arg(long)]
    pub recompute: Option<Recompute>,
    /// What waits in the host's memory while nobody needs it: nothing, activations, the optimiser's state, or as memory asks
    /// for. By default what the model's plan says, else nothing.
    #[arg(long)]
    pub offload: Option<Offload>,
    /// Products and the collectives beside them in pieces, one of which travels while the next is computed: where and in as
    /// many as the machine's figures say that it pays (auto), nowhere (off), or wherever they fall into so many.
    #[arg(long, default_value = "auto", value_name = "auto|off|N", value_parser = overlap)]
    pub overlap: Overlap,
    /// What one device may hold, such as 64GiB; a plan that needs more is refused. Without it, what the machine's devices have
    /// is what automatic choices go by, and a plan that needs more gets a warning.
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub memory: Option<u64>,
    #[command(flatten)]
    pub mesh: Mesh,
}

/// Sizes of the mesh axes. ranks = pp * dp * fsdp * cp * tp.
#[derive(Args, Debug, Clone)]
pub struct Mesh {
    /// Data-parallel replicas.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub dp: u32,
    /// Replicas over which parameters, gradients and optimiser state are cut.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub fsdp: u32,
    /// Context-parallel ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub cp: u32,
    /// Of the context-parallel ranks, how many exchange heads; the others form rings. By default as many as divide.
    #[arg(long, value_name = "U", value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub ulysses: Option<u32>,
    /// 1: cut the optimiser's state over dp.
    #[arg(long, value_name = "1", value_parser = clap::value_parser!(u32).range(1..=1))]
    pub zero: Option<u32>,
    /// Tensor-parallel ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub tp: u32,
    /// Parts of a replica's samples that are computed one after another in a step; their gradients are added up. By default
    /// 1, with --pp as many as the batch allows up to four for each stage of it.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=MAX_STACK as i64))]
    pub microbatches: Option<u32>,
    /// Pipeline-parallel ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_CHUNKS as i64))]
    pub pp: u32,
    /// Stages on each rank of a pipeline; by default one, or as many as the schedule has.
    #[arg(long, value_name = "V", value_parser = clap::value_parser!(u32).range(1..=MAX_CHUNKS as i64))]
    pub virtual_stages: Option<u32>,
    /// The order in which stages work on micro-batches; 1f1b, or interleaved with --virtual-stages.
    #[arg(long, value_parser = schedules())]
    pub schedule: Option<&'static StageSchedule>,
    /// Expert-parallel ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub ep: u32,
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
    /// The pipeline: `"precision{dtype=bf16} | autodiff | simplify"`.
    #[arg(long)]
    pub passes: String,
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

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkType {
    F32,
    Bf16,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grads {
    Streamed,
    Resident,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    None,
    Full,
    Auto,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    None,
    Activations,
    Optimizer,
    /// Of parameters, those that the program which runs does not need.
    Parameters,
    Auto,
}

/// Whether products and collectives go in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Auto,
    Off,
    /// All that can, in so many.
    Pieces(usize),
}

impl Default for Mesh {
    /// One rank.
    fn default() -> Self {
        Self {
            dp: 1,
            fsdp: 1,
            cp: 1,
            ulysses: None,
            zero: None,
            tp: 1,
            microbatches: None,
            pp: 1,
            virtual_stages: None,
            schedule: None,
            ep: 1,
        }
    }
}

impl Mesh {
    /// The axes in the order of the contract, tp fastest.
    pub fn axes(&self) -> [(&'static str, u32); 5] {
        [("pp", self.pp), ("dp", self.dp), ("fsdp", self.fsdp), ("cp", self.cp), ("tp", self.tp)]
    }
}

/// A name of the table.
fn schedules() -> impl TypedValueParser<Value = &'static StageSchedule> {
    let values = SCHEDULES.iter().map(|schedule| PossibleValue::new(schedule.name).help(schedule.rules.summary));
    let unknown = "expected the name of a schedule";
    PossibleValuesParser::new(values).try_map(move |name| StageSchedule::named(&name).ok_or(unknown))
}

/// `auto`, `off`, or a number of pieces.
fn overlap(text: &str) -> Result<Overlap, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Overlap::Auto),
        ("off", _) => Ok(Overlap::Off),
        (_, Ok(count)) if (2..=MAX_PIECES).contains(&count) => Ok(Overlap::Pieces(count)),
        _ => Err(format!("expected auto, off, or a number of pieces from 2 to {MAX_PIECES}")),
    }
}

/// `64GiB`, `1.5 GB`, `4096`: bytes.
fn memory(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "TB"];
    let sizes = [1, 1 << 10, 1 << 20, 1 << 30, 1 << 40, 1_000, 1_000_000, 1_000_000_000, 1_000_000_000_000_u64];
    let size = match unit {
        "" => Some(1),
        _ => units.iter().position(|known| known.eq_ignore_ascii_case(unit)).map(|at| sizes[at]),
    };
    let bytes = number.parse::<f64>().ok().zip(size).map(|(number, size)| number * size as f64);
    match bytes {
        Some(bytes) if (1.0..9e18).contains(&bytes) => Ok(bytes as u64),
        _ => Err("expected a size such as 64GiB; the units are B, KiB, MiB, GiB, TiB, KB, MB, GB, TB".into()),
    }
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
