//! The command line's arguments.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser};
use data::{MeetingAt, MeetingFault};
use runtime_core::{Fault, FaultKind};
use types::DType;

use crate::finite::OnNan;

#[derive(Debug, Parser)]
#[command(name = "mmrun", version, about = "Runs a plan that mmc compiled")]
pub struct Args {
    /// The compiled plan
    pub plan: PathBuf,

    /// Parameters: a safetensors file, its index, or a folder of them (diffusers and transformers layouts)
    #[arg(long, value_name = "F|DIR")]
    pub weights: Option<PathBuf>,

    /// Records: tars of safetensors members, or a folder of tars
    #[arg(long, value_name = "DIR|FILE")]
    pub data: Option<PathBuf>,

    /// Inputs and draws by name: a file, the same at every step, or a folder with one file for each step
    #[arg(long, value_name = "F.safetensors|DIR")]
    pub inputs: Option<PathBuf>,

    /// Where to write what the run gave, as f32
    #[arg(long, value_name = "F.safetensors")]
    pub outputs: Option<PathBuf>,

    /// What to write besides the program's outputs: loss, grads (of the first step), params (after the last)
    #[arg(long, value_name = "WORD,..", value_delimiter = ',')]
    pub emit: Vec<String>,

    /// Write what modules compute whose paths match this regular expression in the first step, and the gradients of
    /// parameters where the plan has them, for `mmc compare`; the plan was compiled with --probe
    #[arg(long, value_name = "REGEX", requires = "probe_folder")]
    pub probe: Option<String>,

    /// The folder that --probe writes to
    #[arg(short = 'o', long = "probe-to", value_name = "DIR", id = "probe_folder", requires = "probe")]
    pub probe_folder: Option<PathBuf>,

    /// Steps to run from here on [default: 1, or no limit with --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,

    /// The last step to run, counted from the beginning of the first run, so that the same command line can be repeated
    #[arg(long, value_name = "N", conflicts_with = "steps", value_parser = clap::value_parser!(u64).range(1..))]
    pub until: Option<u64>,

    /// Stop cleanly after about this many seconds
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,

    /// Threads that run the kernels of all ranks together; their number never changes results [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Write a checkpoint here at the end
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,

    /// Write one every N steps, too
    #[arg(long, value_name = "N", requires = "save", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,

    /// Keep the newest N checkpoints [default: 3]
    #[arg(long, value_name = "N", requires = "save", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,

    /// The type of the weights in a checkpoint's model; what a run goes on from stays exact [default: as the plan holds them]
    #[arg(long, value_name = "bf16|f16|f32", requires = "save", value_parser = save_dtype)]
    pub save_dtype: Option<DType>,

    /// Replace the checkpoints of another run that are in the folder of --save
    #[arg(long, requires = "save")]
    pub save_over: bool,

    /// Go on from the latest good checkpoint of a folder, or from the one given; auto: from that of --save, or begin if
    /// there is none
    #[arg(long, value_name = "DIR|auto", value_parser = PathBufValueParser::new().map(Resume::of))]
    pub resume: Option<Resume>,

    /// Go on without --data, though the checkpoint's run had it
    #[arg(long, requires = "resume")]
    pub resume_without_data: bool,

    /// Write a timeline of all launches, for Perfetto
    #[arg(long, value_name = "T.json")]
    pub trace: Option<PathBuf>,

    /// Write one line of JSON a step
    #[arg(long, value_name = "M.jsonl")]
    pub metrics: Option<PathBuf>,

    /// What becomes of a train step whose loss, gradient norm or input is not finite: the run ends before its update, or
    /// leaves the update out and goes on
    #[arg(long, value_name = "stop|skip", value_enum, default_value = "stop")]
    pub on_nan: OnNan,

    /// The programs to run, in this order, of a plan whose programs run on demand
    #[arg(long, value_name = "A,B,..", value_delimiter = ',')]
    pub programs: Vec<String>,

    /// Verify the plan, print what was proven, and run nothing
    #[arg(long)]
    pub check: bool,

    /// How long a rank waits for others in a collective before the run ends with a report
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub timeout: Duration,

