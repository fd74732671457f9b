//! Checkpoints: folders `step-000120` that appear whole or not at all, and a pointer to the latest.
//!
//! A folder is what `save_pretrained` of the model's class writes (see [`crate::Pretrained`]), and `state` in it is what a
//! run goes on from: `optimizer.safetensors`, `parameters.safetensors` for parameters that the model's files hold rounded,
//! and `trainer.json`, which is written last and holds the hashes of the others. What is large falls into several files
//! with an index. The folder is made under a temporary name, synced and renamed; all processes of a run write into it at
//! once, and no other run does.

mod folder;
mod lock;
mod room;
mod save;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

pub use folder::{Begin, Folder, has_checkpoints, latest};
pub use room::needed;

use indexmap::IndexMap;
use plan::Parameter;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use types::{Config, FileForm, Rename, TensorType};

use crate::data_file::DataFile;
use crate::parameter_files::{Found, Held};
use crate::pretrained::Origin;
use crate::{DataError, Problem, Share, TensorFile, TensorView, config_check};

/// The folder of a checkpoint for what is not the model.
pub(crate) const STATE: &str = "state";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const MASTERS: &str = "parameters";
const TRAINER: &str = "trainer.json";
const FORMAT: u32 = 2;
/// The first format, which had the model, the optimiser and `trainer.json` side by side.
const FLAT: u32 = 1;

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

/// A file of tensors.
#[derive(Clone, Serialize, Deserialize)]
struct Part {
    /// Path in the checkpoint.
    name: String,
    bytes: u64,
    blake3: String,
    /// Before the names of its tensors in the plan.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    prefix: String,
    /// How the beginning of names is written in it, behind the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    renames: Vec<Rename>,
    /// Holds weights of the class's other parts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    others: bool,
}

/// A file of parameters.
struct ModelFile {
    /// Before its names in the plan.
    prefix: String,
    renames: Vec<Rename>,
    file: TensorFile,
}

impl ModelFile {
    fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let name = name.strip_prefix(self.prefix.as_str())?;
        match Rename::saved(&self.renames, name) {
            Some(name) => self.file.get(&name),
            None => self.file.get(name),
        }
    }

    /// The names in the plan of what it holds.
    fn names(&self) -> impl Iterator<Item = String> {
        self.file.names().map(|name| format!("{}{}", self.prefix, Rename::of_saved(&self.renames, name)))
    }
}

/// No list of a checkpoint's files comes near.
const LONGEST_LIST: usize = 64 << 20;

/// A checkpoint whose files are all there and as they were written.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub position: Position,
    /// Hash of the list of its files, and with it of all that is in them.
    pub content: String,
    model: Vec<ModelFile>,
    /// Parameters that the model's files hold rounded.
    masters: Vec<TensorFile>,
    state: Vec<TensorFile>,
    /// Folders of the model with their prefixes.
    parts: Vec<(String, String)>,
    /// The forms in which the model's files hold parameters, by their names.
    forms: FxHashMap<String, FileForm>,
}

impl Checkpoint {
    /// Opens a checkpoint and compares its files with their hashes.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let _span = tracing::info_span!("open checkpoint").entered();
        let path = trainer(folder);
        let text = DataFile::whole(&path, LONGEST_LIST)?;
        let trainer: Trainer =
            serde_json::from_slice(&text).map_err(|e| DataError::format(&path, format!("no {TRAINER}: {e}")))?;
        if ![FORMAT, FLAT].contains(&trainer.format) {
            return Err(DataError::format(
                &path,
                format!("checkpoint format {}; this program reads {FORMAT} and {FLAT}", trainer.format),
            ));
        }
        let (mut model, mut masters, mut state, mut parts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for part in trainer.files {
            let name = Path::new(&part.name);
            if !name.components().all(|c| matches!(c, Component::Normal(_))) {
                return Err(DataError::format(&path, format!("`{}` is no file in the checkpoint", part.name)));
            }
            let path = folder.join(name);
            let file = DataFile::open(&path)?;
            if part.bytes != file.bytes() || part.blake3 != file.hash()?.to_hex().as_str() {
                return Err(DataError::format(&path, "damaged: not what was written"));
            }
            let file = TensorFile::open(&path)?;
            if part.others {
                continue;
            }
            let own = if trainer.format == FLAT { Some(part.name.as_str()) } else { part.name.strip_prefix("state/") };
            match own {
                Some(name) if name.starts_with(OPTIMIZER) => state.push(file),
                Some(name) if name.starts_with(MASTERS) => masters.push(file),
                _ => {
                    let inside = name.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
                    let place = (inside, part.prefix.clone());
                    if !parts.contains(&place) {
                        parts.push(place);
                    }
                    model.push(ModelFile { prefix: part.prefix, renames: part.renames, file });
                }
            }
        }
        let content = crate::fingerprint::of_bytes(&text);
        Ok(Self {
            folder: folder.into(),
            position: trainer.position,
            content,
            model,
            masters,
            state,
            parts,
            forms: FxHashMap::default(),
        })
    }

