//! One layer of experts, for `make bench`: a router, and gated products of each token with the matrices of its own experts.

use mm::prelude::*;

dims! { B, S = 4096, DIM = 1024, HIDDEN = 512, EXPERTS = 64, CHOSEN = 8 }

#[derive(Module)]
pub struct Net {
    router: Linear,
    gate: Param,
    up: Param,
    down: Param,
}

impl Net {
    pub fn new() -> Self {
        Self {
            router: linear(DIM, EXPERTS).no_bias(),
            gate: Param::normal([EXPERTS, HIDDEN, DIM], 0.02),
            up: Param::normal([EXPERTS, HIDDEN, DIM], 0.02),
            down: Param::normal([EXPERTS, DIM, HIDDEN], 0.02),
        }
    }
}

pub fn train(net: &Net, x: Tensor![B, S, DIM]) -> Tensor![; f32] {
    let scores = net.router.forward(x).cast(f32).softmax(EXPERTS);
    let (shares, experts) = scores.top_k(EXPERTS, CHOSEN);
    let shares = (shares / shares.sum_over([CHOSEN])).cast(work);
    let (gate, _) = x.grouped_matmul(EXPERTS, experts, net.gate);
    let (up, _) = x.grouped_matmul(EXPERTS, experts, net.up);
    let (y, _) = swiglu(gate, up).grouped_matmul(EXPERTS, experts, net.down);
    (y * shares).sum_over([CHOSEN]).cast(f32).square().mean()
}

pub fn plan(p: &mut Plan) {
    p.shard(B, "dp").shard(S, "cp").shard(HIDDEN, "tp");
    p.fsdp(["fsdp", "cp"]);
}
