//! Ascend plans of whole models: every exported file against the real schema, the operator table and the manifest; compiled
//! segments taken in again.

#![allow(clippy::unwrap_used)]

#[path = "../ops/cases.rs"]
mod cases;
mod emulated;
mod numerics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use target_ascend::check;
use target_ascend::proto::{Attribute, ModelDef};
use tests::binaries::{command, model, run};

fn mmc(verb: &str, plan: &Path) -> Command {
    let mut c = command("mmc");
    c.arg(verb).arg(plan);
    c
}

/// A plan and its exported folder.
struct Exported {
    folder: tempfile::TempDir,
    plan: PathBuf,
    /// What `mmc compile` printed.
    said: String,
}

fn export(words: &str) -> Exported {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.bin");
    let mut words = words.split_whitespace();
    let mut compile = mmc("compile", &model(words.next().expect("a model")));
    compile.args(words).args(["--target", "ascend-910b3", "-o"]).arg(&plan);
    let said = String::from_utf8(run(&mut compile).expect("compiles").stderr).expect("text");
    run(mmc("export", &plan).arg("-o").arg(folder.path().join("out"))).expect("exports");
    Exported { folder, plan, said }
}

impl Exported {
    fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join("out").join(path)).expect(path)
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&self.read("manifest.json")).expect("JSON")
    }
}

/// The schema inside the `torch-npu` wheel.
fn schema() -> MessageDescriptor {
    let mut pool = DescriptorPool::new();
    let bytes = include_bytes!("../../targets/ascend/tests/wheel/ge_ir.desc");
    pool.decode_file_descriptor_proto(&bytes[..]).expect("the schema decodes");
    pool.get_message_by_name("ge.proto.ModelDef").expect("ModelDef")
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list `{key}`"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}`"))
}

/// Every file decodes whole and is sound; the manifest agrees with the files and with itself.
fn check(words: &str) -> Exported {
    let exported = export(words);
    let (manifest, schema) = (exported.manifest(), schema());
    let mut arguments = BTreeMap::new();
    let script = String::from_utf8(exported.read("compile.sh")).expect("text");
    for segment in list(&manifest, "segments") {
        let (name, bytes) = (text(segment, "name"), exported.read(text(segment, "file")));
        assert!(bytes.len() < 1 << 20, "{name} has {} bytes", bytes.len());
        let real = DynamicMessage::decode(schema.clone(), bytes.as_slice()).expect("the real schema decodes it");
        assert_eq!(real.unknown_fields().count(), 0);
        assert_eq!(real.encode_to_vec().len(), bytes.len(), "{name} has parts that the schema does not keep");
        let model = ModelDef::decode(bytes.as_slice()).expect("it decodes");
        if let Err(findings) = check::model(&model) {
            panic!("{words}: {name}: {findings:#?}");
        }
        assert!(script.lines().any(|line| line == text(segment, "atc")), "compile.sh lacks {name}");
        let fixed = list(segment, "inputs").len() + list(segment, "outputs").len();
        arguments.insert(name.to_owned(), fixed + usize::from(segment["workspace_estimate"] != 0));
    }
    let files = std::fs::read_dir(exported.folder.path().join("out/segments")).expect("a folder").count();
    assert_eq!(files, arguments.len());
    for program in list(&manifest, "programs") {
        let buffers = list(program, "buffers");
        for step in list(program, "order").iter().filter(|s| s.get("launch").is_some()) {
            let args = list(step, "args");
            assert_eq!(Some(&args.len()), arguments.get(text(step, "launch")), "arguments of {step}");
            for arg in args {
                let [buffer, offset, bytes] = [0, 1, 2].map(|i| arg[i].as_u64().expect("a number"));
                let buffer = &buffers[buffer as usize];
                assert!(Some(offset + bytes) <= buffer["bytes"].as_u64(), "{arg} reaches past {buffer}");
            }
        }
    }
    exported
}

fn explain(plan: &Path) -> String {
    let text = String::from_utf8(run(&mut mmc("explain", plan)).expect("explains").stdout).expect("text");
    text.split_once("  operators").map(|(_, rest)| format!("operators{rest}")).expect("a table of operators")
}

