//! plan.bin: a preamble, a table of sections, checksummed postcard sections, and the object on a 4 KiB boundary.
//!
//! ```text
//! 0   magic (8)  version u32  sections u32  features u64  file length u64  hash of the table (32)
//! 64  one entry a section: id u32, zero u32, offset u64, length u64, blake3 (32)
//!     the sections in table order, padded with zeros
//! ```
//! All numbers are little-endian. The hash of the table covers every byte that means something: it is the plan's hash.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Plan, Violation, structure};

const MAGIC: [u8; 8] = *b"\x89mmplan\n";
/// Raised whenever an older reader would misread a newer file.
pub const FORMAT_VERSION: u32 = 10;
/// Feature bits this reader understands: none are in use yet.
const KNOWN_FEATURES: u64 = 0;
const PREAMBLE: usize = 64;
const ENTRY: usize = 56;
const PAGE: usize = 4096;
const SECTIONS: [(u32, &str); 8] = [
    (1, "header"),
    (2, "kernels"),
    (3, "classes"),
    (4, "residencies"),
    (5, "programs"),
    (6, "manifest"),
    (7, "places"),
    (8, "object"),
];

/// The blake3 hash by which a plan is known; printed in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlanHash(pub [u8; 32]);

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A plan file whose sections are checked and decoded; the object stays where the file's bytes are.
#[derive(Debug)]
pub struct PlanFile<'a> {
    /// With an empty `object`.
    pub plan: Plan,
    pub object: &'a [u8],
    pub hash: PlanHash,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("this is no plan file: it does not begin with the mark of one")]
    NotAPlan,
    #[error("the plan file is cut short: it has {have} bytes of {want}")]
    Truncated { have: u64, want: u64 },
    #[error("the plan file has {0} bytes after its end")]
    TooLong(u64),
    #[error(
        "the plan file has format version {0}; this program reads version {FORMAT_VERSION}: compile the model again with the \
         mmc that came with it"
    )]
    Version(u32),
    #[error("the plan file needs features that this program does not know (bits {0:#x})")]
    Features(u64),
    #[error("the plan file is damaged: {0}")]
    Damaged(String),
    #[error("the plan file contradicts itself: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Malformed(Vec<Violation>),
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("the {section} of the plan cannot be written: {reason}")]
    Section { section: &'static str, reason: postcard::Error },
}

impl Plan {
    /// The bytes of the plan file and the plan's hash. Equal plans give equal bytes.
    pub fn to_bytes(&self) -> Result<(Vec<u8>, PlanHash), WriteError> {
        let bodies = [
            encode("header", &self.header)?,
            encode("kernels", &self.kernels)?,
            encode("classes", &self.classes)?,
            encode("residencies", &self.residencies)?,
            encode("programs", &self.programs)?,
            encode("manifest", &self.manifest)?,
            encode("places", &self.places)?,
        ];
        let parts: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).chain([self.object.as_slice()]).collect();

        let mut out = vec![0u8; PREAMBLE + SECTIONS.len() * ENTRY];
        for (i, (part, (id, name))) in parts.iter().zip(SECTIONS).enumerate() {
            out.resize(out.len().next_multiple_of(alignment(name)), 0);
            let entry = PREAMBLE + i * ENTRY;
            let (start, length) = (out.len() as u64, part.len() as u64);
            out[entry..entry + 4].copy_from_slice(&id.to_le_bytes());
            out[entry + 8..entry + 16].copy_from_slice(&start.to_le_bytes());
            out[entry + 16..entry + 24].copy_from_slice(&length.to_le_bytes());
            out[entry + 24..entry + 56].copy_from_slice(blake3::hash(part).as_bytes());
            out.extend_from_slice(part);
        }
        let length = out.len() as u64;
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(SECTIONS.len() as u32).to_le_bytes());
        out[24..32].copy_from_slice(&length.to_le_bytes());
        let hash = table_hash(&out[..PREAMBLE + SECTIONS.len() * ENTRY]);
        out[32..64].copy_from_slice(&hash.0);
        Ok((out, hash))
    }

    /// The plan's hash, as its file would carry it.
    pub fn hash(&self) -> Result<PlanHash, WriteError> {
        Ok(self.to_bytes()?.1)
    }

    /// A whole plan, object included.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Plan, PlanHash), ReadError> {
        let file = PlanFile::open(bytes)?;
        Ok((Plan { object: file.object.to_vec(), ..file.plan }, file.hash))
    }
}

