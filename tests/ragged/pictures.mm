//! A language model that sees pictures: samples have any number of them, of any size.
//!
//! The picture of an `IMAGE` token is found by counting tokens, pictures and patches.
use mm::prelude::*;

dims! {
    B, S = 12, D = 16, VOCAB = 32, C = 6, E = 20, FFN = 32, LAYERS = 2,
    IMAGES: ragged = 6, PATCHES: ragged = 40, TWO = 2, OTHERS = IMAGES, EARLIER = B, KINDS = C,
}

pub const IMAGE: i64 = 9;

owners! {
    IMAGES = tokens(input_ids, IMAGE, product(grid) / 2),
    PATCHES = rows(IMAGES, product(grid)),
}

#[derive(Module)]
pub struct Block {
    up: Linear,
    down: Linear,
}

#[derive(Module)]
pub struct Net {
    embed: Embedding,
    tower: Param,
    project: Linear,
    blocks: Stack<Block>,
    head: Linear,
}

impl Net {
    pub fn new() -> Self {
        Self {
            embed: embedding(VOCAB, D),
            tower: Param::normal([KINDS, E, C], 0.3),
            project: linear(E, D),
            blocks: stack(LAYERS, || Block { up: linear(D, FFN), down: linear(FFN, D) }),
            head: linear(D, VOCAB),
        }
    }

    /// A sample sees the mean of its own patches, found by counting image tokens. A patch is of the two kinds where it has
    /// most.
    fn logits(
        &self,
        ids: Tensor![B, S; i64],
        pixels: Tensor![PATCHES, C],
        grid: Tensor![IMAGES, TWO; i64],
    ) -> Tensor![B, S, VOCAB] {
        let (_, kinds) = pixels.cast(f32).top_k(C, TWO);
        let (met, _) = pixels.grouped_matmul(KINDS, kinds, self.tower);
        let patches = self.project.forward(met.sum_over([TWO]).silu()).cast(f32);
        let area = (grid.at(TWO, 0) * grid.at(TWO, 1)).cast(f32);
        let first_patch = before(area, IMAGES, OTHERS);
        let patch = iota(PATCHES, f32);
        let of_image = within(patch, first_patch, area);
        let is_image = ids.eq(IMAGE).cast(f32);
        let tokens = is_image.sum_over([S]);
        let first_token = before(area * 0.5, IMAGES, OTHERS);
        let of_sample = within(first_token, before(tokens, B, EARLIER), tokens) * area.gt(0.0).cast(f32);
        let per_image = of_image.contract(patches, [PATCHES]);
        let seen = of_sample.contract(per_image, [IMAGES]) / (1.0 + tokens);
        let x = self.embed.forward(ids).cast(f32) + is_image * seen.expand([B, S, D]);
        let x = self.blocks.fold(x.cast(work), |x, block| x + block.down.forward(block.up.forward(x).silu()));
        self.head.forward(x)
    }
}

/// The sum of all elements before each.
fn before(x: Tensor, dim: Size, other: Size) -> Tensor {
    let earlier = iota(other, f32).lt(iota(dim, f32)).cast(f32);
    x.rename(dim, other).contract(earlier, [other])
}

/// 1 where `start <= at < start + length`, else 0.
fn within(at: Tensor, start: Tensor, length: Tensor) -> Tensor {
    at.ge(start).cast(f32) * at.lt(start + length).cast(f32)
}

pub struct Out {
    pub logits: Tensor![B, S, VOCAB],
}

pub fn forward(
    net: &Net,
    input_ids: Tensor![B, S; i64],
    pixels: Tensor![PATCHES, C],
    grid: Tensor![IMAGES, TWO; i64],
) -> Out {
    Out { logits: net.logits(input_ids, pixels, grid) }
}

pub fn train(
    net: &Net,
    input_ids: Tensor![B, S; i64],
    labels: Tensor![B, S; i64],
    pixels: Tensor![PATCHES, C],
    grid: Tensor![IMAGES, TWO; i64],
) -> Tensor![; f32] {
    let losses = cross_entropy(net.logits(input_ids, pixels, grid), labels, VOCAB, -100);
    losses.sum() / labels.ne(-100).cast(f32).sum()
}

pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(S, "cp").shard(FFN, "tp").shard(E, "tp");
    p.pipeline(LAYERS, "pp", OneFOneB);
    p.fsdp(["fsdp", "cp"]);
}
