//! The CPU's kernels: the shared object inside a plan, loaded from memory, its symbols resolved.
#![allow(unsafe_code, reason = "loading code and calling it through its symbols")]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use plan::{Header, KERNEL_ABI, Kernel};
use runtime_core::{Call, Kernels};

use crate::missing_features;

type Entry = unsafe extern "C" fn(args: *const *mut u8, scalars: *const i64, part: u32, parts: u32);

pub struct CpuKernels {
    entries: Vec<Entry>,
    /// Before the file: the loader knows libraries by path, and the path is only ours while the file is open.
    _library: Option<Library>,
    _file: Option<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the plan was compiled for {0}, and this program runs plans for cpu")]
    Target(String),
    #[error("the plan's kernels follow calling convention {0}, and this program knows convention {KERNEL_ABI}")]
    Abi(u32),
    #[error("the plan was compiled for {cpu}; this machine lacks {}", .missing.join(", "))]
    Features { cpu: String, missing: Vec<String> },
    #[error("the plan has kernels and no object that holds them")]
    NoObject,
    #[error("the plan's object could not be put where the loader finds it: {0}")]
    File(#[from] std::io::Error),
    #[error("the plan's object does not load: {0}")]
    Load(String),
    #[error("the plan's object lacks the kernels {}", .0.join(", "))]
    Symbols(Vec<String>),
}

impl CpuKernels {
    /// Loads the object, after checking that this machine can run it.
    pub fn load(header: &Header, kernels: &[Kernel], object: &[u8]) -> Result<Self, LoadError> {
        let _span = tracing::info_span!("load kernels", count = kernels.len()).entered();
        if header.target != "cpu" {
            return Err(LoadError::Target(header.target.to_string()));
        }
        if header.kernel_abi != KERNEL_ABI {
            return Err(LoadError::Abi(header.kernel_abi));
        }
        let missing = missing_features(header.features.iter().map(|f| f.as_str()));
        if !missing.is_empty() {
            let missing = missing.into_iter().map(String::from).collect();
            return Err(LoadError::Features { cpu: header.device.to_string(), missing });
        }
        if kernels.is_empty() {
            return Ok(Self { entries: Vec::new(), _library: None, _file: None });
        }
        if object.is_empty() {
            return Err(LoadError::NoObject);
        }
        let mut file = memory_file()?;
        file.write_all(object)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: the object was checked against its checksum, has no imports and no initialisers: it comes from our own
        // compiler. Whoever runs a plan trusts it as one trusts a program.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|e| LoadError::Load(e.to_string()))?;
        let (mut entries, mut absent) = (Vec::with_capacity(kernels.len()), Vec::new());
        for kernel in kernels {
            // SAFETY: the symbol has this type by the calling convention whose version was checked above. It is called
            // only while `self` keeps the library open.
            match unsafe { library.get::<Entry>(kernel.symbol.as_bytes()) } {
                Ok(symbol) => entries.push(*symbol),
                Err(_) => absent.push(kernel.symbol.to_string()),
            }
        }
        if !absent.is_empty() {
            return Err(LoadError::Symbols(absent));
        }
        Ok(Self { entries, _library: Some(library), _file: Some(file) })
    }
}

impl Kernels for CpuKernels {
    unsafe fn launch(&self, call: &Call<'_>, part: u32, parts: u32) {
        // SAFETY: the caller vouches for the arguments; their number was checked against the kernel's declaration.
        unsafe { self.entries[call.kernel.index()](call.args.as_ptr(), call.scalars.as_ptr(), part, parts) }
    }
}

/// A file without a name, in memory.
fn memory_file() -> std::io::Result<File> {
    // SAFETY: the name is a C string, and the descriptor, if there is one, belongs to nobody else.
    unsafe {
        match libc::memfd_create(c"kernels".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => Err(std::io::Error::last_os_error()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}
