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
    files: Vec<(String, String)>,
}

impl Sources {
    pub fn add(&mut self, path: impl Into<String>, text: impl Into<String>) -> SourceId {
        self.files.push((path.into(), text.into()));
        SourceId(self.files.len() as u32 - 1)
    }

    pub fn path(&self, id: SourceId) -> &str {
        self.files.get(id.0 as usize).map_or("?", |f| &f.0)
    }

    /// The file's name without its folder: the same wherever it lies and however its path is spelled.
    pub fn name(&self, id: SourceId) -> &str {
        let path = self.path(id);
        path.rsplit(['/', std::path::MAIN_SEPARATOR]).next().unwrap_or(path)
    }

    pub fn text(&self, id: SourceId) -> &str {
        self.files.get(id.0 as usize).map_or("", |f| &f.1)
    }

    /// Line and column of a span's start, both from 1; columns count characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let text = self.text(span.source);
        let before = text.get(..span.start as usize).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// `path:line:column`.
    pub fn describe(&self, span: Span) -> String {
        let (line, column) = self.line_column(span);
        format!("{}:{line}:{column}", self.path(span.source))
    }
}
