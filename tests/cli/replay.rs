//! `mmrun --inputs DIR`: each step has a file of its own.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tests::binaries::{command, model, run};
use tests::outputs::read;

/// A batch of ids and labels that depends on `salt`.
fn write(path: &Path, salt: i64, with_labels: bool) {
    let ids: Vec<u8> = (0..32).flat_map(|i: i64| ((i * i * 7 + i * salt) % 128).to_le_bytes()).collect();
    let view = || TensorView::new(Dtype::I64, vec![2, 16], &ids).expect("a tensor");
    let mut tensors = vec![("input_ids", view())];
    tensors.extend(with_labels.then(|| ("labels", view())));
    std::fs::write(path, safetensors::serialize(tensors, None).expect("a file")).expect("written");
}

#[test]
fn a_folder_of_inputs_has_a_file_for_each_step() {
    let work = tempfile::tempdir().expect("a folder");
    let (plan, folder) = (work.path().join("plan.bin"), work.path().join("inputs"));
    let mut compile = command("mmc");
    compile.arg("compile").arg(model("qwen3.mm")).args(["--preset", "tiny", "--batch", "2", "-o"]).arg(&plan);
    // So small a rate that no step changes the next one's loss.
    run(compile.args(["--optim", "kind=sgd,lr=1e-20"])).expect("compiles");
    let losses = |inputs: &Path, steps: &str| {
        let out = work.path().join("out.safetensors");
        let mut execute = command("mmrun");
        run(execute.arg(&plan).arg("--inputs").arg(inputs).args(["--steps", steps]).arg("--outputs").arg(&out))
            .map(|_| read(&out).expect("outputs")["loss"].clone())
    };
    std::fs::create_dir(&folder).expect("a folder");
    // The order is that of numbers: 2, 9, 10.
    let names = ["step-2.safetensors", "step-9.safetensors", "step-10.safetensors"];
    let mut expected = vec![];
    for (salt, name) in names.iter().enumerate() {
        write(&folder.join(name), salt as i64 * 3 + 1, true);
        expected.extend(losses(&folder.join(name), "1").expect("one step"));
    }
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    assert_eq!(losses(&folder, "3").expect("three steps"), expected);
    let error = losses(&folder, "4").expect_err("there is no fourth file");
    assert!(error.contains("step 4 has no file of inputs: there are 3"), "{error}");
    write(&folder.join(names[1]), 4, false);
    let error = losses(&folder, "3").expect_err("no labels");
    assert!(error.contains("only one of it and step-2.safetensors has `labels`"), "{error}");
    let empty = work.path().join("empty");
    std::fs::create_dir(&empty).expect("a folder");
    let error = losses(&empty, "1").expect_err("no files");
    assert!(error.contains("no file of inputs"), "{error}");
}
