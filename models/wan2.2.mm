//! Wan2.1 and Wan2.2: diffusion transformers for video.
//!
//! Parameter names are those of diffusers' `WanTransformer3DModel`; `alias` gives the original release's.
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
    PIXELS = IN * PF * PH * PW, PATCH = PF * PH * PW * OUT,
    PAIRS = HEAD / 2, PAIRS_H = HEAD / 6, PAIRS_W = HEAD / 6, PAIRS_F = PAIRS - PAIRS_H - PAIRS_W,
    WAVES = FREQ / 2,
    ONE = 1, TWO = 2, SIX = 6, SIX_DIM = SIX * DIM,       // adaLN chunks of the head, of a block
    TIMES = 2,                                            // ti2v: the time of the given frame, and of the others
    LEVELS = STEPS + 1,                                   // noise levels of sampling
    NEGATIVE = S * GUIDED,                                // tokens of the text to stay away from
    T: free,
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

/// Angles of the tokens on the video grid, [L, PAIRS] each: some pairs of a head turn with the frame, some with the
/// row, some with the column; in a head of fewer than six, all with the frame.
#[derive(Clone, Copy)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    fn new() -> Self {
        let angles = |axis: Size, pairs: Size| {
            let exponents = iota(pairs, f64) * 2.0 / (2 * pairs).f64();
            (iota(axis, f64) / powers(THETA, exponents)).rename(pairs, PAIRS)
        };
        let over_grid = |axis: Tensor| axis.cast(f32).expand([FRAMES, ROWS, COLS, PAIRS]);
        let tokens = |grid: Tensor| grid.merge([FRAMES, ROWS, COLS], L);
        let f = angles(FRAMES, PAIRS_F);
        if PAIRS_H == 0 {
            return Self { cos: tokens(over_grid(f.cos())), sin: tokens(over_grid(f.sin())) };
        }
        let [h, w] = [angles(ROWS, PAIRS_H), angles(COLS, PAIRS_W)];
        let table = |axes: [Tensor; 3]| tokens(concat(PAIRS, axes.map(over_grid)));
        Self { cos: table([f.cos(), h.cos(), w.cos()]), sin: table([f.sin(), h.sin(), w.sin()]) }
    }

    /// `x` has the video's tokens along `tokens`.
    fn rotate(&self, x: Tensor, tokens: Size) -> Tensor {
        x.rotate_pairs(HEAD, self.cos.rename(L, tokens), self.sin.rename(L, tokens))
    }
}

#[derive(Module)]
pub struct Attention {
    #[name = "to_q"]
    #[alias = "q"]
    q: Linear,
    #[name = "to_k"]
    #[alias = "k"]
    k: Linear,
    #[name = "to_v"]
    #[alias = "v"]
    v: Linear,
    #[name = "to_out.0"]
    #[alias = "o"]
    o: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    #[name = "add_k_proj"]
    #[alias = "k_img"]
    picture_k: Option<Linear>,
    #[name = "add_v_proj"]
    #[alias = "v_img"]
    picture_v: Option<Linear>,
    #[name = "norm_added_k"]
    #[alias = "norm_k_img"]
    picture_norm: Option<RmsNorm>,
}

impl Attention {
    /// With `picture`, keys and values of the encoded picture beside those of the text.
    fn new(picture: bool) -> Self {
        Self {
            q: linear(DIM, DIM),
            k: linear(DIM, DIM),
            v: linear(DIM, DIM),
            o: linear(DIM, DIM),
            norm_q: rms_norm(DIM, EPS),
            norm_k: rms_norm(DIM, EPS),
            picture_k: if picture { Some(linear(DIM, DIM)) } else { None },
            picture_v: if picture { Some(linear(DIM, DIM)) } else { None },
            picture_norm: if picture { Some(rms_norm(DIM, EPS)) } else { None },
        }
    }

