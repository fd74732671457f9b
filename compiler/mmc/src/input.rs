//! What `mmc` reads, each up to a bound: a device or a pipe may have no end.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use report::quantity;

/// Sources, machines and lists of hosts are written by people.
pub const MOST_TEXT: u64 = 64 << 20;
/// Traces, graphs and programs are written by programs; `mmrun` ends a trace after a million events.
pub const MOST_PRINTED: u64 = 1 << 30;
/// Compiled code holds the constants of a segment, which fit into a device.
#[cfg(any(feature = "cpu", feature = "ascend"))]
pub const MOST_CODE: u64 = 128 << 30;

/// A file of `most` bytes at most.
pub fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let mut bytes = Vec::new();
    if about.is_file() {
        if about.len() > most {
            return Err(too_large(most));
        }
        bytes.try_reserve_exact(usize::try_from(about.len()).unwrap_or(usize::MAX))?;
    }
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(bytes) }
}

/// A text of `most` bytes at most.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(bytes(path, most)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no text: not all of it is UTF-8"))
}

fn too_large(most: u64) -> io::Error {
    let what = format!("it has more than {}, the most that is read of such a file", quantity::bytes(most));
    io::Error::new(ErrorKind::FileTooLarge, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_up_to_the_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        std::fs::write(&path, "12345678").expect("written");
        assert_eq!(text(&path, 8).expect("read"), "12345678");
        assert_eq!(bytes(&path, 7).expect_err("longer").kind(), ErrorKind::FileTooLarge);
        std::fs::write(&path, [0xff]).expect("written");
        assert_eq!(text(&path, 8).expect_err("no text").kind(), ErrorKind::InvalidData);
        let error = bytes(Path::new("/dev/zero"), 1 << 20).expect_err("endless").to_string();
        assert!(error.contains("more than 1 MiB") || error.contains("more than 1.0 MiB"), "{error}");
        assert!(bytes(Path::new("/dev/null"), 8).expect("read").is_empty());
    }
}
