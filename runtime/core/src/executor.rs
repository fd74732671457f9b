//! The executor of one rank: memory, threads and code, and one call a step.
#![allow(unsafe_code, reason = "between runs nobody else touches the arena, and its buffers are handed out as slices")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use comm::Communicator;
use plan::{Buffer, BufferId, ClassId, EmitId, Life, Plan, ResidencyId, Verified};
use types::Runs;

use crate::arena::Arena;
use crate::code::Code;
use crate::events::Events;
use crate::feeder::Staging;
use crate::freshness::Freshness;
use crate::lane::LaneThread;
use crate::machine::{Machine, Task};
use crate::mirror::Mirror;
use crate::poison::Poison;
use crate::pool::Pool;
use crate::progress::{Phase, Progress};
use crate::residence::Residence;
use crate::trace::Mark;
use crate::{Call, Device, ExecError, Fault, FaultKind, Feeder, HostFeeds, Kernels};

/// Spins of a thread before it sleeps: some 20 microseconds, longer than the gap between two launches.
const SPINS: u32 = 4000;

/// The same where ranks share the cores, and what is waited for may need this one.
const SHARED_SPINS: u32 = 200;

#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that share the parts of a kernel. Their number never changes bits.
    pub threads: usize,
    /// Overwrite each buffer with NaN when it was used for the last time; results must not change.
    pub poison: bool,
    /// Keep the times of each instruction, for [`crate::TraceWriter`].
    pub trace: bool,
    /// Makes one rank stall or fail, to see what the others do.
    pub fault: Option<Fault>,
    /// Holds lanes up at random before instructions, by this seed; results must not change.
    pub jitter: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 1, poison: false, trace: false, fault: None, jitter: None }
    }
}

pub struct Executor {
    plan: Arc<Plan>,
    class: ClassId,
    machine: Arc<Machine>,
    /// Threads of the lanes from the second on.
    lanes: Vec<LaneThread>,
    /// Of persistent buffers, where the memory is a device's.
    mirror: Option<Mirror>,
    residence: Residence,
    freshness: Freshness,
    /// All runs, and those of them that did not prepare values.
    runs: u64,
    steps: u64,
}

/// Times of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// From start to end, without the wait for feeds.
    pub time: Duration,
    /// How long the run waited for its feeds.
    pub fed: Duration,
}

impl Executor {
    /// Makes everything ready that a run needs. Without a communicator, this is a world of one rank.
    pub fn new(
        plan: &Verified,
        kernels: impl Kernels,
        communicator: Option<Arc<dyn Communicator>>,
        options: &Options,
    ) -> Result<Self, ExecError> {
        Self::told(Self::make(plan.plan().clone(), kernels, None, communicator.clone(), options), communicator)
    }

    /// The same on a device, whose memory is as large as the largest arena of the rank's class.
    pub fn on(
        plan: &Verified,
        device: Arc<dyn Device>,
        communicator: Option<Arc<dyn Communicator>>,
        options: &Options,
    ) -> Result<Self, ExecError> {
        if options.poison {
            return Err(ExecError::PoisonedDevice);
        }
        let (plan, options) = (plan.plan().clone(), Options { threads: 1, ..options.clone() });
        Self::told(Self::make(plan, NoKernels, Some(device), communicator.clone(), &options), communicator)
    }

    /// Tells the other ranks, too, why an executor was not made.
    fn told(made: Result<Self, ExecError>, communicator: Option<Arc<dyn Communicator>>) -> Result<Self, ExecError> {
        if let (Err(error), Some(communicator)) = (&made, &communicator) {
            communicator.fail(&error.to_string());
        }
        made
    }

