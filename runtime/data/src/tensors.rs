//! Tensors in a file: where the header of a safetensors image says that they lie, and how a share of one is read.

use std::fmt;
use std::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use types::DType;

use crate::convert::{ConvertError, convert, stored};
use crate::data_file::DataFile;
use crate::finite::first_not_finite;
use crate::fp8::Scales;
use crate::{DataError, Share};

/// The format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;
/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;
/// Shorter runs are read with what lies behind them.
const SHORT: usize = 1 << 16;

/// A tensor in a file, or in the middle of one.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    file: &'a DataFile,
    at: u64,
    bytes: usize,
}

/// Why a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    File(#[from] DataError),
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error("element {index:?} is {value}; weights are finite numbers: take another copy of the file")]
    NotFinite { index: Vec<usize>, value: f64 },
    #[error("element {index:?} is {value:e}, which is too large for the {dtype} that the plan holds it in")]
    Overflow { index: Vec<usize>, value: f64, dtype: DType },
    #[error("it is not there")]
    Missing,
    #[error("its scales are {0}")]
    Scales(String),
}

impl ReadError {
    /// The same of a tensor called `name`, in what `place` is.
    pub fn of(self, place: &std::path::Path, name: &str) -> DataError {
        match self {
            Self::File(error) => error,
            error => DataError::format(place, format!("`{name}`: {error}")),
        }
    }
}

impl TensorView<'_> {
    /// `f32[4, 16]`
    pub fn text(&self) -> String {
        text(self.dtype, self.shape)
    }

    /// Writes a rank's share of the tensor to `out`, in the plan's type. Little else of the file is read.
    pub fn read(&self, share: &Share, out: &mut [u8]) -> Result<(), ReadError> {
        share.clear_padding(out);
        self.fill(share, None, out)
    }

    /// The same, and leaves padding and what lies in other tensors as they are.
    pub fn fill(&self, share: &Share, scales: Option<&Scales>, out: &mut [u8]) -> Result<(), ReadError> {
        let ty = share.ty();
        let (from, to) = (self.dtype.bitsize() / 8, ty.dtype.bytes());
        if share.of_elements().checked_mul(from) != Some(self.bytes) || out.len() < share.bytes() {
            return Err(ConvertError::Size(self.bytes).into());
        }
        let as_it_is = self.dtype == stored(ty.dtype) && self.dtype != Dtype::BOOL && scales.is_none();
        let convert = |first: usize, piece: &[u8], out: &mut [u8]| match scales {
            Some(scales) => scales.convert(self.dtype, first, piece, ty.dtype, out),
            None => convert(self.dtype, piece, ty.dtype, out),
        };
        let mut window = Window { view: self, start: 0, bytes: Vec::new() };
        let mut converted = Vec::new();
        for run in share.runs() {
            if run.step != 1 {
                for first in (0..run.count).step_by(CHUNK / 8) {
                    let count = (run.count - first).min(CHUNK / 8);
                    let piece = window.read((run.logical + first) * from, count * from)?;
                    converted.resize(count * to, 0);
                    convert(run.logical + first, piece, &mut converted)?;
                    for (i, value) in converted.chunks_exact(to).enumerate() {
                        out[(run.local + (first + i) * run.step) * to..][..to].copy_from_slice(value);
                    }
                }
                continue;
            }
            let out = &mut out[run.local * to..][..run.count * to];
            if as_it_is && out.len() >= SHORT {
                self.file.read(self.at + (run.logical * from) as u64, out)?;
                continue;
            }
            for (i, out) in out.chunks_mut(CHUNK / 8 * to).enumerate() {
                let first = run.logical + i * (CHUNK / 8);
                let piece = window.read(first * from, out.len() / to * from)?;
                convert(first, piece, out).map_err(|e| match e {
                    ConvertError::Range(at, ty) => ConvertError::Range(first + at, ty),
                    other => other,
                })?;
            }
        }
        Ok(())
    }

    /// Proves that no element of a share which was read to `out` is NaN or infinite, nor became so because the plan's type
    /// does not reach as far as the file's.
    pub fn check_finite(&self, share: &Share, out: &[u8]) -> Result<(), ReadError> {
        let dtype = share.ty().dtype;
        let size = dtype.bytes();
        let offender = share.runs().find_map(|run| {
            let values = &out[run.local * size..][..run.count * size];
            first_not_finite(dtype, values).map(|at| run.logical + at)
        });
        let Some(element) = offender else { return Ok(()) };
        let mut raw = vec![0; self.dtype.bitsize() / 8];
        self.file.read(self.at + (element * raw.len()) as u64, &mut raw)?;
        let mut value = [0; 8];
        convert(self.dtype, &raw, DType::F64, &mut value)?;
        let index = index_of(element, self.shape);
        Err(match f64::from_le_bytes(value) {
            value if value.is_finite() => ReadError::Overflow { index, value, dtype },
            value => ReadError::NotFinite { index, value },
        })
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives its bytes, as the file has them, block by block.
    pub fn copy(&self, mut take: impl FnMut(&[u8]) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut block = vec![0; CHUNK.min(self.bytes)];
        for at in (0..self.bytes).step_by(CHUNK) {
            let block = &mut block[..CHUNK.min(self.bytes - at)];
            self.file.read(self.at + at as u64, block)?;
            take(block)?;
        }
        Ok(())
    }

    /// All its bytes, as the file has them.
    pub fn data(&self) -> Result<Vec<u8>, DataError> {
        let mut out = vec![0; self.bytes];
        self.file.read(self.at, &mut out)?;
        Ok(out)
    }

    /// The first byte in which two tensors differ, if they do.
    pub fn difference(&self, other: &TensorView<'_>) -> Result<Option<usize>, DataError> {
        if self.bytes != other.bytes {
            return Ok(Some(self.bytes.min(other.bytes)));
        }
        let (mut a, mut b) = (vec![0; CHUNK.min(self.bytes)], vec![0; CHUNK.min(self.bytes)]);
        for at in (0..self.bytes).step_by(CHUNK) {
            let length = CHUNK.min(self.bytes - at);
            self.file.read(self.at + at as u64, &mut a[..length])?;
            other.file.read(other.at + at as u64, &mut b[..length])?;
            if let Some(i) = (0..length).find(|i| a[*i] != b[*i]) {
                return Ok(Some(at + i));
            }
        }
        Ok(None)
    }
}

