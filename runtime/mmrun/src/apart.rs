//! Whether what a run writes would replace what it reads, or another thing that it writes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use data::WholeFile;

use crate::cli::{Args, Resume};
use crate::failure::Failure;

/// How the names begin that files of weights and checkpoints have, wherever they lie in their folder.
const PUBLISHED: [&str; 7] =
    ["model", "diffusion_pytorch_model", "optimizer", "parameters.", "config.json", "trainer.json", "latest"];
/// How the names end of files that lie in a folder of records or weights itself.
const READ: [&str; 2] = [".safetensors", ".tar"];

/// Refuses an output that is an input or another output. Devices and pipes may be shared.
pub fn check(args: &Args) -> Result<(), Failure> {
    let resumed = match &args.resume {
        Some(Resume::From(path)) => Some(path),
        _ => None,
    };
    let read = [
        ("the plan", Some(&args.plan)),
        ("--weights", args.weights.as_ref()),
        ("--data", args.data.as_ref()),
        ("--inputs", args.inputs.as_ref()),
        ("--resume", resumed),
        ("--save", args.save.as_ref()),
    ];
    let written = [("--outputs", &args.outputs), ("--trace", &args.trace), ("--metrics", &args.metrics)];
    let written: Vec<_> = written.iter().filter_map(|(flag, path)| Some((*flag, path.as_ref()?))).collect();
    for (number, (flag, path)) in written.iter().enumerate() {
        let Some(place) = place(path) else { continue };
        for (what, input) in read.iter().filter_map(|(what, input)| Some((*what, (*input)?))) {
            if is_same(&place, input) {
                return Err(refused(flag, path, &format!("{what} {}", input.display()), "this run uses, too"));
            }
            if is_read_in(&place, what, input) {
                return Err(refused(flag, path, &format!("a file of {what} {}", input.display()), "would be replaced"));
            }
        }
        if let Some((other, _)) = written[..number].iter().find(|(_, other)| is_same(&place, other)) {
            return Err(refused(flag, path, &format!("the file of {other}"), "this run writes, too"));
        }
    }
    Ok(())
}

fn refused(flag: &str, path: &Path, what: &str, why: &str) -> Failure {
    Failure::new(format!("{flag} {} is {what}, which {why}", path.display()))
        .help(format!("give {flag} a place of its own"))
}

/// Where a regular file is to be, without links; None for what takes bytes as they come.
fn place(path: &Path) -> Option<PathBuf> {
    match WholeFile::at(path) {
        Ok(WholeFile::Regular(place)) => Some(place),
        // That it is a folder, or cannot be reached, is said by others.
        Err(_) => Some(path.into()),
        Ok(WholeFile::Through(_)) => None,
    }
}

/// Whether both are one file, by whatever names; or will be.
fn is_same(place: &Path, other: &Path) -> bool {
    match (fs::metadata(place), fs::metadata(other)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => self::place(other).is_some_and(|other| resolved(place) == resolved(&other)),
        _ => false,
    }
}

/// Whether a file that is there is one of those that are read in a folder, or beside the index of weights. What else a
/// run wrote into it, such as its metrics, may be written again.
fn is_read_in(place: &Path, what: &str, input: &Path) -> bool {
    let is_index = input.is_file() && input.to_string_lossy().ends_with(".index.json");
    let folder = if is_index { input.parent().map(folder_of) } else { Some(input.into()) };
    let Some(folder) = folder.filter(|f| f.is_dir()).and_then(|f| f.canonicalize().ok()) else { return false };
    let place = resolved(place);
    if !place.is_file() || !place.starts_with(&folder) {
        return false;
    }
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let direct = what == "--data" || what == "--weights" && !is_index && !folder.join("latest").exists();
    let in_folder = direct && place.parent() == Some(&folder) && READ.iter().any(|end| name.ends_with(end));
    in_folder || what != "--data" && PUBLISHED.iter().any(|begin| name.starts_with(begin))
}

fn folder_of(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { ".".into() } else { path.into() }
}

/// A path whose last part need not be there.
fn resolved(path: &Path) -> PathBuf {
    let folder = folder_of(path.parent().unwrap_or(Path::new("")));
    let folder = folder.canonicalize().unwrap_or(folder);
    path.file_name().map_or(folder.clone(), |name| folder.join(name))
}
