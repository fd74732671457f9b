//! Mutated inputs of the compiler (`.mm`, `.ir`, `.prog`, plan.bin): each ends in a result or in a message, without a
//! panic, within ten seconds and two gigabytes. `MUTATIONS=1000000` tries more than the default; the readers of weights
//! and data have their own in `runtime/data/tests`.

mod inputs;
mod mutate;
mod watch;

use inputs::Input;
use mutate::Dice;
use watch::Watch;

/// Inputs of all kinds together.
const MUTATIONS: u64 = 18_000;

#[test]
fn mutated_inputs_end_in_a_result_or_a_message() {
    let count = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(MUTATIONS);
    // One case again: `MUTATION=1234`.
    let only: Option<u64> = std::env::var("MUTATION").ok().and_then(|n| n.parse().ok());
    let inputs = inputs::all();
    let watch = Watch::start();
    std::panic::set_hook(Box::new(|_| {}));
    for case in only.map_or(0..count, |case| case..case + 1) {
        let mut dice = Dice::new(case);
        let input = &inputs[case as usize % inputs.len()];
        let mutated = mutate::mutated(input, &mut dice);
        watch.begins(case, &mutated);
        let outcome = std::panic::catch_unwind(|| mutated.run());
        watch.ends();
        if let Err(panic) = outcome {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            drop(std::panic::take_hook());
            panic!("case {case}: {}: {}", keep(case, &mutated), said.unwrap_or("a panic"));
        }
    }
    drop(std::panic::take_hook());
}

/// Writes an input to the folder of temporary files, to be looked at; returns its path.
fn keep(case: u64, input: &Input) -> String {
    let path = std::env::temp_dir().join(format!("mutation_{case}{}", input.kind.ending()));
    match std::fs::write(&path, &input.bytes) {
        Ok(()) => path.display().to_string(),
        Err(e) => e.to_string(),
    }
}
