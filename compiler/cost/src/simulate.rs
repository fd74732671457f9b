//! The simulator: plays the lanes of one rank of each class on a machine, and says when each instruction begins and ends.
//!
//! Instructions of a lane follow one another, waits hold a lane until their record, and a collective begins when all
//! classes that meet in it have come. Classes that agree on all axes outside a group meet in it, as in the plan's verifier.

use plan::{Class, Collect, Instruction, Op, Plan, Program, When};
use rustc_hash::FxHashMap;
use types::Name;

use crate::{Groups, Lane, Machine, Run, seconds_of_launch};

/// When an instruction of a body runs, in seconds from the start of the program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneSpan {
    /// Index into [`plan::Body::instructions`].
    pub instruction: usize,
    pub begin: f64,
    pub end: f64,
}

/// One run of a program on the ranks of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Until all ranks are done.
    pub step_seconds: f64,
    /// In kernels and copies.
    pub compute_seconds: f64,
    /// In collectives while no kernel runs.
    pub exposed_comm_seconds: f64,
    /// The share of the step in which neither kernels nor collectives run.
    pub bubble_fraction: f64,
    /// FLOP of the kernels, what is computed again included, over what the device could do in the step.
    pub peak_fraction: f64,
    /// Launches, collectives, copies, feeds and emits, in the order in which they begin.
    pub spans: Vec<LaneSpan>,
}

/// A class that cannot go on: the plan was not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ranks of class `{class}` come to a standstill at instruction {instruction} of program `{program}`")]
pub struct Stuck {
    pub program: Name,
    pub class: Name,
    pub instruction: usize,
}

/// The instructions of a lane, and how far it is.
struct Queue {
    instructions: Vec<usize>,
    next: usize,
    lane: Lane,
}

struct Rank<'p> {
    program: &'p Program,
    class: &'p Class,
    body: &'p plan::Body,
    /// The rank that stands for its class.
    rank: usize,
    lanes: Vec<Queue>,
    events: Vec<Option<f64>>,
    spans: Vec<LaneSpan>,
}

/// Classes that come to a collective: which one it is, and the coordinates that they share outside its group.
type Key = (u32, Vec<(Name, usize)>);

#[derive(Default)]
struct Meeting {
    parties: usize,
    arrived: FxHashMap<(usize, usize), f64>,
}

/// One prediction for each class of the plan, in their order.
pub fn simulate(machine: &Machine, plan: &Plan, program: &Program) -> Result<Vec<Prediction>, Stuck> {
    let mesh = &plan.header.mesh;
    let mut groups = Groups::new(machine, mesh);
    let mut ranks: Vec<Rank<'_>> =
        plan.classes.iter().zip(&program.bodies).map(|(c, b)| Rank::new(plan, program, c, b)).collect();
    let mut meetings: FxHashMap<Key, Meeting> = FxHashMap::default();
    for rank in &ranks {
        for instruction in &rank.body.instructions {
            if let Op::Collect(collect) = &instruction.op {
                meetings.entry(key(rank.class, collect)).or_default().parties += 1;
            }
        }
    }
    let mut moved = true;
    while std::mem::take(&mut moved) {
        for (r, rank) in ranks.iter_mut().enumerate() {
            for lane in 0..rank.lanes.len() {
                while let Some(instruction) = rank.lanes[lane].instructions.get(rank.lanes[lane].next).copied() {
                    if !rank.step(lane, instruction, r, machine, plan, &mut groups, &mut meetings) {
                        break;
                    }
                    moved = true;
                }
            }
        }
    }
    if let Some((rank, instruction)) = ranks.iter().find_map(|r| Some((r, r.standing()?))) {
        let (program, class) = (program.name.clone(), rank.class.name.clone());
        return Err(Stuck { program, class, instruction });
    }
    let end = ranks.iter().flat_map(|r| &r.lanes).map(|l| l.lane.free).fold(0.0, f64::max);
    Ok(ranks.into_iter().map(|rank| rank.close(machine, plan, end)).collect())
}

