//! Plans against the interpreter: `interpret(module) == run(plan(module))`, step after step, parameters and state
//! included; with kernels that interpret and with the CPU target's own.

mod machine;
mod models;

use machine::{Kernels, check};

const TRAIN: &str = "precision | autodiff | optimizer{lr=0.05,clip=0.5} | inline | simplify";

#[test]
fn gradients_alone() {
    let pipeline = "precision | autodiff | inline";
    for model in [models::BLOCKS, models::CHUNKS] {
        check(model, pipeline, Kernels::Interpreted, 0.0);
        check(model, pipeline, Kernels::Cpu, 2e-6);
    }
}

#[test]
fn a_stack_of_blocks_trains() {
    check(models::BLOCKS, TRAIN, Kernels::Interpreted, 0.0);
    check(models::BLOCKS, TRAIN, Kernels::Cpu, 2e-6);
}

#[test]
fn updates_stream_when_nothing_is_clipped() {
    let pipeline = "precision | autodiff | optimizer{lr=0.05,clip=0} | inline | simplify";
    check(models::BLOCKS, pipeline, Kernels::Interpreted, 0.0);
    check(models::BLOCKS, pipeline, Kernels::Cpu, 2e-6);
}

#[test]
fn chunks_are_slices_and_joins_are_copies() {
    check(models::CHUNKS, TRAIN, Kernels::Interpreted, 0.0);
    check(models::CHUNKS, TRAIN, Kernels::Cpu, 2e-6);
}

#[test]
fn without_simplification_too() {
    let pipeline = "precision | autodiff | optimizer{kind=sgd,lr=0.05,clip=0.5} | inline";
    check(models::BLOCKS, pipeline, Kernels::Interpreted, 0.0);
    check(models::CHUNKS, pipeline, Kernels::Cpu, 2e-6);
}
