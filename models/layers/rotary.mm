//! Rotary positions: how fast the pairs of a head turn, by the kinds of transformers' `rope_type`; the angles of positions;
//! and heads turned by them.
use mm::prelude::*;

dims! {
    HEAD, ROTATED, PAIRS,                                 // channels of a head, those that turn, pairs of frequencies
    POSITIONS = 262_144,                                  // positions that there are
    FINE = 512, COARSE = POSITIONS.div_ceil(FINE),        // a position is a step of the coarse table and one of the fine
}

pub const THETA: f64 = 10_000.0;
/// What a pair is: channels i and i + n/2 of those that turn, or 2i and 2i + 1.
pub const PAIRING: &str = one_of(["halves", "neighbours"]);

/// How longer texts than those of pretraining are told apart. By whom and with which constants: see transformers'
/// `modeling_rope_utils`.
pub const KIND: &str = one_of(["default", "linear", "llama3", "yarn"]);
/// By how much they are longer.
pub const FACTOR: f64 = 1.0;
/// Tokens of a text in pretraining, for llama3 and yarn.
pub const ORIGINAL: f64 = 0.0;
// Of llama3: pairs that turn less often in a text than LOW are slowed down by FACTOR, those above HIGH not at all.
pub const LOW: f64 = 1.0;
pub const HIGH: f64 = 4.0;
// Of yarn: the same with BETA_SLOW and BETA_FAST, between which the place of a pair counts and not how fast it turns.
pub const BETA_FAST: f64 = 32.0;
pub const BETA_SLOW: f64 = 1.0;
/// The places of both bounds are whole numbers.
pub const TRUNCATE: bool = true;
/// What cosines and sines are multiplied by in yarn; where it is 0, it follows from FACTOR and both of these.
pub const ATTENTION: f64 = 0.0;
pub const MSCALE: f64 = 0.0;
pub const MSCALE_ALL_DIM: f64 = 0.0;

const PI: f64 = 3.141_592_653_589_793;

/// Radians from one position to the next, in f64.
pub fn frequencies() -> Tensor![PAIRS; f64] {
    let plain = 1.0 / powers(THETA, iota(PAIRS, f64) / PAIRS.f64());
    let reckons = KIND == "llama3" || KIND == "yarn";
    require(!reckons || ORIGINAL > 0.0, "this `rope_type` needs `original_max_position_embeddings`");
    match KIND {
        "default" => plain,
        "linear" => plain / FACTOR,
        "llama3" => {
            let turns = plain * (ORIGINAL / (2.0 * PI));
            let kept = ((turns - LOW) / (HIGH - LOW)).max(0.0).min(1.0);
            plain * kept + plain / FACTOR * (1.0 - kept)
        }
        "yarn" => {
            let first = if TRUNCATE { place(BETA_FAST) as i64 as f64 } else { place(BETA_FAST) };
            let last = if TRUNCATE { -(-place(BETA_SLOW) as i64 as f64) } else { place(BETA_SLOW) };
            let last = if TRUNCATE && last < place(BETA_SLOW) { last + 1.0 } else { last };
            let (first, last) = (first.max(0.0), last.min(ROTATED.f64() - 1.0));
            let width = if first == last { 0.001 } else { last - first };
            let slowed = ((iota(PAIRS, f64) - first) / width).max(0.0).min(1.0);
            plain / FACTOR * slowed + plain * (1.0 - slowed)
        }
        _ => {
            require(false, "`rope_type` is none of default, linear, llama3 and yarn");
            plain
        }
    }
}

/// Where the pair stands that turns so often in a text of pretraining.
fn place(turns: f64) -> f64 {
    PAIRS.f64() * (ORIGINAL / (turns * 2.0 * PI)).ln() / THETA.ln()
}

/// What cosines and sines are multiplied by.
pub fn attention_factor() -> f64 {
    let scale = |mscale: f64| if FACTOR > 1.0 { 0.1 * mscale * FACTOR.ln() + 1.0 } else { 1.0 };
    if KIND != "yarn" {
        1.0
    } else if ATTENTION != 0.0 {
        ATTENTION
    } else if MSCALE != 0.0 && MSCALE_ALL_DIM != 0.0 {
        scale(MSCALE) / scale(MSCALE_ALL_DIM)
    } else {
        scale(1.0)
    }
}

/// Cosines and sines of the pairs.
#[derive(Clone, Copy)]
pub struct Angles {
    pub cos: Tensor,
    pub sin: Tensor,
}

/// The angles of positions, an i64 tensor of any axes: [.., PAIRS] in f32.
///
/// An angle is the sum of two that stand in tables, which were computed in f64. So it is as exact for the last position as for
/// the first; a product in f32 would be off by a thousandth of a turn at position 30,000.
pub fn angles(positions: Tensor) -> Angles {
    let (coarse, fine) = (iota(COARSE, f64) * FINE.f64() * frequencies(), iota(FINE, f64) * frequencies());
    let (step, rest) = (positions.floor_div(FINE), positions.remainder(FINE));
    let [cos_a, sin_a] = [coarse.cos(), coarse.sin()].map(|table: Tensor| table.cast(f32).gather(COARSE, step));
    let [cos_b, sin_b] = [fine.cos(), fine.sin()].map(|table: Tensor| table.cast(f32).gather(FINE, rest));
    let (cos, sin) = (cos_a * cos_b - sin_a * sin_b, sin_a * cos_b + cos_a * sin_b);
    let by = attention_factor();
    if by == 1.0 { Angles { cos, sin } } else { Angles { cos: cos * by, sin: sin * by } }
}

impl Angles {
    /// The first ROTATED channels of each head turn, the others stay as they are.
    pub fn rotate(&self, x: Tensor) -> Tensor {
        if ROTATED == HEAD {
            return self.turned(x);
        }
        let [first, rest] = [x.slice(HEAD, ..ROTATED), x.slice(HEAD, ROTATED..)];
        concat(HEAD, [self.turned(first), rest])
    }

    fn turned(&self, x: Tensor) -> Tensor {
        match PAIRING {
            "halves" => x.rotate_halves(HEAD, self.cos, self.sin),
            _ => x.rotate_pairs(HEAD, self.cos, self.sin),
        }
    }
}
