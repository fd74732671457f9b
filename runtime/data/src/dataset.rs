//! A dataset: records of tensors in tars (webdataset layout) or in single safetensors files, indexed once.

mod ragged;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use plan::Feed;
use safetensors::Dtype;
use types::{TensorType, nearest};

use crate::convert::converts;
use crate::data_file::DataFile;
use crate::folder::{self, Kind};
use crate::foreign;
use crate::inputs::stray;
use crate::open_files::OpenFiles;
use crate::parallel::{Told, in_parallel};
use crate::shuffle::Shuffle;
use crate::tar_index::{self, Member, Tally, shown};
use crate::tensors::{ReadFault, Tensors, text};
use crate::{DataError, Share};

pub use self::ragged::{RaggedFeed, fits as ragged_rows};

/// Copies share the index and the files.
#[derive(Clone)]
pub struct Dataset {
    index: Arc<Index>,
    shuffle: Shuffle,
}

struct Index {
    /// With the sizes that they had when they were indexed.
    files: Vec<(PathBuf, u64)>,
    open: OpenFiles,
    records: Vec<Record>,
    /// What tensors records have: most have the same.
    layouts: Vec<Layout>,
    left_out: Vec<String>,
}

/// One sample: its members, each a safetensors image in the file.
struct Record {
    file: u32,
    layout: u32,
    /// Path inside the tar, for messages; empty for a file that is one record.
    stem: Box<str>,
    members: Box<[Range<u64>]>,
}

/// The tensors of a record, by name.
type Layout = Vec<(String, Dtype, Vec<usize>)>;

/// The members that are one record.
struct Group {
    file: u32,
    stem: Vec<u8>,
    members: Vec<Member>,
}

impl Dataset {
    /// Indexes a folder of `.tar` or `.safetensors` files, or one such file, and checks the headers of all records.
    pub fn open(path: &Path, seed: u64, told: Told<'_>) -> Result<Self, DataError> {
        let _span = tracing::info_span!("index data").entered();
        let (files, others) = folder::list(path)?;
        let found = in_parallel("files", files.len(), told, |i| groups(i, &files[i].0, files[i].1))?;
        let mut index = Index {
            files: Vec::with_capacity(files.len()),
            open: OpenFiles::default(),
            records: Vec::new(),
            layouts: Vec::new(),
            left_out: Vec::new(),
        };
        let (mut groups, mut left_out) = (Vec::new(), Tally::new());
        for ((path, _), (bytes, more, tally)) in files.into_iter().zip(found) {
            index.files.push((path, bytes));
            groups.extend(more);
            tally.into_iter().for_each(|(kind, count)| *left_out.entry(kind).or_default() += count);
        }
        index.left_out.extend(others.iter().map(|(kind, n)| counted(kind, "file", *n)));
        index.left_out.extend(left_out.iter().map(|(kind, n)| counted(kind, "member", *n)));
        let count = u32::try_from(groups.len()).ok().filter(|n| *n > 0);
        let count = count.ok_or_else(|| {
            let others = match index.left_out.is_empty() {
                true => String::new(),
                false => format!("; there are {}", index.left_out.join(", ")),
            };
            DataError::format(path, format!("no records: tars of `NAME.safetensors` members are expected{others}"))
        })?;
        index.check_headers(groups, told)?;
        Ok(Self { index: Arc::new(index), shuffle: Shuffle::new(seed, count) })
    }

    /// What of the folder and its tars is no record: `3 members (.json)`.
    pub fn left_out(&self) -> &[String] {
        &self.index.left_out
    }

    pub fn records(&self) -> usize {
        self.index.records.len()
    }

    /// The files, in the order of their records.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.index.files.iter().map(|(path, _)| path.as_path())
    }

    /// The name of a sample's record.
    pub fn name(&mut self, sample: u64) -> String {
        self.index.name(&self.index.records[self.shuffle.record(sample)]).display().to_string()
    }

    /// A sample's record, and the name that it has for a feed.
    pub fn tensor(&mut self, sample: u64, feed: &Feed) -> (String, String) {
        let record = &self.index.records[self.shuffle.record(sample)];
        let layout = &self.index.layouts[record.layout as usize];
        let name = feed.names().find(|name| layout.iter().any(|(n, ..)| n == name)).unwrap_or(&feed.name);
        (self.index.name(record).display().to_string(), name.to_string())
    }

    /// Compares a feed with the headers of all records, and tries it on the first, so that what fits nowhere is found
    /// before a run begins.
    pub fn check(&self, feed: &Feed) -> Result<(), DataError> {
        let share = Share::whole(&feed.ty);
        batch_of(feed)?;
        self.index.check_layouts(feed, share.inner().ty())?;
        self.index.sample(0, feed, &share.inner(), &mut vec![0; share.inner().bytes()])
    }

    /// Fills a rank's share of a feed's batch, which begins with sample number `first`; the feed's first dim is the batch.
    pub fn batch(&mut self, feed: &Feed, share: &Share, first: u64, out: &mut [u8]) -> Result<(), DataError> {
        batch_of(feed)?;
        share.clear_padding(out);
        let (inner, region) = (share.inner(), share.region());
        let samples = region.offset[0]..region.offset[0] + region.size[0];
        for (sample, out) in samples.zip(out.chunks_exact_mut(inner.bytes().max(1))) {
            let record = self.shuffle.record(first + sample as u64);
            self.index.sample(record, feed, &inner, out)?;
        }
        Ok(())
    }
}

