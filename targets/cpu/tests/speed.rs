//! How fast kernels are made, and how fast they run: `cargo test -p target-cpu --test speed -- --ignored --nocapture`.
//! `SPEED=rope,linear` measures only those whose names have one of these words.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;

use std::time::Instant;

use ir::{Builder, NodeId, Op, ops};
use load::{Numbers, load, ptr};
use target_cpu::cpu::Cpu;
use target_cpu::emit::Elem;
use target_cpu::lower::Lowering;
use types::{DType, Name, TensorType};

fn ty(text: &str) -> TensorType {
    text.parse().unwrap()
}

/// Prints milliseconds to compile, then for 1 and 2 threads milliseconds, GB/s and GFLOP/s.
fn measure(name: &str, params: &[&str], build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>) {
    if let Ok(wanted) = std::env::var("SPEED")
        && !wanted.split(',').any(|word| name.contains(word))
    {
        return;
    }
    let mut b = Builder::new("kernel");
    let nodes: Vec<NodeId> = params.iter().map(|text| b.param(ty(text))).collect();
    let results = build(&mut b, &nodes);
    let mut function = b.finish().unwrap();
    function.results = results;
    let cpu = Cpu::native().unwrap();
    let start = Instant::now();
    let lowering = Lowering::new(&function, &cpu).unwrap();
    let needs = lowering.needs();
    let module = lowering.module("kernel", &cpu).unwrap();
    let lines = module.text.lines().count();
    let loaded = load(&cpu, &[module]);
    let made = start.elapsed().as_secs_f64() * 1e3;

    let buffer = |ty: &TensorType, seed: u64| -> Vec<u8> {
        let mut numbers = Numbers(seed);
        let mut bytes: Vec<u8> = Vec::with_capacity(ty.bytes());
        for _ in 0..ty.elements() {
            match ty.dtype {
                DType::BF16 => bytes.extend(half::bf16::from_f32(numbers.next()).to_le_bytes()),
                DType::F32 => bytes.extend(numbers.next().to_le_bytes()),
                dtype => bytes.extend(vec![0; dtype.bytes()]),
            }
        }
        bytes
    };
    let mut buffers: Vec<Vec<u8>> = function.param_types().map(|ty| buffer(ty.tensor().unwrap(), 5)).collect();
    buffers.extend(function.result_types().map(|ty| vec![0; ty.tensor().unwrap().bytes()]));
    let traffic: usize = buffers.iter().map(Vec::len).sum();
    buffers.push(vec![0; needs.workspace as usize]);
    let args: Vec<*mut u8> = buffers.iter().map(|bytes| ptr(bytes)).collect();
    let flops = target::flops(&function);
    print!("{name:34} {lines:5} lines {made:6.0} ms |");
    for parts in [1, 2] {
        let best = (0..6)
            .map(|_| {
                let start = Instant::now();
                loaded.call_threads("kernel", &args, parts);
                start.elapsed().as_secs_f64()
            })
            .fold(f64::MAX, f64::min);
        print!(
            " {:8.3} ms {:5.1} GB/s {:6.1} GFLOP/s |",
            best * 1e3,
            traffic as f64 / best * 1e-9,
            flops as f64 / best * 1e-9
        );
    }
    println!();
}

fn op(b: &mut Builder, op: impl Into<Op>, args: &[NodeId]) -> NodeId {
    b.op(op, args)
}

