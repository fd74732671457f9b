//! Rotary positions on a grid of frames, rows and columns: channels 2i and 2i + 1 of a head turn together.
use mm::prelude::*;

dims! {
    L, FRAMES, ROWS, COLS, HEAD,                          // tokens, and the grid that they make up
    PAIRS = HEAD / 2, PAIRS_H = HEAD / 6, PAIRS_W = HEAD / 6, PAIRS_F = PAIRS - PAIRS_H - PAIRS_W,
}

pub const THETA: f64 = 10_000.0;

/// Angles of the tokens on the video grid, [L, PAIRS] each: some pairs of a head turn with the frame, some with the
/// row, some with the column; in a head of fewer than six, all with the frame.
#[derive(Clone, Copy)]
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    pub fn new() -> Self {
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
    pub fn rotate(&self, x: Tensor, tokens: Size) -> Tensor {
        x.rotate_pairs(HEAD, self.cos.rename(L, tokens), self.sin.rename(L, tokens))
    }
}
