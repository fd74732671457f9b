//! Plans against the interpreter: `interpret(module) == run(plan(module))`, step after step, parameters and state
//! included; with kernels that interpret, operator by operator or by Ascend's segments, and with the CPU target's own.

use ir::Precision;
use passes::{Context, Gradients, MemoryPolicy, Pipeline};
use plan_tests::{apart, largest, machine, models, reference};
use runtime_core::Options;
use target::{NoTarget, Target};
use target_ascend::{AscendTarget, SOCS};

const TRAIN: &str = "precision | autodiff | optimizer{lr=0.05,clip=0.5} | inline | simplify";
const STEPS: u64 = 3;

#[derive(Clone, Copy, PartialEq)]
enum Kernels {
    Interpreted,
    /// Ascend's segments, interpreted.
    Segments,
    Cpu,
}

/// `tolerance` is relative to the largest number of each tensor; 0 asks for the same bits.
fn check(text: &str, passes: &str, kernels: Kernels, tolerance: f64) {
    let mut module = ir::parse(text).expect("the model parses");
    let pipeline = Pipeline::parse(passes).expect("the pipeline parses");
    pipeline.run(&mut module, &mut Context::default(), |_, _| {}).expect("the passes run");
    let expected = reference::interpret(&module, Precision::Declared, STEPS).expect("the graph runs");
    let target: Box<dyn Target> = match kernels {
        Kernels::Interpreted => Box::new(NoTarget),
        Kernels::Segments => Box::new(AscendTarget { soc: &SOCS[0] }),
        Kernels::Cpu => Box::new(machine_cpu()),
    };
    for gradients in [Gradients::Streamed, Gradients::Resident] {
        let compiled =
            machine::compile(module.clone(), &*target, None, &MemoryPolicy { gradients, ..MemoryPolicy::default() })
                .expect("compiles");
        let plan = machine::verified(compiled.plan).unwrap_or_else(|e| panic!("{e}"));
        for (threads, poison) in [(1, false), (2, false), (1, true)] {
            let options = Options { threads, poison, ..Options::default() };
            let found = match kernels {
                Kernels::Interpreted | Kernels::Segments => {
                    let code = machine::interpreting(plan.plan(), compiled.functions.clone());
                    machine::run(&plan, code, &options, STEPS)
                }
                Kernels::Cpu => {
                    let file = plan.plan();
                    let code = device::CpuKernels::load(&file.header, &file.kernels, &file.object);
                    machine::run(&plan, code.expect("the object loads"), &options, STEPS)
                }
            };
            let (worst, of) = apart(&found.expect("runs"), &expected, |_, x| largest(x)).expect("the same values");
            assert!(worst <= tolerance, "{of} is off by {worst:.3e} of the largest");
        }
    }
}

fn machine_cpu() -> target_cpu::CpuTarget {
    let cpu = target_cpu::cpu::Cpu::native().expect("an x86-64-v3 machine");
    target_cpu::CpuTarget::new(cpu, "/usr/lib/llvm-22/bin/ld.lld".into(), 2)
}

#[test]
fn gradients_alone() {
    let pipeline = "precision | autodiff | inline";
    for model in [models::BLOCKS, models::CHUNKS] {
        check(model, pipeline, Kernels::Interpreted, 0.0);
        check(model, pipeline, Kernels::Segments, 0.0);
        check(model, pipeline, Kernels::Cpu, 2e-6);
    }
}

#[test]
fn a_stack_of_blocks_trains() {
    check(models::BLOCKS, TRAIN, Kernels::Interpreted, 0.0);
    check(models::BLOCKS, TRAIN, Kernels::Segments, 0.0);
    check(models::BLOCKS, TRAIN, Kernels::Cpu, 2e-6);
}

#[test]
fn updates_stream_when_nothing_is_clipped() {
    let pipeline = "precision | autodiff | optimizer{lr=0.05,clip=0} | inline | simplify";
    check(models::BLOCKS, pipeline, Kernels::Interpreted, 0.0);
    check(models::BLOCKS, pipeline, Kernels::Segments, 0.0);
    check(models::BLOCKS, pipeline, Kernels::Cpu, 2e-6);
}

#[test]
fn chunks_are_slices_and_joins_are_copies() {
    check(models::CHUNKS, TRAIN, Kernels::Interpreted, 0.0);
    check(models::CHUNKS, TRAIN, Kernels::Segments, 0.0);
    check(models::CHUNKS, TRAIN, Kernels::Cpu, 2e-6);
}

#[test]
fn without_simplification_too() {
    let pipeline = "precision | autodiff | optimizer{kind=sgd,lr=0.05,clip=0.5} | inline";
    check(models::BLOCKS, pipeline, Kernels::Interpreted, 0.0);
    check(models::BLOCKS, pipeline, Kernels::Segments, 0.0);
    check(models::CHUNKS, pipeline, Kernels::Cpu, 2e-6);
}
