//! Attention by numbers that are counted, not given; and with a bias, T5's against transformers (`tests/goldens/t5.py`).

use tests::binaries::{command, run};
use tests::outputs::{distance, read};

/// One layer of T5's attention, under its names.
const T5: &str = "use mm::prelude::*;
use super::layers::relative_bias;

instances! { relative_bias { S = S, HEADS = HEADS } }

dims! { B, S = 150, HEADS = 4, HEAD = 8, DIM = 16, INNER = HEADS * HEAD, PLACES = 601 }

#[derive(Module)]
pub struct Net {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    relative_attention_bias: Embedding,
}

impl Net {
    pub fn new() -> Self {
        let across = || linear(DIM, INNER).no_bias();
        Self {
            q: across(),
            k: across(),
            v: across(),
            o: linear(INNER, DIM).no_bias(),
            relative_attention_bias: relative_bias::table(),
        }
    }

    fn out(&self, x: Tensor) -> Tensor {
        let heads = |x: Tensor| x.split(INNER, [HEADS, HEAD]);
        let (q, k, v) = (heads(self.q.forward(x)), heads(self.k.forward(x)), heads(self.v.forward(x)));
        let seen = attend(q, k, v).scale(1.0).bias(relative_bias::of_tokens(&self.relative_attention_bias));
        self.o.forward(seen.merge([HEADS, HEAD], INNER))
    }
}

pub struct Seen {
    pub out: Tensor,
    pub bucket: Tensor,
}

pub fn forward(net: &Net, x: Tensor![B, S, DIM], distance: Tensor![PLACES; i64]) -> Seen {
    Seen { out: net.out(x), bucket: relative_bias::bucket(distance).cast(f32) }
}

pub fn train(net: &Net, x: Tensor![B, S, DIM], y: Tensor![B, S, DIM; f32]) -> Tensor![; f32] {
    (net.out(x).cast(f32) - y).square().mean()
}

pub fn plan(p: &mut Plan) {
    p.shard(B, \"dp\").shard(S, \"cp\").shard(HEADS, \"tp\").shard(INNER, \"tp\").fsdp(\"fsdp\");
}
";

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

/// Values and gradients, that of the learned table among them, on one rank and cut in every way.
#[test]
fn relative_positions_are_those_of_t5() {
    let goldens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/t5");
    let causal = T5
        .replace("HEADS = HEADS }", "HEADS = HEADS, DIRECTIONS = 1 }")
        .replace("attend(q, k, v)", "attend_causal(q, k, v)");
    let work = tempfile::tempdir().expect("a folder");
    for (case, text) in [("encoder", T5), ("decoder", causal.as_str()), ("umt5", T5)] {
        let (model, plan) = (work.path().join("net.mm"), work.path().join("plan.bin"));
        let outputs = work.path().join("out.safetensors");
        let file = |name: &str| goldens.join(case).join(format!("{name}.safetensors"));
        let expected = read(&file("expected")).expect("goldens");
        std::fs::write(&model, text).expect("the model");
        let found = |task: &str, mesh: &str, more: &[&str]| {
            let mut compile = command("mmc");
            compile
                .arg("compile")
                .arg(&model)
                .args(["--task", task, "--batch", "2", "--dtype", "f32", "-o"])
                .arg(&plan);
            run(compile.args(mesh.split_whitespace())).expect("compiles");
            let mut execute = command("mmrun");
            execute.arg(&plan).arg("--weights").arg(file("weights")).arg("--inputs").arg(file(task));
            run(execute.arg("--outputs").arg(&outputs).args(more)).expect("runs");
            read(&outputs).expect("outputs")
        };
        let forward = found("forward", "", &[]);
        assert_eq!(forward["bucket"], expected["bucket"], "{case}");
        let apart = distance(&expected["out"], &forward["out"]);
        assert!(apart < 2e-6, "{case}: {apart}");
        let meshes = ["", "--dp 2", "--fsdp 2", "--tp 2", "--cp 2 --ulysses 1", "--cp 2 --ulysses 2"];
        for mesh in if case == "umt5" { &meshes[..1] } else { &meshes[..] } {
            let trained = found("train", mesh, &["--emit", "loss,grads"]);
            for (name, one) in expected.iter().filter(|(name, _)| name.starts_with("grad/")) {
                let apart = distance(one, &trained[name]);
                assert!(apart < 2e-5, "{case} {mesh}: {name}: {apart}");
            }
        }
    }
}

/// A bias without keys says where and how to name them.
#[test]
fn a_bias_must_have_keys() {
    let work = tempfile::tempdir().expect("a folder");
    let model = work.path().join("net.mm");
    let refused = |bias: &str, says: &str| {
        let text = NET.replace("attend_causal(q, x, q)", &format!("attend_causal(q, x, q).bias({bias})"));
        std::fs::write(&model, text).expect("the model");
        let error = run(command("mmc").arg("check").arg(&model).args(["--task", "forward"])).expect_err("is refused");
        assert!(error.contains(says) && error.contains("net.mm"), "{error}");
    };
    refused("iota(S, f32)", "give the keys another name, `.rename(S, KEYS)`");
    refused("iota(S, f32).rename(S, HEAD)", "this bias");
}
