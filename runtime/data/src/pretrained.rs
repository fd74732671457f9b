//! How a run saves its model: as the folder that `save_pretrained` of the model's class writes, so that `from_pretrained`
//! opens it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use plan::Parameter;
use rustc_hash::FxHashMap;
use types::{Config, DType, FileForm, Rename, TensorType};

use crate::checkpoint;
use crate::other_weights::OtherWeights;
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
    /// The forms in which parameters are saved that are not one tensor of their name.
    forms: FxHashMap<String, Arc<FileForm>>,
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
    /// How the class writes the beginning of names.
    renames: Vec<Rename>,
    /// Weights of the class's other parts.
    others: Option<Arc<OtherWeights>>,
}

/// The published folder that a model was read from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub root: PathBuf,
    /// The folders of weights in it with the prefix of their parameters' names; empty for the root itself.
    pub parts: Vec<(String, String)>,
}

/// A tensor of the model's files.
pub(crate) struct SavedTensor {
    name: String,
    ty: TensorType,
    part: usize,
    holds: Vec<Part>,
}

/// A parameter that a tensor of a file holds, or a part of one.
struct Part {
    /// The parameter's number.
    parameter: usize,
    /// Its form, and the tensor's number among those of the form.
    form: Option<(Arc<FileForm>, usize)>,
}

/// Tensors that one file holds, or several with an index.
pub(crate) struct FileSet<'a> {
    /// Path in the checkpoint, without `.safetensors`.
    pub stem: String,
    pub prefix: &'a str,
    pub largest: usize,
    pub tensors: Vec<Pieces<'a>>,
    /// How the names of its tensors begin in the plan.
    pub renames: &'a [Rename],
    /// What lies in a file of its own behind the others.
    pub others: Option<&'a OtherWeights>,
}

/// One set of weights at the top, with nothing beside it.
impl Default for Pretrained {
    fn default() -> Self {
        Self {
            parts: vec![ModelPart::top(Library::Transformers)],
            beside: vec![],
            dtype: None,
            largest_state: LARGEST_STATE,
            forms: FxHashMap::default(),
        }
    }
}

