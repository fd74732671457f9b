//! An exchange: one rank's part in a collective, as messages to and from each of the others.

use std::sync::{Arc, Mutex, PoisonError};

use super::Inner;
use super::messages::Messages;
use crate::processes::Attendance;
use crate::reduce::reduce;
use crate::{Area, Collective, CommError, Kind, Operation};

pub struct Exchange {
    operation: Operation,
    inner: Arc<Inner>,
    attendance: Arc<Attendance>,
    /// Parts that stay on this rank: from, to.
    copies: Vec<(Area, Area)>,
    messages: Mutex<Messages>,
    /// What others sent to be reduced here, by tensor and position.
    sources: Vec<Vec<Area>>,
    /// Where each reduction goes.
    targets: Vec<Area>,
    /// After the reduction, where it was shared.
    results: Mutex<Messages>,
    /// Where `sources` are that are not this rank's own.
    _scratch: Vec<Vec<u8>>,
}

// SAFETY: areas are addresses that are followed under the contract of `run` alone; the scratch is this exchange's own.
unsafe impl Sync for Exchange {}

impl Exchange {
    pub fn new(operation: Operation, inner: Arc<Inner>) -> Result<Self, CommError> {
        let attendance = Arc::new(Attendance::new(&operation));
        inner.link.register(attendance.clone());
        let tag = operation.id.saturating_mul(2);
        let mut exchange = Self {
            attendance,
            copies: Vec::new(),
            messages: Mutex::new(Messages::new(tag)?),
            sources: Vec::new(),
            targets: Vec::new(),
            results: Mutex::new(Messages::new(tag | 1)?),
            _scratch: Vec::new(),
            operation,
            inner,
        };
        exchange.plan()?;
        Ok(exchange)
    }

    /// Decides what goes where.
    fn plan(&mut self) -> Result<(), CommError> {
        let inner = self.inner.clone();
        let _alone = inner.enter();
        let operation = self.operation.clone();
        let (ranks, own) = (operation.group.len(), operation.position);
        let (none, tensors) =
            (Area { at: std::ptr::null_mut(), bytes: 0 }, operation.from.len().max(operation.to.len()));
        let others = || (1..ranks).map(|k| (own + k) % ranks);
        for i in 0..tensors {
            let from = operation.from.get(i).copied().unwrap_or(none);
            let to = operation.to.get(i).copied().unwrap_or(none);
            let piece = |of: Area, position: usize| {
                let bytes = of.bytes / ranks;
                of.part(position * bytes..(position + 1) * bytes)
            };
            match &operation.kind {
                Kind::AllGather => {
                    self.copies.push((from, piece(to, own)));
                    others().try_for_each(|p| self.pair(p, from, piece(to, p)))?;
                }
                Kind::AllToAll => {
                    self.copies.push((piece(from, own), piece(to, own)));
                    others().try_for_each(|p| self.pair(p, piece(from, p), piece(to, p)))?;
                }
                Kind::ReduceScatter(_) => self.reduced(|p| piece(from, p), to)?,
                Kind::AllReduce(how) if operation.is_shared() => {
                    let share = |of: Area, p| of.part(of.share(how.dtype.bytes(), ranks, p));
                    self.reduced(|p| share(from, p), share(to, own))?;
                    for p in others() {
                        // SAFETY: after the reduction, shares of the target that others reduced are written by them alone,
                        // and this rank's own share is only read.
                        unsafe {
                            let results = self.results.get_mut().unwrap_or_else(PoisonError::into_inner);
                            results.receive(share(to, p), p, operation.group[p])?;
                            results.send(share(to, own), p, operation.group[p])?;
                        }
                    }
                }
                Kind::AllReduce(_) => self.reduced(|_| from, to)?,
                Kind::Broadcast { root } if *root == own => {
                    self.copies.push((from, to));
                    others().try_for_each(|p| self.pair(p, from, none))?;
                }
                Kind::Broadcast { root } => self.pair(*root, none, to)?,
                Kind::Permute { shifts } => {
                    let shift = shifts[i].rem_euclid(ranks as i64) as usize;
                    if shift == 0 {
                        self.copies.push((from, to));
                    } else {
                        self.pair((own + ranks - shift) % ranks, none, to)?;
                        self.pair((own + shift) % ranks, from, none)?;
                    }
                }
                Kind::Send { to: peer } => self.pair(*peer, from, none)?,
                Kind::Receive { from: peer } => self.pair(*peer, none, to)?,
            }
        }
        Ok(())
    }

    /// Sends one area to a position, and receives another from it.
    fn pair(&mut self, position: usize, from: Area, to: Area) -> Result<(), CommError> {
        let rank = self.operation.group[position];
        let messages = self.messages.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: while the collective runs, the operation's areas are as its caller promised, and the scratch is its own.
        unsafe {
            messages.receive(to, position, rank)?;
            messages.send(from, position, rank)
        }
    }

    /// Sends each other position its piece, and makes room for theirs; they will be reduced to `to`.
    fn reduced(&mut self, piece: impl Fn(usize) -> Area, to: Area) -> Result<(), CommError> {
        let (ranks, own) = (self.operation.group.len(), self.operation.position);
        let mut scratch = vec![0u8; to.bytes * (ranks - 1)];
        let room = Area { at: scratch.as_mut_ptr(), bytes: scratch.len() };
        self._scratch.push(scratch);
        let mut sources = vec![piece(own); ranks];
        for k in 1..ranks {
            let position = (own + k) % ranks;
            sources[position] = room.part((k - 1) * to.bytes..k * to.bytes);
            self.pair(position, piece(position), sources[position])?;
        }
        self.sources.push(sources);
        self.targets.push(to);
        Ok(())
    }
}

impl Collective for Exchange {
    unsafe fn run(&self) -> Result<(), CommError> {
        for (from, to) in &self.copies {
            // SAFETY: the caller's promise; sources and targets do not overlap.
            unsafe { to.write().copy_from_slice(from.read()) };
        }
        let exchange = |messages: &Mutex<Messages>| {
            let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the caller's promise holds until `run` returns.
            unsafe { messages.exchange(&self.inner, &self.attendance) }
        };
        exchange(&self.messages)?;
        if let Kind::AllReduce(how) | Kind::ReduceScatter(how) = self.operation.kind {
            for (sources, to) in self.sources.iter().zip(&self.targets) {
                // SAFETY: the sources have arrived, or are this rank's own; the target is touched by nobody else.
                unsafe { reduce(how, to.write(), sources.len(), |p| sources[p].read()) };
            }
        }
        exchange(&self.results)
    }
}
