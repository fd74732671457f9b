//! How near arenas come to what lives at once, on real models over many meshes.

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
    "--cp 4 --fsdp 4",
    "--tp 4",
    "--tp 2 --cp 2 --ulysses 1 --dp 2",
    "--dp 4 --zero 1",
    "--fsdp 2 --batch 8 --microbatches 4",
    "--pp 2 --tp 4",
    "--pp 4 --fsdp 2 --batch 16",
];

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
