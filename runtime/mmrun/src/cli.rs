//! The command line's arguments.

use std::path::PathBuf;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "mmrun", version, about = "Runs a plan that mmc compiled")]
pub struct Args {
    /// The compiled plan
    pub plan: PathBuf,

    /// Parameters: a safetensors file, its index, or a folder of them (diffusers and transformers layouts)
    #[arg(long, value_name = "F|DIR", conflicts_with = "resume")]
    pub weights: Option<PathBuf>,

    /// Records: tars of safetensors members, or a folder of tars
    #[arg(long, value_name = "DIR|FILE")]
    pub data: Option<PathBuf>,

    /// Inputs and draws by name, the same at every step
    #[arg(long, value_name = "F.safetensors")]
    pub inputs: Option<PathBuf>,

    /// Where to write what the run gave, as f32
    #[arg(long, value_name = "F.safetensors")]
    pub outputs: Option<PathBuf>,

    /// What to write besides the program's outputs: loss, grads (of the first step), params (after the last)
    #[arg(long, value_name = "WORD,..", value_delimiter = ',')]
    pub emit: Vec<String>,

    /// Steps to run [default: 1, or no limit with --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,

    /// Stop cleanly after about this many seconds
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,

    /// Threads that share each kernel; their number never changes results [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Write a checkpoint here at the end
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,

    /// Write one every N steps, too
    #[arg(long, value_name = "N", requires = "save", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,

    /// Go on from the latest good checkpoint of a folder, or from the one given
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,

    /// Write a timeline of all launches, for Perfetto
    #[arg(long, value_name = "T.json")]
    pub trace: Option<PathBuf>,

    /// Write one line of JSON a step
    #[arg(long, value_name = "M.jsonl")]
    pub metrics: Option<PathBuf>,

    /// Verify the plan, print what was proven, and run nothing
    #[arg(long)]
    pub check: bool,

    /// Overwrite each buffer with NaN at the end of its life
    #[arg(long, hide = true)]
    pub poison: bool,
}
