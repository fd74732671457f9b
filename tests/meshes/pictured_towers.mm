//! Two towers of one file at two widths: the first sees pictures, any number for a sample, and what it sees stands in the
//! text of the second.
use super::layers::{tower as text, tower as visual};
use mm::prelude::*;

dims! {
    B, S = 12, WIDTH = 24, LAYERS = 4, VOCAB = 32,
    IMAGES: ragged = 6, PIECES = 5, C = 6, ALL = B * S,
}

instances! {
    visual { TOKENS = PIECES, WIDTH = 16, LAYERS = 3, PLAIN = 1 },
    text { TOKENS = S, WIDTH, LAYERS, HEADS = 4 },
}

/// What stands in the text for a picture.
pub const IMAGE: i64 = 9;

owners! {
    IMAGES = tokens(input_ids, IMAGE, 1),
}

#[derive(Module)]
pub struct Net {
    patch: Linear,
    visual: visual::Tower,
    projector: Linear,
    embed: Embedding,
    text: text::Tower,
    head: Linear,
}

impl Net {
    pub fn new() -> Self {
        Self {
            patch: linear(C, visual::WIDTH),
            visual: visual::Tower::new(),
            projector: linear(visual::WIDTH, WIDTH),
            embed: embedding(VOCAB, WIDTH),
            text: text::Tower::new(),
            head: linear(WIDTH, VOCAB),
        }
    }

    fn logits(&self, ids: Tensor![B, S; i64], pixels: Tensor![IMAGES, PIECES, C]) -> Tensor![B, S, VOCAB] {
        let seen = self.visual.forward(self.patch.forward(pixels)).mean_over([PIECES]);
        let seen = self.projector.forward(seen);
        let is_image = ids.eq(IMAGE);
        // The first picture stands at the first of such tokens, and so on.
        let number = is_image.cast(i64).merge([B, S], ALL).cumsum(ALL).split(ALL, [B, S]);
        let pictures = seen.gather(IMAGES, (number - 1).clamp(0, 10_000));
        let x = select(is_image, pictures, self.embed.forward(ids).cast(work));
        self.head.forward(self.text.forward(x))
    }
}

pub struct Out {
    pub logits: Tensor![B, S, VOCAB],
}

pub fn forward(net: &Net, input_ids: Tensor![B, S; i64], pixels: Tensor![IMAGES, PIECES, C]) -> Out {
    Out { logits: net.logits(input_ids, pixels) }
}

pub fn train(
    net: &Net,
    input_ids: Tensor![B, S; i64],
    labels: Tensor![B, S; i64],
    pixels: Tensor![IMAGES, PIECES, C],
) -> Tensor![; f32] {
    let losses = cross_entropy(net.logits(input_ids, pixels), labels, VOCAB, -100);
    losses.sum() / labels.ne(-100).cast(f32).sum()
}

pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(S, "cp").shard(PIECES, "cp");
    p.shard(visual::HEADS, "tp").shard(visual::FFN, "tp").shard(text::HEADS, "tp").shard(text::FFN, "tp");
    p.pipeline(LAYERS, "pp", OneFOneB);
    p.fsdp(["fsdp", "cp"]);
}
