//! The options of a compilation, declared once: the command line, the directives of a model's plan and the text of a pipeline
//! fill the same types.

use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::{MAX_RANKS, MAX_STACK};

use crate::{Gradients, MAX_CHUNKS, MAX_PIECES, SCHEDULES, StageSchedule, WorkType};

/// How the graph becomes a plan.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[group(skip)]
pub struct Options {
    /// The working type of activations; parameters and optimiser stay in f32. By default bf16 for an Ascend, which has fused
    /// attention in it, and f32 otherwise.
    #[arg(long)]
    pub dtype: Option<WorkType>,
    /// What is computed in bf16: products, convolutions and attention, and what follows from them alone, as torch.autocast has it;
    /// or all but what the model's class computes in f32 when it is loaded in bf16. By default as autocast, if --dtype is
    /// bf16.
    #[arg(long)]
    pub precision: Option<PrecisionMode>,
    /// The optimiser: kind=adamw|sgd, lr, beta1, beta2, eps, weight_decay, clip, schedule=constant|cosine, warmup, total.
    #[arg(long, default_value = "", value_name = "KEY=VALUE,...")]
    pub optim: String,
    /// Free each gradient when its update is done, or keep all until the optimiser starts. Either way updates begin when the
    /// norm of all gradients is known, with clip=0 too.
    #[arg(long, default_value = "streamed")]
    pub grads: Gradients,
    /// Activations that are dropped after the forward and computed again: none, all inside each block, or as memory asks
    /// for. By default what the model's plan says, else none.
    #[arg(long)]
    pub recompute: Option<RecomputeChoice>,
    /// What waits in the host's memory while nobody needs it: nothing, activations, the optimiser's state, or as memory asks
    /// for. By default what the model's plan says, else nothing.
    #[arg(long)]
    pub offload: Option<OffloadChoice>,
    /// Products and the collectives beside them in pieces, one of which travels while the next is computed: where and in as
    /// many as the machine's figures say that it pays (auto), nowhere (off), or wherever they fall into so many.
    #[arg(long, default_value = "auto", value_name = "auto|off|N")]
    pub overlap: OverlapChoice,
    /// What one device may hold, such as 64GiB; a plan that needs more is refused. Without it, what the machine's devices have
    /// is what automatic choices go by, and a plan that needs more gets a warning.
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub memory: Option<u64>,
    #[command(flatten)]
    pub mesh: MeshOptions,
}

/// Sizes of the mesh axes. ranks = pp * dp * fsdp * cp * tp.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[group(skip)]
pub struct MeshOptions {
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
    /// The order in which stages work on micro-batches. By default what the model's plan says, else the first of these that
    /// takes --virtual-stages.
    #[arg(long, value_parser = schedules())]
    pub schedule: Option<&'static StageSchedule>,
    /// Expert-parallel ranks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_RANKS as i64))]
    pub ep: u32,
}

impl Options {
    /// These options, and those of `others` that are open here.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        let [mut own, others] = [self, others].map(|o| serde_json::to_value(o).expect("options are plain data"));
        fill(&mut own, others);
        serde_json::from_value(own).expect("options read back")
    }
}

/// Puts values into the places of `own` that hold none.
fn fill(own: &mut Value, others: Value) {
    match (own, others) {
        (Value::Object(own), Value::Object(others)) => {
            for (name, value) in others {
                fill(own.entry(name).or_insert(Value::Null), value);
            }
        }
        (own @ Value::Null, value) => *own = value,
        _ => {}
    }
}

/// What stays in f32 where the working type is bf16.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionMode {
    /// Sums of what layers give, and what a model marks.
    Autocast,
    /// What a model marks.
    Pure,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecomputeChoice {
    None,
    Full,
    Auto,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OffloadChoice {
    None,
    Activations,
    Optimizer,
    /// Of parameters, those that the program which runs does not need.
    Parameters,
    Auto,
}

/// Whether products and collectives go in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlapChoice {
    #[default]
    Auto,
    Off,
    /// All that can, in so many.
    Pieces(usize),
}

impl Default for MeshOptions {
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

impl MeshOptions {
    /// The axes in the order of ranks, tp fastest.
    pub fn axes(&self) -> [(&'static str, u32); 5] {
        [("pp", self.pp), ("dp", self.dp), ("fsdp", self.fsdp), ("cp", self.cp), ("tp", self.tp)]
    }

    /// Replicas that each take their own samples.
    pub fn replicas(&self) -> u32 {
        self.dp.saturating_mul(self.fsdp)
    }

    /// The schedule and the stages on each rank.
    pub fn schedule(&self) -> (&'static StageSchedule, usize) {
        let asked = self.virtual_stages.map(|chunks| chunks as usize);
        let schedule = self.schedule.unwrap_or_else(|| StageSchedule::of_chunks(asked.unwrap_or(1)));
        (schedule, schedule.chunks(asked))
    }
}

impl FromStr for OverlapChoice {
    type Err = String;

    /// `auto`, `off`, or a number of pieces.
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("off", _) => Ok(Self::Off),
            (_, Ok(count)) if (2..=MAX_PIECES).contains(&count) => Ok(Self::Pieces(count)),
            _ => Err(format!("expected auto, off, or a number of pieces from 2 to {MAX_PIECES}")),
        }
    }
}

/// A name of the table.
fn schedules() -> impl TypedValueParser<Value = &'static StageSchedule> {
    let values = SCHEDULES.iter().map(|schedule| PossibleValue::new(schedule.name).help(schedule.rules.summary));
    let unknown = "expected the name of a schedule";
    PossibleValuesParser::new(values).try_map(move |name| StageSchedule::named(&name).ok_or(unknown))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(words: &str) -> Options {
        let words = ["x"].into_iter().chain(words.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|e| panic!("{e}")).options
    }

    #[test]
    fn no_flags_are_the_defaults() {
        assert_eq!(parsed(""), Options::default());
    }

    #[test]
    fn options_read_back() {
        let words = "--dtype bf16 --precision pure --optim lr=1 --grads resident --recompute auto --offload optimizer --overlap 4 \
            --memory 1.5GiB --pp 2 --schedule zb-v --virtual-stages 2 --cp 4 --ulysses 2";
        let options = parsed(words);
        let text = serde_json::to_string(&options).expect("text");
        assert_eq!(serde_json::from_str::<Options>(&text).expect("options"), options);
        let wrong = text.replace("zb-v", "zb-w");
        let error = serde_json::from_str::<Options>(&wrong).expect_err("no such schedule").to_string();
        assert!(error.starts_with("unknown schedule `zb-w`, expected one of `1f1b`"), "{error}");
    }

    /// A plan fills what the command line leaves open, and nothing else.
    #[test]
    fn options_fill_each_other() {
        let (flags, plan) =
            (parsed("--recompute none --pp 2"), parsed("--recompute full --offload auto --schedule gpipe"));
        assert_eq!(flags.or(&plan), parsed("--recompute none --pp 2 --offload auto --schedule gpipe"));
        assert_eq!(Options::default().or(&plan), plan);
    }

    #[test]
    fn sizes_of_memory() {
        for (text, bytes) in
            [("64GiB", Some(64 << 30)), ("1.5 KB", Some(1500)), ("7", Some(7)), ("0", None), ("1 XB", None)]
        {
            assert_eq!(memory(text).ok(), bytes, "{text}");
        }
    }
}
