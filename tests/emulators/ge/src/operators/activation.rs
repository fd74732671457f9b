//! Smooth functions and their slopes, and the gated unit.

use crate::Tensor;

/// The slope of a smooth function, by a fourth-order difference.
pub fn slope(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    let h = 1e-3;
    (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h)
}

/// The integral of its density, by Simpson's rule.
pub fn erf(x: f64) -> f64 {
    let n = 200;
    let h = x / f64::from(n);
    let weight = |i: i32| {
        if i == 0 || i == n {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    let sum: f64 = (0..=n).map(|i| weight(i) * (-(f64::from(i) * h).powi(2)).exp()).sum();
    std::f64::consts::FRAC_2_SQRT_PI * h / 3.0 * sum
}

/// By the normal distribution, or by tanh in its place.
pub fn gelu(approximate: &[u8], x: f64) -> f64 {
    match approximate {
        b"none" => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        b"tanh" => 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x)).tanh()),
        other => panic!("GELU by {}", String::from_utf8_lossy(other)),
    }
}

pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub fn swiglu(x: &Tensor) -> Vec<Vec<f64>> {
    let rows = x.rows().flat_map(|row| {
        let (gate, up) = row.split_at(row.len() / 2);
        gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect::<Vec<_>>()
    });
    vec![rows.collect()]
}

pub fn swiglu_grad(dy: &Tensor, x: &Tensor) -> Vec<Vec<f64>> {
    let rows = x.rows().zip(dy.rows()).flat_map(|(row, dy)| {
        let (gate, up) = row.split_at(row.len() / 2);
        let dgate = (0..dy.len()).map(|i| dy[i] * up[i] * slope(silu, gate[i]));
        let dup = (0..dy.len()).map(|i| dy[i] * silu(gate[i]));
        dgate.chain(dup).collect::<Vec<_>>()
    });
    vec![rows.collect()]
}
