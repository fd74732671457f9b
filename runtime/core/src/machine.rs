//! The machine of a rank: what its lanes share, and how they run instructions.
#![allow(unsafe_code, reason = "instructions touch the arena; the verified plan orders all that conflicts")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use comm::{CommError, Communicator};
use plan::{ClassId, Op, Plan, Space};

use crate::arena::Arena;
use crate::code::{Code, Step};
use crate::events::Events;
use crate::fault::delay;
use crate::feeder::Staging;
use crate::poison::Poison;
use crate::pool::Pool;
use crate::progress::Progress;
use crate::trace::Mark;
use crate::{Device, DeviceError, ExecError, Fault, FaultKind, Unfinished};

pub(crate) struct Machine {
    /// Dropped first: its threads use the code.
    pub pool: Pool,
    pub codes: Arc<Vec<Code>>,
    pub arena: Arc<Arena>,
    /// In the host's memory.
    pub host: Arc<Arena>,
    /// On which lanes' instructions run; none for the host.
    pub device: Option<Arc<dyn Device>>,
    pub events: Vec<Events>,
    /// By program and its emit; empty for emits nobody asked for.
    pub emits: Vec<Vec<Mutex<Vec<u8>>>>,
    /// By lane, when a trace was asked for.
    pub marks: Option<Vec<Mutex<Vec<Mark>>>>,
    pub plan: Arc<Plan>,
    pub class: ClassId,
    pub rank: usize,
    pub communicator: Option<Arc<dyn Communicator>>,
    pub progress: Arc<Progress>,
    /// Of this rank.
    pub fault: Option<Fault>,
    pub jitter: Option<u64>,
    /// By program, when memory is poisoned.
    pub poison: Option<Vec<Poison>>,
    /// The first failure; nothing runs after it.
    pub failure: Mutex<Option<Failure>>,
}

/// One run of a program.
#[derive(Clone)]
pub(crate) struct Task {
    pub program: usize,
    /// Number of the run, from 1.
    pub run: u64,
    /// Whether it is the first run of a program that does not prepare values.
    pub is_first: bool,
    /// Number of the training step.
    pub step: u64,
    pub staging: Arc<Staging>,
}

/// Why a run ended.
#[derive(Clone)]
pub(crate) enum Failure {
    Kernel {
        program: usize,
        index: u32,
    },
    Panic {
        program: usize,
        index: u32,
    },
    Fault {
        program: usize,
        index: u32,
        kind: FaultKind,
    },
    Comm(CommError),
    /// At an instruction, or in a collective that is to be looked up, or somewhere in a lane.
    Device {
        what: String,
        error: DeviceError,
    },
}

impl Machine {
    /// Runs the instructions of one lane; false if this or another lane failed.
    pub fn lane(&self, task: &Task, lane: usize) -> bool {
        let code = &self.codes[task.program];
        let events = &self.events[task.program];
        let on_lane = |error| self.fail(task, Failure::Device { what: format!("lane {lane}"), error });
        if self.device.as_ref().is_some_and(|d| d.enter().map_err(on_lane).is_err()) {
            return false;
        }
        for &index in code.lanes.get(lane).map_or(&[][..], Vec::as_slice) {
            self.progress.at(lane, index);
            let begin = self.marks.as_ref().map(|_| Instant::now());
            let good = match &code.steps[index as usize] {
                Step::Record(event) => self.guarded(task, index, || {
                    self.submit(task, index, |device| device.record(lane, *event))?;
                    events.record(*event, task.run);
                    Ok(())
                }),
                // The lane that does not record has said why. On a device, the stream waits once more, for what the other
                // lane has submitted by now.
                Step::Wait(event) => {
                    self.guarded(task, index, || Ok(()))
                        && events.wait(*event, task.run)
                        && self.guarded(task, index, || self.submit(task, index, |device| device.wait(lane, *event)))
                }
                _ => self.guarded(task, index, || self.step(task, lane, index)),
            };
            if !good {
                return false;
            }
            if let Some(poison) = &self.poison {
                poison[task.program].done(|space| self.arena(space), index);
            }
            self.mark(lane, index, begin);
        }
        let finished = self.finish(task, lane);
        self.progress.finished(lane);
        finished
    }

    /// Waits for the device to do what the lane has submitted.
    fn finish(&self, task: &Task, lane: usize) -> bool {
        let Some(device) = &self.device else { return true };
        let over = || self.ended().is_some() || self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let failure = match device.finish(lane, &over) {
            Ok(()) => return true,
            Err(Unfinished::Over) => match self.ended() {
                Some(error) => Failure::Comm(error),
                None => return false,
            },
            Err(Unfinished::Failed { collective, error }) => {
                let body = &self.plan.programs[task.program].bodies[self.class.index()];
                let kind = || body.lanes.get(lane).map(ToString::to_string).unwrap_or_default();
                let what = collective.map(|id| self.progress.collective_of(task.program, id));
                Failure::Device { what: what.unwrap_or_else(|| format!("on the stream of lane {}", kind())), error }
            }
        };
        self.fail(task, failure);
        false
    }

    pub fn arena(&self, space: Space) -> &Arena {
        match space {
            Space::Device => &self.arena,
            Space::Host => &self.host,
        }
    }

    /// Hands an instruction to the device, if there is one.
    fn submit(
        &self,
        task: &Task,
        index: u32,
        submit: impl FnOnce(&dyn Device) -> Result<(), DeviceError>,
    ) -> Result<(), Failure> {
        let result = self.device.as_deref().map_or(Ok(()), submit);
        result.map_err(|error| Failure::Device { what: self.progress.describe(task.program, index as usize), error })
    }

