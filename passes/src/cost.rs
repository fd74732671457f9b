//! What things cost against each other, as long as passes know no machine: everything is counted in FLOPs.

/// FLOPs that a rank does while it exchanges a byte: 300 TFLOP/s (an accelerator's bf16) over 75 GB/s.
const WORK_PER_BYTE: u64 = 4000;

/// The work that hides an exchange of so many bytes.
pub const fn exchange(bytes: u64) -> u64 {
    bytes.saturating_mul(WORK_PER_BYTE)
}
