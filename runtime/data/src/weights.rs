//! Weights: published safetensors, in one file, in shards with an index, in a folder or in a pipeline's sub-folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use plan::Parameter;
use types::{Config, Fact, Name, Quantisation, nearest};

use crate::checkpoint::STATE;
use crate::data_file::DataFile;
use crate::fp8::{Scales, is_fp8, scale_name};
use crate::parameter_files::{Found, Held, names_of, tensors_of, unfit};
use crate::pretrained::Origin;
use crate::tensors::ReadError;
use crate::weight_names::{Prefix, buffer, is_average};
use crate::weights_folder::{self, Set};
use crate::{DataError, Problem, Share, TensorFile, TensorView, config_check, hub_cache};

/// The pointer to the latest checkpoint holds its name.
const LONGEST_NAME: usize = 4096;

/// Rows and columns of a block where no config says it: what all published models have.
const BLOCK: [usize; 2] = [128, 128];

pub struct Weights {
    path: PathBuf,
    files: Vec<TensorFile>,
    /// By file, the rows and columns that have a scale of their own, if its weights are in FP8.
    blocks: Vec<Option<[usize; 2]>>,
    /// The file and the name inside it, by the name under which a parameter finds it.
    tensors: BTreeMap<String, (usize, String)>,
    /// Configs beside the weights.
    configs: Vec<PathBuf>,
    origin: Origin,
    /// What is worth a line: a prefix, buffers that were passed over, variants that were not taken.
    notes: Vec<String>,
}

impl Weights {
    /// Opens a `.safetensors` file, a `.safetensors.index.json`, or a folder that holds one of these, itself or in a
    /// sub-folder (`transformer` before others). Parameters that are called `folder.name` choose their sub-folder.
    pub fn open(path: &Path, parameters: &[Parameter]) -> Result<Self, DataError> {
        let _span = tracing::info_span!("open weights").entered();
        let mut weights = Self {
            path: path.into(),
            files: Vec::new(),
            blocks: Vec::new(),
            tensors: BTreeMap::new(),
            configs: Vec::new(),
            origin: Origin { root: path.parent().unwrap_or(Path::new("")).into(), parts: Vec::new() },
            notes: Vec::new(),
        };
        if !path.is_dir() {
            let set = weights_folder::of_file(path)?;
            weights.add("", set, "", parameters)?;
            return Ok(weights);
        }
        let mut path = &hub_cache::snapshot(path)?;
        let mut own = weights_folder::in_folder(path)?;
        // A folder of our own checkpoints, which has no weights beside them.
        let has_own = own.is_some() || path.join("model_index.json").exists();
        let latest = DataFile::whole(&path.join("latest"), LONGEST_NAME).ok().filter(|_| !has_own);
        let latest = latest.map(|name| path.join(String::from_utf8_lossy(&name).trim())).filter(|l| l.is_dir());
        if let Some(latest) = &latest {
            (path, own) = (latest, weights_folder::in_folder(latest)?);
        }
        weights.origin.root = path.clone();
        if let Some(set) = own {
            weights.add("", set, "", parameters)?;
            return Ok(weights);
        }
        let inner = sub_folders(path)?;
        let named =
            |folder: &str| parameters.iter().any(|p| p.name.strip_prefix(folder).is_some_and(|r| r.starts_with('.')));
        let chosen: Vec<_> = inner.iter().filter(|name| named(name)).collect();
        let transformers: Vec<_> = inner.iter().filter(|name| name.starts_with("transformer")).collect();
        let candidates = if transformers.is_empty() { inner.iter().collect() } else { transformers };
        match (chosen.as_slice(), candidates.as_slice()) {
            ([], [name]) => weights.add_folder(name, "", parameters)?,
            ([], []) => {
                let others = others(path)?;
                return Err(DataError::format(
                    path,
                    format!("no safetensors files in this folder or in its sub-folders{others}"),
                ));
            }
            ([], several) => {
                let names: Vec<_> = several.iter().map(|name| path.join(name).display().to_string()).collect();
                return Err(DataError::Mismatch {
                    what: format!("{} holds several sets of weights", path.display()),
                    problems: Vec::new(),
                    help: Some(format!("give one of them: {}", names.join(", "))),
                });
            }
            (chosen, _) => {
                for name in chosen {
                    weights.add_folder(name, &format!("{name}."), parameters)?;
                }
            }
        }
        Ok(weights)
    }

