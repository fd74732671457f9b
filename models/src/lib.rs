//! The published models in the .mm language and the layers that they share, shown to rustc.
#![allow(clippy::new_without_default)]

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
    #[path = "next_token.mm"]
    pub mod next_token;
    #[path = "relative_bias.mm"]
    pub mod relative_bias;
    #[path = "rope.mm"]
    pub mod rope;
    #[path = "text_decoder.mm"]
    pub mod text_decoder;
    #[path = "video_patches.mm"]
    pub mod video_patches;
}
#[path = "../qwen3.mm"]
pub mod qwen3;
#[path = "../wan2.2.mm"]
pub mod wan2_2;
