//! Checkpoints: folders `step-000120` that appear whole or not at all, and a pointer to the latest.
//!
//! A folder holds `model.safetensors` (the checkpoint's names), `optimizer.safetensors` (state) and `trainer.json`, which
//! is written last and holds the hashes of the others. What is large falls into several files with an index, in Hugging
//! Face's layout. The folder is made as `step-000120.tmp`, synced and renamed; all processes of a run write into it at once.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use device::Mapped;
use serde::{Deserialize, Serialize};

use crate::{DataError, Pieces, Problem, Share, TensorFile, TensorView, Together};

const MODEL: &str = "model";
pub(crate) const OPTIMIZER: &str = "optimizer";
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
    /// Hash of the list of its files, and with it of all that is in them.
    pub content: String,
    model: Vec<TensorFile>,
    state: Vec<TensorFile>,
}

/// No file of a checkpoint gets much larger, unless a single tensor is.
pub const LARGEST_FILE: usize = 5_000_000_000;

/// Writes `DIR/step-N` and points `DIR/latest` at it; gives the folder. What is written are logical tensors, so that
/// any other mesh can go on from them. All processes of a run call this, each with its own pieces of all tensors.
pub fn save(
    directory: &Path,
    position: &Position,
    (parameters, states): (&[Pieces<'_>], &[Pieces<'_>]),
    largest: usize,
    together: &Together,
) -> Result<PathBuf, DataError> {
    let _span = tracing::info_span!("save", step = position.step).entered();
    let name = format!("step-{:06}", position.step);
    let folder = directory.join(&name);
    let temporary = directory.join(format!("{name}.tmp"));
    if together.is_first() {
        fs::create_dir_all(directory).map_err(|e| DataError::file(directory, e))?;
        // What an interrupted save left behind.
        remove(&temporary)?;
        fs::create_dir(&temporary).map_err(|e| DataError::file(&temporary, e))?;
    }
    let mut files = Vec::new();
    for (stem, tensors) in [(MODEL, parameters), (OPTIMIZER, states)] {
        let groups = groups(tensors, largest);
        let names: Vec<String> = (1..=groups.len()).map(|i| file_name(stem, i, groups.len())).collect();
        for (file, group) in names.iter().zip(&groups) {
            let types: Vec<_> = group.iter().map(|t| (t.name, t.ty)).collect();
            let writer = together.create(&temporary.join(file), &types)?;
            group.iter().try_for_each(|t| writer.write(t))?;
            writer.finish()?;
        }
        if together.is_first() && groups.len() > 1 {
            write_index(&temporary.join(format!("{stem}.safetensors.index.json")), &names, &groups)?;
        }
        files.extend(names);
    }
    together.meet(&format!("write {}", temporary.display()), Vec::new())?;
    let files = hashes(&temporary, files, together)?;
    if together.is_first() {
        let trainer = Trainer { format: FORMAT, position: position.clone(), files };
        let path = temporary.join(TRAINER);
        let mut text = serde_json::to_vec_pretty(&trainer).map_err(|e| DataError::format(&path, e))?;
        text.push(b'\n');
        write_synced(&path, &text)?;
        sync(&temporary)?;
        show(directory, &name)?;
    }
    together.meet(&format!("show {}", folder.display()), Vec::new())?;
    Ok(folder)
}

/// Tensors in files, in their order.
fn groups<'t, 'a>(tensors: &'t [Pieces<'a>], largest: usize) -> Vec<Vec<&'t Pieces<'a>>> {
    let (mut groups, mut bytes) = (vec![Vec::new()], 0);
    for tensor in tensors {
        if bytes > 0 && bytes + tensor.ty.bytes() > largest {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.ty.bytes();
        groups.last_mut().into_iter().for_each(|g| g.push(tensor));
    }
    groups
}

/// `model.safetensors`, or `model-00002-of-00003.safetensors`.
fn file_name(stem: &str, number: usize, of: usize) -> String {
    if of == 1 { format!("{stem}.safetensors") } else { format!("{stem}-{number:05}-of-{of:05}.safetensors") }
}

fn write_index(path: &Path, names: &[String], groups: &[Vec<&Pieces<'_>>]) -> Result<(), DataError> {
    let total: usize = groups.iter().flatten().map(|t| t.ty.bytes()).sum();
    let files = names.iter().zip(groups).flat_map(|(name, group)| group.iter().map(move |t| (t.name, name)));
    let map: serde_json::Map<_, _> = files.map(|(tensor, file)| (tensor.to_string(), file.as_str().into())).collect();
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    let text = serde_json::to_vec_pretty(&index).map_err(|e| DataError::format(path, e))?;
    write_synced(path, &text)
}

/// Sizes and hashes of the files, which the processes share out among them.
fn hashes(folder: &Path, files: Vec<String>, together: &Together) -> Result<Vec<Part>, DataError> {
    let path = folder.join(TRAINER);
    let mut own = Vec::new();
    for (_, name) in files.iter().enumerate().filter(|(i, _)| i % together.count() == together.number()) {
        let path = folder.join(name);
        let image = Mapped::open(&path).map_err(|e| DataError::file(&path, e))?;
        let blake3 = blake3::hash(&image).to_hex().to_string();
        own.push(Part { name: name.clone(), bytes: image.len() as u64, blake3 });
    }
    let bytes = serde_json::to_vec(&own).map_err(|e| DataError::format(&path, e))?;
    let mut parts: Vec<Part> = Vec::new();
    for bytes in together.meet(&format!("hash {}", folder.display()), bytes)? {
        parts.extend(serde_json::from_slice::<Vec<Part>>(&bytes).map_err(|e| DataError::format(&path, e))?);
    }
    parts.sort_by_key(|part| files.iter().position(|name| *name == part.name));
    Ok(parts)
}

/// Gives the finished folder its name and points at it.
fn show(directory: &Path, name: &str) -> Result<(), DataError> {
    let (folder, temporary) = (directory.join(name), directory.join(format!("{name}.tmp")));
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
    sync(directory)
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
        let (mut model, mut state) = (Vec::new(), Vec::new());
        for part in &trainer.files {
            // A name, and no way out of the folder.
            let path = folder.join(Path::new(&part.name).file_name().unwrap_or_default());
            let image = Mapped::open(&path).map_err(|e| DataError::file(&path, e))?;
            if part.bytes != image.len() as u64 || part.blake3 != blake3::hash(&image).to_hex().as_str() {
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

fn remove(folder: &Path) -> Result<(), DataError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DataError::file(folder, e)),
        _ => Ok(()),
    }
}
