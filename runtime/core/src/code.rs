//! Code: a body with its addresses computed, its scalars evaluated at this rank's coordinates, and its launches split.
#![allow(unsafe_code, reason = "addresses of arguments are shared between threads, and kernels are called with them")]

use std::ops::Range;

use comm::{Area, Collective, Communicator, Operation};
use plan::{KernelId, Op, Scope, Slice};

use crate::arena::{Arena, Place};
use crate::{Call, Device, ExecError, Kernels, Submit};

pub struct Code {
    pub steps: Vec<Step>,
    /// Indices of each lane's steps.
    pub lanes: Vec<Vec<u32>>,
    pub events: usize,
    /// The feeds that the program takes and the bytes of each.
    pub feeds: Vec<(usize, u64)>,
    /// The emits that it gives and the bytes of each.
    pub emits: Vec<(usize, u64)>,
    args: Vec<*mut u8>,
    bytes: Vec<u64>,
    scalars: Vec<i64>,
}

// SAFETY: the pointers are addresses inside an arena that lives as long as the code does (see `Machine`); nothing
// dereferences them but `launch`, whose contract covers that.
unsafe impl Send for Code {}
unsafe impl Sync for Code {}

pub enum Step {
    Launch {
        kernel: KernelId,
        args: Range<usize>,
        scalars: Range<usize>,
        parts: u32,
    },
    /// A launch on a device.
    Submit(Box<dyn Submit>),
    Collect(Box<dyn Collective>),
    Copy {
        from: Place,
        to: Place,
        bytes: u64,
    },
    Record(usize),
    Wait(usize),
    Feed {
        feed: usize,
        at: u64,
        bytes: u64,
    },
    Emit {
        emit: usize,
        at: u64,
        bytes: u64,
    },
}

impl Code {
    pub fn new(
        scope: Scope<'_>,
        (rank, communicator): (usize, Option<&dyn Communicator>),
        (arena, device): (&Arena, Option<&dyn Device>),
        most_parts: u32,
    ) -> Result<Self, ExecError> {
        let Scope { plan, program, class, body } = scope;
        let coordinates = plan.header.mesh.coordinates(rank);
        let mut code = Self {
            steps: Vec::with_capacity(body.instructions.len()),
            lanes: vec![Vec::new(); body.lanes.len()],
            events: body.events as usize,
            feeds: Vec::new(),
            emits: Vec::new(),
            args: Vec::new(),
            bytes: Vec::new(),
            scalars: Vec::new(),
        };
        let at = |slice: &Slice| body.buffer(class, slice.buffer).map_or(0, |b| b.offset) + slice.offset;
        for (index, instruction) in body.instructions.iter().enumerate() {
            code.lanes[instruction.lane.index()].push(index as u32);
            let step = match &instruction.op {
                Op::Launch(launch) => {
                    let (first, first_scalar) = (code.args.len(), code.scalars.len());
                    code.args.extend(launch.args.iter().map(|s| arena.at(at(s), s.bytes)));
                    code.bytes.extend(launch.args.iter().map(|s| s.bytes));
                    code.scalars.extend(launch.scalars.iter().map(|s| s.at(&plan.header.mesh, &coordinates)));
                    let parts = plan.kernels[launch.kernel.index()].max_parts.min(most_parts);
                    let (args, scalars) = (first..code.args.len(), first_scalar..code.scalars.len());
                    match device {
                        None => Step::Launch { kernel: launch.kernel, args, scalars, parts },
                        Some(device) => {
                            let what = |error| ExecError::OnDevice { what: scope.describe(index), error };
                            let call = code.call(launch.kernel, &args, &scalars);
                            Step::Submit(device.prepare(instruction.lane.index(), &call).map_err(what)?)
                        }
                    }
                }
                Op::Collect(collect) => {
                    let what = || scope.describe(index);
                    let Some(communicator) = communicator else {
                        return Err(ExecError::Collective { program: program.name.clone(), what: what() });
                    };
                    let area = |s: &Slice| Area { at: arena.at(at(s), s.bytes), bytes: s.bytes as usize };
                    let areas = |slices: &[Slice]| slices.iter().map(area).collect();
                    let memory = (areas(&collect.from), areas(&collect.to));
                    let operation = Operation::new(collect, &plan.header.mesh, rank, instruction.lane.0, memory);
                    let ready = operation.and_then(|operation| communicator.prepare(operation));
                    let refused = |error| ExecError::Refused { program: program.name.clone(), what: what(), error };
                    Step::Collect(ready.map_err(refused)?)
                }
                Op::Copy { from, to } => {
                    let [at_from, at_to] = [from, to].map(|slice| Place::of(class, body, slice));
                    Step::Copy { from: at_from, to: at_to, bytes: from.bytes }
                }
                Op::Record { event } => Step::Record(event.index()),
                Op::Wait { event } => Step::Wait(event.index()),
                Op::Feed { feed, to } => {
                    if !code.feeds.iter().any(|(f, _)| *f == feed.index()) {
                        code.feeds.push((feed.index(), to.bytes));
                    }
                    Step::Feed { feed: feed.index(), at: at(to), bytes: to.bytes }
                }
                Op::Emit { emit, from } => {
                    if code.emits.iter().any(|(e, _)| *e == emit.index()) {
                        let emit = program.emits[emit.index()].name.clone();
                        return Err(ExecError::EmittedTwice { program: program.name.clone(), emit });
                    }
                    code.emits.push((emit.index(), from.bytes));
                    Step::Emit { emit: emit.index(), at: at(from), bytes: from.bytes }
                }
            };
            code.steps.push(step);
        }
        Ok(code)
    }

    fn call(&self, kernel: KernelId, args: &Range<usize>, scalars: &Range<usize>) -> Call<'_> {
        Call {
            kernel,
            args: &self.args[args.clone()],
            bytes: &self.bytes[args.clone()],
            scalars: &self.scalars[scalars.clone()],
        }
    }

    /// Runs one part of a launch step, and does nothing for other steps.
    ///
    /// # Safety
    /// The arena that the code was made with is alive, and nothing that runs at the same time conflicts with the
    /// launch: the plan is verified, and lanes keep to its records and waits.
    pub unsafe fn launch(&self, kernels: &dyn Kernels, step: usize, part: u32, parts: u32) {
        if let Step::Launch { kernel, args, scalars, .. } = &self.steps[step] {
            let call = self.call(*kernel, args, scalars);
            // SAFETY: the addresses were checked against the arena in `new`; the rest is this function's own contract.
            unsafe { kernels.launch(&call, part, parts) }
        }
    }
}
