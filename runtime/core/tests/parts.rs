//! Kernels that are split: every part runs once, in the arena itself, on any number of threads.
#![allow(unsafe_code, reason = "a provider that splits works on raw pointers")]

mod line;

use plan::sample;
use runtime_core::{Call, Kernels, Options};

/// The sample's kernels, with `predict` and `grad` split by rows of their results.
struct Split;

impl Kernels for Split {
    unsafe fn launch(&self, call: &Call<'_>, part: u32, parts: u32) {
        let floats = |i: usize| {
            // SAFETY: the arguments are valid for their lengths, and nothing writes what the kernel reads.
            unsafe { std::slice::from_raw_parts(call.args[i].cast::<f32>(), call.bytes[i] as usize / 4) }
        };
        let put = |i: usize, at: usize, value: f32| {
            assert!(at < call.bytes[i] as usize / 4);
            // SAFETY: inside the argument; each part writes elements of its own.
            unsafe { call.args[i].cast::<f32>().add(at).write(value) }
        };
        let mine =
            |count: usize| (count * part as usize / parts as usize)..(count * (part as usize + 1) / parts as usize);
        match call.kernel.0 {
            0 => mine(8).for_each(|i| {
                put(2, i, (0..3).map(|k| floats(0)[i / 2 * 3 + k] * floats(1)[i % 2 * 3 + k]).sum());
            }),
            1 => {
                let d: Vec<f32> = floats(0).iter().zip(floats(1)).map(|(p, y)| p - y).collect();
                put(2, 0, d.iter().map(|d| d * d).sum::<f32>() / 8.0);
                d.iter().enumerate().for_each(|(i, d)| put(3, i, d / 4.0));
            }
            2 => mine(6).for_each(|i| {
                put(2, i, (0..4).map(|b| floats(0)[b * 2 + i / 3] * floats(1)[b * 3 + i % 3]).sum());
            }),
            3 => {
                // SAFETY: an i64 on an aligned address of the arena.
                let step = unsafe { call.args[1].cast::<i64>().read() };
                for i in 0..6 {
                    let m = 0.9 * floats(2)[i] + floats(0)[i];
                    let w = floats(3)[i] - 0.1 / (1.0 + step as f32) * m;
                    put(2, i, m);
                    put(3, i, w);
                }
            }
            // SAFETY: as above.
            _ => unsafe { *call.args[0].cast::<i64>() += 1 },
        }
    }
}

#[test]
fn threads_change_no_bits() {
    for threads in [1, 2, 3, 7] {
        let options = Options { threads, ..Options::default() };
        let mut executor = line::executor_with(sample::two_lanes(), Split, &options).expect("an executor");
        assert_eq!(line::train(&mut executor, 200).expect("200 steps"), line::expected(200), "{threads} threads");
    }
}
