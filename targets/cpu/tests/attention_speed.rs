//! How fast attention is over packed samples, windows and biases beside what it would be without them:
//! `cargo test -p target-cpu --test attention_speed -- --ignored --nocapture`; `ROUNDS=25` for more tries.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;

use std::time::Instant;

use ir::{Builder, NodeId, ops};
use load::{Numbers, load, ptr};
use target_cpu::cpu::Cpu;
use target_cpu::lower::Lowering;
use types::{DType, TensorType};

fn ty(text: &str) -> TensorType {
    text.parse().unwrap()
}

/// A kernel with the operands of so many samples, each in memory of its own.
struct Prepared {
    loaded: load::Loaded,
    args: Vec<Vec<*mut u8>>,
    _buffers: Vec<Vec<Vec<u8>>>,
}

impl Prepared {
    /// `numbers` are the operands that are i64.
    fn new(
        params: &[String],
        numbers: &[Vec<i64>],
        samples: usize,
        build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>,
    ) -> Self {
        let mut b = Builder::new("kernel");
        let nodes: Vec<NodeId> = params.iter().map(|text| b.param(ty(text))).collect();
        let results = build(&mut b, &nodes);
        let mut function = b.finish().unwrap();
        function.results = results;
        let cpu = Cpu::native().unwrap();
        let lowering = Lowering::new(&function, &cpu).unwrap();
        let needs = lowering.needs();
        let loaded = load(&cpu, &[lowering.module("kernel", &cpu).unwrap()]);
        let mut random = Numbers(5);
        let mut sample = || -> Vec<Vec<u8>> {
            let mut numbers = numbers.iter();
            let params = function.param_types().map(|ty| {
                let ty = ty.tensor().unwrap();
                match ty.dtype {
                    DType::BF16 => {
                        (0..ty.elements()).flat_map(|_| half::bf16::from_f32(random.next()).to_le_bytes()).collect()
                    }
                    DType::I64 => numbers.next().unwrap().iter().flat_map(|n| n.to_le_bytes()).collect(),
                    _ => (0..ty.elements()).flat_map(|_| random.next().to_le_bytes()).collect(),
                }
            });
            let mut buffers: Vec<Vec<u8>> = params.collect();
            buffers.extend(function.result_types().map(|ty| vec![0; ty.tensor().unwrap().bytes()]));
            buffers
        };
        let mut buffers: Vec<Vec<Vec<u8>>> = (0..samples).map(|_| sample()).collect();
        buffers.push(vec![vec![0; needs.workspace as usize]]);
        let (workspace, samples) = buffers.split_last().unwrap();
        let pointers = |own: &Vec<Vec<u8>>| own.iter().chain(workspace).map(|bytes| ptr(bytes)).collect();
        let args = samples.iter().map(pointers).collect();
        Self { loaded, args, _buffers: buffers }
    }

    /// Of all samples, on one thread.
    fn seconds(&self) -> f64 {
        let start = Instant::now();
        self.args.iter().for_each(|args| self.loaded.call_threads("kernel", args, 1));
        start.elapsed().as_secs_f64()
    }
}

/// Forward and backward of an attention of f32 or bf16.
#[derive(Clone)]
struct Timed {
    dtype: &'static str,
    queries: usize,
    keys: usize,
    heads: usize,
    head: usize,
    causal: bool,
    /// Samples one after another, each in memory of its own.
    samples: usize,
    segments: Option<Vec<i64>>,
    reach: [Option<u64>; 2],
    bias: bool,
}