/// A piece of a tensor's bytes, which is read again where something outside it is asked for.
struct Window<'a> {
    view: &'a TensorView<'a>,
    start: usize,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn read(&mut self, at: usize, length: usize) -> Result<&[u8], DataError> {
        let inside = at >= self.start && at + length <= self.start + self.bytes.len();
        if !inside {
            let more = length.max(SHORT).min(self.view.bytes - at);
            self.bytes.resize(more, 0);
            self.start = at;
            self.view.file.read(self.view.at + at as u64, &mut self.bytes)?;
        }
        Ok(&self.bytes[at - self.start..][..length])
    }
}

/// The place of an element in a tensor of this shape.
fn index_of(element: usize, shape: &[usize]) -> Vec<usize> {
    let (mut index, mut rest) = (Vec::new(), element);
    for size in shape.iter().rev() {
        index.insert(0, rest % size);
        rest /= size;
    }
    index
}

impl Share {
    /// Proves that no element of `out` is NaN or infinite, where the elements come from several tensors or are computed of
    /// them: the message has the parameter's own index.
    pub fn check_finite(&self, out: &[u8]) -> Result<(), ReadError> {
        let dtype = self.ty().dtype;
        let size = dtype.bytes();
        let offender = self.runs().find_map(|run| {
            let at = first_not_finite(dtype, &out[run.local * size..][..run.count * size])?;
            Some((run.logical + at, run.local + at))
        });
        let Some((element, at)) = offender else { return Ok(()) };
        let mut value = [0; 8];
        convert(stored(dtype), &out[at * size..][..size], DType::F64, &mut value)?;
        let index = index_of(element, &self.ty().sizes());
        Err(ReadError::NotFinite { index, value: f64::from_le_bytes(value) })
    }
}

/// `f32[4, 16]`
pub fn text(dtype: Dtype, shape: &[usize]) -> String {
    format!("{}{shape:?}", format!("{dtype:?}").to_lowercase())
}

