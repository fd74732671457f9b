//! The vocabulary of .mm files as rustc sees it: types and signatures only.
//!
//! Nothing here computes. `frontends/eval` gives the words their meaning; this crate lets `cargo check`, rust-analyzer
//! and rustfmt read the same files. Each word is explained here, where an editor shows it.
#![allow(non_upper_case_globals)]

mod attention;
mod declare;
mod modules;
mod operators;
mod plan;
pub mod schedules;
mod size;
mod sources;
mod stack;
mod tensor;

pub use attention::{attend, attend_causal};
pub use declare::{Setting, named, one_of, require, said};
pub use mm_derive::{Module, config};
pub use modules::{Embedding, LayerNorm, Linear, Module, Param, RmsNorm, embedding, layer_norm, linear, rms_norm};
pub use operators::Operand;
pub use plan::{Plan, Run, Schedule};
pub use size::{Part, Size};
pub use sources::{Init, Random, constant, draw, iota, normal, normal_like, powers, uniform, zeros};
pub use stack::{Chunks, Stack, stack, stack_at};
pub use tensor::{DType, Tensor, concat, cross_entropy, f32, f64, geglu, i32, i64, select, stream, swiglu, work};

/// Everything a .mm file uses.
pub mod prelude {
    pub use crate::schedules::*;
    pub use crate::{
        Chunks, DType, Embedding, Init, LayerNorm, Linear, Module, Param, Plan, Random, RmsNorm, Run, Schedule, Size,
        Stack, State, Tensor, aliases, attend, attend_causal, concat, config, constant, cross_entropy, dims, draw,
        embedding, f32, f64, geglu, i32, i64, instances, iota, layer_norm, linear, normal, normal_like, one_of, owners,
        powers, presets, require, rms_norm, select, stack, stack_at, stream, swiglu, uniform, work, zeros,
    };
}
