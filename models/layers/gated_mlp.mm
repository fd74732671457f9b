//! The gated two-layer network of Llama's kin, with the names of transformers: down(silu(gate x) * up x), without biases.
use mm::prelude::*;

dims! { HIDDEN, FFN }

/// The deviation of the weights at the beginning.
pub const STD: f64 = 0.02;

#[derive(Module)]
pub struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    pub fn new() -> Self {
        Self {
            gate_proj: projection(HIDDEN, FFN),
            up_proj: projection(HIDDEN, FFN),
            down_proj: projection(FFN, HIDDEN),
        }
    }

    pub fn forward(&self, x: Tensor![.., HIDDEN]) -> Tensor![.., HIDDEN] {
        self.down_proj.forward(swiglu(self.gate_proj.forward(x), self.up_proj.forward(x)))
    }
}

fn projection(from: Size, to: Size) -> Linear {
    linear(from, to).no_bias().init(normal(STD))
}