    /// `x` attends to `to`; with `rope`, both are placed on the video grid.
    fn forward(&self, x: Tensor![B, L, DIM], to: Tensor![B, T, DIM], rope: Option<Rope>) -> Tensor![B, L, DIM] {
        let heads = |t: Tensor| t.split(DIM, [HEADS, HEAD]);
        let mut q = heads(self.norm_q.forward(self.q.forward(x)));
        let mut k = heads(self.norm_k.forward(self.k.forward(to)));
        let v = heads(self.v.forward(to));
        if let Some(rope) = rope {
            (q, k) = (rope.rotate(q, L), rope.rotate(k, T));
        }
        self.o.forward(attend(q, k, v).merge([HEADS, HEAD], DIM))
    }

    /// `x` attends to the text and, apart from it, to the picture. The published class takes the last 512 tokens of both for
    /// the text: with a picture, S is 512.
    fn to_context(
        &self,
        x: Tensor![B, L, DIM],
        text: Tensor![B, S, DIM],
        picture: Option<Tensor![B, IMAGE_TOKENS, DIM]>,
    ) -> Tensor![B, L, DIM] {
        let heads = |t: Tensor| t.split(DIM, [HEADS, HEAD]);
        let q = heads(self.norm_q.forward(self.q.forward(x)));
        let k = heads(self.norm_k.forward(self.k.forward(text)));
        let seen = attend(q, k, heads(self.v.forward(text)));
        let seen = match (&self.picture_k, &self.picture_v, &self.picture_norm, picture) {
            (Some(to_k), Some(to_v), Some(norm), Some(picture)) => {
                let k = heads(norm.forward(to_k.forward(picture)));
                seen + attend(q, k, heads(to_v.forward(picture)))
            }
            _ => seen,
        };
        self.o.forward(seen.merge([HEADS, HEAD], DIM))
    }
}

#[derive(Module)]
pub struct Block {
    #[name = "scale_shift_table"]
    #[alias = "modulation"]
    modulation: Param,
    #[alias = "self_attn"]
    attn1: Attention,
    #[alias = "cross_attn"]
    attn2: Attention,
    #[alias = "norm3"]
    norm2: LayerNorm,
    #[name = "ffn.net.0.proj"]
    #[alias = "ffn.0"]
    up: Linear,
    #[name = "ffn.net.2"]
    #[alias = "ffn.2"]
    down: Linear,
}

impl Block {
    fn new() -> Self {
        Self {
            modulation: Param::normal([ONE, SIX, DIM], DIM.rsqrt()).keep(f32),
            attn1: Attention::new(false),
            attn2: Attention::new(IMAGE > 0),
            norm2: layer_norm(DIM, EPS),
            up: linear(DIM, FFN),
            down: linear(FFN, DIM),
        }
    }

    /// `time` is [B, SIX, DIM]; or by token; or for two times, of which each token has one, as `of_token` says.
    fn forward(
        &self,
        x: Tensor![B, L, DIM],
        time: Tensor![B, .., SIX, DIM],
        of_token: Option<Tensor![B, L; bool]>,
        text: Tensor![B, S, DIM],
        picture: Option<Tensor![B, IMAGE_TOKENS, DIM]>,
        rope: Rope,
    ) -> Tensor![B, L, DIM] {
        let modulation = self.modulation.squeeze(ONE) + time;
        let [shift_a, scale_a, gate_a, shift_f, scale_f, gate_f] =
            modulation.unstack(SIX).map(|m: Tensor| by_token(m, of_token));
        let a = x.in_f32(|x| x.normalize(DIM, EPS) * (1.0 + scale_a) + shift_a);
        let x = x.in_f32(|x| x + self.attn1.forward(a, a, Some(rope)) * gate_a);
        let x = x + self.attn2.to_context(self.norm2.forward(x), text, picture);
        let f = x.in_f32(|x| x.normalize(DIM, EPS) * (1.0 + scale_f) + shift_f);
        x.in_f32(|x| x + self.down.forward(self.up.forward(f).gelu_tanh()) * gate_f)
    }
}

