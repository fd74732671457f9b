//! Wan2.1 and Wan2.2: diffusion transformers for video.
//!
//! Parameter names are those of diffusers' `WanTransformer3DModel`; `alias` gives the original release's.
use super::layers::conditions::{self, Conditions};
use super::layers::dit::{self, Block};
use super::layers::video_patches::{self, PatchEmbedding};
use super::layers::{flow, grid_rope};
use mm::prelude::*;

dims! {
    B, F = 21, H = 60, W = 104, S = 512,                  // samples, latent frames, rows and columns, text tokens
    IN = 16, OUT = 16, TEXT = 4096, FREQ = 256,           // channels in and out, of the text, of the time's sinusoids
    LAYERS = 40, HEADS = 40, HEAD = 128, FFN = 13824,
    DIM = HEADS * HEAD,
    COND = IN - OUT,                                      // channels of the condition (i2v)
    IMAGE = 0, IMAGE_TOKENS = 257,                        // channels and tokens of the encoded picture (2.1's i2v)
    PF = 1, PH = 2, PW = 2,                               // a patch
    FRAMES = F / PF, ROWS = H / PH, COLS = W / PW,        // the grid of patches
    L = FRAMES * ROWS * COLS, TOKENS = L,                 // video tokens of a sample
    ONE = 1, TWO = 2, SIX = 6,                            // adaLN chunks of the head, of a block
    TIMES = 2,                                            // ti2v: the time of the given frame, and of the others
    NEGATIVE = S * GUIDED,                                // tokens of the text to stay away from
}

instances! {
    video_patches { IN, OUT, F, H, W, PF, PH, PW, FRAMES, ROWS, COLS, L, DIM },
    grid_rope { L, FRAMES, ROWS, COLS, HEAD, THETA },
    conditions { S, TEXT, DIM, FREQ, SIX, IMAGE, IMAGE_TOKENS, THETA },
    dit { L, S, DIM, HEADS, HEAD, FFN, IMAGE_TOKENS, ONE, SIX, TIMES, PICTURE = IMAGE > 0, EPS },
    flow { STEPS, SHIFT },
}

presets! {
    "t2v-a14b" {},
    "i2v-a14b" { IN = 36, BOUNDARY = 0.9, SHIFT = 5.0, GUIDANCE_HIGH = 3.5, GUIDANCE_LOW = 3.5 },
    "ti2v-5b" {
        IN = 48, OUT = 48, LAYERS = 30, HEADS = 24, FFN = 14336, F = 31, H = 44, W = 80,
        TI2V = true, BOUNDARY = 0.0, SHIFT = 5.0, STEPS = 50, GUIDANCE_HIGH = 5.0,
    },
    "wan2.1-t2v-1.3b" {
        LAYERS = 30, HEADS = 12, FFN = 8960,
        BOUNDARY = 0.0, SHIFT = 5.0, STEPS = 50, GUIDANCE_HIGH = 5.0,
    },
    "wan2.1-t2v-14b" { BOUNDARY = 0.0, SHIFT = 5.0, STEPS = 50, GUIDANCE_HIGH = 5.0 },
    "mini" {
        IN = 4, OUT = 4, F = 4, H = 16, W = 16, S = 4, TEXT = 16, FREQ = 64,
        LAYERS = 6, HEADS = 6, HEAD = 32, FFN = 768,
        BOUNDARY = 0.0, SHIFT = 3.0, GUIDED = 0,
    },
    "tiny" {
        IN = 4, OUT = 4, F = 2, H = 8, W = 8, S = 4, TEXT = 16, FREQ = 16,
        LAYERS = 2, HEADS = 2, HEAD = 12, FFN = 48,
        BOUNDARY = 0.0, SHIFT = 3.0, STEPS = 4, GUIDED = 0,
    },
}

/// Of the two experts of Wan2.2-A14B, the one that `train` and `forward` compile.
pub const EXPERT: &str = one_of(["high", "low"]);
/// The time from which the high-noise expert takes over; 0 where one model serves all times.
pub const BOUNDARY: f64 = 0.875;
/// Every token has a time of its own, and the first frame is given.
pub const TI2V: bool = false;

// Sampling, as published.
pub const STEPS: i64 = 40;
pub const SHIFT: f64 = 12.0;
/// Whether sampling keeps away from a second text.
pub const GUIDED: i64 = 1;
pub const GUIDANCE_HIGH: f64 = 4.0;
pub const GUIDANCE_LOW: f64 = 3.0;

const EPS: f64 = 1e-6;
const THETA: f64 = 10_000.0;

#[derive(Module)]
pub struct Wan {
    patch_embedding: PatchEmbedding,
    #[alias = ""]
    condition_embedder: Conditions,
    blocks: Stack<Block>,
    #[name = "scale_shift_table"]
    #[alias = "head.modulation"]
    modulation: Param,
    #[alias = "head.head"]
    proj_out: Linear,
}

