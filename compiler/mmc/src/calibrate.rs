//! `mmc calibrate`: times the CPU target's own kernels and collectives on this machine, and writes a machine file.
//!
//! Probes are small train steps, compiled here and run by `mmrun`, whose traces say what each kernel and collective takes:
//! what is measured is what will be predicted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use cost::{Machine, Timed, Work};
use diag::{Diagnostic, Diagnostics, Sources};
use plan::{Op, Plan};
use serde_json::Value;

use crate::args::{self, Calibrate, Cli};
use crate::plan_file;
use crate::{Done, compile, input, output};

/// Transformers of the sizes that small models have: a narrow and a wide one that denoise 1,024 tokens, and one that
/// predicts words, whose loss is taken in chunks.
const PROBES: [&str; 3] = [
    "wan2.2.mm --preset mini --set HEADS=4 --set HEAD=64 --set FFN=1024 --set H=32 --set W=32 --set LAYERS=2",
    "wan2.2.mm --preset mini --set HEADS=16 --set HEAD=64 --set FFN=4096 --set H=32 --set W=32 --set LAYERS=1",
    "qwen3.mm --set S=1024 --set LAYERS=1 --set HIDDEN=512 --set HEADS=8 --set KV_HEADS=4 --set HEAD=64 --set FFN=1536 \
     --set VOCAB=16000",
];

/// For the collectives.
const MESH: &str = "wan2.2.mm --preset mini --set HEADS=8 --set HEAD=64 --set FFN=2048 --set H=32 --set W=32 \
                    --set LAYERS=2 --fsdp 2 --batch 2";

/// The first step also maps memory, and is left out.
const STEPS: &str = "4";

/// Collectives that send less than this show what a round of messages takes; those that send more, the bandwidth.
const SMALL: u64 = 4 << 10;
const LARGE: u64 = 256 << 10;

/// A probe that was run.
struct Probe {
    plan: Plan,
    /// The trace's events that took time, the first step left out.
    events: Vec<Span>,
}

struct Span {
    rank: u64,
    step: u64,
    instruction: usize,
    begin: f64,
    seconds: f64,
}

/// What collectives take.
struct LinkFigures {
    bandwidth: f64,
    latency: f64,
}

pub fn calibrate(args: &Calibrate) -> Done {
    let mmrun = mmrun(args)?;
    output::apart(&args.output, &[("mmrun", Some(&mmrun))])?;
    let threads = match args.threads {
        Some(n) => n as usize,
        None => std::thread::available_parallelism().map_or(1, |n| n.get()),
    };
    let folder = std::env::temp_dir().join(format!("mmc-calibrate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| {
        Diagnostic::error(format!("cannot make the folder {}: {e}", folder.display())).help("set TMPDIR to another")
    })?;
    let text = measured(&mmrun, threads, &folder);
    // What is left of the probes is of no use to anyone.
    let _ = std::fs::remove_dir_all(&folder);
    let text = text?;
    Machine::parse(&text).map_err(|e| unmeasured(&format!("the figures make no machine: {e}")))?;
    output::write(&args.output, text.as_bytes())?;
    output::tell(&text);
    Ok(Diagnostics::default())
}

