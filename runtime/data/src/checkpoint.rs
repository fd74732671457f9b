//! Checkpoints: folders `step-000120` that appear whole or not at all, and a pointer to the latest.
//!
//! A folder holds `model.safetensors` (the checkpoint's names), `optimizer.safetensors` (state) and `trainer.json`, which
//! is written last and holds the hashes of the others. What is large falls into several files with an index, in Hugging
//! Face's layout. The folder is made under a temporary name, synced and renamed; all processes of a run write into it at
//! once, and no other run does.

mod folder;
mod lock;
mod room;
mod save;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub use folder::{Begin, Folder, has_checkpoints, latest};
pub use room::needed;
pub use save::LARGEST_FILE;

use serde::{Deserialize, Serialize};

use crate::data_file::DataFile;
use crate::{DataError, Problem, Share, TensorFile, TensorView};

const MODEL: &str = "model";
pub(crate) const OPTIMIZER: &str = "optimizer";
const TRAINER: &str = "trainer.json";
const FORMAT: u32 = 1;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub step: u64,
    /// Samples that were used up to this step.
    pub samples: u64,
    pub seed: u64,
    /// Of the plan that wrote the checkpoint.
    pub plan_hash: String,
    pub model: String,
    pub preset: String,
    /// The records that the run takes, if it takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Records>,
}

/// Records that a run trains on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    pub path: String,
    pub records: usize,
}

#[derive(Serialize, Deserialize)]
struct Trainer {
    format: u32,
    #[serde(flatten)]
    position: Position,
    files: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Part {
    name: String,
    bytes: u64,
    blake3: String,
}

/// No list of a checkpoint's files comes near.
const LONGEST_LIST: usize = 64 << 20;

/// A checkpoint whose files are all there and as they were written.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub position: Position,
    /// Hash of the list of its files, and with it of all that is in them.
    pub content: String,
    model: Vec<TensorFile>,
    state: Vec<TensorFile>,
}

impl Checkpoint {
    /// Opens a checkpoint and compares its files with their hashes.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let _span = tracing::info_span!("open checkpoint").entered();
        let path = folder.join(TRAINER);
        let text = DataFile::whole(&path, LONGEST_LIST)?;
        let trainer: Trainer =
            serde_json::from_slice(&text).map_err(|e| DataError::format(&path, format!("no {TRAINER}: {e}")))?;
        if trainer.format != FORMAT {
            return Err(DataError::format(
                &path,
                format!("checkpoint format {}; this program reads {FORMAT}", trainer.format),
            ));
        }
        let (mut model, mut state) = (Vec::new(), Vec::new());
        for part in &trainer.files {
            // A name, and no way out of the folder.
            let path = folder.join(Path::new(&part.name).file_name().unwrap_or_default());
            let file = DataFile::open(&path)?;
            if part.bytes != file.bytes() || part.blake3 != file.hash()?.to_hex().as_str() {
                return Err(DataError::format(&path, "damaged: not what was written"));
            }
            let files = if part.name.starts_with(OPTIMIZER) { &mut state } else { &mut model };
            files.push(TensorFile::open(&path)?);
        }
        let content = crate::fingerprint::of_bytes(&text);
        Ok(Self { folder: folder.into(), position: trainer.position, content, model, state })
    }

    /// The names of the state tensors.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        self.state.iter().flat_map(TensorFile::names)
    }

    /// What of `want` the checkpoint does not have, or has in another form.
    pub fn check<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a types::TensorType)>,
        states: impl IntoIterator<Item = (&'a str, &'a types::TensorType)>,
    ) -> Result<(), DataError> {
        let mut problems = Vec::new();
        compare(&self.model, parameters.into_iter().collect(), &mut problems);
        compare(&self.state, states.into_iter().collect(), &mut problems);
        if problems.is_empty() {
            return Ok(());
        }
        Err(DataError::Mismatch {
            what: format!("the checkpoint {} is not one of this plan", self.folder.display()),
            problems,
            help: Some(
                "a run resumes with the same model, preset and optimiser; --weights takes the parameters alone".into(),
            ),
        })
    }

    /// Writes a rank's share of a parameter to `out`. The checkpoint must have passed `check`.
    pub fn parameter(&self, name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        self.read(&self.model, name, share, out)
    }

    /// The same of a state tensor.
    pub fn state(&self, name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        self.read(&self.state, name, share, out)
    }

    fn read(&self, files: &[TensorFile], name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        let view = find(files, name).ok_or_else(|| DataError::format(&self.folder, format!("no `{name}`")))?;
        view.read(share, out).map_err(|e| e.of(&self.folder, name))
    }
}

fn compare(files: &[TensorFile], want: Vec<(&str, &types::TensorType)>, problems: &mut Vec<Problem>) {
    for (name, ty) in &want {
        match find(files, name) {
            None => problems.push(Problem::Missing { name: name.to_string(), ty: ty.to_string(), near: Vec::new() }),
            // A resumed run is the same to the bit, or it is refused: types do not convert here.
            Some(view) if view.shape != ty.sizes().as_slice() || view.dtype != crate::convert::stored(ty.dtype) => {
                problems.push(Problem::Shape { name: name.to_string(), want: ty.to_string(), have: view.text() });
            }
            Some(_) => {}
        }
    }
    let wanted: rustc_hash::FxHashSet<&str> = want.iter().map(|(name, _)| *name).collect();
    for name in files.iter().flat_map(TensorFile::names).filter(|n| !wanted.contains(n)) {
        let ty = find(files, name).map(|v| v.text()).unwrap_or_default();
        problems.push(Problem::Surplus { name: name.into(), ty });
    }
}

fn find<'f>(files: &'f [TensorFile], name: &str) -> Option<TensorView<'f>> {
    files.iter().find_map(|f| f.get(name))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| DataError::file(path, e))
}

/// Makes renames inside a folder last.
fn sync(folder: &Path) -> Result<(), DataError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| DataError::file(folder, e))
}

/// Removes a checkpoint: half of one must not be taken for a damaged one.
fn discard(folder: &Path, name: &str) -> Result<(), DataError> {
    let (from, to) = (folder.join(name), folder.join(lock::unique(name, 0)));
    fs::rename(&from, &to).map_err(|e| DataError::file(&from, e))?;
    remove(&to)
}

fn remove(folder: &Path) -> Result<(), DataError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::file(folder, e)),
        _ => Ok(()),
    }
}