fn names(text: &str) -> Vec<Name> {
    text.split_whitespace().map(Name::from).collect()
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    for dtype in ["f32", "bf16"] {
        println!("{dtype}");
        let x = format!("{dtype}[L:4096, D:1536]");
        let w = format!("{dtype}[D:1536]");
        let dim: Name = "D".into();
        measure("add", &[&x, &x], |b, p| vec![b.add(p[0], p[1])]);
        measure("gelu_tanh", &[&x], |b, p| vec![op(b, ops::GeluTanh {}, p)]);
        measure("gelu_tanh_grad", &[&x, &x], |b, p| vec![op(b, ops::GeluTanhGrad {}, p)]);
        measure("rms_norm * w", &[&x, &w], |b, p| {
            let y = op(b, ops::RmsNorm { dim: dim.clone(), eps: 1e-6 }, &p[..1]);
            vec![b.mul(y, p[1])]
        });
        measure("rms_norm_grad", &[&x, &x], |b, p| vec![op(b, ops::RmsNormGrad { dim: dim.clone(), eps: 1e-6 }, p)]);
        measure("layer_norm", &[&x], |b, p| vec![op(b, ops::LayerNorm { dim: dim.clone(), eps: 1e-6 }, p)]);
        measure("softmax", &[&x], |b, p| vec![op(b, ops::Softmax { dim: dim.clone() }, p)]);
        let scores = format!("{dtype}[T:4096, E:64]");
        measure("first 8 of 64", &[&scores], |b, p| {
            let both = op(b, ops::TopK { dim: "E".into(), to: types::Dim::new("K", 8) }, p);
            b.results(both).to_vec()
        });
        measure("order of 32,768", &[&format!("{dtype}[T:32768]")], |b, p| {
            vec![op(b, ops::Argsort { dim: "T".into(), descending: false }, p)]
        });
        measure("sums along columns", &[&x], |b, p| vec![op(b, ops::Cumsum { dim: "L".into(), reverse: false }, p)]);
        measure("sums along rows", &[&x], |b, p| vec![op(b, ops::Cumsum { dim: "D".into(), reverse: false }, p)]);
        let (logits, rows) = (format!("{dtype}[L:256, V:32000]"), "i64[L:256]");
        let vocabulary = Name::from("V");
        measure("cross_entropy", &[&logits, rows], |b, p| {
            vec![op(b, ops::CrossEntropy { dim: vocabulary.clone(), ignore: -100 }, p)]
        });
        measure("cross_entropy_grad", &[&logits, rows, "f32[L:256]"], |b, p| {
            vec![op(b, ops::CrossEntropyGrad { dim: vocabulary.clone(), ignore: -100 }, p)]
        });
        measure("sum of columns", &[&x], |b, p| vec![b.reduce_sum(p[0], &names("L"))]);
        measure("sum of all", &[&x], |b, p| vec![b.reduce_sum(p[0], &names("L D"))]);
        measure("transpose", &[&x], |b, p| vec![op(b, ops::Transpose { order: names("D L") }, p)]);
        let heads = format!("{dtype}[L:4096, H:12, D:128]");
        measure("transpose of heads", &[&heads], |b, p| vec![op(b, ops::Transpose { order: names("H L D") }, p)]);
        let table = "f32[L:4096, J:64]";
        for form in [ops::RopeForm::Half, ops::RopeForm::Interleaved] {
            let name = format!("rope {form:?}");
            measure(&name, &[&heads, table, table], |b, p| vec![op(b, ops::Rope { dim: dim.clone(), form }, p)]);
        }
        let half = "f32[L:4096, D:1536]";
        measure("adamw", &[&x, half, half, &x, "f32[]", "f32[]", "f32[]"], |b, p| {
            let all = op(b, ops::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 }, p);
            b.results(all).to_vec()
        });
        let weight = format!("{dtype}[O:1536, D:1536]");
        let linear = ops::Matmul { spec: "lk,ok->lo".into(), dims: names("L O"), dtype: None };
        let out = format!("{dtype}[L:4096, O:1536]");
        let bias = format!("{dtype}[O:1536]");
        measure("linear", &[&x, &weight], |b, p| vec![op(b, linear.clone(), p)]);
        measure("linear + bias, gelu", &[&x, &weight, &bias], |b, p| {
            let z = op(b, linear.clone(), &p[..2]);
            let z = b.add(z, p[2]);
            vec![op(b, ops::GeluTanh {}, &[z]), z]
        });
        let gradient = ops::Matmul { spec: "lo,lk->ok".into(), dims: names("O D"), dtype: None };
        measure("weight gradient", &[&out, &x], |b, p| vec![op(b, gradient.clone(), p)]);
    }
}

