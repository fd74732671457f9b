//! The files of a dataset: a folder's tars and safetensors files in the order of their names, or one such file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::tar_index::{Tally, extension};

/// Folders within folders that are looked into for records that would be left out.
const DEPTH: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tar,
    Tensors,
}

/// The files, and how many others the folder holds.
pub fn list(path: &Path) -> Result<(Vec<(PathBuf, Kind)>, Tally), DataError> {
    if !path.is_dir() {
        let kind = kind(path).ok_or_else(|| match packed(path) {
            Some(way_out) => DataError::format(path, way_out),
            None => {
                DataError::format(path, "records come from .tar or .safetensors files, and the name ends otherwise")
            }
        });
        // What is not there is better said than what it is called.
        let about = fs::metadata(path).map_err(|e| DataError::file(path, e))?;
        if !about.is_file() {
            return Err(DataError::format(path, "is no regular file"));
        }
        return kind.map(|kind| (vec![(path.to_path_buf(), kind)], Tally::new()));
    }
    let (mut files, mut left_out) = (Vec::new(), Tally::new());
    for path in entries(path)? {
        if path.is_dir() {
            if let Some(deep) = record_in(&path, DEPTH)? {
                return Err(DataError::Mismatch {
                    what: format!("{}: records in a folder of the folder are not read", deep.display()),
                    problems: Vec::new(),
                    help: Some("give that folder itself, or move its files up".into()),
                });
            }
            *left_out.entry("folder".into()).or_default() += 1;
            continue;
        }
        match kind(&path) {
            Some(kind) => files.push((path, kind)),
            None => match packed(&path) {
                Some(way_out) => return Err(DataError::format(&path, way_out)),
                None => *left_out.entry(extension(path.as_os_str().as_encoded_bytes())).or_default() += 1,
            },
        }
    }
    Ok((files, left_out))
}

/// Sorted: the order of a folder is the file system's whim.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| DataError::file(folder, e))?;
    let mut paths: Vec<_> = entries.into_iter().map(|e| e.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The first file in or below a folder that a user would expect to be read.
fn record_in(folder: &Path, depth: usize) -> Result<Option<PathBuf>, DataError> {
    let hidden = folder.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
    if hidden || depth == 0 {
        return Ok(None);
    }
    for path in entries(folder)? {
        // A link to a folder may lead in a circle.
        if path.is_symlink() && path.is_dir() {
            continue;
        }
        if path.is_dir() {
            if let Some(found) = record_in(&path, depth - 1)? {
                return Ok(Some(found));
            }
        } else if kind(&path).is_some() || packed(&path).is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn kind(path: &Path) -> Option<Kind> {
    let name = name(path);
    match () {
        _ if name.starts_with("._") => None,
        _ if name.ends_with(".tar") => Some(Kind::Tar),
        _ if name.ends_with(".safetensors") => Some(Kind::Tensors),
        _ => None,
    }
}

/// What to do about records in a compressed file.
fn packed(path: &Path) -> Option<&'static str> {
    let name = name(path);
    let ends = |endings: &[&str]| endings.iter().any(|end| name.ends_with(end));
    match () {
        _ if name.starts_with("._") => None,
        _ if ends(&[".tgz", ".tar.gz", ".safetensors.gz"]) => Some("is compressed; unpack it with `gzip -d`"),
        _ if ends(&[".tzst", ".tar.zst", ".safetensors.zst"]) => Some("is compressed; unpack it with `zstd -d`"),
        _ if ends(&[".txz", ".tar.xz", ".safetensors.xz"]) => Some("is compressed; unpack it with `xz -d`"),
        _ if ends(&[".tbz2", ".tbz", ".tar.bz2", ".safetensors.bz2"]) => {
            Some("is compressed; unpack it with `bzip2 -d`")
        }
        _ if ends(&[".tar.lz4", ".tar.lzma", ".tar.lz", ".tar.z", ".tar.br"]) => Some("is compressed; unpack it first"),
        _ if ends(&[".zip"]) => Some("is a zip archive; pack its records as .tar"),
        _ => None,
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
