//! `mmrun --probe` and `mmc compare`: a mistake in a model is found at its first module.

use std::path::{Path, PathBuf};
use std::process::Output;

use libtest_mimic::{Arguments, Failed, Trial};
use safetensors::tensor::{Dtype, TensorView};
use tests::binaries::{command, run as finish};

const NET: &str = include_str!("net.mm");

/// What is written wrong, and the first module that shows it.
const FAULTS: &[(&str, &str, &str)] = &[
    ("layer_norm(DIM, 1e-5)", "layer_norm(DIM, 1e-3)", "blocks.0.norm1"),
    ("rms_norm(HEAD, 1e-6)", "rms_norm(HEAD, 1e-3)", "blocks.0.attn.q_norm"),
    ("rms_norm(HEAD, 2e-6)", "rms_norm(HEAD, 1e-3)", "blocks.0.attn.k_norm"),
    ("rms_norm(DIM, 3e-6)", "rms_norm(DIM, 1e-3)", "blocks.0.norm2"),
    ("layer_norm(DIM, 4e-5)", "layer_norm(DIM, 1e-3)", "norm"),
    ("q: linear(DIM, DIM)", "q: linear(DIM, DIM).no_bias()", "blocks.0.attn.q"),
    ("k: linear(DIM, DIM)", "k: linear(DIM, DIM).no_bias()", "blocks.0.attn.k"),
    ("v: linear(DIM, DIM)", "v: linear(DIM, DIM).no_bias()", "blocks.0.attn.v"),
    ("o: linear(DIM, DIM)", "o: linear(DIM, DIM).no_bias()", "blocks.0.attn.o"),
    ("up: linear(DIM, FFN)", "up: linear(DIM, FFN).no_bias()", "blocks.0.mlp.up"),
    ("head: linear(DIM, VOCAB)", "head: linear(DIM, VOCAB).no_bias()", "head"),
    ("self.q.forward(x))).rotate_halves", "self.q.forward(x))).rotate_pairs", "blocks.0.attn.o"),
    ("THETA: f64 = 100.0", "THETA: f64 = 10000.0", "blocks.0.attn.o"),
    ("attend_causal(q, k, v)", "attend(q, k, v)", "blocks.0.attn.o"),
    (
        "swiglu(self.gate.forward(x), self.up.forward(x))",
        "swiglu(self.up.forward(x), self.gate.forward(x))",
        "blocks.0.mlp.down",
    ),
    ("swiglu(self.gate.forward(x),", "swiglu(self.gate.forward(x) * 1.702,", "blocks.0.mlp.down"),
    ("x + self.mlp.forward", "self.mlp.forward", "blocks.0"),
    ("let x = x + self.attn", "let x = self.attn", "blocks.0.norm2"),
    ("cast(work).gelu_tanh()", "cast(work).silu()", "enter"),
    ("embedding(VOCAB, DIM)", "embedding(VOCAB, DIM).init(normal(0.02))", "embed"),
    (
        "self.o.forward(attend_causal(q, k, v).merge([HEADS, HEAD], DIM))",
        "self.o.forward(attend_causal(q, k, v).merge([HEADS, HEAD], DIM)) * 0.5",
        "blocks.0.attn",
    ),
    ("net.norm.forward(x))", "net.norm.forward(x * 2.0 + 0.1))", "norm"),
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = FAULTS
        .iter()
        .map(|fault| Trial::test(format!("{}: {}", fault.2, fault.1), move || a_fault_is_found(fault)))
        .collect();
    trials.push(Trial::test("equal runs agree, on a mesh too", equal_runs_agree));
    trials.push(Trial::test("places are those of the modules", places));
    trials.push(Trial::test("refusals", refusals));
    libtest_mimic::run(&arguments, trials).exit();
}

fn a_fault_is_found(&(right, wrong, module): &(&str, &str, &str)) -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let changed = NET.replacen(right, wrong, 1);
    if changed == NET {
        return Err(format!("the model has no `{right}`").into());
    }
    probe(work.path(), "right", NET, "")?;
    probe(work.path(), "wrong", &changed, "")?;
    let (status, said) = compare(work.path(), "wrong", "right", "1e-5")?;
    let first = said.lines().find_map(|line| line.strip_prefix("--> ")).and_then(|line| line.split_whitespace().next());
    if status || first != Some(module) {
        return Err(format!("{module} is not found first:\n{said}").into());
    }
    Ok(())
}

