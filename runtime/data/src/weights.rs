//! Weights: published safetensors, in one file, in shards with an index, in a folder or in a pipeline's sub-folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use plan::Parameter;
use types::nearest;

use crate::convert::converts;
use crate::{DataError, Problem, Share, TensorFile, TensorView};

pub struct Weights {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// The file and the name inside it, by the name under which a parameter finds it.
    tensors: BTreeMap<String, (usize, String)>,
}

impl Weights {
    /// Opens a `.safetensors` file, a `.safetensors.index.json`, or a folder that holds one of these, itself or in a
    /// sub-folder (`transformer` before others). Parameters that are called `folder.name` choose their sub-folder.
    pub fn open(path: &Path, parameters: &[Parameter]) -> Result<Self, DataError> {
        let _span = tracing::info_span!("open weights").entered();
        let mut weights = Self { path: path.into(), files: Vec::new(), tensors: BTreeMap::new() };
        if !path.is_dir() {
            weights.add(path, "")?;
            return Ok(weights);
        }
        // A folder of our own checkpoints.
        let latest = std::fs::read_to_string(path.join("latest")).ok().map(|name| path.join(name.trim()));
        let here = checkpoint_in(latest.as_deref().filter(|l| l.is_dir()).unwrap_or(path))?;
        if !here.is_empty() {
            here.iter().try_for_each(|file| weights.add(file, ""))?;
            return Ok(weights);
        }
        let inner = sub_folders(path)?;
        let named =
            |folder: &str| parameters.iter().any(|p| p.name.strip_prefix(folder).is_some_and(|r| r.starts_with('.')));
        let chosen: Vec<_> = inner.iter().filter(|(name, _)| named(name)).collect();
        let transformers: Vec<_> = inner.iter().filter(|(name, _)| name.starts_with("transformer")).collect();
        let candidates = if transformers.is_empty() { inner.iter().collect() } else { transformers };
        match (chosen.as_slice(), candidates.as_slice()) {
            ([], [(_, files)]) => files.iter().try_for_each(|file| weights.add(file, ""))?,
            ([], []) => {
                return Err(DataError::format(path, "no safetensors files in this folder or in its sub-folders"));
            }
            ([], several) => {
                let names: Vec<_> = several.iter().map(|(name, _)| path.join(name).display().to_string()).collect();
                return Err(DataError::Mismatch {
                    what: format!("{} holds several sets of weights", path.display()),
                    problems: Vec::new(),
                    help: Some(format!("give one of them: {}", names.join(", "))),
                });
            }
            (chosen, _) => {
                for (name, files) in chosen {
                    files.iter().try_for_each(|file| weights.add(file, &format!("{name}.")))?;
                }
            }
        }
        Ok(weights)
    }

    /// Adds a file or the files of an index, with a prefix for its names.
    fn add(&mut self, path: &Path, prefix: &str) -> Result<(), DataError> {
        if path.extension().is_some_and(|e| e == "json") {
            return self.add_index(path, prefix);
        }
        let file = TensorFile::open(path)?;
        let index = self.files.len();
        let names: Vec<String> = file.names().map(String::from).collect();
        self.files.push(file);
        let mut twice = Vec::new();
        for name in names {
            if let Some((other, _)) = self.tensors.insert(format!("{prefix}{name}"), (index, name.clone())) {
                let places = format!("{} and {}", self.files[other].path.display(), path.display());
                twice.push(Problem::Twice { name, places });
            }
        }
        self.refuse(twice)
    }

