//! An archive: the object of a plan whose kernels are files of their own, one blob each under its name.
//!
//! ```text
//! 0   mark (8)  length of the table u64
//! 16  the table (postcard): name, kind and length of each blob
//!     the blobs in table order, each on a multiple of 64
//! ```

use serde::{Deserialize, Serialize};
use types::Name;

const MARK: [u8; 8] = *b"mmblobs\n";
const ALIGNMENT: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    pub blobs: Vec<Blob>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// A kernel's symbol, but for reports.
    pub name: Name,
    pub kind: BlobKind,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlobKind {
    /// A GE graph, as the compiler writes it.
    Air,
    /// The same, compiled by CANN.
    Om,
    /// For people: what became of each operator.
    Report,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the plan's object is no archive of blobs")]
    NoArchive,
    #[error("the plan's archive of blobs is damaged: {0}")]
    Damaged(&'static str),
}

impl Archive {
    pub fn blob(&self, kind: BlobKind, name: &str) -> Option<&Blob> {
        self.blobs.iter().find(|b| b.kind == kind && b.name == *name)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<_> = self.blobs.iter().map(|b| (&b.name, b.kind, b.bytes.len() as u64)).collect();
        let table = postcard::to_stdvec(&entries).unwrap_or_default();
        let mut out = MARK.to_vec();
        out.extend((table.len() as u64).to_le_bytes());
        out.extend(table);
        for blob in &self.blobs {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            out.extend_from_slice(&blob.bytes);
        }
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let head = bytes.first_chunk::<16>().filter(|h| h[..8] == MARK).ok_or(ArchiveError::NoArchive)?;
        let mut length = [0; 8];
        length.copy_from_slice(&head[8..]);
        let end = usize::try_from(u64::from_le_bytes(length)).ok().and_then(|n| n.checked_add(16));
        let table =
            end.and_then(|end| bytes.get(16..end)).ok_or(ArchiveError::Damaged("its table reaches past its end"))?;
        let entries: Vec<(Name, BlobKind, u64)> =
            postcard::from_bytes(table).map_err(|_| ArchiveError::Damaged("its table does not decode"))?;
        let mut at = 16 + table.len();
        let mut blobs = vec![];
        for (name, kind, length) in entries {
            let start = at.next_multiple_of(ALIGNMENT);
            let end = usize::try_from(length).ok().and_then(|n| start.checked_add(n));
            let blob = end.and_then(|end| bytes.get(start..end));
            let bytes = blob.ok_or(ArchiveError::Damaged("a blob reaches past its end"))?.to_vec();
            at = start + bytes.len();
            blobs.push(Blob { name, kind, bytes });
        }
        Ok(Self { blobs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_read_back_and_damage_is_found() {
        let blob = |name: &str, kind, n| Blob { name: name.into(), kind, bytes: vec![7; n] };
        let archive = Archive {
            blobs: vec![blob("k0", BlobKind::Air, 3), blob("k1", BlobKind::Om, 200), blob("k2", BlobKind::Air, 0)],
        };
        let bytes = archive.to_bytes();
        assert_eq!(Archive::from_bytes(&bytes).expect("an archive"), archive);
        for cut in [0, 10, 20, bytes.len() - 1] {
            assert!(Archive::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