    fn add_folder(&mut self, name: &str, scope: &str, parameters: &[Parameter]) -> Result<(), DataError> {
        match weights_folder::in_folder(&self.origin.root.join(name))? {
            Some(set) => self.add(name, set, scope, parameters),
            None => Ok(()),
        }
    }

    /// Adds the tensors of a set in the folder called `name`; the model calls them as the files do, with `scope` before.
    fn add(&mut self, name: &str, set: Set, scope: &str, parameters: &[Parameter]) -> Result<(), DataError> {
        let root = &self.origin.root;
        let folder = &if name.is_empty() { root.clone() } else { root.join(name) };
        self.origin.parts.push((name.into(), scope.into()));
        let first = self.files.len();
        let block = config_check::quantisation(&folder.join("config.json"))?.map(|quantised| match quantised {
            Quantisation::BlockFp8 { block } => Ok(block),
            Quantisation::Other(what) => Err(DataError::Refused {
                what: format!("{}: the weights are quantised: {what}", folder.display()),
                help: "take the release in bf16; or load the model in its library, dequantise it, and save it again"
                    .into(),
            }),
        });
        let block = block.transpose()?;
        for file in &set.files {
            self.files.push(TensorFile::open(file)?);
            self.blocks.push(block);
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut problems = Vec::new();
        for (i, file) in self.files.iter().enumerate().skip(first) {
            for name in file.names() {
                if let Some(other) = places.insert(name.to_string(), i) {
                    let places = format!("{} and {}", self.files[other].path.display(), file.path.display());
                    problems.push(Problem::Twice { name: name.into(), places });
                }
            }
        }
        if let Some(index) = &set.index {
            let folder = index.path.parent().unwrap_or(Path::new(""));
            // A tensor in a shard that the index forgot is surplus like any other: it must not vanish.
            for (name, file) in &index.places {
                let path = folder.join(file);
                if places.get(name).is_none_or(|i| self.files[*i].path != path) {
                    let what = format!("the index puts it into {file}, which does not have it");
                    problems.push(Problem::Other { name: name.clone(), what });
                }
            }
        }
        if !problems.is_empty() {
            let what = format!("the weights in {} contradict themselves", self.path.display());
            let help = (set.files.len() > 1 && set.index.is_none()).then(|| "give one of the files".into());
            return Err(DataError::Mismatch { what, problems, help });
        }
        self.enter(folder, &set, scope, places, parameters);
        let config = folder.join("config.json");
        if config.exists() {
            self.configs.push(config);
        }
        Ok(())
    }

    /// Enters tensors under the names that the model has for them.
    fn enter(
        &mut self,
        folder: &Path,
        set: &Set,
        scope: &str,
        places: BTreeMap<String, usize>,
        parameters: &[Parameter],
    ) {
        let inside = |p| tensors_of(p).filter_map(|n| Some(n.strip_prefix(scope)?.to_string())).collect::<Vec<_>>();
        let inside: Vec<Vec<String>> = parameters.iter().map(inside).filter(|names| !names.is_empty()).collect();
        let expected: Vec<Vec<&str>> = inside.iter().map(|names| names.iter().map(String::as_str).collect()).collect();
        let known: rustc_hash::FxHashSet<&str> = expected.iter().flatten().copied().collect();
        let mut passed: BTreeMap<&str, usize> = BTreeMap::new();
        let mut names: Vec<&str> = Vec::new();
        for name in places.keys().map(String::as_str) {
            match buffer(name).filter(|_| !known.contains(name)) {
                Some(buffer) => *passed.entry(buffer).or_default() += 1,
                None => names.push(name),
            }
        }
        // Averages beside what they are the averages of.
        let (averages, plain): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|n| is_average(n) && !known.contains(**n));
        let mut prefix = Prefix::find(&plain, &expected);
        match prefix.count(&plain, &expected) {
            found if !averages.is_empty() && 2 * found >= expected.len() => {
                let (n, example) = (averages.len(), averages[0]);
                self.notes.push(format!("passed over {n} averages beside the weights, such as `{example}`"));
                names = plain;
            }
            _ => prefix = Prefix::find(&names, &expected),
        }
        for name in names {
            let is_known = |n: &str| known.contains(n.strip_suffix("_scale_inv").unwrap_or(n));
            let renamed = prefix.in_model(name).filter(|n| !places.contains_key(n) && is_known(n));
            let model = renamed.unwrap_or_else(|| name.to_string());
            self.tensors.insert(format!("{scope}{model}"), (places[name], name.to_string()));
        }
        let place = if scope.is_empty() { self.path.display().to_string() } else { folder.display().to_string() };
        match (prefix.file.as_str(), prefix.model.as_str()) {
            ("", "") => {}
            (file, "") => self.notes.push(format!("names in {place} are taken without the prefix `{file}`")),
            ("", model) => self.notes.push(format!("names in {place} are taken with the prefix `{model}` added")),
            (file, model) => {
                self.notes.push(format!("names in {place} are taken with `{model}` for the prefix `{file}`"))
            }
        }
        if !passed.is_empty() {
            let count: usize = passed.values().sum();
            let names: Vec<_> = passed.into_keys().collect();
            let plural = if count == 1 { "" } else { "s" };
            self.notes.push(format!("passed over {count} buffer{plural} in {place} ({})", names.join(", ")));
        }
        if !set.beside.is_empty() {
            self.notes.push(format!("not read in {place}, beside the weights: {}", set.beside.join(", ")));
        }
    }

