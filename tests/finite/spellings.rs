//! Means over a mask in many spellings: every mesh gives what one rank does, and 0 where the mask lets nothing through.

use safetensors::tensor::Dtype;

use crate::{Tensors, compile, mmrun, read, run, write};

const MODEL: &str = "use mm::prelude::*;

dims! { B, S = 6, D = 8, H = 8, LAYERS = 2 }

#[derive(Module)]
pub struct Block { up: Linear, down: Linear }

impl Block {
    fn forward(&self, x: Tensor![B, S, D]) -> Tensor![B, S, D] { x + self.down.forward(self.up.forward(x).silu()) }
}

#[derive(Module)]
pub struct Net { blocks: Stack<Block>, head: Linear }

impl Net {
    pub fn new() -> Self {
        Self { blocks: stack(LAYERS, || Block { up: linear(D, H), down: linear(H, D) }), head: linear(D, D) }
    }
}

fn count(m: Tensor) -> Tensor { m.sum() * 2.0 }
fn average(e: Tensor, m: Tensor) -> Tensor { (e * m).sum() / count(m) }

pub fn train(net: &Net, x: Tensor![B, S, D], m: Tensor![B, S; f32]) -> Tensor![; f32] {
    let e = net.head.forward(net.blocks.fold(x, |x, block| block.forward(x))).cast(f32).square().mean_over([D]);
    LOSS
}

pub fn plan(p: &mut Plan) { p.shard(B, \"dp\").shard(S, \"cp\").shard(H, \"tp\"); }
";

const LOSSES: [&str; 8] = [
    "(e * m).sum() / (m.sum() * 8.0)",
    "(e * m).mean() / m.mean()",
    "(e * m).sum() / -m.sum()",
    "(e * m).sum() * m.sum().rsqrt()",
    "(e * m).sum() * (1.0 / m.sum())",
    "(e * m).sum() / m.sum().max(1.0)",
    "average(e, m) * 3.0",
    "(e * m).sum() / net.blocks.fold(m.sum(), |count, _| count * 2.0)",
];

#[test]
fn means_over_a_mask() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let x: Vec<f32> = (0..192u16).map(|i| f32::from(i * 37 % 101) / 50.0 - 1.0).collect();
    let mut some = [0.0f32; 24];
    for at in [13, 14, 17, 22] {
        some[at] = 1.0;
    }
    for (name, mask) in [("none", [0.0f32; 24]), ("some", some)] {
        let tensors = [("x", Dtype::F32, vec![4, 6, 8], bytes(&x)), ("m", Dtype::F32, vec![4, 6], bytes(&mask))];
        write(&folder.join(format!("{name}.safetensors")), &tensors);
    }
    for loss in LOSSES {
        let model = folder.join("net.mm");
        std::fs::write(&model, MODEL.replace("LOSS", loss)).expect("written");
        let mut first: Vec<Tensors> = vec![];
        for mesh in ["", "--microbatches 2", "--dp 2 --microbatches 2", "--pp 2 --microbatches 2", "--cp 2"] {
            compile(folder, &format!("{} --batch 4 {mesh}", model.display()));
            for (i, name) in ["none", "some"].into_iter().enumerate() {
                let words = format!("plan.bin --inputs {name}.safetensors --outputs out.safetensors --emit grads");
                run(&mut mmrun(folder, &words)).expect("runs");
                let out = read(&folder.join("out.safetensors"));
                if name == "none" {
                    assert!(out.values().flatten().all(|x| *x == 0.0), "{loss}: {mesh}: {out:?}");
                } else {
                    assert!(out["loss"][0] != 0.0, "{loss}: {mesh}");
                }
                if first.len() <= i {
                    first.push(out.clone());
                }
                for (name, values) in &out {
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
                    let apart = norm(&mut values.iter().zip(&first[i][name]).map(|(a, b)| a - b));
                    let of = norm(&mut first[i][name].iter().copied());
                    assert!(apart <= 1e-5 * of, "{loss}: {mesh}: {name} is {apart} apart, of {of}");
                }
            }
        }
    }
}
