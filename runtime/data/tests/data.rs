//! Tests of data, feeds, weights and checkpoints as a run uses them, and of files that are not what they should be.

use std::fs;
use std::path::Path;

use data::{
    Begin, Checkpoint, DataError, Dataset, Feeds, Folder, Inputs, Pieces, Position, Pretrained, Share, TensorFile,
    Together, Weights, latest, write_tensors,
};
use plan::{Feed, FeedId, Layout, Source, sample};
use runtime_core::FeedSource;
use tempfile::tempdir;
use types::{DType, Dim, Distribution, Indices, Key, TensorType, fill};

fn feed(name: &str, ty: &str, source: Source) -> Feed {
    Feed { name: name.into(), aliases: vec![], ty: ty.parse().expect("a type"), layout: Layout::whole(), source }
}

/// Writes a record to a file and gives its image.
fn image(folder: &Path, tensors: &[(&str, DType, &[usize], Vec<u8>)]) -> Vec<u8> {
    let path = folder.join("record.tmp");
    let dims = |sizes: &[usize]| {
        sizes.iter().enumerate().map(|(i, n)| Dim::new(format!("D{i}").as_str(), *n)).collect::<Vec<_>>()
    };
    let types: Vec<_> = tensors.iter().map(|(_, dtype, sizes, _)| TensorType::new(*dtype, dims(sizes))).collect();
    let pieces: Vec<_> =
        tensors.iter().zip(&types).map(|((name, .., data), ty)| Pieces::whole(name, ty, data)).collect();
    write_tensors(&path, &pieces).expect("written");
    let image = fs::read(&path).expect("read");
    fs::remove_file(path).expect("removed");
    image
}

fn tar(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).expect("a file"));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).expect("a member");
    }
    tar.finish().expect("a tar");
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

#[test]
fn records_of_several_members_over_several_tars() {
    let folder = tempdir().expect("a folder");
    let record = |i: usize| {
        let x = bytemuck::cast_slice(&[i as f32, i as f32 + 0.5]).to_vec();
        let half: Vec<u8> = (((i as f32).to_bits() >> 16) as u16).to_le_bytes().to_vec();
        let ids = bytemuck::cast_slice(&[i as i64, 7]).to_vec();
        [
            (format!("shard/{i:06}.latent.safetensors"), image(folder.path(), &[("x", DType::F32, &[1, 2], x)])),
            (format!("shard/{i:06}.json"), b"{}".to_vec()),
            (
                format!("shard/{i:06}.text.safetensors"),
                image(folder.path(), &[("h", DType::BF16, &[1], half), ("ids", DType::I64, &[2], ids)]),
            ),
        ]
    };
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("made");
    tar(&data.join("b.tar"), &(3..5).flat_map(record).collect::<Vec<_>>());
    tar(&data.join("a.tar"), &(0..3).flat_map(record).collect::<Vec<_>>());

    let mut set = Dataset::open(&data, 1, &|_, _, _| {}).expect("opens");
    assert_eq!(set.records(), 5);
    let x = feed("x", "bf16[B:2, N:2]", Source::Data);
    let h = feed("h", "f32[B:2, N:1]", Source::Data);
    let ids = feed("ids", "i32[B:2, N:2]", Source::Data);
    let mut seen = Vec::new();
    for step in 0..5 {
        let (mut a, mut b, mut c) = ([0; 8], [0; 8], [0; 16]);
        set.batch(&x, &Share::whole(&x.ty), step * 2, &mut a).expect("x");
        set.batch(&h, &Share::whole(&h.ty), step * 2, &mut b).expect("h");
        set.batch(&ids, &Share::whole(&ids.ty), step * 2, &mut c).expect("ids");
        for sample in 0..2 {
            let id = f32s(&b)[sample];
            assert_eq!(a[sample * 4..sample * 4 + 2], (((id.to_bits()) >> 16) as u16).to_le_bytes());
            assert_eq!(c[sample * 8..sample * 8 + 8], bytemuck::cast::<[i32; 2], [u8; 8]>([id as i32, 7]));
            seen.push(id as usize);
        }
    }
    // Ten samples are two epochs of five.
    for epoch in seen.chunks(5) {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4]);
    }
}

