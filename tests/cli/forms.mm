//! A small model with a parameter of every form in which files hold one.
use mm::prelude::*;

dims! { B, LAYERS = 2, EXPERTS = 3, FFN = 5, DIM = 7, Q = 6, KV = 4 }

#[derive(Module)]
pub struct Experts {
    gate: Param,
    up: Param,
    down: Param,
}

impl Experts {
    fn new() -> Self {
        Self {
            gate: Param::normal([EXPERTS, FFN, DIM], 0.5)
                .saved_as("{EXPERTS}.gate_proj.weight", [FFN, DIM])
                .read_as("gate_up_proj", [EXPERTS, FFN.within(0, 2 * FFN), DIM])
                .read_as("gate_up_proj", [EXPERTS, DIM, FFN.within(0, 2 * FFN)]),
            up: Param::normal([EXPERTS, FFN, DIM], 0.5)
                .saved_as("{EXPERTS}.up_proj.weight", [FFN, DIM])
                .read_as("gate_up_proj", [EXPERTS, FFN.within(FFN, 2 * FFN), DIM])
                .read_as("gate_up_proj", [EXPERTS, DIM, FFN.within(FFN, 2 * FFN)]),
            down: Param::normal([EXPERTS, DIM, FFN], 0.5)
                .saved_as("{EXPERTS}.down_proj.weight", [DIM, FFN])
                .read_as("down_proj", [EXPERTS, DIM, FFN])
                .read_as("down_proj", [EXPERTS, FFN, DIM]),
        }
    }

    fn forward(&self, x: Tensor![B, DIM; f32]) -> Tensor![; f32] {
        let inner = x.contract(self.gate.cast(f32), [DIM]) * x.contract(self.up.cast(f32), [DIM]);
        inner.contract(self.down.cast(f32), [FFN]).square().mean()
    }
}

#[derive(Module)]
pub struct Attn {
    q: Linear,
    k: Linear,
    v: Linear,
}

impl Attn {
    fn new() -> Self {
        let all = Q + 2 * KV;
        Self {
            q: linear(DIM, Q).no_bias().saved_as("qkv.weight", [Q.within(0, all), DIM]),
            k: linear(DIM, KV).no_bias().saved_as("qkv.weight", [KV.within(Q, all), DIM]),
            v: linear(DIM, KV).no_bias().saved_as("qkv.weight", [KV.within(Q + KV, all), DIM]),
        }
    }

    fn forward(&self, x: Tensor![B, DIM]) -> Tensor![; f32] {
        let seen = self.q.forward(x).cast(f32).square().mean();
        seen + self.k.forward(x).cast(f32).square().mean() + self.v.forward(x).cast(f32).mean()
    }
}

#[derive(Module)]
pub struct Layer {
    experts: Experts,
    attn: Attn,
}

impl Layer {
    fn new() -> Self {
        Self { experts: Experts::new(), attn: Attn::new() }
    }

    fn forward(&self, x: Tensor![B, DIM; f32]) -> Tensor![; f32] {
        self.experts.forward(x) + self.attn.forward(x.cast(work))
    }
}

#[derive(Module)]
pub struct Net {
    layers: Stack<Layer>,
}

impl Net {
    pub fn new() -> Self {
        Self { layers: stack(LAYERS, Layer::new) }
    }
}

pub fn train(net: &Net, x: Tensor![B, DIM; f32]) -> Tensor![; f32] {
    net.layers.fold(constant(0.0, f32), |sum, layer| sum + layer.forward(x))
}

pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(FFN, "tp");
    p.fsdp(["fsdp", "cp"]);
}

config! { "Net" { expect(layers | 2 == LAYERS), ignore_weights("^mtp\\.", "^extra\\.\\d+\\.w$") } }
