//! The files that make a set of weights: chosen in a folder among its variants, complete, or named as missing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::DataError;
use crate::data_file::DataFile;
use crate::foreign::no_json;

/// No index of a published model comes near.
const LONGEST_INDEX: usize = 64 << 20;
/// Missing files that are named one by one.
const NAMED: usize = 10;

/// The weights of a folder.
pub struct Set {
    pub files: Vec<PathBuf>,
    /// The index that says where each tensor is, if there is one.
    pub index: Option<Index>,
    /// Sets beside it that were not taken.
    pub beside: Vec<String>,
}

pub struct Index {
    pub path: PathBuf,
    /// The file of each tensor.
    pub places: IndexMap<String, String>,
}

/// Files that share a name up to the number of a shard: `model`, `diffusion_pytorch_model.fp16`.
#[derive(Default)]
struct Variant {
    index: Option<PathBuf>,
    files: Vec<PathBuf>,
}

/// The set of weights in a folder, if it has any.
pub fn in_folder(folder: &Path) -> Result<Option<Set>, DataError> {
    let mut variants: BTreeMap<String, Variant> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|e| DataError::file(folder, e))? {
        let path = entry.map_err(|e| DataError::file(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(crate::checkpoint::OPTIMIZER) || name.starts_with("._") {
            continue;
        }
        if let Some(variant) = indexed(&name) {
            variants.entry(variant).or_default().index = Some(path);
        } else if let Some(stem) = name.strip_suffix(".safetensors") {
            variants.entry(shard(stem).map_or(stem.to_string(), |s| s.variant)).or_default().files.push(path);
        }
    }
    let all: Vec<String> = variants.keys().cloned().collect();
    // Weights in half precision, or averaged over a training, lie beside the originals.
    let plain: Vec<String> = all.iter().filter(|name| !is_special(name)).cloned().collect();
    let chosen = match (plain.as_slice(), all.as_slice()) {
        ([], []) => return Ok(None),
        ([], [one]) => vec![one.clone()],
        ([], several) => {
            return Err(DataError::Mismatch {
                what: format!("{} holds several variants of weights: {}", folder.display(), several.join(", ")),
                problems: Vec::new(),
                help: Some("give the file, or the index, of one of them".into()),
            });
        }
        // An index says what belongs together; files without one are parts that others named.
        (plain, _) => match plain.iter().filter(|name| variants[*name].index.is_some()).min_by_key(|name| name.len()) {
            Some(indexed) => vec![indexed.clone()],
            // The names that libraries give; adapters and the like lie beside them.
            None => match plain.iter().find(|name| ["model", "diffusion_pytorch_model"].contains(&name.as_str())) {
                Some(usual) => vec![usual.clone()],
                None => plain.to_vec(),
            },
        },
    };
    let beside = all.into_iter().filter(|name| !chosen.contains(name)).collect();
    let mut set = Set { files: Vec::new(), index: None, beside };
    for name in chosen {
        let Some(mut variant) = variants.remove(&name) else { continue };
        if let Some(index) = variant.index {
            let (files, index) = of_index(&index)?;
            (set.files, set.index) = (files, Some(index));
        } else {
            variant.files.sort();
            complete(folder, &variant.files)?;
            set.files.extend(variant.files);
        }
    }
    Ok(Some(set))
}

/// The weights that a path names: an index with its files, or one file.
pub fn of_file(path: &Path) -> Result<Set, DataError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if indexed(&name).is_some() || name.ends_with(".json") {
        let (files, index) = of_index(path)?;
        return Ok(Set { files, index: Some(index), beside: Vec::new() });
    }
    Ok(Set { files: vec![path.to_path_buf()], index: None, beside: Vec::new() })
}

/// Of a file that is one of several shards: its number and theirs.
pub fn shard_of(path: &Path) -> Option<(usize, usize)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
    shard(name).filter(|s| s.of > 1).map(|s| (s.number, s.of))
}

