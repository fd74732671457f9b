//! Kernel providers: what turns a launch into work.
#![allow(unsafe_code, reason = "kernels get raw pointers into the arena")]

use std::borrow::Cow;
use std::sync::Arc;

use plan::{Access, KernelId, Plan};
use smallvec::SmallVec;

/// One launch.
pub struct Call<'a> {
    pub kernel: KernelId,
    pub args: &'a [*mut u8],
    /// Length of each argument.
    pub bytes: &'a [u64],
    pub scalars: &'a [i64],
}

pub trait Kernels: Send + Sync + 'static {
    /// Runs one part of a launch.
    ///
    /// # Safety
    /// Each argument is valid for its length, and while any part runs, nothing outside the launch writes an argument or
    /// touches one that the kernel declares as written. `part < parts <= Kernel::max_parts`.
    unsafe fn launch(&self, call: &Call<'_>, part: u32, parts: u32);

    /// Whether launches may be split into parts.
    fn splits(&self) -> bool {
        true
    }
}

/// Ranks of one process can share a provider.
impl<K: Kernels> Kernels for Arc<K> {
    unsafe fn launch(&self, call: &Call<'_>, part: u32, parts: u32) {
        // SAFETY: the contract is the same.
        unsafe { (**self).launch(call, part, parts) }
    }

    fn splits(&self) -> bool {
        (**self).splits()
    }
}

/// An argument of an interpreted kernel.
pub enum Argument<'a> {
    Read(Cow<'a, [u8]>),
    /// Written, or read and written.
    Write(&'a mut [u8]),
}

impl Argument<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Argument::Read(bytes) => bytes,
            Argument::Write(bytes) => bytes,
        }
    }

    /// None for an argument that is only read.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Argument::Read(_) => None,
            Argument::Write(bytes) => Some(bytes),
        }
    }
}

/// A provider made of a function, for tests and references: it gets slices and needs no unsafe code.
pub struct Interpreted<F> {
    accesses: Vec<Vec<Access>>,
    run: F,
}

impl<F: Fn(KernelId, &mut [Argument<'_>], &[i64]) + Send + Sync + 'static> Interpreted<F> {
    pub fn new(plan: &Plan, run: F) -> Self {
        Self { accesses: plan.kernels.iter().map(|k| k.args.clone()).collect(), run }
    }
}

impl<F: Fn(KernelId, &mut [Argument<'_>], &[i64]) + Send + Sync + 'static> Kernels for Interpreted<F> {
    unsafe fn launch(&self, call: &Call<'_>, _part: u32, _parts: u32) {
        let accesses = &self.accesses[call.kernel.index()];
        let mut args: SmallVec<[Argument<'_>; 16]> = SmallVec::new();
        let written = |pointer: *mut u8| call.args.iter().zip(accesses).any(|(&p, a)| p == pointer && a.writes());
        for ((&pointer, &bytes), access) in call.args.iter().zip(call.bytes).zip(accesses) {
            // SAFETY: valid for the length and free of other writers or users, by the contract of `launch`; the plan
            // verifier refuses launches whose written arguments overlap others; and there is one part.
            args.push(match access {
                Access::Read => {
                    let slice = unsafe { std::slice::from_raw_parts(pointer, bytes as usize) };
                    // An update in place reads what it writes: it gets a copy of the old bytes.
                    Argument::Read(if written(pointer) { Cow::Owned(slice.to_vec()) } else { Cow::Borrowed(slice) })
                }
                _ => Argument::Write(unsafe { std::slice::from_raw_parts_mut(pointer, bytes as usize) }),
            });
        }
        (self.run)(call.kernel, &mut args, call.scalars);
    }

    fn splits(&self) -> bool {
        false
    }
}
