//! The source files of one compilation, and byte ranges in them.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceId(pub u32);

/// A half-open byte range of one source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    pub source: SourceId,
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn new(source: SourceId, start: usize, end: usize) -> Self {
        Self { source, start: start as u32, end: end as u32 }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    path: String,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Sources {
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<String>) -> SourceId {
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        self.files.push(File { path: path.into(), text, lines });
        SourceId(self.files.len() as u32 - 1)
    }

    pub fn path(&self, id: SourceId) -> &str {
        self.files.get(id.0 as usize).map_or("?", |f| &f.path)
    }

    /// The file's name without its folder: the same wherever it lies and however its path is spelled.
    pub fn name(&self, id: SourceId) -> &str {
        let path = self.path(id);
        path.rsplit(['/', std::path::MAIN_SEPARATOR]).next().unwrap_or(path)
    }

    pub fn text(&self, id: SourceId) -> &str {
        self.files.get(id.0 as usize).map_or("", |f| &f.text)
    }

    /// Line and column of a span's start, both from 1; columns count characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let Some(File { text, lines, .. }) = self.files.get(span.source.0 as usize) else { return (1, 1) };
        let end = text.get(..span.start as usize).map_or(text.len(), str::len);
        let line = lines.partition_point(|begin| *begin <= end);
        let begin = lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        (line, text[begin..end].chars().count() + 1)
    }

    /// `path:line:column`.
    pub fn describe(&self, span: Span) -> String {
        let (line, column) = self.line_column(span);
        format!("{}:{line}:{column}", self.path(span.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one() {
        let mut sources = Sources::default();
        let file = sources.add("a.mm", "ab\nçd\n");
        let at = |start| sources.line_column(Span::new(file, start, start));
        assert_eq!([0, 2, 3, 5, 7, 99].map(at), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 1), (3, 1)]);
    }
}
