//! What ranks exchange in plans of whole models: what is gathered at a time, what travels beside compute and together,
//! and what no rank ever holds. All of it is read off the plan's buffers and instructions.

mod draw;
mod gathered;

use std::path::{Path, PathBuf};

use plan::{Body, Buffer, CollectKind, Op, Plan};
use serde_json::Value;
use tests::binaries::{command, model, run};

const WAN: &str = "wan2.2.mm --preset tiny --set LAYERS=4 --batch 8";
const TOWERS: &str = "../tests/meshes/towers.mm";
const QWEN: &str = "qwen3.mm --preset tiny --set LAYERS=4 --set S=64 --batch 8";

fn compile(words: &str) -> Plan {
    let folder = tempfile::tempdir().expect("a folder");
    let file = compile_to(folder.path(), words);
    Plan::from_bytes(&std::fs::read(&file).expect("a plan")).expect("a plan").0
}

fn compile_to(folder: &Path, words: &str) -> PathBuf {
    let file = folder.join("plan.bin");
    let (name, flags) = words.split_once(' ').expect("a model and its flags");
    let mut mmc = command("mmc");
    mmc.arg("compile").arg(model(name)).args(flags.split_whitespace()).args(["--target", "none", "-o"]).arg(&file);
    run(&mut mmc).unwrap_or_else(|e| panic!("{e}"));
    file
}

fn body(plan: &Plan) -> &Body {
    &plan.programs[0].bodies[0]
}

fn size(buffer: &Buffer, dim: &str) -> Option<usize> {
    buffer.ty.as_ref()?.dims.iter().find(|d| d.name == *dim).map(|d| d.size)
}

/// What follows from feeds alone, such as which labels count, is made where it is read, though ranks exchange it: no message
/// between stages carries it.
#[test]
fn no_message_carries_what_follows_from_feeds() {
    for schedule in ["1f1b", "zb-h1"] {
        let mesh = "--pp 4 --tp 2 --cp 2 --microbatches 8";
        let plan = compile(&format!("{QWEN} {mesh} --recompute full --schedule {schedule}"));
        for (class, body) in plan.classes.iter().zip(&plan.programs[0].bodies) {
            // After the work on micro-batches, one stage tells the others whether the update was made: the state `step`.
            let end = body.units.iter().map(|unit| unit.end as usize).max().expect("units of work");
            for instruction in &body.instructions[..end] {
                let Op::Collect(collect) = &instruction.op else { continue };
                if !matches!(collect.kind, CollectKind::Send { .. }) {
                    continue;
                }
                for slice in &collect.from {
                    let buffer = body.buffer(class, slice.buffer).expect("a buffer");
                    let dtype = buffer.ty.as_ref().expect("a tensor").dtype;
                    assert!(dtype.is_float(), "{schedule}: {} sends {}", class.name, buffer.name);
                }
            }
        }
    }
}

/// At any instruction, at most two blocks of gathered parameters are in memory: the one that is computed, and the next.
#[test]
fn two_blocks_of_parameters_are_gathered_at_most() {
    let flags = [
        "",
        "--recompute full",
        "--dtype bf16",
        "--microbatches 2",
        "--grads resident",
        "--optim clip=0",
        "--optim kind=sgd,lr=0.1",
        "--dp 2 --zero 1",
        "--tp 2",
        "--cp 2 --ulysses 1",
    ];
    for words in [WAN, QWEN].iter().flat_map(|model| flags.map(|flags| format!("{model} --fsdp 2 {flags}"))) {
        let plan = compile(&words);
        let live = gathered::live(&plan);
        let most = live.iter().max_by_key(|blocks| blocks.len()).expect("instructions");
        assert!(most.len() == 2, "{words}: parameters of {most:?} at once");
        for block in gathered::blocks(&plan) {
            assert!(live.iter().any(|blocks| blocks.contains(&block)), "{words}: {block} is never gathered");
        }
    }
}

/// So it is where layers are of two kinds, in two towers of one file.
#[test]
fn two_blocks_of_several_kinds_are_gathered_at_most() {
    for flags in ["", "--recompute full", "--dtype bf16", "--microbatches 2", "--cp 2 --ulysses 1"] {
        let words = format!("{TOWERS} --batch 4 --set LAYERS=5 --set text.PLAIN=2 --fsdp 2 {flags}");
        let plan = compile(&words);
        let live = gathered::live(&plan);
        let most = live.iter().max_by_key(|blocks| blocks.len()).expect("instructions");
        assert!(most.len() == 2, "{words}: parameters of {most:?} at once");
        let blocks = gathered::blocks(&plan);
        assert_eq!(blocks.iter().filter(|block| block.contains("layers")).count(), 3 + 5, "{blocks:?}");
        for block in blocks {
            assert!(live.iter().any(|blocks| blocks.contains(&block)), "{words}: {block} is never gathered");
        }
    }
}

