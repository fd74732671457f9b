//! How near arenas come to what lives at once, on real models over many meshes.

use tests::binaries::{command, model, run};

use super::{explained, number};

const MODELS: [&str; 5] = [
    "wan2.2.mm --preset t2v-a14b",
    "wan2.2.mm --preset i2v-a14b --set LAYERS=10",
    "wan2.2.mm --preset wan2.1-t2v-14b --set LAYERS=8",
    "wan2.2.mm --preset ti2v-5b",
    "qwen3.mm --preset 8b",
];

const MESHES: [&str; 10] = [
    "",
    "--fsdp 4 --grads resident",
    "--fsdp 16",
    "--cp 4 --fsdp 2",
    "--tp 4",
    "--tp 2 --cp 2 --ulysses 1 --dp 2",
    "--dp 4 --zero 1",
    "--fsdp 2 --batch 8 --microbatches 4",
    "--pp 2 --tp 4",
    "--pp 4 --fsdp 2 --batch 16",
];

/// One drawing for each class of ranks, with all that lives at the peak in reach of a place in the model.
#[test]
fn memory_over_time_is_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let [plan, picture] = ["plan.bin", "memory.svg"].map(|name| folder.path().join(name));
    let mesh = "--preset tiny --set LAYERS=4 --pp 2 --fsdp 2 --target none --machine ascend-910b3";
    let mut compile = command("mmc");
    compile.arg("compile").arg(model("wan2.2.mm")).args(mesh.split(' ')).arg("-o").arg(&plan);
    run(&mut compile).expect("compiles");
    run(command("mmc").arg("explain").arg(&plan).arg("--memory-svg").arg(&picture)).expect("draws");
    let drawn = std::fs::read_to_string(&picture).expect("a picture");
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    for told in ["on ranks 0-1", "on ranks 2-3", "At the peak", "wan2.2.mm:", "activations", "ms predicted"] {
        assert!(drawn.contains(told), "{told}: {drawn}");
    }
    assert_eq!(drawn.matches(">arena ").count(), 2, "a line for each arena");
}

#[test]
fn arenas_are_within_5_percent_of_what_lives_at_once() {
    for (i, (model, mesh)) in MODELS.iter().flat_map(|m| MESHES.map(|mesh| (m, mesh))).enumerate() {
        let recompute = if i % 3 == 0 { "none" } else { "full" };
        let dtype = if i % 4 == 0 { "f32" } else { "bf16" };
        let words = format!("{model} {mesh} --dtype {dtype} --recompute {recompute}");
        for rank in explained(&words) {
            let (arena, live) = (number(&rank, "arena_bytes"), number(&rank, "live_bytes"));
            let over = (arena / live - 1.0) * 100.0;
            println!("{words}: {:.1} GiB, {over:.1} % more than lives", arena / f64::from(1 << 30));
            assert!((0.0..5.0).contains(&over), "{words}: {arena} {live}");
            let held: f64 = rank["live"].as_array().expect("holders").iter().map(|h| number(h, "bytes")).sum();
            assert_eq!(held, live, "{words}: what lives at the peak is listed");
        }
    }
}
