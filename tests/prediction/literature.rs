//! Which of two plans is faster, as published: predictions put them in that order.

use super::{explained, number};

/// Seconds of a step, and the share in collectives while no kernel runs, on the rank where that is most.
fn step(words: &str) -> (f64, f64) {
    let ranks = explained(&format!("wan2.2.mm --preset t2v-a14b --set S=512 --dtype bf16 {words}"));
    let most = |key: &str| ranks.iter().map(|r| number(r, key)).fold(0.0, f64::max);
    (most("step_seconds"), most("exposed_comm_seconds") / most("step_seconds"))
}

/// 81 frames of 720p on one A3 server.
#[test]
fn communication_hides_behind_compute() {
    for mesh in ["--fsdp 16", "--cp 4 --fsdp 4"] {
        let (seconds, exposed) =
            step(&format!("--set F=21 --set H=90 --set W=160 --machine ascend-910c {mesh} --recompute full"));
        println!("{mesh:16} {seconds:.1} s a step, {:.2} % of it exposed", exposed * 100.0);
        assert!(exposed < 0.05, "{mesh}: {exposed}");
    }
}

/// Sums of activations' gradients over tensor-parallel ranks travel while gradients of weights are computed, so that little
/// more is exposed than what the forward exchanges.
#[test]
fn gradients_of_weights_hide_exchanges_of_tensor_parallelism() {
    for mesh in ["--tp 8", "--tp 4 --fsdp 2"] {
        let (seconds, exposed) = step(&format!("--machine ascend-910b3 {mesh}"));
        println!("{mesh:16} {seconds:.1} s a step, {:.2} % of it exposed", exposed * 100.0);
        assert!(exposed < 0.1, "{mesh}: {exposed}");
    }
}

/// Gathers of rows that products need and sums of what they make travel in pieces beside the products (Wang et al., 2023,
/// "Overlap communication with dependent computation via decomposition").
#[test]
fn pieces_hide_exchanges_of_tensor_parallelism() {
    let [(whole, exposed), (pieces, left)] =
        ["off", "auto"].map(|overlap| step(&format!("--machine ascend-910b3 --tp 8 --overlap {overlap}")));
    println!("whole {whole:.2} s, {:.2} % exposed; in pieces {pieces:.2} s, {:.2} %", exposed * 100.0, left * 100.0);
    assert!(pieces < 0.98 * whole && left < 0.6 * exposed, "{whole} {exposed} {pieces} {left}");
}

/// DeepSpeed-Ulysses (Jacobs et al., 2023) against ring attention (Liu et al., 2023), where heads divide: fewer bytes, all
/// links at once.
#[test]
fn exchanging_heads_is_faster_than_a_ring_inside_a_server() {
    for machine in ["ascend-910b3", "ascend-910c"] {
        let [ring, ulysses] =
            [1, 8].map(|u| step(&format!("--machine {machine} --cp 8 --ulysses {u} --recompute full")).0);
        assert!(ulysses < ring, "{machine}: {ulysses} {ring}");
    }
}

/// Zero bubble pipeline parallelism (Qi et al., 2023) and interleaved stages (Narayanan et al., 2021) against 1F1B.
#[test]
fn bubbles_shrink_as_published() {
    let mesh = "--machine ascend-910b3 --pp 4 --batch 8 --microbatches 8";
    let [gpipe, plain, zero] = ["gpipe", "1f1b", "zb-h1"].map(|s| step(&format!("{mesh} --schedule {s}")).0);
    let interleaved = step(&format!("{mesh} --virtual-stages 2")).0;
    assert!(zero < plain && interleaved < plain && plain < gpipe * 1.001, "{zero} {interleaved} {plain} {gpipe}");
}

/// Tensor parallelism is for the links inside a server (Shoeybi et al., 2019; Narayanan et al., 2021).
#[test]
fn tensors_are_cut_inside_servers_and_batches_across() {
    let across = step("--machine ascend-910b3 --tp 16 --set HEADS=48 --recompute full").0;
    let inside = step("--machine ascend-910b3 --dp 2 --tp 8 --batch 2 --set HEADS=48 --recompute full").0 / 2.0;
    assert!(inside < across, "{inside} {across}");
}
