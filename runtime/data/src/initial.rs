//! Initial values: parameters and state as the plan's initialisers draw them.

use std::thread;

use types::Init;

use crate::Share;
use crate::convert::narrow;

/// Values that are drawn at a time: a multiple of four keeps the generator's blocks whole.
const CHUNK: usize = 4096;

/// Values for which another thread is worth its start.
const SHARE: usize = 32 * CHUNK;

/// Writes the initial values of a rank's share of the tensor called `name` to `out`, in its type. A value depends on
/// its place in the whole tensor alone, so that every mesh begins with the same numbers, drawn by however many threads.
pub fn initialise(init: &Init, seed: u64, name: &str, share: &Share, out: &mut [u8]) {
    let dtype = share.ty().dtype;
    let size = dtype.bytes();
    share.clear_padding(out);
    let draw = |first: usize, out: &mut [u8]| {
        let mut values = [0f32; CHUNK];
        for (i, out) in out.chunks_mut(CHUNK * size).enumerate() {
            let values = &mut values[..out.len() / size];
            init.fill(seed, name, (first + i * CHUNK) as u64, values);
            narrow(values, dtype, out);
            comm::worked();
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    for run in share.runs() {
        let out = &mut out[run.local * size..][..run.count * size];
        let each = run.count.div_ceil(cores).next_multiple_of(CHUNK).max(SHARE);
        if run.count <= each {
            draw(run.logical, out);
            continue;
        }
        thread::scope(|scope| {
            for (i, out) in out.chunks_mut(each * size).enumerate() {
                scope.spawn(move || draw(run.logical + i * each, out));
            }
        });
    }
}
