//! What can be wrong with files of tensors: every offender is named, with the way out where there is one.

use std::fmt;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: {what}", .path.display())]
    Format { path: PathBuf, what: String },
    /// What was asked for must not be done as things are.
    #[error("{what}")]
    Refused { what: String, help: String },
    /// The other processes of the run did not do their part.
    #[error(transparent)]
    Peers(#[from] comm::CommError),
    /// Another process of the run failed at what all do together.
    #[error("rank {rank}: {what}")]
    Elsewhere { rank: usize, what: String, full: bool },
    /// There is no room for a checkpoint.
    #[error("{}: the disk is full: a checkpoint needs {}{}", .path.display(), size(*.need), left(*.free))]
    Full { path: PathBuf, need: u64, free: Option<u64> },
    /// What was asked for and what is there do not fit; one entry an offender.
    #[error("{}{}", .what, listed(.problems))]
    Mismatch { what: String, problems: Vec<Problem>, help: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    Missing {
        name: String,
        ty: String,
        near: Vec<String>,
    },
    Surplus {
        name: String,
        ty: String,
    },
    Shape {
        name: String,
        want: String,
        have: String,
    },
    Type {
        name: String,
        want: String,
        have: String,
    },
    Twice {
        name: String,
        places: String,
    },
    Other {
        name: String,
        what: String,
    },
    /// A config says otherwise than the plan.
    Figure {
        key: String,
        config: String,
        plan: String,
    },
    /// Several keys of a config are of one figure, and contradict each other.
    Figures {
        each: String,
        plan: String,
    },
}

/// `1.5 GiB`
fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        b if b < 1 << 10 => return format!("{b} B"),
        b if b < 1 << 20 => (1 << 10, "KiB"),
        b if b < 1 << 30 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / f64::from(unit))
}

fn left(free: Option<u64>) -> String {
    free.map_or_else(String::new, |free| format!(", and {} are free", size(free)))
}

/// Of one kind, so many are listed.
const LISTED: usize = 10;

/// A line each; of each kind the first ones, and how many more there are.
fn listed(problems: &[Problem]) -> String {
    let mut out = String::new();
    let mut counts: Vec<(Discriminant<Problem>, usize)> = Vec::new();
    for (i, problem) in problems.iter().enumerate() {
        let kind = discriminant(problem);
        let at = counts.iter().position(|(k, _)| *k == kind).unwrap_or(counts.len());
        if at == counts.len() {
            counts.push((kind, 0));
        }
        counts[at].1 += 1;
        if counts[at].1 <= LISTED {
            out.push_str(&format!("\n  {problem}"));
        } else if !problems[i + 1..].iter().any(|p| discriminant(p) == kind) {
            out.push_str(&format!("\n  {:<11} and {} more", problem.kind(), counts[at].1 - LISTED));
        }
    }
    out
}

impl Problem {
    fn kind(&self) -> &'static str {
        match self {
            Problem::Missing { .. } => "missing",
            Problem::Surplus { .. } => "not asked",
            Problem::Shape { .. } => "misshapen",
            Problem::Type { .. } => "wrong type",
            Problem::Twice { .. } => "twice",
            Problem::Other { .. } => "unusable",
            Problem::Figure { .. } | Problem::Figures { .. } => "differs",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} ", self.kind())?;
        match self {
            Problem::Missing { name, ty, near } => {
                write!(f, "{name} {ty}")?;
                if !near.is_empty() {
                    write!(f, " (is it {}?)", near.join(" or "))?;
                }
                Ok(())
            }
            Problem::Surplus { name, ty } => write!(f, "{name} {ty}"),
            Problem::Shape { name, want, have } => write!(f, "{name} has {have}, and {want} is needed"),
            Problem::Type { name, want, have } => write!(f, "{name} holds {have}, and {want} is needed"),
            Problem::Twice { name, places } => write!(f, "{name} in {places}"),
            Problem::Other { name, what } => write!(f, "{name}: {what}"),
            Problem::Figure { key, config, plan } => {
                write!(f, "{key} is {config}, and the plan was compiled with {plan}")
            }
            Problem::Figures { each, plan } => write!(f, "{each}, and the plan was compiled with {plan}"),
        }
    }
}

impl DataError {
    pub fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.into(), error }
    }

    pub fn format(path: &Path, what: impl fmt::Display) -> Self {
        Self::Format { path: path.into(), what: what.to_string() }
    }

    /// The way out, where there is one to tell.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Mismatch { help, .. } => help.as_deref(),
            Self::Refused { help, .. } => Some(help),
            Self::Full { .. } => Some(
                "free space there, give --save a folder on another disk, or keep fewer checkpoints with --keep N; the \
                 latest good one stays",
            ),
            _ => None,
        }
    }

    /// Whether a disk has no room left.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::File { error, .. } => matches!(error.kind(), StorageFull | QuotaExceeded),
            Self::Elsewhere { full, .. } => *full,
            Self::Full { .. } => true,
            _ => false,
        }
    }
}
