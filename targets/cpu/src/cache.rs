//! Object files kept from one compilation to the next, found by what they are made of.

use crate::codegen::PIPELINE;
use crate::cpu::Cpu;
use crate::emit::Module;

/// Where object files are kept. A target reads no folders: who calls it says where and how.
pub trait Cache: Send + Sync {
    /// The object that was kept under `key`, as it was given; `None` if there is none, or if what is there is not whole.
    fn read(&self, key: &str) -> Option<Vec<u8>>;

    fn write(&self, key: &str, object: &[u8]) -> std::io::Result<()>;
}

/// Names all that an object depends on: the kernel's code, the processor, the way from one to the other, and LLVM.
pub fn key(module: &Module, cpu: &Cpu) -> String {
    let (major, minor, patch) = inkwell::support::get_llvm_version();
    let llvm = format!("{major}.{minor}.{patch}");
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    [PIPELINE, &llvm, &cpu.name, &cpu.features, &cpu.lanes.to_string(), &module.text].into_iter().for_each(&mut add);
    module.public.iter().for_each(|name| add(name));
    hasher.finalize().to_hex().to_string()
}
