//! What lies beside a model's weights and goes with them: configs, tokenizers, and the other parts of a pipeline.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::DataError;
use crate::checkpoint::write_synced;
use crate::data_file::DataFile;

/// Larger files are no configs, tokenizers or vocabularies.
const LONGEST: u64 = 64 << 20;
const INDEX: &str = "model_index.json";

/// A file of a checkpoint that is no tensor of the run.
#[derive(Clone, Debug)]
pub struct Beside {
    /// In the checkpoint.
    pub path: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// Held in memory: the folder it comes from may be a checkpoint that goes.
    Bytes(Vec<u8>),
    /// Weights of a pipeline's other parts stay where they are.
    Link(PathBuf),
}

impl Beside {
    pub fn text(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.into(), content: Content::Bytes(bytes) }
    }

    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Link(_) => 0,
        }
    }

    /// Writes it into a folder. Where a disk takes no links, what would be one is left out.
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        let path = folder.join(&self.path);
        match &self.content {
            Content::Bytes(bytes) => write_synced(&path, bytes),
            Content::Link(to) => match symlink(to, &path) {
                Err(e) if matches!(e.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => Ok(()),
                linked => linked.map_err(|e| DataError::file(&path, e)),
            },
        }
    }
}

/// What `save_pretrained` and tokenizers write beside a model in `folder`, but for its config.
pub fn of_model(folder: &Path, prefix: &str) -> Result<Vec<Beside>, DataError> {
    let mut found = vec![];
    for (name, path) in entries(folder)? {
        let about = fs::metadata(&path).map_err(|e| DataError::file(&path, e))?;
        if name != "config.json" && is_companion(&name) && about.is_file() && about.len() <= LONGEST {
            found.push(Beside::text(&format!("{prefix}{name}"), DataFile::whole(&path, LONGEST as usize)?));
        }
    }
    Ok(found)
}

/// The index of a pipeline, and its parts but for those that are models of the run: small files themselves, weights as
/// links to where they lie.
pub fn of_pipeline(root: &Path, models: &[(String, String)]) -> Result<Vec<Beside>, DataError> {
    let path = root.join(INDEX);
    if !path.is_file() {
        return Ok(vec![]);
    }
    let text = DataFile::whole(&path, LONGEST as usize)?;
    let index: Value = serde_json::from_slice(&text).map_err(|e| DataError::format(&path, e))?;
    let mut found = of_model(root, "")?;
    found.push(Beside::text(INDEX, text));
    let is_part = |name: &&String| !name.starts_with(['_', '.']) && !name.contains(['/', '\\']);
    let parts = index.as_object().into_iter().flat_map(|index| index.keys()).filter(is_part);
    for part in parts.filter(|part| models.iter().all(|(folder, _)| folder != *part)) {
        let folder = root.join(part);
        if !folder.is_dir() {
            continue;
        }
        for (name, path) in entries(&folder)? {
            let about = fs::metadata(&path).map_err(|e| DataError::file(&path, e))?;
            let content = match about.is_file() {
                true if is_weights(&name) || about.len() > LONGEST => {
                    Content::Link(path.canonicalize().map_err(|e| DataError::file(&path, e))?)
                }
                true => Content::Bytes(DataFile::whole(&path, LONGEST as usize)?),
                false => continue,
            };
            found.push(Beside { path: format!("{part}/{name}"), content });
        }
    }
    Ok(found)
}

/// Files with their names, sorted.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| DataError::file(folder, e))?;
    let there = entries.iter().filter(|e| e.path().exists());
    let mut found: Vec<_> = there.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect();
    found.sort();
    Ok(found)
}

/// Whether a name is one of those that libraries give to what belongs to a model; a user's files are left alone.
fn is_companion(name: &str) -> bool {
    const BEGINS: [&str; 16] = [
        "LICENSE",
        "added_tokens.",
        "chat_template.",
        "configuration_",
        "image_processing_",
        "merges.",
        "modeling_",
        "normalizer.",
        "preprocessor_",
        "processing_",
        "sentencepiece.",
        "special_tokens_map.",
        "spiece.",
        "tokenization_",
        "tokenizer",
        "vocab.",
    ];
    // With these, a library would take the folder for an adapter, or the weights for quantised ones.
    const NOT: [&str; 3] = ["adapter_config.json", "quantize_config.json", "quant_config.json"];
    let is_named = name.ends_with("config.json") || BEGINS.iter().any(|begin| name.starts_with(begin));
    is_named && !NOT.contains(&name) && !is_weights(name)
}

fn is_weights(name: &str) -> bool {
    [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5", ".onnx"]
        .iter()
        .any(|e| name.ends_with(e))
}
