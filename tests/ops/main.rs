//! The IR: operators (gradients, expansions, factors, values against PyTorch), calls, text form and verifier.
#![allow(clippy::unwrap_used)]

mod calls;
mod cases;
mod differentiate;
mod expansions;
mod factors;
mod goldens;
mod gradients;
mod refusals;
mod rewriting;
mod rounding;
mod text;
mod values;
mod verifier;
