//! Operators: gradients, expansions, factors, values against PyTorch, text form and verifier.
#![allow(clippy::unwrap_used)]

mod cases;
mod differentiate;
mod expansions;
mod factors;
mod goldens;
mod gradients;
mod rounding;
mod text;
mod verifier;
