//! A kernel: one symbol of the object, and what it reads and writes.

use serde::{Deserialize, Serialize};
use types::Name;

/// Version of `extern "C" fn(args: *const *mut u8, scalars: *const i64, part: u32, parts: u32)`.
///
/// The runtime calls a kernel `parts` times, with `part` in `0..parts` and `1 <= parts <= Kernel::max_parts`, from any number
/// of threads at once and in any order. The bits of the results do not depend on `parts`.
pub const KERNEL_ABI: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    Read,
    /// All bytes of the slice are written, and none is read before it is written.
    Write,
    ReadWrite,
}

impl Access {
    pub const fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    pub const fn writes(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    pub symbol: Name,
    /// One entry for each pointer. Scratch memory is an ordinary argument, declared `Write`, in a buffer of kind `Workspace`.
    pub args: Vec<Access>,
    /// Pairs of arguments, one read and one written, that may be the very same slice: each element is read before it is
    /// written, by the same part.
    pub in_place: Vec<(u32, u32)>,
    /// Number of scalar arguments.
    pub scalars: u32,
    /// The most parts that one call may be split into; 1 for a kernel that runs on one thread.
    pub max_parts: u32,
    /// Floating-point operations of one call, all parts together.
    pub flops: u64,
    /// Those of them in products of matrices.
    pub products: u64,
    /// What one call does on single elements beside its products, in additions of the same time.
    pub elementwise: u64,
    /// Bytes moved to and from memory by one call.
    pub bytes: u64,
    /// Bytes of scratch among the arguments.
    pub workspace: u64,
}
