//! `--outputs`: what a run gave, as f32 under the checkpoint's names, in one safetensors file.

use std::path::Path;

use indexmap::IndexMap;
use types::{DType, Dim, TensorType};

use crate::convert::{narrow, widen};
use crate::{DataError, Pieces, Share, Together};

#[derive(Default)]
pub struct Outputs {
    tensors: IndexMap<String, Output>,
}

struct Output {
    ty: TensorType,
    pieces: Vec<(Share, Vec<u8>)>,
    /// Of a number, which has one value a step: those at hand, and how many there are.
    values: Option<(Vec<u8>, usize)>,
}

impl Outputs {
    /// Adds the value of an emit at one step: numbers are strung together over the steps, tensors keep the last value.
    pub fn add(&mut self, emit: &Pieces<'_>) {
        if emit.ty.rank() > 0 {
            return self.set(emit.name, emit);
        }
        let steps = || TensorType::new(DType::F32, [Dim::new("STEPS", 0)]);
        let make = || Output { ty: steps(), pieces: Vec::new(), values: Some((Vec::new(), 0)) };
        let output = self.tensors.entry(emit.name.into()).or_insert_with(make);
        if let Some((values, steps)) = &mut output.values {
            values.extend(emit.pieces.iter().flat_map(|(share, bytes)| floats(emit.ty.dtype, &bytes[..share.bytes()])));
            *steps += 1;
            output.ty.dims[0].size = *steps;
        }
    }

    /// Sets the tensor called `name`.
    pub fn set(&mut self, name: &str, value: &Pieces<'_>) {
        let dtype = value.ty.dtype;
        let pieces = value.pieces.iter().map(|(share, bytes)| {
            let floats = floats(dtype, &bytes[..share.bytes()]);
            (share.with_dtype(DType::F32), floats)
        });
        let output = Output { ty: value.ty.with_dtype(DType::F32), pieces: pieces.collect(), values: None };
        self.tensors.insert(name.into(), output);
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Writes the file beside its place and renames it, so that a reader never sees half of one. All processes call it.
    pub fn write(&self, path: &Path, together: &Together) -> Result<(), DataError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        let types: Vec<_> = self.tensors.iter().map(|(name, output)| (name.as_str(), &output.ty)).collect();
        let writer = together.create(temporary, &types)?;
        for (name, output) in &self.tensors {
            let whole = output.values.iter().filter(|(values, _)| !values.is_empty());
            let whole = whole.map(|(values, _)| (Share::whole(&output.ty), values.as_slice()));
            let pieces = output.pieces.iter().map(|(share, bytes)| (share.clone(), bytes.as_slice()));
            writer.write(&Pieces { name, ty: &output.ty, pieces: whole.chain(pieces).collect() })?;
        }
        writer.finish()?;
        together.meet("write the outputs", Vec::new())?;
        if together.is_first() {
            std::fs::rename(temporary, path).map_err(|e| DataError::file(path, e))?;
        }
        Ok(())
    }
}

/// Values as f32, in bytes.
fn floats(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    if dtype == DType::F32 {
        return bytes.to_vec();
    }
    let mut values = Vec::new();
    widen(dtype, bytes, &mut values);
    let mut out = vec![0; values.len() * DType::F32.bytes()];
    narrow(&values, DType::F32, &mut out);
    out
}
