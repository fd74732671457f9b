//! Passes: their output drawn as text, and the numbers they must keep.

mod gradients;
mod means;
mod numbers;
mod optimizer;
mod programs;
mod random;
mod run;
mod snapshots;
mod stages;