    /// Takes the forms in which parameters are saved from a plan.
    pub fn with_forms(mut self, parameters: &[Parameter]) -> Self {
        let forms = parameters.iter().filter_map(|p| Some((p.name.to_string(), p.saved_form()?.clone())));
        self.forms = forms.collect();
        self
    }

    /// The folder as one of a published model.
    pub fn origin(&self) -> Origin {
        Origin { root: self.folder.clone(), parts: self.parts.clone() }
    }

    /// Proves that no config beside the weights says otherwise than the plan: it is what the next checkpoint gets. Gives what
    /// is to be told.
    pub fn check_configs(&self, configs: &[Config]) -> Result<Vec<String>, DataError> {
        let paths = self.parts.iter().map(|(part, _)| self.folder.join(part).join("config.json"));
        let told = paths.filter(|path| path.exists()).map(|path| config_check::check(&path, configs));
        Ok(told.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The names of the state tensors.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        self.state.iter().flat_map(TensorFile::names)
    }

    /// What of `want` the checkpoint does not have, or has in another form.
    pub fn check<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a TensorType)>,
        states: impl IntoIterator<Item = (&'a str, &'a TensorType)>,
    ) -> Result<(), DataError> {
        let mut problems = Vec::new();
        let (mut want, mut beside): (IndexMap<String, TensorType>, FxHashSet<String>) = Default::default();
        for (name, ty) in parameters {
            let form = self.forms.get(name);
            match form.filter(|_| find(&self.masters, name).is_none()) {
                Some(form) => want.extend(form.tensors(ty).map(|tensor| (tensor, form.ty(ty, ty.dtype)))),
                None => {
                    beside.extend(form.into_iter().flat_map(|form| form.tensors(ty)));
                    want.insert(name.into(), ty.clone());
                }
            }
        }
        let model = self.model.iter().flat_map(ModelFile::names);
        let model = model.filter(|name| !beside.contains(name));
        compare(&want, model, |name| self.held(name), &mut problems);
        let want = states.into_iter().map(|(name, ty)| (name.to_string(), ty.clone())).collect();
        compare(&want, self.states().map(String::from), |name| find(&self.state, name), &mut problems);
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
        match self.forms.get(name).filter(|_| find(&self.masters, name).is_none()) {
            Some(form) => {
                let found = |tensor: &str| Some(Ok(Found { view: self.held(tensor)?, scales: None }));
                Held::Form(form).read(share, out, found).map_err(|(tensor, e)| e.of(&self.folder, &tensor))
            }
            None => self.read(self.held(name), name, share, out),
        }
    }

    /// The same of a state tensor.
    pub fn state(&self, name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        self.read(find(&self.state, name), name, share, out)
    }

    /// A parameter as the run held it.
    fn held(&self, name: &str) -> Option<TensorView<'_>> {
        let model = || self.model.iter().find_map(|file| file.get(name));
        find(&self.masters, name).or_else(model)
    }

    fn read(&self, view: Option<TensorView<'_>>, name: &str, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        let view = view.ok_or_else(|| DataError::format(&self.folder, format!("no `{name}`")))?;
        view.read(share, out).map_err(|e| e.of(&self.folder, name))
    }
}

/// Compares what is wanted with what there is, which has these names.
fn compare<'f>(
    want: &IndexMap<String, TensorType>,
    names: impl Iterator<Item = String>,
    find: impl Fn(&str) -> Option<TensorView<'f>>,
    problems: &mut Vec<Problem>,
) {
    for (name, ty) in want {
        match find(name) {
            None => problems.push(Problem::Missing { name: name.to_string(), ty: ty.to_string(), near: Vec::new() }),
            // A resumed run is the same to the bit, or it is refused: types do not convert here.
            Some(view) if view.shape != ty.sizes().as_slice() || view.dtype != crate::convert::stored(ty.dtype) => {
                problems.push(Problem::Shape { name: name.to_string(), want: ty.to_string(), have: view.text() });
            }
            Some(_) => {}
        }
    }
    for name in names.filter(|n| !want.contains_key(n)) {
        let ty = find(&name).map(|v| v.text()).unwrap_or_default();
        problems.push(Problem::Surplus { name, ty });
    }
}

fn find<'f>(files: &'f [TensorFile], name: &str) -> Option<TensorView<'f>> {
    files.iter().find_map(|f| f.get(name))
}

/// Where the list of a checkpoint's files lies: in its state, or in itself if it is of the first format.
fn trainer(folder: &Path) -> PathBuf {
    let flat = folder.join(TRAINER);
    let inside = folder.join(STATE).join(TRAINER);
    if flat.exists() && !inside.exists() { flat } else { inside }
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
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