#[test]
fn wan_tiny() {
    check("wan2.2.mm --preset tiny --dtype f32");
    check("wan2.2.mm --preset tiny --dtype bf16 --cp 2 --ulysses 1");
    check("wan2.2.mm --preset tiny --dtype f32 --cp 2 --ulysses 1");
    insta::assert_snapshot!(explain(&check("wan2.2.mm --preset tiny --dtype bf16 --tp 2").plan));
}

#[test]
fn qwen3_tiny() {
    check("qwen3.mm --preset tiny --dtype bf16 --fsdp 2");
    insta::assert_snapshot!(explain(&check("qwen3.mm --preset tiny --dtype f32").plan));
}

/// In f32 an Ascend has no fused attention: it is computed so where somebody asks for it, and is told what that costs.
#[test]
fn bf16_is_the_default() {
    let [narrow, wide] = ["", " --dtype f32"].map(|dtype| export(&format!("wan2.2.mm --preset tiny{dtype}")));
    assert_eq!((&narrow.manifest()["dtype"], &wide.manifest()["dtype"]), (&"bf16".into(), &"f32".into()));
    assert!(!narrow.said.contains("warning"), "{}", narrow.said);
    let said = &wide.said;
    assert!(said.contains("warning: in f32 an Ascend has no fused attention"), "{said}");
    assert!(
        said.contains("a rank needs ") && said.contains("--dtype bf16, the default for an Ascend, needs "),
        "{said}"
    );
    // Nobody is sent to bf16 where it needs more: this model's working copies are larger than its scores.
    let said = export("qwen3.mm --preset tiny --dtype f32").said;
    assert!(!said.contains("bf16"), "{said}");
}

#[test]
fn advice_about_memory_begins_with_bf16() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut compile = mmc("compile", &model("wan2.2.mm"));
    compile.args("--preset tiny --set F=8 --set H=32 --set W=32 --target ascend-910b3 --memory 64MiB".split(' '));
    let plan = folder.path().join("plan.bin");
    let refused = run(compile.args(["--dtype", "f32", "-o"]).arg(&plan)).expect_err("more than there is");
    let advice = refused.split_once("any of these would fit").map(|(_, rest)| rest.lines().nth(1).unwrap_or("").trim());
    assert!(advice.is_some_and(|line| line.starts_with("--dtype bf16 ")), "{refused}");
}

/// 81 frames at 720p: few segments, each small, though the plan has thousands of launches.
#[test]
fn full_size() {
    let exported = check("wan2.2.mm --set H=90 --set W=160 --tp 4 --pp 2 --dtype bf16");
    let manifest = exported.manifest();
    let segments = list(&manifest, "segments");
    let whole = export("wan2.2.mm --set H=90 --set W=160 --tp 4 --pp 2 --dtype bf16 --overlap off").manifest();
    let whole = list(&whole, "segments").len();
    assert!(whole <= 96, "{whole} segments");
    // Pieces are alike: a product has one more segment for them, and one for what becomes of all.
    assert!((whole + 1..=whole + 8).contains(&segments.len()), "{} segments in pieces, {whole} whole", segments.len());
    assert!(exported.said.contains(&format!("{} distinct", segments.len())), "{}", exported.said);
    let launches: u64 = segments.iter().filter_map(|s| s["launches"].as_u64()).sum();
    assert!(launches > 40 * 20, "{launches} launches");
    let ranks = |axis: &str| {
        let group = list(&manifest, "groups").iter().find(|g| g["axes"] == serde_json::json!([axis]));
        group.unwrap_or_else(|| panic!("no group over {axis}"))["communicators"][0].clone()
    };
    assert_eq!((ranks("tp"), ranks("pp")), (serde_json::json!([0, 1, 2, 3]), serde_json::json!([0, 4])));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let [a, b] = [0, 1].map(|_| export("wan2.2.mm --preset tiny --dtype bf16 --tp 2"));
    assert_eq!(std::fs::read(&a.plan).expect("a plan"), std::fs::read(&b.plan).expect("a plan"));
    assert_eq!(a.read("manifest.json"), b.read("manifest.json"));
}