/// Where the tensors of a safetensors image lie in their file.
#[derive(Debug)]
pub struct Tensors {
    /// Sorted by name.
    entries: Vec<Entry>,
}

#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    range: Range<u64>,
}

impl Tensors {
    /// Reads the header of the image in a range of a file; every tensor is inside the image and as long as its shape needs.
    pub fn read(file: &DataFile, range: Range<u64>) -> Result<Self, ReadFault> {
        let bytes = range.end.saturating_sub(range.start);
        if bytes < 8 {
            return Err(ReadFault::Format(format!(
                "cut: it has {bytes} bytes, and the length of a header alone has 8"
            )));
        }
        let mut length = [0; 8];
        file.read(range.start, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER {
            return Err(ReadFault::Format(format!("its first bytes would be a header of {length} bytes")));
        }
        if length > bytes - 8 {
            let need = length + 8;
            return Err(ReadFault::Format(format!("cut: its header needs {need} bytes, and there are {bytes}")));
        }
        // Not longer than the file is.
        let mut header = vec![0; length as usize];
        file.read(range.start + 8, &mut header)?;
        Self::parse(&header, range.start + 8 + length, range.end).map_err(ReadFault::Format)
    }

    /// Reads a header whose tensors lie from `start` to `end` of a file.
    pub fn parse(header: &[u8], start: u64, end: u64) -> Result<Self, String> {
        let text = std::str::from_utf8(header).map_err(|_| "its header is no UTF-8")?;
        let mut json = serde_json::Deserializer::from_str(text);
        let infos = (&mut json).deserialize_map(Header).and_then(|infos| json.end().map(|()| infos));
        let mut infos = infos.map_err(|e| format!("its header does not read: {e}"))?;
        infos.sort_by_key(|(_, info)| info.data_offsets);
        let mut at = 0;
        for (name, info) in &infos {
            let (from, to) = info.data_offsets;
            if from != at || to < from {
                return Err(format!("`{name}` lies at {from} to {to}, where the tensor before ends at {at}"));
            }
            let elements = info.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
            let bits = elements.and_then(|n| n.checked_mul(info.dtype.bitsize()));
            if bits != (to - from).checked_mul(8) {
                return Err(format!(
                    "`{name}` is {}, and has {} bytes",
                    self::text(info.dtype, &info.shape),
                    to - from
                ));
            }
            at = to;
        }
        let (need, have) = (at as u64, end.saturating_sub(start));
        if need > have {
            let (need, have) = (header.len() as u64 + 8 + need, header.len() as u64 + 8 + have);
            return Err(format!("cut: its tensors end at byte {need}, and there are {have}"));
        }
        if need < have {
            return Err(format!("{} bytes lie behind its last tensor", have - need));
        }
        let entry = |(name, info): (String, TensorInfo)| Entry {
            name,
            dtype: info.dtype,
            shape: info.shape,
            range: start + info.data_offsets.0 as u64..start + info.data_offsets.1 as u64,
        };
        let mut entries: Vec<_> = infos.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        match entries.windows(2).find(|two| two[0].name == two[1].name) {
            Some(two) => Err(format!("its header has `{}` twice", two[0].name)),
            None => Ok(Self { entries }),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// A tensor of the file that `self` was read from.
    pub fn get<'a>(&'a self, file: &'a DataFile, name: &str) -> Option<TensorView<'a>> {
        let at = self.entries.binary_search_by(|e| e.name.as_str().cmp(name)).ok()?;
        let Entry { dtype, shape, range, .. } = &self.entries[at];
        let bytes = usize::try_from(range.end - range.start).ok()?;
        Some(TensorView { dtype: *dtype, shape, file, at: range.start, bytes })
    }
}

/// Why an image does not read: the file, or what is in it.
#[derive(Debug)]
pub enum ReadFault {
    File(DataError),
    Format(String),
}

impl From<DataError> for ReadFault {
    fn from(error: DataError) -> Self {
        Self::File(error)
    }
}

/// The header's object, in which no name may vanish behind an equal one.
struct Header;

impl<'de> Visitor<'de> for Header {
    type Value = Vec<(String, TensorInfo)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut infos = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else {
                infos.push((name, map.next_value()?));
            }
        }
        Ok(infos)
    }
}
