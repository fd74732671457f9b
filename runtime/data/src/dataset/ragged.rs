//! Ragged feeds from records: a record has any number of rows, and a data group those of its records one after another.

use plan::Feed;
use safetensors::Dtype;
use types::{Dim, TensorType};

use super::{Dataset, Index, read};
use crate::convert::{convert, converts};
use crate::inputs::stray;
use crate::ragged::{Groups, Parts};
use crate::tensors::text;
use crate::{DataError, Share, TensorView};

/// Of a program: a ragged feed among all feeds.
#[derive(Clone, Copy)]
pub struct RaggedFeed<'a> {
    pub feed: &'a Feed,
    pub feeds: &'a [Feed],
    pub groups: &'a Groups,
}

/// The rows that a record has for a feed, in the feed's type.
pub struct RecordRows<'a> {
    pub ty: &'a TensorType,
    pub bytes: &'a [u8],
    /// The record's name, and the tensor's.
    pub tensor: (String, String),
}

impl Dataset {
    /// Compares a ragged feed with the headers of all records, and tries it on the first.
    pub fn check_ragged(&self, of: RaggedFeed<'_>) -> Result<(), DataError> {
        for record in &self.index.records {
            let layout = &self.index.layouts[record.layout as usize];
            let found = of.feed.names().find_map(|name| layout.iter().find(|(n, ..)| n == name));
            if let Some((_, dtype, shape)) = found {
                fits(*dtype, shape, of).map_err(|what| DataError::Format { path: self.index.name(record), what })?;
            }
        }
        self.index.rows(0, of).map(|_| ())
    }

    /// Fills a rank's share of a ragged feed, whose groups' samples begin with number `first`; `seen` is told of each record.
    pub fn groups(
        &mut self,
        of: RaggedFeed<'_>,
        share: &Share,
        first: u64,
        out: &mut [u8],
        mut seen: impl FnMut(RecordRows<'_>),
    ) -> Result<(), DataError> {
        let RaggedFeed { feed, groups, .. } = of;
        let Some(axis) = groups.axis(feed) else { return self.batch(feed, share, first, out) };
        let is_grouped = feed.ty.dims.first().is_some_and(|d| d.name != axis.axis);
        let (inner, held) = match is_grouped {
            true => (share.inner(), share.region().offset[0]..share.region().offset[0] + share.region().size[0]),
            false => (share.clone(), 0..1),
        };
        share.clear_padding(out);
        let row = groups.row(feed);
        let mut whole = vec![0; inner.ty().bytes()];
        for (group, out) in held.zip(out.chunks_exact_mut(inner.bytes().max(1))) {
            whole.fill(0);
            let mut rows = 0;
            for sample in groups.members(group) {
                let record = self.shuffle.record(first + sample as u64);
                let (count, bytes) = self.index.rows(record, of)?;
                let path = || self.index.name(&self.index.records[record]);
                groups
                    .fits(&axis.axis, group, rows + count)
                    .map_err(|what| DataError::Format { path: path(), what })?;
                whole[rows * row.bytes()..][..bytes.len()].copy_from_slice(&bytes);
                rows += count;
                let dim = Dim { name: axis.axis.clone(), size: count };
                let ty = TensorType::new(row.dtype, [dim].into_iter().chain(row.dims.iter().cloned()));
                let tensor = (path().display().to_string(), feed.name.to_string());
                seen(RecordRows { ty: &ty, bytes: &bytes, tensor });
            }
            inner.scatter(&whole, out);
        }
        Ok(())
    }
}

impl Index {
    /// The rows that a record has, none where it has no such tensor; and that they are its own.
    fn rows(&self, record: usize, of: RaggedFeed<'_>) -> Result<(usize, Vec<u8>), DataError> {
        let RaggedFeed { feed, feeds, groups } = of;
        let record = &self.records[record];
        let file = self.file(record.file)?;
        let wrong = |what: String| DataError::Format { path: self.name(record), what };
        let members: Vec<_> =
            record.members.iter().map(|range| read(&file, range, &self.name(record))).collect::<Result<_, _>>()?;
        // The bytes of a tensor in the feed's type.
        let bytes = |feed: &Feed, view: &TensorView<'_>| -> Result<Vec<u8>, DataError> {
            let elements: usize = view.shape.iter().product();
            let mut bytes = vec![0; elements * feed.ty.dtype.bytes()];
            convert(view.dtype, &view.data()?, feed.ty.dtype, &mut bytes).map_err(|e| wrong(e.to_string()))?;
            match stray(feed, &bytes) {
                Some(what) => Err(wrong(format!("`{}`: {what}", feed.name))),
                None => Ok(bytes),
            }
        };
        let mut parts = Parts::default();
        let mut own = (0, vec![]);
        for part in feeds.iter().filter(|f| groups.is_part(f)) {
            let find = |name: &str| members.iter().find_map(|tensors| tensors.get(&file, name));
            let view = part.names().find_map(find);
            let axis = groups.axis(part);
            let rows = match (&view, axis) {
                (Some(view), Some(_)) => {
                    fits(view.dtype, view.shape, RaggedFeed { feed: part, ..of }).map_err(wrong)?
                }
                (None, Some(_)) => 0,
                (Some(view), None) => {
                    converted(view.dtype, view.shape, part).map_err(wrong)?;
                    1
                }
                (None, None) => continue,
            };
            // Of others than this feed, only whole numbers tell anything.
            let is_read = part.name == feed.name || !part.ty.dtype.is_float();
            let data = view.filter(|_| is_read).map(|view| bytes(part, &view)).transpose()?.unwrap_or_default();
            parts.add(part, axis, rows, &data).map_err(wrong)?;
            if part.name == feed.name {
                own = (rows, data);
            }
        }
        groups.rows(1, &parts).map_err(wrong)?;
        Ok(own)
    }
}

/// Rows of a tensor of this shape, if each is what the feed takes.
fn rows_of(shape: &[usize], of: RaggedFeed<'_>) -> Result<usize, String> {
    let row = of.groups.row(of.feed);
    match shape.split_first() {
        Some((rows, rest)) if rest == row.sizes().as_slice() => Ok(*rows),
        _ => {
            let axis = of.groups.axis(of.feed).map_or("", |r| r.axis.as_str());
            let sizes: Vec<String> = row.sizes().iter().map(ToString::to_string).collect();
            let want = [axis.to_string()].into_iter().chain(sizes).collect::<Vec<_>>().join(", ");
            Err(format!("`{}` has the shape {shape:?}, and [{want}] is needed", of.feed.name))
        }
    }
}

/// Rows of a tensor, if it fits the feed.
pub fn fits(dtype: Dtype, shape: &[usize], of: RaggedFeed<'_>) -> Result<usize, String> {
    let rows = rows_of(shape, of)?;
    converted(dtype, shape, of.feed)?;
    Ok(rows)
}

/// That a tensor's elements can be a feed's.
fn converted(dtype: Dtype, shape: &[usize], feed: &Feed) -> Result<(), String> {
    if !converts(dtype, feed.ty.dtype) {
        return Err(format!("`{}` holds {}, and {} is needed", feed.name, text(dtype, shape), feed.ty.dtype));
    }
    Ok(())
}
