//! Launchers by the variables they set: which of them started this very process, and as which rank.
//!
//! Launchers nest: `mpirun` runs inside a step of `srun`, and variables of earlier launches stay in a shell. The innermost
//! launcher counts. What cannot be told apart is refused: a wrong guess makes every process run all ranks.

use std::io;

use super::{Launch, Launcher, rank_table};
use crate::failure::Failure;

/// The variables with which a launcher tells a process its place.
struct Convention {
    by: Launcher,
    rank: &'static str,
    world: &'static str,
    /// Ranks on this machine; not all launchers tell.
    here: &'static str,
}

// Sources of the names: torchrun's documentation ("Environment Variables"), MindCluster's ("Environment Variables Used by
// MindCluster Components"), `man srun` ("OUTPUT ENVIRONMENT VARIABLES"), Open MPI's FAQ ("environmental variables"),
// MPICH's wiki ("PMI v1 wire protocol") for Hydra, and for rank tables HCCL's guide and `RANK_ID` of CANN's reference.
const TORCHRUN: Convention =
    Convention { by: Launcher::Torchrun, rank: "RANK", world: "WORLD_SIZE", here: "LOCAL_WORLD_SIZE" };
const MIND_CLUSTER: Convention =
    Convention { by: Launcher::MindCluster, rank: "MS_NODE_RANK", world: "MS_WORKER_NUM", here: "MS_LOCAL_WORKER" };
// A batch script has a SLURM_PROCID too, but only a step has this number of tasks.
const SLURM: Convention = Convention {
    by: Launcher::Slurm,
    rank: "SLURM_PROCID",
    world: "SLURM_STEP_NUM_TASKS",
    here: "SLURM_NTASKS_PER_NODE",
};
const OPEN_MPI: Convention = Convention {
    by: Launcher::OpenMpi,
    rank: "OMPI_COMM_WORLD_RANK",
    world: "OMPI_COMM_WORLD_SIZE",
    here: "OMPI_COMM_WORLD_LOCAL_SIZE",
};
const HYDRA: Convention =
    Convention { by: Launcher::Hydra, rank: "PMI_RANK", world: "PMI_SIZE", here: "MPI_LOCALNRANKS" };
// Its pair beside a rank table, which may be missing where nothing runs on devices.
const MIND_CLUSTER_RANKS: Convention =
    Convention { by: Launcher::MindCluster, rank: "RANK_ID", world: "RANK_SIZE", here: "LOCAL_WORLD_SIZE" };

/// The launch that the environment tells of, if any.
pub fn recognise(
    env: impl Fn(&str) -> Option<String>,
    read: impl Fn(&str) -> io::Result<String>,
) -> Result<Option<Launch>, Failure> {
    let env = |name: &str| env(name).filter(|text| !text.trim().is_empty());
    let mpi = by_mpi(&env)?;
    let others = by_others(&env)?;
    let found = match (mpi, others) {
        (Some(mpi), Some(other)) => Some(innermost(mpi, other, env("TORCHELASTIC_RUN_ID").is_some())?),
        (mpi, other) => mpi.or(other),
    };
    if found.is_some() {
        return Ok(found);
    }
    if let Some(rank) = env("PMIX_RANK") {
        return Err(Failure::new(format!("PMIX_RANK is {rank}, and no variable says how many ranks were started"))
            .help("start it with `mpirun` or `srun --mpi=pmix`, which say so, or `unset PMIX_RANK`"));
    }
    by_rank_table(&env, read)
}

/// The launch by what starts MPI's processes: `mpirun` of Open MPI, Hydra (`mpiexec` of MPICH), or `srun`.
fn by_mpi(env: &impl Fn(&str) -> Option<String>) -> Result<Option<Launch>, Failure> {
    let open_mpi = OPEN_MPI.read(env)?;
    // PMIx has one server a process, and that is the innermost launcher's.
    let by_slurm = env("PMIX_NAMESPACE").is_some_and(|name| name.starts_with("slurm"));
    if let Some(launch) = open_mpi.as_ref().filter(|_| !by_slurm || env(SLURM.world).is_none()) {
        if let Some(rank) = env("PMIX_RANK").filter(|rank| number("PMIX_RANK", rank).is_ok_and(|r| r != launch.rank)) {
            let what = format!("PMIX_RANK is {rank}, and {} is {}", OPEN_MPI.rank, launch.rank);
            return Err(Failure::new(what).help("one of them is left from another launch: unset it"));
        }
        // `mpirun` starts processes inside a step of Slurm's as a matter of course.
        let outside = launch.world == 1 && SLURM.read(env).ok().flatten().is_some_and(|slurm| slurm.world > 1);
        return Ok(Some(Launch { alone_in_step: outside, ..launch.clone() }));
    }
    // A batch script, and a shell of `salloc`, are no step.
    let slurm = if env(SLURM.world).is_some() { SLURM.read(env)? } else { None };
    // `srun --mpi=pmi2` sets Hydra's variables, to the same numbers.
    match (slurm, HYDRA.read(env)?) {
        (Some(slurm), Some(hydra)) if !slurm.is_like(&hydra) => Ok(Some(hydra)),
        (slurm, hydra) => Ok(slurm.or(hydra)),
    }
}

