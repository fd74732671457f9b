//! How this process was started: alone, or by a launcher as one rank of several.

#[cfg(feature = "mpi")]
mod limit;
#[cfg(feature = "mpi")]
mod processes;
mod rank_table;
mod recognise;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use comm::{Communicator, Local};
use data::Together;
use plan::Header;

use crate::cli::Args;
use crate::failure::Failure;
use crate::progress::note;
use crate::signals::Signals;

/// Tables of a hundred thousand devices take less.
const MOST_TABLE: u64 = 64 << 20;

/// A process of a launcher's, by its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub by: Launcher,
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// How many of them are on this machine, as far as the launcher tells.
    pub here: usize,
    /// The variables that say so: of the rank, and of the number of ranks.
    pub names: [&'static str; 2],
    /// One rank of `mpirun`, which several tasks of a Slurm step have each started.
    pub alone_in_step: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    Torchrun,
    MindCluster,
    Slurm,
    OpenMpi,
    /// `mpiexec` of MPICH and its relatives.
    Hydra,
    RankTable,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Torchrun => "torchrun",
            Launcher::MindCluster => "MindCluster",
            Launcher::Slurm => "Slurm",
            Launcher::OpenMpi => "Open MPI",
            Launcher::Hydra => "MPICH's mpiexec",
            Launcher::RankTable => "the rank table",
        })
    }
}

/// The processes of a run.
pub enum Launched {
    /// This one, with all ranks.
    Alone,
    /// One for each rank.
    #[cfg(feature = "mpi")]
    Processes(processes::Processes),
}

/// The ranks of this process.
pub struct Seats {
    /// One each, or none for a world of one rank.
    pub communicators: Vec<Option<Arc<dyn Communicator>>>,
    pub together: Together,
    /// Among how many processes the machine's cores are shared.
    pub sharing: usize,
}

/// Finds the other processes, if there are any.
#[cfg_attr(not(feature = "mpi"), expect(unused_variables, reason = "only processes need them"))]
pub fn start(args: &Args, signals: &Signals) -> Result<Launched, Failure> {
    let launch = recognise::recognise(|name| std::env::var(name).ok(), table)?;
    if launch.as_ref().is_some_and(|l| l.alone_in_step) {
        note("mpirun started one rank in each of several Slurm tasks: each of them is a run of its own");
    }
    let Some(launch) = launch.filter(|l| l.world > 1) else { return Ok(Launched::Alone) };
    let Launch { by, rank, world, names: [rank_name, world_name], .. } = launch;
    if !matches!(by, Launcher::OpenMpi | Launcher::Hydra | Launcher::Slurm) {
        let what = format!("{by} started this as rank {rank} of {world}, and ranks on CPUs meet over MPI");
        let help = format!("start it with `mpirun -n {world} mmrun PLAN ..`, or alone with all ranks in one process");
        let unset = format!("`unset {rank_name} {world_name}` if they are left from another launch");
        return Err(Failure::new(what).help(help).help(unset));
    }
    #[cfg(feature = "mpi")]
    return processes::Processes::start(&launch, args, signals).map(Launched::Processes);
    #[cfg(not(feature = "mpi"))]
    Err(Failure::new(format!("{by} started this as rank {rank} of {world}, and this mmrun was built without MPI"))
        .help("build it with `cargo build --release -p mmrun --features mpi`")
        .help("or start it alone: then all ranks run as threads of one process"))
}

/// The text of a rank table, or an error if it does not end where tables do.
fn table(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_TABLE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_TABLE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than any rank table: 64 MiB"));
    }
    Ok(text)
}

impl Launched {
    /// Where the ranks of this process sit in a run of this plan.
    pub fn seats(&self, header: &Header, args: &Args) -> Result<Seats, Failure> {
        let alone = |communicators| Ok(Seats { communicators, together: Together::alone(), sharing: 1 });
        match self {
            Launched::Alone if header.world() == 1 => alone(vec![None]),
            Launched::Alone => {
                let ranks = Local::world(header.world(), Some(args.timeout)).into_iter();
                alone(ranks.map(|rank| Some(Arc::new(rank) as _)).collect())
            }
            #[cfg(feature = "mpi")]
            Launched::Processes(processes) => processes.seats(header),
        }
    }

    /// Tells the other processes how it went here, and ends what was started.
    pub fn finish<T>(self, result: Result<T, Failure>) -> Result<T, Failure> {
        match self {
            Launched::Alone => result,
            #[cfg(feature = "mpi")]
            Launched::Processes(processes) => processes.finish(result),
        }
    }
}
