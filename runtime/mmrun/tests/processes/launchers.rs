//! Launchers inside launchers, and what they leave in the environment.

use crate::{bad, good, grid, mpirun};

#[test]
fn mpirun_counts_inside_a_step_and_beside_what_is_left_over() {
    let place = grid();
    for (number, env) in [
        [("RANK", "0"), ("WORLD_SIZE", "1")],
        [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")],
        [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")],
        [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")],
    ]
    .into_iter()
    .enumerate()
    {
        let told = good(mpirun(place.0.path(), 4, &format!("plan.bin --save s{number}")).envs(env));
        assert!(told.contains("4 ranks in a process each"), "{env:?}: {told}");
        assert_eq!(told.matches("ready after").count(), 1, "one rank speaks: {told}");
    }
}

#[test]
fn contradictions_are_refused_by_every_process() {
    let place = grid();
    for (env, expect) in [
        ([("RANK", "3"), ("WORLD_SIZE", "8")], "torchrun says rank 3 of 8 (RANK, WORLD_SIZE)"),
        ([("RANK", "0"), ("WORLD_SIZE", "")], "RANK is 0, and WORLD_SIZE is not set"),
    ] {
        let told = bad(mpirun(place.0.path(), 4, "plan.bin --save s").envs(env));
        assert!(told.contains(expect), "{env:?}: {told}");
    }
    assert!(!place.path("s").exists());
}
