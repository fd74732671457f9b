//! A model whose config chooses with texts.

use mm::prelude::*;

dims! { B, DIM = 4, IMAGE = 0 }

/// How positions are scaled.
pub const ROPE: &str = one_of(["default", "linear"]);
pub const ACT: &str = one_of(["silu", "gelu"]);
/// Scores of experts are probabilities of each for itself.
pub const APART: bool = false;
pub const FACTOR: f64 = 1.0;

#[derive(Module)]
pub struct Net {
    up: Param,
}

impl Net {
    pub fn new() -> Self {
        Self { up: Param::normal([DIM], 0.5) }
    }
}

pub fn forward(net: &Net, x: Tensor![B, DIM]) -> Tensor![B, DIM] {
    let y = if ROPE == "linear" { x * FACTOR } else { x };
    let y = if ACT == "silu" { y.silu() } else { y.gelu() };
    let y = if APART { y.sigmoid() } else { y };
    y * net.up + IMAGE.f64()
}

config! {
    "TextsModel" {
        DIM = width | 4,
        ROPE = match rope_parameters.rope_type | rope_scaling.rope_type | rope_scaling.type | "default" {
            "default" | "mrope" => "default",
            "linear" => "linear",
        },
        FACTOR = rope_parameters.factor | rope_scaling.factor | 1.0,
        ACT = hidden_act | "silu",
        APART = match scoring_func | "softmax" { "sigmoid" => true, _ => false },
        IMAGE = match model_type | "t2v" { "i2v" => DIM * 2 | 0, "t2v" | "ti2v" => 0 },
        expect(match norm | "rms" { "rms" | "rms_norm" => "rms", "none" => "none" } == "rms"),
    },
}
