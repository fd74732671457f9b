//! The kernels of the sample plan, its feeds, and what its steps should give.
#![allow(dead_code, reason = "each test file uses a part of it")]

use plan::{BufferId, EmitId, FeedId, KernelId, Plan, Verified};
use runtime_core::{Argument, ExecError, Executor, FeedError, FeedSource, Feeder, Interpreted, Kernels, Options};

pub fn floats(arg: &Argument<'_>) -> Vec<f32> {
    bytemuck::cast_slice(arg.bytes()).to_vec()
}

fn store(arg: &mut Argument<'_>, values: &[f32]) {
    arg.bytes_mut().expect("a written argument").copy_from_slice(bytemuck::cast_slice(values));
}

pub fn kernel(kernel: KernelId, args: &mut [Argument<'_>], scalars: &[i64]) {
    match (kernel.0, args) {
        (0, [x, w, p]) => {
            assert_eq!(scalars, [3]);
            store(p, &predict(&floats(x), &floats(w)));
        }
        (1, [p, y, loss, dp]) => {
            let (l, d) = loss_of(&floats(p), &floats(y));
            store(loss, &[l]);
            store(dp, &d);
        }
        (2, [dp, x, dw]) => {
            let dw_value = grad(&floats(dp), &floats(x));
            store(dw, &dw_value);
        }
        (3, [dw, step, m, w]) => {
            let step: i64 = bytemuck::pod_read_unaligned(step.bytes());
            let (m_value, w_value) = momentum(&floats(dw), step, &floats(m), &floats(w));
            store(m, &m_value);
            store(w, &w_value);
        }
        (4, [step]) => {
            let next: i64 = bytemuck::pod_read_unaligned::<i64>(step.bytes()) + 1;
            step.bytes_mut().expect("written").copy_from_slice(&next.to_le_bytes());
        }
        (other, _) => panic!("no kernel {other}"),
    }
}

fn predict(x: &[f32], w: &[f32]) -> Vec<f32> {
    (0..8).map(|i| (0..3).map(|k| x[i / 2 * 3 + k] * w[i % 2 * 3 + k]).sum()).collect()
}

fn loss_of(p: &[f32], y: &[f32]) -> (f32, Vec<f32>) {
    let d: Vec<f32> = p.iter().zip(y).map(|(p, y)| p - y).collect();
    (d.iter().map(|d| d * d).sum::<f32>() / 8.0, d.iter().map(|d| d / 4.0).collect())
}

fn grad(dp: &[f32], x: &[f32]) -> Vec<f32> {
    (0..6).map(|i| (0..4).map(|b| dp[b * 2 + i / 3] * x[b * 3 + i % 3]).sum()).collect()
}

fn momentum(dw: &[f32], step: i64, m: &[f32], w: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let rate = 0.1 / (1.0 + step as f32);
    let m: Vec<f32> = m.iter().zip(dw).map(|(m, d)| 0.9 * m + d).collect();
    let w = w.iter().zip(&m).map(|(w, m)| w - rate * m).collect();
    (m, w)
}

/// Feeds that depend on the step alone.
#[derive(Clone, Default)]
pub struct Ramp {
    pub fail_at: Option<u64>,
}

pub fn values(feed: FeedId, step: u64, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + step as f32 * 0.7 + feed.0 as f32) * 1.3).sin()).collect()
}

impl FeedSource for Ramp {
    fn fill(&mut self, feed: FeedId, step: u64, to: &mut [u8]) -> Result<(), FeedError> {
        if self.fail_at == Some(step) {
            return Err("record `000017` has no tensor `x`".into());
        }
        let count = to.len() / 4;
        for (i, to) in to.chunks_exact_mut(4).enumerate() {
            let value = ((i as f32 + step as f32 * 0.7 + feed.0 as f32) * 1.3).sin();
            to.copy_from_slice(&value.to_le_bytes());
        }
        debug_assert!(count > 0);
        Ok(())
    }
}

pub const START: [f32; 6] = [0.5, -0.25, 0.125, 1.0, 0.75, -1.0];

pub fn executor(plan: Plan, options: &Options) -> Result<Executor, ExecError> {
    let kernels = Interpreted::new(&plan, kernel);
    executor_with(plan, kernels, options)
}

pub fn executor_with(plan: Plan, kernels: impl Kernels, options: &Options) -> Result<Executor, ExecError> {
    let plan = Verified::new(plan).expect("a plan that is right");
    let mut executor = Executor::new(&plan, kernels, None, options)?;
    executor.write(BufferId(0)).expect("memory").expect("w").copy_from_slice(bytemuck::cast_slice(&START));
    let emits = plan.plan().programs.iter().map(|p| p.emits.len() as u32).enumerate();
    for (program, emit) in emits.flat_map(|(program, count)| (0..count).map(move |emit| (program, emit))) {
        executor.request(program, EmitId(emit), true);
    }
    Ok(executor)
}

/// Bits of each step's loss and gradient, and of the parameters at the end.
pub fn train(executor: &mut Executor, steps: u64) -> Result<Vec<u32>, ExecError> {
    let mut feeder = Feeder::new(executor, 0, Ramp::default(), 0, Some(steps))?;
    let mut bits = Vec::new();
    for _ in 0..steps {
        executor.run(0, &mut feeder)?;
        bits.extend_from_slice(bytemuck::cast_slice(&executor.emitted(0, EmitId(0))));
        bits.extend_from_slice(bytemuck::cast_slice(&executor.emitted(0, EmitId(1))));
    }
    bits.extend_from_slice(bytemuck::cast_slice(executor.read(BufferId(0)).expect("memory").expect("w")));
    Ok(bits)
}

/// The same, computed without an executor.
pub fn expected(steps: u64) -> Vec<u32> {
    let (mut w, mut m) = (START.to_vec(), vec![0.0; 6]);
    let mut bits = Vec::new();
    for step in 0..steps {
        let (x, y) = (values(FeedId(0), step, 12), values(FeedId(1), step, 8));
        let (loss, dp) = loss_of(&predict(&x, &w), &y);
        let dw = grad(&dp, &x);
        bits.push(loss.to_bits());
        bits.extend(dw.iter().map(|v| v.to_bits()));
        (m, w) = momentum(&dw, step as i64, &m, &w);
    }
    bits.extend(w.iter().map(|v| v.to_bits()));
    bits
}
