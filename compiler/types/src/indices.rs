//! Integers that pick rows of a table: token ids, class labels.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indices {
    /// An index is in `0..rows`,
    pub rows: u64,
    /// or this number, which picks nothing.
    pub ignored: Option<i64>,
}

impl Indices {
    pub fn admit(&self, value: i64) -> bool {
        self.ignored == Some(value) || u64::try_from(value).is_ok_and(|row| row < self.rows)
    }

    /// What both admit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { rows: self.rows.min(other.rows), ignored: self.ignored.filter(|_| self.ignored == other.ignored) }
    }
}
