//! Writing safetensors files: in the format's own order (widest elements first), so that equal tensors give equal bytes.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};
use rustc_hash::FxHashMap;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use types::{DType, TensorType};

use crate::convert::{ConvertError, stored};
use crate::work::Sink;
use crate::{DataError, Pieces};

/// A safetensors file that is being written, by one process or by several at once, each its own pieces.
pub struct TensorWriter {
    path: PathBuf,
    file: File,
    header: Header,
}

/// What comes before the tensors, and where they lie.
struct Header {
    bytes: Vec<u8>,
    /// Where each tensor begins.
    places: FxHashMap<String, u64>,
    /// Of the whole file.
    size: u64,
}

impl TensorWriter {
    /// Makes the file, with its header and room for all tensors.
    pub fn create(path: &Path, tensors: &[(&str, &TensorType)]) -> Result<Self, DataError> {
        let make = || {
            let header = Header::of(tensors)?;
            let file = File::create(path)?;
            reserve(&file, header.size)?;
            file.set_len(header.size)?;
            file.write_all_at(&header.bytes, 0)?;
            Ok(Self { path: path.into(), file, header })
        };
        make().map_err(|e| DataError::file(path, e))
    }

    /// Opens a file that another process made for the same tensors.
    pub fn join(path: &Path, tensors: &[(&str, &TensorType)]) -> Result<Self, DataError> {
        let open = || {
            let header = Header::of(tensors)?;
            let file = File::options().write(true).open(path)?;
            if file.metadata()?.len() != header.size {
                return Err(io::Error::other("not the file that rank 0 made: do all ranks see the same folder?"));
            }
            Ok(Self { path: path.into(), file, header })
        };
        open().map_err(|e| DataError::file(path, e))
    }

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.header.size
    }

    /// Writes the pieces that are at hand of all tensors, and makes sure that they are on disk. If all are at hand, gives
    /// the hash of what was written: taken from memory, so that it tells whether the disk gives back the same.
    pub fn write_all(&self, tensors: &[&Pieces<'_>]) -> Result<Option<Hash>, DataError> {
        let file = |e| DataError::file(&self.path, e);
        let mut hasher = tensors.iter().all(|t| t.is_complete()).then(Hasher::new);
        if let Some(hasher) = &mut hasher {
            hasher.update(&self.header.bytes);
        }
        let mut sink = Sink::new(&self.file);
        for (place, tensor) in self.header.in_order(tensors).map_err(file)? {
            if tensor.is_complete() {
                let bytes = tensor.stored().map_err(|e| file(refused(tensor, e)))?;
                if let Some(hasher) = &mut hasher {
                    hasher.update(&bytes);
                }
                sink.write(&bytes, place).map_err(file)?;
            } else {
                write_pieces(&mut sink, tensor, place).map_err(file)?;
            }
        }
        self.file.sync_all().map_err(file)?;
        Ok(hasher.map(|h| h.finalize()))
    }

    /// The hash of the file that several processes have written, read anew since some of them may be on other hosts.
    pub fn read_back(&self) -> Result<Hash, DataError> {
        let read = || {
            let mut file = File::open(&self.path)?;
            let (written, found) = (self.file.metadata()?, file.metadata()?);
            if (written.dev(), written.ino(), self.header.size) != (found.dev(), found.ino(), found.len()) {
                return Err(io::Error::other("another file lies under the name of the one that was written"));
            }
            let (mut hasher, mut block) = (Hasher::new(), vec![0; 1 << 20]);
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(hasher.finalize()),
                    count => hasher.update(&block[..count]),
                };
                comm::worked();
            }
        };
        read().map_err(|e| DataError::file(&self.path, e))
    }
}

/// Takes the room for a whole file, so that a full disk is found before anything is written.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
        // Not every file system can.
        _ => Ok(()),
    }
}

