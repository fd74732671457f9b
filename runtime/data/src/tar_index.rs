//! The index of a tar: where its safetensors members lie, and what else it holds.
//!
//! Of two members of one name the later one counts, as for whoever unpacks the archive: so `tar -r` replaces a record.
//! Archives that were put one after the other are read one after the other, and their names have nothing to do with each
//! other. Members that are links inside an archive are read where they lead. What cannot be read as it lies there (sparse
//! members, links that lead out, an archive that was cut) is refused by name.

use std::collections::hash_map::Entry;
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
#[derive(Clone)]
enum Bytes {
    Here(Range<u64>),
    Of(Vec<u8>),
}

/// The members of an archive up to its end mark.
#[derive(Default)]
struct Archive {
    members: Vec<(Vec<u8>, Bytes)>,
    /// The number of each by its path.
    numbers: HashMap<Vec<u8>, usize>,
}

/// How members are counted whose name a later member of the archive has.
const REPLACED: &str = "each replaced by a later one of its name";

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
    let (mut found, mut left_out, mut end) = (vec![Archive::default()], Tally::new(), 0);
    for entry in archive.entries_with_seek().map_err(|e| broken(e, 0))? {
        let mut entry = entry.map_err(|e| broken(e, end))?;
        let name = entry.path_bytes().into_owned();
        let refuse = |what: &str| DataError::format(file.path(), format!("`{}` {what}", shown(&name)));
        let kind = entry.header().entry_type();
        // An entry that is a link or a folder has no bytes, whatever its size says.
        let size = if kind.is_file() || kind == EntryType::Continuous { entry.size() } else { 0 };
        let start = entry.raw_file_position();
        // Before the header there may be others that extend it, or end marks of the archive before.
        if entry.raw_header_position() > end && file.head(end, BLOCK as usize).iter().all(|byte| *byte == 0) {
            found.push(Archive::default());
        }
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
            EntryType::Link => found[found.len() - 1].get(&plain(&link())),
            EntryType::Symlink => {
                let folder = name.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &name[..at]);
                Bytes::Of(plain(&[folder, b"/", &link()].concat()))
            }
            EntryType::Directory => continue,
            _ => return Err(refuse("is no file; only files are records")),
        };
        if let Some(archive) = found.last_mut()
            && !archive.add(name, bytes)
        {
            *left_out.entry(REPLACED.into()).or_default() += 1;
        }
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

impl Archive {
    /// Adds a member; false if it takes the place of one of the same name.
    fn add(&mut self, name: Vec<u8>, bytes: Bytes) -> bool {
        match self.numbers.entry(plain(&name)) {
            Entry::Occupied(at) => {
                self.members[*at.get()] = (name, bytes);
                false
            }
            Entry::Vacant(free) => {
                free.insert(self.members.len());
                self.members.push((name, bytes));
                true
            }
        }
    }

    /// The bytes that a member of this path has by now.
    fn get(&self, path: &[u8]) -> Bytes {
        self.numbers.get(path).map_or_else(|| Bytes::Of(path.into()), |at| self.members[*at].1.clone())
    }
}

/// Replaces symbolic links by what they lead to: a member of their archive, or else of one before it.
fn resolve(file: &DataFile, found: Vec<Archive>) -> Result<Vec<Member>, DataError> {
    let links = found.iter().flat_map(|a| &a.members).filter(|(_, bytes)| matches!(bytes, Bytes::Of(_))).count();
    let follow = |archive: usize, path: &[u8]| {
        let (mut archive, mut path) = (archive, path.to_vec());
        // A chain of links is as long as there are links, or a circle.
        for _ in 0..=links.min(40) {
            let has = |archive: &usize| found[*archive].numbers.contains_key(&path);
            archive = (0..=archive).rev().find(has)?;
            match found[archive].get(&path) {
                Bytes::Here(range) => return Some(range),
                Bytes::Of(to) => path = to,
            }
        }
        None
    };
    let member = |(archive, (name, bytes)): (usize, &(Vec<u8>, Bytes))| {
        let range = match bytes {
            Bytes::Here(range) => range.clone(),
            Bytes::Of(to) => follow(archive, to).ok_or_else(|| {
                let what = format!("`{}` is a link to `{}`, which is no member of the tar", shown(name), shown(to));
                DataError::format(file.path(), format!("{what}; pack it with --dereference"))
            })?,
        };
        Ok(Member { name: name.clone(), range })
    };
    let all = found.iter().enumerate().flat_map(|(number, archive)| archive.members.iter().map(move |m| (number, m)));
    all.map(member).collect()
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