impl Index {
    /// Reads the headers of all groups, which become the records.
    fn check_headers(&mut self, groups: Vec<Group>, told: Told<'_>) -> Result<(), DataError> {
        let known: Mutex<BTreeMap<Layout, u32>> = Mutex::default();
        let layouts = in_parallel("records", groups.len(), told, |i| {
            let layout = self.layout(&groups[i])?;
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let next = known.len() as u32;
            Ok(*known.entry(layout).or_insert(next))
        })?;
        let mut known: Vec<_> = known.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        known.sort_unstable_by_key(|(_, number)| *number);
        self.layouts = known.into_iter().map(|(layout, _)| layout).collect();
        let record = |(group, layout): (Group, u32)| Record {
            file: group.file,
            layout,
            stem: shown(&group.stem).into(),
            members: group.members.into_iter().map(|m| m.range).collect(),
        };
        self.records = groups.into_iter().zip(layouts).map(record).collect();
        Ok(())
    }

    fn layout(&self, group: &Group) -> Result<Layout, DataError> {
        let file = self.file(group.file)?;
        let mut tensors: Vec<(String, Dtype, Vec<usize>, usize)> = Vec::new();
        for (i, member) in group.members.iter().enumerate() {
            let place = if member.name.is_empty() { String::new() } else { format!("/{}", shown(&member.name)) };
            let place = PathBuf::from(format!("{}{place}", file.path().display()));
            let read = read(&file, &member.range, &place)?;
            tensors.extend(read.into_entries().into_iter().map(|e| (e.name, e.dtype, e.shape, i)));
        }
        tensors.sort();
        if let Some([a, b]) = tensors.windows(2).find(|two| two[0].0 == two[1].0) {
            let member = |i: usize| shown(&group.members[i].name);
            return Err(DataError::Mismatch {
                what: format!(
                    "{}: `{}` and `{}` are members of one record, and both have a tensor `{}`",
                    file.path().display(),
                    member(a.3),
                    member(b.3),
                    a.0
                ),
                problems: Vec::new(),
                help: Some(
                    "members whose names are the same up to the first dot are one record; rename them if they are not"
                        .into(),
                ),
            });
        }
        Ok(tensors.into_iter().map(|(name, dtype, shape, _)| (name, dtype, shape)).collect())
    }

    /// Finds records that do not have what a feed takes.
    fn check_layouts(&self, feed: &Feed, wanted: &TensorType) -> Result<(), DataError> {
        let find = |layout: &Layout, name: &str| layout.iter().position(|(n, ..)| *n == *name);
        let both = |layout: &Layout| {
            let there: Vec<&str> = feed.names().filter(|name| find(layout, name).is_some()).collect();
            let names = there.join("` and `");
            (there.len() > 1)
                .then(|| format!("the record has `{names}`, which are names of one input; take out all but one"))
        };
        let one = |layout: &Layout| match feed.names().find_map(|name| find(layout, name)).map(|at| &layout[at]) {
            Some((_, dtype, shape)) => fits(*dtype, shape, feed, wanted).err(),
            None => {
                let names: Vec<&str> = layout.iter().map(|(name, ..)| name.as_str()).collect();
                let near = nearest(&feed.name, names.iter().copied());
                let near =
                    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
                Some(format!("the record has no tensor `{}`, only {}{near}", feed.name, names.join(", ")))
            }
        };
        let faults: Vec<Option<String>> =
            self.layouts.iter().map(|layout| both(layout).or_else(|| one(layout))).collect();
        let mut wrong = self.records.iter().filter_map(|r| Some((r, faults[r.layout as usize].as_ref()?)));
        let Some((first, what)) = wrong.next() else { return Ok(()) };
        let others = match wrong.count() {
            0 => String::new(),
            n => format!(" ({n} more of {} records do not fit either)", self.records.len()),
        };
        Err(DataError::Format { path: self.name(first), what: format!("{what}{others}") })
    }

