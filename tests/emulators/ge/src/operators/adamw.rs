//! ApplyAdamW.

use crate::Tensor;

/// Inputs var, m, v, beta1_power, beta2_power, lr, weight_decay, beta1, beta2, epsilon, grad.
pub fn adamw(a: &[&Tensor]) -> Vec<Vec<f64>> {
    let one = |i: usize| a[i].data[0];
    let (lr, decay, beta1, beta2, eps) = (one(5), one(6), one(7), one(8), one(9));
    let (power1, power2) = (one(3) * beta1, one(4) * beta2);
    let zip = |x: &[f64], f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        x.iter().zip(&a[10].data).map(|(&x, &g)| f(x, g)).collect()
    };
    let m = zip(&a[1].data, &|m, g| beta1 * m + (1.0 - beta1) * g);
    let v = zip(&a[2].data, &|v, g| beta2 * v + (1.0 - beta2) * g * g);
    let step = |i: usize| {
        let root = (v[i] / (1.0 - power2)).sqrt() + eps;
        a[0].data[i] - lr * decay * a[0].data[i] - lr / root * m[i] / (1.0 - power1)
    };
    vec![(0..m.len()).map(step).collect(), m.clone(), v.clone()]
}
