//! Initial values: parameters and state as the plan's initialisers draw them.

use types::Init;

use crate::Share;
use crate::convert::narrow;

/// Writes the initial values of a rank's share of the tensor called `name` to `out`, in its type. A value depends on
/// its place in the whole tensor alone, so that every mesh begins with the same numbers.
pub fn initialise(init: &Init, seed: u64, name: &str, share: &Share, out: &mut [u8]) {
    // A multiple of four keeps the generator's blocks whole.
    const CHUNK: usize = 4096;
    let mut values = [0f32; CHUNK];
    let dtype = share.ty().dtype;
    let size = dtype.bytes();
    share.clear_padding(out);
    for run in share.runs() {
        for at in (0..run.count).step_by(CHUNK) {
            let count = CHUNK.min(run.count - at);
            init.fill(seed, name, (run.logical + at) as u64, &mut values[..count]);
            narrow(&values[..count], dtype, &mut out[(run.local + at) * size..][..count * size]);
        }
    }
}
