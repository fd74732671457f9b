//! `--outputs`: what a run gave, as f32 under the checkpoint's names, in one safetensors file.

use std::path::Path;

use indexmap::IndexMap;
use plan::Emit;
use safetensors::Dtype;
use types::{DType, TensorType};

use crate::convert::widen;
use crate::{DataError, TensorView, write_tensors};

#[derive(Default)]
pub struct Outputs {
    tensors: IndexMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Outputs {
    /// Adds the value of an emit at one step: numbers are strung together over the steps, tensors keep the last value.
    pub fn add(&mut self, emit: &Emit, bytes: &[u8]) {
        if emit.ty.rank() == 0 {
            let (shape, values) = self.tensors.entry(emit.name.to_string()).or_default();
            widen(emit.ty.dtype, bytes, values);
            *shape = vec![values.len()];
        } else {
            self.set(&emit.name, &emit.ty, bytes);
        }
    }

    /// Sets a tensor.
    pub fn set(&mut self, name: &str, ty: &TensorType, bytes: &[u8]) {
        let mut values = Vec::new();
        widen(ty.dtype, bytes.get(..ty.bytes()).unwrap_or(bytes), &mut values);
        self.tensors.insert(name.to_string(), (ty.sizes().to_vec(), values));
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Writes the file beside its place and renames it, so that a reader never sees half of one.
    pub fn write(&self, path: &Path) -> Result<(), DataError> {
        let bytes = |values: &Vec<f32>| {
            let mut bytes = vec![0; values.len() * 4];
            crate::convert::narrow(values, DType::F32, &mut bytes);
            bytes
        };
        let data: Vec<Vec<u8>> = self.tensors.values().map(|(_, values)| bytes(values)).collect();
        let views = self
            .tensors
            .iter()
            .zip(&data)
            .map(|((name, (shape, _)), data)| (name.clone(), TensorView { dtype: Dtype::F32, shape, data }));
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        write_tensors(temporary, &views.collect::<Vec<_>>())?;
        std::fs::rename(temporary, path).map_err(|e| DataError::file(path, e))
    }
}
