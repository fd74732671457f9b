//! Whether all processes see one folder under one path, and may write there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use crate::{DataError, Together};

/// Makes the folder if it is not there, and proves that what rank 0 writes into it is seen by all others, and that these
/// can write to it, too. A process that cannot is named. All processes call it.
pub fn prove(folder: &Path, together: &Together) -> Result<(), DataError> {
    if together.count() == 1 {
        return Ok(());
    }
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name = format!(".mmrun-{}-{}", std::process::id(), time.as_nanos());
    let make = || -> io::Result<Vec<u8>> {
        fs::create_dir_all(folder)?;
        let written = File::create_new(folder.join(&name))?.write_all(name.as_bytes());
        match written {
            // What needs the room says so.
            Err(e) if e.kind() == io::ErrorKind::StorageFull => Ok([&b"0"[..], name.as_bytes()].concat()),
            written => written.map(|()| [&b"1"[..], name.as_bytes()].concat()),
        }
    };
    let made = if together.is_first() { make() } else { Ok(Vec::new()) };
    let made = made.map_err(|e| DataError::file(folder, e));
    let told = together.agree("write into the folder for checkpoints or outputs", made);
    let probe = folder.join(&name);
    let _gone = together.is_first().then(|| Gone(&probe));
    let told = told?.into_iter().next().unwrap_or_default();
    let (whole, name) = told.split_first().unwrap_or((&b'1', &[]));
    let probe = folder.join(String::from_utf8_lossy(name).as_ref());
    let seen = match fs::read(&probe) {
        Ok(bytes) if bytes == name || *whole == b'0' => File::options().append(true).open(&probe).map(drop),
        Ok(_) => Err(io::Error::other("what rank 0 writes here, this rank does not see whole")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(io::Error::other(
            "it is not the folder that rank 0 has under this path: do all ranks see the same one?",
        )),
        Err(e) => Err(e),
    };
    let seen = seen.map(|()| Vec::new()).map_err(|e| DataError::file(folder, e));
    together.agree("look into the folder for checkpoints or outputs", seen).map(drop)
}

/// Removes a file in the end.
struct Gone<'a>(&'a Path);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        // It is in nobody's way.
        let _ = fs::remove_file(self.0);
    }
}
