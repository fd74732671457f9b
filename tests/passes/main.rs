//! Passes: their output drawn as text, and the numbers they must keep.

mod gradients;
mod optimizer;
mod run;
mod snapshots;
