//! Places of the plan: where in the `.mm` file each instruction comes from.

use std::collections::HashMap;

use diag::{Sources, Span};
use ir::Module;
use plan::{Place, PlaceId, Places};

#[derive(Clone)]
pub struct Recorder<'a> {
    module: &'a Module,
    sources: &'a Sources,
    places: Places,
    known: HashMap<diag::PlaceId, HashMap<String, PlaceId>>,
    /// What was recorded as the place of several.
    joined: HashMap<Vec<PlaceId>, PlaceId>,
    /// What was recorded first as each place.
    origins: Vec<Origin>,
}

/// What stands at a place, and the calls that led there, outermost last.
#[derive(Clone)]
struct Origin {
    what: String,
    spans: Vec<Span>,
}

impl<'a> Recorder<'a> {
    pub fn new(module: &'a Module, sources: &'a Sources) -> Self {
        Self {
            module,
            sources,
            places: Places::default(),
            known: HashMap::new(),
            joined: HashMap::new(),
            origins: vec![],
        }
    }

    /// `what` names the kernel or the feed; the calls that led there follow.
    pub fn add(&mut self, at: diag::PlaceId, what: &str) -> PlaceId {
        if let Some(&id) = self.known.get(&at).and_then(|known| known.get(what)) {
            return id;
        }
        let id = self.record(Origin { what: what.to_owned(), spans: self.module.places.chain(at).collect() });
        self.known.entry(at).or_default().insert(what.to_owned(), id);
        id
    }

    /// Where all of these are: the innermost of the calls that led to each of them.
    pub fn common(&mut self, of: &[PlaceId]) -> PlaceId {
        let Some((&first, others)) = of.split_first() else { return PlaceId::new(0) };
        if others.iter().all(|other| *other == first) {
            return first;
        }
        if let Some(&known) = self.joined.get(of) {
            return known;
        }
        let mut common = self.origins[first.index()].clone();
        for other in others.iter().map(|id| &self.origins[id.index()]) {
            let same = common.spans.iter().rev().zip(other.spans.iter().rev()).take_while(|(a, b)| a == b).count();
            common.spans.drain(..common.spans.len() - same);
        }
        let id = self.record(common);
        self.joined.insert(of.to_vec(), id);
        id
    }

    /// Records what another did since it was like `begin`: its numbers, and those here.
    pub fn take_in(&mut self, other: Self, begin: &Self) -> HashMap<PlaceId, PlaceId> {
        let (first, places) = (begin.origins.len(), other.origins.into_iter().enumerate().skip(begin.origins.len()));
        let mut ids: HashMap<PlaceId, PlaceId> = HashMap::new();
        for (id, origin) in places {
            ids.insert(PlaceId::new(id), self.record(origin));
        }
        let is_new = |id: &PlaceId| id.index() >= first;
        let here = |id: PlaceId| ids.get(&id).copied().unwrap_or(id);
        for (of, id) in other.joined.into_iter().filter(|(_, id)| is_new(id)) {
            self.joined.insert(of.into_iter().map(here).collect(), here(id));
        }
        ids
    }

    fn record(&mut self, origin: Origin) -> PlaceId {
        let place = self.place(&origin);
        let id = self.places.add(place);
        if id.index() == self.origins.len() {
            self.origins.push(origin);
        }
        id
    }

    fn place(&self, origin: &Origin) -> Place {
        let what = &origin.what;
        let Some((&span, callers)) = origin.spans.split_first() else {
            return Place { file: "".into(), line: 0, column: 0, chain: what.as_str().into() };
        };
        let (line, column) = self.sources.line_column(span);
        let mut chain = what.clone();
        for &caller in callers {
            chain.push_str(&format!(" < {}", self.sources.describe(caller)));
        }
        Place {
            file: self.sources.path(span.source).into(),
            line: line as u32,
            column: column as u32,
            chain: chain.into(),
        }
    }

    pub fn finish(self) -> Vec<Place> {
        self.places.into_list()
    }
}
