//! The index of a tar: where its safetensors members lie, and what else it holds.
//!
//! Archives that were put one after the other are read as one. Members that are links inside the archive are read where
//! they lead. What cannot be read as it lies there (sparse members, links that lead out, an archive that was cut) is
//! refused by name.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use tar::EntryType;

use crate::DataError;
use crate::data_file::{Cursor, DataFile};
use crate::foreign;

/// A tar's blocks: headers and members begin on them.
const BLOCK: u64 = 512;

pub struct Member {
    /// As the tar spells it; often, but not always, UTF-8.
    pub name: Vec<u8>,
    pub range: Range<u64>,
}

/// How many of what kind were left out.
pub type Tally = BTreeMap<String, usize>;

/// Where a member's bytes are: here, or with the member of another name.
enum Bytes {
    Here(Range<u64>),
    Of(Vec<u8>),
}

/// The safetensors members in their order.
pub fn members(file: &DataFile) -> Result<(Vec<Member>, Tally), DataError> {
    let mut archive = tar::Archive::new(Cursor::new(file));
    archive.set_ignore_zeros(true);
    let broken = |e: std::io::Error, end: u64| match end {
        0 if foreign::is_tar(&file.head(0, foreign::HEAD)) => {
            DataError::format(file.path(), format!("the tar is damaged in its first header: {e}"))
        }
        0 => foreign::refused(file, "tar file", e),
        end => {
            DataError::format(file.path(), format!("the tar is damaged behind byte {end}, where a member ends: {e}"))
        }
    };
    let (mut found, mut left_out, mut end) = (Vec::new(), Tally::new(), 0);
    for entry in archive.entries_with_seek().map_err(|e| broken(e, 0))? {
        let mut entry = entry.map_err(|e| broken(e, end))?;
        let name = entry.path_bytes().into_owned();
        let refuse = |what: &str| DataError::format(file.path(), format!("`{}` {what}", shown(&name)));
        let kind = entry.header().entry_type();
        // An entry that is a link or a folder has no bytes, whatever its size says.
        let size = if kind.is_file() || kind == EntryType::Continuous { entry.size() } else { 0 };
        let start = entry.raw_file_position();
        let past = start.checked_add(size).filter(|past| *past <= file.bytes());
        end = past.map_or(end, |past| past.next_multiple_of(BLOCK));
        let packed =
            [&b".gz"[..], b".zst", b".xz", b".bz2"].iter().any(|end| name.strip_suffix(*end).is_some_and(is_record));
        if packed {
            return Err(refuse("is compressed; pack the tar with members that are not"));
        }
        if !is_record(&name) {
            if kind.is_file() || kind == EntryType::Continuous {
                *left_out.entry(extension(&name)).or_default() += 1;
            }
            if past.is_none() {
                return Err(refuse("reaches past the end of the tar: it was cut"));
            }
            continue;
        }
        let sparse = kind.is_gnu_sparse() || has_sparse_map(&mut entry);
        let link = || entry.link_name_bytes().map(|to| to.into_owned()).unwrap_or_default();
        let bytes = match kind {
            _ if sparse => return Err(refuse("is stored sparsely; pack the tar without --sparse")),
            EntryType::Regular | EntryType::Continuous => {
                let past = past.ok_or_else(|| refuse("reaches past the end of the tar: it was cut"))?;
                Bytes::Here(start..past)
            }
            EntryType::Link => Bytes::Of(plain(&link())),
            EntryType::Symlink => {
                let folder = name.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &name[..at]);
                Bytes::Of(plain(&[folder, b"/", &link()].concat()))
            }
            EntryType::Directory => continue,
            _ => return Err(refuse("is no file; only files are records")),
        };
        found.push((name, bytes));
    }
    if end >= file.bytes() && file.bytes() > 0 {
        return Err(DataError::format(
            file.path(),
            "the tar has no end mark (a block of zeros): it was cut, or whoever wrote it did not close it; if it is \
             whole, add the mark with `truncate -s +1024`",
        ));
    }
    Ok((resolve(file, found)?, left_out))
}

/// Replaces links by what they lead to: a hard link by the member before it, a symbolic one by any.
fn resolve(file: &DataFile, found: Vec<(Vec<u8>, Bytes)>) -> Result<Vec<Member>, DataError> {
    let here = |(name, bytes): &(Vec<u8>, Bytes)| match bytes {
        Bytes::Here(range) => Some((plain(name), range.clone())),
        Bytes::Of(_) => None,
    };
    let places: HashMap<Vec<u8>, Range<u64>> = match found.iter().any(|(_, b)| matches!(b, Bytes::Of(_))) {
        true => found.iter().filter_map(here).collect(),
        false => HashMap::new(),
    };
    let links: HashMap<Vec<u8>, Vec<u8>> = found
        .iter()
        .filter_map(|(name, bytes)| match bytes {
            Bytes::Of(to) => Some((plain(name), to.clone())),
            Bytes::Here(_) => None,
        })
        .collect();
    let follow = |to: &Vec<u8>| {
        let mut to = to;
        // A chain of links is as long as there are links, or a circle.
        for _ in 0..=links.len().min(40) {
            match places.get(to) {
                Some(range) => return Some(range.clone()),
                None => to = links.get(to)?,
            }
        }
        None
    };
    let member = |(name, bytes): (Vec<u8>, Bytes)| {
        let range = match &bytes {
            Bytes::Here(range) => range.clone(),
            Bytes::Of(to) => follow(to).ok_or_else(|| {
                let what = format!("`{}` is a link to `{}`, which is no member of the tar", shown(&name), shown(to));
                DataError::format(file.path(), format!("{what}; pack it with --dereference"))
            })?,
        };
        Ok(Member { name, range })
    };
    found.into_iter().map(member).collect()
}

/// A path without `.`, `..` and what comes before a first `/`.
fn plain(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// PAX archives say in an extension that a member is sparse.
fn has_sparse_map<R: std::io::Read>(entry: &mut tar::Entry<'_, R>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return false };
    extensions.flatten().any(|e| e.key_bytes().starts_with(b"GNU.sparse"))
}

/// Whether a name is that of a member with tensors. What macOS adds beside a file is none.
pub fn is_record(name: &[u8]) -> bool {
    let file = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
    let ending = b".safetensors";
    let at = file.len().wrapping_sub(ending.len());
    !file.starts_with(b"._") && file.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

/// `.json`
pub fn extension(name: &[u8]) -> String {
    let file = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
    let at = file.iter().rposition(|b| *b == b'.').filter(|at| *at > 0);
    at.map_or_else(|| "without an extension".into(), |at| shown(&file[at..]))
}

pub fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
