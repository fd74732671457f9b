//! A tower: layers of attention and a network over tokens of one width, of which some have a gate.
use mm::prelude::*;

dims! {
    TOKENS, WIDTH,
    LAYERS = 2, HEADS = 2, HEAD = WIDTH / HEADS, FFN = 2 * WIDTH,
}

pub const EPS: f64 = 1e-5;
/// Layers before the first that has a gate.
pub const PLAIN: i64 = 1000;
/// Of the layers behind those, one in this many has a gate.
pub const EVERY: i64 = 2;

#[derive(Module)]
pub struct Layer {
    norm: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    up: Linear,
    gate: Option<Linear>,
    down: Linear,
}

impl Layer {
    fn new(position: i64) -> Self {
        let has_gate = position >= PLAIN && (position - PLAIN) % EVERY == EVERY - 1;
        Self {
            norm: layer_norm(WIDTH, EPS),
            q: linear(WIDTH, WIDTH),
            k: linear(WIDTH, WIDTH),
            v: linear(WIDTH, WIDTH),
            out: linear(WIDTH, WIDTH),
            up: linear(WIDTH, FFN),
            gate: if has_gate { Some(linear(WIDTH, FFN)) } else { None },
            down: linear(FFN, WIDTH),
        }
    }

    fn forward(&self, x: Tensor![.., TOKENS, WIDTH]) -> Tensor![.., TOKENS, WIDTH] {
        let heads = |t: Tensor| t.split(WIDTH, [HEADS, HEAD]);
        let y = self.norm.forward(x);
        let (q, k, v) = (heads(self.q.forward(y)), heads(self.k.forward(y)), heads(self.v.forward(y)));
        let x = x + self.out.forward(attend(q, k, v).merge([HEADS, HEAD], WIDTH));
        let y = self.norm.forward(x);
        let wide = match &self.gate {
            Some(gate) => swiglu(gate.forward(y), self.up.forward(y)),
            None => self.up.forward(y).silu(),
        };
        x + self.down.forward(wide)
    }
}

#[derive(Module)]
pub struct Tower {
    layers: Stack<Layer>,
}

impl Tower {
    pub fn new() -> Self {
        Self { layers: stack_at(LAYERS.range(), Layer::new) }
    }

    pub fn forward(&self, x: Tensor![.., TOKENS, WIDTH]) -> Tensor![.., TOKENS, WIDTH] {
        self.layers.fold(x, |x, layer| layer.forward(x))
    }
}
