//! What can be wrong with files of tensors: every offender is named, with the way out where there is one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: {what}", .path.display())]
    Format { path: PathBuf, what: String },
    /// The other processes of the run did not do their part.
    #[error(transparent)]
    Peers(#[from] comm::CommError),
    /// Another process of the run failed at what all do together.
    #[error("rank {rank}: {what}")]
    Elsewhere { rank: usize, what: String },
    /// What was asked for and what is there do not fit; one entry an offender.
    #[error("{}{}", .what, .problems.iter().map(|p| format!("\n  {p}")).collect::<String>())]
    Mismatch { what: String, problems: Vec<Problem>, help: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    Missing { name: String, ty: String, near: Vec<String> },
    Surplus { name: String, ty: String },
    Shape { name: String, want: String, have: String },
    Type { name: String, want: String, have: String },
    Twice { name: String, places: String },
    Other { name: String, what: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing { name, ty, near } => {
                write!(f, "missing     {name} {ty}")?;
                if !near.is_empty() {
                    write!(f, " (is it {}?)", near.join(" or "))?;
                }
                Ok(())
            }
            Problem::Surplus { name, ty } => write!(f, "not asked   {name} {ty}"),
            Problem::Shape { name, want, have } => write!(f, "misshapen   {name} has {have}, and {want} is needed"),
            Problem::Type { name, want, have } => write!(f, "wrong type  {name} holds {have}, and {want} is needed"),
            Problem::Twice { name, places } => write!(f, "twice       {name} in {places}"),
            Problem::Other { name, what } => write!(f, "unusable    {name}: {what}"),
        }
    }
}

impl DataError {
    pub(crate) fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.into(), error }
    }

    pub(crate) fn format(path: &Path, what: impl fmt::Display) -> Self {
        Self::Format { path: path.into(), what: what.to_string() }
    }

    /// The way out, where there is one to tell.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Mismatch { help, .. } => help.as_deref(),
            _ => None,
        }
    }
}
