//! Vector math against f64, over dense samples and special values.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;

use load::{Loaded, build, cpus, ptr};
use target_cpu::emit::{Elem, Emitter, Ty, Val};

type Write = fn(&mut Emitter, Val) -> Val;
type Exact = fn(f64) -> f64;

/// A kernel that maps `count` floats.
fn map_kernel(cpu: &target_cpu::cpu::Cpu, count: u64, write: Write) -> Loaded {
    build(cpu, |e| {
        e.kernel("map", |e, kernel| {
            let (from, to) = (kernel.pointer(e, 0), kernel.pointer(e, 1));
            let lanes = e.lanes();
            let total = e.i64(count as i64);
            e.for_count(count, u64::from(lanes), |e, i| {
                let left = e.sub(total, i);
                let mask = e.lanes_below(left);
                let (a, b) = (e.at(from, Elem::F32, i), e.at(to, Elem::F32, i));
                let x = e.load_wide(a, Elem::F32, lanes, Some(mask));
                let y = write(e, x);
                e.store_narrow(y, b, Elem::F32, Some(mask));
            });
        });
    })
}

fn ulp(x: f64) -> f64 {
    let x = (x.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
}

fn samples(low: f32, high: f32) -> Vec<f32> {
    let count = 200_003;
    let mut all: Vec<f32> =
        (0..count).map(|i| low + (f64::from(high - low) * f64::from(i) / f64::from(count)) as f32).collect();
    // Every exponent too.
    for exponent in -140..38 {
        for step in 0..64 {
            let x = ((1.0 + f64::from(step) / 64.0) * 2f64.powi(exponent)) as f32;
            all.extend([x, -x].into_iter().filter(|x| *x >= low && *x <= high));
        }
    }
    all
}

fn worst(name: &str, write: Write, exact: Exact, low: f32, high: f32, limit: f64) {
    let mut bits: Option<Vec<u32>> = None;
    for cpu in cpus() {
        let xs = samples(low, high);
        let kernel = map_kernel(&cpu, xs.len() as u64, write);
        let ys = vec![0f32; xs.len()];
        kernel.call("map", &[ptr(&xs), ptr(&ys)], 1);
        let mut worst = (0.0, 0.0, 0.0);
        for (&x, &y) in xs.iter().zip(&ys) {
            let want = exact(f64::from(x));
            let error = (f64::from(y) - want).abs() / ulp(want);
            if error > worst.0 || error.is_nan() {
                worst = (error, x, y);
            }
        }
        println!("{name} [{low}, {high}] {}: {:.2} ulp at {}", cpu.name, worst.0, worst.1);
        assert!(worst.0 <= limit, "{name}({}) = {}: {} ulp on {}", worst.1, worst.2, worst.0, cpu.name);
        let these: Vec<u32> = ys.iter().map(|y| y.to_bits()).collect();
        assert_eq!(*bits.get_or_insert_with(|| these.clone()), these, "{name}: bits depend on the CPU");
    }
}

fn erf_exact(x: f64) -> f64 {
    // Its series, or 1 minus the continued fraction of erfc.
    let t = x.abs();
    if t < 3.0 {
        let (mut term, mut sum) = (t, t);
        for n in 1..200 {
            let n = f64::from(n);
            term *= -t * t / n;
            sum += term / (2.0 * n + 1.0);
        }
        return (sum * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    let mut fraction = 0.0;
    for k in (1..120).rev() {
        fraction = f64::from(k) / 2.0 / (t + fraction);
    }
    (1.0 - (-t * t).exp() / (t + fraction) / std::f64::consts::PI.sqrt()).copysign(x)
}

#[test]
fn errors() {
    worst("exp", Emitter::exp, f64::exp, -87.0, 88.7, 1.5);
    worst("exp", Emitter::exp, f64::exp, -104.0, -87.0, 2.0);
    worst("exp2_fast", |e: &mut Emitter, x| e.exp2_fast(&[x])[0], f64::exp2, -125.5, 127.0, 3.0);
    worst("log", Emitter::log, f64::ln, 1e-44, 3e38, 1.5);
    worst("log", Emitter::log, f64::ln, 1e-44, 4.0, 1.5);
    worst("tanh", Emitter::tanh, f64::tanh, -12.0, 12.0, 2.5);
    worst("sigmoid", Emitter::sigmoid, |x| 1.0 / (1.0 + (-x).exp()), -80.0, 80.0, 3.0);
    worst("erf", Emitter::erf, erf_exact, -5.0, 5.0, 2.0);
    worst("sin", Emitter::sin, f64::sin, -10_000.0, 10_000.0, 2.0);
    worst("cos", Emitter::cos, f64::cos, -10_000.0, 10_000.0, 2.0);
    worst("sin", Emitter::sin, f64::sin, -7.0, 7.0, 2.0);
    worst("cos", Emitter::cos, f64::cos, -7.0, 7.0, 2.0);
    worst("rsqrt", Emitter::rsqrt, |x| 1.0 / x.sqrt(), 1e-38, 1e38, 1.5);
    worst("expm1", Emitter::expm1, f64::exp_m1, -30.0, 80.0, 8.0);
}

/// Where softmax sees nothing the weight is 0, and NaN stays.
#[test]
fn fast_powers_of_little() {
    for cpu in cpus() {
        let xs: Vec<f32> = vec![f32::NEG_INFINITY, -1e30, -200.0, -127.0, f32::NAN, 0.0, -126.5, -126.6];
        let kernel = map_kernel(&cpu, xs.len() as u64, |e: &mut Emitter, x| e.exp2_fast(&[x])[0]);
        let ys = vec![1f32; xs.len()];
        kernel.call("map", &[ptr(&xs), ptr(&ys)], 1);
        assert_eq!(ys[..4], [0.0; 4], "on {}", cpu.name);
        assert!(ys[4].is_nan() && ys[5] == 1.0 && ys[6..].iter().all(|y| (0.0..2e-38).contains(y)), "{ys:?}");
    }
}

#[test]
fn special_values() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let check = |name: &str, write: Write, cases: &[(f32, f32)]| {
        for cpu in cpus() {
            let xs: Vec<f32> = cases.iter().map(|case| case.0).collect();
            let ys = vec![7f32; xs.len()];
            let kernel = map_kernel(&cpu, xs.len() as u64, write);
            kernel.call("map", &[ptr(&xs), ptr(&ys)], 1);
            for (&(x, want), &got) in cases.iter().zip(&ys) {
                assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{name}({x}) = {got}");
            }
        }
    };
    check(
        "exp",
        Emitter::exp,
        &[(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (-1e30, 0.0), (89.5, inf)],
    );
    check(
        "log",
        Emitter::log,
        &[(0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf), (-1.0, nan), (-inf, nan), (nan, nan)],
    );
    check("tanh", Emitter::tanh, &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (50.0, 1.0)]);
    check("sigmoid", Emitter::sigmoid, &[(0.0, 0.5), (inf, 1.0), (-inf, 0.0), (nan, nan), (-200.0, 0.0)]);
    check("erf", Emitter::erf, &[(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan)]);
    check("sin", Emitter::sin, &[(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)]);
    check("cos", Emitter::cos, &[(0.0, 1.0), (inf, nan), (nan, nan)]);
    check("rsqrt", Emitter::rsqrt, &[(0.0, inf), (4.0, 0.5), (inf, 0.0), (-1.0, nan), (nan, nan)]);
}

#[test]
fn bf16_rounds_to_nearest_even() {
    for cpu in cpus() {
        let xs: Vec<f32> = (0..1_000_000u32).map(|i| f32::from_bits(i.wrapping_mul(4297))).collect();
        let kernel = map_kernel(&cpu, xs.len() as u64, |e, x| e.round_through(x, Elem::Bf16));
        let ys = vec![0f32; xs.len()];
        kernel.call("map", &[ptr(&xs), ptr(&ys)], 1);
        for (&x, &y) in xs.iter().zip(&ys) {
            let want = half::bf16::from_f32(x).to_f32();
            assert!(y.to_bits() == want.to_bits() || (y.is_nan() && want.is_nan()), "{x:e}: {y:e}, not {want:e}");
        }
    }
}

#[test]
fn transposes() {
    for cpu in cpus() {
        let kernel = build(&cpu, |e| {
            e.kernel("transpose", |e, kernel| {
                let (from, to) = (kernel.pointer(e, 0), kernel.pointer(e, 1));
                let lanes = e.lanes();
                let ty = Ty::vector(Elem::F32, lanes);
                let mut rows = Vec::new();
                for row in 0..lanes {
                    let index = e.i64(i64::from(row * lanes));
                    let at = e.at(from, Elem::F32, index);
                    rows.push(e.load(at, ty));
                }
                for (row, value) in e.transpose(rows).into_iter().enumerate() {
                    let index = e.i64(row as i64 * i64::from(lanes));
                    let at = e.at(to, Elem::F32, index);
                    e.store(value, at);
                }
            });
        });
        let n = cpu.lanes as usize;
        let xs: Vec<f32> = (0..n * n).map(|i| i as f32).collect();
        let ys = vec![0f32; n * n];
        kernel.call("transpose", &[ptr(&xs), ptr(&ys)], 1);
        for i in 0..n * n {
            assert_eq!(ys[i], xs[i % n * n + i / n]);
        }
    }
}