fn measured(mmrun: &Path, threads: usize, folder: &Path) -> Result<String, Diagnostics> {
    let mut probes = vec![];
    for words in PROBES {
        for dtype in ["f32", "bf16"] {
            probes.push(probe(mmrun, threads, folder, &format!("{words} --dtype {dtype}"))?);
        }
    }
    let two = probe(mmrun, threads, folder, MESH)?;
    let timed: Vec<Timed> = probes.iter().flat_map(kernels).collect();
    let rates = cost::rates(&timed).ok_or_else(|| unmeasured("too few kernels were timed"))?;
    let gaps = probes.iter().map(gap).fold(0.0, f64::max);
    let link = collectives(&two).ok_or_else(|| unmeasured("too few collectives were timed"))?;
    let memory = memory_gib()?;
    let cpu = target_cpu::cpu::Cpu::native().map_err(|e| Diagnostic::error(e.to_string()))?.name;
    let [(f32, curve), (bf16, curve_bf16)] = rates.products.each_ref().map(|points| curve(points));
    Ok(format!(
        "# Measured by `mmc calibrate` on this machine's CPU ({cpu}) with {threads} threads.\n\
         name = \"cpu\"\n\n\
         [device]\n\
         memory_gib = {memory:.1}\n\
         memory_gb_per_s = {bandwidth:.2}\n\
         memory_efficiency = 1.0\n\
         memory_bf16_efficiency = {converted:.3}\n\
         matmul_f32_tflops = {f32:.5}\n\
         matmul_bf16_tflops = {bf16:.5}\n\
         matmul_efficiency = {curve}\n\
         matmul_bf16_efficiency = {curve_bf16}\n\
         vector_f32_tflops = {vector:.5}\n\
         vector_bf16_tflops = {vector_bf16:.5}\n\
         vector_beside_matmul = false\n\
         launch_us = {launch:.3}\n\
         host_gb_per_s = {bandwidth:.2}\n\n\
         [server]\n\
         devices = 1\n\
         shared = true\n\n\
         [inside]\n\
         gb_per_s = {sent:.3}\n\
         efficiency = 1.0\n\
         latency_us = {latency:.2}\n",
        bandwidth = rates.bandwidth[0] * 1e-9,
        converted = (rates.bandwidth[1] / rates.bandwidth[0]).min(1.0),
        vector = rates.vector[0] * 1e-12,
        vector_bf16 = rates.vector[1] * 1e-12,
        launch = gaps * 1e6,
        sent = link.bandwidth * 1e-9,
        latency = link.latency * 1e6,
    ))
}

/// The most that products reach, in TFLOP a second, and the shares of it by GFLOP as a machine file says them.
fn curve(points: &[[f64; 2]]) -> (f64, String) {
    let most = points.iter().map(|[_, rate]| *rate).fold(0.0, f64::max);
    let shares: Vec<String> = points.iter().map(|[gflop, rate]| format!("[{gflop}, {:.3}]", rate / most)).collect();
    (most * 1e-12, format!("[{}]", shares.join(", ")))
}

