//! The rules, in tables under the algebra that they state; each with an example that it must fire on.

mod arithmetic;
mod broadcasts;
mod casts;
mod choices;
mod collectives;
mod contractions;
mod layout;

use egg::Id;

use super::site::Site;

pub struct Rule {
    pub name: &'static str,
    /// The equation, for readers.
    #[cfg_attr(not(test), expect(dead_code))]
    pub law: &'static str,
    pub of: Of,
    /// Other classes that have the value of this site's. Those of another type are not believed.
    pub apply: fn(&mut Site<'_>) -> Vec<Id>,
    /// Functions in text IR. The tests try them in bf16 too, where that reads back.
    #[cfg_attr(not(test), expect(dead_code))]
    pub example: &'static str,
}

/// Which operators a rule looks at.
#[derive(Clone, Copy)]
pub enum Of {
    Op(&'static str),
    Elementwise,
}

pub fn all() -> impl Iterator<Item = &'static Rule> + Clone {
    exact().chain(between_ranks())
}

/// Those that keep every number.
pub fn exact() -> impl Iterator<Item = &'static Rule> + Clone {
    [arithmetic::RULES, casts::RULES, choices::RULES, broadcasts::RULES, layout::RULES, contractions::RULES]
        .into_iter()
        .flatten()
}

/// Those that may sum in another order.
pub fn between_ranks() -> impl Iterator<Item = &'static Rule> + Clone {
    collectives::RULES.iter()
}

/// What a rule found, if it did.
fn found(id: Option<Id>) -> Vec<Id> {
    id.into_iter().collect()
}