#[test]
fn feeds_depend_on_the_step_alone() {
    let normal = Distribution::Normal { mean: 0.0, std: 1.0 };
    let feeds = vec![
        feed("noise", "f32[N:5]", Source::Draw(normal)),
        feed("x", "f32[B:1, N:5]", Source::Data),
        feed("ids", "i64[B:1]", Source::Data),
    ];
    let make = || Feeds::new(feeds.clone(), 3, Inputs::none(&feeds), None).starting(0, 0);
    let mut source = make();
    let value = |source: &mut Feeds, feed: u32, step: u64, bytes: usize| {
        let mut out = vec![1; bytes];
        source.fill(FeedId(feed), step, &mut out).expect("filled");
        out
    };
    let forward: Vec<_> = (0..3).map(|s| (value(&mut source, 0, s, 20), value(&mut source, 1, s, 20))).collect();
    let mut again = make();
    for step in [2, 0, 1] {
        assert_eq!(forward[step as usize].1, value(&mut again, 1, step, 20));
        assert_eq!(forward[step as usize].0, value(&mut again, 0, step, 20));
    }
    let mut want = [0.0; 5];
    fill(normal, Key::new(3, "noise"), 2, 0, &mut want);
    assert_eq!(f32s(&forward[2].0), want);
    assert_eq!(value(&mut source, 2, 0, 8), [0; 8]);
    let open: Vec<_> = make().from_data(|_| true).iter().map(|feed| feed.name.to_string()).collect();
    assert_eq!(open, ["x", "ids"]);
}

/// Ids without data are of all rows; ids that are given must be of some row, or the one that is ignored.
#[test]
fn indices_are_in_range() {
    let folder = tempdir().expect("a folder");
    let ids = feed("ids", "i64[B:2, N:100]", Source::Indices(Indices { rows: 7, ignored: None }));
    let labels = feed("labels", "i32[B:2]", Source::Indices(Indices { rows: 7, ignored: Some(-100) }));
    let feeds = vec![ids, labels];
    let mut source = Feeds::new(feeds.clone(), 3, Inputs::none(&feeds), None);
    let mut out = vec![0; 1600];
    source.fill(FeedId(0), 4, &mut out).expect("filled");
    let mut seen: Vec<i64> = out.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);

    let given = |labels: [i32; 2]| {
        let path = folder.path().join("in.safetensors");
        let bytes = bytemuck::cast_slice(&labels).to_vec();
        fs::write(&path, image(folder.path(), &[("labels", DType::I32, &[2], bytes)])).expect("written");
        Inputs::open(&path, &feeds, |_| true).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(given([6, -100]), Ok(()));
    for (labels, told) in [([6, 7], "number 1 is 7"), ([-1, 0], "number 0 is -1")] {
        let error = given(labels).expect_err("refused");
        assert!(error.contains(told) && error.contains("one of 7 rows: 0 to 6, or -100"), "{error}");
    }

    let data = folder.path().join("a.tar");
    let bytes = bytemuck::cast_slice(&[9_i64; 100]).to_vec();
    tar(&data, &[("1.safetensors".into(), image(folder.path(), &[("ids", DType::I64, &[100], bytes)]))]);
    let error =
        Dataset::open(&data, 1, &|_, _, _| {}).expect("opens").check(&feeds[0]).expect_err("refused").to_string();
    assert!(error.contains("`ids`: number 0 is 9") && error.contains("a.tar"), "{error}");
}

#[test]
fn every_offender_is_named() {
    let folder = tempdir().expect("a folder");
    let mut parameters = Vec::new();
    for (name, ty) in [
        ("blocks.0.to_q.weight", "f32[O:2, I:2]"),
        ("blocks.0.to_k.weight", "f32[O:2, I:2]"),
        ("norm.weight", "f32[I:2]"),
        ("head.bias", "bf16[I:2]"),
    ] {
        let mut parameter = sample::line().manifest.parameters.remove(0);
        (parameter.name, parameter.ty, parameter.aliases) = (name.into(), ty.parse().expect("a type"), vec![]);
        parameters.push(parameter);
    }
    parameters[3].aliases.push("proj_out.bias".into());
    let path = folder.path().join("w.safetensors");
    let tensors = [
        ("blocks.0.to_q.weight", DType::F32, &[4usize][..], vec![0; 16]),
        ("blocks.0.to_k_weight", DType::F32, &[2, 2], vec![0; 16]),
        ("model.norm.weight", DType::F32, &[2], vec![0; 8]),
        ("proj_out.bias", DType::I64, &[2], vec![0; 16]),
        ("lora.up", DType::F16, &[2], vec![0; 4]),
    ];
    fs::write(&path, image(folder.path(), &tensors)).expect("written");
    let weights = Weights::open(&path, &parameters).expect("opens");
    let error = weights.check(&parameters, &[]).expect_err("wrong in five ways");
    insta::assert_snapshot!(error.to_string().replace(&folder.path().display().to_string(), "DIR"));
}

