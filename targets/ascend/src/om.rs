//! What a compiled segment, an `.om` file, says of its memory, read without CANN.
//!
//! A header of 256 bytes, a table of partitions, and the partitions one after another; the first kind is a `ModelDef`
//! whose attributes hold the sizes (hicann/ge: framework/common/types.h, om_file_helper.cc, ge_attr_define.cc).

use prost::Message;

use crate::proto::{Attribute, ModelDef};

const HEADER: usize = 256;
const MAGIC: u32 = 0x444F_4D49;
const ENCRYPTED: usize = 80;
const MODELS: usize = 156;
/// Not zero in files whose table counts in 64 bits.
const LONG: usize = 184;
const MODEL_DEF: u32 = 0;
const MOST_PARTITIONS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// All that a run needs besides its inputs, outputs and constants. Some of it may lie in the inputs and outputs; it is counted whole.
    pub work: u64,
    /// Constants.
    pub weights: u64,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum OmError {
    #[error("it is no .om file: it does not begin with the mark of one")]
    NotAnOm,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it holds {0} models, not one")]
    Several(u32),
    #[error("it is cut short: its {0} reaches past its end")]
    Short(&'static str),
    #[error("it has no description of its model")]
    NoModel,
    #[error("the description of its model does not decode: {0}")]
    Model(#[from] prost::DecodeError),
    #[error("its model does not say its `{0}`")]
    Silent(&'static str),
}

pub fn sizes(bytes: &[u8]) -> Result<Sizes, OmError> {
    if u32_at(bytes, 0) != Some(MAGIC) {
        return Err(OmError::NotAnOm);
    }
    if bytes.len() < HEADER {
        return Err(OmError::Short("header"));
    }
    if bytes[ENCRYPTED] != 0 {
        return Err(OmError::Encrypted);
    }
    match u32_at(bytes, MODELS) {
        Some(0 | 1) => {}
        other => return Err(OmError::Several(other.unwrap_or(0))),
    }
    let long = u64_at(bytes, LONG).is_some_and(|n| n != 0);
    let part = partition(&bytes[HEADER..], MODEL_DEF, long)?.ok_or(OmError::NoModel)?;
    let model = ModelDef::decode(part)?;
    let size = |name| match model.attr.get(name).and_then(|a| a.value.as_ref()) {
        Some(Attribute::Int(n)) => u64::try_from(*n).map_err(|_| OmError::Silent(name)),
        _ => Err(OmError::Silent(name)),
    };
    Ok(Sizes { work: size("memory_size")?, weights: size("weight_size")? })
}

/// The first partition of a kind. Partitions lie behind the table in its order.
fn partition(bytes: &[u8], kind: u32, long: bool) -> Result<Option<&[u8]>, OmError> {
    let short = || OmError::Short("table of partitions");
    let count = u32_at(bytes, 0).map(|n| n as usize).filter(|n| *n <= MOST_PARTITIONS).ok_or_else(short)?;
    let (start, entry) = if long { (8, 24) } else { (4, 12) };
    let mut at = start + count * entry;
    for i in 0..count {
        let entry_at = start + i * entry;
        let size = match long {
            true => u64_at(bytes, entry_at + 16).and_then(|n| usize::try_from(n).ok()),
            false => u32_at(bytes, entry_at + 8).map(|n| n as usize),
        };
        let own = u32_at(bytes, entry_at).ok_or_else(short)?;
        let end = at.checked_add(size.ok_or_else(short)?).ok_or_else(short)?;
        let part = bytes.get(at..end).ok_or(OmError::Short("partition"))?;
        if own == kind {
            return Ok(Some(part));
        }
        at = end;
    }
    Ok(None)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as GE lays it out, with weights before the model.
    fn file(long: bool, sizes: Option<[i64; 2]>) -> Vec<u8> {
        let mut model = ModelDef { name: "k0".into(), ..ModelDef::default() };
        for (name, size) in ["memory_size", "weight_size"].into_iter().zip(sizes.into_iter().flatten()) {
            model.attr.insert(name.into(), Attribute::Int(size).into());
        }
        let parts = [(1u32, vec![5; 24]), (MODEL_DEF, model.encode_to_vec())];
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[LONG] = u8::from(long);
        bytes.extend(2u32.to_le_bytes());
        if long {
            bytes.extend([0; 4]);
        }
        let mut offset = 0;
        for (kind, part) in &parts {
            bytes.extend(kind.to_le_bytes());
            if long {
                bytes.extend([0; 4]);
                bytes.extend((offset as u64).to_le_bytes());
                bytes.extend((part.len() as u64).to_le_bytes());
            } else {
                bytes.extend((offset as u32).to_le_bytes());
                bytes.extend((part.len() as u32).to_le_bytes());
            }
            offset += part.len();
        }
        parts.into_iter().for_each(|(_, part)| bytes.extend(part));
        bytes
    }

    #[test]
    fn both_tables_read() {
        for long in [false, true] {
            assert_eq!(sizes(&file(long, Some([4096, 24]))), Ok(Sizes { work: 4096, weights: 24 }));
        }
    }

    #[test]
    fn what_is_no_om_is_refused() {
        let good = file(true, Some([4096, 24]));
        assert_eq!(sizes(b"air"), Err(OmError::NotAnOm));
        assert_eq!(sizes(&good[..100]), Err(OmError::Short("header")));
        assert_eq!(sizes(&good[..good.len() - 1]), Err(OmError::Short("partition")));
        assert_eq!(sizes(&file(true, None)), Err(OmError::Silent("memory_size")));
        let mut bytes = good.clone();
        bytes[ENCRYPTED] = 1;
        assert_eq!(sizes(&bytes), Err(OmError::Encrypted));
        let mut bytes = good;
        bytes[MODELS] = 3;
        assert_eq!(sizes(&bytes), Err(OmError::Several(3)));
    }
}
