//! Many ranks against one rank: the same model, seed and steps on a mesh give the same losses, gradients and parameters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use safetensors::tensor::{Dtype, TensorView};
use tests::binaries::{command, model, run as finish};
use tests::outputs::{near, read};

/// A model with its sizes, and the meshes it is tried on.
struct Case {
    name: &'static str,
    model: &'static str,
    /// Flags of `mmc compile` for one rank and for many.
    flags: &'static str,
    meshes: &'static [&'static str],
}

const TI2V_BY_SGD: &str = "--preset ti2v-5b --set LAYERS=2 --set HEADS=2 --set HEAD=12 --set FFN=48 --set IN=4 --set OUT=4 \
    --set F=3 --set H=8 --set W=8 --set S=4 --set TEXT=16 --set FREQ=16 --batch 2 --optim kind=sgd,lr=0.1";

const CASES: &[Case] = &[
    Case {
        name: "t2v",
        model: "wan2.2.mm",
        flags: "--preset tiny --batch 4",
        meshes: &[
            "--tp 2",
            "--fsdp 2",
            "--fsdp 4",
            "--dp 2",
            "--dp 4",
            "--dp 2 --zero 1",
            "--cp 2",
            "--cp 2 --ulysses 1",
            "--cp 4 --ulysses 1",
            "--cp 4 --ulysses 2",
            "--dp 2 --fsdp 2 --zero 1",
            "--tp 2 --fsdp 2",
            "--tp 2 --fsdp 2 --cp 2",
            "--tp 2 --dp 2 --cp 2",
            "--tp 2 --cp 4",
            "--fsdp 2 --cp 2 --ulysses 1",
            "--dp 2 --fsdp 2 --tp 2",
        ],
    },
    Case {
        name: "t2v of 8 heads",
        model: "wan2.2.mm",
        flags: "--preset tiny --set HEADS=8 --set HEAD=6 --optim clip=0",
        meshes: &["--tp 4", "--tp 8", "--tp 2 --cp 4", "--tp 4 --cp 2 --ulysses 2"],
    },
    Case {
        name: "t2v in micro-batches",
        model: "wan2.2.mm",
        flags: "--preset tiny --batch 12",
        meshes: &[
            "--microbatches 3",
            "--microbatches 4 --tp 2",
            "--microbatches 3 --fsdp 2 --tp 2",
            "--microbatches 3 --dp 2 --fsdp 2 --zero 1",
            "--microbatches 4 --cp 2 --ulysses 1",
        ],
    },
    Case {
        name: "t2v in stages",
        model: "wan2.2.mm",
        flags: "--preset tiny --set LAYERS=4 --batch 8",
        meshes: &[
            "--pp 2",
            "--pp 4 --schedule gpipe",
            "--pp 2 --microbatches 4",
            "--pp 4 --microbatches 8",
            "--pp 4 --microbatches 4 --schedule gpipe",
            "--pp 4 --microbatches 8 --schedule zb-h1",
            "--pp 2 --virtual-stages 2 --microbatches 4",
            "--pp 2 --tp 2 --microbatches 2",
            "--pp 2 --fsdp 2 --microbatches 4 --schedule zb-h1",
            "--pp 2 --fsdp 2 --microbatches 4 --schedule zb-v",
            "--pp 2 --cp 2 --ulysses 1 --microbatches 2",
            "--pp 2 --cp 2 --dp 2 --zero 1 --microbatches 2",
            "--pp 2 --tp 2 --fsdp 2 --microbatches 4 --schedule gpipe",
            "--pp 4 --dp 2 --microbatches 4 --recompute full",
            "--pp 2 --fsdp 2 --microbatches 4 --schedule zb-h1 --offload activations",
            "--pp 2 --tp 2 --fsdp 2 --microbatches 2 --offload optimizer",
            "--pp 2 --virtual-stages 2 --tp 2 --dp 2 --microbatches 2",
        ],
    },
    // Nothing but the gradient holds an update back.
    Case {
        name: "t2v in stages by SGD",
        model: "wan2.2.mm",
        flags: "--preset tiny --set LAYERS=4 --set F=5 --set H=4 --set W=4 --batch 3 --optim kind=sgd,lr=0.05,clip=0",
        meshes: &["--pp 2 --fsdp 3 --microbatches 1 --schedule gpipe --recompute full", "--pp 2 --microbatches 1"],
    },
    Case {
        name: "t2v computed again",
        model: "wan2.2.mm",
        flags: "--preset tiny --batch 4 --recompute full",
        meshes: &["--fsdp 2 --tp 2", "--cp 2 --ulysses 1"],
    },
    // Nothing divides: 45 or 27 tokens, 3 samples.
    Case {
        name: "uneven t2v",
        model: "wan2.2.mm",
        flags: "--preset tiny --set HEADS=6 --set F=3 --set H=6 --set W=10 --batch 3",
        meshes: &[
            "--dp 2",
            "--fsdp 2 --cp 2",
            "--tp 2 --cp 4 --ulysses 1",
            "--tp 2 --cp 2 --dp 2 --ulysses 1",
            "--tp 3 --fsdp 2",
            "--cp 3 --ulysses 3 --fsdp 2",
            "--fsdp 3 --tp 2 --zero 1",
        ],
    },
    // More tokens than one piece of a kernel's work, and fewer heads on each rank than it takes whole.
    Case {
        name: "t2v of many tokens",
        model: "wan2.2.mm",
        flags: "--preset tiny --set HEADS=4 --set F=1 --set H=56 --set W=52",
        meshes: &["--tp 2", "--tp 4", "--cp 2 --ulysses 1", "--tp 2 --cp 2"],
    },
    Case {
        name: "t2v of five blocks",
        model: "wan2.2.mm",
        flags: "--preset tiny --set LAYERS=5 --batch 4 --optim clip=0 --grads resident",
        meshes: &["--fsdp 2 --dp 2 --zero 1", "--fsdp 2 --cp 2 --ulysses 1"],
    },
    Case {
        name: "t2v with its text in parts",
        model: "wan2.2.mm",
        flags: "--preset tiny --set S=5 --batch 2",
        meshes: &["--cp 2 --plan meshes/keys.mm", "--cp 4 --ulysses 2 --dp 2 --plan meshes/keys.mm"],
    },
    Case {
        name: "ti2v by SGD",
        model: "wan2.2.mm",
        flags: TI2V_BY_SGD,
        meshes: &[
            "--tp 2",
            "--fsdp 2 --tp 2",
            "--cp 2 --tp 2",
            "--dp 2 --cp 2 --ulysses 1",
            "--microbatches 2",
            "--microbatches 2 --cp 2",
            "--pp 2 --microbatches 2",
            "--pp 2 --tp 2 --schedule zb-h1 --microbatches 2",
        ],
    },
    Case {
        name: "qwen3",
        model: "qwen3.mm",
        flags: "--preset tiny --batch 4",
        meshes: &[
            "--tp 2",
            "--cp 2",
            "--cp 4 --ulysses 1",
            "--fsdp 2 --dp 2",
            "--tp 2 --fsdp 2 --cp 2 --ulysses 1",
            "--dp 2 --zero 1",
            "--microbatches 4",
            "--microbatches 2 --dp 2",
            "--microbatches 2 --fsdp 2 --tp 2",
        ],
    },
    // Its embedding is tied to its head: the first and the last stage read it.
    Case {
        name: "qwen3 in stages",
        model: "qwen3.mm",
        flags: "--preset tiny --set LAYERS=4 --batch 12 --optim clip=0.5",
        meshes: &[
            "--pp 2",
            "--pp 4 --microbatches 3",
            "--pp 4 --microbatches 3 --schedule zb-h1",
            "--pp 2 --microbatches 4 --schedule zb-v",
            "--pp 2 --microbatches 6 --schedule gpipe",
            "--pp 2 --virtual-stages 2 --microbatches 6",
            "--pp 2 --tp 2 --fsdp 2 --microbatches 3",
            "--pp 2 --fsdp 4 --microbatches 3 --schedule zb-h1",
            "--pp 2 --cp 2 --tp 2 --microbatches 2",
            "--pp 4 --dp 2 --zero 1 --microbatches 2",
        ],
    },
    Case {
        name: "uneven qwen3",
        model: "qwen3.mm",
        flags: "--preset tiny --batch 3 --set S=18 --optim kind=sgd,lr=0.1",
        meshes: &["--fsdp 2", "--fsdp 3 --cp 2", "--tp 2 --cp 2 --ulysses 1", "--cp 4 --ulysses 1 --dp 2"],
    },
    Case {
        name: "long qwen3",
        model: "qwen3.mm",
        flags: "--preset tiny --batch 1 --set S=700",
        meshes: &["--tp 2", "--cp 2 --ulysses 1"],
    },
    Case {
        name: "qwen3 of experts",
        model: "qwen3_moe.mm",
        flags: "--preset tiny --batch 4",
        meshes: &[
            "--tp 2",
            "--tp 2 --set CUT=experts",
            "--fsdp 2 --dp 2",
            "--cp 2",
            "--cp 2 --ulysses 1",
            "--tp 2 --fsdp 2 --cp 2 --ulysses 1",
            "--tp 2 --fsdp 2 --set CUT=experts",
            "--microbatches 4",
            "--microbatches 2 --fsdp 2 --tp 2 --set CUT=experts",
            "--pp 2",
            "--pp 2 --tp 2 --microbatches 2",
        ],
    },
    // The tokens of all ranks are balanced together, and layers are of two kinds.
    Case {
        name: "balanced qwen3 of experts",
        model: "qwen3_moe.mm",
        flags: "--preset tiny --batch 4 --set LAYERS=4 --set DENSE=1 --set BALANCED=1 --set BALANCE=0.1",
        meshes: &[
            "--tp 2",
            "--tp 2 --set CUT=experts",
            "--dp 2",
            "--fsdp 2 --cp 2 --ulysses 1",
            "--pp 2 --microbatches 1 --schedule gpipe",
        ],
    },
    Case {
        name: "balanced qwen3 of experts in micro-batches",
        model: "qwen3_moe.mm",
        flags: "--preset tiny --batch 8 --set LAYERS=4 --set BALANCED=1 --set BALANCE=0.1 --microbatches 2",
        // Which samples make up a micro-batch depends on the number of replicas, so there is one.
        meshes: &[
            "--tp 2",
            "--tp 2 --cp 2 --ulysses 1 --set CUT=experts",
            "--pp 2",
            "--pp 2 --schedule zb-h1",
            "--pp 4 --tp 2",
        ],
    },
    // Neither experts nor what is inside of them divides, and some experts have no token.
    Case {
        name: "uneven qwen3 of experts",
        model: "qwen3_moe.mm",
        flags: "--preset tiny --batch 3 --set S=6 --set KV_HEADS=4 --set EXPERTS=7 --set INNER=5 --set CHOSEN=1 --optim kind=sgd,lr=0.1",
        meshes: &["--tp 2", "--tp 4 --set CUT=experts", "--fsdp 2", "--cp 4 --ulysses 1 --dp 2"],
    },
    // Two instances of one file at two widths; the second tower has layers of two kinds, one after the other.
    Case {
        name: "towers",
        model: TOWERS,
        flags: "--batch 4",
        meshes: &[
            "--microbatches 4",
            "--dp 2",
            "--fsdp 2",
            "--cp 2",
            "--cp 2 --ulysses 1",
            "--tp 2",
            "--tp 2 --fsdp 2 --cp 2 --ulysses 1",
            "--pp 2",
            "--pp 2 --fsdp 2 --microbatches 2 --schedule zb-h1",
            "--pp 4 --microbatches 4",
            "--fsdp 2 --recompute full",
        ],
    },
    // Its kinds take turns, and the other tower is the longer one: a pipeline is cut in it.
    Case {
        name: "towers of a pattern",
        model: TOWERS,
        flags: "--batch 4 --preset pattern",
        meshes: &["--dp 2", "--fsdp 2", "--tp 2 --cp 2", "--pp 2 --microbatches 2", "--pp 4 --tp 2 --microbatches 4"],
    },
    // Five experts, of which a rank has three, two, one or none.
    Case {
        name: "experts",
        model: "../tests/goldens/experts.mm",
        flags: "--batch 4 --set S=10 --set DIM=12 --set HIDDEN=9 --set EXPERTS=5 --set CHOSEN=2",
        meshes: &[
            "--dp 2",
            "--fsdp 2",
            "--cp 2",
            "--tp 2",
            "--tp 2 --fsdp 2 --cp 2",
            "--microbatches 2 --tp 2",
            "--tp 2 --plan meshes/by_expert.mm",
            "--tp 4 --plan meshes/by_expert.mm",
            "--tp 2 --fsdp 2 --cp 2 --plan meshes/by_expert.mm",
            "--tp 4 --dp 2 --microbatches 2 --plan meshes/by_expert.mm",
        ],
    },
];

