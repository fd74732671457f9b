//! Products against naive loops: transposed, strided, batched, of odd sizes, in parts; and their speed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;

use half::bf16;
use load::{Loaded, Numbers, build, cpus, ptr};
use target_cpu::cpu::Cpu;
use target_cpu::emit::{Elem, Emitter};
use target_cpu::matmul::{Buffers, EXTRA, Matmul, Micro, OUT, Site, Word};
use target_cpu::nest::Dim;

fn row_major(batch: u64, m: u64, n: u64, k: u64) -> Matmul {
    let (m_, n_, k_) = (m as i64, n as i64, k as i64);
    Matmul {
        batch: vec![Dim::new(batch, &[m_ * k_, k_ * n_, m_ * n_])],
        m: vec![Dim::new(m, &[k_, 0, n_])],
        n: vec![Dim::new(n, &[0, 1, 1])],
        k: vec![Dim::new(k, &[1, n_, 0])],
        lhs: Elem::F32,
        rhs: Elem::F32,
    }
}

fn kernel(cpu: &Cpu, matmul: &Matmul, out: Elem) -> (Loaded, u64) {
    let normal = matmul.normal();
    let workspace = normal.tiling(cpu).workspace_bytes();
    let loaded = build(cpu, |e| {
        e.kernel("matmul", |e, kernel| {
            let pointers: Vec<_> = (0..4).map(|index| kernel.pointer(e, index)).collect();
            // The normal form may have exchanged the operands.
            let exchanged = exchanged(matmul);
            let (lhs, rhs) = if exchanged { (pointers[1], pointers[0]) } else { (pointers[0], pointers[1]) };
            let buffers = Buffers { lhs, rhs, workspace: pointers[3] };
            e.matmul(kernel, &normal, buffers, |e: &mut Emitter, site: &Site<'_>, sum| {
                site.store(e, sum, pointers[2], out, OUT);
            });
        });
    });
    (loaded, workspace)
}

fn exchanged(matmul: &Matmul) -> bool {
    let unit = |dims: &[Dim]| dims.iter().any(|dim| dim.strides[OUT] == 1 && dim.size > 1);
    unit(&matmul.m) && !unit(&matmul.n)
}

/// The extent of an operand: one past its last element.
fn extent(matmul: &Matmul, operand: usize) -> usize {
    let dims = [&matmul.batch, &matmul.m, &matmul.n, &matmul.k];
    1 + dims.iter().flat_map(|dims| dims.iter()).map(|dim| (dim.size as i64 - 1) * dim.strides[operand]).sum::<i64>()
        as usize
}

fn each(dims: &[Dim]) -> Vec<Vec<i64>> {
    let mut all = vec![vec![0; dims.first().map_or(3, |dim| dim.strides.len())]];
    for dim in dims {
        all = all
            .iter()
            .flat_map(|base| {
                (0..dim.size as i64).map(move |i| base.iter().zip(&dim.strides).map(|(b, s)| b + i * s).collect())
            })
            .collect();
    }
    all
}

fn naive(matmul: &Matmul, lhs: &[f32], rhs: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; extent(matmul, OUT)];
    let (ms, ns, ks) = (each(&matmul.m), each(&matmul.n), each(&matmul.k));
    for batch in each(&matmul.batch) {
        for m in &ms {
            for n in &ns {
                let mut sum = 0f64;
                for k in &ks {
                    let a = lhs[(batch[0] + m[0] + n[0] + k[0]) as usize];
                    let b = rhs[(batch[1] + m[1] + n[1] + k[1]) as usize];
                    sum += f64::from(a) * f64::from(b);
                }
                out[(batch[2] + m[2] + n[2]) as usize] = sum as f32;
            }
        }
    }
    out
}

