//! Weights of a class's other parts: the model does not have them, and they go on from folder to folder, byte for byte.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use blake3::{Hash, Hasher};
use serde_json::{Map, Value, json};
use types::NamePattern;

use crate::{DataError, TensorFile, TensorView, weights_folder};

/// Tensors in the folder that a model was read from. The files stay open: it may be a checkpoint that goes.
#[derive(Debug)]
pub struct OtherWeights {
    files: Vec<TensorFile>,
    /// Names with the number of their file, sorted.
    tensors: Vec<(String, usize)>,
}

impl OtherWeights {
    /// The tensors of a folder that are called like one of the patterns; none if there are none.
    pub fn in_folder(folder: &Path, patterns: &[NamePattern]) -> Result<Option<Self>, DataError> {
        if patterns.is_empty() {
            return Ok(None);
        }
        let Some(set) = weights_folder::in_folder(folder)? else { return Ok(None) };
        let files = set.files.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>, _>>()?;
        let of = |(at, file): (usize, &TensorFile)| {
            let names = file.names().filter(|name| patterns.iter().any(|pattern| pattern.matches(name)));
            names.map(|name| (name.to_string(), at)).collect::<Vec<_>>()
        };
        let mut tensors: Vec<_> = files.iter().enumerate().flat_map(of).collect();
        tensors.sort();
        Ok((!tensors.is_empty()).then_some(Self { files, tensors }))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    fn views(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().filter_map(|(name, file)| Some((name.as_str(), self.files[*file].get(name)?)))
    }

    pub fn bytes(&self) -> u64 {
        self.views().map(|(_, view)| view.bytes() as u64).sum()
    }

    /// Writes them to a file of their own and makes sure that they are on disk; gives its length and its hash.
    pub fn write(&self, path: &Path) -> Result<(u64, Hash), DataError> {
        let header = self.header().map_err(|e| DataError::format(path, e))?;
        let file = File::create(path).map_err(|e| DataError::file(path, e))?;
        let mut out = Hashed { file, hasher: Hasher::new(), bytes: 0 };
        let told = |e: io::Error| DataError::file(path, e);
        out.write_all(&header).map_err(told)?;
        for (_, view) in self.views() {
            view.copy(|block| out.write_all(block).map_err(told))?;
            comm::worked();
        }
        out.file.sync_all().map_err(told)?;
        Ok((out.bytes, out.hasher.finalize()))
    }

    fn header(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut entries = Map::new();
        entries.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut at = 0;
        for (name, view) in self.views() {
            let end = at + view.bytes();
            let dtype = serde_json::to_value(view.dtype)?;
            entries.insert(name.into(), json!({ "dtype": dtype, "shape": view.shape, "data_offsets": [at, end] }));
            at = end;
        }
        let json = serde_json::to_vec(&Value::Object(entries))?;
        let length = json.len().next_multiple_of(8);
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.resize(length + 8, b' ');
        Ok(bytes)
    }
}

/// A file with the hash of what went into it.
struct Hashed {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        let written = self.file.write(block)?;
        self.hasher.update(&block[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pieces, write_tensors};

    #[test]
    fn they_are_copied_byte_for_byte() {
        let folder = tempfile::tempdir().expect("a folder");
        let ty = ["bf16[N:3]", "i64[]", "f32[N:2]"].map(|ty| ty.parse().expect("a type"));
        let tensors = [
            Pieces::whole("talker.b", &ty[0], &[1, 2, 3, 4, 5, 6]),
            Pieces::whole("talker.a", &ty[1], &[7; 8]),
            Pieces::whole("thinker.a", &ty[2], &[9; 8]),
        ];
        write_tensors(&folder.path().join("model.safetensors"), &tensors).expect("written");
        let patterns = [NamePattern::new(r"^talker\.").expect("a pattern")];
        let others = OtherWeights::in_folder(folder.path(), &patterns).expect("read").expect("some");
        assert_eq!((others.names().collect::<Vec<_>>(), others.bytes()), (vec!["talker.a", "talker.b"], 14));
        std::fs::remove_file(folder.path().join("model.safetensors")).expect("gone");
        let path = folder.path().join("others.safetensors");
        let (bytes, hash) = others.write(&path).expect("written");
        let written = std::fs::read(&path).expect("there");
        assert_eq!((bytes, hash), (written.len() as u64, blake3::hash(&written)));
        let copy = TensorFile::open(&path).expect("opens");
        assert_eq!(copy.names().collect::<Vec<_>>(), ["talker.a", "talker.b"]);
        assert_eq!(copy.get("talker.b").expect("there").data().expect("read"), [1, 2, 3, 4, 5, 6]);
        let none = [NamePattern::new(r"^visual\.").expect("a pattern")];
        assert!(OtherWeights::in_folder(folder.path(), &none).expect("read").is_none());
    }
}