#[test]
fn an_experts_folder_is_chosen_by_name() {
    let folder = tempdir().expect("a folder");
    for (expert, value) in [("transformer", 1f32), ("transformer_2", 2f32), ("vae", 3f32)] {
        let path = folder.path().join(expert);
        fs::create_dir(&path).expect("made");
        let w = image(folder.path(), &[("w", DType::F32, &[2, 3], bytemuck::cast_slice(&[value; 6]).to_vec())]);
        fs::write(path.join("diffusion_pytorch_model.safetensors"), w).expect("written");
    }
    let mut parameters = vec![sample::line().manifest.parameters.remove(0); 2];
    parameters[0].name = "transformer.w".into();
    parameters[1].name = "transformer_2.w".into();
    let weights = Weights::open(folder.path(), &parameters).expect("opens");
    weights.check(&parameters, &[]).expect("complete");
    for (parameter, value) in parameters.iter().zip([1.0, 2.0]) {
        let mut out = [0; 24];
        weights.load(parameter, &Share::whole(&parameter.ty), &mut out).expect("loads");
        assert_eq!(f32s(&out), [value; 6]);
    }
}

fn position(step: u64) -> Position {
    let (plan_hash, model, preset) = ("ab".into(), "m.mm".into(), "tiny".into());
    Position { step, samples: 4 * step, seed: 7, plan_hash, model, preset, data: None }
}

fn save_at(folder: &Path, step: u64) {
    let (w, s) = ([step as u8; 24], step.to_le_bytes());
    let types = ["f32[O:2, I:3]", "i64[]"].map(|ty| ty.parse().expect("a type"));
    let (w, s) = (Pieces::whole("w", &types[0], &w), Pieces::whole("step", &types[1], &s));
    let together = Together::alone();
    let folder = Folder::open(folder, Begin::GoOn, 0, &together).expect("taken");
    folder.save(&position(step), (&[w], &[s]), (&Pretrained::default(), 9), &together).expect("saved");
}

/// A folder that was moved away under a run: what another run writes under its name stays that run's.
#[test]
fn a_folder_that_is_replaced_is_left_alone() {
    let folder = tempdir().expect("a folder");
    let (dir, together) = (folder.path().join("c"), Together::alone());
    let save = |to: &Folder, step: u64| {
        let (w, ty) = ([step as u8; 24], "f32[O:2, I:3]".parse().expect("a type"));
        to.save(&position(step), (&[Pieces::whole("w", &ty, &w)], &[]), (&Pretrained::default(), 9), &together)
    };
    let first = Folder::open(&dir, Begin::Fresh, 0, &together).expect("taken");
    save(&first, 1).expect("saved");
    // Without its lock, the folder is the run's still.
    fs::remove_file(dir.join("lock")).expect("removed");
    save(&first, 2).expect("saved");
    assert!(dir.join("lock").exists());
    fs::rename(&dir, folder.path().join("moved")).expect("moved");
    let second = Folder::open(&dir, Begin::Fresh, 0, &together).expect("another folder");
    let refused = save(&first, 3).expect_err("the other run is there").to_string();
    assert!(refused.contains("writes its checkpoints to this folder"), "{refused}");
    save(&second, 7).expect("saved");
    drop(second);
    let refused = save(&first, 4).expect_err("the other run was there").to_string();
    assert!(refused.contains("checkpoints of another run, step-000007"), "{refused}");
    let third = Folder::open(&dir, Begin::GoOn, 0, &together).expect("taken");
    drop(first);
    assert!(dir.join("lock").exists(), "the lock of another run stays");
    drop(third);
    let first = Folder::open(&dir, Begin::Over, 0, &together).expect("taken");
    fs::remove_dir_all(&dir).expect("removed");
    let again = Folder::open(&dir, Begin::Fresh, 0, &together).expect("made again");
    save(&again, 1).expect("saved");
    drop(again);
    assert!(save(&first, 4).expect_err("the other run was there").to_string().contains("another run"));
    fs::remove_dir_all(&dir).expect("removed");
    save(&first, 5).expect("made again");
    assert_eq!(latest(&dir).expect("good").0.position.step, 5);
}

