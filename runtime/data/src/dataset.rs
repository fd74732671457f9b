//! A dataset: records of tensors in tars (webdataset layout) or in single safetensors files, indexed once.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::Mapped;
use plan::Feed;
use types::{TensorType, nearest};

use crate::convert::converts;
use crate::inputs::stray;
use crate::shuffle::Shuffle;
use crate::{DataError, Share, TensorView, Tensors};

/// Copies share the index and the files.
#[derive(Clone)]
pub struct Dataset {
    index: Arc<Index>,
    shuffle: Shuffle,
}

#[derive(Default)]
struct Index {
    files: Vec<(PathBuf, Mapped)>,
    records: Vec<Record>,
}

/// One sample: its members' images, wherever they lie.
struct Record {
    /// Path of the tar and stem inside it, for messages.
    name: String,
    members: Vec<(usize, Range<usize>)>,
}

impl Dataset {
    /// Indexes a folder of `.tar` or `.safetensors` files, or one such file.
    pub fn open(path: &Path, seed: u64) -> Result<Self, DataError> {
        let _span = tracing::info_span!("index data").entered();
        let mut index = Index::default();
        let mut paths = vec![path.to_path_buf()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let entries = entries.map_err(|e| DataError::file(path, e))?;
            paths = entries.into_iter().map(|e| e.path()).filter(|p| is(p, "tar") || is(p, "safetensors")).collect();
            // The order of a folder is the file system's whim.
            paths.sort();
        }
        for file in &paths {
            let image = Mapped::open(file).map_err(|e| DataError::file(file, e))?;
            if is(file, "tar") {
                index.add_tar(file, &image)?;
            } else {
                let name = file.display().to_string();
                index.records.push(Record { name, members: vec![(index.files.len(), 0..image.len())] });
            }
            index.files.push((file.clone(), image));
        }
        let count = u32::try_from(index.records.len()).ok().filter(|n| *n > 0);
        let count = count
            .ok_or_else(|| DataError::format(path, "no records: tars of `NAME.safetensors` members are expected"))?;
        Ok(Self { index: Arc::new(index), shuffle: Shuffle::new(seed, count) })
    }

    pub fn records(&self) -> usize {
        self.index.records.len()
    }

    /// The files, in the order of their records.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.index.files.iter().map(|(path, _)| path.as_path())
    }

    /// Tries a feed on the first record, so that what fits nowhere is found before a run begins.
    pub fn check(&self, feed: &Feed) -> Result<(), DataError> {
        let share = Share::whole(&feed.ty);
        batch_of(feed)?;
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
    /// Adds the records of a tar: members that share the name up to its first dot are one record.
    fn add_tar(&mut self, path: &Path, image: &[u8]) -> Result<(), DataError> {
        let index = self.files.len();
        let broken = |e: std::io::Error| DataError::format(path, format!("no tar file: {e}"));
        let mut archive = tar::Archive::new(std::io::Cursor::new(image));
        let mut last: Option<String> = None;
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
            if !entry.header().entry_type().is_file() || !name.ends_with(".safetensors") {
                continue;
            }
            let start = entry.raw_file_position();
            let range =
                usize::try_from(start).ok().zip(start.checked_add(entry.size()).and_then(|e| usize::try_from(e).ok()));
            let range = range.map(|(s, e)| s..e).filter(|r| r.end <= image.len());
            let range =
                range.ok_or_else(|| DataError::format(path, format!("`{name}` reaches past the end of the tar")))?;
            let (folder, file) = name.rsplit_once('/').map_or(("", name.as_str()), |(folder, file)| (folder, file));
            let stem = format!("{folder}/{}", file.split('.').next().unwrap_or(file));
            match self.records.last_mut().filter(|_| last.as_deref() == Some(&stem)) {
                Some(record) => record.members.push((index, range)),
                None => {
                    let name = format!("{}/{}", path.display(), stem.trim_start_matches('/'));
                    self.records.push(Record { name, members: vec![(index, range)] });
                }
            }
            last = Some(stem);
        }
        Ok(())
    }

    /// Writes a share of one record's tensor; `share` is without the batch.
    fn sample(&self, record: usize, feed: &Feed, share: &Share, out: &mut [u8]) -> Result<(), DataError> {
        let record = &self.records[record];
        let wrong = |what: String| DataError::Format { path: PathBuf::from(&record.name), what };
        let mut names = Vec::new();
        for (file, range) in &record.members {
            let image = &self.files[*file].1[range.clone()];
            let tensors = Tensors::parse(image).map_err(|e| wrong(format!("no safetensors record: {e}")))?;
            if let Some(view) = tensors.get(image, &feed.name) {
                check(&view, feed, share.ty()).map_err(wrong)?;
                view.read(share, out).map_err(|e| wrong(format!("`{}`: {e}", feed.name)))?;
                return stray(feed, out).map_or(Ok(()), |what| Err(wrong(format!("`{}`: {what}", feed.name))));
            }
            names.extend(tensors.names().map(String::from));
        }
        let near = nearest(&feed.name, names.iter().map(String::as_str));
        let near = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
        Err(wrong(format!("the record has no tensor `{}`, only {}{near}", feed.name, names.join(", "))))
    }
}

fn batch_of(feed: &Feed) -> Result<usize, DataError> {
    feed.ty.dims.first().map(|d| d.size).ok_or_else(|| DataError::Mismatch {
        what: format!("the feed `{}` is one number and has no batch to take from data", feed.name),
        problems: Vec::new(),
        help: Some("give it with --inputs".into()),
    })
}

fn check(view: &TensorView<'_>, feed: &Feed, wanted: &TensorType) -> Result<(), String> {
    let sizes = wanted.sizes();
    // A sample may come with its batch dim of 1.
    if view.shape != sizes.as_slice() && view.shape.strip_prefix(&[1]) != Some(&sizes[..]) {
        return Err(format!("`{}` has {}, and {wanted} is needed for one sample", feed.name, view.text()));
    }
    if !converts(view.dtype, feed.ty.dtype) {
        return Err(format!("`{}` holds {}, and {wanted} is needed", feed.name, view.text()));
    }
    Ok(())
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}
