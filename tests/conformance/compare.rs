//! Distances between tensors by name, and what the design allows.

use std::collections::BTreeMap;
use std::path::Path;

use libtest_mimic::Failed;
use safetensors::{Dtype, SafeTensors};

pub struct Tensors(BTreeMap<String, (Vec<usize>, Vec<f64>)>);

impl Tensors {
    pub fn read(path: &Path) -> Result<Self, Failed> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let mut out = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format!("{name} is {:?}, expected F32", view.dtype()).into());
            }
            let words = view.data().chunks_exact(4);
            let data = words.map(|w| f64::from(f32::from_le_bytes([w[0], w[1], w[2], w[3]]))).collect();
            out.insert(name.to_owned(), (view.shape().to_vec(), data));
        }
        Ok(Self(out))
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(|(_, d)| d.first().copied())
    }
}

/// The norm of the difference over the norm.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    // A NaN anywhere must not pass for a small number.
    let d = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    if d.is_nan() { f64::INFINITY } else { d }
}

pub fn f32(found: &Tensors, expected: &Tensors) -> Result<(), Failed> {
    check(found, expected, |name| match name.split('/').next() {
        Some("grad") => 1e-4,
        // AdamW divides by the size of a gradient, so five steps amplify its noise.
        Some("param") => 1e-4,
        _ => 1e-5,
    })
}

pub fn bf16(found: &Tensors, expected: &Tensors) -> Result<(), Failed> {
    check(found, expected, |name| match name.split_once('/') {
        Some(("grad", parameter)) => (1.5 * expected.scalar(&format!("autocast/{parameter}")).unwrap_or(0.0)).max(1e-2),
        Some(_) => 2e-2,
        None if name == "loss" => 1e-3,
        None => 2e-2,
    })
}

fn check(found: &Tensors, expected: &Tensors, tolerance: impl Fn(&str) -> f64) -> Result<(), Failed> {
    let mut norms: Vec<f64> =
        expected.0.keys().filter(|n| n.starts_with("norm64/")).filter_map(|n| expected.scalar(n)).collect();
    norms.sort_by(f64::total_cmp);
    let median = norms.get(norms.len() / 2).copied().unwrap_or(0.0);
    let mut wrong = vec![];
    for (name, (shape, values)) in &expected.0 {
        if name.starts_with("norm64/") || name.starts_with("autocast/") {
            continue;
        }
        let Some((own_shape, own)) = found.0.get(name) else {
            wrong.push(format!("{name} is missing"));
            continue;
        };
        if own_shape != shape {
            wrong.push(format!("{name} has shape {own_shape:?}, expected {shape:?}"));
            continue;
        }
        let exempt = name.strip_prefix("grad/").and_then(|p| expected.scalar(&format!("norm64/{p}")));
        if exempt.is_some_and(|norm| norm < 1e-6 * median) {
            continue;
        }
        let (distance, allowed) = (distance(own, values), tolerance(name));
        if distance > allowed {
            wrong.push(format!("{name} is off by {distance:.2e}, allowed {allowed:.0e}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
