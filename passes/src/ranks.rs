//! Passes over the program of one rank, and the threads that run them for all ranks.

use std::panic::resume_unwind;
use std::thread;

use cost::Machine;
use program::{RankModule, RankProgram};

use crate::times::Times;

/// A pass over the program of one rank, which needs nothing of other ranks. It never fails.
pub trait RankPass: Send + Sync {
    fn run(&self, program: &mut RankProgram, cx: &mut RankContext<'_>);
}

/// What such a pass may ask.
pub struct RankContext<'a> {
    pub alignment: u64,
    pub times: Times<'a>,
}

/// Does the same to each rank's program, each on a thread of its own.
pub fn each(module: &mut RankModule, machine: &Machine, work: impl Fn(&mut RankProgram, &mut RankContext<'_>) + Sync) {
    let RankModule { mesh, alignment, programs, .. } = module;
    at_once(programs.iter_mut().flat_map(|p| &mut p.ranks), |rank| {
        work(rank, &mut RankContext { alignment: *alignment, times: Times::new(machine, mesh) });
    });
}

/// What becomes of each of these, in their order.
pub fn at_once<T: Send, R: Send>(of: impl Iterator<Item = T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = of.map(|item| scope.spawn(move || work(item))).collect();
        let ends = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ends.map(|end| end.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