/// GFLOP/s of one thread that does nothing but multiply and add.
fn peak(dtype: &str) -> f64 {
    const STEPS: i64 = 20_000_000;
    let cpu = Cpu::native().unwrap();
    let pairs = dtype == "bf16" && cpu.bf16_dot;
    let loaded = load::build(&cpu, |e| {
        e.kernel("peak", |e, kernel| {
            let to = kernel.pointer(e, 0);
            let vf32 = e.vf32();
            let start: Vec<_> = (0..16).map(|i| e.vconst(i as f32)).collect();
            let (zero, steps) = (e.i64(0), e.i64(STEPS / 16));
            let (a, b) = (e.load(to, vf32), e.load(to, vf32));
            let sums = e.for_each((zero, steps, 1), &start, |e, _, sums| {
                let step = |&sum| if pairs { e.dot_pairs(a, b, sum) } else { e.fma(a, b, sum) };
                sums.iter().map(step).collect()
            });
            for (i, sum) in sums.into_iter().enumerate() {
                let place = e.i64(16 * i as i64);
                let to = e.at(to, Elem::F32, place);
                e.store(sum, to);
            }
        });
    });
    let buffer = vec![0u8; 16 * 64];
    let flops = STEPS as f64 * f64::from(cpu.lanes) * if pairs { 4.0 } else { 2.0 };
    let once = |_| {
        let start = Instant::now();
        loaded.call("peak", &[ptr(&buffer)], 1);
        flops / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..5).map(once).fold(0.0, f64::max)
}

/// `LENGTH=8192` for longer sequences.
#[test]
#[ignore = "a measurement"]
fn attention() {
    let length: usize = std::env::var("LENGTH").map_or(1560, |text| text.parse().unwrap());
    for dtype in ["f32", "bf16"] {
        println!("{dtype}, {length} tokens: peak of a thread {:.0} GFLOP/s", peak(dtype));
        for (head, causal) in [(64, false), (128, false), (64, true), (128, true)] {
            let q = format!("{dtype}[B:1, L:{length}, H:4, D:{head}]");
            let lse = format!("f32[B:1, L:{length}, H:4]");
            let name = |text: &str| Name::from(text);
            let forward = ops::Attention {
                q_len: name("L"),
                kv_len: name("L"),
                heads: name("H"),
                kv_heads: name("H"),
                head: name("D"),
                causal,
                scale: 0.088,
                visibility: ops::Visibility::default(),
                bias: None,
            };
            let backward = ops::AttentionGrad::of(&forward);
            measure(&format!("attention {head}, causal: {causal}"), &[&q, &q, &q], |b, p| {
                let both = op(b, forward, p);
                b.results(both).to_vec()
            });
            measure(&format!("attention_grad {head}, causal: {causal}"), &[&q, &q, &q, &q, &lse, &q], |b, p| {
                let all = op(b, backward, p);
                b.results(all).to_vec()
            });
        }
    }
}

/// Seconds of the kernel on so many threads, at the best of some tries; `numbers` are the operands that are i64.
fn seconds(
    threads: &[u32],
    params: &[String],
    numbers: &[Vec<i64>],
    build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>,
) -> Vec<f64> {
    let mut b = Builder::new("kernel");
    let nodes: Vec<NodeId> = params.iter().map(|text| b.param(ty(text))).collect();
    let results = build(&mut b, &nodes);
    let mut function = b.finish().unwrap();
    function.results = results;
    let cpu = Cpu::native().unwrap();
    let lowering = Lowering::new(&function, &cpu).unwrap();
    let needs = lowering.needs();
    let loaded = load(&cpu, &[lowering.module("kernel", &cpu).unwrap()]);
    let mut numbers = numbers.iter();
    let mut random = Numbers(5);
    let mut buffers: Vec<Vec<u8>> = function
        .param_types()
        .map(|ty| {
            let ty = ty.tensor().unwrap();
            match ty.dtype {
                DType::BF16 => {
                    (0..ty.elements()).flat_map(|_| half::bf16::from_f32(random.next()).to_le_bytes()).collect()
                }
                DType::I64 => numbers.next().unwrap().iter().flat_map(|n| n.to_le_bytes()).collect(),
                _ => (0..ty.elements()).flat_map(|_| random.next().to_le_bytes()).collect(),
            }
        })
        .collect();
    buffers.extend(function.result_types().map(|ty| vec![0; ty.tensor().unwrap().bytes()]));
    buffers.push(vec![0; needs.workspace as usize]);
    let args: Vec<*mut u8> = buffers.iter().map(|bytes| ptr(bytes)).collect();
    let once = |threads: u32| {
        let start = Instant::now();
        loaded.call_threads("kernel", &args, threads);
        start.elapsed().as_secs_f64()
    };
    threads.iter().map(|&threads| (0..5).map(|_| once(threads)).fold(f64::MAX, f64::min)).collect()
}