/// What is gathered for a block, and what is scattered of it, are one instruction each.
#[test]
fn small_collectives_of_a_block_travel_together() {
    for (words, outside) in [(format!("{WAN} --fsdp 2"), 3), (format!("{QWEN} --fsdp 2"), 2)] {
        let plan = compile(&words);
        let count = |wanted: fn(&CollectKind) -> bool| {
            let found = body(&plan).instructions.iter().filter_map(|i| match &i.op {
                Op::Collect(c) if wanted(&c.kind) => Some(c.from.len()),
                _ => None,
            });
            (found.clone().count(), found.sum::<usize>())
        };
        let parameters = plan.manifest.parameters.len();
        let (gathers, tensors) = count(|kind| matches!(kind, CollectKind::AllGather));
        assert!(gathers <= 2 * 4 + outside && tensors > parameters, "{words}: {gathers} gathers of {tensors} tensors");
        let (scatters, tensors) = count(|kind| matches!(kind, CollectKind::ReduceScatter(_)));
        assert!(scatters <= 4 + outside && tensors == parameters, "{words}: {scatters} scatters of {tensors} tensors");
    }
}

/// Zeros that gradients of all micro-batches are added to bind nothing: each micro-batch sends what it would send alone.
#[test]
fn micro_batches_send_what_one_alone_would() {
    let bytes = |plan: &Plan| plan::traffic(plan, body(plan)).iter().map(|t| t.bytes).sum::<u64>();
    for model in [WAN, QWEN].map(|model| model.trim_end_matches(" --batch 8")) {
        let one = bytes(&compile(&format!("{model} --tp 2 --batch 1")));
        let four = bytes(&compile(&format!("{model} --tp 2 --batch 4 --microbatches 4")));
        assert!(four <= 4 * one, "{model}: {four} bytes, {one} alone");
    }
}

/// With stages, each rank gathers a parameter once a step and scatters its gradient once, however many micro-batches there are;
/// a machine without the memory for that gathers in each micro-batch, and it is told.
#[test]
fn stages_gather_and_scatter_once_a_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = folder.path().join("small.toml");
    let built_in = include_str!("../../compiler/cost/machines/ascend-910b3.toml");
    let memory = built_in.lines().find(|line| line.starts_with("memory_gib")).expect("a figure");
    std::fs::write(&small, built_in.replace(memory, "memory_gib = 0.0002")).expect("a machine");
    // Two stages read an embedding that is the head too: each gathers it.
    let cases = [(WAN, "", 0), (WAN, "--schedule zb-h1", 0), (QWEN, "--tp 2", 1), (QWEN, "--virtual-stages 2", 1)];
    for (model, flags, tied) in cases {
        let words = format!("{model} --pp 2 --fsdp 2 --microbatches 4 {flags}");
        let exchanged = |plan: &Plan| {
            let collects =
                plan.programs[0].bodies.iter().flat_map(|body| &body.instructions).filter_map(|i| match &i.op {
                    Op::Collect(c) if c.group.iter().any(|axis| **axis == *"fsdp") => Some(c),
                    _ => None,
                });
            let count = |wanted: fn(&CollectKind) -> bool| {
                collects.clone().filter(|c| wanted(&c.kind)).map(|c| c.from.len()).sum::<usize>()
            };
            let gathered = count(|kind| matches!(kind, CollectKind::AllGather));
            (gathered, count(|kind| matches!(kind, CollectKind::ReduceScatter(_))))
        };
        let once = exchanged(&compile(&words));
        let parameters = compile(&words).manifest.parameters.len();
        assert_eq!(once, (parameters + tied, parameters), "{words}");
        let often = exchanged(&compile(&format!("{words} --machine {}", small.display())));
        assert!(often.0 >= 4 * parameters, "{words}: {often:?} of {parameters}");
    }
}

/// The lanes of a small model: gathers a block ahead, gradients scattered behind the next block.
#[test]
fn lanes_of_fsdp() {
    let plan = compile("wan2.2.mm --preset tiny --set LAYERS=3 --batch 2 --fsdp 2");
    insta::assert_snapshot!(draw::lanes(&plan));
}

