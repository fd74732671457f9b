//! The places in a model that the instructions of a program come from, with the calls that led to each.

use std::fmt;

use plan::{Place, PlaceId};
use rustc_hash::FxHashMap;
use types::Name;

/// Places by their ids. Equal ones share an id.
#[derive(Clone, Debug, Default)]
pub struct PlaceTable {
    sites: Vec<Site>,
    /// Ids by what a message would say.
    known: FxHashMap<Place, PlaceId>,
    /// What was recorded as the place that several have in common.
    common: FxHashMap<Vec<PlaceId>, PlaceId>,
}

/// A kernel, a feed or a collective, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub what: Name,
    /// Where it stands, then the calls that led there, outermost last; empty where the compiler itself made it.
    pub frames: Vec<Frame>,
}

/// A position in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub file: Name,
    /// From 1, in characters.
    pub line: u32,
    pub column: u32,
}

impl PartialEq for PlaceTable {
    fn eq(&self, other: &Self) -> bool {
        self.sites == other.sites
    }
}

impl PlaceTable {
    pub fn add(&mut self, site: Site) -> PlaceId {
        let place = site.place();
        if let Some(&id) = self.known.get(&place) {
            return id;
        }
        let id = PlaceId::new(self.sites.len());
        self.sites.push(site);
        self.known.insert(place, id);
        id
    }

    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The innermost of the calls that led to each of these, or the place of all of them.
    pub fn common(&mut self, of: &[PlaceId]) -> PlaceId {
        if let Some(&known) = self.common.get(of) {
            return known;
        }
        let Some(mut common) = of.first().and_then(|first| self.sites.get(first.index())).cloned() else {
            return PlaceId::new(0);
        };
        for other in of.iter().filter_map(|id| self.sites.get(id.index())) {
            let same = common.frames.iter().rev().zip(other.frames.iter().rev()).take_while(|(a, b)| a == b).count();
            common.frames.drain(..common.frames.len() - same);
        }
        let id = self.add(common);
        self.common.insert(of.to_vec(), id);
        id
    }
}

impl Site {
    /// As plans and their messages have it.
    pub fn place(&self) -> Place {
        let Some((frame, callers)) = self.frames.split_first() else {
            return Place { file: "".into(), line: 0, column: 0, chain: self.what.clone() };
        };
        let mut chain = self.what.to_string();
        for caller in callers {
            chain.push_str(&format!(" < {caller}"));
        }
        Place { file: frame.file.clone(), line: frame.line, column: frame.column, chain: chain.into() }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}
