//! Two towers of one file at two widths: what the first sees is added to the second's tokens.
use super::layers::{tower as text, tower as visual};
use mm::prelude::*;

dims! { B, WIDTH = 24, LAYERS = 4 }

instances! {
    visual { TOKENS = 10, WIDTH = 16, LAYERS = 3 },
    text { TOKENS = 8, WIDTH, LAYERS, HEADS = 4, PLAIN = 1, EVERY = 1 },
}

presets! {
    "runs" {},
    "pattern" { visual::LAYERS = 8, visual::PLAIN = 0, LAYERS = 1 },
}

#[derive(Module)]
pub struct Towers {
    visual: visual::Tower,
    projector: Linear,
    text: text::Tower,
}

impl Towers {
    pub fn new() -> Self {
        Self { visual: visual::Tower::new(), projector: linear(visual::WIDTH, WIDTH), text: text::Tower::new() }
    }
}

pub fn train(
    towers: &Towers,
    image: Tensor![B, visual::TOKENS, visual::WIDTH; f32],
    words: Tensor![B, text::TOKENS, WIDTH; f32],
) -> Tensor![; f32] {
    let seen = towers.projector.forward(towers.visual.forward(image.cast(work)).mean_over([visual::TOKENS]));
    let said = towers.text.forward(words.cast(work) + seen);
    (said.cast(f32) - words).square().mean()
}

pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(visual::TOKENS, "cp").shard(text::TOKENS, "cp");
    p.shard(visual::HEADS, "tp").shard(visual::FFN, "tp").shard(text::HEADS, "tp").shard(text::FFN, "tp");
    p.pipeline(LAYERS, "pp", OneFOneB);
    p.fsdp(["fsdp", "cp"]);
}
