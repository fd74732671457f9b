//! Ragged feeds from records: a record has any number of rows, and a data group those of its records one after another.

use plan::Feed;
use types::{Dim, Name, TensorType};

use super::{Dataset, Index, read};
use crate::convert::{convert, converts};
use crate::inputs::stray;
use crate::ragged::{Groups, Table, integers};
use crate::tensors::text;
use crate::{DataError, Share};

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

/// A tensor's shape, and its bytes.
type Shaped = (Vec<usize>, Vec<u8>);

impl Index {
    /// The rows that a record has, none where it has no such tensor; and that they are its own.
    fn rows(&self, record: usize, of: RaggedFeed<'_>) -> Result<(usize, Vec<u8>), DataError> {
        let RaggedFeed { feed, feeds, groups } = of;
        let record = &self.records[record];
        let file = self.file(record.file)?;
        let wrong = |what: String| DataError::Format { path: self.name(record), what };
        let members: Vec<_> =
            record.members.iter().map(|range| read(&file, range, &self.name(record))).collect::<Result<_, _>>()?;
        // A tensor in the feed's type, as it lies in the record.
        let tensor = |feed: &Feed| -> Result<Option<Shaped>, DataError> {
            let find = |name: &str| members.iter().find_map(|tensors| tensors.get(&file, name));
            let Some(view) = feed.names().find_map(find) else { return Ok(None) };
            if !converts(view.dtype, feed.ty.dtype) {
                let have = text(view.dtype, view.shape);
                return Err(wrong(format!("`{}` holds {have}, and {} is needed", feed.name, feed.ty.dtype)));
            }
            let elements: usize = view.shape.iter().product();
            let mut bytes = vec![0; elements * feed.ty.dtype.bytes()];
            convert(view.dtype, &view.data()?, feed.ty.dtype, &mut bytes).map_err(|e| wrong(e.to_string()))?;
            if let Some(what) = stray(feed, &bytes) {
                return Err(wrong(format!("`{}`: {what}", feed.name)));
            }
            Ok(Some((view.shape.to_vec(), bytes)))
        };
        let mut tables: Vec<(&Name, Table)> = vec![];
        let mut given: Vec<(&Name, &Name, usize)> = vec![];
        let mut own = (0, vec![]);
        for part in feeds.iter().filter(|f| groups.is_part(f)) {
            let found = tensor(part)?;
            let axis = groups.axis(part);
            let rows = match (&found, axis) {
                (Some((shape, _)), Some(_)) => rows_of(shape, RaggedFeed { feed: part, ..of }).map_err(wrong)?,
                (_, Some(_)) => 0,
                (_, None) => 1,
            };
            let bytes = found.map(|(_, bytes)| bytes);
            if let Some(axis) = axis {
                if let Some((_, other, count)) = given.iter().find(|(a, _, n)| **a == axis.axis && *n != rows) {
                    let (name, axis) = (&part.name, &axis.axis);
                    return Err(wrong(format!("`{other}` has {count} rows of {axis}, and `{name}` has {rows}")));
                }
                given.push((&axis.axis, &part.name, rows));
            }
            if part.name == feed.name {
                own = (rows, bytes.clone().unwrap_or_default());
            }
            if !part.ty.dtype.is_float() && (axis.is_some() || bytes.is_some()) {
                let data = integers(part.ty.dtype, &bytes.unwrap_or_default());
                tables.push((&part.name, Table { rows, data }));
            }
        }
        let count = |axis: &str| given.iter().find(|(a, ..)| **a == *axis).map_or(0, |(.., n)| *n);
        let table = |name: &str| tables.iter().find(|(n, _)| **n == *name).map(|(_, table)| table);
        groups.rows(1, count, table).map_err(wrong)?;
        Ok(own)
    }
}

/// Rows of a tensor of this shape, if each is what the feed takes.
pub fn rows_of(shape: &[usize], of: RaggedFeed<'_>) -> Result<usize, String> {
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

fn fits(dtype: safetensors::Dtype, shape: &[usize], of: RaggedFeed<'_>) -> Result<(), String> {
    rows_of(shape, of)?;
    if !converts(dtype, of.feed.ty.dtype) {
        return Err(format!("`{}` holds {}, and {} is needed", of.feed.name, text(dtype, shape), of.feed.ty.dtype));
    }
    Ok(())
}