/// Compiles and runs a probe.
fn probe(mmrun: &Path, threads: usize, folder: &Path, words: &str) -> Result<Probe, Diagnostics> {
    let (file, trace) = (folder.join("plan.bin"), folder.join("trace.json"));
    let line = ["mmc", "compile"].into_iter().chain(words.split_whitespace());
    let cli = Cli::try_parse_from(line).map_err(|e| unmeasured(&e.to_string()))?;
    let args::Command::Compile(mut args) = cli.command else { return Err(unmeasured("a probe is no compilation")) };
    args.output.clone_from(&file);
    compile::compile(&args, &mut Sources::default())?;
    let mut command = Command::new(mmrun);
    command.arg(&file).args(["--steps", STEPS, "--threads", &threads.to_string(), "--trace"]).arg(&trace);
    let output = command.output().map_err(|e| unmeasured(&format!("cannot run {}: {e}", mmrun.display())))?;
    if !output.status.success() {
        return Err(unmeasured(&format!("a probe failed: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text =
        input::bytes(&trace, input::MOST_PRINTED).map_err(|e| unmeasured(&format!("a probe left no trace: {e}")))?;
    let events: Vec<Value> = serde_json::from_slice(&text).map_err(|e| unmeasured(&format!("a wrong trace: {e}")))?;
    let span = |e: &Value| {
        Some(Span {
            rank: e["pid"].as_u64()?,
            step: e["args"]["step"].as_u64()?,
            instruction: e["args"]["instruction"].as_u64()? as usize,
            begin: e["ts"].as_f64()? * 1e-6,
            seconds: e["dur"].as_f64()? * 1e-6,
        })
    };
    let mut events: Vec<Span> = events.iter().filter(|e| e["ph"] == "X").filter_map(span).collect();
    let first = events.iter().map(|s| s.step).min();
    events.retain(|s| Some(s.step) != first);
    Ok(Probe { plan: plan_file::read(&file)?.plan, events })
}

impl Probe {
    fn body(&self) -> Option<&plan::Body> {
        self.plan.programs.first()?.bodies.first()
    }

    fn op(&self, span: &Span) -> Option<&Op> {
        Some(&self.body()?.instructions.get(span.instruction)?.op)
    }
}

/// Each launch of rank 0, by its median over the steps.
fn kernels(probe: &Probe) -> Vec<Timed> {
    let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for span in probe.events.iter().filter(|s| s.rank == 0) {
        times.entry(span.instruction).or_default().push(span.seconds);
    }
    let timed = |(instruction, times): (usize, Vec<f64>)| {
        let (body, class) = (probe.body()?, probe.plan.classes.first()?);
        let Op::Launch(launch) = &body.instructions.get(instruction)?.op else { return None };
        let kernel = probe.plan.kernels.get(launch.kernel.index())?;
        let types = cost::kernel_types(&probe.plan, class, body, launch);
        Some(Timed { types, work: Work::of(kernel), seconds: median(times)? })
    };
    times.into_iter().filter_map(timed).collect()
}

/// From the end of one launch to the beginning of the next, on average.
fn gap(probe: &Probe) -> f64 {
    let launches: Vec<&Span> =
        probe.events.iter().filter(|s| s.rank == 0 && matches!(probe.op(s), Some(Op::Launch(_)))).collect();
    let pairs = launches.windows(2).filter(|w| w[0].step == w[1].step);
    let (sum, count) =
        pairs.fold((0.0, 0), |(sum, n), w| (sum + (w[1].begin - w[0].begin - w[0].seconds).max(0.0), n + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}

/// The last of the ranks to come to a collective waits for none: the shortest time of a meeting is what it takes.
fn collectives(probe: &Probe) -> Option<LinkFigures> {
    let mesh = &probe.plan.header.mesh;
    let mut shortest: BTreeMap<(u64, usize), f64> = BTreeMap::new();
    for span in probe.events.iter().filter(|s| matches!(probe.op(s), Some(Op::Collect(_)))) {
        let seconds = shortest.entry((span.step, span.instruction)).or_insert(f64::INFINITY);
        *seconds = seconds.min(span.seconds);
    }
    let (mut rounds, mut bytes, mut seconds) = (vec![], 0.0, 0.0);
    for ((_, instruction), time) in shortest {
        let Op::Collect(collect) = &probe.body()?.instructions.get(instruction)?.op else { continue };
        match plan::sent(mesh, collect) {
            sent if sent <= SMALL => rounds.push(time),
            sent if sent >= LARGE => {
                bytes += sent as f64;
                seconds += time;
            }
            _ => {}
        }
    }
    let bandwidth = bytes / seconds;
    Some(LinkFigures { bandwidth, latency: median(rounds)? }).filter(|_| bandwidth.is_finite())
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

fn mmrun(args: &Calibrate) -> Result<PathBuf, Diagnostics> {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("mmrun"));
    let path = args.mmrun.clone().or(beside).filter(|path| path.is_file());
    path.ok_or_else(|| {
        Diagnostic::error("mmrun, which runs the probes, was not found beside mmc")
            .help("build it with `make build`, or name it with --mmrun PATH")
            .into()
    })
}

fn memory_gib() -> Result<f64, Diagnostics> {
    let text = input::text(Path::new("/proc/meminfo"), input::MOST_TEXT).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib / f64::from(1 << 20))
        .ok_or_else(|| unmeasured("/proc/meminfo does not say how much memory there is"))
}

fn unmeasured(why: &str) -> Diagnostics {
    Diagnostic::error(format!("this machine could not be measured: {why}"))
        .help("a machine file can be written by hand too: compiler/cost/machines holds examples")
        .into()
}