fn equal_runs_agree() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    probe(work.path(), "one", NET, "")?;
    let plan = "\npub fn plan(p: &mut Plan) {\n    p.shard(B, \"dp\").shard(HEADS, \"tp\").shard(FFN, \"tp\").fsdp(\"fsdp\");\n    p.pipeline(LAYERS, \"pp\", OneFOneB);\n}\n";
    let net = format!("{NET}{plan}");
    for mesh in ["--tp 2 --fsdp 2", "--dp 2 --pp 3"] {
        probe(work.path(), "many", &net, mesh)?;
        let (status, said) = compare(work.path(), "many", "one", "1e-5")?;
        if !status || !said.starts_with("46 modules in both, 0 over") {
            return Err(format!("{mesh}: {said}").into());
        }
    }
    Ok(())
}

fn places() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let folder = probe(work.path(), "one", NET, "")?;
    let list = std::fs::read_to_string(folder.join("modules.json"))?;
    let list: Vec<serde_json::Value> = serde_json::from_str(&list)?;
    let names: Vec<&str> = list.iter().filter_map(|m| m["name"].as_str()).collect();
    let block = ["norm1", "attn.q", "attn.q_norm", "attn.k", "attn.k_norm", "attn.v", "attn.o", "attn"];
    let at = names.iter().position(|n| *n == "blocks.1.norm1").ok_or("no second block")?;
    let order: Vec<String> = block.iter().map(|name| format!("blocks.1.{name}")).collect();
    let mut found = names[at..at + block.len()].to_vec();
    // Queries and keys do not wait for each other.
    found[1..6].sort_by_key(|name| block.iter().position(|b| name.ends_with(b)));
    assert_eq!(found, order, "in order of computation");
    for module in &list {
        let place = module["place"].as_str().unwrap_or_default();
        assert!(place.starts_with("net.mm:"), "{module}");
    }
    Ok(())
}

fn refusals() -> Result<(), Failed> {
    let work = tempfile::tempdir()?;
    let model = work.path().join("net.mm");
    std::fs::write(&model, NET)?;
    let compile = |probe: &[&str]| -> Result<Output, Failed> {
        let mut compile = command("mmc");
        compile.arg("compile").arg(&model).args(["--task", "forward", "--target", "none", "-o"]);
        Ok(compile.arg(work.path().join("plan.bin")).args(probe).output()?)
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let none = compile(&["--probe", "attention"])?;
    assert!(!none.status.success() && said(&none).contains("no module matches `--probe attention`"), "{}", said(&none));
    assert!(said(&none).contains("modules are embed, enter, blocks.{}"), "{}", said(&none));
    let bad = compile(&["--probe", "("])?;
    assert!(!bad.status.success() && said(&bad).contains("no regular expression"), "{}", said(&bad));
    finish(command("mmc").arg("compile").arg(&model).args(["--task", "forward", "-o"]).arg(work.path().join("p.bin")))?;
    let plain =
        command("mmrun").arg(work.path().join("p.bin")).args(["--probe", ".", "-o"]).arg(work.path()).output()?;
    assert!(!plain.status.success() && said(&plain).contains("mmc compile .. --probe REGEX"), "{}", said(&plain));
    Ok(())
}

/// Runs a model with probes; the folder that they are in.
fn probe(work: &Path, name: &str, text: &str, mesh: &str) -> Result<PathBuf, Failed> {
    let (model, plan, folder) = (work.join("net.mm"), work.join("plan.bin"), work.join(name));
    std::fs::write(&model, text)?;
    let mut compile = command("mmc");
    compile.arg("compile").arg(&model).args(["--task", "forward", "--batch", "4", "--probe", ".", "-o"]).arg(&plan);
    finish(compile.args(mesh.split_whitespace()))?;
    let ids: Vec<u8> = (0..36_i64).flat_map(|i| (i * i % 29).to_le_bytes()).collect();
    let inputs = work.join("inputs.safetensors");
    let view = TensorView::new(Dtype::I64, vec![4, 9], &ids)?;
    std::fs::write(&inputs, safetensors::serialize([("ids", view)], None)?)?;
    let mut execute = command("mmrun");
    finish(execute.arg(&plan).arg("--inputs").arg(&inputs).args(["--probe", ".", "-o"]).arg(&folder))?;
    Ok(folder)
}

/// Whether the two agree, and what is said.
fn compare(work: &Path, a: &str, b: &str, tolerance: &str) -> Result<(bool, String), Failed> {
    let mut compare = command("mmc");
    let output =
        compare.arg("compare").arg(work.join(a)).arg(work.join(b)).args(["--tolerance", tolerance]).output()?;
    let said = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned()).concat();
    Ok((output.status.success(), said))
}
