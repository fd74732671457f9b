//! safetensors files: read by position, written in place and synced.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};
use types::TensorType;

use crate::convert::stored;
use crate::data_file::DataFile;
use crate::foreign;
use crate::tensors::{ReadFault, TensorView, Tensors};
use crate::{DataError, Pieces};

/// A safetensors file that is open for reading.
#[derive(Clone)]
pub struct TensorFile {
    pub path: PathBuf,
    file: Arc<DataFile>,
    tensors: Arc<Tensors>,
}

impl TensorFile {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = DataFile::open(path)?;
        let tensors = Tensors::read(&file, 0..file.bytes()).map_err(|fault| match fault {
            ReadFault::File(error) => error,
            ReadFault::Format(what) => foreign::refused(&file, "safetensors file", what),
        })?;
        Ok(Self { path: path.into(), file: Arc::new(file), tensors: Arc::new(tensors) })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(&self.file, name)
    }
}

/// A safetensors file that is being written, by one process or by several at once, each its own pieces. The order is the
/// format's own (widest elements first), so that equal tensors give equal bytes.
pub struct TensorWriter {
    path: PathBuf,
    file: File,
    /// Where each tensor begins.
    places: FxHashMap<String, u64>,
}

impl TensorWriter {
    /// Makes the file, with its header and room for all tensors.
    pub fn create(path: &Path, tensors: &[(&str, &TensorType)]) -> Result<Self, DataError> {
        let make = || {
            let (header, places, bytes) = header(tensors)?;
            let file = File::create(path)?;
            file.set_len(bytes)?;
            file.write_all_at(&header, 0)?;
            Ok(Self { path: path.into(), file, places })
        };
        make().map_err(|e| DataError::file(path, e))
    }

    /// Opens a file that another process made for the same tensors.
    pub fn join(path: &Path, tensors: &[(&str, &TensorType)]) -> Result<Self, DataError> {
        let open = || {
            let (_, places, bytes) = header(tensors)?;
            let file = File::options().write(true).open(path)?;
            if file.metadata()?.len() != bytes {
                return Err(io::Error::other("not the file that rank 0 made: do all ranks see the same folder?"));
            }
            Ok(Self { path: path.into(), file, places })
        };
        open().map_err(|e| DataError::file(path, e))
    }

    /// Writes the pieces that are at hand.
    pub fn write(&self, tensor: &Pieces<'_>) -> Result<(), DataError> {
        let Some(place) = self.places.get(tensor.name) else {
            return Err(DataError::format(&self.path, format!("no room for `{}`", tensor.name)));
        };
        let write = || {
            if tensor.is_complete() {
                return self.file.write_all_at(&tensor.bytes(), *place);
            }
            let size = tensor.ty.dtype.bytes();
            for (share, bytes) in &tensor.pieces {
                for run in share.runs() {
                    let piece = &bytes[run.local * size..][..run.count * size];
                    self.file.write_all_at(piece, place + (run.logical * size) as u64)?;
                }
            }
            Ok(())
        };
        write().map_err(|e| DataError::file(&self.path, e))
    }

    /// Makes sure that what was written is on disk.
    pub fn finish(self) -> Result<(), DataError> {
        self.file.sync_all().map_err(|e| DataError::file(&self.path, e))
    }
}

/// Writes tensors to a new file and makes sure that they are on disk. One tensor at a time is made whole.
pub fn write_tensors(path: &Path, tensors: &[Pieces<'_>]) -> Result<(), DataError> {
    let types: Vec<_> = tensors.iter().map(|t| (t.name, t.ty)).collect();
    let writer = TensorWriter::create(path, &types)?;
    tensors.iter().try_for_each(|t| writer.write(t))?;
    writer.finish()
}

/// The bytes before the tensors, where each of them begins, and the size of the file.
fn header(tensors: &[(&str, &TensorType)]) -> io::Result<(Vec<u8>, FxHashMap<String, u64>, u64)> {
    let mut order = tensors.to_vec();
    order.sort_by_key(|(name, ty)| (Reverse(ty.dtype.bytes()), *name));
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let (mut at, mut places) = (0, FxHashMap::default());
    for (name, ty) in order {
        let end = at + ty.bytes();
        let dtype = serde_json::to_value(stored(ty.dtype))?;
        let shape = ty.sizes();
        let entry = json!({ "dtype": dtype, "shape": shape.as_slice(), "data_offsets": [at, end] });
        header.insert(name.into(), entry);
        places.insert(name.to_string(), at as u64);
        at = end;
    }
    let json = serde_json::to_vec(&Value::Object(header))?;
    let length = json.len().next_multiple_of(8);
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend(json);
    bytes.resize(length + 8, b' ');
    let start = bytes.len() as u64;
    places.values_mut().for_each(|place| *place += start);
    Ok((bytes, places, start + at as u64))
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn files_read_back_and_damage_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.safetensors");
        let types = ["bf16[N:3]", "i64[]", "f32[N:0, M:4]"].map(|ty| ty.parse().expect("a type"));
        let tensors = [
            Pieces::whole("b", &types[0], &[1, 2, 3, 4, 5, 6]),
            Pieces::whole("a", &types[1], &[7; 8]),
            Pieces::whole("none", &types[2], &[]),
        ];
        write_tensors(&path, &tensors).expect("written");
        let bytes = std::fs::read(&path).expect("there");
        let file = TensorFile::open(&path).expect("opens");
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "none"]);
        assert_eq!(file.get("b").expect("b").data().expect("read"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(file.get("a").expect("a").text(), "i64[]");
        assert!(file.get("c").is_none());
        // The same file as the reference implementation sees it.
        assert_eq!(SafeTensors::deserialize(&bytes).expect("valid").len(), 3);
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("cut");
            assert!(TensorFile::open(&path).is_err());
        }
    }
}
