//! The published models in the .mm language and the layers that they share, shown to rustc.
// `.mm` files have no standard library to take constants from, and constants in them are settings.
#![allow(clippy::new_without_default, clippy::approx_constant, clippy::modulo_one)]

#[path = "../layers"]
pub mod layers {
    #[path = "conditions.mm"]
    pub mod conditions;
    #[path = "dit.mm"]
    pub mod dit;
    #[path = "flow.mm"]
    pub mod flow;
    #[path = "gated_mlp.mm"]
    pub mod gated_mlp;
    #[path = "grid_rope.mm"]
    pub mod grid_rope;
    #[path = "moe.mm"]
    pub mod moe;
    #[path = "mrope.mm"]
    pub mod mrope;
    #[path = "next_token.mm"]
    pub mod next_token;
    #[path = "relative_bias.mm"]
    pub mod relative_bias;
    #[path = "rope.mm"]
    pub mod rope;
    #[path = "rotary.mm"]
    pub mod rotary;
    #[path = "text_decoder.mm"]
    pub mod text_decoder;
    #[path = "video_patches.mm"]
    pub mod video_patches;
    #[path = "vision_rope.mm"]
    pub mod vision_rope;
}
#[path = "../qwen3.mm"]
pub mod qwen3;
#[path = "../qwen3_moe.mm"]
pub mod qwen3_moe;
#[path = "../wan2.2.mm"]
pub mod wan2_2;
