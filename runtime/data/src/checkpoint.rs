//! Checkpoints: folders `step-000120` that appear whole or not at all, and a pointer to the latest.
//!
//! A folder holds `model.safetensors` (the checkpoint's names), `optimizer.safetensors` (state) and `trainer.json`, which
//! is written last and holds the hashes of the other two. It is made as `step-000120.tmp`, synced and renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use device::Mapped;
use serde::{Deserialize, Serialize};

use crate::{DataError, Pieces, Problem, Share, TensorFile, write_tensors};

const MODEL: &str = "model.safetensors";
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
const TRAINER: &str = "trainer.json";
const LATEST: &str = "latest";
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

/// A checkpoint whose files are all there and as they were written.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub position: Position,
    model: TensorFile,
    state: TensorFile,
}

/// Writes `DIR/step-N` and points `DIR/latest` at it; gives the folder. What is written are logical tensors, so that
/// any other mesh can go on from them.
pub fn save(
    directory: &Path,
    position: &Position,
    parameters: &[Pieces<'_>],
    states: &[Pieces<'_>],
) -> Result<PathBuf, DataError> {
    let _span = tracing::info_span!("save", step = position.step).entered();
    let name = format!("step-{:06}", position.step);
    let folder = directory.join(&name);
    let temporary = directory.join(format!("{name}.tmp"));
    fs::create_dir_all(directory).map_err(|e| DataError::file(directory, e))?;
    // What an interrupted save left behind.
    remove(&temporary)?;
    fs::create_dir(&temporary).map_err(|e| DataError::file(&temporary, e))?;

    let mut files = Vec::new();
    for (file, tensors) in [(MODEL, parameters), (OPTIMIZER, states)] {
        let (hash, bytes) = write_tensors(&temporary.join(file), tensors)?;
        files.push(Part { name: file.into(), bytes, blake3: hash.to_hex().to_string() });
    }
    let trainer = Trainer { format: FORMAT, position: position.clone(), files };
    let path = temporary.join(TRAINER);
    let mut text = serde_json::to_vec_pretty(&trainer).map_err(|e| DataError::format(&path, e))?;
    text.push(b'\n');
    write_synced(&path, &text)?;
    sync(&temporary)?;

    if folder.exists() {
        // A run that was resumed from before this step writes it again. The old one steps aside first, since a folder
        // does not replace a folder.
        let old = directory.join(format!("{name}.old"));
        remove(&old)?;
        fs::rename(&folder, &old).map_err(|e| DataError::file(&folder, e))?;
        fs::rename(&temporary, &folder).map_err(|e| DataError::file(&folder, e))?;
        remove(&old)?;
    } else {
        fs::rename(&temporary, &folder).map_err(|e| DataError::file(&folder, e))?;
    }
    sync(directory)?;
    let pointer = directory.join("latest.tmp");
    write_synced(&pointer, format!("{name}\n").as_bytes())?;
    let latest = directory.join(LATEST);
    fs::rename(&pointer, &latest).map_err(|e| DataError::file(&latest, e))?;
    sync(directory)?;
    Ok(folder)
}

/// The latest good checkpoint of a directory, or the checkpoint that the path itself is. Damaged ones are passed over,
/// and come back with the reason.
pub fn latest(path: &Path) -> Result<(Checkpoint, Vec<DataError>), DataError> {
    if path.join(TRAINER).exists() {
        return Ok((Checkpoint::open(path)?, Vec::new()));
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let names = entries.map_err(|e| DataError::file(path, e))?;
    let mut folders: Vec<(u64, String)> = names
        .iter()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter_map(|name| {
            // `.old` is what a save that was interrupted between its two renames leaves.
            let number = name.strip_prefix("step-")?;
            Some((number.strip_suffix(".old").unwrap_or(number).parse().ok()?, name))
        })
        .collect();
    folders.sort_unstable_by(|a, b| b.cmp(a));
    // The pointer says which one was finished last; a run resumed from an older step may have gone another way.
    let pointed = fs::read_to_string(path.join(LATEST)).unwrap_or_default();
    let pointed = pointed.trim();
    folders.sort_by_key(|(_, name)| name != pointed);
    let mut damaged = Vec::new();
    for (_, name) in folders {
        match Checkpoint::open(&path.join(name)) {
            Ok(checkpoint) => return Ok((checkpoint, damaged)),
            Err(error) => damaged.push(error),
        }
    }
    match damaged.into_iter().next() {
        Some(error) => Err(error),
        None => Err(DataError::format(path, "there is no checkpoint in this folder")),
    }
}

impl Checkpoint {
    /// Opens a checkpoint and compares its files with their hashes.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let _span = tracing::info_span!("open checkpoint").entered();
        let path = folder.join(TRAINER);
        let text = fs::read(&path).map_err(|e| DataError::file(&path, e))?;
        let trainer: Trainer =
            serde_json::from_slice(&text).map_err(|e| DataError::format(&path, format!("no {TRAINER}: {e}")))?;
        if trainer.format != FORMAT {
            return Err(DataError::format(
                &path,
                format!("checkpoint format {}; this program reads {FORMAT}", trainer.format),
            ));
        }
        for file in [MODEL, OPTIMIZER] {
            let path = folder.join(file);
            let image = Mapped::open(&path).map_err(|e| DataError::file(&path, e))?;
            let part = trainer.files.iter().find(|p| p.name == file);
            let good = part
                .is_some_and(|p| p.bytes == image.len() as u64 && p.blake3 == blake3::hash(&image).to_hex().as_str());
            if !good {
                return Err(DataError::format(&path, "damaged: not what was written"));
            }
        }
        let (model, state) = (TensorFile::open(&folder.join(MODEL))?, TensorFile::open(&folder.join(OPTIMIZER))?);
        Ok(Self { folder: folder.into(), position: trainer.position, model, state })
    }

    /// The names of the state tensors.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        self.state.names()
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
        read(&self.model, name, share, out)
    }

    /// The same of a state tensor.
    pub fn state(&self, name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        read(&self.state, name, share, out)
    }
}

fn compare(file: &TensorFile, want: Vec<(&str, &types::TensorType)>, problems: &mut Vec<Problem>) {
    for (name, ty) in &want {
        match file.get(name) {
            None => problems.push(Problem::Missing { name: name.to_string(), ty: ty.to_string(), near: Vec::new() }),
            // A resumed run is the same to the bit, or it is refused: types do not convert here.
            Some(view) if view.shape != ty.sizes().as_slice() || view.dtype != crate::convert::stored(ty.dtype) => {
                problems.push(Problem::Shape { name: name.to_string(), want: ty.to_string(), have: view.text() });
            }
            Some(_) => {}
        }
    }
    let wanted: rustc_hash::FxHashSet<&str> = want.iter().map(|(name, _)| *name).collect();
    for name in file.names().filter(|n| !wanted.contains(n)) {
        let ty = file.get(name).map(|v| v.text()).unwrap_or_default();
        problems.push(Problem::Surplus { name: name.into(), ty });
    }
}

fn read(file: &TensorFile, name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
    let view = file.get(name).ok_or_else(|| DataError::format(&file.path, format!("no `{name}`")))?;
    view.read(share, out).map_err(|e| DataError::format(&file.path, format!("`{name}`: {e}")))
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

fn remove(folder: &Path) -> Result<(), DataError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::file(folder, e)),
        _ => Ok(()),
    }
}
