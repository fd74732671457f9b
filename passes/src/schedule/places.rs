//! Places of the plan: where in the `.mm` file each instruction comes from.

use std::collections::HashMap;

use diag::Sources;
use ir::Module;
use plan::{Place, PlaceId, Places};

pub struct Recorder<'a> {
    module: &'a Module,
    sources: &'a Sources,
    places: Places,
    known: HashMap<(diag::PlaceId, String), PlaceId>,
}

impl<'a> Recorder<'a> {
    pub fn new(module: &'a Module, sources: &'a Sources) -> Self {
        Self { module, sources, places: Places::default(), known: HashMap::new() }
    }

    /// `what` names the kernel or the feed; the calls that led there follow.
    pub fn add(&mut self, at: diag::PlaceId, what: &str) -> PlaceId {
        let key = (at, what.to_owned());
        if let Some(&id) = self.known.get(&key) {
            return id;
        }
        let mut spans = self.module.places.chain(at);
        let place = match spans.next() {
            Some(span) => {
                let (line, column) = self.sources.line_column(span);
                let mut chain = what.to_owned();
                for caller in spans {
                    chain.push_str(&format!(" < {}", self.sources.describe(caller)));
                }
                Place {
                    file: self.sources.path(span.source).into(),
                    line: line as u32,
                    column: column as u32,
                    chain: chain.into(),
                }
            }
            None => Place { file: "".into(), line: 0, column: 0, chain: what.into() },
        };
        let id = self.places.add(place);
        self.known.insert(key, id);
        id
    }

    pub fn finish(self) -> Vec<Place> {
        self.places.into_list()
    }
}
