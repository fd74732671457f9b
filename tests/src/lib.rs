//! Tests that cross crates, and what they share: the two binaries as a user calls them.

pub mod binaries;
pub mod outputs;
