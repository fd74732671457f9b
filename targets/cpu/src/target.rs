//! The CPU as a target: what passes ask it, and its code for a whole plan.

use std::path::PathBuf;

use ir::{Function, NodeId};
use target::{EmitError, KernelFacts, Machine, Target};

use crate::cache::Cache;
use crate::cpu::Cpu;
use crate::emit::Module;
use crate::lower::Lowering;
use crate::{codegen, group, link};

/// Alignment of every buffer: a cache line, and the widest vector.
const ALIGNMENT: u64 = 64;

pub struct CpuTarget {
    pub cpu: Cpu,
    /// An `ld.lld` of LLVM 22.
    pub linker: PathBuf,
    /// Threads that generate code.
    pub threads: usize,
    /// Where object files of earlier compilations are.
    pub cache: Option<Box<dyn Cache>>,
}

impl Target for CpuTarget {
    fn name(&self) -> &str {
        "cpu"
    }

    fn alignment(&self) -> u64 {
        ALIGNMENT
    }

    fn group(&self, function: &Function) -> Vec<Vec<NodeId>> {
        group::group(function)
    }

    fn describe(&self, kernel: &Function) -> KernelFacts {
        let mut facts = KernelFacts::counted(kernel);
        // What has no code says so when it is emitted.
        if let Ok(lowering) = Lowering::new(kernel, &self.cpu) {
            let needs = lowering.needs();
            facts = KernelFacts {
                workspace: needs.workspace,
                max_parts: needs.parts.clamp(1, u64::from(u32::MAX)) as u32,
                in_place: needs.in_place,
                ..facts
            };
            if let Some((pair, bytes)) = lowering.overwrites() {
                (facts.overwrites, facts.bytes) = (vec![pair], bytes);
            }
        }
        facts
    }

    fn emit(&self, kernels: &[(&str, &Function)]) -> Result<Vec<u8>, EmitError> {
        if kernels.is_empty() {
            return Ok(Vec::new());
        }
        let modules = self.modules(kernels)?;
        let tool = |error: crate::error::Error| EmitError::Tool(error.to_string());
        let objects = codegen::compile(&modules, &self.cpu, self.threads, self.cache.as_deref()).map_err(tool)?;
        link::link(&objects, &self.linker).map_err(tool)
    }

    fn machine(&self) -> Machine {
        Machine {
            cpu: self.cpu.level(),
            features: self.cpu.required.iter().map(|feature| (*feature).to_owned()).collect(),
        }
    }
}

impl CpuTarget {
    pub fn new(cpu: Cpu, linker: PathBuf, threads: usize) -> CpuTarget {
        CpuTarget { cpu, linker, threads, cache: None }
    }

    /// The MLIR of each kernel.
    pub fn modules(&self, kernels: &[(&str, &Function)]) -> Result<Vec<Module>, EmitError> {
        let module = |&(symbol, kernel): &(&str, &Function)| {
            Lowering::new(kernel, &self.cpu)
                .and_then(|lowering| lowering.module(symbol, &self.cpu))
                .map_err(|error| EmitError::Kernel { kernel: symbol.to_owned(), reason: error.to_string() })
        };
        kernels.iter().map(module).collect()
    }
}