    /// Writes a share of one record's tensor; `share` is without the batch.
    fn sample(&self, record: usize, feed: &Feed, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        let record = &self.records[record];
        let file = self.file(record.file)?;
        let wrong = |what: String| DataError::Format { path: self.name(record), what };
        let members: Vec<_> =
            record.members.iter().map(|range| read(&file, range, &self.name(record))).collect::<Result<_, _>>()?;
        for name in feed.names() {
            if let Some(view) = members.iter().find_map(|tensors| tensors.get(&file, name)) {
                fits(view.dtype, view.shape, feed, share.ty()).map_err(wrong)?;
                view.read(share, out).map_err(|e| e.of(&self.name(record), name))?;
                return stray(feed, out).map_or(Ok(()), |what| Err(wrong(format!("`{name}`: {what}"))));
            }
        }
        Err(wrong(format!("the record has no tensor `{}` any more", feed.name)))
    }

    fn file(&self, number: u32) -> Result<Arc<DataFile>, DataError> {
        let (path, bytes) = &self.files[number as usize];
        self.open.get(number as usize, path, *bytes)
    }

    /// A record as messages call it: the tar and the path inside it.
    fn name(&self, record: &Record) -> PathBuf {
        let path = &self.files[record.file as usize].0;
        if record.stem.is_empty() { path.clone() } else { format!("{}/{}", path.display(), record.stem).into() }
    }
}

/// `3 members (.json)`
fn counted(kind: &str, what: &str, n: usize) -> String {
    let plural = if n == 1 { "" } else { "s" };
    if kind == "folder" { format!("{n} folder{plural}") } else { format!("{n} {what}{plural} ({kind})") }
}

/// The records of a file by their members, the file's size, and what else it holds. Members that follow one another and
/// share the name up to its first dot are one record.
fn groups(number: usize, path: &Path, kind: Kind) -> Result<(u64, Vec<Group>, Tally), DataError> {
    let file = DataFile::open(path)?;
    let number = u32::try_from(number).map_err(|_| DataError::format(path, "more than 2^32 files"))?;
    if kind == Kind::Tensors {
        let whole = Member { name: Vec::new(), range: 0..file.bytes() };
        let group = Group { file: number, stem: Vec::new(), members: vec![whole] };
        return Ok((file.bytes(), vec![group], Tally::new()));
    }
    let (members, left_out) = tar_index::members(&file)?;
    let mut groups: Vec<Group> = Vec::new();
    for member in members {
        let stem = stem(&member.name);
        match groups.last_mut().filter(|g| g.stem == stem) {
            Some(group) => group.members.push(member),
            None => groups.push(Group { file: number, stem: stem.to_vec(), members: vec![member] }),
        }
    }
    Ok((file.bytes(), groups, left_out))
}

/// A member's name up to the first dot in the name of the file.
fn stem(name: &[u8]) -> &[u8] {
    let file = name.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let hidden = name[file..].iter().take_while(|b| **b == b'.').count();
    let dot = name[file + hidden..].iter().position(|b| *b == b'.').unwrap_or(name.len() - file - hidden);
    &name[..file + hidden + dot]
}

fn read(file: &DataFile, range: &Range<u64>, place: &Path) -> Result<Tensors, DataError> {
    Tensors::read(file, range.clone()).map_err(|fault| match fault {
        ReadFault::File(error) => error,
        // What changed since it was opened is told as such, not by what lies there now.
        ReadFault::Format(_) if let Err(changed) = file.is_still(file.bytes()) => changed,
        ReadFault::Format(what) => {
            let bytes = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let identity = foreign::identity(&file.head(range.start, bytes.min(foreign::HEAD)));
            DataError::format(place, format!("no safetensors record: {}", identity.unwrap_or(what)))
        }
    })
}

fn batch_of(feed: &Feed) -> Result<usize, DataError> {
    feed.ty.dims.first().map(|d| d.size).ok_or_else(|| DataError::Mismatch {
        what: format!("the feed `{}` is one number and has no batch to take from data", feed.name),
        problems: Vec::new(),
        help: Some("give it with --inputs".into()),
    })
}

fn fits(dtype: Dtype, shape: &[usize], feed: &Feed, wanted: &TensorType) -> Result<(), String> {
    let sizes = wanted.sizes();
    // A sample may come with its batch dim of 1.
    if shape != sizes.as_slice() && shape.strip_prefix(&[1]) != Some(&sizes[..]) {
        return Err(format!("`{}` has {}, and {wanted} is needed for one sample", feed.name, text(dtype, shape)));
    }
    if !converts(dtype, feed.ty.dtype) {
        return Err(format!("`{}` holds {}, and {wanted} is needed", feed.name, text(dtype, shape)));
    }
    Ok(())
}
