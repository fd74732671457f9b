//! A link: one process's connection to the hub, and through it to the other ranks.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::attendance::Attendance;
use super::frame::{Frame, LONGEST, Message, To};
use super::meetings::Meetings;
use super::work::done;
use super::{PULSE, SILENCE, was_stopped, why_lost};
use crate::report::End;
use crate::{Cause, CommError, Missing, Report, Standing, Waiting, Whereabouts};

/// How long others have to say where they are.
const ANSWERS: Duration = Duration::from_millis(1500);

pub struct Link {
    rank: usize,
    patience: Duration,
    writer: Mutex<TcpStream>,
    /// Why nothing more is written.
    unwritten: OnceLock<String>,
    state: Mutex<State>,
    change: Condvar,
    /// By rank: those that run no more collectives.
    left: Vec<AtomicBool>,
    /// Those whose processes end, after all meetings.
    gone: Vec<AtomicBool>,
    ended: AtomicBool,
    end: OnceLock<End>,
    whereabouts: OnceLock<Arc<dyn Whereabouts>>,
    attendances: Mutex<Vec<Arc<Attendance>>>,
}

struct State {
    heard: Instant,
    meetings: Meetings,
    answers: BTreeMap<usize, (Standing, Vec<Waiting>)>,
}

impl Link {
    /// Connects `rank` of `world` to the hub, which is at one of these addresses. Waits up to `patience`, here and later,
    /// for what other ranks have to do.
    pub fn join(at: &[SocketAddr], rank: usize, world: usize, patience: Duration) -> Result<Arc<Self>, CommError> {
        let unreachable = |error| {
            let at: Vec<_> = at.iter().map(ToString::to_string).collect();
            CommError::Unreachable { rank, at: at.join(" or "), error: Arc::new(error) }
        };
        let stream = connect(at, patience).map_err(unreachable)?;
        let link = Self::with(stream, rank, world, patience).map_err(unreachable)?;
        Ok(link)
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn world(&self) -> usize {
        self.left.len()
    }

    /// How long to wait for others.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What each rank gives under one name, in the order of ranks. All ranks call this with the same name, which no other
    /// meeting has at that time, and it returns when all have. If some do not come within the patience of this link, after
    /// the first has, the run ends and they are named.
    pub fn gather(&self, what: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CommError> {
        self.meet(what, bytes, true)
    }

    /// The same, for rank 0 alone: all other ranks get nothing.
    pub fn collect(&self, what: &str, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CommError> {
        self.meet(what, bytes, false)
    }

    fn meet(&self, what: &str, bytes: Vec<u8>, share: bool) -> Result<Vec<Vec<u8>>, CommError> {
        let world = self.world();
        let most = (LONGEST / 2) as usize / if share { world } else { 1 };
        if bytes.len() > most {
            return Err(CommError::TooLarge { what: what.into(), bytes: bytes.len(), most });
        }
        self.lock().meetings.wait_in(what);
        let contribution = Message::Contribution { what: what.into(), from: self.rank, bytes, share };
        if self.rank == 0 {
            self.take(contribution);
        } else {
            self.send(To::Rank(0), contribution);
        }
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(all) = state.meetings.take(what) {
                return Ok(all);
            }
            if let Some(error) = self.failure() {
                return Err(error);
            }
            // Rank 0 says who is late. It is alive, or the pulse would have said that it is not.
            let most = self.patience.saturating_add(2 * SILENCE);
            if start.elapsed() > most && state.meetings.is_unwatched(most) {
                drop(state);
                self.end(End::Stalled(Arc::new(self.unanswered(what))), true);
                state = self.lock();
                continue;
            }
            state = self.change.wait_timeout(state, PULSE / 10).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What this rank waits for in vain, and rank 0 would have to tell.
    fn unanswered(&self, what: &str) -> Report {
        let waiting = Waiting { id: None, what: what.into(), group: (0..self.world()).collect(), missing: vec![0] };
        Report::stalled((self.rank, self.patience), vec![waiting], |_| (Standing::Silent, Vec::new()))
    }

    /// Of rank 0: ends the run if a meeting is waited in for too long.
    fn watch_meetings(&self) {
        if self.rank != 0 || self.ended() {
            return;
        }
        if let Some(rank) = self.lock().meetings.missing(self.world()).find(|rank| self.gone[*rank].load(SeqCst)) {
            self.end(End::Cause(Cause::Left { rank }), true);
            return;
        }
        let (late, long) = {
            let meetings = &self.lock().meetings;
            (meetings.late(self.patience, self.world()), meetings.is_long(self.patience))
        };
        let Some((first, waiting)) = late else {
            if long {
                self.send(To::Others, Message::Watching);
            }
            return;
        };
        let answers = self.ask();
        if !self.lock().meetings.is_open(&waiting.what) {
            // They came while the others were asked.
            return;
        }
        let told = |rank| if rank == 0 { self.standing() } else { self.told(&answers, rank) };
        let report = Report::stalled((first, self.patience), vec![waiting], told);
        self.end(End::Stalled(Arc::new(report)), true);
    }

    pub fn attach(&self, whereabouts: Arc<dyn Whereabouts>) {
        // The first executor of a process is the one that runs.
        let _ = self.whereabouts.set(whereabouts);
    }

    /// Others may ask who is missing in this collective.
    pub fn register(&self, attendance: Arc<Attendance>) {
        self.attendances.lock().unwrap_or_else(PoisonError::into_inner).push(attendance);
    }

    /// Ends the run on all ranks, since this one failed.
    pub fn fail(&self, why: &str) {
        self.end(End::Cause(Cause::Failed { rank: self.rank, why: why.into() }), true);
    }

    /// Ends the run on all ranks: this one waited too long in a collective.
    pub fn late(&self, attendance: &Attendance) {
        if self.ended() {
            return;
        }
        // Without rank 0 nobody answers. It is heard soon, or the run ends because it is not.
        while self.lock().heard.elapsed() > 2 * PULSE {
            if self.ended() {
                return;
            }
            thread::sleep(PULSE / 10);
        }
        let answers = self.ask();
        let first = self.waiting(attendance).into_iter().collect();
        let report = Report::stalled((self.rank, self.patience), first, |rank| self.told(&answers, rank));
        self.end(End::Stalled(Arc::new(report)), true);
    }

    /// Says that this rank runs no more collectives. It still comes to meetings.
    pub fn leave(&self) {
        if !self.left[self.rank].swap(true, SeqCst) {
            self.send(To::Others, Message::Left { rank: self.rank });
        }
    }

    /// Says that this process ends, and comes to no meeting any more.
    pub fn farewell(&self) {
        self.leave();
        if !self.gone[self.rank].swap(true, SeqCst) {
            self.send(To::Hub, Message::Farewell { rank: self.rank });
        }
    }

    /// Whether the processes of all other ranks have ended, or are about to.
    pub fn is_last(&self) -> bool {
        self.gone.iter().enumerate().all(|(rank, gone)| rank == self.rank || gone.load(SeqCst))
    }

    pub fn is_alone(&self) -> bool {
        self.left.iter().enumerate().all(|(rank, left)| rank == self.rank || left.load(SeqCst))
    }

    /// Whether no collective of this group can come about any more.
    pub fn is_over(&self, group: &[usize]) -> bool {
        self.ended() || group.iter().any(|rank| self.left[*rank].load(SeqCst))
    }

    pub fn ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    pub fn failure(&self) -> Option<CommError> {
        self.ended().then(|| CommError::Ended(self.report(None)))
    }

    /// Why a collective cannot come about, or why none can any more.
    pub fn report(&self, attendance: Option<&Attendance>) -> Arc<Report> {
        let group = attendance.map(Attendance::group).unwrap_or_default();
        let end = self.end.get().cloned().unwrap_or_else(|| {
            let rank = group.iter().find(|rank| self.left[**rank].load(SeqCst)).copied().unwrap_or_default();
            End::Cause(Cause::Left { rank })
        });
        let cause = match end {
            End::Stalled(report) => return report,
            End::Cause(cause) => cause,
        };
        let (Cause::Failed { rank, .. } | Cause::Left { rank } | Cause::Stalled { rank, .. }) = &cause;
        // Another lane may know what the rank is missing in.
        let first = attendance.and_then(|a| self.waiting(a)).or_else(|| {
            let all = self.attendances.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().filter_map(|a| self.waiting(a)).find(|w| w.missing.contains(rank))
        });
        // Of ranks that are merely late nothing is known, and nothing is wrong.
        let missing = match &cause {
            Cause::Failed { .. } => Vec::new(),
            _ => vec![Missing { rank: *rank, standing: self.told(&BTreeMap::new(), *rank).0 }],
        };
        Arc::new(Report { waiting: first.into_iter().collect(), missing, cause })
    }

    fn with(stream: TcpStream, rank: usize, world: usize, patience: Duration) -> io::Result<Arc<Self>> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SILENCE))?;
        let reader = stream.try_clone()?;
        let link = Arc::new(Self {
            rank,
            patience,
            writer: Mutex::new(stream),
            unwritten: OnceLock::new(),
            state: Mutex::new(State { heard: Instant::now(), meetings: Meetings::default(), answers: BTreeMap::new() }),
            change: Condvar::new(),
            left: (0..world).map(|_| AtomicBool::new(false)).collect(),
            gone: (0..world).map(|_| AtomicBool::new(false)).collect(),
            ended: AtomicBool::new(false),
            end: OnceLock::new(),
            whereabouts: OnceLock::new(),
            attendances: Mutex::default(),
        });
        link.send(To::Hub, Message::Hello { rank, world });
        let (of_reader, of_pulse) = (Arc::downgrade(&link), Arc::downgrade(&link));
        thread::Builder::new().name("link".into()).spawn(move || {
            loop {
                let frame = Frame::read(&reader);
                let Some(link) = of_reader.upgrade() else { return };
                match frame {
                    Ok(frame) => link.take(frame.message),
                    Err(error) => {
                        let why = link.unwritten.get().cloned().unwrap_or_else(|| why_lost(&error));
                        return link.cut_off(&format!("{why}, and with it the place where ranks meet"));
                    }
                }
            }
        })?;
        thread::Builder::new().name("pulse".into()).spawn(move || {
            let (mut start, mut work) = (Instant::now(), done());
            while let Some(link) = of_pulse.upgrade() {
                if was_stopped(start) {
                    link.lock().heard = Instant::now();
                }
                link.send(To::Hub, Message::Pulse);
                let now = done();
                if std::mem::replace(&mut work, now) != now {
                    link.working();
                }
                link.watch_meetings();
                if link.lock().heard.elapsed() > SILENCE {
                    link.cut_off(&format!(
                        "its process gave no sign for {} s: stopped, starved or cut off",
                        SILENCE.as_secs()
                    ));
                }
                drop(link);
                start = Instant::now();
                thread::sleep(PULSE);
            }
        })?;
        Ok(link)
    }

    /// This process got on with something since the last pulse.
    fn working(&self) {
        match self.rank {
            0 => self.lock().meetings.work(0),
            from => self.send(To::Rank(0), Message::Working { from }),
        }
    }

    /// Rank 0 cannot be reached any more.
    fn cut_off(&self, why: &str) {
        if !self.gone[0].load(SeqCst) && !self.gone[self.rank].load(SeqCst) {
            self.end(End::Cause(Cause::Failed { rank: 0, why: why.into() }), false);
        }
    }

    fn take(&self, message: Message) {
        let mut state = self.lock();
        state.heard = Instant::now();
        match message {
            Message::Hello { .. } | Message::Pulse => {}
            Message::Working { from } => state.meetings.work(from),
            Message::Watching => state.meetings.watch(),
            Message::Contribution { what, from, bytes, share } => {
                if let Some(all) = state.meetings.give(&what, from, bytes, self.world()) {
                    let others = if share { all.clone() } else { vec![Vec::new(); all.len()] };
                    state.meetings.finish(what.clone(), all);
                    drop(state);
                    self.send(To::Others, Message::Gathered { what, all: others });
                }
            }
            Message::Gathered { what, all } => state.meetings.finish(what, all),
            Message::Question { from } => {
                drop(state);
                let (standing, waiting) = self.standing();
                self.send(To::Rank(from), Message::Answer { from: self.rank, standing, waiting });
            }
            Message::Answer { from, standing, waiting } => drop(state.answers.insert(from, (standing, waiting))),
            Message::Ended(end) => {
                drop(state);
                self.end(end, false);
            }
            Message::Left { rank } => self.left.get(rank).into_iter().for_each(|left| left.store(true, SeqCst)),
            Message::Farewell { rank } => self.gone.get(rank).into_iter().for_each(|gone| gone.store(true, SeqCst)),
        }
        self.change.notify_all();
    }

    /// What all other ranks say of themselves.
    fn ask(&self) -> BTreeMap<usize, (Standing, Vec<Waiting>)> {
        self.lock().answers.clear();
        self.send(To::Others, Message::Question { from: self.rank });
        let start = Instant::now();
        let mut state = self.lock();
        while state.answers.len() + 1 < self.world() && start.elapsed() < ANSWERS {
            state = self.change.wait_timeout(state, ANSWERS / 10).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.answers.clone()
    }

    /// Where this rank is, and what it waits in.
    fn standing(&self) -> (Standing, Vec<Waiting>) {
        let mut standing = self.whereabouts.get().map_or(Standing::NotStarted, |w| w.standing());
        let state = self.lock();
        let mut waiting = state.meetings.waiting(self.rank, self.world());
        if let (Some(what), Standing::NotStarted | Standing::Between { .. }) = (state.meetings.waits_for(), &standing) {
            standing = Standing::Meeting { what: what.into() };
        }
        drop(state);
        let attendances = self.attendances.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(attendances.iter().filter_map(|a| self.waiting(a)));
        (standing, waiting)
    }

    fn told(&self, answers: &BTreeMap<usize, (Standing, Vec<Waiting>)>, rank: usize) -> (Standing, Vec<Waiting>) {
        let standing = if self.left[rank].load(SeqCst) { Standing::Left } else { Standing::Silent };
        answers.get(&rank).cloned().unwrap_or((standing, Vec::new()))
    }

    fn waiting(&self, attendance: &Attendance) -> Option<Waiting> {
        attendance.waiting(|id| self.whereabouts.get().map(|w| w.collective(id)).unwrap_or_default())
    }

    fn end(&self, end: End, tell: bool) {
        if self.end.set(end.clone()).is_ok() {
            self.ended.store(true, SeqCst);
            if tell {
                self.send(To::Others, Message::Ended(end));
            }
        }
        self.change.notify_all();
    }

    fn send(&self, to: To, message: Message) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // After half a message the rest of the connection means nothing. The reader notices that it is gone.
        if let Err(error) = (Frame { to, message }).write(&*writer) {
            let _ = self.unwritten.set(why_lost(&error));
            let _ = writer.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.farewell();
        let _ = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
    }
}

fn connect(at: &[SocketAddr], patience: Duration) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
        for address in at {
            match TcpStream::connect_timeout(address, Duration::from_secs(1)) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        if start.elapsed() > patience {
            return Err(last);
        }
        thread::sleep(PULSE / 10);
    }
}
