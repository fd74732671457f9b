//! Products of rows with the matrices of the experts that numbers name, and the gradient of those matrices.
//!
//! Each part puts all numbers in the order of their experts, a counting sort that keeps the order of equal ones, and takes a
//! share of the work that follows: panels of rows of one expert after another. So parts get as much work as each other, however
//! uneven experts are, and none waits for another. Rows are packed where they are read, and results are written to where they
//! belong: nothing is permuted in memory. Sums run in an order that depends on the numbers alone.

mod order;
mod problem;
mod products;
mod weights;

pub use problem::{Bases, Experts, IDS, OPERANDS, PRODUCTS, ROWS, WEIGHT};

/// Scratch is handed out for at most this many parts.
const MOST_PARTS: u64 = 32;
