//! A standstill: lanes that wait for one another in a circle, through events and meetings.
//!
//! Nothing in a plan chooses, so one run shows all: whatever can go on goes on, until all lanes are done or none can.
//! What is left then has a circle in it, since each lane that stands waits for another.

use smallvec::SmallVec;

use crate::{Body, EventId, LaneId, Op};

/// One of those who run: a rank, or a class that stands for all its ranks.
pub struct Party<'a> {
    pub body: &'a Body,
    /// The meeting that each instruction is part of, if any.
    pub meetings: Vec<Option<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub party: usize,
    pub instruction: usize,
}

/// A circle of instructions, each of which waits for the next. `meetings` has the members of each meeting.
pub fn find(parties: &[Party<'_>], meetings: &[Vec<Standing>]) -> Option<Vec<Standing>> {
    let mut run = Run::new(parties, meetings);
    while let Some((party, lane)) = run.ready.pop() {
        run.advance(party, lane);
    }
    run.circle()
}

struct Run<'a> {
    parties: &'a [Party<'a>],
    meetings: &'a [Vec<Standing>],
    /// Instructions of each lane of each party.
    lanes: Vec<Vec<Vec<u32>>>,
    /// How many of them are done.
    done: Vec<Vec<usize>>,
    recorded: Vec<Vec<bool>>,
    waiting: Vec<Vec<SmallVec<[usize; 2]>>>,
    arrived: Vec<u32>,
    /// Lanes to look at.
    ready: Vec<(usize, usize)>,
}

impl<'a> Run<'a> {
    fn new(parties: &'a [Party<'a>], meetings: &'a [Vec<Standing>]) -> Self {
        let lanes = |party: &Party<'_>| {
            let mut lanes = vec![vec![]; party.body.lanes.len()];
            for (index, instruction) in party.body.instructions.iter().enumerate() {
                lanes[instruction.lane.index()].push(index as u32);
            }
            lanes
        };
        let ready = parties.iter().enumerate().flat_map(|(p, party)| (0..party.body.lanes.len()).map(move |l| (p, l)));
        Self {
            parties,
            meetings,
            lanes: parties.iter().map(lanes).collect(),
            done: parties.iter().map(|p| vec![0; p.body.lanes.len()]).collect(),
            recorded: parties.iter().map(|p| vec![false; p.body.events as usize]).collect(),
            waiting: parties.iter().map(|p| vec![SmallVec::new(); p.body.events as usize]).collect(),
            arrived: vec![0; meetings.len()],
            ready: ready.collect(),
        }
    }

    fn head(&self, party: usize, lane: usize) -> Option<usize> {
        self.lanes[party][lane].get(self.done[party][lane]).map(|i| *i as usize)
    }

    fn lane(&self, at: Standing) -> usize {
        self.parties[at.party].body.instructions[at.instruction].lane.index()
    }

    /// Runs a lane up to where it must wait.
    fn advance(&mut self, party: usize, lane: usize) {
        while let Some(index) = self.head(party, lane) {
            let here = &self.parties[party];
            match here.body.instructions[index].op {
                Op::Record { event } => {
                    self.recorded[party][event.index()] = true;
                    let woken = std::mem::take(&mut self.waiting[party][event.index()]);
                    self.ready.extend(woken.into_iter().map(|lane| (party, lane)));
                }
                Op::Wait { event } if !self.recorded[party][event.index()] => {
                    self.waiting[party][event.index()].push(lane);
                    return;
                }
                _ => {}
            }
            if let Some(meeting) = here.meetings[index] {
                let members = &self.meetings[meeting as usize];
                self.arrived[meeting as usize] += 1;
                if (self.arrived[meeting as usize] as usize) < members.len() {
                    return;
                }
                // The last to come: all go on.
                for &member in members.iter().filter(|m| m.party != party || m.instruction != index) {
                    let lane = self.lane(member);
                    self.done[member.party][lane] += 1;
                    self.ready.push((member.party, lane));
                }
            }
            self.done[party][lane] += 1;
        }
    }

    /// Where the lane stands that `at` waits for.
    fn next(&self, at: Standing) -> Option<Standing> {
        let here = &self.parties[at.party];
        let lane = match (&here.body.instructions[at.instruction].op, here.meetings[at.instruction]) {
            (Op::Wait { event }, _) => (at.party, recorder(here.body, *event)?.index()),
            (_, Some(meeting)) => {
                let absent = self.meetings[meeting as usize]
                    .iter()
                    .find(|m| self.head(m.party, self.lane(**m)) != Some(m.instruction))?;
                (absent.party, self.lane(*absent))
            }
            _ => return None,
        };
        Some(Standing { party: lane.0, instruction: self.head(lane.0, lane.1)? })
    }

    fn circle(&self) -> Option<Vec<Standing>> {
        let all = (0..self.parties.len()).flat_map(|p| (0..self.lanes[p].len()).map(move |l| (p, l)));
        for (party, lane) in all {
            let Some(instruction) = self.head(party, lane) else { continue };
            let mut path = vec![Standing { party, instruction }];
            while let Some(next) = self.next(path[path.len() - 1]) {
                if let Some(from) = path.iter().position(|s| *s == next) {
                    return Some(path.split_off(from));
                }
                path.push(next);
            }
            // It waits for an event that nothing records: no circle, and a fault that the race check names.
        }
        None
    }
}

fn recorder(body: &Body, event: EventId) -> Option<LaneId> {
    let records = |op: &Op| matches!(op, Op::Record { event: e } if *e == event);
    body.instructions.iter().find(|i| records(&i.op)).map(|i| i.lane)
}