fn check(name: &str, matmul: &Matmul) {
    let depth: u64 = matmul.k.iter().map(|dim| dim.size).product();
    for cpu in cpus() {
        let lhs = Numbers(1).take(extent(matmul, 0));
        let rhs = Numbers(2).take(extent(matmul, 1));
        let want = naive(matmul, &lhs, &rhs);
        let (loaded, workspace) = kernel(&cpu, matmul, Elem::F32);
        let mut first: Option<Vec<f32>> = None;
        for parts in [1, 3, 70] {
            let out = vec![0f32; want.len()];
            let scratch = vec![f32::NAN; workspace as usize / 4];
            loaded.call("matmul", &[ptr(&lhs), ptr(&rhs), ptr(&out), ptr(&scratch)], parts);
            for (i, (&got, &want)) in out.iter().zip(&want).enumerate() {
                let close = (got - want).abs() <= 2e-6 * (depth as f32).sqrt() * (1.0 + want.abs());
                assert!(close, "{name} on {}: out[{i}] = {got}, not {want}", cpu.name);
            }
            assert_eq!(*first.get_or_insert_with(|| out.clone()), out, "{name}: parts change bits");
        }
    }
}

#[test]
fn row_major_of_odd_sizes() {
    for (batch, m, n, k) in [
        (1, 1, 1, 1),
        (1, 7, 5, 3),
        (2, 16, 32, 16),
        (1, 33, 65, 129),
        (3, 1, 100, 40),
        (2, 100, 1, 40),
        (1, 9, 17, 1000),
        (1, 150, 300, 20),
    ] {
        check(&format!("{batch}x{m}x{n}x{k}"), &row_major(batch, m, n, k));
    }
}

#[test]
fn transposed_operands() {
    let (m, n, k) = (37i64, 45i64, 403i64);
    let dims = |a: [i64; 2], b: [i64; 2], c: [i64; 2]| Matmul {
        batch: vec![],
        m: vec![Dim::new(m as u64, &[a[0], 0, c[0]])],
        n: vec![Dim::new(n as u64, &[0, b[1], c[1]])],
        k: vec![Dim::new(k as u64, &[a[1], b[0], 0])],
        lhs: Elem::F32,
        rhs: Elem::F32,
    };
    for (a_name, a) in [("row", [k, 1]), ("column", [1, m]), ("strided", [3 * k, 3])] {
        for (b_name, b) in [("row", [n, 1]), ("column", [1, k]), ("strided", [2 * n, 2])] {
            for (c_name, c) in [("row", [n, 1]), ("column", [1, m])] {
                check(&format!("{a_name} {b_name} -> {c_name}"), &dims(a, b, c));
            }
        }
    }
}

#[test]
fn many_dims() {
    // b l (h d), (h d) e -> b h' ... : rows and columns that do not merge.
    let (b, l, h, d, e) = (2i64, 5i64, 3i64, 20i64, 21i64);
    check(
        "b l e, e h d -> b h l d",
        &Matmul {
            batch: vec![],
            m: vec![Dim::new(b as u64, &[l * e, 0, h * l * d]), Dim::new(l as u64, &[e, 0, d])],
            n: vec![Dim::new(h as u64, &[0, d, l * d]), Dim::new(d as u64, &[0, 1, 1])],
            k: vec![Dim::new(e as u64, &[1, h * d, 0])],
            lhs: Elem::F32,
            rhs: Elem::F32,
        },
    );
    check(
        "b h l d, e h d -> b l e",
        &Matmul {
            batch: vec![],
            m: vec![Dim::new(b as u64, &[h * l * d, 0, l * e]), Dim::new(l as u64, &[d, 0, e])],
            n: vec![Dim::new(e as u64, &[0, h * d, 1])],
            k: vec![Dim::new(h as u64, &[l * d, d, 0]), Dim::new(d as u64, &[1, 1, 0])],
            lhs: Elem::F32,
            rhs: Elem::F32,
        },
    );
}

