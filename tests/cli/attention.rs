//! Attention by numbers that are counted, not given: the same as attention without them.

use tests::binaries::{command, run};
use tests::outputs::{distance, read};

const NET: &str = "use mm::prelude::*;

dims! { B, S = 9, HEADS = 2, HEAD = 8 }

#[derive(Module)]
pub struct Net {
    scale: Param,
}

impl Net {
    pub fn new() -> Self {
        Self { scale: Param::normal([HEAD], 1.0) }
    }
}

pub fn forward(net: &Net, x: Tensor![B, S, HEADS, HEAD]) -> Tensor![B, S, HEADS, HEAD] {
    let q = x * net.scale;
    let at = iota(S, i64);
    attend_causal(q, x, q)
}

pub fn plan(p: &mut Plan) {
    p.shard(B, \"dp\").shard(S, \"cp\");
}
";

#[test]
fn counted_positions_are_those_of_the_tokens() {
    let work = tempfile::tempdir().expect("a folder");
    let out = |text: &str, mesh: &str| {
        let (model, plan) = (work.path().join("net.mm"), work.path().join("plan.bin"));
        let outputs = work.path().join("out.safetensors");
        std::fs::write(&model, text).expect("the model");
        let mut compile = command("mmc");
        compile.arg("compile").arg(&model).args(["--task", "forward", "--batch", "2", "-o"]).arg(&plan);
        run(compile.args(mesh.split_whitespace())).expect("compiles");
        run(command("mmrun").arg(&plan).arg("--outputs").arg(&outputs)).expect("runs");
        read(&outputs).expect("outputs")["out"].clone()
    };
    let plain = out(NET, "");
    for words in [".positions(at, at)", ".segments(at * 0 + 1, at * 0 + 1)", ".positions(at, at).window(8, 0)"] {
        let by_numbers = NET.replace("attend_causal(q, x, q)", &format!("attend_causal(q, x, q){words}"));
        for mesh in ["", "--dp 2", "--cp 2 --ulysses 1"] {
            let apart = distance(&plain, &out(&by_numbers, mesh));
            assert!(apart < 1e-6, "{words} {mesh}: {apart}");
        }
    }
}
