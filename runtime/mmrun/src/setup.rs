//! From a plan's file to executors that are ready for their values.

use std::path::Path;

use device::image;
use plan::{PlanFile, PlanHash, Verified};
use runtime_core::Options;
use types::Mesh;

use crate::agreement;
use crate::backend::Backend;
use crate::cli::Args;
use crate::failure::Failure;
use crate::launch::{Launched, Seats};
use crate::progress::plural;
use crate::world::World;

pub fn open<'a>(path: &Path, image: &'a [u8]) -> Result<PlanFile<'a>, Failure> {
    PlanFile::open(image).map_err(|e| {
        let failure = Failure::new(format!("{}: {e}", path.display()));
        match e {
            plan::ReadError::NotAPlan if path.extension().is_some_and(|e| e == "mm") => {
                failure.help(format!("compile it first: mmc compile {}", path.display()))
            }
            _ => failure.help("compile the plan again, with the `mmc` of this version"),
        }
    })
}

/// Loads a plan and its kernels, and makes the ranks of this process; their values come with [`crate::values::fill`].
pub fn world(args: &Args, launched: &Launched) -> Result<(World, PlanHash), Failure> {
    let bytes = image(&args.plan).map_err(|e| Failure::file(&args.plan, &e))?;
    let file = open(&args.plan, &bytes)?;
    let (header, hash) = (&file.plan.header, file.hash);
    let (size, mesh) = (header.world(), mesh_of(&header.mesh));
    if let Some(fault) = args.fault.filter(|fault| fault.rank >= size) {
        let what = format!("--fault rank={}: the plan is for {}", fault.rank, plural(size, "rank"));
        return Err(Failure::new(what).help(format!("rank takes 0 to {}", size - 1)));
    }
    let Seats { communicators, together, sharing } = launched.seats(header, args)?;
    agreement::options(&together, hash)?;
    // All ranks of a process share the code.
    let backend = Backend::of(header)?;
    let engine = (backend.open)(&file)?;
    if let (Some((what, help)), Some(_)) = (backend.untraced, &args.trace) {
        return Err(Failure::new(what).help(help));
    }
    // Once for all ranks.
    let plan = Verified::new(file.plan).map_err(|violations| Failure::violations(&violations))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores.div_ceil(sharing), usize::from);
    let here = communicators.len();
    let rank = |(number, communicator)| {
        let options = Options {
            threads: part(threads, here, number),
            poison: args.poison,
            trace: args.trace.is_some(),
            fault: args.fault,
            jitter: args.jitter,
        };
        engine.executor(&plan, communicator, &options, args.timeout)
    };
    // Side by side, since ranks on devices meet while they are made.
    let executors = std::thread::scope(|scope| {
        let makers = communicators.into_iter().enumerate().map(|seat| scope.spawn(|| rank(seat)));
        let makers: Vec<_> = makers.collect();
        let panicked = |_| Err(Failure::new("the thread that makes a rank ready panicked"));
        let made: Vec<_> = makers.into_iter().map(|maker| maker.join().unwrap_or_else(panicked)).collect();
        made.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    let world = World::new(plan.plan().clone(), executors, together)?;
    if size > 1 {
        let each = plural(part(threads, here, 0), "thread");
        let place = if here > 1 { "in this process" } else { "in a process each" };
        world.note(&format!("{size} ranks {place} ({mesh}), {each} each"));
    }
    Ok((world, hash))
}

/// `fsdp=2 tp=4`, without the axes of size 1.
pub fn mesh_of(mesh: &Mesh) -> String {
    let axes: Vec<_> = mesh.axes.iter().filter(|a| a.size > 1).map(|a| format!("{}={}", a.name, a.size)).collect();
    axes.join(" ")
}

/// The threads of one rank out of `all`: equal parts as far as that goes, and one at least.
fn part(all: usize, world: usize, rank: usize) -> usize {
    (all / world + usize::from(rank < all % world)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out() {
        let check = |all, world, expect: &[usize]| {
            assert_eq!((0..world).map(|rank| part(all, world, rank)).collect::<Vec<_>>(), expect);
        };
        check(8, 1, &[8]);
        check(8, 4, &[2, 2, 2, 2]);
        check(7, 3, &[3, 2, 2]);
        check(2, 4, &[1, 1, 1, 1]);
    }
}