    fn add_index(&mut self, path: &Path, prefix: &str) -> Result<(), DataError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let text = std::fs::read(path).map_err(|e| DataError::file(path, e))?;
        let index: Index = serde_json::from_slice(&text)
            .map_err(|e| DataError::format(path, format!("no index of safetensors files: {e}")))?;
        let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, file) in &index.weight_map {
            // An index names files beside it; anything else is not ours to open.
            if Path::new(file).components().count() != 1 || file.contains("..") {
                return Err(DataError::format(path, format!("`{file}` is not a file beside the index")));
            }
            let at = match opened.get(file.as_str()) {
                Some(at) => *at,
                None => {
                    self.files.push(TensorFile::open(&folder.join(file))?);
                    opened.insert(file, self.files.len() - 1);
                    self.files.len() - 1
                }
            };
            if self.files[at].get(name).is_none() {
                let what = format!("the index puts it into {file}, which does not have it");
                problems.push(Problem::Other { name: name.clone(), what });
            }
            self.tensors.insert(format!("{prefix}{name}"), (at, name.clone()));
        }
        // A tensor in a shard that the index forgot is surplus like any other: it must not vanish.
        for at in opened.into_values() {
            let forgotten = self.files[at].names().filter(|n| !index.weight_map.contains_key(*n));
            for name in forgotten.map(String::from).collect::<Vec<_>>() {
                self.tensors.entry(format!("{prefix}{name}")).or_insert((at, name));
            }
        }
        self.refuse(problems)
    }

    fn refuse(&self, problems: Vec<Problem>) -> Result<(), DataError> {
        if problems.is_empty() {
            return Ok(());
        }
        let what = format!("the weights in {} contradict themselves", self.path.display());
        Err(DataError::Mismatch { what, problems, help: None })
    }

    /// The files, in the order in which they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (file, inner) = self.tensors.get(name)?;
        self.files[*file].get(inner)
    }

    /// Proves that the weights are exactly those of the model: none missing, none left over, all of the right shape.
    pub fn check(&self, parameters: &[Parameter]) -> Result<(), DataError> {
        let used: Vec<Option<&str>> = parameters.iter().map(|p| self.name_of(p)).collect();
        let taken: rustc_hash::FxHashSet<&str> = used.iter().flatten().copied().collect();
        let free: Vec<&str> = self.tensors.keys().map(String::as_str).filter(|n| !taken.contains(n)).collect();
        let mut problems = Vec::new();
        for (parameter, name) in parameters.iter().zip(&used) {
            let want = &parameter.ty;
            let Some((name, view)) = name.and_then(|n| Some((n, self.get(n)?))) else {
                // Where nothing fits, a list of guesses helps nobody and takes its time.
                let few = problems.len() < 32;
                let near = if few { nearest(&parameter.name, free.iter().copied()) } else { Vec::new() };
                let near = near.into_iter().map(String::from).collect();
                problems.push(Problem::Missing { name: parameter.name.to_string(), ty: want.to_string(), near });
                continue;
            };
            let name = name.to_string();
            if view.shape != want.sizes().as_slice() {
                problems.push(Problem::Shape { name, want: want.to_string(), have: view.text() });
            } else if !converts(view.dtype, want.dtype) {
                problems.push(Problem::Type { name, want: want.to_string(), have: view.text() });
            }
        }
        let surplus = free.iter().map(|name| {
            let ty = self.get(name).map(|v| v.text()).unwrap_or_default();
            Problem::Surplus { name: name.to_string(), ty }
        });
        problems.extend(surplus);
        if problems.is_empty() {
            return Ok(());
        }
        let (wrong, total) = (problems.len(), parameters.len());
        Err(DataError::Mismatch {
            what: format!(
                "the weights in {} are not those of this model (found wrong: {wrong}; parameters of the model: {total})",
                self.path.display()
            ),
            problems,
            help: Some("is it the right preset? `mmc manifest MODEL.mm --preset P` lists what a model expects".into()),
        })
    }

    /// The name or alias under which a parameter is found.
    fn name_of<'a>(&self, parameter: &'a Parameter) -> Option<&'a str> {
        let names = [&parameter.name].into_iter().chain(&parameter.aliases);
        names.map(|n| n.as_str()).find(|n| self.tensors.contains_key(*n))
    }

    /// Writes a rank's share of a parameter's values, in its stored type, to `out`, and reads nothing else of the file.
    /// The weights must have passed `check`.
    pub fn load(&self, parameter: &Parameter, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        let view = self.name_of(parameter).and_then(|n| self.get(n));
        let ty = share.ty();
        let Some(view) = view.filter(|v| v.shape == ty.sizes().as_slice()) else {
            return Err(DataError::format(&self.path, format!("no `{}` of type {ty}", parameter.name)));
        };
        view.read(share, out).map_err(|e| DataError::format(&self.path, format!("`{}`: {e}", parameter.name)))
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: IndexMap<String, String>,
}

/// The checkpoint in a folder: an index, or else its safetensors files; sorted.
fn checkpoint_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    let mut indices = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| DataError::file(folder, e))? {
        let path = entry.map_err(|e| DataError::file(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(crate::checkpoint::OPTIMIZER) {
            continue;
        }
        if name.ends_with(".safetensors.index.json") {
            indices.push(path);
        } else if name.ends_with(".safetensors") {
            files.push(path);
        }
    }
    files.sort();
    indices.sort();
    // Half-precision variants lie beside the originals; the shortest name is the original.
    let plain = indices.into_iter().min_by_key(|p| p.as_os_str().len());
    Ok(plain.map_or(files, |index| vec![index]))
}

/// Sub-folders that hold a checkpoint, sorted.
fn sub_folders(folder: &Path) -> Result<Vec<(String, Vec<PathBuf>)>, DataError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| DataError::file(folder, e))? {
        let path = entry.map_err(|e| DataError::file(folder, e))?.path();
        if path.is_dir() {
            let files = checkpoint_in(&path)?;
            if !files.is_empty() {
                found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), files));
            }
        }
    }
    found.sort();
    Ok(found)
}
