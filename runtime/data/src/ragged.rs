//! Rows of ragged axes by data groups: whose the rows that data give are, and a group's rows with zeros behind them.

use std::collections::BTreeMap;
use std::ops::Range;

use plan::Feed;
use types::{DType, GROUPS, Name, Owner, Ragged, TensorType};

/// The ragged feeds of a program, and the samples whose rows they hold.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Axes of the feeds, owners before what they own.
    axes: Vec<Ragged>,
    /// Data groups of a step; each has equally many samples.
    pub count: usize,
    pub samples: usize,
}

/// An input of whole numbers as data give it: rows of one length.
#[derive(Debug)]
struct Table {
    rows: usize,
    data: Vec<i64>,
}

impl Table {
    fn row(&self, i: usize) -> &[i64] {
        let width = self.data.len() / self.rows.max(1);
        &self.data[i * width..][..width]
    }
}

/// Rows along one axis, in their order.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The sample of each.
    sample: Vec<usize>,
    /// All that there should be, of which some may be missing.
    wanted: u128,
}

impl Rows {
    /// Adds `count` rows of a sample; of more than `most` in all, none is kept.
    fn add(&mut self, sample: usize, count: usize, most: usize) {
        self.wanted += count as u128;
        if self.wanted <= most as u128 {
            self.sample.extend(std::iter::repeat_n(sample, count));
        }
    }
}

/// What data give for the inputs that ragged axes hang together with.
#[derive(Debug, Default)]
pub struct Parts<'f> {
    /// By axis: the rows, and a feed that has them.
    rows: BTreeMap<&'f str, (usize, &'f str)>,
    /// Inputs of whole numbers.
    tables: BTreeMap<&'f str, Table>,
}

impl<'f> Parts<'f> {
    /// Adds so many rows of a feed; of whole numbers, `bytes` are in its type. Feeds with one ragged axis have equally many.
    pub fn add(&mut self, feed: &'f Feed, axis: Option<&'f Ragged>, rows: usize, bytes: &[u8]) -> Result<(), String> {
        if let Some(Ragged { axis, .. }) = axis {
            let (first, other) = *self.rows.entry(axis).or_insert((rows, &feed.name));
            if first != rows {
                let name = &feed.name;
                return Err(format!("`{other}` has {first} rows of {axis}, and `{name}` has {rows}"));
            }
        }
        if !feed.ty.dtype.is_float() {
            self.tables.insert(&feed.name, Table { rows, data: integers(feed.ty.dtype, bytes) });
        }
        Ok(())
    }

    fn rows(&self, axis: &str) -> usize {
        self.rows.get(axis).map_or(0, |(rows, _)| *rows)
    }

    fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }
}

/// `3 rows of IMAGES`
fn counted(count: usize, axis: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} row{s} of {axis}")
}

impl Groups {
    /// None if no feed has a ragged axis.
    pub fn of(ragged: &[Ragged], feeds: &[Feed]) -> Option<Self> {
        let has = |r: &&Ragged| feeds.iter().any(|f| f.ty.position(&r.axis).is_some());
        let axes: Vec<Ragged> = ragged.iter().filter(has).cloned().collect();
        let is_ragged = |f: &&Feed| axes.iter().any(|r| f.ty.position(&r.axis).is_some());
        let first = feeds.iter().find(is_ragged)?;
        let count = first.ty.dims.first().filter(|d| d.name == *GROUPS).map_or(1, |d| d.size);
        let data = feeds.iter().filter(|f| f.source.is_data() && !is_ragged(f));
        let samples = data.filter_map(|f| f.ty.dims.first()).map(|d| d.size).max().unwrap_or(count);
        Some(Self { axes, count, samples })
    }

    /// The ragged axis of a feed.
    pub fn axis(&self, feed: &Feed) -> Option<&Ragged> {
        self.axes.iter().find(|r| feed.ty.position(&r.axis).is_some())
    }

    /// What a row of a ragged feed is.
    pub fn row(&self, feed: &Feed) -> TensorType {
        let is_outside = |d: &&types::Dim| d.name == *GROUPS || self.axes.iter().any(|r| r.axis == d.name);
        let dims = feed.ty.dims.iter().skip_while(is_outside).cloned();
        TensorType::new(feed.ty.dtype, dims)
    }

    /// The samples of a group.
    pub fn members(&self, group: usize) -> Range<usize> {
        let each = self.samples / self.count.max(1);
        group * each..(group + 1) * each
    }

