//! The learning rate of a step, after transformers' get_constant_schedule_with_warmup and
//! get_cosine_schedule_with_warmup (half a cosine, whose end value holds after `total`), and Adam's bias corrections.

use std::f64::consts::PI;

use ir::ops::{Compare, Comparison, Cos, Expm1, Min, Select};
use ir::{Builder, NodeId};
use types::DType;

use super::{Optimizer, Schedule};

impl Optimizer {
    /// `t` is the number of finished steps.
    pub(super) fn rate(&self, b: &mut Builder, t: NodeId) -> NodeId {
        let lr = b.constant(self.lr, DType::F32);
        match self.schedule {
            Schedule::Constant if self.warmup == 0 => lr,
            Schedule::Constant => {
                let warmup = b.constant(self.warmup as f64, DType::F32);
                let rising = b.div(t, warmup);
                let one = b.constant(1.0, DType::F32);
                let factor = b.op(Min {}, &[rising, one]);
                b.mul(lr, factor)
            }
            Schedule::Cosine => {
                // 1/2 (1 + cos(pi min(t - warmup, total - warmup) / (total - warmup)))
                let since = b.offset(t, -(self.warmup as f64));
                let falls = (self.total - self.warmup) as f64;
                let whole = b.constant(falls, DType::F32);
                let until = b.op(Min {}, &[since, whole]);
                let angle = b.scale(until, PI / falls);
                let cos = b.op(Cos {}, &[angle]);
                let shifted = b.offset(cos, 1.0);
                let mut factor = b.scale(shifted, 0.5);
                if self.warmup > 0 {
                    let warmup = b.constant(self.warmup as f64, DType::F32);
                    let rising = b.div(t, warmup);
                    let early = b.op(Compare { kind: Comparison::Less }, &[t, warmup]);
                    factor = b.op(Select {}, &[early, rising, factor]);
                }
                b.mul(lr, factor)
            }
        }
    }
}

/// 1 - beta^(t + 1) as -expm1((t + 1) ln(beta)), which loses no digits where beta^t is near 1.
pub fn bias_correction(b: &mut Builder, t: NodeId, beta: f64) -> NodeId {
    let count = b.offset(t, 1.0);
    let exponent = b.scale(count, beta.ln());
    let power = b.op(Expm1 {}, &[exponent]);
    b.neg(power)
}