/// The launch by what starts the processes of other frameworks.
fn by_others(env: &impl Fn(&str) -> Option<String>) -> Result<Option<Launch>, Failure> {
    // MindCluster's jobs have torchrun's variables, too, with a mark of their own.
    let by = if env("MINDX_TASK_ID").is_some() { Launcher::MindCluster } else { Launcher::Torchrun };
    match (Convention { by, ..TORCHRUN }.read(env)?, MIND_CLUSTER.read(env)?) {
        (Some(torchrun), Some(other)) if !torchrun.is_like(&other) && torchrun.world > 1 && other.world > 1 => {
            Err(contradiction(&torchrun, &other))
        }
        (Some(torchrun), Some(other)) if torchrun.world == 1 => Ok(Some(other)),
        (torchrun, other) => Ok(torchrun.or(other)),
    }
}

/// The launch that counts where MPI's launcher and another have left their variables.
fn innermost(mpi: Launch, other: Launch, elastic: bool) -> Result<Launch, Failure> {
    if mpi.is_like(&other) || other.world == 1 {
        // RANK=0 WORLD_SIZE=1 is what a single process leaves in a shell.
        return Ok(mpi);
    }
    if mpi.world == 1 || elastic {
        // torchrun starts its workers inside what `srun` or `mpirun` started.
        return Ok(other);
    }
    Err(contradiction(&mpi, &other))
}

fn contradiction(first: &Launch, second: &Launch) -> Failure {
    let says = |l: &Launch| format!("{} says rank {} of {} ({}, {})", l.by, l.rank, l.world, l.names[0], l.names[1]);
    Failure::new(format!("{}, and {}", says(first), says(second)))
        .help(format!("unset {} and {} if they are left from another launch", second.names[0], second.names[1]))
        .help(format!("or {} and {}", first.names[0], first.names[1]))
}

fn by_rank_table(
    env: &impl Fn(&str) -> Option<String>,
    read: impl Fn(&str) -> io::Result<String>,
) -> Result<Option<Launch>, Failure> {
    if env("RANK_TABLE_FILE").is_none() && env("RANK_SIZE").is_some() {
        return MIND_CLUSTER_RANKS.read(env);
    }
    let rank = env("RANK_ID").map(|text| number("RANK_ID", &text)).transpose()?;
    let Some(path) = env("RANK_TABLE_FILE") else {
        return match rank {
            None | Some(0) => Ok(None),
            Some(rank) => Err(Failure::new(format!("RANK_ID is {rank}, and RANK_TABLE_FILE is not set"))
                .help("set RANK_TABLE_FILE to the rank table, or `unset RANK_ID`")),
        };
    };
    let text = read(&path).map_err(|e| Failure::new(format!("{path} (RANK_TABLE_FILE): {e}")))?;
    let world = rank_table::ranks(&text).map_err(|what| Failure::new(format!("{path} is no rank table: {what}")))?;
    let Some(rank) = rank else {
        return Err(Failure::new(format!("{path} lists {world} ranks, and RANK_ID does not say which one this is")));
    };
    if rank >= world {
        return Err(Failure::new(format!("RANK_ID is {rank}, and {path} lists {world} ranks")));
    }
    let names = ["RANK_ID", "RANK_TABLE_FILE"];
    Ok(Some(Launch { by: Launcher::RankTable, rank, world, here: world, names, alone_in_step: false }))
}

impl Convention {
    /// What this launcher's variables say; none if they are not there.
    fn read(&self, env: &impl Fn(&str) -> Option<String>) -> Result<Option<Launch>, Failure> {
        let Self { by, rank, world, here } = *self;
        let half = |set: &str, value: &str, unset: &str| {
            Failure::new(format!("{set} is {value}, and {unset} is not set"))
                .help(format!("{by} sets both; set {unset}, too, or `unset {set}`"))
        };
        let (at, of) = match (env(rank), env(world)) {
            (None, None) => return Ok(None),
            (Some(at), None) => return Err(half(rank, &at, world)),
            (None, Some(of)) => return Err(half(world, &of, rank)),
            (Some(at), Some(of)) => (number(rank, &at)?, number(world, &of)?),
        };
        if at >= of {
            return Err(Failure::new(format!("{rank} is {at}, and {world} is {of}: ranks count from 0"))
                .help(format!("start this with {by} again, or `unset {rank} {world}`")));
        }
        // The number of threads hangs on it, and nothing else.
        let here = env(here).and_then(|text| text.trim().parse().ok()).filter(|here| (1..=of).contains(here));
        let names = [rank, world];
        Ok(Some(Launch { by, rank: at, world: of, here: here.unwrap_or(of), names, alone_in_step: false }))
    }
}

impl Launch {
    /// Whether both say the same.
    fn is_like(&self, other: &Self) -> bool {
        (self.rank, self.world) == (other.rank, other.world)
    }
}

fn number(name: &str, text: &str) -> Result<usize, Failure> {
    let number = text.trim().parse();
    number.map_err(|_| {
        Failure::new(format!("the variable {name} is `{text}`, where a number is expected"))
            .help(format!("`unset {name}` if it is left from something else"))
    })
}

#[cfg(test)]
mod tests;