impl Timed {
    /// Forward and backward.
    fn prepared(&self) -> [Prepared; 2] {
        let Timed { dtype, queries, keys, heads, head, .. } = self;
        let (q, k) =
            (format!("{dtype}[L:{queries}, H:{heads}, D:{head}]"), format!("{dtype}[S:{keys}, H:{heads}, D:{head}]"));
        let lse = format!("f32[L:{queries}, H:{heads}]");
        let [left, right] = self.reach;
        let forward = ops::Attention {
            q_len: "L".into(),
            kv_len: "S".into(),
            heads: "H".into(),
            kv_heads: "H".into(),
            head: "D".into(),
            causal: self.causal,
            scale: 0.1,
            visibility: ops::Visibility { segments: self.segments.is_some(), positions: false, left, right },
            bias: self.bias.then(|| "S".into()),
        };
        let mut others: Vec<String> = vec![];
        if self.bias {
            others.push(format!("f32[H:{heads}, L:{queries}, S:{keys}]"));
        }
        if self.segments.is_some() {
            others.extend([format!("i64[L:{queries}]"), format!("i64[S:{keys}]")]);
        }
        let numbers: Vec<Vec<i64>> = self.segments.iter().flat_map(|s| [s.clone(), s.clone()]).collect();
        let params = [&[q.clone(), k.clone(), k.clone()][..], &others].concat();
        let there = Prepared::new(&params, &numbers, self.samples, |b, p| {
            let both = b.op(forward.clone(), p);
            b.results(both).to_vec()
        });
        let params = [&[q.clone(), k.clone(), k, q.clone(), lse, q][..], &others].concat();
        let back = Prepared::new(&params, &numbers, self.samples, |b, p| {
            let all = b.op(ops::AttentionGrad::of(&forward), p);
            b.results(all).to_vec()
        });
        [there, back]
    }
}

/// The least times of both sides, in turns: a machine that slows down slows both.
fn beside(name: &str, one: &Timed, what: &str, others: &[Timed]) {
    let rounds: usize = std::env::var("ROUNDS").map_or(9, |text| text.parse().unwrap());
    let own = one.prepared();
    let others: Vec<[Prepared; 2]> = others.iter().map(Timed::prepared).collect();
    for (i, pass) in ["forward", "backward"].into_iter().enumerate() {
        let mut least = vec![f64::MAX; others.len() + 1];
        for _ in 0..rounds {
            for (at, side) in [&own].into_iter().chain(&others).enumerate() {
                least[at] = least[at].min(side[i].seconds());
            }
        }
        let alone: f64 = least[1..].iter().sum();
        println!(
            "{name}, {}, head {}, causal {}, {pass}: {:.1} ms, {what} {:.1} ms, {:.2}x",
            one.dtype,
            one.head,
            one.causal,
            least[0] * 1e3,
            alone * 1e3,
            least[0] / alone
        );
    }
}

/// Samples in one sequence, by segments, beside the same samples one by one; and a window that slides, beside blocks of as
/// many queries with the keys that they see.
#[test]
#[ignore = "a measurement"]
fn packed_attention() {
    let unequal = vec![2048, 1536, 1280, 1024, 896, 640, 512, 256];
    for (name, lengths, heads) in [("windows of 64 in 4,096", vec![64; 64], 16), ("8 samples in 8,192", unequal, 4)] {
        let total: usize = lengths.iter().sum();
        let segments: Vec<i64> =
            lengths.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i as i64 + 1, n)).collect();
        for dtype in ["f32", "bf16"] {
            for (head, causal) in [(128, false), (64, false), (64, true)] {
                let (queries, keys, reach) = (total, total, [None; 2]);
                let whole =
                    Timed { dtype, queries, keys, heads, head, causal, samples: 1, segments: None, reach, bias: false };
                let mut different = lengths.clone();
                different.dedup();
                let of = |&length: &usize| {
                    let samples = lengths.iter().filter(|l| **l == length).count();
                    Timed { queries: length, keys: length, samples, ..whole.clone() }
                };
                let alone: Vec<Timed> = different.iter().map(of).collect();
                let packed = Timed { segments: Some(segments.clone()), ..whole.clone() };
                beside(name, &packed, "one by one", &alone);
                if heads == 16 && !causal {
                    let near = Timed { reach: [Some(64), Some(64)], ..whole.clone() };
                    let blocks = Timed { queries: 64, keys: 192, samples: 64, ..whole };
                    beside("window(64, 64) in 4,096", &near, "64 blocks of 64 queries and 192 keys", &[blocks]);
                }
            }
        }
    }
}

/// A bias for each head, query and key beside none.
#[test]
#[ignore = "a measurement"]
fn biased_attention() {
    for dtype in ["f32", "bf16"] {
        let plain = Timed {
            dtype,
            queries: 512,
            keys: 512,
            heads: 8,
            head: 64,
            causal: false,
            samples: 1,
            segments: None,
            reach: [None; 2],
            bias: false,
        };
        beside("bias, 512 tokens", &Timed { bias: true, ..plain.clone() }, "without", &[plain]);
    }
}
