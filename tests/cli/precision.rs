//! `--precision`: what is computed in bf16 is as near to the class in that precision as the class is to itself in f32
//! (`tests/goldens/precision.py`).

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;
use tests::binaries::{command, model, run};
use tests::outputs::{Tensors, distance, read};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

/// A case of the goldens, compiled for a task under these flags and run once.
fn computed(case: &Path, task: &str, flags: &str, inputs: &Path, work: &Path) -> Tensors {
    let about: Value = serde_json::from_slice(&std::fs::read(case.join("case.json")).expect("there")).expect("JSON");
    let (plan, out) = (work.join("plan.bin"), work.join("out.safetensors"));
    let mut mmc = command("mmc");
    mmc.arg("compile").arg(model(about["model"].as_str().expect("a model"))).args(["--task", task, "-o"]).arg(&plan);
    mmc.args(["--batch", &about["batch"].to_string()]).args(flags.split_whitespace());
    mmc.args(about["preset"].as_str().iter().flat_map(|preset| ["--preset", preset]));
    for (name, value) in about["set"].as_object().expect("sizes") {
        mmc.args(["--set", &format!("{name}={value}")]);
    }
    run(&mut mmc).expect("compiles");
    let mut mmrun = command("mmrun");
    mmrun.arg(&plan).arg("--weights").arg(case.join("weights.safetensors")).arg("--inputs").arg(inputs);
    mmrun.arg("--outputs").arg(&out);
    if task == "train" {
        mmrun.args(["--emit", "loss,grads"]);
    }
    run(&mut mmrun).expect("runs");
    read(&out).expect("outputs")
}

#[test]
fn each_precision_is_that_of_the_class() {
    let work = tempfile::tempdir().expect("a folder");
    for (family, name, output) in [("qwen3", "bf16_train", "logits"), ("wan", "t2v_train_bf16", "sample")] {
        let case = goldens().join(family).join(name);
        let bytes = std::fs::read(goldens().join("precision").join(format!("{family}.safetensors"))).expect("there");
        let all = SafeTensors::deserialize(&bytes).expect("tensors");
        let forward = work.path().join("forward.safetensors");
        let inputs =
            all.tensors().into_iter().filter_map(|(n, view)| Some((n.strip_prefix("input/")?.to_string(), view)));
        safetensors::serialize_to_file(inputs, None, &forward).expect("written");
        let class = read(&goldens().join("precision").join(format!("{family}.safetensors"))).expect("there");
        let wide = read(&case.join("expected.safetensors")).expect("there");
        for mode in ["autocast", "pure"] {
            let flags = format!("--precision {mode}");
            let out = computed(&case, "forward", &flags, &forward, work.path());
            let (theirs, exact) = (&class[&format!("{mode}/out")], &class["f32/out"]);
            let (apart, own) = (distance(theirs, &out[output]), distance(exact, theirs));
            eprintln!("{family} {mode} forward: {apart:.1e} from the class, which is {own:.1e} from f32");
            assert!(apart <= 2.0 * own, "{family} {mode}: {apart:e} from the class, which is {own:e} from f32");
            let train = computed(&case, "train", &flags, &case.join("inputs.safetensors"), work.path());
            let mut worst = 0.0f64;
            for (name, exact) in wide.iter().filter(|(name, _)| name.starts_with("grad/")) {
                let theirs = &class[&format!("{mode}/{name}")];
                let (apart, own) = (distance(theirs, &train[name]), distance(exact, theirs));
                worst = worst.max(apart / own);
                assert!(
                    apart <= 2.0 * own,
                    "{family} {mode} {name}: {apart:e} from the class, which is {own:e} from f32"
                );
            }
            let loss = &class[&format!("{mode}/loss")];
            let apart = distance(loss, &train["loss"]);
            eprintln!("{family} {mode}: gradients at most {worst:.2} of the class's own distance, loss {apart:.1e}");
            assert!(apart < 2e-3, "{family} {mode}: the loss is {apart:e} apart");
        }
    }
}

/// The two differ, and each is in bf16 with no other flag; a plan may say it.
#[test]
fn a_precision_is_asked_for_once() {
    let work = tempfile::tempdir().expect("a folder");
    let ir = |words: &str| {
        let mut mmc = command("mmc");
        mmc.current_dir(&work).args([
            "ir",
            "qwen3.mm",
            "--preset",
            "tiny",
            "--task",
            "forward",
            "--after",
            "precision",
        ]);
        let output = mmc.args(words.split_whitespace()).output().expect("mmc");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let [f32, bf16, autocast, pure] = ["", "--dtype bf16", "--precision autocast", "--precision pure"].map(ir);
    assert!(f32 != autocast && autocast != pure && !f32.contains("bf16"));
    assert_eq!(bf16, autocast, "the islands of --dtype bf16 are those of autocast");
    std::fs::write(
        work.path().join("p.mm"),
        "use mm::prelude::*;\npub fn plan(p: &mut Plan) {\n    p.precision(\"pure\");\n}\n",
    )
    .expect("written");
    assert_eq!(ir("--plan p.mm"), pure);
    assert_eq!(ir("--plan p.mm --precision autocast"), autocast);
    assert_eq!(ir("--plan p.mm --dtype f32"), f32);
    std::fs::write(
        work.path().join("q.mm"),
        "use mm::prelude::*;\npub fn plan(p: &mut Plan) {\n    p.precision(\"fp8\");\n}\n",
    )
    .expect("written");
    insta::assert_snapshot!(["--dtype f32 --precision pure", "--plan q.mm"].map(ir).join("\n"));
}
