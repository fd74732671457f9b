//! Published checkpoint folders: the class that a config names, and the figures that it holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use diag::{Diagnostic, Diagnostics, SourceId};
use eval::{Offer, Published};
use serde_json::{Map, Value};
use types::{Fact, Name, Quantisation};

use crate::input;

/// Configs are short texts.
const MOST: u64 = 16 << 20;

/// A config, and the folder that it lies in.
#[derive(Debug)]
pub struct Config {
    path: PathBuf,
    /// What it calls itself, in `architectures` or in `_class_name`; a part of a file may say neither.
    class: Option<String>,
    facts: BTreeMap<Name, Fact>,
    /// How the weights are quantised, if they are not read in that form.
    quantised: Option<String>,
}

impl Config {
    /// Of a config file, a folder with a `config.json`, a pipeline's folder, or a hub's cache of one of these.
    pub fn open(path: &Path, offers: &[(&str, SourceId, Offer)]) -> Result<Self, Diagnostics> {
        if !path.is_dir() {
            return Self::read(path);
        }
        let folder = snapshot(path)?;
        let folder = newest(folder)?;
        let config = folder.join("config.json");
        if config.exists() {
            return Self::read(&config);
        }
        if !folder.join("model_index.json").exists() {
            return Err(Diagnostic::error(format!("{} holds no config.json and no model_index.json", path.display()))
                .help("give a .mm file, or a folder as `save_pretrained` writes it")
                .into());
        }
        let mut parts = parts(&folder)?;
        let at = model_part(path, &parts, offers)?;
        Ok(parts.swap_remove(at))
    }

    fn read(path: &Path) -> Result<Self, Diagnostics> {
        let config = object(path)?;
        let class = match (config.get("architectures"), config.get("_class_name")) {
            (Some(Value::Array(names)), _) => names.first().and_then(Value::as_str),
            (_, Some(Value::String(name))) => Some(name.as_str()),
            _ => None,
        };
        let (class, mut facts) = (class.map(String::from), BTreeMap::new());
        let mut config = Value::Object(config);
        let quantised = match Quantisation::of(&config) {
            Some(Quantisation::Other(what)) => Some(what.to_string()),
            Some(_) => {
                // `mmrun` multiplies the weights out as it loads them.
                config.as_object_mut().map(|config| config.remove("quantization_config"));
                None
            }
            None => None,
        };
        flatten("", &config, &mut facts);
        // What a pipeline says of its parts.
        let index = path.parent().and_then(Path::parent).map(|above| above.join("model_index.json"));
        if let Some(index) = index.filter(|index| index.is_file()) {
            let mut said = object(&index)?;
            said.retain(|_, value| !value.is_array());
            flatten("model_index", &Value::Object(said), &mut facts);
        }
        // How a pipeline samples.
        let scheduler = path.parent().and_then(Path::parent).map(|above| above.join("scheduler/scheduler_config.json"));
        if let Some(scheduler) = scheduler.filter(|scheduler| scheduler.is_file()) {
            flatten("scheduler", &Value::Object(object(&scheduler)?), &mut facts);
        }
        Ok(Self { path: path.into(), class, facts, quantised })
    }

    /// The built-in model that claims the class.
    pub fn model(&self, offers: &[(&str, SourceId, Offer)]) -> Result<SourceId, Diagnostics> {
        let all = || offers.iter().flat_map(|(_, _, offer)| offer.classes.iter().map(String::as_str));
        let Some(class) = &self.class else {
            return Err(Diagnostic::error(format!("{} names no class", self.path.display()))
                .help("it has neither `architectures` nor `_class_name`: name the model, with `--config` for this file")
                .into());
        };
        let found = offers.iter().find(|(_, _, offer)| offer.classes.contains(class));
        found.map(|(_, file, _)| *file).ok_or_else(|| {
            let path = self.path.display();
            let mut error = Diagnostic::error(format!("no built-in model claims {class}"))
                .note(format!("the class that {path} names"));
            if let Some(near) = types::nearest(class, all()).first() {
                error = error.help(format!("did you mean {near}?"));
            }
            let list = all().collect::<Vec<_>>().join(", ");
            error.help(format!("built in are {list}; a model of your own goes before `--config {path}`")).into()
        })
    }

    /// The figures for the evaluator, if the weights are in a form that is read.
    pub fn published(self) -> Result<Published, Diagnostics> {
        if let Some(what) = self.quantised {
            return Err(Diagnostic::error(format!("{}: the weights are quantised: {what}", self.path.display()))
                .help("take the release in bf16; or load the model in its library, dequantise it, and save it again")
                .into());
        }
        Ok(Published { path: self.path.display().to_string(), class: self.class.map(Name::from), facts: self.facts })
    }
}

