//! Ranks as threads: each gives its sources to one collective and gets its targets back.
#![allow(unsafe_code, reason = "to run a collective is to promise that its memory is there")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use comm::{Area, CommError, Communicator, Local, Operation};
use plan::{BufferId, Collect, CollectKind, Slice};
use types::{Mesh, Name};

/// One tensor's bytes.
pub type Bytes = Vec<u8>;

/// A collective and its memory, as one rank sees it.
pub struct Part {
    pub collective: Box<dyn comm::Collective>,
    from: Vec<Bytes>,
    to: Vec<Bytes>,
}

pub fn mesh(axes: &[(&str, usize)]) -> Mesh {
    Mesh::new(axes.iter().map(|(name, size)| (*name, *size))).expect("a mesh")
}

pub fn collect(id: u32, kind: CollectKind, group: &[&str]) -> Collect {
    let group = group.iter().map(|axis| Name::new(axis)).collect();
    Collect { id, kind, group, from: vec![], to: vec![], why: "".into() }
}

pub fn area(bytes: &mut Bytes) -> Area {
    Area { at: bytes.as_mut_ptr(), bytes: bytes.len() }
}

pub fn slice(bytes: usize) -> Slice {
    Slice::whole(BufferId(0), bytes as u64)
}

impl Part {
    pub fn new(
        rank: &dyn Communicator,
        mesh: &Mesh,
        collect: &Collect,
        mut from: Vec<Bytes>,
        to: &[usize],
    ) -> Result<Self, CommError> {
        let mut to: Vec<Bytes> = to.iter().map(|bytes| vec![0xEE; *bytes]).collect();
        let areas = (from.iter_mut().map(area).collect(), to.iter_mut().map(area).collect());
        let collective = rank.prepare(Operation::new(collect, mesh, rank.rank(), 0, areas)?)?;
        Ok(Self { collective, from, to })
    }

    pub fn run(&mut self) -> Result<&[Bytes], CommError> {
        // SAFETY: the areas are vectors that live in this part and never move their bytes; it is borrowed mutably.
        unsafe { self.collective.run() }?;
        Ok(&self.to)
    }

    /// Overwrites the sources in place.
    pub fn refill(&mut self, from: &[Bytes]) {
        self.from.iter_mut().zip(from).for_each(|(to, from)| to.copy_from_slice(from));
    }
}

/// Runs `work` for each rank of a world, each on its thread; the results by rank.
pub fn each<T: Send>(world: usize, patience: Option<Duration>, work: impl Fn(Arc<Local>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let ranks = Local::world(world, patience).into_iter().map(|rank| {
            let work = &work;
            scope.spawn(move || work(Arc::new(rank)))
        });
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|rank| rank.join().expect("a rank that does not panic")).collect()
    })
}
