//! The places of a program as they are found on the way through the graph.

use std::collections::HashMap;

use diag::{Sources, Span};
use ir::Module;
use plan::PlaceId;
use program::{Frame, PlaceTable, Site};

pub struct Places<'a> {
    module: &'a Module,
    sources: &'a Sources,
    pub table: PlaceTable,
    /// By place of the graph: what was recorded there.
    known: HashMap<diag::PlaceId, HashMap<String, PlaceId>>,
}

impl<'a> Places<'a> {
    pub fn new(module: &'a Module, sources: &'a Sources) -> Self {
        Self { module, sources, table: PlaceTable::default(), known: HashMap::new() }
    }

    /// `what` names the kernel, the collective or the feed.
    pub fn add(&mut self, at: diag::PlaceId, what: &str) -> PlaceId {
        if let Some(&id) = self.known.get(&at).and_then(|known| known.get(what)) {
            return id;
        }
        let frames = self.module.places.chain(at).map(|span| self.frame(span)).collect();
        let id = self.table.add(Site { what: what.into(), frames });
        self.known.entry(at).or_default().insert(what.to_owned(), id);
        id
    }

    fn frame(&self, span: Span) -> Frame {
        let (line, column) = self.sources.line_column(span);
        Frame { file: self.sources.name(span.source).into(), line: line as u32, column: column as u32 }
    }
}