const TOWERS: &str = "../tests/meshes/towers.mm";

const STEPS: &str = "5";

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![];
    for case in CASES {
        for &mesh in case.meshes {
            let name = format!("{}: {}", case.name, mesh.replace("--", ""));
            trials.push(Trial::test(name, move || compare(case, mesh)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn compare(case: &Case, mesh: &str) -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let one = train(work.path(), case, "")?;
    let many = train(work.path(), case, mesh)?;
    Ok(near(&one, &many, &[("loss", 1e-6), ("grad_norm", 1e-5), ("grad/", 1e-5), ("param/", 5e-5)])?)
}

fn train(work: &Path, case: &Case, mesh: &str) -> Result<BTreeMap<String, Vec<f64>>, Failed> {
    let (plan, out) = (work.join("plan.bin"), work.join("out.safetensors"));
    let mut compile = command("mmc");
    compile.arg("compile").arg(model(case.model)).arg("-o").arg(&plan);
    finish(compile.args(case.flags.split_whitespace()).args(mesh.split_whitespace()))?;
    let mut execute = command("mmrun");
    execute
        .arg(&plan)
        .args(["--steps", STEPS, "--emit", "loss,grads,params", "--timeout", "60"])
        .arg("--outputs")
        .arg(&out);
    if case.model.starts_with("qwen3") {
        execute.arg("--inputs").arg(tokens(work, case.flags)?);
    }
    finish(&mut execute)?;
    Ok(read(&out)?)
}

/// Token ids and labels of the sizes that the flags ask for; without them all tokens would be alike.
fn tokens(work: &Path, flags: &str) -> Result<PathBuf, Failed> {
    let number = |after: &str, default: usize| {
        let rest = flags.split_once(after).map(|(_, rest)| rest);
        rest.and_then(|r| r.split_whitespace().next()?.parse().ok()).unwrap_or(default)
    };
    let (batch, length) = (number("--batch ", 1), number(" S=", 16));
    let ids = |factor: usize| -> Vec<u8> {
        (0..batch * length).flat_map(|i| ((i * i * factor + i) as i64 % 128).to_le_bytes()).collect()
    };
    let (inputs, mut labels) = (ids(7), ids(11));
    // Labels that do not count, in each sample another number of them.
    for (_, label) in labels.chunks_exact_mut(8).enumerate().filter(|(i, _)| i % (i / length + 2) == 0) {
        label.copy_from_slice(&(-100_i64).to_le_bytes());
    }
    let view = |data| TensorView::new(Dtype::I64, vec![batch, length], data);
    let path = work.join("tokens.safetensors");
    let tensors = [("ids", view(&inputs)?), ("labels", view(&labels)?)];
    std::fs::write(&path, safetensors::serialize(tensors, None)?)?;
    Ok(path)
}
