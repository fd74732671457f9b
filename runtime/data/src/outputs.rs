//! `--outputs`: what a run gave, as f32 under the checkpoint's names, in one safetensors file.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indexmap::IndexMap;
use types::{DType, Dim, TensorType};

use crate::convert::{narrow, widen};
use crate::tensor_writer::stream_tensors;
use crate::{DataError, Pieces, Share, Stream, Together, Wait, WholeFile};

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

    /// Writes the file, so that a reader never sees half of one; a pipe is written through once it has a reader. All
    /// processes call it.
    pub fn write(&self, path: &Path, wait: &Wait, together: &Together) -> Result<(), DataError> {
        let tensors: Vec<Pieces<'_>> = self.tensors.iter().map(|(name, output)| output.pieces(name)).collect();
        let file = |e| DataError::file(path, e);
        let begun = || -> io::Result<_> {
            let place = WholeFile::at(path)?;
            let temporary = place.temporary()?;
            Ok((place, temporary))
        };
        // Of several processes the first makes the file, and the others write to it.
        let (own, name) = match together.is_first().then(begun).transpose() {
            Ok(own) => {
                let name = own.as_ref().and_then(|(_, t)| Some(t.as_ref()?.path().as_os_str().as_bytes().to_vec()));
                (own, Ok(name.unwrap_or_default()))
            }
            Err(error) => (None, Err(file(error))),
        };
        let names = together.agree(&format!("begin {}", path.display()), name)?;
        let written = if names[0].is_empty() {
            own.as_ref().map_or(Ok(()), |(place, _)| write_through(place.path(), &tensors, wait))
        } else {
            let types: Vec<_> = tensors.iter().map(|t| (t.name, t.ty)).collect();
            let writer = together.create(Path::new(OsStr::from_bytes(&names[0])), &types);
            writer.and_then(|writer| writer.write_all(&tensors.iter().collect::<Vec<_>>()).map(drop))
        };
        together.agree(&format!("write {}", path.display()), written.map(|()| Vec::new()))?;
        match own {
            Some((place, Some(temporary))) => temporary.persist(place.path()).map(drop).map_err(|e| file(e.error)),
            _ => Ok(()),
        }
    }
}

/// For what takes bytes only in their order: the first process must have all of them.
fn write_through(path: &Path, tensors: &[Pieces<'_>], wait: &Wait) -> Result<(), DataError> {
    if tensors.iter().any(|t| !t.is_complete()) {
        return Err(DataError::Refused {
            what: format!("{}: not a regular file, and several processes have parts of the outputs", path.display()),
            help: "give --outputs a regular file".into(),
        });
    }
    let write = || stream_tensors(&mut Stream::open(path, wait)?, tensors);
    write().map_err(|e| DataError::file(path, e))
}

impl Output {
    fn pieces<'a>(&'a self, name: &'a str) -> Pieces<'a> {
        let whole = self.values.iter().filter(|(values, _)| !values.is_empty());
        let whole = whole.map(|(values, _)| (Share::whole(&self.ty), values.as_slice()));
        let pieces = self.pieces.iter().map(|(share, bytes)| (share.clone(), bytes.as_slice()));
        Pieces { name, ty: &self.ty, pieces: whole.chain(pieces).collect() }
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