    /// The files, in the order in which they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The folder that the weights lie in, with its folders that were read.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (file, inner) = self.tensors.get(name)?;
        self.files[*file].get(inner)
    }

    /// Proves that the weights are exactly those of the model: none missing, none left over, all of the right shape, and
    /// no config beside them says otherwise. Gives what is to be told.
    pub fn check(&self, parameters: &[Parameter], configs: &[Config]) -> Result<Vec<String>, DataError> {
        let mut notes = self.notes.clone();
        for path in &self.configs {
            notes.extend(config_check::check(path, configs)?);
        }
        let get = |name: &str| self.get(name);
        let held: Vec<Option<Held<'_>>> = parameters.iter().map(|p| Held::find(p, get)).collect();
        // A parameter that the files have under several names takes them all.
        let mut taken: rustc_hash::FxHashSet<String> = parameters.iter().flat_map(names_of).map(String::from).collect();
        let mut scales = 0;
        for (parameter, held) in parameters.iter().zip(&held) {
            for tensor in held.iter().flat_map(|held| held.tensors(parameter)) {
                if self.get(&tensor).is_some_and(|view| is_fp8(view.dtype)) && taken.insert(scale_name(&tensor)) {
                    scales += 1;
                }
                taken.insert(tensor);
            }
        }
        let unfits: Vec<_> = parameters
            .iter()
            .zip(&held)
            .map(|(parameter, held)| if held.is_none() { unfit(parameter, get) } else { None })
            .collect();
        taken.extend(unfits.iter().flatten().flat_map(|(_, tensors)| tensors.iter().cloned()));
        let free: Vec<&str> = self.tensors.keys().map(String::as_str).filter(|n| !taken.contains(*n)).collect();
        let ignored = |name: &str| configs.iter().flat_map(|c| &c.ignored_weights).any(|pattern| pattern.matches(name));
        let (passed, free): (Vec<&str>, Vec<&str>) = free.into_iter().partition(|name| ignored(name));
        let of_others = |name: &str| configs.iter().flat_map(|c| &c.other_weights).any(|pattern| pattern.matches(name));
        let (others, free): (Vec<&str>, Vec<&str>) = free.into_iter().partition(|name| of_others(name));
        if let Some(first) = others.first() {
            let plural = if others.len() == 1 { "" } else { "s" };
            notes.push(format!("{} tensor{plural} of other parts, such as `{first}`", others.len()));
        }
        if let Some(first) = passed.first() {
            let plural = if passed.len() == 1 { "" } else { "s" };
            notes.push(format!(
                "passed over {} tensor{plural} that the class does not load, such as `{first}`",
                passed.len()
            ));
        }
        if scales > 0 {
            let plural = if scales == 1 { "" } else { "s" };
            notes.push(format!("{scales} tensor{plural} in FP8 multiplied out by the scales of their blocks"));
        }
        let mut problems = Vec::new();
        for ((parameter, held), unfit) in parameters.iter().zip(&held).zip(unfits) {
            if let Some(held) = held {
                problems.extend(held.problems(parameter, get));
                if Held::is_unclear(parameter, get) {
                    let tensor = held.tensors(parameter).swap_remove(0);
                    notes.push(format!(
                        "`{tensor}` may have its axes in two orders: the one that is saved today is taken"
                    ));
                }
                continue;
            }
            if let Some((found, _)) = unfit {
                let new = found.into_iter().filter(|problem| !problems.contains(problem)).collect::<Vec<_>>();
                problems.extend(new);
                continue;
            }
            // Where nothing fits, a list of guesses helps nobody and takes its time.
            let few = problems.len() < 32;
            let near = if few { nearest(&parameter.name, free.iter().copied()) } else { Vec::new() };
            let near = near.into_iter().map(String::from).collect();
            problems.push(Problem::Missing { name: parameter.name.to_string(), ty: parameter.ty.to_string(), near });
        }
        let surplus = free.iter().map(|name| {
            let ty = self.get(name).map(|v| v.text()).unwrap_or_default();
            Problem::Surplus { name: name.to_string(), ty }
        });
        problems.extend(surplus);
        if problems.is_empty() {
            self.check_equal(parameters, configs)?;
            return Ok(notes);
        }
        // What is there already in the form that was taken.
        let twice = parameters.iter().zip(&held).filter(|(_, held)| held.is_some()).find_map(|(parameter, _)| {
            let other = tensors_of(parameter).find(|name| free.contains(&name.as_str()))?;
            Some(format!(
                "`{}` lies in the files in two forms, of which one is `{other}`: take one of them out",
                parameter.name
            ))
        });
        let (wrong, total) = (problems.len(), parameters.len());
        Err(DataError::Mismatch {
            what: format!(
                "the weights in {} are not those of this model (found wrong: {wrong}; parameters of the model: {total})",
                self.path.display()
            ),
            problems,
            help: Some(self.lacking(configs).or(twice).unwrap_or_else(|| self.help())),
        })
    }

    /// What is said where a class has the model as a part, and no name begins as that part's do.
    fn lacking(&self, configs: &[Config]) -> Option<String> {
        let begins: Vec<&str> =
            configs.iter().flat_map(|c| &c.renames).flat_map(|r| &r.files).map(Name::as_str).collect();
        let names = || self.tensors.values().map(|(_, name)| name.as_str());
        if begins.is_empty() || names().any(|name| begins.iter().any(|begin| name.starts_with(begin))) {
            return None;
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        names().for_each(|name| *counts.entry(name.split_inclusive('.').next().unwrap_or(name)).or_default() += 1);
        let there: Vec<String> = counts.iter().map(|(begin, count)| format!("`{begin}` ({count})")).collect();
        let begins: Vec<String> = begins.iter().map(|begin| format!("`{begin}`")).collect();
        Some(format!(
            "no name begins with {}, as those of the model's part do: there are {}",
            begins.join(" or "),
            there.join(", ")
        ))
    }

    /// The way out where tensors and parameters do not fit.
    fn help(&self) -> String {
        match self.files.as_slice() {
            [file] if let Some((number, of)) = weights_folder::shard_of(&file.path) => {
                format!("this file is number {number} of {of}; give the folder, or the index beside it")
            }
            _ => "is it the right preset? `mmc manifest MODEL.mm --preset P` lists what a model expects".into(),
        }
    }

    /// Proves that a parameter which the files have under several names is the same under all: tied weights.
    fn check_equal(&self, parameters: &[Parameter], configs: &[Config]) -> Result<(), DataError> {
        let mut problems = Vec::new();
        for parameter in parameters {
            let mut names = self.names_of(parameter).filter_map(|n| Some((n, self.get(n)?)));
            let Some((first, view)) = names.next() else { continue };
            for (name, other) in names {
                let what = if (view.dtype, view.shape) != (other.dtype, other.shape) {
                    format!("is {}, and `{name}` is {}", view.text(), other.text())
                } else {
                    let Some(at) = view.difference(&other)? else { continue };
                    let element = at / (view.dtype.bitsize() / 8).max(1);
                    format!("differs from `{name}` at element {element}, and is one parameter with it in this plan")
                };
                problems.push(Problem::Other { name: first.into(), what });
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        // The switch that the model has for it.
        let tie = configs
            .iter()
            .flat_map(|c| &c.figures)
            .find(|f| f.value == Fact::Bool(true) && f.keys.iter().any(|k| k.ends_with("tie_word_embeddings")));
        let help = tie
            .and_then(|f| f.setting.as_ref())
            .map(|setting| format!("these weights are not tied: compile the model with `--set {setting}=false`"));
        Err(DataError::Mismatch {
            what: format!("the weights in {} hold two versions of one parameter", self.path.display()),
            problems,
            help,
        })
    }

    /// The names of a parameter under which the files have it.
    fn names_of<'a>(&self, parameter: &'a Parameter) -> impl Iterator<Item = &'a str> {
        names_of(parameter).filter(|n| self.tensors.contains_key(*n))
    }

    /// Writes a rank's share of a parameter's values, in its stored type, to `out`, and reads nothing else of the file.
    /// The weights must have passed `check`. Values that are not finite are refused.
    pub fn load(&self, parameter: &Parameter, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        let Some(held) = Held::find(parameter, |name| self.get(name)) else {
            return Err(DataError::format(&self.path, format!("no `{}` of type {}", parameter.name, share.ty())));
        };
        let found = |name: &str| {
            let view = self.get(name)?;
            let scales = if is_fp8(view.dtype) { Some(self.scales(name, &view)) } else { None };
            Some(scales.transpose().map(|scales| Found { view, scales }))
        };
        held.read(share, out, found).map_err(|(name, e)| {
            let place = self.tensors.get(&name).map(|(file, inner)| (self.files[*file].path.as_path(), inner.as_str()));
            let (path, name) = place.unwrap_or((&self.path, &name));
            e.of(path, name)
        })
    }

    fn scales(&self, name: &str, of: &TensorView<'_>) -> Result<Scales, ReadError> {
        let block = self.tensors.get(name).and_then(|(file, _)| self.blocks[*file]);
        let scale = self.get(&scale_name(name)).ok_or(ReadError::Missing)?;
        Scales::read(&scale, of.shape, block.unwrap_or(BLOCK))
    }
}