/// Each rank of a ring, or of a product of rings and exchanges, holds its share of queries, keys and values.
#[test]
fn no_rank_holds_keys_of_the_full_length() {
    const TOKENS: [&str; 4] = ["L", "dit.T", "S", "RANKS"];
    const WIDTHS: [&str; 7] = ["B", "HEADS", "KV_HEADS", "HEAD", "DIM", "Q", "KV"];
    for (model, full) in [
        // 32 tokens of 4 heads of 12, and 64 of 4 of 8.
        ("wan2.2.mm --preset tiny --set HEADS=4", 32 * 48),
        ("qwen3.mm --preset tiny --set HEADS=4 --set S=64", 64 * 32),
    ] {
        for (mesh, ranks) in [("--cp 4 --ulysses 1", 4), ("--cp 4 --ulysses 2", 4), ("--cp 2 --ulysses 1", 2)] {
            let plan = compile(&format!("{model} {mesh}"));
            let of_tokens = body(&plan).buffers.iter().filter(|buffer| {
                let known = |ty: &types::TensorType| {
                    ty.dims.iter().all(|d| TOKENS.contains(&&*d.name) || WIDTHS.contains(&&*d.name))
                };
                let has = |dims: &[&str]| dims.iter().any(|dim| size(buffer, dim).is_some());
                buffer.ty.as_deref().is_some_and(known) && has(&["HEAD", "KV", "DIM"]) && has(&TOKENS)
            });
            let elements = of_tokens.map(|b| (b.ty.as_deref().map_or(0, types::TensorType::elements), b));
            let (most, buffer) = elements.max_by_key(|(n, _)| *n).expect("keys");
            assert_eq!(most, full / ranks, "{model} {mesh}: {buffer:?}");
        }
    }
}

/// Under tp a norm over all heads asks the other ranks for one number a token, forward and backward.
#[test]
fn norms_over_heads_reduce_one_number_a_token() {
    let plan = compile("wan2.2.mm --preset tiny --set LAYERS=4 --tp 2");
    let class = &plan.classes[0];
    let reduced = body(&plan).instructions.iter().filter_map(|i| match &i.op {
        Op::Collect(c) if matches!(c.kind, CollectKind::AllReduce(_)) => Some(c.to.iter()),
        _ => None,
    });
    let reduced: Vec<&Buffer> = reduced.flatten().filter_map(|s| body(&plan).buffer(class, s.buffer)).collect();
    let names = |buffer: &&&Buffer| -> Vec<String> {
        buffer.ty.iter().flat_map(|t| &t.dims).map(|d| d.name.to_string()).collect()
    };
    let a_token =
        reduced.iter().filter(|b| [["B", "L"], ["B", "dit.T"], ["B", "S"]].iter().any(|dims| names(b) == *dims));
    // Of queries and keys, in self- and cross-attention.
    assert_eq!(a_token.count(), 4 * (4 + 4), "{reduced:?}");
    let wide = reduced.iter().filter(|b| size(b, "L").is_some() && names(b).len() > 2);
    assert_eq!(wide.count(), 0, "{reduced:?}");
}

/// A plan of the published model at full size, for eight ranks and for 16,384, where 75,600 tokens do not divide.
#[test]
fn full_size() {
    let model = "wan2.2.mm --preset t2v-a14b --set F=21 --set H=90 --set W=160";
    for (mesh, world) in [("--tp 4 --fsdp 2", 8), ("--tp 8 --cp 8 --fsdp 256", 16_384)] {
        let plan = compile(&format!("{model} {mesh}"));
        assert_eq!(plan.header.world(), world);
        let (bytes, _) = plan.to_bytes().expect("a plan that can be written");
        assert!(bytes.len() < 8 << 20, "{mesh}: {} bytes", bytes.len());
    }
}

/// On sixteen dies compute hides what the published model's ranks exchange.
#[test]
fn exchanges_are_hidden_at_full_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = "wan2.2.mm --preset t2v-a14b --set F=21 --set H=90 --set W=160 --dtype bf16 --recompute full";
    for mesh in ["--fsdp 16", "--cp 4 --fsdp 4"] {
        let file = compile_to(folder.path(), &format!("{model} {mesh} --machine ascend-910c"));
        let output = run(command("mmc").arg("explain").arg(&file).arg("--json")).expect("explains");
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let figure = |key: &str| json["ranks"][0][key].as_f64().unwrap_or_else(|| panic!("no `{key}` in {json}"));
        let (exposed, step) = (figure("exposed_comm_seconds"), figure("step_seconds"));
        assert!(exposed > 0.0 && exposed < 0.05 * step, "{mesh}: {exposed} of {step} seconds");
    }
}