#[test]
fn bf16_and_an_epilogue() {
    let (m, n, k) = (19usize, 70usize, 450usize);
    for cpu in cpus() {
        let narrow = |seed, count| -> Vec<bf16> { Numbers(seed).take(count).into_iter().map(bf16::from_f32).collect() };
        let (lhs, rhs, bias) = (narrow(1, m * k), narrow(2, k * n), narrow(3, n));
        let mut matmul = Matmul { lhs: Elem::Bf16, rhs: Elem::Bf16, ..row_major(1, m as u64, n as u64, k as u64) };
        for (dims, stride) in [(&mut matmul.batch, 0), (&mut matmul.m, 0), (&mut matmul.n, 1), (&mut matmul.k, 0)] {
            dims.iter_mut().for_each(|dim| dim.strides.push(stride));
        }
        let normal = matmul.normal();
        let loaded = build(&cpu, |e| {
            e.kernel("matmul", |e, kernel| {
                let pointers: Vec<_> = (0..5).map(|index| kernel.pointer(e, index)).collect();
                let buffers = Buffers { lhs: pointers[0], rhs: pointers[1], workspace: pointers[4] };
                e.matmul(kernel, &normal, buffers, |e: &mut Emitter, site: &Site<'_>, sum| {
                    let sum = e.round_through(sum, Elem::Bf16);
                    let bias = site.load(e, pointers[2], Elem::Bf16, EXTRA);
                    let sum = e.add(sum, bias);
                    site.store(e, sum, pointers[3], Elem::Bf16, OUT);
                });
            });
        });
        let out = vec![bf16::ZERO; m * n];
        let scratch = vec![0u8; normal.tiling(&cpu).workspace_bytes() as usize];
        loaded.call("matmul", &[ptr(&lhs), ptr(&rhs), ptr(&bias), ptr(&out), ptr(&scratch)], 2);
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k).map(|p| lhs[i * k + p].to_f64() * rhs[p * n + j].to_f64()).sum();
                let want = sum + bias[j].to_f64();
                let got = out[i * n + j].to_f64();
                assert!((got - want).abs() <= 0.01 * want.abs() + 0.06, "[{i}, {j}] = {got}, not {want}");
            }
        }
    }
}

/// Seconds of the best of some calls, each part on its own thread.
fn best(loaded: &Loaded, name: &str, args: &[*mut u8], parts: u32) -> f64 {
    let once = |_| {
        let start = std::time::Instant::now();
        loaded.call_threads(name, args, parts);
        start.elapsed().as_secs_f64()
    };
    (0..8).map(once).fold(f64::MAX, f64::min)
}

/// The most that `threads` cores do, in GFLOP/s: products of what stays in the first-level cache.
fn peak(cpu: &Cpu, word: Word, threads: u32) -> f64 {
    const STEPS: i64 = 1 << 21;
    let loaded = build(cpu, |e| {
        e.kernel("peak", |e, kernel| {
            let to = kernel.pointer(e, 0);
            let own = e.i64(1024);
            let own = e.mul(kernel.part, own);
            let to = e.at(to, Elem::F32, own);
            let micro = Micro { rows: 8, vectors: 2, a_row: 1, a_k: 0, b_k: 0, c_row: 2 * i64::from(e.lanes()) };
            let (steps, zero) = (e.i64(STEPS), e.i64(0));
            e.micro_words((word, micro), (to, to, to), steps, zero);
        });
    });
    let buffer = vec![0f32; 1024 * threads as usize];
    let seconds = best(&loaded, "peak", &[ptr(&buffer)], threads);
    let one = 2.0 * 16.0 * f64::from(cpu.lanes) * word.depth() as f64 * STEPS as f64;
    1e-9 * one * f64::from(threads) / seconds
}

/// The most that `threads` cores read and write, in GB/s: one vector after another, of more than the caches hold.
fn bandwidth(cpu: &Cpu, threads: u32) -> f64 {
    const FLOATS: u64 = 1 << 25;
    let loaded = build(cpu, |e| {
        e.kernel("copy", |e, kernel| {
            let (from, to) = (kernel.pointer(e, 0), kernel.pointer(e, 1));
            let lanes = i64::from(e.lanes());
            let (first, end) = e.share(kernel, FLOATS / lanes as u64, 1 << 16);
            e.for_range((first, end, 1), |e, vector| {
                let step = e.i64(lanes);
                let index = e.mul(vector, step);
                let (from, to) = (e.at(from, Elem::F32, index), e.at(to, Elem::F32, index));
                let vf32 = e.vf32();
                let value = e.load(from, vf32);
                e.store(value, to);
            });
        });
    });
    let (from, to) = (vec![1f32; FLOATS as usize], vec![0f32; FLOATS as usize]);
    8e-9 * FLOATS as f64 / best(&loaded, "copy", &[ptr(&from), ptr(&to)], threads)
}

