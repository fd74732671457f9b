//! Places: a span and the chain of calls that led to it, shared as a tree so that each costs a few bytes.

use serde::{Deserialize, Serialize};

use crate::Span;

/// Index into [`Places`]; `PlaceId::NONE` where no source is known (text IR, generated code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlaceId(pub u32);

impl PlaceId {
    pub const NONE: PlaceId = PlaceId(u32::MAX);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    pub span: Span,
    /// The call inside which this place was reached.
    pub caller: PlaceId,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places(Vec<Place>);

impl Places {
    pub fn add(&mut self, span: Span, caller: PlaceId) -> PlaceId {
        let place = Place { span, caller };
        // Consecutive operations of one expression share their place.
        if self.0.last() != Some(&place) {
            self.0.push(place);
        }
        PlaceId(self.0.len() as u32 - 1)
    }

    pub fn get(&self, id: PlaceId) -> Option<Place> {
        self.0.get(id.0 as usize).copied()
    }

    /// The place itself, then its callers, innermost first.
    pub fn chain(&self, id: PlaceId) -> impl Iterator<Item = Span> + '_ {
        let mut next = id;
        std::iter::from_fn(move || {
            let place = self.get(next)?;
            next = place.caller;
            Some(place.span)
        })
    }
}