    fn make(
        plan: Arc<Plan>,
        kernels: impl Kernels,
        device: Option<Arc<dyn Device>>,
        communicator: Option<Arc<dyn Communicator>>,
        options: &Options,
    ) -> Result<Self, ExecError> {
        let (rank, world) = communicator.as_ref().map_or((0, 1), |c| (c.rank(), c.world()));
        let _span = tracing::info_span!("prepare", rank).entered();
        let class = plan.class_of(rank).filter(|_| plan.header.world() == world);
        let class = class.ok_or_else(|| mismatch(&plan, world))?;

        let scopes = || (0..plan.programs.len()).filter_map(|program| plan.scope(program, class));
        let bodies = || scopes().map(|scope| scope.body);
        let fault = options.fault.filter(|f| f.rank == rank);
        if let Some(Fault { at, kind, .. }) = fault {
            let instructions = bodies().map(|b| b.instructions.len()).max().unwrap_or(0);
            let why = match kind {
                FaultKind::Stall if world == 1 => "there is no other rank to notice that it stalls",
                _ if at >= instructions => "its programs have fewer instructions",
                _ => "",
            };
            if !why.is_empty() {
                return Err(ExecError::NoFault { rank, at, why });
            }
        }

        let bytes = bodies().map(|b| b.arena_bytes).max().unwrap_or(0);
        let beside = bodies().map(|b| b.host_bytes).max().unwrap_or(0);
        let (arena, host) = match &device {
            None => (Arena::new(bytes)?, Arena::new(beside)?),
            Some(device) => {
                device.enter()?;
                let host = if beside > 0 { Arena::beside(device.clone(), beside)? } else { Arena::new(0)? };
                (Arena::of(device.clone(), bytes), host)
            }
        };
        let (arena, host) = (Arc::new(arena), Arc::new(host));
        let threads = options.threads.clamp(1, 1024);
        let spins = if world == 1 { SPINS } else { SHARED_SPINS };
        let most_parts = if kernels.splits() { threads as u32 } else { 1 };
        let described = &plan.classes[class.index()];
        let persistent = described.persistent.len();
        let lane_count = bodies().map(|b| b.lanes.len()).max().unwrap_or(0);
        let progress = Arc::new(Progress::new(plan.clone(), class, lane_count.max(1)));
        if let Some(communicator) = &communicator {
            communicator.attach(progress.clone());
        }
        let seat = (rank, communicator.as_deref());
        let codes: Result<Vec<_>, _> =
            scopes().map(|scope| Code::new(scope, seat, (&arena, device.as_deref()), most_parts)).collect();
        let codes = Arc::new(codes?);

        let (work, alive) = (codes.clone(), arena.clone());
        let pool = Pool::new(threads, spins, move |job, part, parts| {
            let _arena = &alive;
            // SAFETY: the arena is alive, the plan is verified, and lanes submit a job only when their waits are over.
            unsafe { work[(job >> 32) as usize].launch(&kernels, job as u32 as usize, part, parts) }
        })?;
        let marks = |lane: usize| {
            let longest = codes.iter().map(|c| c.lanes.get(lane).map_or(0, Vec::len)).max().unwrap_or(0);
            Mutex::new(Vec::with_capacity(longest))
        };
        let poison = || bodies().map(|body| Poison::new(&plan, described, body)).collect();
        let machine = Arc::new(Machine {
            pool,
            events: codes.iter().map(|c| Events::new(c.events, spins)).collect(),
            emits: plan.programs.iter().map(|p| p.emits.iter().map(|_| Mutex::default()).collect()).collect(),
            marks: options.trace.then(|| (0..lane_count).map(marks).collect()),
            codes,
            device,
            arena,
            host,
            plan: plan.clone(),
            class,
            rank,
            communicator,
            progress,
            fault,
            jitter: options.jitter,
            poison: options.poison.then(poison),
            failure: Mutex::default(),
        });
        let lanes = (1..lane_count).map(|lane| LaneThread::new(lane, machine.clone())).collect::<Result<_, _>>()?;
        let mirror = machine.device.clone().map(|device| Mirror::new(device, persistent));
        let (residence, freshness) = (Residence::new(&plan, class), Freshness::new(&plan));
        let mut executor = Self { plan, class, machine, lanes, mirror, residence, freshness, runs: 0, steps: 0 };
        if options.poison {
            executor.poison_scratch();
        }
        Ok(executor)
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub fn class(&self) -> ClassId {
        self.class
    }

    pub fn rank(&self) -> usize {
        self.machine.rank
    }

    /// The feeds that a program takes and the bytes of each.
    pub fn feeds(&self, program: usize) -> &[(usize, u64)] {
        &self.machine.codes[program].feeds
    }

    /// The emits that a program gives and the bytes of each.
    pub fn emits(&self, program: usize) -> &[(usize, u64)] {
        &self.machine.codes[program].emits
    }

    /// The content of a persistent buffer; none if there is no such buffer.
    pub fn read(&self, id: BufferId) -> Result<Option<&[u8]>, ExecError> {
        let Some(buffer) = self.persistent(id) else { return Ok(None) };
        if self.residence.is_asleep(buffer) {
            return Ok(Some(self.residence.copy(id.index())));
        }
        Ok(Some(match &self.mirror {
            Some(mirror) if !buffer.on_host() => mirror.read(id.index(), buffer)?,
            // SAFETY: `run` takes the executor mutably, so that no lane runs while this borrow lives.
            _ => unsafe { self.machine.arena(buffer.space).read(buffer.offset, buffer.bytes) },
        }))
    }

    /// The content of a persistent buffer, to be changed between runs. What a residency has in the arena goes to sleep
    /// first, so that it is loaded anew.
    pub fn write(&mut self, id: BufferId) -> Result<Option<&mut [u8]>, ExecError> {
        self.freshness.written();
        if self.persistent(id).is_some_and(|buffer| matches!(buffer.life, Life::Resident(_))) {
            self.enter(None)?;
            return Ok(Some(self.residence.copy_mut(id.index())));
        }
        let buffers = &self.plan.classes[self.class.index()].persistent;
        let Some(buffer) = buffers.get(id.index()) else { return Ok(None) };
        Ok(Some(match &mut self.mirror {
            Some(mirror) if !buffer.on_host() => mirror.write(id.index(), buffers)?,
            // SAFETY: the executor is borrowed mutably: no run and no other slice.
            _ => unsafe { self.machine.arena(buffer.space).write(buffer.offset, buffer.bytes) },
        }))
    }

    /// Whether persistent buffers hold zeros until something is written to them.
    pub fn begins_zeroed(&self) -> bool {
        self.mirror.is_none()
    }

    fn persistent(&self, id: BufferId) -> Option<&Buffer> {
        self.plan.classes[self.class.index()].persistent.get(id.index())
    }

    /// Keeps the values of a program's emit from now on, or drops them.
    pub fn request(&mut self, program: usize, emit: EmitId, wanted: bool) {
        let given = self.machine.codes.get(program).map_or(&[][..], |code| &code.emits);
        let bytes = given.iter().find(|(e, _)| wanted && *e == emit.index()).map_or(0, |(_, bytes)| *bytes);
        if let Some(slot) = self.machine.emits.get(program).and_then(|emits| emits.get(emit.index())) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = vec![0; bytes as usize];
        }
    }

