//! A place: where in a `.mm` file an instruction comes from, with the calls that led to it.

use std::fmt;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use types::Name;

use crate::PlaceId;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    pub file: Name,
    /// From 1; 0 where the compiler itself made the instruction.
    pub line: u32,
    pub column: u32,
    /// The operator and the calls that led to it, outermost last: `matmul in Linear.forward < Block.forward < train`.
    pub chain: Name,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.chain.is_empty()) {
            (0, _) => write!(f, "{}", self.chain),
            (_, true) => write!(f, "{}:{}:{}", self.file, self.line, self.column),
            (_, false) => write!(f, "{}:{}:{} ({})", self.file, self.line, self.column, self.chain),
        }
    }
}

/// A list of places under construction: equal places share an id.
#[derive(Clone, Debug, Default)]
pub struct Places {
    list: Vec<Place>,
    ids: FxHashMap<Place, PlaceId>,
}

impl Places {
    pub fn add(&mut self, place: Place) -> PlaceId {
        if let Some(&id) = self.ids.get(&place) {
            return id;
        }
        let id = PlaceId::new(self.list.len());
        self.list.push(place.clone());
        self.ids.insert(place, id);
        id
    }

    pub fn into_list(self) -> Vec<Place> {
        self.list
    }
}