    /// Inputs that tell whose rows are, and every ragged one: they come from one place.
    pub fn is_part(&self, feed: &Feed) -> bool {
        self.axis(feed).is_some() || self.axes.iter().any(|r| r.owner.inputs().iter().any(|name| **name == feed.name))
    }

    /// Whose the rows are that data give for so many samples.
    pub fn rows(&self, samples: usize, parts: &Parts<'_>) -> Result<BTreeMap<Name, Rows>, String> {
        let table = |name: &Name| parts.table(name);
        let mut all: BTreeMap<Name, Rows> = BTreeMap::new();
        for ragged in &self.axes {
            let (axis, given) = (&ragged.axis, parts.rows(&ragged.axis));
            for name in ragged.owner.inputs() {
                table(name).ok_or_else(|| format!("`{name}` is missing, which tells whose the rows of {axis} are"))?;
            }
            let count = |i: usize, of: &dyn std::fmt::Display| {
                let row = |name: &Name| table(name).filter(|t| i < t.rows).map_or(&[][..], |t| t.row(i));
                let count = ragged.owner.count().of(&row).and_then(|n| usize::try_from(n).ok());
                count.ok_or_else(|| format!("the number of rows of {axis} that {of} has is no number"))
            };
            let mut owners = Rows::default();
            match &ragged.owner {
                Owner::Samples { .. } => {
                    for sample in 0..samples {
                        let n = count(sample, &format_args!("sample {sample}"))?;
                        owners.add(sample, n, given);
                    }
                }
                Owner::Rows { of, .. } => {
                    let of_rows = all.get(of).cloned().unwrap_or_default();
                    for (i, sample) in of_rows.sample.iter().enumerate() {
                        let n = count(i, &format_args!("row {i} of {of}"))?;
                        owners.add(*sample, n, given);
                    }
                }
                Owner::Tokens { input, token, .. } => {
                    let tokens = table(input).filter(|t| t.rows == samples);
                    let tokens =
                        tokens.ok_or_else(|| format!("`{input}` has not one row for each of {samples} samples"))?;
                    for sample in 0..samples {
                        let mut left = tokens.row(sample).iter().filter(|t| *t == token).count();
                        while left > 0 {
                            let i = owners.sample.len();
                            let has = || format!("sample {sample} has {left} more elements {token} in `{input}`");
                            if i == given {
                                return Err(format!("{}, and data give {}", has(), counted(given, axis)));
                            }
                            let n = count(i, &format_args!("row {i} of {axis}"))?;
                            if n == 0 || n > left {
                                return Err(format!("{}, and row {i} of {axis} takes up {n}", has()));
                            }
                            left -= n;
                            owners.add(sample, 1, given);
                        }
                    }
                }
            }
            if owners.wanted != given as u128 {
                let whose = match &ragged.owner {
                    Owner::Samples { .. } => "samples have".into(),
                    Owner::Tokens { input, token, .. } => format!("elements {token} of `{input}` stand for"),
                    Owner::Rows { of, .. } => format!("rows of {of} have"),
                };
                return Err(format!("data give {}, and {whose} {}", counted(given, axis), owners.wanted));
            }
            all.insert(axis.clone(), owners);
        }
        Ok(all)
    }

    /// The rows of each group along an axis, if there is room for them.
    pub fn divide(&self, axis: &str, rows: &Rows) -> Result<Vec<Range<usize>>, String> {
        let mut start = 0;
        let ranges = (0..self.count).map(|group| {
            let members = self.members(group);
            let count = rows.sample[start..].iter().take_while(|s| members.contains(s)).count();
            start += count;
            self.fits(axis, group, count).map(|()| start - count..start)
        });
        ranges.collect()
    }

    /// That there is room for so many rows in a group.
    pub fn fits(&self, axis: &str, group: usize, rows: usize) -> Result<(), String> {
        let capacity = self.axes.iter().find(|r| r.axis == *axis).map_or(0, |r| r.capacity);
        if rows <= capacity {
            return Ok(());
        }
        let members = self.members(group);
        let samples = match members.len() {
            1 => format!("sample {}", members.start),
            _ => format!("samples {} to {}", members.start, members.end.saturating_sub(1)),
        };
        let of = if self.count > 1 { format!("data group {group} ({samples})") } else { samples };
        let rows_of = counted(rows, axis);
        Err(format!("{of}: {rows_of}, and the plan has room for {capacity}; compile with --set {axis}={rows} or more"))
    }

