//! What `mmrun --outputs` wrote, and how near two runs are to each other.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{SafeTensors, TensorView};

/// Tensors in f32 by name.
pub type Tensors = BTreeMap<String, Vec<f64>>;

pub fn read(path: &Path) -> Result<Tensors, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    let values = |view: TensorView<'_>| -> Vec<f64> {
        view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    };
    Ok(tensors.tensors().into_iter().map(|(name, view)| (name, values(view))).collect())
}

/// Compares the norms of differences with the norms of `one`, by the beginnings of names, of which each must be there.
/// Tensors whose norm is below 1e-6 of the median are exempt.
pub fn near(one: &Tensors, many: &Tensors, tolerances: &[(&str, f64)]) -> Result<(), String> {
    let names = |t: &Tensors| t.keys().cloned().collect::<Vec<_>>();
    if names(one) != names(many) {
        return Err(format!("one gives {:?}, the other {:?}", names(one), names(many)));
    }
    for &(kind, tolerance) in tolerances {
        let of_kind = || one.iter().filter(|(name, _)| name.starts_with(kind));
        let mut norms: Vec<f64> = of_kind().map(|(_, x)| norm(x)).collect();
        norms.sort_by(f64::total_cmp);
        let Some(&median) = norms.get(norms.len() / 2) else { return Err(format!("no {kind} came out")) };
        for (name, x) in of_kind().filter(|(_, x)| norm(x) > 1e-6 * median) {
            let relative = distance(x, &many[name]);
            if relative.is_nan() || relative > tolerance {
                return Err(format!("{name} is {relative:.1e} apart, more than {tolerance:.0e}"));
            }
        }
    }
    Ok(())
}

/// The norm of the difference over that of `x`; NaN if one has more elements.
pub fn distance(x: &[f64], y: &[f64]) -> f64 {
    if x.len() != y.len() {
        return f64::NAN;
    }
    let apart: Vec<f64> = x.iter().zip(y).map(|(a, b)| a - b).collect();
    norm(&apart) / norm(x)
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}
