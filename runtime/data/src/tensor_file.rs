//! safetensors files, read by position.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::DataError;
use crate::data_file::DataFile;
use crate::foreign;
use crate::tensors::{ReadFault, TensorView, Tensors};

/// A safetensors file that is open for reading.
#[derive(Clone, Debug)]
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

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::{Pieces, write_tensors};

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