/// Names of sub-folders that hold safetensors files, sorted.
fn sub_folders(folder: &Path) -> Result<Vec<String>, DataError> {
    let holds = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let mut names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        path.is_dir() && names.any(|n| n.ends_with(".safetensors") || n.contains(".safetensors.index."))
    };
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| DataError::file(folder, e))?;
    // The state of a run is no part of its model.
    let is_state = |path: &Path| path.ends_with(STATE) && path.join("trainer.json").exists();
    let found = entries.into_iter().filter(|e| holds(&e.path()) && !is_state(&e.path()));
    let mut names: Vec<_> = found.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Weights in other formats, for the message that there are none in this one.
fn others(folder: &Path) -> Result<String, DataError> {
    const ENDINGS: [&str; 8] = ["bin", "pt", "pth", "ckpt", "gguf", "msgpack", "h5", "onnx"];
    let entries = fs::read_dir(folder).map_err(|e| DataError::file(folder, e))?.flatten();
    let is_other = |path: &PathBuf| path.extension().is_some_and(|e| ENDINGS.iter().any(|end| e == *end));
    let mut paths: Vec<_> = entries.map(|e| e.path()).filter(is_other).collect();
    paths.sort();
    Ok(match paths.first() {
        Some(path) => format!("; {} is there, and only safetensors files are read", path.display()),
        None => String::new(),
    })
}
