//! The processes of a run, as far as they write files together: rank 0 makes a file, each writes its own part, rank 0
//! shows it to the world.

use std::path::Path;
use std::sync::Arc;

use comm::Link;
use types::TensorType;

use crate::{DataError, TensorWriter};

/// One process among those of a run, or the only one.
#[derive(Clone, Default)]
pub struct Together {
    link: Option<Arc<Link>>,
}

impl Together {
    /// A process that holds all ranks.
    pub fn alone() -> Self {
        Self::default()
    }

    /// A process of several.
    pub fn with(link: Arc<Link>) -> Self {
        Self { link: Some(link) }
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
            Some(link) => Ok(link.gather(what, bytes, None)?),
            None => Ok(vec![bytes]),
        }
    }

    /// A file that rank 0 makes, and into which all write.
    pub fn create(&self, path: &Path, tensors: &[(&str, &TensorType)]) -> Result<TensorWriter, DataError> {
        let made = self.is_first().then(|| TensorWriter::create(path, tensors)).transpose()?;
        self.meet(&format!("make {}", path.display()), Vec::new())?;
        made.map_or_else(|| TensorWriter::join(path, tensors), Ok)
    }
}
