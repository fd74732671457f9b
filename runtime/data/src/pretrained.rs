//! How a run saves its model: as the folder that `save_pretrained` of the model's class writes, so that `from_pretrained`
//! opens it.

use std::path::{Path, PathBuf};

use plan::Parameter;
use types::{Config, DType, TensorType};

use crate::checkpoint;
use crate::pretrained_config::{self, Library};
use crate::pretrained_files::{self, Beside};
use crate::{DataError, Pieces};

/// Optimiser's files, which no library reads, are not larger.
const LARGEST_STATE: usize = 5_000_000_000;

/// Folders and files of a saved model, beside the state of the run.
#[derive(Clone, Debug)]
pub struct Pretrained {
    parts: Vec<ModelPart>,
    /// Configs, tokenizers, and the other parts of a pipeline.
    beside: Vec<Beside>,
    /// Of the floating-point weights in the model's files; none for the types that the plan holds them in.
    dtype: Option<DType>,
    largest_state: usize,
}

/// Weights that lie in one folder: those of a model, or of one model of a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct ModelPart {
    /// In the checkpoint: empty, or `transformer/`.
    folder: String,
    /// Before the names of these parameters in the plan, and not in the files: empty, or `transformer.`.
    prefix: String,
    stem: &'static str,
    largest: usize,
}

/// The published folder that a model was read from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub root: PathBuf,
    /// The folders of weights in it with the prefix of their parameters' names; empty for the root itself.
    pub parts: Vec<(String, String)>,
}

/// Tensors that one file holds, or several with an index.
pub(crate) struct FileSet<'a> {
    /// Path in the checkpoint, without `.safetensors`.
    pub stem: String,
    pub prefix: &'a str,
    pub largest: usize,
    pub tensors: Vec<Pieces<'a>>,
}

/// One set of weights at the top, with nothing beside it.
impl Default for Pretrained {
    fn default() -> Self {
        Self {
            parts: vec![ModelPart::top(Library::Transformers)],
            beside: vec![],
            dtype: None,
            largest_state: LARGEST_STATE,
        }
    }
}

impl ModelPart {
    fn top(library: Library) -> Self {
        Self { folder: String::new(), prefix: String::new(), stem: library.stem(), largest: library.largest_file() }
    }
}

impl Pretrained {
    /// The folder for a model of the classes in `configs`, the first of which has the parameters' names. What lies beside
    /// the weights comes from where they were read; a model that was not read gets a config with the plan's figures.
    pub fn new(
        origin: Option<&Origin>,
        parameters: &[Parameter],
        configs: &[Config],
        dtype: Option<DType>,
    ) -> Result<Self, DataError> {
        let mut saved = Self { dtype, ..Self::default() };
        let widest =
            parameters.iter().map(|p| saved.saved(p.ty.dtype)).filter(|t| t.is_float()).max_by_key(|t| t.bytes());
        let widest = widest.unwrap_or(DType::F32);
        let Some(origin) = origin else {
            if let Some((text, library)) = pretrained_config::of_plan(configs, widest) {
                saved.parts = vec![ModelPart::top(library)];
                saved.beside = vec![Beside::text("config.json", text)];
            }
            return Ok(saved);
        };
        saved.parts.clear();
        for (folder, prefix) in &origin.parts {
            let at = origin.root.join(folder);
            let config = pretrained_config::of_folder(&at, configs, widest)?;
            let library = config.as_ref().map_or(Library::Transformers, |(_, library)| *library);
            let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            if at.join("config.json").is_file() {
                saved.beside.extend(pretrained_files::of_model(&at, &folder)?);
            }
            if let Some((text, _)) = config {
                saved.beside.push(Beside::text(&format!("{folder}config.json"), text));
            }
            saved.parts.push(ModelPart { folder, prefix: prefix.clone(), ..ModelPart::top(library) });
        }
        if origin.parts.iter().all(|(folder, _)| !folder.is_empty()) {
            saved.beside.extend(pretrained_files::of_pipeline(&origin.root, &origin.parts)?);
        }
        Ok(saved)
    }