fn key(class: &Class, collect: &Collect) -> Key {
    let mut outside: Vec<_> =
        class.ranks.at.iter().filter(|(axis, _)| !collect.group.contains(axis)).cloned().collect();
    outside.sort();
    (collect.id, outside)
}

impl<'p> Rank<'p> {
    fn new(plan: &Plan, program: &'p Program, class: &'p Class, body: &'p plan::Body) -> Self {
        let mesh = &plan.header.mesh;
        let mut coordinates = mesh.coordinates(0);
        for (axis, value) in &class.ranks.at {
            if let Some(at) = mesh.position(axis) {
                coordinates[at] = *value;
            }
        }
        let mut lanes: Vec<Queue> =
            body.lanes.iter().map(|_| Queue { instructions: vec![], next: 0, lane: Lane::default() }).collect();
        for (i, instruction) in body.instructions.iter().enumerate() {
            if let Some(lane) = lanes.get_mut(instruction.lane.index()) {
                lane.instructions.push(i);
            }
        }
        let events = vec![None; body.events as usize];
        Self { program, class, body, rank: mesh.rank(&coordinates), lanes, events, spans: vec![] }
    }

    /// Runs the next instruction of a lane if it can be run.
    #[expect(clippy::too_many_arguments)]
    fn step(
        &mut self,
        lane: usize,
        instruction: usize,
        index: usize,
        machine: &Machine,
        plan: &Plan,
        groups: &mut Groups<'_>,
        meetings: &mut FxHashMap<Key, Meeting>,
    ) -> bool {
        let begin = self.lanes[lane].lane.free;
        let host = |bytes: u64| bytes as f64 / (machine.device.host_gb_per_s * 1e9);
        let (ready, seconds) = match &self.body.instructions[instruction].op {
            Op::Record { event } => {
                if let Some(at) = self.events.get_mut(event.index()) {
                    *at = Some(begin);
                }
                self.lanes[lane].next += 1;
                return true;
            }
            Op::Wait { event } => {
                let Some(recorded) = self.events.get(event.index()).copied().flatten() else { return false };
                self.lanes[lane].lane.run(recorded, 0.0);
                self.lanes[lane].next += 1;
                return true;
            }
            Op::Launch(launch) => (begin, seconds_of_launch(machine, plan, self.class, self.body, launch)),
            Op::Copy { from, to } if self.is_on_host(from) || self.is_on_host(to) => (begin, host(from.bytes)),
            Op::Copy { from, .. } => {
                let rate = machine.bandwidth(types::DType::F32) * machine.share(plan.header.world());
                (begin, 2.0 * from.bytes as f64 / rate)
            }
            Op::Feed { to, .. } => (begin, host(to.bytes)),
            Op::Emit { emit, from } => {
                let always = self.program.emits.get(emit.index()).is_some_and(|e| e.when == When::Always);
                (begin, if always { host(from.bytes) } else { 0.0 })
            }
            Op::Collect(collect) => {
                let Some(meeting) = meetings.get_mut(&key(self.class, collect)) else { return false };
                meeting.arrived.insert((index, instruction), begin);
                if meeting.arrived.len() < meeting.parties {
                    return false;
                }
                let all = meeting.arrived.values().copied().fold(0.0, f64::max);
                (all, groups.seconds(&**collect, self.rank))
            }
        };
        let Run { begin, end, .. } = self.lanes[lane].lane.run(ready, seconds);
        self.spans.push(LaneSpan { instruction, begin, end });
        self.lanes[lane].next += 1;
        true
    }

    fn is_on_host(&self, slice: &plan::Slice) -> bool {
        self.body.buffer(self.class, slice.buffer).is_some_and(plan::Buffer::on_host)
    }

    /// The first instruction that was never run.
    fn standing(&self) -> Option<usize> {
        self.lanes.iter().filter_map(|l| l.instructions.get(l.next).copied()).min()
    }

