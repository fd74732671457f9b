//! One shared object from many object files, with no imports.

use std::path::Path;
use std::process::Command;

use crate::error::Error;

/// Links `objects` with `linker`, an `ld.lld` of LLVM 22. An undefined symbol is an error: kernels call nothing outside.
pub fn link(objects: &[Vec<u8>], linker: &Path) -> Result<Vec<u8>, Error> {
    let folder = tempfile::tempdir().map_err(Error::Scratch)?;
    let output = folder.path().join("kernels.so");
    let mut command = Command::new(linker);
    // Names inside the folder are relative: no path of this machine reaches the output.
    command.current_dir(folder.path());
    command.args([
        "-shared",
        "-nostdlib",
        "--no-undefined",
        "-z",
        "noexecstack",
        "-z",
        "norelro",
        "--hash-style=gnu",
        "--gc-sections",
        "-soname=kernels.so",
        "--build-id=none",
        "-o",
        "kernels.so",
    ]);
    for (index, object) in objects.iter().enumerate() {
        let name = format!("{index}.o");
        std::fs::write(folder.path().join(&name), object).map_err(Error::Scratch)?;
        command.arg(name);
    }
    let result = command.output().map_err(|source| Error::LinkerMissing { linker: linker.to_owned(), source })?;
    if !result.status.success() {
        return Err(Error::Link { message: String::from_utf8_lossy(&result.stderr).trim().to_owned() });
    }
    std::fs::read(output).map_err(Error::Scratch)
}