/// Which part of a pipeline is the model: the generator, the first of several experts; else the only one that a built-in
/// model claims.
fn model_part(path: &Path, parts: &[Config], offers: &[(&str, SourceId, Offer)]) -> Result<usize, Diagnostics> {
    let name =
        |part: &Config| part.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    if let Some(at) = parts.iter().position(|part| ["transformer", "unet"].contains(&name(part).as_str())) {
        return Ok(at);
    }
    let claimed = |part: &Config| {
        let class = part.class.as_deref().unwrap_or_default();
        offers.iter().any(|(_, _, offer)| offer.classes.iter().any(|c| c == class))
    };
    let models: Vec<usize> = (0..parts.len()).filter(|i| claimed(&parts[*i])).collect();
    let what = match models.as_slice() {
        [at] => return Ok(*at),
        [] => "no built-in model claims a part of the pipeline",
        _ => "several parts are models in the pipeline",
    };
    if parts.is_empty() {
        return Err(Diagnostic::error(format!("no part of the pipeline {} has a config.json", path.display()))
            .help("download the folders that its model_index.json names")
            .into());
    }
    let named = |part: &Config| format!("{} ({})", name(part), part.class.as_deref().unwrap_or("no class"));
    let list: Vec<String> = parts.iter().map(named).collect();
    Err(Diagnostic::error(format!("{what} {}", path.display()))
        .help(format!("its parts are {}; give the folder of one", list.join(", ")))
        .into())
}

/// The configs of a pipeline's parts, in the order in which its index has them.
fn parts(folder: &Path) -> Result<Vec<Config>, Diagnostics> {
    let index = object(&folder.join("model_index.json"))?;
    let mut parts = vec![];
    for name in index.keys().filter(|name| !name.starts_with('_') && !name.contains(['/', '.'])) {
        let config = folder.join(name).join("config.json");
        if config.is_file() {
            parts.push(Config::read(&config)?);
        }
    }
    Ok(parts)
}

/// In a folder of checkpoints the newest, which `latest` names; else the folder itself.
fn newest(folder: PathBuf) -> Result<PathBuf, Diagnostics> {
    let own = ["config.json", "model_index.json"].iter().any(|name| folder.join(name).exists());
    let Ok(name) = input::text(&folder.join("latest"), 4096) else { return Ok(folder) };
    if own {
        return Ok(folder);
    }
    let named = folder.join(name.trim());
    if name.trim().is_empty() || Path::new(name.trim()).components().count() != 1 || !named.is_dir() {
        let what =
            format!("{} names {:?}, which is no checkpoint beside it", folder.join("latest").display(), name.trim());
        return Err(Diagnostic::error(what).help("give the folder of one: step-N").into());
    }
    Ok(named)
}

/// The snapshot in a hub's cache of a model, `models--ORG--NAME`; else the folder itself.
fn snapshot(folder: &Path) -> Result<PathBuf, Diagnostics> {
    let snapshots = folder.join("snapshots");
    if !snapshots.is_dir() {
        return Ok(folder.into());
    }
    let reference = input::text(&folder.join("refs/main"), 4096).ok();
    let entries = fs::read_dir(&snapshots).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    match types::hub_snapshot(reference.as_deref(), &names) {
        Ok(name) => Ok(snapshots.join(name)),
        Err(unclear) => {
            Err(Diagnostic::error(format!("{} {}", folder.display(), unclear.what)).help(unclear.help).into())
        }
    }
}

fn object(path: &Path) -> Result<Map<String, Value>, Diagnostics> {
    let refuse = |what: String| {
        Diagnostics::from(Diagnostic::error(format!("cannot read the config {}: {what}", path.display())))
    };
    let text = input::text(path, MOST).map_err(|e| refuse(e.to_string()))?;
    match serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))? {
        Value::Object(object) => Ok(object),
        _ => Err(refuse("it is no JSON object".into())),
    }
}

/// Facts by paths with dots; nulls are left out. Objects in lists go by their place.
fn flatten(path: &str, value: &Value, facts: &mut BTreeMap<Name, Fact>) {
    let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&below(key), value, facts)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(i, value)| flatten(&below(&i.to_string()), value, facts));
        }
        value => drop(Fact::of_json(value).map(|fact| facts.insert(path.into(), fact))),
    }
}
