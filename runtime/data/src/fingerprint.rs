//! Fingerprints: whether processes on several machines read the same files, without reading all of them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{DataError, Inputs};

/// Files that are looked into, spread over the list; of all others the name and size count.
const FILES: usize = 128;
/// Samples of all these files together, and of one at least.
const SAMPLES: usize = 1024;
const LEAST: usize = 8;
/// Bytes of a sample.
const SAMPLE: u64 = 1024;

/// Of files in their order: names (without folders, which may differ from machine to machine), sizes, and evenly spread
/// samples of what is in them, the first and last bytes included. Two sets of weights that were trained from the same
/// parameters differ in it; two that differ in a few values may not.
pub fn of_files<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String, DataError> {
    let files: Vec<&Path> = files.into_iter().collect();
    let looked_into = files.len().clamp(1, FILES);
    let samples = (SAMPLES / looked_into).max(LEAST) as u64;
    let mut hasher = blake3::Hasher::new();
    let mut next = 0;
    for (number, path) in files.iter().enumerate() {
        let look = number == next * files.len() / looked_into;
        next += usize::from(look);
        add(&mut hasher, path, if look { samples } else { 0 }).map_err(|e| DataError::file(path, e))?;
    }
    Ok(short(&hasher))
}

/// Of the values of all feeds that a file gives, by program.
pub fn of_inputs(inputs: &[Inputs]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (number, values) in inputs.iter().flat_map(Inputs::given).enumerate() {
        let Some(values) = values else { continue };
        hasher.update(&(number as u64).to_le_bytes());
        hasher.update(&(values.len() as u64).to_le_bytes());
        hasher.update(values);
    }
    short(&hasher)
}

/// Of any bytes.
pub fn of_bytes(bytes: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytes);
    short(&hasher)
}

fn add(hasher: &mut blake3::Hasher, path: &Path, samples: u64) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let size = path.metadata()?.len();
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name);
    hasher.update(&size.to_le_bytes());
    if samples == 0 {
        return Ok(());
    }
    let file = File::open(path)?;
    let last = size.saturating_sub(SAMPLE);
    let mut sample = [0; SAMPLE as usize];
    for i in 0..samples {
        let at = (u128::from(last) * u128::from(i) / u128::from((samples - 1).max(1))) as u64;
        let mut filled = 0;
        // What a file holds less than its size is noticed by whoever reads it.
        while let Ok(count @ 1..) = file.read_at(&mut sample[filled..], at + filled as u64) {
            filled += count;
        }
        hasher.update(&sample[..filled]);
    }
    Ok(())
}

/// Enough to tell files apart, and short enough to be read.
fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sizes_and_contents_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |files: &[(&str, Vec<u8>)]| {
            let paths: Vec<_> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
            for (path, (_, bytes)) in paths.iter().zip(files) {
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                std::fs::write(path, bytes).expect("written");
            }
            of_files(paths.iter().map(|p| p.as_path())).expect("a fingerprint")
        };
        let large = vec![1; 3 << 20];
        let base = of(&[("a/1", large.clone()), ("a/2", vec![2; 10])]);
        assert_eq!(base, of(&[("b/1", large.clone()), ("b/2", vec![2; 10])]), "another folder");
        assert_ne!(base, of(&[("a/2", vec![2; 10]), ("a/1", large.clone())]), "another order");
        assert_ne!(base, of(&[("a/1", large.clone()), ("a/3", vec![2; 10])]), "another name");
        assert_ne!(base, of(&[("a/1", large.clone()), ("a/2", vec![2; 11])]), "another size");
        assert_ne!(base, of(&[("a/1", vec![3; 3 << 20]), ("a/2", vec![2; 10])]), "other content");
        for at in [0, large.len() - 1] {
            let mut other = large.clone();
            other[at] = 9;
            assert_ne!(base, of(&[("a/1", other), ("a/2", vec![2; 10])]), "byte {at}");
        }
        let many: Vec<_> = (0..1000).map(|i| (format!("m/{i}"), vec![i as u8; 4])).collect();
        let many: Vec<_> = many.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let base = of(&many);
        let mut other = many.clone();
        other[0].1 = vec![7; 4];
        assert_ne!(base, of(&other));
        assert_ne!(base, of(&many[..999]));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = of_files([Path::new("/none/of/these")]).expect_err("missing");
        assert!(error.to_string().contains("/none/of/these"), "{error}");
    }
}
