//! The executor of one rank: memory, threads and code, and one call a step.
#![allow(unsafe_code, reason = "between runs nobody else touches the arena, and its buffers are handed out as slices")]

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plan::{Buffer, BufferId, ClassId, EmitId, Life, Op, Plan, verify};

use crate::arena::Arena;
use crate::code::Code;
use crate::events::Events;
use crate::lane::{LaneThread, Machine, Task};
use crate::pool::Pool;
use crate::trace::Mark;
use crate::{ExecError, Feeder, Kernels};

#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that share the parts of a kernel. Their number never changes bits.
    pub threads: usize,
    /// Overwrite each buffer with NaN at the end of its life; results must not change.
    pub poison: bool,
    /// Keep the times of each instruction, for [`crate::TraceWriter`].
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 1, poison: false, trace: false }
    }
}

pub struct Executor {
    plan: Arc<Plan>,
    class: ClassId,
    machine: Arc<Machine>,
    /// Threads of the lanes from the second on.
    lanes: Vec<LaneThread>,
    poison: bool,
    runs: u64,
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
    /// Verifies the plan and makes everything ready that a run needs.
    pub fn new(plan: Arc<Plan>, rank: usize, kernels: impl Kernels, options: &Options) -> Result<Self, ExecError> {
        let _span = tracing::info_span!("prepare", rank).entered();
        verify(&plan).map_err(ExecError::Unsafe)?;
        let world = plan.header.world();
        let class = if rank < world { plan.class_of(rank) } else { None };
        let class = class.ok_or(ExecError::NoSuchRank { rank, world })?;
        let coordinates = plan.header.mesh.coordinates(rank);

        let bodies = || plan.programs.iter().map(|p| (&p.name, &p.bodies[class.index()]));
        let arena = Arc::new(Arena::new(bodies().map(|(_, b)| b.arena_bytes).max().unwrap_or(0))?);
        let threads = options.threads.clamp(1, 1024);
        let most_parts = if kernels.splits() { threads as u32 } else { 1 };
        let described = &plan.classes[class.index()];
        let codes: Result<Vec<_>, _> = bodies()
            .map(|(name, body)| Code::new(&plan, (name, described, body), &coordinates, &arena, most_parts))
            .collect();
        let codes = Arc::new(codes?);

        let (work, alive) = (codes.clone(), arena.clone());
        let pool = Pool::new(threads, move |job, part, parts| {
            let _arena = &alive;
            // SAFETY: the arena is alive, the plan is verified, and lanes submit a job only when their waits are over.
            unsafe { work[(job >> 32) as usize].launch(&kernels, job as u32 as usize, part, parts) }
        })?;
        let lane_count = codes.iter().map(|c| c.lanes.len()).max().unwrap_or(0);
        let marks = |lane: usize| {
            let longest = codes.iter().map(|c| c.lanes.get(lane).map_or(0, Vec::len)).max().unwrap_or(0);
            Mutex::new(Vec::with_capacity(longest))
        };
        let machine = Arc::new(Machine {
            pool,
            events: codes.iter().map(|c| Events::new(c.events)).collect(),
            emits: plan.manifest.emits.iter().map(|_| Mutex::default()).collect(),
            marks: options.trace.then(|| (0..lane_count).map(marks).collect()),
            codes,
            arena,
            start: Instant::now(),
            panicked: AtomicU32::new(0),
        });
        let others = if options.poison { 1..1 } else { 1..lane_count };
        let lanes = others.map(|lane| LaneThread::new(lane, machine.clone())).collect::<Result<_, _>>()?;
        let mut executor = Self { plan, class, machine, lanes, poison: options.poison, runs: 0 };
        if executor.poison {
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

    /// The feeds that a program takes and the bytes of each.
    pub fn feeds(&self, program: usize) -> &[(usize, u64)] {
        &self.machine.codes[program].feeds
    }

    /// The emits that a program gives and the bytes of each.
    pub fn emits(&self, program: usize) -> &[(usize, u64)] {
        &self.machine.codes[program].emits
    }

    /// The content of a persistent buffer; none if there is no such buffer.
    pub fn read(&self, id: BufferId) -> Option<&[u8]> {
        let buffer = self.persistent(id)?;
        // SAFETY: `run` takes the executor mutably, so that no lane runs while this borrow lives.
        Some(unsafe { self.machine.arena.read(buffer.offset, buffer.bytes) })
    }

    /// The content of a persistent buffer, to be changed between runs.
    pub fn write(&mut self, id: BufferId) -> Option<&mut [u8]> {
        let (offset, bytes) = self.persistent(id).map(|b| (b.offset, b.bytes))?;
        // SAFETY: the executor is borrowed mutably: no run and no other slice.
        Some(unsafe { self.machine.arena.write(offset, bytes) })
    }

    fn persistent(&self, id: BufferId) -> Option<&Buffer> {
        self.plan.classes[self.class.index()].persistent.get(id.index())
    }

    /// Keeps the values of an emit from now on, or drops them.
    pub fn request(&mut self, emit: EmitId, wanted: bool) {
        let gives = |code: &Code| code.emits.iter().find(|(e, _)| *e == emit.index()).map(|(_, bytes)| *bytes);
        let bytes = self.machine.codes.iter().find_map(gives).filter(|_| wanted).unwrap_or(0);
        if let Some(slot) = self.machine.emits.get(emit.index()) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = vec![0; bytes as usize];
        }
    }

    /// The value of an emit in the last run; empty if nobody requested it.
    pub fn emitted(&self, emit: EmitId) -> MutexGuard<'_, Vec<u8>> {
        self.machine.emits[emit.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a program once, with the feeds of the feeder's next step.
    pub fn run(&mut self, program: usize, feeder: &mut Feeder) -> Result<Run, ExecError> {
        let before = Instant::now();
        let step = feeder.step();
        let staging = feeder.wait(|feed| self.plan.manifest.feeds[feed].name.clone())?;
        let _span = tracing::info_span!("step", step).entered();
        let start = Instant::now();
        self.runs += 1;
        let task = Task { program, run: self.runs, step, staging };
        let good = if self.poison {
            self.machine.poisoned(&task)
        } else {
            for lane in &self.lanes {
                lane.start(task.clone());
            }
            let mut good = self.machine.lane(&task, 0);
            for lane in &self.lanes {
                good &= lane.finish();
            }
            good
        };
        if !good {
            return Err(self.failure(program));
        }
        feeder.release();
        Ok(Run { time: start.elapsed(), fed: start - before })
    }

    fn failure(&self, program: usize) -> ExecError {
        let index = self.machine.panicked.load(SeqCst).saturating_sub(1) as usize;
        let instruction = &self.plan.programs[program].bodies[self.class.index()].instructions[index];
        let kernel = match &instruction.op {
            Op::Launch(launch) => self.plan.kernels[launch.kernel.index()].symbol.clone(),
            _ => "the executor".into(),
        };
        ExecError::Kernel { kernel, place: self.plan.places[instruction.place.index()].to_string() }
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
                unsafe { self.machine.arena.write(buffer.offset, buffer.bytes) }.fill(0xFF);
            }
        }
    }
}
