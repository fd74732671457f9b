//! Forms in which files hold parameters: each is read and saved on any mesh, FP8 is multiplied out, and what a class passes
//! over is counted. The values are numpy's and PyTorch's (`tests/goldens/forms.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use tests::binaries::{command, run};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("goldens/forms/{name}.safetensors"))
}

fn read(path: &Path) -> Tensors {
    let bytes = fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    file.iter().map(|(name, v)| (name.into(), (v.dtype(), v.shape().to_vec(), v.data().to_vec()))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, t)| (name, TensorView::new(t.0, t.1.clone(), &t.2).expect("a view")));
    let views: Vec<_> = views.collect();
    serialize_to_file(views, None, path).expect("written");
}

fn compile(here: &Path, plan: &str, words: &str) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/forms.mm");
    let mut mmc = command("mmc");
    mmc.current_dir(here).arg("compile").arg(model).args(["-o", plan]).args(words.split_whitespace());
    run(&mut mmc).expect("compiles");
}

/// What a run says, and its exit code.
fn mmrun(here: &Path, words: &str) -> (String, i32) {
    let output = command("mmrun").current_dir(here).args(words.split_whitespace()).output().expect("mmrun");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code().unwrap_or(-1))
}

fn good(here: &Path, words: &str) -> String {
    let (said, code) = mmrun(here, words);
    assert_eq!(code, 0, "{words}: {said}");
    said
}

/// The parameters that a plan without an optimiser's steps begins with.
fn loaded(here: &Path, plan: &str, weights: &str) -> (Tensors, String) {
    let said = good(here, &format!("{plan} --weights {weights} --emit params --outputs out.safetensors"));
    let params = read(&here.join("out.safetensors")).into_iter();
    let params = params.filter_map(|(name, t)| Some((name.strip_prefix("param/")?.to_string(), t)));
    (params.collect(), said)
}

#[test]
fn every_form_is_read_and_saved_on_any_mesh() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    let expected = read(&golden("expected"));
    let mut saved = read(&golden("one_by_one"));
    saved.retain(|name, _| name.contains("experts"));
    saved.extend(read(&golden("fused")).into_iter().filter(|(name, _)| name.contains("qkv")));
    let meshes = ["", "--tp 2 --fsdp 2 --batch 2", "--fsdp 3 --batch 3"];
    for (number, mesh) in meshes.iter().enumerate() {
        // Nothing is learnt, so that what is saved is what was read.
        compile(here, &format!("{number}.bin"), &format!("{mesh} --optim kind=sgd,lr=0,weight_decay=0"));
    }
    for (number, mesh) in meshes.iter().enumerate() {
        for form in ["one_by_one", "fused", "turned", "expected"] {
            fs::copy(golden(form), here.join("w.safetensors")).expect("copied");
            let (found, said) = loaded(here, &format!("{number}.bin"), "w.safetensors");
            assert!(found == expected, "{form} on {mesh}");
            assert!(!said.contains("two orders"), "{said}");
            good(here, &format!("{number}.bin --weights w.safetensors --save c --save-over --save-dtype f32"));
            assert!(read(&here.join("c/step-000001/diffusion_pytorch_model.safetensors")) == saved, "{form} on {mesh}");
            let next = (number + 1) % meshes.len();
            good(here, &format!("{next}.bin --resume c --save d --save-over --save-dtype bf16"));
            good(here, &format!("{number}.bin --resume d --save e --save-over"));
            assert!(read(&here.join("e/step-000003/diffusion_pytorch_model.safetensors")) == saved, "{form} on {mesh}");
        }
    }
}

