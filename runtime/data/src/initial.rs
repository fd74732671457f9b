//! Initial values: parameters and state as the plan's initialisers draw them.

use types::{Init, TensorType};

use crate::convert::narrow;

/// Writes the initial values of a tensor called `name` to `out`, in its type.
pub fn initialise(init: &Init, seed: u64, name: &str, ty: &TensorType, out: &mut [u8]) {
    // A multiple of four keeps the generator's blocks whole.
    const CHUNK: usize = 4096;
    let mut values = [0f32; CHUNK];
    let size = ty.dtype.bytes();
    let total = ty.elements().min(out.len() / size);
    for first in (0..total).step_by(CHUNK) {
        let count = CHUNK.min(total - first);
        init.fill(seed, name, first as u64, &mut values[..count]);
        narrow(&values[..count], ty.dtype, &mut out[first * size..(first + count) * size]);
    }
}
