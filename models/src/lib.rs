//! The published models in the .mm language, shown to rustc.
#![allow(clippy::new_without_default)]

#[path = "../qwen3.mm"]
pub mod qwen3;
#[path = "../wan2.2.mm"]
pub mod wan2_2;