#[test]
fn a_checkpoint_is_found_whatever_a_crash_left() {
    let folder = tempdir().expect("a folder");
    let dir = folder.path();
    let found = || latest(dir).map(|(c, _)| c.position.step);
    assert!(found().is_err());
    save_at(dir, 10);
    save_at(dir, 20);
    assert_eq!(found().expect("the latest"), 20);
    // Crashed before the pointer moved, after the rename: the older one is still a good place to go on from.
    fs::write(dir.join("latest"), "step-000010\n").expect("written");
    assert_eq!(found().expect("the one pointed at"), 10);
    fs::remove_file(dir.join("latest")).expect("removed");
    assert_eq!(found().expect("the newest"), 20);
    // Crashed in the middle of writing.
    fs::create_dir(dir.join("step-000030.tmp")).expect("made");
    fs::write(dir.join("step-000030.tmp/model.safetensors"), b"half").expect("written");
    assert_eq!(found().expect("the newest whole one"), 20);
    save_at(dir, 30);
    assert_eq!(found().expect("written after all"), 30);
    // Crashed between the two renames of a step that is written again.
    fs::rename(dir.join("step-000030"), dir.join("step-000030.old")).expect("renamed");
    assert_eq!(found().expect("the old one"), 30);
    save_at(dir, 30);
    assert!(!dir.join("step-000030.tmp").exists());
    // The one before is that of an earlier step: later ones are of another way that the run went.
    for (step, expect) in [(20, 10), (30, 20)] {
        let name = format!("step-{step:06}");
        save_at(dir, step);
        fs::rename(dir.join(&name).join("state/trainer.json"), dir.join("aside")).expect("moved");
        assert_eq!(found().expect("the one before"), expect);
        fs::rename(dir.join("aside"), dir.join(&name).join("state/trainer.json")).expect("moved");
    }
    // Each kind of damage is passed over and told.
    for (file, damage) in [("state/trainer.json", "{"), ("state/optimizer.safetensors", "x"), ("model.safetensors", "")]
    {
        save_at(dir, 40);
        fs::write(dir.join("step-000040").join(file), damage).expect("written");
        let (checkpoint, damaged) = latest(dir).expect("an older one");
        assert_eq!((checkpoint.position.step, damaged.len()), (30, 1), "{file}");
    }
    assert!(matches!(Checkpoint::open(&dir.join("step-000099")), Err(DataError::File { .. })));
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let folder = tempdir().expect("a folder");
    save_at(folder.path(), 1);
    let (checkpoint, _) = latest(folder.path()).expect("opens");
    let (good, other) = ("f32[O:2, I:3]".parse().expect("a type"), "bf16[O:2, I:3]".parse().expect("a type"));
    let step = "i64[]".parse().expect("a type");
    checkpoint.check([("w", &good)], [("step", &step)]).expect("its own");
    let error = checkpoint.check([("w", &other), ("v", &good)], []).expect_err("another's");
    insta::assert_snapshot!(error.to_string().replace(&folder.path().display().to_string(), "DIR"));
    let mut out = [0; 24];
    checkpoint.parameter("w", &Share::whole(&good), &mut out).expect("read");
    assert_eq!(out, [1; 24]);
}

/// Damaged headers of all kinds are refused or read, and never a panic.
#[test]
fn damaged_files_do_not_panic() {
    let folder = tempdir().expect("a folder");
    let good = image(folder.path(), &[("x", DType::F32, &[2], vec![0; 8]), ("y", DType::I64, &[], vec![0; 8])]);
    for at in 0..good.len() {
        for value in [0, 1, b'9', b'"', 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let at = folder.path().join("t.safetensors");
            fs::write(&at, &bytes).expect("written");
            if let Ok(file) = TensorFile::open(&at) {
                file.names().filter_map(|n| file.get(n)).for_each(|v| drop((v.text(), v.data().expect("read"))));
            }
        }
    }
    let path = folder.path().join("d.tar");
    tar(&path, &[("0.safetensors".into(), good.clone()), ("1.safetensors".into(), good)]);
    let whole = fs::read(&path).expect("read");
    let x = feed("x", "f32[B:2, N:2]", Source::Data);
    let try_it = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        if let Ok(mut set) = Dataset::open(&path, 0, &|_, _, _| {}) {
            drop(set.batch(&x, &Share::whole(&x.ty), 0, &mut [0; 16]));
        }
    };
    for length in (0..whole.len()).step_by(61) {
        try_it(&whole[..length]);
    }
    for at in 0..512 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        try_it(&bytes);
    }
}