/// Of two values a sample, each token's own.
fn by_token(m: Tensor, of_token: Option<Tensor>) -> Tensor {
    match of_token {
        Some(moving) => select(moving, m.at(TIMES, 1), m.at(TIMES, 0)),
        None => m,
    }
}

#[derive(Module)]
pub struct PatchEmbedding {
    weight: Param,
    bias: Param,
}

impl PatchEmbedding {
    fn new() -> Self {
        let reach = PIXELS.rsqrt();
        Self {
            weight: Param::uniform([DIM, IN, PF, PH, PW], -reach..reach),
            bias: Param::uniform([DIM], -reach..reach),
        }
    }

    fn forward(&self, x: Tensor![B, IN, F, H, W]) -> Tensor![B, L, DIM] {
        let patches = x.split(F, [FRAMES, PF]).split(H, [ROWS, PH]).split(W, [COLS, PW]);
        let patches = patches.transpose([B, FRAMES, ROWS, COLS, IN, PF, PH, PW]);
        let patches = patches.merge([FRAMES, ROWS, COLS], L).merge([IN, PF, PH, PW], PIXELS);
        patches.contract(self.weight.merge([IN, PF, PH, PW], PIXELS), [PIXELS]) + self.bias
    }
}

#[derive(Module)]
pub struct Pair {
    #[alias = "0"]
    linear_1: Linear,
    #[alias = "2"]
    linear_2: Linear,
}

/// The encoded picture in the width of the blocks.
#[derive(Module)]
pub struct PictureEmbedding {
    #[alias = "proj.0"]
    norm1: LayerNorm,
    #[name = "ff.net.0.proj"]
    #[alias = "proj.1"]
    up: Linear,
    #[name = "ff.net.2"]
    #[alias = "proj.3"]
    down: Linear,
    #[alias = "proj.4"]
    norm2: LayerNorm,
}

impl PictureEmbedding {
    fn new() -> Self {
        Self {
            norm1: layer_norm(IMAGE, 1e-5),
            up: linear(IMAGE, IMAGE),
            down: linear(IMAGE, DIM),
            norm2: layer_norm(DIM, 1e-5),
        }
    }

    fn forward(&self, picture: Tensor![B, IMAGE_TOKENS, IMAGE]) -> Tensor![B, IMAGE_TOKENS, DIM] {
        let x = self.up.forward(self.norm1.forward(picture));
        self.norm2.forward(self.down.forward(0.5 * x * (1.0 + (x * TWO.rsqrt()).erf())))
    }
}

#[derive(Module)]
pub struct Conditions {
    #[alias = "time_embedding"]
    time_embedder: Pair,
    #[alias = "time_projection.1"]
    time_proj: Linear,
    #[alias = "text_embedding"]
    text_embedder: Pair,
    #[alias = "img_emb"]
    image_embedder: Option<PictureEmbedding>,
}

impl Conditions {
    fn new() -> Self {
        Self {
            time_embedder: Pair { linear_1: linear(FREQ, DIM).keep(f32), linear_2: linear(DIM, DIM).keep(f32) },
            time_proj: linear(DIM, SIX_DIM),
            text_embedder: Pair { linear_1: linear(TEXT, DIM), linear_2: linear(DIM, DIM) },
            image_embedder: if IMAGE > 0 { Some(PictureEmbedding::new()) } else { None },
        }
    }

    /// The time's embedding, in f32 up to its end. `t` is 0 to 1000.
    fn time(&self, t: Tensor![B, ..; f32]) -> Tensor![B, .., DIM] {
        let frequencies = (iota(WAVES, f32) * -THETA.ln() / WAVES.f64()).exp();
        let angles = (t * frequencies).rename(WAVES, FREQ);
        let waves = concat(FREQ, [angles.cos(), angles.sin()]);
        self.time_embedder.linear_2.forward(self.time_embedder.linear_1.forward(waves).silu()).cast(work)
    }

