//! Tests of published weights as users have them: other names, tied tensors, variants, files that are no weights.

use std::fs;
use std::path::Path;

use data::{Pieces, Share, Weights, write_tensors};
use plan::{Layout, Parameter, sample};
use tempfile::{TempDir, tempdir};
use types::{Config, Cut, Fact, Figure, Mesh, Name, NamePattern, TensorType};

fn parameters(names: &[&str]) -> Vec<Parameter> {
    let of = |names: &&str| {
        let mut parameter = sample::line().manifest.parameters.remove(0);
        let mut names = names.split(' ');
        parameter.ty = "f32[N:2]".parse().expect("a type");
        parameter.name = names.next().unwrap_or_default().into();
        parameter.aliases = names.map(Into::into).collect();
        parameter
    };
    names.iter().map(of).collect()
}

fn write(folder: &TempDir, file: &str, tensors: &[(&str, f32)]) {
    let path = folder.path().join(file);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let ty: TensorType = "f32[N:2]".parse().expect("a type");
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(_, v)| [v.to_le_bytes(); 2].concat()).collect();
    let pieces: Vec<_> = tensors.iter().zip(&bytes).map(|((name, _), bytes)| Pieces::whole(name, &ty, bytes)).collect();
    write_tensors(&path, &pieces).expect("written");
}

fn tie() -> Config {
    let figure = Figure {
        keys: vec!["tie_word_embeddings".into()],
        default: None,
        cases: vec![],
        value: Fact::Bool(true),
        setting: Some("TIE".into()),
    };
    Config {
        class: "Net".into(),
        figures: vec![figure],
        ignored_weights: vec![NamePattern::new(r"^mtp\.").expect("a pattern")],
        renames: vec![],
        other_weights: vec![],
    }
}

/// What is told of good weights, with the value of the first parameter; or the error with its way out.
fn open(path: &Path, names: &[&str]) -> Result<(f32, String), String> {
    let parameters = parameters(names);
    let opened = Weights::open(path, &parameters).and_then(|weights| {
        let told = weights.check(&parameters, &[tie()])?;
        let mut out = [0; 8];
        weights.load(&parameters[0], &Share::whole(&parameters[0].ty), &mut out)?;
        Ok((f32::from_le_bytes(*out.first_chunk().expect("four bytes")), told.join("; ")))
    });
    opened.map_err(|e| format!("{e}\n{}", e.help().unwrap_or_default()))
}

fn refused(path: &Path, names: &[&str], parts: &[&str]) {
    let error = open(path, names).expect_err("refused");
    parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
}

#[test]
fn tied_weights_may_be_there_under_both_names() {
    let folder = tempdir().expect("a folder");
    let names = ["model.embed.weight lm_head.weight", "model.norm"];
    let path = folder.path().join("w.safetensors");
    for equal in [
        &[("model.embed.weight", 1.0), ("lm_head.weight", 1.0), ("model.norm", 2.0)][..],
        &[("model.embed.weight", 1.0), ("model.norm", 2.0)],
        &[("lm_head.weight", 1.0), ("model.norm", 2.0)],
        &[("module.model.embed.weight", 1.0), ("module.lm_head.weight", 1.0), ("module.model.norm", 2.0)],
        &[("embed.weight", 1.0), ("norm", 2.0)],
    ] {
        write(&folder, "w.safetensors", equal);
        assert_eq!(open(&path, &names).map(|(v, _)| v), Ok(1.0), "{equal:?}");
    }
    write(&folder, "w.safetensors", &[("model.embed.weight", 1.0), ("lm_head.weight", 3.0), ("model.norm", 2.0)]);
    refused(&path, &names, &["model.embed.weight: differs from `lm_head.weight` at element 0", "`--set TIE=false`"]);
}