/// The files that an index names, all of which must be there.
fn of_index(path: &Path) -> Result<(Vec<PathBuf>, Index), DataError> {
    #[derive(serde::Deserialize)]
    struct Text {
        weight_map: IndexMap<String, String>,
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let text = DataFile::whole(path, LONGEST_INDEX)?;
    let refuse = |what: String| DataError::format(path, format!("no index of safetensors files: {what}"));
    if text.trim_ascii_start().starts_with(b"[") {
        return Err(refuse("it is a JSON list, and an object with `weight_map` is needed".into()));
    }
    let text: Text = serde_json::from_slice(&text).map_err(|e| refuse(no_json(&text, &e)))?;
    let mut names: Vec<&String> = text.weight_map.values().collect();
    names.sort();
    names.dedup();
    // An index names files beside it; anything else is not ours to open.
    let outside = |name: &&&String| Path::new(name.as_str()).components().count() != 1 || name.contains("..");
    if let Some(name) = names.iter().find(outside) {
        return Err(DataError::format(path, format!("`{name}` is not a file beside the index")));
    }
    let missing: Vec<&str> = names.iter().filter(|n| !folder.join(n).exists()).map(|n| n.as_str()).collect();
    if !missing.is_empty() {
        return Err(missing_files(path, names.len(), &missing));
    }
    let files = names.into_iter().map(|name| folder.join(name)).collect();
    Ok((files, Index { path: path.into(), places: text.weight_map }))
}

/// Finds out from the names of shards whether one is missing.
fn complete(folder: &Path, files: &[PathBuf]) -> Result<(), DataError> {
    let shards: Vec<Shard> = files.iter().filter_map(|f| shard(f.file_stem()?.to_str()?)).collect();
    let Some(first) = shards.first() else { return Ok(()) };
    if let Some(other) = shards.iter().find(|s| s.of != first.of) {
        let what = format!("shards of two sets: some of {}, some of {}", first.of, other.of);
        return Err(DataError::format(folder, what));
    }
    // A number in a name is not to be believed.
    let missing: Vec<String> = (1..=first.of)
        .filter(|n| shards.iter().all(|s| s.number != *n))
        .take(NAMED + 1)
        .map(|n| first.name(n))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<&str> = missing.iter().map(String::as_str).collect();
    Err(missing_files(folder, first.of, &missing))
}

fn missing_files(path: &Path, all: usize, missing: &[&str]) -> DataError {
    let more = if missing.len() > NAMED { ", .." } else { "" };
    let named = missing[..missing.len().min(NAMED)].join(", ");
    DataError::Mismatch {
        what: format!("{}: the weights are {all} files, of which some are missing: {named}{more}", path.display()),
        problems: Vec::new(),
        help: Some("fetch them into the same folder".into()),
    }
}

/// `model-00002-of-00003`
struct Shard {
    variant: String,
    /// Before and behind the number.
    around: [String; 2],
    digits: usize,
    number: usize,
    of: usize,
}

impl Shard {
    fn name(&self, number: usize) -> String {
        let [before, behind] = &self.around;
        format!("{before}-{number:0width$}{behind}.safetensors", width = self.digits)
    }
}

fn shard(stem: &str) -> Option<Shard> {
    let at = stem.rfind("-of-")?;
    let (before, number) = stem[..at].rsplit_once('-')?;
    let of = &stem[at + 4..];
    let end = of.find(|c: char| !c.is_ascii_digit()).unwrap_or(of.len());
    let is_number = |text: &str| !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(number) || !is_number(&of[..end]) {
        return None;
    }
    // Older releases have the variant behind the numbers: `model-00001-of-00002.fp16`.
    let variant = format!("{before}{}", &of[end..]);
    let around = [before.to_string(), stem[at..].to_string()];
    Some(Shard { variant, around, digits: number.len(), number: number.parse().ok()?, of: of[..end].parse().ok()? })
}

/// `model.safetensors.index.json` and `model.safetensors.index.fp16.json` by the variant that they list.
fn indexed(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once(".safetensors.index.")?;
    let variant = rest.strip_suffix("json")?;
    match variant.strip_suffix('.') {
        Some(variant) => Some(format!("{stem}.{variant}")),
        None if variant.is_empty() => Some(stem.to_string()),
        None => None,
    }
}

/// Whether a name says that these weights are another form of plain ones.
fn is_special(name: &str) -> bool {
    const WORDS: [&str; 14] = [
        "fp16",
        "bf16",
        "fp32",
        "fp8",
        "f16",
        "f32",
        "half",
        "int8",
        "int4",
        "ema",
        "nonema",
        "pruned",
        "quantized",
        "scaled",
    ];
    let name = name.to_ascii_lowercase().replace("non_ema", "nonema").replace("non-ema", "nonema");
    name.split(['.', '_', '-']).skip(1).any(|word| WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], expect: Result<(&[&str], &[&str]), &str>) {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let index =
                r#"{"weight_map": {"a": "NAME-00001-of-00002.safetensors", "b": "NAME-00002-of-00002.safetensors"}}"#;
            let variant = indexed(name).unwrap_or_default();
            fs::write(folder.path().join(name), index.replace("NAME", &variant)).expect("written");
        }
        let found = in_folder(folder.path());
        match expect {
            Ok((files, beside)) => {
                let set = found.expect("a set").expect("not empty");
                let name = |f: &PathBuf| f.file_name().expect("a name").to_string_lossy().into_owned();
                assert_eq!(set.files.iter().map(name).collect::<Vec<_>>(), files, "{names:?}");
                assert_eq!(set.beside, beside, "{names:?}");
            }
            Err(told) => {
                let error = found.map(|_| ()).expect_err("refused").to_string();
                assert!(error.contains(told), "{error}");
            }
        }
    }

    #[test]
    fn the_plain_set_is_taken() {
        check(&["model.safetensors"], Ok((&["model.safetensors"], &[])));
        check(&["m.fp16.safetensors"], Ok((&["m.fp16.safetensors"], &[])));
        check(&["m.fp16.safetensors", "m.safetensors"], Ok((&["m.safetensors"], &["m.fp16"])));
        check(&["model.safetensors", "model_ema.safetensors"], Ok((&["model.safetensors"], &["model_ema"])));
        check(&["m.fp16.safetensors", "m.non_ema.safetensors"], Err("several variants of weights: m.fp16, m.non_ema"));
        let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        check(&shards, Ok((&shards, &[])));
        let indexed = [shards[0], shards[1], "model.safetensors.index.json"];
        check(&indexed, Ok((&shards, &[])));
        check(&[shards[0], shards[1], indexed[2], "model.fp16.safetensors"], Ok((&shards, &["model.fp16"])));
        check(&[shards[0], shards[1], indexed[2], "consolidated.safetensors"], Ok((&shards, &["consolidated"])));
        check(&["adapter_model.safetensors", "model.safetensors"], Ok((&["model.safetensors"], &["adapter_model"])));
        // Parts that say nothing of a set belong together.
        check(&["a.safetensors", "b.safetensors"], Ok((&["a.safetensors", "b.safetensors"], &[])));
        check(&["d.fp16-00001-of-00001.safetensors", "d.safetensors"], Ok((&["d.safetensors"], &["d.fp16"])));
        check(&["d-00001-of-00001.fp16.safetensors", "d.safetensors"], Ok((&["d.safetensors"], &["d.fp16"])));
    }

    #[test]
    fn a_missing_shard_is_named() {
        check(&["model-00001-of-00003.safetensors"], Err("3 files, of which some are missing: model-00002-of-00003"));
        let index = "model.safetensors.index.json";
        check(&["model-00001-of-00002.safetensors", index], Err("missing: model-00002-of-00002.safetensors"));
        check(&["model-1-of-99999999.safetensors"], Err("model-11-of-99999999.safetensors, .."));
    }
}