    /// Make one rank stall or exit at an instruction, to see what the others do: rank=3,at=120,kind=stall
    #[arg(long, value_name = "FAULT", value_parser = fault)]
    pub fault: Option<Fault>,

    /// Make the process of one rank stall or exit where it would meet the others, by number or by what they wait for it to
    /// do: rank=3,at=12,kind=stall or rank=3,at=optimizer,kind=exit
    #[arg(long, value_name = "FAULT", value_parser = meeting_fault, hide = true)]
    pub meeting_fault: Option<MeetingFault>,

    /// Hold the lanes up at random, by this seed; results must not change
    #[arg(long, value_name = "SEED", hide = true)]
    pub jitter: Option<u64>,

    /// Overwrite each buffer with NaN at the end of its life
    #[arg(long, hide = true)]
    pub poison: bool,
}

/// Where a run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Where the run that wrote to `--save` ended, if there was one.
    Auto,
    From(PathBuf),
}

impl Resume {
    fn of(path: PathBuf) -> Self {
        if path.as_os_str() == "auto" { Self::Auto } else { Self::From(path) }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| "a number of seconds above zero is expected".into())
}

fn save_dtype(text: &str) -> Result<DType, String> {
    let dtype = text.parse().ok().filter(|dtype| [DType::BF16, DType::F16, DType::F32].contains(dtype));
    dtype.ok_or_else(|| format!("expected bf16, f16 or f32, found `{text}`"))
}

/// `rank=3,at=120,kind=stall`
fn fault(text: &str) -> Result<Fault, String> {
    let expected = || format!("expected rank=R,at=INSTRUCTION,kind=stall|exit, found `{text}`");
    let (rank, at, kind) = fault_at(text).ok_or_else(expected)?;
    Ok(Fault { rank, at: at.parse().map_err(|_| expected())?, kind })
}

fn meeting_fault(text: &str) -> Result<MeetingFault, String> {
    let expected = || format!("expected rank=R,at=NUMBER|TEXT,kind=stall|exit, found `{text}`");
    let (rank, at, kind) = fault_at(text).ok_or_else(expected)?;
    let at = at.parse().map_or_else(|_| MeetingAt::Named(at.into()), MeetingAt::Number);
    Ok(MeetingFault { rank, at, kind })
}

/// `rank=3,at=..,kind=stall`
fn fault_at(text: &str) -> Option<(usize, &str, FaultKind)> {
    let (mut rank, mut at, mut kind) = (None, None, None);
    for part in text.split(',') {
        let (key, value) = part.split_once('=')?;
        let known = match (key, value) {
            ("rank", number) => number.parse().map(|n| rank = Some(n)).is_ok(),
            ("at", place) => at.replace(place).is_none(),
            ("kind", "stall") => kind.replace(FaultKind::Stall).is_none(),
            ("kind", "exit") => kind.replace(FaultKind::Exit).is_none(),
            _ => false,
        };
        if !known {
            return None;
        }
    }
    Some((rank?, at?, kind?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        assert_eq!(fault("rank=3,at=120,kind=stall"), Ok(Fault { rank: 3, at: 120, kind: FaultKind::Stall }));
        assert_eq!(fault("kind=exit,rank=0,at=0"), Ok(Fault { rank: 0, at: 0, kind: FaultKind::Exit }));
        for text in
            ["", "rank=3", "rank=3,at=x,kind=stall", "rank=3,at=1,kind=sleep", "rank=3,at=1,kind=exit,kind=exit"]
        {
            assert!(fault(text).is_err(), "{text}");
        }
    }

    #[test]
    fn faults_of_meetings_are_read() {
        let at = |at| MeetingFault { rank: 3, at, kind: FaultKind::Stall };
        assert_eq!(meeting_fault("rank=3,at=12,kind=stall"), Ok(at(MeetingAt::Number(12))));
        assert_eq!(meeting_fault("rank=3,at=write s,kind=stall"), Ok(at(MeetingAt::Named("write s".into()))));
        assert!(meeting_fault("rank=3,kind=stall").is_err());
    }

    #[test]
    fn seconds_are_above_zero() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "1e300", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