    fn close(mut self, machine: &Machine, plan: &Plan, step_seconds: f64) -> Prediction {
        self.spans.sort_by(|a, b| a.begin.total_cmp(&b.begin).then(a.instruction.cmp(&b.instruction)));
        // What is copied to the host and back is beside the work.
        let works =
            |i: &Instruction| matches!(i.op, Op::Launch(_)) || matches!(i.op, Op::Copy { .. }) && i.lane.index() == 0;
        let of = |wanted: &dyn Fn(&Instruction) -> bool| {
            let spans = self.spans.iter().filter(|s| wanted(&self.body.instructions[s.instruction]));
            spans.map(|s| (s.begin, s.end)).collect::<Vec<_>>()
        };
        let kernels = of(&works);
        let compute_seconds = covered(&kernels);
        let busy = covered(&of(&|i| works(i) || matches!(i.op, Op::Collect(_))));
        let possible = machine.peak(plan.header.dtype) * machine.share(plan.header.world()) * step_seconds;
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        Prediction {
            step_seconds,
            compute_seconds,
            exposed_comm_seconds: busy - compute_seconds,
            bubble_fraction: share(step_seconds - busy, step_seconds),
            peak_fraction: share(plan::flops(plan, self.body) as f64, possible),
            spans: self.spans,
        }
    }
}

/// The length of the union of intervals, which stand in the order in which they begin.
fn covered(intervals: &[(f64, f64)]) -> f64 {
    let (mut sum, mut until) = (0.0, 0.0_f64);
    for &(begin, end) in intervals {
        sum += (end - begin.max(until)).max(0.0);
        until = until.max(end);
    }
    sum
}

#[cfg(test)]
mod tests {
    use plan::sample;

    use super::*;
    use crate::built_in;

    #[test]
    fn lanes_run_beside_each_other_and_collectives_wait_for_all() {
        let machine = built_in("ascend-910b3").expect("a machine");
        for plan in [sample::line(), sample::two_lanes(), sample::grid(), sample::split(&sample::grid(), &"tp".into())]
        {
            for program in &plan.programs {
                let found = simulate(&machine, &plan, program).expect("a verified plan");
                assert_eq!(found.len(), plan.classes.len());
                for (prediction, body) in found.iter().zip(&program.bodies) {
                    let waits = |op: &Op| matches!(op, Op::Record { .. } | Op::Wait { .. });
                    let work = body.instructions.iter().filter(|i| !waits(&i.op)).count();
                    assert_eq!(prediction.spans.len(), work, "each instruction once");
                    let share =
                        (prediction.compute_seconds + prediction.exposed_comm_seconds) / prediction.step_seconds;
                    assert!((share + prediction.bubble_fraction - 1.0).abs() < 1e-9, "{prediction:?}");
                    in_order(prediction, body);
                }
                assert!(found.iter().all(|p| p.step_seconds == found[0].step_seconds));
            }
        }
    }

    /// Spans of one lane do not overlap.
    fn in_order(prediction: &Prediction, body: &plan::Body) {
        for lane in 0..body.lanes.len() {
            let on = |s: &&LaneSpan| body.instructions[s.instruction].lane.index() == lane;
            let spans: Vec<&LaneSpan> = prediction.spans.iter().filter(on).collect();
            assert!(spans.windows(2).all(|w| w[0].end <= w[1].begin && w[0].instruction < w[1].instruction));
        }
    }

    #[test]
    fn a_wait_without_its_record_is_a_standstill_and_not_an_endless_loop() {
        let machine = built_in("ascend-910b3").expect("a machine");
        let mut plan = sample::two_lanes();
        let body = &mut plan.programs[0].bodies[0];
        body.instructions.retain(|i| !matches!(i.op, Op::Record { .. }));
        let stuck = simulate(&machine, &plan, &plan.programs[0]).expect_err("a standstill");
        assert!(stuck.to_string().contains("come to a standstill at instruction"), "{stuck}");
    }
}