    fn picture(&self, picture: Option<Tensor![B, IMAGE_TOKENS, IMAGE]>) -> Option<Tensor![B, IMAGE_TOKENS, DIM]> {
        match (&self.image_embedder, picture) {
            (Some(embedder), Some(picture)) => Some(embedder.forward(picture)),
            _ => None,
        }
    }

    fn text(&self, text: Tensor![B, S, TEXT]) -> Tensor![B, S, DIM] {
        self.text_embedder.linear_2.forward(self.text_embedder.linear_1.forward(text).gelu_tanh())
    }
}

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
            proj_out: linear(DIM, PATCH),
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
        let rope = Rope::new();
        let x = self.patch_embedding.forward(x);
        let time = self.condition_embedder.time(t);
        let six = self.condition_embedder.time_proj.forward(time.silu()).split(SIX_DIM, [SIX, DIM]);
        let text = self.condition_embedder.text(text);
        let picture = self.condition_embedder.picture(picture);
        let x = self.blocks.fold(x, |x, block| block.forward(x, six, of_token, text, picture, rope));
        let head = (self.modulation.squeeze(ONE) + time).unstack(TWO);
        let [shift, scale] = head.map(|m: Tensor| by_token(m, of_token));
        let x = x.in_f32(|x| x.normalize(DIM, EPS) * (1.0 + scale) + shift);
        let patches = self.proj_out.forward(x).split(L, [FRAMES, ROWS, COLS]).split(PATCH, [PF, PH, PW, OUT]);
        let pixels = patches.transpose([B, OUT, FRAMES, PF, ROWS, PH, COLS, PW]);
        pixels.merge([FRAMES, PF], F).merge([ROWS, PH], H).merge([COLS, PW], W)
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
            if level(1.0 - step as f64 / STEPS as f64) >= BOUNDARY {
                noisy += 1;
            }
        }
        run.repeat(denoise_high, noisy).repeat(denoise_low, STEPS - noisy);
    }
}

/// The noise level of a share of the way from video to noise.
fn level(share: f64) -> f64 {
    SHIFT * share / (1.0 + (SHIFT - 1.0) * share)
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
    euler(
        wan,
        GUIDANCE_HIGH,
        latent,
        step,
        encoder_hidden_states,
        negative,
        Picture { cond, seen: encoder_hidden_states_image },
    )
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
    euler(
        &experts.high,
        GUIDANCE_HIGH,
        latent,
        step,
        encoder_hidden_states,
        negative,
        Picture { cond, seen: encoder_hidden_states_image },
    )
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
    euler(
        &experts.low,
        GUIDANCE_LOW,
        latent,
        step,
        encoder_hidden_states,
        negative,
        Picture { cond, seen: encoder_hidden_states_image },
    )
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
    let share = 1.0 - iota(LEVELS, f32) / STEPS as f64;
    let levels = SHIFT * share / (1.0 + (SHIFT - 1.0) * share);
    let (now, next) = (levels.gather(LEVELS, step), levels.gather(LEVELS, step + 1));
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
        expect(added_kv_proj_dim | 0 == if IMAGE > 0 { DIM } else { 0 }),
        // First and last frame: two pictures a sample, with positions.
        expect(pos_embed_seq_len | 0 == 0),
        TI2V = model_index.expand_timesteps | false, BOUNDARY = model_index.boundary_ratio | 0.0,
        ignore(rope_max_seq_len, model_index.*),
    },
    // The original release.
    "WanModel" {
        LAYERS = num_layers | 32, HEADS = num_heads | 16, HEAD = dim / num_heads | 128, FFN = ffn_dim | 8192,
        IN = in_dim | 16, OUT = out_dim | 16, TEXT = text_dim | 4096, FREQ = freq_dim | 256, EPS = eps | 1e-6,
        expect(patch_size | [1, 2, 2] == [PF, PH, PW]),
        expect(cross_attn_norm | true == true),
        expect(qk_norm | true == true),
        ignore(text_len),
    },
}