    /// The error of the failed run.
    pub fn error(&self) -> Option<ExecError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(match failure {
            Failure::Comm(error) => ExecError::Comm(error),
            Failure::Device { what, error } => ExecError::OnDevice { what, error },
            Failure::Panic { program, index } => {
                ExecError::Panic { what: self.progress.describe(program, index as usize) }
            }
            Failure::Fault { program, index, kind } => {
                ExecError::Fault { rank: self.rank, kind, what: self.progress.describe(program, index as usize) }
            }
            Failure::Kernel { program, index } => {
                let body = &self.plan.programs[program].bodies[self.class.index()];
                let instruction = &body.instructions[index as usize];
                let kernel = match &instruction.op {
                    Op::Launch(launch) => self.plan.kernels[launch.kernel.index()].symbol.clone(),
                    _ => "the executor".into(),
                };
                ExecError::Kernel { kernel, place: self.plan.places[instruction.place.index()].to_string() }
            }
        })
    }

    /// Why the world of ranks has ended, if it has.
    pub fn ended(&self) -> Option<CommError> {
        self.communicator.as_ref().and_then(|c| c.failure())
    }

    /// Runs one instruction, after what is to hold it up; false if it failed, and then nobody waits for it.
    fn guarded(&self, task: &Task, index: u32, run: impl FnOnce() -> Result<(), Failure>) -> bool {
        let disturbed = || {
            if let Some(seed) = self.jitter {
                delay(seed, self.rank, task.run, index);
            }
            match self.fault {
                Some(fault) if task.is_first && fault.at == index as usize => Err(self.misbehave(task, index, fault)),
                _ => self.ended().map_or(Ok(()), |error| Err(Failure::Comm(error))),
            }
        };
        let program = task.program;
        let result = catch_unwind(AssertUnwindSafe(|| disturbed().and_then(|()| run())));
        let Err(failure) = result.unwrap_or(Err(Failure::Panic { program, index })) else { return true };
        self.fail(task, failure);
        false
    }

    fn fail(&self, task: &Task, failure: Failure) {
        if let Some(device) = &self.device {
            device.abandon();
        }
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_first, is_ours) = (first.is_none(), !matches!(failure, Failure::Comm(_)));
        first.get_or_insert(failure);
        drop(first);
        if is_first
            && is_ours
            && let (Some(communicator), Some(error)) = (&self.communicator, self.error())
        {
            communicator.fail(&error.to_string());
        }
        self.events[task.program].fail();
    }

    fn misbehave(&self, task: &Task, index: u32, Fault { kind, .. }: Fault) -> Failure {
        if let (FaultKind::Stall, Some(communicator)) = (kind, &self.communicator) {
            while !communicator.is_alone() {
                if let Some(error) = communicator.failure() {
                    return Failure::Comm(error);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Failure::Fault { program: task.program, index, kind }
    }

    fn step(&self, task: &Task, lane: usize, index: u32) -> Result<(), Failure> {
        let code = &self.codes[task.program];
        match &code.steps[index as usize] {
            Step::Launch { parts, .. } => {
                let job = (task.program as u64) << 32 | u64::from(index);
                if !self.pool.run(job, *parts) {
                    return Err(Failure::Kernel { program: task.program, index });
                }
            }
            Step::Collect(collective) => {
                // SAFETY: the areas are in the arena; that nothing on this rank writes what is sent or touches what is
                // received now is what the verifier showed.
                unsafe { collective.run() }.map_err(|error| match error {
                    CommError::Device(why) => {
                        let what = self.progress.describe(task.program, index as usize);
                        Failure::Device { what, error: DeviceError(why) }
                    }
                    error => Failure::Comm(error),
                })?;
            }
            Step::Submit(launch) => {
                // SAFETY: the plan is verified, and lanes keep to its records and waits, on the device as well.
                self.submit(task, index, |_| unsafe { launch.submit() })?;
            }
            Step::Copy { from, to, bytes } => {
                // SAFETY: the verifier showed that the two are apart and that nothing conflicting runs now.
                match &self.device {
                    None => unsafe {
                        self.arena(from.space).copy(from.offset, (self.arena(to.space), to.offset), *bytes);
                    },
                    Some(_) => self.submit(task, index, |d| unsafe { d.copy(lane, *from, *to, *bytes) })?,
                }
            }
            Step::Feed { feed, at, bytes } => {
                let values = task.staging.feed(task.step, *feed);
                // SAFETY: nothing else touches the bytes of this feed now, by the verifier.
                match &self.device {
                    None => unsafe { self.arena.write(*at, *bytes) }.copy_from_slice(&values),
                    Some(_) => self.submit(task, index, |d| unsafe { d.feed(lane, &values, *at) })?,
                }
            }
            Step::Emit { emit, at, bytes } => {
                let mut to = self.emits[task.program][*emit].lock().unwrap_or_else(PoisonError::into_inner);
                if !to.is_empty() {
                    match &self.device {
                        // SAFETY: nothing writes what is emitted now, by the verifier.
                        None => to.copy_from_slice(unsafe { self.arena.read(*at, *bytes) }),
                        // The lane waits here; what failed is told at its end.
                        Some(_) if !self.finish(task, lane) => {}
                        Some(_) => self.submit(task, index, |d| d.read(*at, &mut to))?,
                    }
                }
            }
            Step::Record(_) | Step::Wait(_) => {}
        }
        Ok(())
    }

    fn mark(&self, lane: usize, index: u32, begin: Option<Instant>) {
        if let (Some(marks), Some(begin)) = (&self.marks, begin) {
            let mut marks = marks[lane].lock().unwrap_or_else(PoisonError::into_inner);
            // The room was made before the run; a lane never waits for memory.
            if marks.len() < marks.capacity() {
                marks.push(Mark { index, begin, end: Instant::now() });
            }
        }
    }
}
