//! The processes of a run, as far as they write files together: rank 0 makes a file, each writes its own part, rank 0
//! shows it to the world.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use types::TensorType;

use crate::{DataError, TensorWriter};
use comm::Link;
use runtime_core::FaultKind;

/// What one process shall do wrong where it would meet the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeetingFault {
    pub rank: usize,
    pub at: MeetingAt,
    pub kind: FaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeetingAt {
    /// Counted from 0.
    Number(usize),
    /// What the process is waited for to do contains this.
    Named(String),
}

/// One process among those of a run, or the only one.
#[derive(Clone, Default)]
pub struct Together {
    link: Option<Arc<Link>>,
    fault: Option<MeetingFault>,
    /// Meetings of this process so far.
    met: Arc<AtomicUsize>,
}

impl Together {
    /// A process that holds all ranks.
    pub fn alone() -> Self {
        Self::default()
    }

    /// A process of several.
    pub fn with(link: Arc<Link>) -> Self {
        Self { link: Some(link), ..Self::default() }
    }

    /// Makes a process stall or end where it would come to one of its meetings.
    pub fn with_fault(self, fault: Option<MeetingFault>) -> Self {
        Self { fault, ..self }
    }

    pub fn is_first(&self) -> bool {
        self.number() == 0
    }

    /// This process, from 0.
    pub fn number(&self) -> usize {
        self.link.as_ref().map_or(0, |l| l.rank())
    }

    /// How many processes there are.
    pub fn count(&self) -> usize {
        self.link.as_ref().map_or(1, |l| l.world())
    }

    /// What every process gives, in their order, once all have come to it; `what` says what they are waited for to do.
    pub fn meet(&self, what: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, DataError> {
        match &self.link {
            Some(link) => {
                self.disturb(what);
                Ok(link.gather(what, bytes)?)
            }
            None => Ok(vec![bytes]),
        }
    }

    /// The same, for rank 0 alone: the others get nothing.
    pub fn collect(&self, what: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, DataError> {
        match &self.link {
            Some(link) => {
                self.disturb(what);
                Ok(link.collect(what, bytes)?)
            }
            None => Ok(vec![bytes]),
        }
    }

    /// What every process gives; or, if one of them failed, that failure for all of them. So a failure that leaves the
    /// run whole, such as a full disk, ends what they do together and not the run.
    pub fn agree(&self, what: &str, own: Result<Vec<u8>, DataError>) -> Result<Vec<Vec<u8>>, DataError> {
        let own = match own {
            own if self.link.is_none() => return own.map(|bytes| vec![bytes]),
            // Nobody is there to meet any more.
            Err(error @ DataError::Peers(_)) => return Err(error),
            own => own,
        };
        let word = match &own {
            Ok(bytes) => [&[1], bytes.as_slice()].concat(),
            Err(error) if error.is_full() => [&[2], error.to_string().as_bytes()].concat(),
            Err(error) => [&[0], error.to_string().as_bytes()].concat(),
        };
        let all = self.meet(what, word)?;
        own?;
        let split = all.iter().map(|word| word.split_first());
        let failed = split.clone().enumerate().find_map(|(rank, word)| Some((rank, word.filter(|w| *w.0 != 1)?)));
        match failed {
            Some((rank, (kind, what))) => {
                let what = String::from_utf8_lossy(what).into_owned();
                Err(DataError::Elsewhere { rank, what, full: *kind == 2 })
            }
            None => Ok(split.map(|word| word.map(|w| w.1.to_vec()).unwrap_or_default()).collect()),
        }
    }

    /// A file that rank 0 makes, and into which all write.
    pub fn create(&self, path: &Path, tensors: &[(&str, &TensorType)]) -> Result<TensorWriter, DataError> {
        let made = self.is_first().then(|| TensorWriter::create(path, tensors)).transpose();
        let (made, own) = match made {
            Ok(made) => (made, Ok(Vec::new())),
            Err(error) => (None, Err(error)),
        };
        self.agree(&format!("make {}", path.display()), own)?;
        made.map_or_else(|| TensorWriter::join(path, tensors), Ok)
    }

    fn disturb(&self, what: &str) {
        let number = self.met.fetch_add(1, Relaxed);
        let is = |fault: &&MeetingFault| match &fault.at {
            MeetingAt::Number(at) => *at == number,
            MeetingAt::Named(part) => what.contains(part.as_str()),
        };
        match self.fault.as_ref().filter(|fault| fault.rank == self.number()).filter(is).map(|fault| fault.kind) {
            None => {}
            Some(FaultKind::Exit) => std::process::exit(1),
            Some(FaultKind::Stall) => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
        }
    }
}