/// The limits of this machine as JSON: what `scripts/bench.py` measures shares of.
#[test]
#[ignore = "a measurement"]
fn limits() {
    let cpu = Cpu::native().unwrap();
    for threads in [1, 2] {
        let [f32, bf16] = [Word::F32, cpu_word(&cpu, Elem::Bf16)].map(|word| peak(&cpu, word, threads));
        let bandwidth = bandwidth(&cpu, threads);
        println!("{{\"threads\": {threads}, \"f32\": {f32:.1}, \"bf16\": {bf16:.1}, \"bandwidth\": {bandwidth:.1}}}");
    }
}

fn cpu_word(cpu: &Cpu, elem: Elem) -> Word {
    Matmul { lhs: elem, rhs: elem, ..row_major(1, 2, 2, 2) }.word(cpu)
}

/// Share of the machine's peak for the products of training steps; `SHAPES=1560x512x512,..` chooses others.
/// `cargo test --release -p target-cpu --test matmul -- --ignored --nocapture speed`
#[test]
#[ignore = "a measurement"]
fn speed() {
    let default = "1560x512x512,1560x2048x512,1560x512x2048,512x2048x1560,1024x256x1024,256x32000x512,1560x1536x1536";
    let shapes = std::env::var("SHAPES").unwrap_or_else(|_| default.to_owned());
    let mut cpus = vec![Cpu::parse("native").unwrap(), Cpu::parse("x86-64-v3").unwrap()];
    cpus.dedup();
    for (cpu, elem) in cpus.iter().flat_map(|cpu| [(cpu, Elem::F32), (cpu, Elem::Bf16)]) {
        let word = cpu_word(cpu, elem);
        let peak = peak(cpu, word, 1);
        println!("{} {elem}: peak {peak:.0} GFLOP/s a core", cpu.name);
        for shape in shapes.split(',') {
            let [m, n, k] = shape.split('x').map(|x| x.parse().unwrap()).collect::<Vec<u64>>()[..] else { panic!() };
            let mut line = format!("{m:5} x {n:5} x {k:5}");
            for form in ["ab", "abT", "aTb"] {
                let mut matmul = Matmul { lhs: elem, rhs: elem, ..row_major(1, m, n, k) };
                match form {
                    "abT" => (matmul.n[0].strides[1], matmul.k[0].strides[1]) = (k as i64, 1),
                    "aTb" => (matmul.m[0].strides[0], matmul.k[0].strides[0]) = (1, m as i64),
                    _ => {}
                }
                let narrow = |seed, count: u64| -> Vec<bf16> {
                    Numbers(seed).take(count as usize).into_iter().map(bf16::from_f32).collect()
                };
                let wide = |seed, count: u64| Numbers(seed).take(count as usize);
                let (small, large) = ((narrow(1, m * k), narrow(2, n * k)), (wide(1, m * k), wide(2, n * k)));
                let (lhs, rhs) = match elem {
                    Elem::Bf16 => (ptr(&small.0), ptr(&small.1)),
                    _ => (ptr(&large.0), ptr(&large.1)),
                };
                let (loaded, workspace) = kernel(cpu, &matmul, elem);
                let out = vec![0f32; (m * n) as usize];
                let scratch = vec![0u8; workspace as usize];
                let args = [lhs, rhs, ptr(&out), ptr(&scratch)];
                line += &format!(" | {form:3}");
                for parts in [1, 2] {
                    let best = best(&loaded, "matmul", &args, parts);
                    let rate = 2e-9 * (m * n * k) as f64 / best;
                    line += &format!(" {rate:4.0} ({:3.0} %)", 100.0 * rate / peak / f64::from(parts));
                }
            }
            println!("{line}");
        }
    }
}
