//! What leaves `mmc`: files that appear whole or not at all, and words on standard output and standard error.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use diag::{Diagnostic, Diagnostics};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use tempfile::NamedTempFile;

/// As many links as the system follows.
const MOST_LINKS: usize = 40;

/// What a task samples with, a line each.
pub fn settings(settings: &[eval::Setting]) -> String {
    let line =
        |eval::Setting { name, value, origin }: &eval::Setting| format!("  setting     {name} {value} ({origin})\n");
    settings.iter().map(line).collect()
}

/// Writes a file whole: a half-written one must never be found under its name. Links are followed, and what is no regular
/// file (a pipe, a device) is written through.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Diagnostics> {
    let write = || match place(path)? {
        Place::Regular(place) => {
            let mut file = temporary(&place)?;
            file.write_all(bytes)?;
            file.persist(&place)?;
            Ok(())
        }
        Place::Through => {
            let kind = fs::metadata(path)?.file_type();
            if kind.is_fifo() {
                return pipe(path)?.write_all(bytes);
            }
            // A regular file that is open already, such as /dev/stdout, is added to.
            File::options().write(true).append(kind.is_file()).open(path)?.write_all(bytes)
        }
    };
    write().map_err(|e| cannot(path, &e))
}

/// Finds now what would keep a file from being written after a long compilation.
pub fn probe(path: &Path) -> Result<(), Diagnostics> {
    let probe = || match place(path)? {
        Place::Regular(place) => temporary(&place)?.close(),
        Place::Through => Ok(()),
    };
    probe().map_err(|e| cannot(path, &e))
}

/// Refuses to write where one of the files is that the command reads. Devices and pipes may be both.
pub fn apart(output: &Path, inputs: &[(&str, Option<&Path>)]) -> Result<(), Diagnostics> {
    let Some(at) = file_at(output) else { return Ok(()) };
    for (what, input) in inputs {
        let Some(input) = input.filter(|input| file_at(input).is_some_and(|input| input == at)) else { continue };
        let (output, input) = (output.display().to_string(), input.display().to_string());
        let link = if output == input { String::new() } else { format!(" {input}") };
        return Err(Diagnostic::error(format!("{output} is {what}{link} that is read, and would be replaced"))
            .help("choose another place for what is written")
            .into());
    }
    Ok(())
}

/// What a path leads to, if that is a regular file: its device and number, which its links share.
fn file_at(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|about| (about.dev(), about.ino()))
}

/// Prints to standard output. A reader that has seen enough (`mmc ir | head`) is no error.
pub fn print(text: &str) -> Result<(), Diagnostics> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Diagnostic::error(format!("cannot write to standard output: {e}")).into())
        }
        _ => Ok(()),
    }
}

/// Prints to standard error. Nobody may be there to read it, which is no reason to fail.
pub fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

enum Place {
    /// A place for a regular file, without links.
    Regular(PathBuf),
    /// What takes bytes as they come.
    Through,
}

fn place(path: &Path) -> io::Result<Place> {
    let mut at = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let kind = match fs::symlink_metadata(&at) {
            Ok(about) => about.file_type(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Place::Regular(at)),
            Err(e) => return Err(e),
        };
        if kind.is_dir() {
            return Err(io::Error::new(ErrorKind::IsADirectory, "is a folder, and a file is to be written"));
        }
        if kind.is_socket() {
            return Err(io::Error::other("is a socket, and a file or a pipe is to be written"));
        }
        if !kind.is_symlink() {
            return Ok(if kind.is_file() { Place::Regular(at) } else { Place::Through });
        }
        let folder = folder(&at);
        // An open file of this process, such as /dev/stdout.
        if folder.starts_with("/proc") || folder.starts_with("/dev/fd") {
            return Ok(Place::Through);
        }
        at = folder.join(fs::read_link(&at)?);
    }
    Err(io::Error::other("too many links"))
}

/// Opens a pipe; says so if it has no reader yet, since the compiler then waits for one. A pipe without a name never gets
/// one.
fn pipe(path: &Path) -> io::Result<File> {
    match File::options().write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path) {
        Ok(file) => {
            fcntl_setfl(&file, OFlags::empty())?;
            Ok(file)
        }
        Err(e) if e.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            path.canonicalize().map_err(|_| ErrorKind::BrokenPipe)?;
            tell(&format!("{} waits for somebody who reads from this pipe\n", path.display()));
            File::options().write(true).open(path)
        }
        Err(e) => Err(e),
    }
}

fn temporary(place: &Path) -> io::Result<NamedTempFile> {
    // As the umask has it, or as the file is that it replaces.
    let mode = fs::metadata(place).map_or(0o666, |m| m.permissions().mode() & 0o7777);
    let made = tempfile::Builder::new().permissions(fs::Permissions::from_mode(mode)).tempfile_in(folder(place));
    made.map_err(|e| system(&e).unwrap_or(e))
}

/// The system's own error, without the temporary name, which says nothing to anyone.
fn system(error: &io::Error) -> Option<io::Error> {
    let within = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    within.raw_os_error().map(io::Error::from_raw_os_error)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn cannot(path: &Path, error: &io::Error) -> Diagnostics {
    Diagnostic::error(format!("cannot write {}: {error}", path.display())).help("choose another place with -o").into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        symlink("there", at("dangling")).expect("linked");
        symlink("dangling", at("twice")).expect("linked");
        write(&at("twice"), b"one").expect("written");
        assert_eq!(fs::read(at("there")).expect("through both links"), b"one");
        fs::set_permissions(at("there"), fs::Permissions::from_mode(0o640)).expect("set");
        write(&at("dangling"), b"two").expect("written");
        assert_eq!(fs::metadata(at("there")).expect("there").permissions().mode() & 0o777, 0o640);
        symlink("/dev/null", at("null")).expect("linked");
        write(&at("null"), b"gone").expect("written through");
        assert!(fs::symlink_metadata(at("null")).expect("there").is_symlink());
        let fifo = rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0);
        fifo.expect("a pipe");
        let pipe = at("pipe");
        let reader = std::thread::spawn(|| fs::read(pipe));
        write(&at("pipe"), &[7; 200_000]).expect("written through");
        assert_eq!(reader.join().expect("a reader").expect("read"), [7; 200_000]);
        symlink("round", at("round")).expect("linked");
        for place in [at("round"), at(""), at("none/plan.bin"), at("there/plan.bin"), "/dev/full".into()] {
            assert!(write(&place, b"no").is_err(), "{}", place.display());
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 6);
    }
}
