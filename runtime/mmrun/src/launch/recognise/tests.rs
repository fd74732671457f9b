//! Environments, and what they say.

use super::*;

type Env<'a> = &'a [(&'a str, &'a str)];

fn ask(env: Env<'_>) -> Result<Option<Launch>, String> {
    let table = |version: &str, device: &str| {
        let devices = |from: usize| {
            (from..from + 2).map(|r| format!(r#"{{"rank_id":"{r}"{device}}}"#)).collect::<Vec<_>>().join(",")
        };
        format!(
            r#"{{"status":"completed","version":"{version}","server_count":"2","server_list":[
            {{"server_id":"a","device":[{}]}},{{"server_id":"b","device":[{}]}}]}}"#,
            devices(0),
            devices(2)
        )
    };
    let read = |path: &str| match path {
        "a2.json" => Ok(table("1.0", r#","device_id":"0","device_ip":"192.168.1.6""#)),
        "a3.json" => Ok(table("1.2", r#","device_id":"0","super_device_id":"0""#)),
        "new.json" => Ok(table("9", "")),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let find = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
    recognise(find, read).map_err(|failure| failure.to_string())
}

fn check(env: Env<'_>, expect: Option<(Launcher, usize, usize)>) {
    let found = ask(env).map(|launch| launch.map(|l| (l.by, l.rank, l.world)));
    assert_eq!(found, Ok(expect), "{env:?}");
}

const OMPI: [(&str, &str); 2] = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];
const STEP: [(&str, &str); 2] = [("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "6")];
const TORCH: [(&str, &str); 2] = [("RANK", "3"), ("WORLD_SIZE", "8")];
const LEFT: [(&str, &str); 2] = [("RANK", "0"), ("WORLD_SIZE", "1")];

#[test]
fn each_launcher_is_recognised() {
    check(&[], None);
    check(&OMPI, Some((Launcher::OpenMpi, 1, 4)));
    check(&STEP, Some((Launcher::Slurm, 5, 6)));
    check(&TORCH, Some((Launcher::Torchrun, 3, 8)));
    check(&[TORCH[0], TORCH[1], ("MINDX_TASK_ID", "x")], Some((Launcher::MindCluster, 3, 8)));
    check(&[("MS_NODE_RANK", "0"), ("MS_WORKER_NUM", "2")], Some((Launcher::MindCluster, 0, 2)));
    check(&[("PMI_RANK", "2"), ("PMI_SIZE", "3"), ("PMI_FD", "7")], Some((Launcher::Hydra, 2, 3)));
    check(&[("RANK_ID", "0"), ("RANK_SIZE", "2")], Some((Launcher::MindCluster, 0, 2)));
    check(&[("RANK_TABLE_FILE", "a2.json"), ("RANK_ID", "3"), ("RANK_SIZE", "4")], Some((Launcher::RankTable, 3, 4)));
    check(&[("RANK_TABLE_FILE", "a2.json"), ("RANK_ID", "3")], Some((Launcher::RankTable, 3, 4)));
    check(&[("RANK_TABLE_FILE", "a3.json"), ("RANK_ID", "0")], Some((Launcher::RankTable, 0, 4)));
    let local = [OMPI[0], OMPI[1], ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")];
    assert_eq!(ask(&local).map(|l| l.map(|l| l.here)), Ok(Some(2)));
}

#[test]
fn allocations_without_a_step_start_nothing() {
    // A batch script, a shell of salloc, and one that is a step of its own.
    check(&[("SLURM_JOB_ID", "7"), ("SLURM_PROCID", "0"), ("SLURM_NTASKS", "6")], None);
    check(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "6"), ("SLURM_NNODES", "2")], None);
    check(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")], Some((Launcher::Slurm, 0, 1)));
    // CANN's scripts for one device.
    check(&[("RANK_ID", "0"), ("DEVICE_ID", "0")], None);
    check(&[("RANK_ID", "0"), ("RANK_SIZE", "1")], Some((Launcher::MindCluster, 0, 1)));
    check(&[("RANK", ""), ("WORLD_SIZE", "")], None);
}

#[test]
fn the_innermost_launcher_counts() {
    let with = |env: &[Env<'static>]| env.concat();
    let open_mpi = Some((Launcher::OpenMpi, 1, 4));
    // mpirun in a step of srun, whose tasks are one, or a daemon of Open MPI's on each node.
    check(&with(&[&OMPI, &[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]]), open_mpi);
    check(&with(&[&OMPI, &STEP]), open_mpi);
    check(&with(&[&OMPI, &STEP, &[("PMIX_NAMESPACE", "2863202305"), ("PMIX_RANK", "1")]]), open_mpi);
    check(&with(&[&OMPI, &STEP, &[("PMIX_NAMESPACE", "prterun-n1-77@1"), ("PMIX_RANK", "1")]]), open_mpi);
    // mpirun in an allocation.
    check(&with(&[&OMPI, &[("SLURM_NTASKS", "6"), ("SLURM_PROCID", "0")]]), open_mpi);
    // srun in what mpirun started.
    const BY_SLURM: [(&str, &str); 2] = [("PMIX_NAMESPACE", "slurm.pmix.7.0"), ("PMIX_RANK", "5")];
    check(&with(&[&OMPI, &STEP, &BY_SLURM]), Some((Launcher::Slurm, 5, 6)));
    // The same numbers twice.
    check(&with(&[&STEP, &[("PMI_RANK", "5"), ("PMI_SIZE", "6")]]), Some((Launcher::Slurm, 5, 6)));
    check(&with(&[&STEP, &[("RANK", "5"), ("WORLD_SIZE", "6")]]), Some((Launcher::Slurm, 5, 6)));
    check(&with(&[&OMPI, &[("RANK", "1"), ("WORLD_SIZE", "4")]]), open_mpi);
    // Hydra's proxies are tasks of Slurm's.
    check(&with(&[&STEP, &[("PMI_RANK", "2"), ("PMI_SIZE", "12")]]), Some((Launcher::Hydra, 2, 12)));
    // Left over from a single process.
    check(&with(&[&OMPI, &LEFT]), open_mpi);
    check(&with(&[&STEP, &LEFT]), Some((Launcher::Slurm, 5, 6)));
    check(&with(&[&OMPI, &LEFT, &[("TORCHELASTIC_RUN_ID", "none")]]), open_mpi);
    check(&with(&[&LEFT, &[("MS_NODE_RANK", "1"), ("MS_WORKER_NUM", "2")]]), Some((Launcher::MindCluster, 1, 2)));
    check(&LEFT, Some((Launcher::Torchrun, 0, 1)));
    // torchrun's workers inside a step, and inside a shell that is one.
    check(&with(&[&STEP, &TORCH, &[("TORCHELASTIC_RUN_ID", "none")]]), Some((Launcher::Torchrun, 3, 8)));
    check(&with(&[&TORCH, &[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")]]), Some((Launcher::Torchrun, 3, 8)));
}

#[test]
fn one_rank_inside_several_tasks_is_told() {
    let one = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")];
    let alone = |env: Env<'_>| ask(env).map(|l| l.is_some_and(|l| l.alone_in_step));
    assert_eq!(alone(&[one[0], one[1], STEP[0], STEP[1]]), Ok(true));
    assert_eq!(alone(&one), Ok(false));
    assert_eq!(alone(&[OMPI[0], OMPI[1], STEP[0], STEP[1]]), Ok(false));
}

#[test]
fn launches_that_make_no_sense_are_refused_with_their_variables() {
    let refused = |env: Env<'_>, expect: &[&str]| {
        let error = ask(env).expect_err("refused");
        assert!(expect.iter().all(|part| error.contains(part)), "{env:?}: {error}");
    };
    // Half of a pair.
    let mind = [[("MS_NODE_RANK", "0"), ("MS_WORKER_NUM", "2")], [("RANK_ID", "0"), ("RANK_SIZE", "2")]];
    for half in [TORCH, OMPI, [("PMI_RANK", "1"), ("PMI_SIZE", "2")], mind[0]] {
        let [(rank, of_rank), (world, of_world)] = half;
        refused(&half[..1], &[&format!("{rank} is {of_rank}, and {world} is not set"), &format!("unset {rank}")]);
        refused(&half[1..], &[&format!("{world} is {of_world}, and {rank} is not set"), &format!("unset {world}")]);
    }
    refused(&STEP[1..], &["SLURM_STEP_NUM_TASKS is 6, and SLURM_PROCID is not set"]);
    refused(&[("PMIX_RANK", "1")], &["PMIX_RANK is 1, and no variable says how many"]);
    refused(&mind[1][1..], &["RANK_SIZE is 2, and RANK_ID is not set"]);
    refused(&[("RANK_ID", "2"), mind[1][1]], &["RANK_ID is 2, and RANK_SIZE is 2"]);
    refused(&[("RANK_ID", "1")], &["RANK_ID is 1, and RANK_TABLE_FILE is not set"]);
    refused(&[("RANK_TABLE_FILE", "a2.json")], &["RANK_ID does not say"]);
    // A pair beside half of another.
    refused(&[OMPI[0], OMPI[1], LEFT[0]], &["RANK is 0, and WORLD_SIZE is not set"]);
    // Numbers that are none, or too large.
    refused(&[("RANK", "x"), ("WORLD_SIZE", "8")], &["RANK is `x`"]);
    refused(&[("RANK", "0"), ("WORLD_SIZE", "-1")], &["WORLD_SIZE is `-1`"]);
    refused(&[("OMPI_COMM_WORLD_RANK", "1.5"), OMPI[1]], &["OMPI_COMM_WORLD_RANK is `1.5`"]);
    refused(&[("RANK", "8"), ("WORLD_SIZE", "8")], &["RANK is 8, and WORLD_SIZE is 8"]);
    refused(&[("RANK", "0"), ("WORLD_SIZE", "0")], &["RANK is 0, and WORLD_SIZE is 0"]);
    refused(&[("SLURM_PROCID", "6"), STEP[1]], &["SLURM_PROCID is 6, and SLURM_STEP_NUM_TASKS is 6"]);
    // Two that cannot both be right.
    let both = ["Open MPI says rank 1 of 4", "torchrun says rank 3 of 8", "unset RANK and WORLD_SIZE"];
    refused(&[TORCH[0], TORCH[1], OMPI[0], OMPI[1]], &both);
    refused(&[TORCH[0], TORCH[1], STEP[0], STEP[1]], &["SLURM_PROCID, SLURM_STEP_NUM_TASKS", "RANK, WORLD_SIZE"]);
    refused(&[OMPI[0], OMPI[1], ("PMIX_RANK", "3")], &["PMIX_RANK is 3, and OMPI_COMM_WORLD_RANK is 1"]);
    let mind = [("MS_NODE_RANK", "1"), ("MS_WORKER_NUM", "2")];
    refused(&[TORCH[0], TORCH[1], mind[0], mind[1]], &["RANK, WORLD_SIZE", "MS_NODE_RANK, MS_WORKER_NUM"]);
    // Rank tables.
    refused(&[("RANK_TABLE_FILE", "none.json"), ("RANK_ID", "0")], &["none.json"]);
    refused(&[("RANK_TABLE_FILE", "new.json"), ("RANK_ID", "0")], &["version is 9"]);
    refused(&[("RANK_TABLE_FILE", "a2.json"), ("RANK_ID", "4")], &["lists 4 ranks"]);
}