impl ModelPart {
    fn top(library: Library) -> Self {
        Self {
            folder: String::new(),
            prefix: String::new(),
            stem: library.stem(),
            largest: library.largest_file(),
            renames: vec![],
            others: None,
        }
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
        let forms = parameters.iter().filter_map(|p| Some((p.name.to_string(), Arc::new(p.saved_form()?.clone()))));
        saved.forms = forms.collect();
        saved.check_forms(parameters)?;
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
            let class = pretrained_config::class_of(&at, configs)?.filter(|class| class.has_parts());
            let renames = class.map_or(vec![], |class| class.renames.clone());
            let others = class.map_or(&[][..], |class| &class.other_weights);
            let others = OtherWeights::in_folder(&at, others)?.map(Arc::new);
            saved.parts.push(ModelPart { folder, prefix: prefix.clone(), renames, others, ..ModelPart::top(library) });
        }
        if origin.parts.iter().all(|(folder, _)| !folder.is_empty()) {
            saved.beside.extend(pretrained_files::of_pipeline(&origin.root, &origin.parts)?);
        }
        Ok(saved)
    }

    /// Proves that parameters fill the tensors that they are saved in.
    fn check_forms(&self, parameters: &[Parameter]) -> Result<(), DataError> {
        let tensors = self.tensors(parameters.iter().map(|p| (p.name.as_str(), &p.ty)));
        let held = |Part { parameter, form }: &Part| {
            let ty = &parameters[*parameter].ty;
            let form = form.as_ref().map(|(form, _)| form.axes.iter().map(|axis| ty.dims[axis.axis].size).product());
            form.unwrap_or_else(|| ty.elements())
        };
        let unfilled = tensors.iter().find(|t| t.holds.iter().map(held).sum::<usize>() != t.ty.elements());
        unfilled.map_or(Ok(()), |SavedTensor { name, ty, holds, .. }| {
            let names: Vec<&str> = holds.iter().map(|part| parameters[part.parameter].name.as_str()).collect();
            Err(DataError::Refused {
                what: format!("`{name}` {ty} cannot be saved: {} are not all of it", names.join(", ")),
                help: "its parts in `saved_as` have to fill it, each element once".into(),
            })
        })
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

    /// The tensors of the model's files, in the order of the parameters.
    pub(crate) fn tensors<'a>(&self, parameters: impl Iterator<Item = (&'a str, &'a TensorType)>) -> Vec<SavedTensor> {
        let mut tensors: IndexMap<String, SavedTensor> = IndexMap::new();
        for (number, (name, ty)) in parameters.enumerate() {
            let parts = self.parts.iter().enumerate().filter(|(_, part)| name.starts_with(&part.prefix));
            let Some((part, ModelPart { prefix, renames, .. })) = parts.max_by_key(|(_, part)| part.prefix.len())
            else {
                continue;
            };
            let dtype = self.saved(ty.dtype);
            let form = self.forms.get(name);
            for index in 0..form.map_or(1, |form| form.count(ty)) {
                let (tensor, of) = match form {
                    Some(form) => (form.tensor(index), form.ty(ty, dtype)),
                    None => (name.to_string(), ty.with_dtype(dtype)),
                };
                let new = || {
                    let name = tensor.strip_prefix(prefix.as_str()).unwrap_or(&tensor);
                    let name = Rename::saved(renames, name).unwrap_or_else(|| name.to_string());
                    SavedTensor { name, ty: of, part, holds: vec![] }
                };
                let entry = tensors.entry(tensor.clone()).or_insert_with(new);
                entry.holds.push(Part { parameter: number, form: form.map(|form| (form.clone(), index)) });
            }
        }
        tensors.into_values().collect()
    }

    /// All files of tensors: the model's, parameters that it holds rounded, and states. `tensors` are those of
    /// [`Pretrained::tensors`].
    pub(crate) fn files<'a>(
        &'a self,
        (parameters, states): (&'a [Pieces<'a>], &'a [Pieces<'a>]),
        tensors: &'a [SavedTensor],
    ) -> Vec<FileSet<'a>> {
        let set = |part: &'a ModelPart| {
            let stem = format!("{}{}", part.folder, part.stem);
            FileSet {
                stem,
                prefix: &part.prefix,
                largest: part.largest,
                tensors: vec![],
                renames: &part.renames,
                others: part.others.as_deref(),
            }
        };
        let mut sets: Vec<FileSet<'a>> = self.parts.iter().map(set).collect();
        let mut exact = vec![false; parameters.len()];
        for SavedTensor { name, ty, part, holds } in tensors {
            let mut pieces = vec![];
            for Part { parameter: number, form } in holds {
                let parameter = &parameters[*number];
                exact[*number] = ty.dtype == parameter.ty.dtype;
                let placed = parameter.pieces.iter().filter_map(|(share, bytes)| match form {
                    Some((form, tensor)) => Some((share.in_form(form, *tensor)?, *bytes)),
                    None => Some((share.clone(), *bytes)),
                });
                pieces.extend(placed);
            }
            sets[*part].tensors.push(Pieces { name, ty, pieces });
        }
        let masters = parameters.iter().zip(exact).filter(|(_, exact)| !exact);
        let masters = masters.map(|(p, _)| Pieces { name: p.name, ty: p.ty, pieces: p.pieces.clone() });
        let masters: Vec<_> = masters.collect();
        let state = |name: &str, tensors| FileSet {
            stem: format!("{}/{name}", checkpoint::STATE),
            prefix: "",
            largest: self.largest_state,
            tensors,
            renames: &[],
            others: None,
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
        let parameters: Vec<_> = parameters.collect();
        let rounded = parameters.iter().filter(|(_, ty)| self.saved(ty.dtype) != ty.dtype);
        let model = self.tensors(parameters.iter().copied());
        let mut tensors: Vec<(&str, &TensorType)> = model.iter().map(|t| (t.name.as_str(), &t.ty)).collect();
        rounded.copied().chain(states).for_each(|tensor| tensors.push(tensor));
        let beside: u64 = self.beside.iter().map(Beside::bytes).sum();
        let others: u64 = self.parts.iter().flat_map(|part| &part.others).map(|others| others.bytes()).sum();
        beside + others + crate::needed(tensors)
    }
}
