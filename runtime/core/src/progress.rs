//! Progress: the instruction that each lane is at, for whoever waits for this rank.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use comm::{LaneStanding, Standing, Whereabouts};
use plan::{Body, ClassId, Op, Plan};

/// Of a lane that is at no instruction.
const NONE: u32 = u32::MAX;

pub struct Progress {
    plan: Arc<Plan>,
    class: ClassId,
    phase: AtomicU32,
    program: AtomicUsize,
    step: AtomicU64,
    lanes: Vec<AtomicU32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    Loading,
    Feeds,
    Running,
    Between,
}

impl Progress {
    pub fn new(plan: Arc<Plan>, class: ClassId, lanes: usize) -> Self {
        Self {
            plan,
            class,
            phase: AtomicU32::new(Phase::Loading as u32),
            program: AtomicUsize::new(0),
            step: AtomicU64::new(0),
            lanes: (0..lanes).map(|_| AtomicU32::new(NONE)).collect(),
        }
    }

    pub fn enter(&self, phase: Phase, program: usize, step: u64) {
        self.lanes.iter().for_each(|lane| lane.store(NONE, Relaxed));
        self.program.store(program, Relaxed);
        self.step.store(step, Relaxed);
        self.phase.store(phase as u32, Relaxed);
    }

    pub fn at(&self, lane: usize, index: u32) {
        self.lanes[lane].store(index, Relaxed);
    }

    pub fn finished(&self, lane: usize) {
        self.lanes[lane].store(NONE, Relaxed);
    }

    /// An instruction with its place.
    pub fn describe(&self, program: usize, index: usize) -> String {
        self.plan.scope(program, self.class).map_or_else(String::new, |scope| scope.describe(index))
    }

    /// A collective of a program with its place.
    pub fn collective_of(&self, program: usize, id: u32) -> String {
        let is = |op: &Op| matches!(op, Op::Collect(collect) if collect.id == id);
        let index = self.body(program).instructions.iter().position(|i| is(&i.op));
        index.map_or_else(|| format!("c{id}"), |index| self.describe(program, index))
    }

    fn body(&self, program: usize) -> &Body {
        &self.plan.programs[program].bodies[self.class.index()]
    }

    fn lane(&self, program: usize, index: u32) -> Option<LaneStanding> {
        let body = self.body(program);
        let instruction = body.instructions.get(index as usize)?;
        Some(LaneStanding {
            lane: body.lanes[instruction.lane.index()].to_string(),
            at: self.describe(program, index as usize),
            busy: !matches!(instruction.op, Op::Wait { .. } | Op::Collect(_)),
        })
    }
}

impl Whereabouts for Progress {
    fn standing(&self) -> Standing {
        let (phase, program) = (self.phase.load(Relaxed), self.program.load(Relaxed));
        // People count steps from 1.
        let step = self.step.load(Relaxed) + 1;
        let name = &self.plan.programs[program].name;
        if phase == Phase::Running as u32 {
            let lanes = self.lanes.iter().filter_map(|lane| self.lane(program, lane.load(Relaxed)));
            return Standing::Running { run: format!("step {step} of `{name}`"), lanes: lanes.collect() };
        }
        let doing = match phase {
            p if p == Phase::Loading as u32 => "getting ready for its first step".into(),
            p if p == Phase::Feeds as u32 => format!("waiting for the feeds of step {step} of `{name}`"),
            _ => format!("between runs, after step {step} of `{name}`"),
        };
        Standing::Between { doing }
    }

    fn collective(&self, id: u32) -> String {
        let found = (0..self.plan.programs.len()).find_map(|program| {
            let is = |op: &Op| matches!(op, Op::Collect(collect) if collect.id == id);
            let index = self.body(program).instructions.iter().position(|i| is(&i.op))?;
            Some(self.describe(program, index))
        });
        found.unwrap_or_else(|| format!("c{id}"))
    }
}