#[test]
fn block_fp8_is_multiplied_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    fs::create_dir(here.join("w")).expect("made");
    fs::copy(golden("fp8"), here.join("w/model.safetensors")).expect("copied");
    let quantised = r#""quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 3]}"#;
    fs::write(here.join("w/config.json"), format!(r#"{{"architectures": ["Net"], "layers": 2, {quantised}}}"#))
        .expect("written");
    for (mesh, dtype) in [("", "f32"), ("--tp 2 --fsdp 2 --batch 2", "f32"), ("", "bf16")] {
        compile(here, "plan.bin", &format!("{mesh} --dtype {dtype} --optim kind=sgd,lr=0,weight_decay=0"));
        let (found, said) = loaded(here, "plan.bin", "w");
        assert!(found == read(&golden("fp8_expected")), "{mesh}");
        assert!(said.contains("24 tensors in FP8 multiplied out by the scales of their blocks"), "{said}");
    }
    // What is saved is no longer quantised, and its config says so.
    good(here, "plan.bin --weights w --save c");
    let config = fs::read_to_string(here.join("c/step-000001/config.json")).expect("a config");
    assert!(!config.contains("quantization"), "{config}");
    let (found, _) = loaded(here, "plan.bin", "c/step-000001");
    assert!(found == read(&golden("fp8_expected")));
    // Scales that are missing, or of another shape, are named.
    let mut tensors = read(&golden("fp8"));
    let scale = "layers.0.attn.q.weight_scale_inv";
    tensors.remove(scale);
    write(&here.join("w/model.safetensors"), &tensors);
    let (said, _) = mmrun(here, "plan.bin --weights w");
    assert!(
        said.contains("layers.0.attn.q.weight: is f8_e4m3[6, 7], and there is no `layers.0.attn.q.weight_scale_inv`"),
        "{said}"
    );
    tensors.insert(scale.into(), (Dtype::F32, vec![1, 3], vec![0; 12]));
    write(&here.join("w/model.safetensors"), &tensors);
    let (said, _) = mmrun(here, "plan.bin --weights w");
    assert!(said.contains("its scales are f32[1, 3], and [2, 3] is needed"), "{said}");
}

#[test]
fn what_is_wrong_with_weights_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path();
    compile(here, "plan.bin", "");
    let value = |shape: &[usize]| (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]);
    let mut all = String::new();
    let mut check = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = read(&golden("one_by_one"));
        change(&mut tensors);
        write(&here.join("w.safetensors"), &tensors);
        let (said, code) = mmrun(here, "plan.bin --weights w.safetensors");
        let said: Vec<&str> =
            said.lines().filter(|line| !line.contains("ready after") && !line.contains("step")).collect();
        all += &format!("[{code}]\n{}\n\n", said.join("\n"));
    };
    // What the class does not load is passed over; what nobody knows is not.
    check(&|tensors| {
        tensors.insert("mtp.layers.0.w".into(), value(&[2]));
        tensors.insert("extra.17.w".into(), value(&[2]));
    });
    check(&|tensors| drop(tensors.insert("extra.w".into(), value(&[2]))));
    // One expert too few, and one that is misshapen.
    check(&|tensors| drop(tensors.remove("layers.1.experts.2.up_proj.weight")));
    check(&|tensors| drop(tensors.insert("layers.1.experts.2.up_proj.weight".into(), value(&[7, 5]))));
    // A fused tensor of no form.
    check(&|tensors| {
        tensors.retain(|name, _| !name.starts_with("layers.0.experts") || name.contains("down"));
        tensors.insert("layers.0.experts.gate_up_proj".into(), value(&[3, 9, 7]));
    });
    check(&|tensors| drop(tensors.remove("layers.0.attn.k.weight")));
    for quantised in
        [r#"{"quant_method": "gptq", "bits": 4}"#, r#"{"quant_method": "modelopt", "quant_algo": "NVFP4"}"#]
    {
        fs::create_dir_all(here.join("q")).expect("made");
        fs::copy(golden("one_by_one"), here.join("q/model.safetensors")).expect("copied");
        let config = format!(r#"{{"architectures": ["Net"], "layers": 2, "quantization_config": {quantised}}}"#);
        fs::write(here.join("q/config.json"), config).expect("written");
        all += &mmrun(here, "plan.bin --weights q").0;
    }
    fs::create_dir_all(here.join("none")).expect("made");
    all += &format!("\n{}", mmrun(here, "plan.bin --weights none").0);
    insta::assert_snapshot!(all);
}