    /// The value of an emit in the program's last run; empty if nobody requested it.
    pub fn emitted(&self, program: usize, emit: EmitId) -> MutexGuard<'_, Vec<u8>> {
        self.machine.emits[program][emit.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a program once, with the feeds of the feeder's next step; what it needs is prepared and loaded first. After an
    /// error, this and the other ranks run nothing any more.
    pub fn run(&mut self, program: usize, feeder: &mut Feeder) -> Result<Run, ExecError> {
        let before = Instant::now();
        let step = feeder.step();
        self.machine.progress.enter(Phase::Feeds, program, step);
        let staging = self.fed(program, feeder)?;
        let start = Instant::now();
        self.prepare()?;
        self.once(program, step, staging)?;
        feeder.release();
        Ok(Run { time: start.elapsed(), fed: start - before })
    }

    /// Runs a program that runs on demand once, with the feeds as the host left them; `step` is what people call the run.
    pub fn call(&mut self, program: usize, feeds: &HostFeeds, step: u64) -> Result<Run, ExecError> {
        let start = Instant::now();
        self.prepare()?;
        self.once(program, step, feeds.staging())?;
        Ok(Run { time: start.elapsed(), fed: Duration::ZERO })
    }

    /// Brings prepared values up to date with parameters. A run does so by itself.
    pub fn prepare(&mut self) -> Result<(), ExecError> {
        while let Some(program) = self.freshness.next() {
            let staging = Arc::new(Staging::new(&[], 1));
            self.once(program, 0, staging)?;
            // A trace shows steps.
            self.take_marks(|_, _| {});
        }
        Ok(())
    }

    /// Runs a program once; its parameters are loaded first if they sleep.
    fn once(&mut self, program: usize, step: u64, staging: Arc<Staging>) -> Result<(), ExecError> {
        let _span = tracing::info_span!("step", step).entered();
        if let Some(residency) = self.plan.programs[program].residency {
            self.enter(Some(residency))?;
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.clear(&self.plan.classes[self.class.index()].persistent)?;
        }
        self.runs += 1;
        let prepares = self.plan.programs[program].runs == Runs::Prepare;
        let is_first = !prepares && self.steps == 0;
        self.steps += u64::from(!prepares);
        self.machine.progress.enter(Phase::Running, program, step);
        let task = Task { program, run: self.runs, is_first, step, staging };
        for lane in &self.lanes {
            lane.start(task.clone());
        }
        self.machine.lane(&task, 0);
        for lane in &self.lanes {
            lane.finish();
        }
        if let Some(error) = self.machine.error() {
            return Err(error);
        }
        self.machine.progress.enter(Phase::Between, program, step);
        self.freshness.ran(program);
        Ok(())
    }

    /// Loads the parameters of a residency into the arena, and keeps of those that were there what programs have written.
    /// Without one, what is there stays, unless the host is to change it.
    fn enter(&mut self, wanted: Option<ResidencyId>) -> Result<(), ExecError> {
        if self.residence.entered == wanted {
            return Ok(());
        }
        let _span = tracing::info_span!("residency").entered();
        let plan = self.plan.clone();
        let persistent = &plan.classes[self.class.index()].persistent;
        if let Some(left) = self.residence.entered.take() {
            let members: Vec<(usize, bool)> = self.residence.of(persistent, left).collect();
            for (index, _) in members.into_iter().filter(|(_, written)| *written) {
                let Buffer { offset, bytes, space, .. } = persistent[index];
                let copy = self.residence.copy_mut(index);
                match &self.machine.device {
                    Some(device) => {
                        device.enter()?;
                        device.read(offset, copy)?;
                    }
                    // SAFETY: the executor is borrowed mutably: no run and no other slice.
                    None => copy.copy_from_slice(unsafe { self.machine.arena(space).read(offset, bytes) }),
                }
            }
        }
        let Some(residency) = wanted else { return Ok(()) };
        for (index, _) in self.residence.of(persistent, residency) {
            let Buffer { offset, bytes, space, .. } = persistent[index];
            let copy = self.residence.copy(index);
            match &self.machine.device {
                Some(device) => {
                    device.enter()?;
                    device.write(copy, offset)?;
                }
                // SAFETY: the executor is borrowed mutably: no run and no other slice.
                None => unsafe { self.machine.arena(space).write(offset, bytes) }.copy_from_slice(copy),
            }
        }
        self.residence.entered = Some(residency);
        Ok(())
    }

    /// Waits until the feeds of the feeder's next step are there. An error leaves the state as the last step did, and the
    /// other ranks are not told: whoever asks all ranks before any of them begins a step can stop between two steps.
    pub fn ready(&self, program: usize, feeder: &Feeder) -> Result<(), ExecError> {
        self.machine.progress.enter(Phase::Feeds, program, feeder.step());
        self.staging(program, feeder).map(drop)
    }

    fn staging(&self, program: usize, feeder: &Feeder) -> Result<Arc<Staging>, ExecError> {
        let name = |feed: usize| self.plan.programs[program].feeds[feed].name.clone();
        let failed = || self.machine.error().or_else(|| self.machine.ended().map(ExecError::Comm));
        failed().map_or_else(|| feeder.wait(name, failed), Err)
    }

    /// Waits for the next step's feeds, as long as all ranks are well.
    fn fed(&self, program: usize, feeder: &Feeder) -> Result<Arc<Staging>, ExecError> {
        let staging = self.staging(program, feeder);
        if let (Err(error), Some(communicator)) = (&staging, &self.machine.communicator) {
            communicator.fail(&error.to_string());
        }
        staging
    }

    /// The times of the last run's instructions, by lane.
    pub(crate) fn take_marks(&self, mut each: impl FnMut(usize, &Mark)) {
        for (lane, marks) in self.machine.marks.iter().flatten().enumerate() {
            for mark in marks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                each(lane, &mark);
            }
        }
    }

    /// All that is not persistent, before the first run.
    fn poison_scratch(&mut self) {
        for body in self.plan.programs.iter().map(|p| &p.bodies[self.class.index()]) {
            for buffer in body.buffers.iter().filter(|b| b.life != Life::Persistent) {
                // SAFETY: the executor is borrowed mutably: no run and no other slice.
                unsafe { self.machine.arena(buffer.space).write(buffer.offset, buffer.bytes) }.fill(0xFF);
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(communicator) = &self.machine.communicator {
            if std::thread::panicking() {
                communicator.fail("its thread panicked");
            }
            communicator.leave();
        }
    }
}

/// On a device, launches are submitted.
struct NoKernels;

impl Kernels for NoKernels {
    unsafe fn launch(&self, _: &Call<'_>, _: u32, _: u32) {}
}

fn mismatch(plan: &Plan, world: usize) -> ExecError {
    let axes = plan.header.mesh.axes.iter().filter(|a| a.size > 1);
    let mesh: Vec<_> = axes.map(|a| format!("{}={}", a.name, a.size)).collect();
    ExecError::World { plan: plan.header.world(), mesh: mesh.join(" "), world }
}
