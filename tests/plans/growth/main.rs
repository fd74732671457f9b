//! How the work of a compilation grows with the program: chains of each operator, and rings of ranks. What is counted are
//! allocations, bytes of kernels' code and instructions of the plan, which no machine's speed changes; and all passes run
//! on a small stack, so that no recursion is as deep as the graph.
#![allow(unsafe_code, reason = "a counting allocator has to be a GlobalAlloc")]

mod chains;
mod count;
mod ring;

use std::thread;

use diag::Sources;
use ir::Module;
use passes::{Context, MemoryPolicy, Pipeline};
use plan::{Header, KERNEL_ABI, Plan};
use target::{NoTarget, Target};
use target_cpu::{Cpu, CpuTarget};
use types::{DType, Mesh};

use count::Counts;

/// Work that grows with a power above this is not linear: a square has 2, and what grows with the logarithm too has less.
const STEEPEST: f64 = 1.2;

/// Of the threads that passes run on, so that frames of one each for ten thousand operators do not fit.
const STACK: usize = 1 << 20;

/// What a target adds to the counts.
#[derive(Clone, Copy)]
enum Code {
    None,
    /// Kernels of the CPU target as MLIR.
    Cpu,
}

/// The counts of one compilation.
fn compile(text: String, pipeline: &'static str, code: Code) -> Counts {
    let work = move || {
        let before = count::now();
        let mut module = ir::parse(&text).unwrap_or_else(|e| panic!("{}: {}", e.message, &text[e.at]));
        let mut cx = Context::default();
        Pipeline::parse(pipeline).expect(pipeline).run(&mut module, &mut cx, |_, _| {}).unwrap_or_else(said);
        let (instructions, bytes) = match code {
            Code::None => (planned(module, &NoTarget), 0),
            Code::Cpu => {
                let cpu = Cpu::parse("x86-64-v3").expect("a level");
                let target = CpuTarget::new(cpu, "".into(), 1);
                passes::group(&mut module, &target, false).unwrap_or_else(said);
                let kernels: Vec<(&str, &ir::Function)> =
                    passes::kernels(&module).map(|(_, kernel)| (kernel.name.as_str(), kernel)).collect();
                let modules = target.modules(&kernels).unwrap_or_else(|e| panic!("{e}"));
                (kernels.len(), modules.iter().map(|module| module.text.len()).sum())
            }
        };
        let allocations = count::now() - before;
        Counts { allocations, instructions: instructions as u64, bytes: bytes as u64 }
    };
    let worker = thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread");
    worker.join().expect("a compilation")
}

fn said<T>(errors: diag::Diagnostics) -> T {
    panic!("{errors}")
}

/// Instructions of the verified plan.
fn planned(mut module: Module, target: &dyn Target) -> usize {
    passes::group(&mut module, target, false).unwrap_or_else(said);
    let one = Mesh::new([("tp", 1)]).expect("a mesh");
    let header = Header {
        model: "m".into(),
        preset: "p".into(),
        task: "train".into(),
        target: target.name().into(),
        device: "".into(),
        features: vec![],
        dtype: DType::F32,
        seed: 0,
        compiler: "test".into(),
        mesh: if module.mesh.axes.is_empty() { one } else { module.mesh.clone() },
        schedule_end: 0,
        kernel_abi: KERNEL_ABI,
        configs: vec![],
    };
    let (sources, machine) = (Sources::default(), cost::typical());
    let plan = passes::lower(&module, &sources, target, header, &machine, None, &MemoryPolicy::default());
    let plan: Plan = plan.unwrap_or_else(said);
    plan::verify(&plan).unwrap_or_else(|violations| panic!("{}", violations[0]));
    plan.programs[0].bodies[0].instructions.len()
}

/// Fails for each case that grows faster than the program does.
#[test]
fn compilations_grow_with_the_program() {
    let mut steep = vec![];
    let mut check = |name: String, sizes: [usize; 2], of: &dyn Fn(usize) -> Counts| {
        let [small, large] = sizes.map(of);
        for (what, power) in small.powers(&large, sizes) {
            if power > STEEPEST {
                steep
                    .push(format!("{name}: {what} grow with the power {power:.2}: {small:?}, {large:?} for {sizes:?}"));
            }
        }
    };
    for (name, next) in chains::CASES {
        check(format!("{name} on the CPU"), [64, 256], &|count| {
            compile(chains::forward(count, *next), FORWARD, Code::Cpu)
        });
        check(format!("{name}, on two ranks"), [100, 400], &|count| {
            compile(chains::sharded(count, *next), SHARDED, Code::None)
        });
        check(format!("{name}, trained"), [250, 1000], &|count| {
            compile(chains::train(count, *next), TRAIN, Code::None)
        });
    }
    for name in ["add to itself", "tanh", "softmax", "roll", "matmul"] {
        let (_, next) = chains::CASES.iter().find(|(known, _)| *known == name).expect("a case");
        check(format!("{name}, long"), [2000, 10_000], &|count| {
            compile(chains::forward(count, *next), FORWARD, Code::None)
        });
    }
    for (name, code) in [("ring", Code::None), ("ring on the CPU", Code::Cpu)] {
        check(name.into(), [16, 64], &|ranks| compile(ring::train(ranks), SHARDED, code));
    }
    assert!(steep.is_empty(), "{}", steep.join("\n"));
}

const FORWARD: &str = "precision | inline | simplify";
const TRAIN: &str = "precision | autodiff | optimizer | inline | fuse | hoist-casts | simplify";
const SHARDED: &str = "precision | autodiff | optimizer | inline | fuse | hoist-casts | simplify | shard | partition | simplify | overlap";
