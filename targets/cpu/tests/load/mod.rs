//! Compiles emitted kernels, loads the shared object and calls them.
#![allow(dead_code, reason = "each test file uses a part")]
#![expect(unsafe_code, reason = "calls machine code by symbol")]

use std::path::Path;

use target_cpu::cpu::Cpu;
use target_cpu::emit::{Emitter, Module};
use target_cpu::{codegen, link};

type Raw = unsafe extern "C" fn(*const *mut u8, *const i64, u32, u32);

pub struct Loaded {
    library: libloading::Library,
    _folder: tempfile::TempDir,
}

/// The CPUs to test here: the narrow one, and the widest, with this machine's instructions where it lacks those of the wide.
pub fn cpus() -> Vec<Cpu> {
    let wide = [Cpu::parse("x86-64-v4-bf16").unwrap(), Cpu::parse("x86-64-v4").unwrap(), Cpu::wide_on_v3()];
    let wide = wide.into_iter().find(Cpu::runs_here).unwrap();
    vec![Cpu::parse("x86-64-v3").unwrap(), wide]
}

pub fn build(cpu: &Cpu, write: impl FnOnce(&mut Emitter)) -> Loaded {
    let mut emitter = Emitter::new(cpu);
    write(&mut emitter);
    load(cpu, &[emitter.finish("test")])
}

pub fn load(cpu: &Cpu, modules: &[Module]) -> Loaded {
    let objects = codegen::compile(modules, cpu, 2, None).unwrap_or_else(|error| {
        if let Ok(path) = std::env::var("DUMP_MLIR") {
            let text: String = modules.iter().map(|module| module.text.clone()).collect();
            std::fs::write(path, text).unwrap();
        }
        panic!("{error}")
    });
    let bytes = link::link(&objects, Path::new("ld.lld-22")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernels.so");
    std::fs::write(&path, bytes).unwrap();
    // SAFETY: the object was just made, and has no initialisers.
    let library = unsafe { libloading::Library::new(&path) }.unwrap();
    Loaded { library, _folder: folder }
}

impl Loaded {
    /// Calls the kernel once for each part, one after another.
    pub fn call(&self, name: &str, args: &[*mut u8], parts: u32) {
        for part in 0..parts {
            self.call_part(name, args, part, parts);
        }
    }

    pub fn call_part(&self, name: &str, args: &[*mut u8], part: u32, parts: u32) {
        // SAFETY: the kernel ABI; the caller passes buffers of the sizes the kernel was emitted for.
        unsafe {
            let kernel: libloading::Symbol<'_, Raw> = self.library.get(name.as_bytes()).unwrap();
            kernel(args.as_ptr(), [0i64; 4].as_ptr(), part, parts);
        }
    }

    /// Calls every part on its own thread.
    pub fn call_threads(&self, name: &str, args: &[*mut u8], parts: u32) {
        let addresses: Vec<usize> = args.iter().map(|&pointer| pointer as usize).collect();
        std::thread::scope(|scope| {
            for part in 0..parts {
                let addresses = addresses.clone();
                scope.spawn(move || {
                    let args: Vec<*mut u8> = addresses.iter().map(|&address| address as *mut u8).collect();
                    self.call_part(name, &args, part, parts);
                });
            }
        });
    }
}

/// The address of a buffer, for an argument list.
pub fn ptr<T>(buffer: &[T]) -> *mut u8 {
    buffer.as_ptr() as *mut u8
}

/// Reproducible numbers in [-1, 1).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}