    /// The same in files of at most so many bytes.
    pub fn in_files_of(mut self, bytes: usize) -> Self {
        self.parts.iter_mut().for_each(|part| part.largest = bytes);
        self.largest_state = bytes;
        self
    }

    /// The type of weights in the model's files.
    fn saved(&self, held: DType) -> DType {
        self.dtype.filter(|_| held.is_float()).unwrap_or(held)
    }

    /// The types of parameters in the model's files.
    pub(crate) fn types(&self, parameters: &[Pieces<'_>]) -> Vec<TensorType> {
        parameters.iter().map(|p| p.ty.with_dtype(self.saved(p.ty.dtype))).collect()
    }

    /// All files of tensors: the model's, parameters that it holds rounded, and states. `types` are those of
    /// [`Pretrained::types`].
    pub(crate) fn files<'a>(
        &'a self,
        (parameters, states): (&'a [Pieces<'a>], &'a [Pieces<'a>]),
        types: &'a [TensorType],
    ) -> Vec<FileSet<'a>> {
        let part_of = |name: &str| {
            let parts = self.parts.iter().enumerate().filter(|(_, part)| name.starts_with(&part.prefix));
            parts.max_by_key(|(_, part)| part.prefix.len()).map(|(at, _)| at)
        };
        let set = |part: &'a ModelPart| {
            let stem = format!("{}{}", part.folder, part.stem);
            FileSet { stem, prefix: &part.prefix, largest: part.largest, tensors: vec![] }
        };
        let mut sets: Vec<FileSet<'a>> = self.parts.iter().map(set).collect();
        let mut masters = vec![];
        for (parameter, ty) in parameters.iter().zip(types) {
            let part = part_of(parameter.name);
            if let Some(set) = part.map(|at| &mut sets[at]) {
                let name = &parameter.name[set.prefix.len()..];
                set.tensors.push(Pieces { name, ty, pieces: parameter.pieces.clone() });
            }
            if part.is_none() || ty != parameter.ty {
                masters.push(Pieces { name: parameter.name, ty: parameter.ty, pieces: parameter.pieces.clone() });
            }
        }
        let state = |name: &str, tensors| FileSet {
            stem: format!("{}/{name}", checkpoint::STATE),
            prefix: "",
            largest: self.largest_state,
            tensors,
        };
        if !masters.is_empty() {
            sets.push(state(checkpoint::MASTERS, masters));
        }
        let states = states.iter().map(|s| Pieces { name: s.name, ty: s.ty, pieces: s.pieces.clone() });
        sets.push(state(checkpoint::OPTIMIZER, states.collect()));
        sets
    }

    /// The folders that a checkpoint has inside.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let parts = self.parts.iter().map(|part| Path::new(&part.folder));
        let beside = self.beside.iter().filter_map(|file| Path::new(&file.path).parent());
        let folders = parts.chain(beside).chain([Path::new(checkpoint::STATE)]);
        let mut folders: Vec<_> = folders.filter(|f| !f.as_os_str().is_empty()).map(Path::to_path_buf).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    pub(crate) fn beside(&self) -> &[Beside] {
        &self.beside
    }

    /// About how many bytes a checkpoint of these takes.
    pub fn needed<'a>(
        &self,
        parameters: impl Iterator<Item = (&'a str, &'a TensorType)>,
        states: impl Iterator<Item = (&'a str, &'a TensorType)>,
    ) -> u64 {
        let mut tensors: Vec<(&str, TensorType)> = states.map(|(name, ty)| (name, ty.clone())).collect();
        for (name, ty) in parameters {
            let saved = ty.with_dtype(self.saved(ty.dtype));
            if saved != *ty {
                tensors.push((name, ty.clone()));
            }
            tensors.push((name, saved));
        }
        let beside: u64 = self.beside.iter().map(Beside::bytes).sum();
        beside + crate::needed(tensors.iter().map(|(name, ty)| (*name, ty)))
    }
}
