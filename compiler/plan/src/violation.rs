//! A violation: one way in which a plan breaks a rule, with the instructions and places concerned.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An index, a size or a name that does not fit the rest of the plan.
    Structure,
    /// Two buffers that live at the same time share bytes, or a buffer is used outside its life.
    Life,
    /// Bytes are read that nothing wrote, or that something else overwrote.
    Unwritten,
    /// Two instructions touch the same bytes, one of them writes, and nothing orders them.
    Race,
    /// A wait comes before its record, so that a lane would never go on.
    Event,
    /// Those who take part in a collective do not all come, or do not want the same.
    Rendezvous,
    /// Lanes wait for one another in a circle.
    Hang,
    /// A prepared value is not what parameters alone make it, or is made by none or by several programs.
    Prepared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Violations found so far, under the name of the part of the plan that is being looked at.
pub(crate) struct Findings {
    /// `train, stage0`, or empty for the plan as a whole.
    pub scope: String,
    pub list: Vec<Violation>,
}

impl Findings {
    /// Enough to see a pattern; a broken pass would otherwise report every instruction.
    const MOST: usize = 64;

    pub fn new() -> Self {
        Self { scope: String::new(), list: Vec::new() }
    }

    /// What was found elsewhere, under its own scope.
    pub fn append(&mut self, other: Self) {
        let room = Self::MOST.saturating_sub(self.list.len());
        self.list.extend(other.list.into_iter().take(room));
    }

    pub fn full(&self) -> bool {
        self.list.len() >= Self::MOST
    }

    pub fn add(&mut self, rule: Rule, message: impl fmt::Display) {
        if !self.full() {
            let message =
                if self.scope.is_empty() { message.to_string() } else { format!("{}: {message}", self.scope) };
            self.list.push(Violation { rule, message });
        }
    }

    pub fn into_result(self) -> Result<(), Vec<Violation>> {
        if self.list.is_empty() { Ok(()) } else { Err(self.list) }
    }
}
