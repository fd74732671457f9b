//! The sample plan's kernels, to be compiled into a shared object by the tests.

use std::slice::{from_raw_parts, from_raw_parts_mut};

type Args = *const *mut u8;

/// Elements of `w` that one rank has.
const OWN: usize = if cfg!(grid) { 3 } else { 6 };

unsafe fn read<'a>(args: Args, i: usize, count: usize) -> &'a [f32] {
    unsafe { from_raw_parts((*args.add(i)).cast(), count) }
}

unsafe fn write<'a>(args: Args, i: usize, count: usize) -> &'a mut [f32] {
    unsafe { from_raw_parts_mut((*args.add(i)).cast(), count) }
}

/// p[b, o] = sum over i of x[b, i] w[o, i], split by elements of p.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn predict(args: Args, scalars: *const i64, part: u32, parts: u32) {
    unsafe {
        let inner = *scalars as usize;
        let (x, w) = (read(args, 0, 4 * inner), read(args, 1, 2 * inner));
        let p: *mut f32 = (*args.add(2)).cast();
        for i in 8 * part as usize / parts as usize..8 * (part as usize + 1) / parts as usize {
            *p.add(i) = (0..inner).map(|k| x[i / 2 * inner + k] * w[i % 2 * inner + k]).sum();
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn loss(args: Args, _: *const i64, _: u32, _: u32) {
    unsafe {
        let (p, y, dp) = (read(args, 0, 8), read(args, 1, 8), write(args, 3, 8));
        let mut sum = 0.0;
        for i in 0..8 {
            let d = p[i] - y[i];
            sum += d * d;
            dp[i] = d / 4.0;
        }
        write(args, 2, 1)[0] = sum / 8.0;
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn grad(args: Args, _: *const i64, part: u32, parts: u32) {
    unsafe {
        let (dp, x) = (read(args, 0, 8), read(args, 1, 12));
        let dw: *mut f32 = (*args.add(2)).cast();
        for i in 6 * part as usize / parts as usize..6 * (part as usize + 1) / parts as usize {
            *dw.add(i) = (0..4).map(|b| dp[b * 2 + i / 3] * x[b * 3 + i % 3]).sum();
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn momentum(args: Args, _: *const i64, _: u32, _: u32) {
    unsafe {
        let (dw, step) = (read(args, 0, OWN), *(*args.add(1)).cast::<i64>());
        let (m, w) = (write(args, 2, OWN), write(args, 3, OWN));
        for i in 0..OWN {
            m[i] = 0.9 * m[i] + dw[i];
            w[i] -= 0.1 / (1.0 + step as f32) * m[i];
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn count(args: Args, _: *const i64, _: u32, _: u32) {
    unsafe { *(*args).cast::<i64>() += 1 }
}