#[test]
fn a_prefix_is_said_and_buffers_are_passed_over() {
    let folder = tempdir().expect("a folder");
    let names = ["blocks.0.w b.0.w", "blocks.1.w b.1.w", "head.w"];
    let path = folder.path().join("w.safetensors");
    for (prefix, buffer) in [("model.diffusion_model.", "rotary_emb.inv_freq"), ("_orig_mod.", "position_ids")] {
        let all = ["b.0.w", "b.1.w", "head.w", buffer].map(|n| format!("{prefix}{n}"));
        write(&folder, "w.safetensors", &all.each_ref().map(|n| (n.as_str(), 4.0)));
        let (value, told) = open(&path, &names).expect("taken");
        assert_eq!(value, 4.0);
        assert!(told.contains(&format!("without the prefix `{prefix}`")), "{told}");
        assert!(told.contains(&format!("passed over 1 buffer in {} ({buffer})", path.display())), "{told}");
    }
    // Averages stay beside what they are averages of, and are taken where they are all there is.
    let plain = [("net.b.0.w", 4.0), ("net.b.1.w", 4.0), ("net.head.w", 4.0)];
    let average = [("ema.b.0.w", 5.0), ("ema.b.1.w", 5.0), ("ema.head.w", 5.0)];
    write(&folder, "w.safetensors", &[plain, average].concat());
    let (value, told) = open(&path, &names).expect("taken");
    assert_eq!(value, 4.0);
    assert!(told.contains("passed over 3 averages") && told.contains("without the prefix `net.`"), "{told}");
    write(&folder, "w.safetensors", &average);
    assert_eq!(open(&path, &names).map(|(v, _)| v), Ok(5.0));
    // Each folder of a pipeline has its own.
    let names = ["transformer.w", "transformer.v", "transformer_2.w", "transformer_2.v"];
    write(&folder, "p/transformer/x.safetensors", &[("module.w", 1.0), ("module.v", 1.0)]);
    write(&folder, "p/transformer_2/x.safetensors", &[("w", 2.0), ("v", 2.0)]);
    assert_eq!(open(&folder.path().join("p"), &names).map(|(v, _)| v), Ok(1.0));
}

#[test]
fn long_lists_are_cut() {
    let folder = tempdir().expect("a folder");
    let have: Vec<String> = (0..30).map(|i| format!("x{i}.y")).collect();
    write(&folder, "w.safetensors", &have.iter().map(|n| (n.as_str(), 1.0)).collect::<Vec<_>>());
    let want: Vec<String> = (0..25).map(|i| format!("layers.{i}.weight")).collect();
    let want: Vec<&str> = want.iter().map(String::as_str).collect();
    let error = open(&folder.path().join("w.safetensors"), &want).expect_err("another model");
    assert!(error.contains("missing     and 15 more") && error.contains("not asked   and 20 more"), "{error}");
    assert!(error.lines().count() < 26, "{error}");
    assert!(error.contains("found wrong: 55; parameters of the model: 25"), "{error}");
}

#[test]
fn variants_are_left_and_missing_shards_named() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().to_path_buf();
    write(&folder, "model.safetensors", &[("w", 1.0)]);
    write(&folder, "model.fp16.safetensors", &[("w", 2.0)]);
    write(&folder, "model_ema.safetensors", &[("w", 3.0)]);
    let (value, told) = open(&path, &["w"]).expect("taken");
    assert_eq!(value, 1.0);
    assert!(told.contains("not read in") && told.contains("model.fp16, model_ema"), "{told}");
    fs::remove_file(path.join("model.safetensors")).expect("removed");
    refused(&path, &["w"], &["several variants of weights: model.fp16, model_ema"]);

    let folder = tempdir().expect("a folder");
    let path = folder.path().to_path_buf();
    write(&folder, "model-00001-of-00002.safetensors", &[("w", 1.0)]);
    refused(&path, &["w", "v"], &["are 2 files, of which some are missing: model-00002-of-00002.safetensors"]);
    let shard = path.join("model-00001-of-00002.safetensors");
    refused(&shard, &["w", "v"], &["missing     v", "this file is number 1 of 2"]);
    let index = r#"{"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}"#;
    fs::write(path.join("model.safetensors.index.json"), index).expect("written");
    refused(&path, &["w", "v"], &["index.json: the weights are 2 files", "missing: model-00002-of-00002.safetensors"]);
    write(&folder, "model-00002-of-00002.safetensors", &[("v", 2.0)]);
    assert_eq!(open(&path, &["w", "v"]).map(|(v, _)| v), Ok(1.0));
    write(&folder, "model-00002-of-00002.safetensors", &[("u", 2.0)]);
    refused(
        &path,
        &["w", "v"],
        &["v: the index puts it into model-00002-of-00002.safetensors, which does not have it"],
    );
}