impl Wan {
    pub fn new() -> Self {
        Self {
            patch_embedding: PatchEmbedding::new(),
            condition_embedder: Conditions::new(),
            blocks: stack(LAYERS, Block::new),
            modulation: Param::normal([ONE, TWO, DIM], DIM.rsqrt()).keep(f32),
            proj_out: linear(DIM, video_patches::PATCH),
        }
    }

    /// `t` is one time a sample; or one a token; or two a sample, of which each token has one, as `of_token` says.
    pub fn forward(
        &self,
        x: Tensor![B, IN, F, H, W],
        t: Tensor![B, ..; f32],
        of_token: Option<Tensor![B, L; bool]>,
        text: Tensor![B, S, TEXT],
        picture: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>,
    ) -> Tensor![B, OUT, F, H, W] {
        let rope = grid_rope::Rope::new();
        let x = self.patch_embedding.forward(x);
        let time = self.condition_embedder.time(t);
        let six = self.condition_embedder.time_proj.forward(time.silu()).split(conditions::SIX_DIM, [SIX, DIM]);
        let text = self.condition_embedder.text(text);
        let picture = self.condition_embedder.picture(picture);
        let x = self.blocks.fold(x, |x, block| block.forward(x, six, of_token, text, picture, rope));
        let head = (self.modulation.squeeze(ONE) + time).unstack(TWO);
        let [shift, scale] = head.map(|m: Tensor| dit::by_token(m, of_token));
        let x = x.in_f32(|x| x.normalize(DIM, EPS) * (1.0 + scale) + shift);
        video_patches::video(self.proj_out.forward(x))
    }
}

pub struct Predicted {
    pub sample: Tensor![B, OUT, F, H, W],
}

/// What the model says of a video at a time (0 to 1000), as the published class: arguments and result have its names.
pub fn forward(
    wan: &Wan,
    hidden_states: Tensor![B, IN, F, H, W],
    timestep: Tensor![B, L if TI2V; f32],
    encoder_hidden_states: Tensor![B, S, TEXT],
    encoder_hidden_states_image: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>,
) -> Predicted {
    let sample = wan.forward(hidden_states, timestep, None, encoder_hidden_states, encoder_hidden_states_image);
    Predicted { sample }
}

aliases! { hidden_states = x, timestep = t, encoder_hidden_states = text }

/// Rectified flow: the model sees a mixture of latent and noise at time `t` (0 to 1), and predicts `noise - latent`.
pub fn train(
    wan: &Wan,
    latent: Tensor![B, OUT, F, H, W; f32],
    encoder_hidden_states: Tensor![B, S, TEXT],
    cond: Option<Tensor![B, COND, F, H, W; f32]>,
    encoder_hidden_states_image: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>,
) -> Tensor![; f32] {
    let picture = encoder_hidden_states_image;
    let window = if EXPERT == "high" { BOUNDARY..1.0 } else { 0.0..BOUNDARY };
    let (t, noise) = (draw("t", uniform([B], window)), draw("noise", normal_like(latent)));
    let mixed = (1.0 - t) * latent + t * noise;
    let flow = noise - latent;
    if TI2V {
        // The first frame is given: it stays clean, its tokens are at time 0, and it is not predicted.
        let x = concat(F, [latent.slice(F, ..PF), mixed.slice(F, PF..)]).rename(OUT, IN);
        let times = (t * 1000.0) * iota(TIMES, f32);
        let moving = iota(L, i64).ge(ROWS * COLS).expand([B, L]);
        let seen = wan.forward(x.cast(work), times, Some(moving), encoder_hidden_states, picture);
        return (seen - flow).slice(F, PF..).square().mean();
    }
    let x = match cond {
        Some(cond) => concat(IN, [mixed.rename(OUT, IN), cond.rename(COND, IN)]),
        None => mixed.rename(OUT, IN),
    };
    let seen = wan.forward(x.cast(work), t * 1000.0, None, encoder_hidden_states, picture);
    (seen - flow).square().mean()
}

/// Both experts of Wan2.2-A14B, in the folders of the published checkpoint.
#[derive(Module)]
pub struct Experts {
    #[name = "transformer"]
    high: Wan,
    #[name = "transformer_2"]
    low: Wan,
}

impl Experts {
    pub fn new() -> Self {
        Self { high: Wan::new(), low: Wan::new() }
    }
}

/// From noise to a video's latent: Euler steps along the flow, the noisy ones by the high expert where there are two.
pub fn sample(run: &mut Run) {
    if BOUNDARY == 0.0 {
        run.repeat(denoise, STEPS);
    } else {
        let mut noisy = 0;
        for step in 0..STEPS {
            if flow::level(1.0 - step as f64 / STEPS as f64) >= BOUNDARY {
                noisy += 1;
            }
        }
        run.repeat(denoise_high, noisy).repeat(denoise_low, STEPS - noisy);
    }
}

/// The states after a step.
pub struct Denoised {
    pub latent: Tensor,
    pub step: Tensor,
}