    /// Rows by groups, each with zeros up to the room that there is.
    pub fn padded(&self, feed: &Feed, bytes: &[u8], rows: &Rows) -> Result<Vec<u8>, String> {
        let Some(axis) = self.axis(feed) else { return Ok(bytes.to_vec()) };
        let size = self.row(feed).bytes();
        let mut out = vec![0; feed.ty.bytes()];
        let room = axis.capacity * size;
        for (range, out) in self.divide(&axis.axis, rows)?.into_iter().zip(out.chunks_exact_mut(room.max(1))) {
            let from = &bytes[range.start * size..range.end * size];
            out[..from.len()].copy_from_slice(from);
        }
        Ok(out)
    }
}

/// Whole numbers of a feed's type.
fn integers(dtype: DType, bytes: &[u8]) -> Vec<i64> {
    match dtype {
        DType::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        DType::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        _ => bytes.iter().map(|b| i64::from(*b)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use plan::{Layout, Source};
    use types::Count;

    use super::*;

    fn feed(name: &str, ty: &str) -> Feed {
        let (ty, layout) = (ty.parse().expect("a type"), Layout::whole());
        Feed { name: name.into(), aliases: vec![], ty, layout, source: Source::Data }
    }

    /// Four samples in two groups; a picture takes a token for each 4 patches.
    fn groups() -> Groups {
        let patches = || Count::Product("grid".into());
        let count = Count::Div(Box::new([patches(), Count::Number(4)]));
        let owner = Owner::Tokens { input: "ids".into(), token: 9, count };
        let images = Ragged { axis: "IMAGES".into(), capacity: 2, owner };
        let owner = Owner::Rows { of: "IMAGES".into(), count: patches() };
        let axes = [images, Ragged { axis: "PATCHES".into(), capacity: 12, owner }];
        let feeds = [
            feed("ids", "i64[B:4, S:3]"),
            feed("grid", "i64[B.groups:2, IMAGES:2, TWO:2]"),
            feed("pixels", "f32[B.groups:2, PATCHES:12, C:1]"),
        ];
        Groups::of(&axes, &feeds).expect("ragged feeds")
    }

    fn divide(ids: [i64; 12], grid: &[[i64; 2]], patches: usize) -> Result<String, String> {
        let groups = groups();
        let mut parts = Parts::default();
        parts.tables.insert("ids", Table { rows: 4, data: ids.to_vec() });
        parts.tables.insert("grid", Table { rows: grid.len(), data: grid.concat() });
        parts.rows = BTreeMap::from([("IMAGES", (grid.len(), "grid")), ("PATCHES", (patches, "pixels"))]);
        let rows = groups.rows(4, &parts)?;
        let ranges = rows.iter().map(|(axis, rows)| Ok(format!("{axis} {:?}", groups.divide(axis, rows)?)));
        Ok(ranges.collect::<Result<Vec<_>, String>>()?.join(", "))
    }

    #[test]
    fn rows_go_to_the_groups_of_their_samples() {
        let check = |ids: [i64; 12], grid: &[[i64; 2]], patches: usize, expect: &str| {
            assert_eq!(divide(ids, grid, patches).unwrap_or_else(|e| e), expect);
        };
        let none = [0; 12];
        check(none, &[], 0, "IMAGES [0..0, 0..0], PATCHES [0..0, 0..0]");
        // The second sample has one picture of two tokens, the third two of one.
        let some = [0, 0, 0, 9, 9, 0, 9, 0, 9, 0, 0, 0];
        check(some, &[[2, 4], [2, 2], [1, 4]], 16, "IMAGES [0..1, 1..3], PATCHES [0..8, 8..16]");
        check(some, &[[2, 4], [2, 6]], 20, "sample 2 has 2 more elements 9 in `ids`, and row 1 of IMAGES takes up 3");
        check(some, &[[2, 4]], 8, "sample 2 has 2 more elements 9 in `ids`, and data give 1 row of IMAGES");
        check(some, &[[2, 4], [2, 2], [1, 4]], 15, "data give 15 rows of PATCHES, and rows of IMAGES have 16");
        check(none, &[[2, 2]], 4, "data give 1 row of IMAGES, and elements 9 of `ids` stand for 0");
        let room = "data group 0 (samples 0 to 1): 16 rows of PATCHES, and the plan has room for 12; compile with --set PATCHES=16 or more";
        let first = [9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0];
        check(first, &[[2, 6], [2, 2]], 16, room);
    }
}