#[test]
fn what_is_no_safetensors_file_is_named_for_what_it_is() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    let whole = {
        write(&folder, "w.safetensors", &[("w", 1.0)]);
        fs::read(&path).expect("read")
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 988097824\n";
    for (bytes, part) in [
        (&pointer[..], "Git LFS pointer to a file of 988097824 bytes"),
        (b"PK\x03\x04\0\0archive/data.pkl", "PyTorch pickle"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF", "PyTorch pickle"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (b"<html><title>Sign in</title>", "HTML"),
        (b"{\"error\": \"Entry not found\"}", "JSON"),
        (b"", "the file is empty"),
        (&whole[..whole.len() - 3], "cut: its tensors end at byte"),
        (&whole[..20], "cut: its header needs"),
        (&[0; 100], "zeros"),
    ] {
        fs::write(&path, bytes).expect("written");
        refused(&path, &["w"], &["w.safetensors: no safetensors file: ", part]);
    }
    fs::remove_file(&path).expect("removed");
    fs::write(folder.path().join("pytorch_model.bin"), b"PK").expect("written");
    refused(folder.path(), &["w"], &["no safetensors files", "pytorch_model.bin is there"]);
    fs::write(folder.path().join("model.safetensors.index.json"), b"<html>").expect("written");
    refused(folder.path(), &["w"], &["no index of safetensors files: it is an HTML"]);
    for (index, part) in [
        ("[1, 2]", "it is a JSON list, and an object with `weight_map` is needed"),
        (r#"[{"w": "w.safetensors"}]"#, "it is a JSON list"),
        ("\u{feff}{}", "it begins with a byte order mark"),
        ("{}", "missing field `weight_map`"),
    ] {
        fs::write(folder.path().join("model.safetensors.index.json"), index).expect("written");
        refused(folder.path(), &["w"], &["no index of safetensors files: ", part]);
    }
}

#[test]
fn a_weights_file_that_shrinks_is_named() {
    let folder = tempdir().expect("a folder");
    write(&folder, "w.safetensors", &[("w", 1.0)]);
    let path = folder.path().join("w.safetensors");
    let parameters = parameters(&["w"]);
    let weights = Weights::open(&path, &parameters).expect("opens");
    weights.check(&parameters, &[]).expect("good");
    fs::File::options().write(true).open(&path).expect("opens").set_len(20).expect("cut");
    let error = weights.load(&parameters[0], &Share::whole(&parameters[0].ty), &mut [0; 8]).expect_err("gone");
    assert!(error.to_string().contains("w.safetensors: the file shrank while it was read"), "{error}");
}

#[test]
fn a_config_beside_the_weights_must_agree() {
    let folder = tempdir().expect("a folder");
    write(&folder, "model.safetensors", &[("w", 1.0)]);
    let config = folder.path().join("config.json");
    for path in [folder.path().to_path_buf(), folder.path().join("model.safetensors")] {
        fs::write(&config, r#"{"tie_word_embeddings": true}"#).expect("written");
        open(&path, &["w"]).expect("agrees");
        fs::write(&config, r#"{"tie_word_embeddings": false}"#).expect("written");
        let parts = ["config.json contradicts the plan", "is false, and the plan was compiled with TIE = true"];
        refused(&path, &["w"], &parts);
    }
}

#[test]
fn values_that_are_not_finite_are_named_by_their_element() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    let check = |stored: &str, bytes: &[u8], plan: &str, expect: Result<(), &str>| {
        let stored: TensorType = stored.parse().expect("a type");
        write_tensors(&path, &[Pieces::whole("net.w", &stored, bytes)]).expect("written");
        let mut parameters = parameters(&["w"]);
        parameters[0].ty = plan.parse().expect("a type");
        let weights = Weights::open(&path, &parameters).expect("opens");
        weights.check(&parameters, &[]).expect("fits");
        let mut out = vec![0; parameters[0].ty.bytes()];
        let loaded = weights.load(&parameters[0], &Share::whole(&parameters[0].ty), &mut out);
        match (loaded.map_err(|e| e.to_string()), expect) {
            (Ok(()), Ok(())) => {}
            (Err(told), Err(part)) => {
                assert!(told.contains(&format!("w.safetensors: `net.w`: {part}")), "{told}");
            }
            (found, expect) => panic!("{found:?}, and {expect:?} is right"),
        }
    };
    let f32s = |values: [f32; 4]| values.map(f32::to_le_bytes).concat();
    let f64s = |values: [f64; 4]| values.map(f64::to_le_bytes).concat();
    let largest = f32s([1.0, -2.0, f32::MAX, f32::MIN]);
    check("f32[N:2, M:2]", &largest, "f32[N:2, M:2]", Ok(()));
    check("f32[N:2, M:2]", &f32s([1.0, 2.0, f32::NAN, 3.0]), "f32[N:2, M:2]", Err("element [1, 0] is NaN"));
    check("f32[N:2, M:2]", &f32s([1.0, 2.0, 3.0, f32::INFINITY]), "bf16[N:2, M:2]", Err("element [1, 1] is inf"));
    check("f32[N:2, M:2]", &f32s([f32::NEG_INFINITY; 4]), "f64[N:2, M:2]", Err("element [0, 0] is -inf"));
    check(
        "f64[N:2, M:2]",
        &f64s([1.0, 1e300, 2.0, 3.0]),
        "f32[N:2, M:2]",
        Err("element [0, 1] is 1e300, which is too"),
    );
    check("f64[N:2, M:2]", &f64s([1.0, 1e300, 2.0, 3.0]), "f64[N:2, M:2]", Ok(()));
    check("f64[N:2, M:2]", &f64s([1.0, f64::NAN, 2.0, 3.0]), "f32[N:2, M:2]", Err("element [0, 1] is NaN"));
    check("f32[N:2, M:2]", &largest, "bf16[N:2, M:2]", Err("element [1, 0] is 3.402"));
    check(
        "f32[N:2, M:2]",
        &f32s([1.0, 65504.0, 1e6, 3.0]),
        "f16[N:2, M:2]",
        Err("element [1, 0] is 1e6, which is too"),
    );
}

#[test]
fn of_a_share_the_element_is_named_in_the_whole_tensor() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    let mut parameters = parameters(&["w"]);
    parameters[0].ty = "f32[N:4, M:4]".parse().expect("a type");
    let mut values = [0f32; 16];
    values[4 + 3] = f32::NAN;
    let bytes = values.map(f32::to_le_bytes).concat();
    write_tensors(&path, &[Pieces::whole("w", &parameters[0].ty, &bytes)]).expect("written");
    let weights = Weights::open(&path, &parameters).expect("opens");
    let mesh = Mesh::new([("tp", 2)]).expect("a mesh");
    let cut = Cut { axes: std::iter::once(Name::new("tp")).collect() };
    let layout = Layout { cuts: vec![Cut::default(), cut] };
    for (rank, expect) in [(0, None), (1, Some("element [1, 3] is NaN"))] {
        let share = Share::new(&mesh, &[rank], &parameters[0].ty, &layout);
        let told = weights.load(&parameters[0], &share, &mut [0; 32]).err().map(|e| e.to_string());
        match expect {
            None => assert_eq!(told, None),
            Some(part) => assert!(told.as_ref().is_some_and(|t| t.contains(part)), "{told:?}"),
        }
    }
}
