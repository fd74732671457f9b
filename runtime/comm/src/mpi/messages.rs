//! Messages of one phase of a collective: made once, and exchanged any number of times.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use mpi::ffi;

use super::Inner;
use crate::processes::Attendance;
use crate::{Area, CommError};

/// MPI counts in 32 bits.
const LONGEST: usize = 1 << 30;

/// Tests of a thread before it begins to sleep between them.
const SPINS: u32 = 200;
const NAP: Duration = Duration::from_micros(50);

/// How long the last messages of a rank that has left may still be on their way.
const GRACE: Duration = Duration::from_secs(3);

pub struct Messages {
    tag: c_int,
    requests: Vec<ffi::MPI_Request>,
    /// The position at the other end of each.
    peers: Vec<usize>,
    /// Of those that a test found complete.
    found: Vec<c_int>,
    /// Which are complete in this exchange.
    done: Vec<bool>,
}

// SAFETY: MPI's handles belong to the process, and whoever uses them is alone inside MPI.
unsafe impl Send for Messages {}

impl Messages {
    /// Messages of different tags do not meet.
    pub fn new(tag: u32) -> Result<Self, CommError> {
        // The tags that every implementation has would do for small plans alone; those of 31 bits are Open MPI's and MPICH's.
        let tag =
            c_int::try_from(tag).map_err(|_| CommError::Mpi(format!("the plan has too many collectives: {tag}")))?;
        Ok(Self { tag, requests: Vec::new(), peers: Vec::new(), found: Vec::new(), done: Vec::new() })
    }

    /// # Safety
    /// Whenever the messages are exchanged, the area is valid and nobody else touches it.
    pub unsafe fn receive(&mut self, area: Area, position: usize, rank: usize) -> Result<(), CommError> {
        let tag = self.tag;
        self.add(area, position, |at, count, request| {
            // SAFETY: MPI runs; what it will write to is the caller's promise.
            unsafe {
                let (u8, world) = (ffi::RSMPI_UINT8_T, ffi::RSMPI_COMM_WORLD);
                ffi::MPI_Recv_init(at.cast(), count, u8, rank as c_int, tag, world, request)
            }
        })
    }

    /// # Safety
    /// Whenever the messages are exchanged, the area is valid and nobody writes it.
    pub unsafe fn send(&mut self, area: Area, position: usize, rank: usize) -> Result<(), CommError> {
        let tag = self.tag;
        self.add(area, position, |at, count, request| {
            // SAFETY: MPI runs; what it will read is the caller's promise.
            unsafe {
                let (u8, world) = (ffi::RSMPI_UINT8_T, ffi::RSMPI_COMM_WORLD);
                ffi::MPI_Send_init(at.cast(), count, u8, rank as c_int, tag, world, request)
            }
        })
    }

    fn add(
        &mut self,
        area: Area,
        position: usize,
        make: impl Fn(*mut u8, c_int, *mut ffi::MPI_Request) -> c_int,
    ) -> Result<(), CommError> {
        let mut at = 0;
        while at < area.bytes {
            let piece = area.part(at..(at + LONGEST).min(area.bytes));
            // SAFETY: copying a constant of MPI's.
            let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
            check(make(piece.at, piece.bytes as c_int, &mut request))?;
            self.requests.push(request);
            self.peers.push(position);
            self.found.push(0);
            self.done.push(false);
            at += piece.bytes;
        }
        Ok(())
    }

    /// Sends and receives all of them once.
    ///
    /// # Safety
    /// The areas are as promised until this returns.
    pub unsafe fn exchange(&mut self, inner: &Inner, attendance: &Attendance) -> Result<(), CommError> {
        if self.requests.is_empty() {
            return Ok(());
        }
        attendance.begin(self.peers.iter().copied());
        let result = self.run(inner, attendance);
        if result.is_ok() {
            attendance.end();
        }
        result
    }

    fn run(&mut self, inner: &Inner, attendance: &Attendance) -> Result<(), CommError> {
        let start = |request: &mut ffi::MPI_Request| {
            let _alone = inner.enter();
            // SAFETY: a persistent request that is not under way.
            check(unsafe { ffi::MPI_Start(request) })
        };
        // One by one, since messages of one tag keep the order in which they start.
        self.requests.iter_mut().try_for_each(start)?;
        let (begin, mut tests, mut over, mut late) = (Instant::now(), 0, None, false);
        let mut left = self.requests.len();
        self.done.fill(false);
        while left > 0 {
            let found = self.test(inner)?;
            // A message may be on its way before its peer has come: who is here is whose own have arrived too.
            for at in self.found[..found].iter().map(|at| *at as usize) {
                self.done[at] = true;
                let peer = self.peers[at];
                if self.peers.iter().zip(&self.done).all(|(other, done)| *other != peer || *done) {
                    attendance.came(peer);
                }
            }
            left -= found;
            tests = if found > 0 { 0 } else { tests + 1 };
            if tests < SPINS {
                std::thread::yield_now();
                continue;
            }
            std::thread::sleep(NAP);
            let link = &inner.link;
            if link.ended() {
                return Err(CommError::Ended(link.report(Some(attendance))));
            }
            if link.is_over(attendance.group()) && over.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Err(CommError::Ended(link.report(Some(attendance))));
            }
            if !late && begin.elapsed() > link.patience() {
                late = true;
                link.late(attendance);
            }
        }
        Ok(())
    }

    /// How many more are complete; `found` begins with their numbers.
    fn test(&mut self, inner: &Inner) -> Result<usize, CommError> {
        let _alone = inner.enter();
        let mut count = 0;
        let (length, requests) = (self.requests.len() as c_int, self.requests.as_mut_ptr());
        // SAFETY: as many requests as are said, with room for the number of each; statuses are not asked for.
        let code = unsafe {
            ffi::MPI_Testsome(length, requests, &mut count, self.found.as_mut_ptr(), ffi::RSMPI_STATUSES_IGNORE)
        };
        check(code)?;
        // Below zero: none is under way.
        Ok(usize::try_from(count).unwrap_or(0))
    }
}

/// An MPI call's code, in MPI's words.
pub fn check(code: c_int) -> Result<(), CommError> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut length = 0;
    // SAFETY: as much room as MPI asks for.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    let text = &text[..usize::try_from(length).unwrap_or(0).min(text.len())];
    Err(CommError::Mpi(String::from_utf8_lossy(text).into_owned()))
}