/// 64 experts, of which each of 4,096 tokens takes 8, evenly or not: shares of the peak, and what sorting takes.
#[test]
#[ignore = "a measurement"]
fn experts() {
    const EXPERTS: usize = 64;
    let mut random = Numbers(3);
    let mut unit = || (f64::from(random.next()) + 1.0) / 2.0;
    let mut draw = |power: i32| -> Vec<i64> {
        let one = |_| ((unit().powi(power) * EXPERTS as f64) as i64).min(EXPERTS as i64 - 1);
        (0..4096 * 8).map(one).collect()
    };
    let (even, skewed) = (draw(1), draw(3));
    let [forward, back, gradient] = ["td,tk,efd->tkf", "tkf,tk,efd->tkd", "td,tk,tkf->efd"];
    for dtype in ["f32", "bf16"] {
        let peak = peak(dtype);
        println!("{dtype}: peak of a thread {peak:.0} GFLOP/s");
        for (kind, ids) in [("even", &even), ("skewed", &skewed)] {
            for spec in [forward, back, gradient] {
                let text = |ty: &str, letters: &str| {
                    let size = |c: char| match c {
                        't' => "T:4096",
                        'k' => "K:8",
                        'd' => "D:1024",
                        'f' => "F:512",
                        _ => "E:64",
                    };
                    format!("{ty}[{}]", letters.chars().map(size).collect::<Vec<_>>().join(", "))
                };
                let letters: Vec<&str> = spec.split([',', '-', '>']).filter(|s| !s.is_empty()).collect();
                let params = [text(dtype, letters[0]), text("i64", letters[1]), text(dtype, letters[2])];
                let dims: Vec<Name> =
                    letters[3].to_uppercase().chars().map(|c| Name::from(c.to_string().as_str())).collect();
                let times = seconds(&[1, 2], &params, std::slice::from_ref(ids), |b, p| {
                    let spec = spec.to_string();
                    vec![match spec == gradient {
                        true => op(b, ops::GroupedMatmulWeight { spec, dims, experts: EXPERTS, among: None }, p),
                        false => op(b, ops::GroupedMatmul { spec, dims, among: None }, p),
                    }]
                });
                let flop = 2.0 * ids.len() as f64 * 1024.0 * 512.0;
                let share = |threads: usize| flop / times[threads - 1] * 1e-9 / peak / threads as f64;
                println!(
                    "{kind:8} {spec:16} {:7.1} ms {:4.0} % | {:7.1} ms {:4.0} %",
                    times[0] * 1e3,
                    share(1) * 100.0,
                    times[1] * 1e3,
                    share(2) * 100.0
                );
            }
            // Rows of one element: nothing but the order, and what is written.
            let params =
                [format!("{dtype}[T:4096, D:1]"), "i64[T:4096, K:8]".into(), format!("{dtype}[E:64, F:1, D:1]")];
            let times = seconds(&[1, 2], &params, std::slice::from_ref(ids), |b, p| {
                vec![op(b, ops::GroupedMatmul { spec: forward.into(), dims: names("T K F"), among: None }, p)]
            });
            println!("{kind:8} rows of one element {:7.3} ms | {:7.3} ms", times[0] * 1e3, times[1] * 1e3);
        }
        let linear = ops::Matmul { spec: "lk,ok->lo".into(), dims: names("L O"), dtype: None };
        let params = [format!("{dtype}[L:4096, K:1024]"), format!("{dtype}[O:4096, K:1024]")];
        let times = seconds(&[1, 2], &params, &[], |b, p| vec![op(b, linear, p)]);
        let share = |threads: usize| 2.0 * 4096.0 * 4096.0 * 1024.0 / times[threads - 1] * 1e-9 / peak / threads as f64;
        println!("a product of as much {:4.0} % | {:4.0} %", share(1) * 100.0, share(2) * 100.0);
    }
}
