//! `--outputs`: what a run gave, as f32 under the checkpoint's names, in one safetensors file.

use std::path::Path;

use indexmap::IndexMap;
use types::{DType, Dim, TensorType};

use crate::convert::{narrow, widen};
use crate::{DataError, Pieces, write_tensors};

#[derive(Default)]
pub struct Outputs {
    tensors: IndexMap<String, (TensorType, Vec<u8>)>,
}

impl Outputs {
    /// Adds the value of an emit at one step: numbers are strung together over the steps, tensors keep the last value.
    pub fn add(&mut self, emit: &Pieces<'_>) {
        if emit.ty.rank() > 0 {
            return self.set(emit.name, emit);
        }
        let steps = TensorType::new(DType::F32, [Dim::new("STEPS", 0)]);
        let (ty, values) = self.tensors.entry(emit.name.into()).or_insert((steps, Vec::new()));
        values.extend(floats(emit));
        ty.dims[0].size = values.len() / DType::F32.bytes();
    }

    /// Sets the tensor called `name`.
    pub fn set(&mut self, name: &str, value: &Pieces<'_>) {
        self.tensors.insert(name.into(), (value.ty.with_dtype(DType::F32), floats(value)));
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Writes the file beside its place and renames it, so that a reader never sees half of one.
    pub fn write(&self, path: &Path) -> Result<(), DataError> {
        let tensors = self.tensors.iter().map(|(name, (ty, bytes))| Pieces::whole(name, ty, bytes));
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        write_tensors(temporary, &tensors.collect::<Vec<_>>())?;
        std::fs::rename(temporary, path).map_err(|e| DataError::file(path, e))
    }
}

/// The values of a tensor as f32, in bytes.
fn floats(value: &Pieces<'_>) -> Vec<u8> {
    let bytes = value.bytes();
    if value.ty.dtype == DType::F32 {
        return bytes.into_owned();
    }
    let mut values = Vec::new();
    widen(value.ty.dtype, &bytes, &mut values);
    let mut out = vec![0; values.len() * DType::F32.bytes()];
    narrow(&values, DType::F32, &mut out);
    out
}