impl<'a> PlanFile<'a> {
    /// Checks the bytes of a plan file, decodes them, and proves that every index in the plan points at something.
    /// (That it has no races is for [`crate::verify`] to say.)
    pub fn open(bytes: &'a [u8]) -> Result<Self, ReadError> {
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(ReadError::NotAPlan);
        }
        let short = |want: u64| ReadError::Truncated { have: bytes.len() as u64, want };
        let preamble = bytes.get(..PREAMBLE).ok_or(short(PREAMBLE as u64))?;
        // Version and features come before anything else: the rest may look different in another version.
        match u32_at(preamble, 8) {
            FORMAT_VERSION => {}
            other => return Err(ReadError::Version(other)),
        }
        match u64_at(preamble, 16) & !KNOWN_FEATURES {
            0 => {}
            unknown => return Err(ReadError::Features(unknown)),
        }
        let length = u64_at(preamble, 24);
        if (bytes.len() as u64) < length {
            return Err(short(length));
        }
        if bytes.len() as u64 > length {
            return Err(ReadError::TooLong(bytes.len() as u64 - length));
        }
        if u32_at(preamble, 12) as usize != SECTIONS.len() {
            return Err(damaged("a wrong number of sections"));
        }
        let table_end = PREAMBLE + SECTIONS.len() * ENTRY;
        let table = bytes.get(..table_end).ok_or(damaged("no room for the table of sections"))?;
        let hash = table_hash(table);
        if preamble[32..64] != hash.0 {
            return Err(damaged("the table of sections does not match its checksum"));
        }

        let mut parts = Vec::with_capacity(SECTIONS.len());
        let mut end = table_end;
        for (entry, (id, name)) in table[PREAMBLE..].chunks_exact(ENTRY).zip(SECTIONS) {
            let (start, length) = (u64_at(entry, 8), u64_at(entry, 16));
            let aligned = end.next_multiple_of(alignment(name));
            if u32_at(entry, 0) != id || start != aligned as u64 {
                return Err(damaged(format!("the {name} section is not where it belongs")));
            }
            let part = usize::try_from(length)
                .ok()
                .and_then(|l| aligned.checked_add(l))
                .and_then(|e| bytes.get(aligned..e))
                .ok_or_else(|| damaged(format!("the {name} section reaches past the end")))?;
            if bytes[end..aligned].iter().any(|&b| b != 0) {
                return Err(damaged(format!("the padding before the {name} section is not zero")));
            }
            if blake3::hash(part).as_bytes()[..] != entry[24..56] {
                return Err(damaged(format!("the {name} section does not match its checksum")));
            }
            end = aligned + part.len();
            parts.push(part);
        }
        if end != bytes.len() {
            return Err(damaged("bytes after the last section"));
        }

        let plan = Plan {
            header: decode("header", parts[0])?,
            kernels: decode("kernels", parts[1])?,
            classes: decode("classes", parts[2])?,
            residencies: decode("residencies", parts[3])?,
            programs: decode("programs", parts[4])?,
            manifest: decode("manifest", parts[5])?,
            places: decode("places", parts[6])?,
            object: Vec::new(),
        };
        structure(&plan).map_err(ReadError::Malformed)?;
        Ok(Self { plan, object: parts[7], hash })
    }
}

fn alignment(section: &str) -> usize {
    if section == "object" { PAGE } else { 8 }
}

/// Over preamble and table, with the field that holds the hash itself left out.
fn table_hash(table: &[u8]) -> PlanHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&table[..32]).update(&table[PREAMBLE..]);
    PlanHash(*hasher.finalize().as_bytes())
}

fn encode(section: &'static str, value: &impl Serialize) -> Result<Vec<u8>, WriteError> {
    postcard::to_stdvec(value).map_err(|reason| WriteError::Section { section, reason })
}

fn decode<T: DeserializeOwned>(section: &str, bytes: &[u8]) -> Result<T, ReadError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(damaged(format!("the {section} section has {} bytes too many", rest.len()))),
        Err(e) => Err(damaged(format!("the {section} section does not decode: {e}"))),
    }
}

fn damaged(what: impl Into<String>) -> ReadError {
    ReadError::Damaged(what.into())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
