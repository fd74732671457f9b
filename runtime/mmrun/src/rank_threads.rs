//! The threads of a world: one a rank, together for each step.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use runtime_core::{ExecError, Run};

use crate::failure::Failure;
use crate::world::Rank;

/// How long the other ranks have to end after one failed. Whatever they are in by then ends with the process.
const GRACE: Duration = Duration::from_secs(5);

/// How often to see whether all threads are still there.
const LOOK: Duration = Duration::from_secs(1);

/// A rank goes to its thread for a step and comes back, so that between steps all ranks are at hand.
pub struct RankThreads {
    orders: Vec<Sender<(Rank, usize)>>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

struct Done {
    number: usize,
    rank: Rank,
    result: Result<Run, ExecError>,
}

impl RankThreads {
    pub fn new(ranks: usize) -> Result<Self, ExecError> {
        let (send, done) = channel();
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for number in 0..ranks {
            let (order, orders_of_this) = channel::<(Rank, usize)>();
            let send = send.clone();
            let run = move || {
                for (mut rank, program) in orders_of_this {
                    let result = rank.step(program);
                    // Nobody listens any more when the run has failed.
                    let _ = send.send(Done { number, rank, result });
                }
            };
            threads.push(Builder::new().name(format!("rank {number}")).spawn(run)?);
            orders.push(order);
        }
        Ok(Self { orders, done, threads })
    }

    /// Runs a program once on all ranks; gives them back, with the times of the slowest.
    pub fn step(&self, ranks: Vec<Rank>, program: usize) -> Result<(Vec<Rank>, Run), Failure> {
        let count = ranks.len();
        for (order, rank) in self.orders.iter().zip(ranks) {
            // A thread that is gone is found below.
            let _ = order.send((rank, program));
        }
        let mut back: Vec<Option<Rank>> = (0..count).map(|_| None).collect();
        let mut slowest = Run::default();
        let mut errors = Vec::new();
        let mut over: Option<Instant> = None;
        while back.iter().any(Option::is_none) && over.is_none_or(|at| at > Instant::now()) {
            match self.done.recv_timeout(LOOK) {
                Ok(Done { number, rank, result }) => {
                    back[number] = Some(rank);
                    match result {
                        Ok(run) if run.time + run.fed > slowest.time + slowest.fed => slowest = run,
                        Ok(_) => {}
                        Err(error) => errors.push((number, error)),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if !self.threads.iter().any(JoinHandle::is_finished) => {}
                Err(RecvTimeoutError::Timeout) => {
                    over.get_or_insert_with(Instant::now);
                }
            }
            if !errors.is_empty() {
                over.get_or_insert_with(|| Instant::now() + GRACE);
            }
        }
        let ranks: Vec<Rank> = back.into_iter().flatten().collect();
        if errors.is_empty() && ranks.len() == count {
            return Ok((ranks, slowest));
        }
        errors.sort_by_key(|(number, _)| *number);
        Err(Failure::of_ranks(errors))
    }
}
