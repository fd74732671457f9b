//! A failure: why the run could not do what was asked, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use comm::{Cause, CommError};
use data::DataError;
use device::LoadError;
use device::ascend::{CannError, SegmentsError};
use plan::Violation;
use runtime_core::ExecError;

#[derive(Debug)]
pub struct Failure {
    message: String,
    helps: Vec<String>,
    /// Between what is said and the end of the process: a launcher that sees one end cuts off what others say.
    pub linger: Duration,
}

impl Failure {
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), helps: Vec::new(), linger: Duration::ZERO }
    }

    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.helps.push(help.to_string());
        self
    }

    /// The same, with what follows from it before.
    pub fn context(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn helps(&self) -> impl Iterator<Item = &str> {
        self.helps.iter().map(String::as_str)
    }

    /// The same, said by one process of several.
    #[cfg(feature = "mpi")]
    pub fn of_rank(self, rank: usize, linger: Duration) -> Self {
        Self { message: format!("(rank {rank}) {}", self.message), linger, ..self }
    }

    /// What ended a run of several ranks: where they tell different things, that of the rank it began with.
    pub fn of_ranks(mut errors: Vec<(usize, ExecError)>) -> Self {
        let weight = |error: &ExecError| match error {
            ExecError::Comm(CommError::Ended(report)) if report.waiting.is_empty() => 2,
            ExecError::Comm(CommError::Ended(_)) => 1,
            // A fault on purpose is there to see what the others make of it.
            ExecError::Fault { .. } => 3,
            _ => 0,
        };
        errors.sort_by_key(|(rank, error)| (weight(error), *rank));
        match errors.into_iter().next() {
            Some((_, error @ (ExecError::Comm(_) | ExecError::Fault { .. }))) => error.into(),
            Some((rank, error)) => {
                let failure = Self::from(error);
                Self { message: format!("rank {rank}: {}", failure.message), ..failure }
            }
            None => Self::new("a rank's thread ended; this is a fault of this program"),
        }
    }

    pub fn file(path: &Path, error: &io::Error) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }

    pub fn violations(violations: &[Violation]) -> Self {
        let list: String = violations.iter().map(|v| format!("\n  {v}")).collect();
        Self::new(format!("the plan is not safe to run{list}")).help(
            "this is a fault of the compiler that wrote the plan, or of whoever changed it since; compile it again",
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        self.helps.iter().try_for_each(|help| write!(f, "\n  help: {help}"))
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let failure = Self::new(&error);
        match error {
            DataError::Peers(error) => error.into(),
            error => error.help().into_iter().fold(failure, Self::help),
        }
    }
}

impl From<CommError> for Failure {
    fn from(error: CommError) -> Self {
        let failure = Self::new(&error);
        match error {
            CommError::Ended(report) if matches!(report.cause, Cause::Stalled { .. }) => {
                failure.help("--timeout S sets how long a rank waits for others")
            }
            _ => failure,
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let failure = Self::new(&error);
        match error {
            LoadError::Features { .. } => {
                failure.help("compile the plan for this machine with `mmc compile --cpu native`, or for older ones with `--cpu x86-64-v3`")
            }
            LoadError::Target(_) => failure.help("compile the plan with `mmc compile --target cpu`"),
            LoadError::Abi(_) => failure.help("compile the plan with the `mmc` of this version"),
            _ => failure,
        }
    }
}

impl From<SegmentsError> for Failure {
    fn from(error: SegmentsError) -> Self {
        let failure = Self::new(&error);
        match error {
            SegmentsError::NotCompiled(_) => failure
                .help("write them out with `mmc export PLAN -o DIR`, run `sh DIR/compile.sh` where CANN is installed")
                .help("then take them in: `mmc pack PLAN --om DIR/om -o PACKED`, and run that"),
            _ => failure.help("pack the plan again, with `mmc pack`"),
        }
    }
}

impl From<CannError> for Failure {
    fn from(error: CannError) -> Self {
        let failure = Self::new(&error);
        match error {
            CannError::Library { .. } => {
                let looked = match std::env::var("LD_LIBRARY_PATH") {
                    Ok(path) if !path.is_empty() => format!("LD_LIBRARY_PATH is {path}"),
                    _ => "LD_LIBRARY_PATH is not set, so the system's own folders were looked into alone".into(),
                };
                let failure = failure.help(looked);
                failure.help("install CANN, and `source set_env.sh` of it before this; or compile with `--target cpu`")
            }
            CannError::Symbols { .. } => failure.help("a newer CANN has them"),
            _ => failure,
        }
    }
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::Memory { bytes } => {
                let size = crate::progress::bytes(bytes);
                Self::new(&error).help(format!("the plan needs {size}: `mmc explain` shows what for"))
            }
            // What went wrong with the data has its own words, and its own way out.
            ExecError::Feed { feed, step, error } => match error.downcast::<DataError>() {
                Ok(error) => {
                    let failure = Self::new(format!("step {} has no `{feed}`: {error}", step + 1));
                    match error.help() {
                        Some(help) => failure.help(help),
                        None => failure,
                    }
                }
                Err(error) => Self::new(format!("step {} has no `{feed}`: {error}", step + 1)),
            },
            ExecError::Comm(error) => error.into(),
            other => Self::new(other),
        }
    }
}