pub fn denoise(
    wan: &Wan,
    latent: State![B, OUT, F, H, W; f32],
    step: State![; i64],
    encoder_hidden_states: Tensor![B, S, TEXT],
    negative: Option<Tensor![B, NEGATIVE, TEXT]>,
    cond: Option<Tensor![B, COND, F, H, W; f32]>,
    encoder_hidden_states_image: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>,
) -> Denoised {
    let picture = Picture { cond, seen: encoder_hidden_states_image };
    euler(wan, GUIDANCE_HIGH, latent, step, encoder_hidden_states, negative, picture)
}

pub fn denoise_high(
    experts: &Experts,
    latent: State![B, OUT, F, H, W; f32],
    step: State![; i64],
    encoder_hidden_states: Tensor![B, S, TEXT],
    negative: Option<Tensor![B, NEGATIVE, TEXT]>,
    cond: Option<Tensor![B, COND, F, H, W; f32]>,
    encoder_hidden_states_image: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>,
) -> Denoised {
    let picture = Picture { cond, seen: encoder_hidden_states_image };
    euler(&experts.high, GUIDANCE_HIGH, latent, step, encoder_hidden_states, negative, picture)
}

pub fn denoise_low(
    experts: &Experts,
    latent: State![B, OUT, F, H, W; f32],
    step: State![; i64],
    encoder_hidden_states: Tensor![B, S, TEXT],
    negative: Option<Tensor![B, NEGATIVE, TEXT]>,
    cond: Option<Tensor![B, COND, F, H, W; f32]>,
    encoder_hidden_states_image: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>,
) -> Denoised {
    let picture = Picture { cond, seen: encoder_hidden_states_image };
    euler(&experts.low, GUIDANCE_LOW, latent, step, encoder_hidden_states, negative, picture)
}

/// A picture that the video begins with: its latent, and what an image encoder sees in it.
pub struct Picture {
    pub cond: Option<Tensor>,
    pub seen: Option<Tensor>,
}

fn euler(
    wan: &Wan,
    guidance: f64,
    latent: Tensor,
    step: Tensor,
    text: Tensor,
    negative: Option<Tensor>,
    picture: Picture,
) -> Denoised {
    let [now, next] = flow::levels(step);
    let x = match picture.cond {
        Some(cond) => concat(IN, [latent.rename(OUT, IN), cond.rename(COND, IN)]),
        None => latent.rename(OUT, IN),
    };
    let (x, t) = (x.cast(work), (now * 1000.0).expand([B]));
    let towards = |text: Tensor| wan.forward(x, t, None, text, picture.seen).cast(f32);
    let mut flow = towards(text);
    if let Some(negative) = negative {
        let away = towards(negative.rename(NEGATIVE, S));
        flow = away + guidance * (flow - away);
    }
    Denoised { latent: latent + (next - now) * flow, step: step + 1 }
}

/// Where it runs. The maths above does not know; flags and another plan file replace this.
pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(L, "cp").shard(HEADS, "tp").shard(FFN, "tp");
    p.pipeline(LAYERS, "pp", OneFOneB);
    p.fsdp(["fsdp", "cp"]);
}

// Where published configs have these figures.
config! {
    "WanTransformer3DModel" {
        LAYERS = num_layers | 40, HEADS = num_attention_heads | 40, HEAD = attention_head_dim | 128, FFN = ffn_dim | 13824,
        IN = in_channels | 16, OUT = out_channels | 16, TEXT = text_dim | 4096, FREQ = freq_dim | 256, EPS = eps | 1e-6,
        expect(patch_size | [1, 2, 2] == [PF, PH, PW]),
        expect(cross_attn_norm | true == true),
        expect(qk_norm | "rms_norm_across_heads" == "rms_norm_across_heads"),
        IMAGE = image_dim | 0,
        expect(added_kv_proj_dim | 0 == DIM.at_most(IMAGE * DIM)),
        // First and last frame: two pictures a sample, with positions.
        expect(pos_embed_seq_len | 0 == 0),
        TI2V = model_index.expand_timesteps | false, BOUNDARY = model_index.boundary_ratio | 0.0,
        SHIFT = scheduler.flow_shift | scheduler.shift,
        schedulers("UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"),
        ignore(rope_max_seq_len, model_index.*),
    },
    // The original release.
    "WanModel" {
        LAYERS = num_layers | 32, HEADS = num_heads | 16, HEAD = dim / num_heads | 128, FFN = ffn_dim | 8192,
        IN = in_dim | 16, OUT = out_dim | 16, TEXT = text_dim | 4096, FREQ = freq_dim | 256, EPS = eps | 1e-6,
        expect(patch_size | [1, 2, 2] == [PF, PH, PW]),
        expect(cross_attn_norm | true == true),
        expect(qk_norm | true == true),
        // 2.2's image-to-video says the same, and sees the picture in the condition alone.
        IMAGE = match model_type | "t2v" { "i2v" => 1280 | 0, "t2v" | "ti2v" => 0 },
        TI2V = match model_type | "t2v" { "ti2v" => true, "t2v" | "i2v" => false },
        ignore(text_len),
    },
}