/// An `.om` file as GE lays it out, with nothing in it but its sizes.
fn om(work: i64, weights: i64) -> Vec<u8> {
    let mut model = ModelDef::default();
    model.attr.insert("memory_size".into(), Attribute::Int(work).into());
    model.attr.insert("weight_size".into(), Attribute::Int(weights).into());
    let model = model.encode_to_vec();
    let mut bytes = vec![0; 256];
    bytes[..4].copy_from_slice(b"IMOD");
    bytes.extend(1u32.to_le_bytes());
    bytes.extend([0u32, 0, model.len() as u32].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(model);
    bytes
}

fn compiled(exported: &Exported, work: impl Fn(usize) -> i64) -> PathBuf {
    let folder = exported.folder.path().join("out/om");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (i, segment) in list(&exported.manifest(), "segments").iter().enumerate() {
        std::fs::write(folder.join(format!("{}.om", text(segment, "name"))), om(work(i), 1 << 20)).expect("a file");
    }
    folder
}

#[test]
fn compiled_segments_are_packed() {
    let exported = export("wan2.2.mm --preset tiny --dtype bf16 --tp 2");
    let packed = exported.folder.path().join("packed.bin");
    let pack = |om: &Path| run(mmc("pack", &exported.plan).arg("--om").arg(om).arg("-o").arg(&packed));

    let refused = pack(exported.folder.path()).expect_err("no files");
    assert!(refused.contains("compiled segments are missing: k0_"), "{refused}");

    // What is there and cannot be read is not called missing.
    let folder = tempfile::tempdir().expect("a folder");
    let first = text(&list(&exported.manifest(), "segments")[0], "name").to_string();
    std::fs::create_dir(folder.path().join(format!("{first}.om"))).expect("made");
    let refused = pack(folder.path()).expect_err("a folder in the place of a file");
    assert!(refused.contains(&format!("{first}.om: it is no regular file")), "{refused}");

    let small = compiled(&exported, |i| 1000 * (i as i64 + 1));
    pack(&small).expect("packs");
    // All share one buffer, as large as the largest needs.
    let json: Value =
        serde_json::from_slice(&run(mmc("explain", &packed).arg("--json")).expect("explains").stdout).expect("JSON");
    let segments = list(&exported.manifest(), "segments").len() as u64;
    assert_eq!(json["ranks"][0]["workspace_bytes"], (1000 * segments).next_multiple_of(512));
    assert!(explain(&packed).contains("FlashAttentionScore"));

    let again = run(mmc("pack", &packed).arg("--om").arg(&small)).expect_err("packed twice");
    assert!(again.contains("packed already"), "{again}");

    let large = compiled(&exported, |_| 80 << 30);
    let refused = pack(&large).expect_err("more than the device has");
    assert!(refused.contains("and an Ascend910B3 has 64.0 GiB"), "{refused}");
    std::fs::write(large.join(text(&exported.manifest()["segments"][0], "name").to_owned() + ".om"), "x")
        .expect("a file");
    let refused = pack(&large).expect_err("no om");
    assert!(refused.contains("it is no .om file"), "{refused}");
}

#[test]
fn other_plans_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.bin");
    let compile = &mut mmc("compile", &model("wan2.2.mm"));
    run(compile.args(["--preset", "tiny", "--target", "none", "-o"]).arg(&plan)).expect("compiles");
    let refused = run(mmc("export", &plan).arg("-o").arg(folder.path())).expect_err("no segments");
    assert!(refused.contains("the plan was compiled for none, and only plans for Ascend have segments"), "{refused}");
}

#[test]
fn hosts_become_a_rank_table() {
    let exported = export("wan2.2.mm --preset tiny --dp 16");
    let out = exported.folder.path().join("out");
    run(mmc("export", &exported.plan).args(["--hosts", "a=10.0.0.1,b=10.0.0.2", "-o"]).arg(&out)).expect("exports");
    let table: Value = serde_json::from_slice(&exported.read("rank_table.json")).expect("JSON");
    assert_eq!((&table["version"], &table["server_count"]), (&"1.0".into(), &"2".into()));
    let refused = run(mmc("export", &exported.plan).args(["--hosts", "a", "-o"]).arg(&out)).expect_err("one host");
    assert!(refused.contains("16 ranks need 2 hosts of 8 devices, and 1 are listed"), "{refused}");
}