fn write_pieces(sink: &mut Sink<'_>, tensor: &Pieces<'_>, place: u64) -> io::Result<()> {
    let size = tensor.ty.dtype.bytes();
    tensor.each_run(|at, piece| sink.write(piece, place + (at * size) as u64).map_err(Fault::File)).map_err(|e| match e
    {
        Fault::File(error) => error,
        Fault::Convert(error) => refused(tensor, error),
    })
}

enum Fault {
    File(io::Error),
    Convert(ConvertError),
}

impl From<ConvertError> for Fault {
    fn from(error: ConvertError) -> Self {
        Self::Convert(error)
    }
}

fn refused(tensor: &Pieces<'_>, error: ConvertError) -> io::Error {
    let way_out = match error {
        ConvertError::Overflow(_, DType::F16) => "; bf16 and f32 hold it, if it is finite",
        _ => "",
    };
    io::Error::other(format!("`{}`: {error}{way_out}", tensor.name))
}

/// Writes tensors to a new file and makes sure that they are on disk. One tensor at a time is made whole.
pub fn write_tensors(path: &Path, tensors: &[Pieces<'_>]) -> Result<(), DataError> {
    let types: Vec<_> = tensors.iter().map(|t| (t.name, t.ty)).collect();
    TensorWriter::create(path, &types)?.write_all(&tensors.iter().collect::<Vec<_>>())?;
    Ok(())
}

/// Writes whole tensors from first to last byte, to what takes no byte out of turn.
pub fn stream_tensors(out: &mut impl Write, tensors: &[Pieces<'_>]) -> io::Result<()> {
    let types: Vec<_> = tensors.iter().map(|t| (t.name, t.ty)).collect();
    let header = Header::of(&types)?;
    out.write_all(&header.bytes)?;
    for (_, tensor) in header.in_order(&tensors.iter().collect::<Vec<_>>())? {
        out.write_all(&tensor.bytes())?;
    }
    out.flush()
}

impl Header {
    fn of(tensors: &[(&str, &TensorType)]) -> io::Result<Self> {
        let mut order = tensors.to_vec();
        order.sort_by_key(|(name, ty)| (Reverse(ty.dtype.bytes()), *name));
        let mut entries = Map::new();
        entries.insert("__metadata__".into(), json!({ "format": "pt" }));
        let (mut at, mut places) = (0, FxHashMap::default());
        for (name, ty) in order {
            let end = at + ty.bytes();
            let dtype = serde_json::to_value(stored(ty.dtype))?;
            let shape = ty.sizes();
            let entry = json!({ "dtype": dtype, "shape": shape.as_slice(), "data_offsets": [at, end] });
            entries.insert(name.into(), entry);
            places.insert(name.to_string(), at as u64);
            at = end;
        }
        let json = serde_json::to_vec(&Value::Object(entries))?;
        let length = json.len().next_multiple_of(8);
        let mut bytes = (length as u64).to_le_bytes().to_vec();
        bytes.extend(json);
        bytes.resize(length + 8, b' ');
        let start = bytes.len() as u64;
        places.values_mut().for_each(|place| *place += start);
        Ok(Self { bytes, places, size: start + at as u64 })
    }

    /// The tensors as they follow each other in the file, each with its place.
    fn in_order<'t, 'a>(&self, tensors: &[&'t Pieces<'a>]) -> io::Result<Vec<(u64, &'t Pieces<'a>)>> {
        let place = |tensor: &&'t Pieces<'a>| {
            let place = self.places.get(tensor.name).copied();
            let missing = || io::Error::other(format!("the header has no room for `{}`", tensor.name));
            Ok((place.ok_or_else(missing)?, *tensor))
        };
        let mut order = tensors.iter().map(place).collect::<io::Result<Vec<_>>>()?;
        // Empty tensors share their place with the next.
        order.sort_by_key(|(place, tensor)| (*place, tensor.ty.bytes()));
        Ok(order)
    }
}
