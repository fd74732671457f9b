//! The files and folders that a run is to write, tried before it begins: what would fail at the end fails now.

use std::fs::{self, File};
use std::path::Path;

use data::WholeFile;

use crate::apart;
use crate::cli::{Args, Resume};
use crate::failure::Failure;

pub fn check(args: &Args) -> Result<(), Failure> {
    if args.seconds.is_some_and(|s| s.is_nan() || s <= 0.0) {
        return Err(Failure::new("--seconds wants a number above zero"));
    }
    for path in [&args.outputs, &args.trace, &args.metrics].into_iter().flatten() {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let message = format!("{}: there is no folder {}", path.display(), folder.display());
            return Err(Failure::new(message).help("make the folder first"));
        }
        if let Ok(WholeFile::Regular(place)) = WholeFile::at(path)
            && let Some(folder) = place.parent().filter(|p| !p.as_os_str().is_empty() && !p.is_dir())
        {
            let [place, folder] = [&*place, folder].map(|p| p.strip_prefix(".").unwrap_or(p).display());
            let message = format!("{} is a link to {place}, and there is no folder {folder}", path.display());
            return Err(Failure::new(message).help("make the folder first, or remove the link"));
        }
    }
    apart::check(args)?;
    if let Some(path) = &args.outputs {
        WholeFile::at(path).and_then(|place| place.probe()).map_err(|e| Failure::file(path, &e))?;
    }
    // These are written in place. What is there stays until the run begins.
    for path in [&args.trace, &args.metrics].into_iter().flatten() {
        let probe = WholeFile::at(path).and_then(|place| match &place {
            WholeFile::Regular(file) if file.exists() => File::options().append(true).open(file).map(drop),
            _ => place.probe(),
        });
        probe.map_err(|e| Failure::file(path, &e))?;
    }
    if args.save.as_ref().is_some_and(|p| p.exists() && !p.is_dir()) {
        return Err(Failure::new("--save wants a folder, and there is a file of that name"));
    }
    if let Some(path) = args.save.as_ref().filter(|p| !p.exists())
        && let Ok(target) = fs::read_link(path)
    {
        let message = format!("--save {} is a link to {}, which is not there", path.display(), target.display());
        return Err(Failure::new(message).help("make that folder first, or remove the link"));
    }
    resume(args)
}

/// What the flags about checkpoints ask for together.
fn resume(args: &Args) -> Result<(), Failure> {
    match &args.resume {
        Some(Resume::From(path)) if path.exists() && !path.is_dir() => {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let message = format!("--resume wants a folder, and {} is a file", path.display());
            Err(Failure::new(message)
                .help(format!("give the folder of the checkpoints, or of one of them: --resume {}", folder.display())))
        }
        Some(Resume::Auto) if args.save.is_none() => {
            Err(Failure::new("--resume auto goes on from the folder of --save, and there is no --save")
                .help("add --save DIR; a folder that is called auto is ./auto"))
        }
        Some(Resume::Auto) if args.save_over => {
            Err(Failure::new("--resume auto goes on with the checkpoints that --save-over would replace")
                .help("leave one of them out"))
        }
        Some(Resume::From(_)) if args.weights.is_some() => {
            Err(Failure::new("--weights and --resume both say what the parameters begin as")
                .help("leave one of them out; with --resume auto, --weights is for the run's first beginning"))
        }
        _ => Ok(()),
    }
}
