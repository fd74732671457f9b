//! Rendezvous: **no hangs**. All who take part in a collective come to it, with the same wish, and never in a circle.
//!
//! A collective is one meeting of all ranks of its group; a send is one meeting with its receive, never buffered; a
//! batched permute is one meeting of the group. A rank goes on from a meeting when all have come. The theorem: the graph
//! of instructions, with an edge along each lane and from each record to its waits, and with each meeting drawn together
//! into one node, has no cycle. Then some rank can always go on, and every run ends.
//!
//! It is proven for classes and holds for their ranks. Classes partition the world by coordinates, and the ranks of a
//! class run the same instructions; groups are mesh axes, and peers are functions of coordinates on them. So a collective
//! is one node of each class if the class does not fix an axis of the group, and one node shared by all classes that do:
//! those agree on every axis outside the group (`met`). Mapping a rank to its class maps each edge of the graph of ranks
//! to an edge of this one, and so a cycle there to a cycle here. The converse needs the **symmetry condition**, which is
//! checked too: classes with ranks in one group fix the same axes outside it, to the same values, and all ranks of a
//! class send to ranks of one class. Then a walk along edges here can be followed from any rank there, and a cycle here
//! is one there. (`expanded` does the same for each rank, and the tests compare the two.)
//!
//! The rules, with the party that breaks them named:
//! - an id stands for one collective of one program, once in each class (in classes that share no group, each has its own
//!   meeting, and they wish the same);
//! - every class in the group has the collective, with the same kind, group, sizes, element type, shifts and root;
//! - a communicator is a lane `comm<n>` and a group: a lane serves one group, all collectives of a group (but sends and
//!   receives) stand on one lane of a class, and on that of the same number in all classes;
//! - the peer of a send is another rank of its group, which receives from it, and the other way round;
//! - no lanes wait for one another in a circle.

mod messages;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use types::{Mesh, Name};

use super::standstill::{self, Party, Standing};
use crate::violation::{Findings, Rule};
use crate::{Body, Class, Collect, CollectKind, LaneKind, Op, Plan, Program, Scope};

const GROUPS: &str = "their groups";

/// Where each id stands in a body: once, or a send and a receive.
type Sites = FxHashMap<u32, SmallVec<[usize; 2]>>;

/// Ids of all programs together. Gives the number of meetings that were followed.
pub fn check(plan: &Plan, findings: &mut Findings) -> Vec<usize> {
    let mut owners: FxHashMap<u32, usize> = FxHashMap::default();
    let mut counts = vec![];
    for (p, program) in plan.programs.iter().enumerate() {
        findings.scope = program.name.to_string();
        for scope in plan.scopes_of(program) {
            for (index, collect) in collects(scope.body) {
                let owner = *owners.entry(collect.id).or_insert(p);
                if owner != p {
                    let (who, other) = (scope.describe(index), &plan.programs[owner].name);
                    findings.add(Rule::Rendezvous, format!("{who} has an id that program `{other}` uses"));
                }
            }
        }
        counts.push(Check::new(plan, program, findings).run());
    }
    counts
}

fn collects(body: &Body) -> impl Iterator<Item = (usize, &Collect)> {
    body.instructions.iter().enumerate().filter_map(|(i, instruction)| match &instruction.op {
        Op::Collect(collect) => Some((i, collect.as_ref())),
        _ => None,
    })
}

const fn is_message(collect: &Collect) -> bool {
    matches!(collect.kind, CollectKind::Send { .. } | CollectKind::Receive { .. })
}

/// For each class, the first class that has ranks in one group with it; or two classes that break the symmetry condition.
fn met(mesh: &Mesh, classes: &[Class], group: &[Name]) -> Result<Vec<usize>, (usize, usize)> {
    let outside = |class: &Class| -> Vec<(usize, usize)> {
        let axes = class.ranks.at.iter().filter(|(axis, _)| !group.contains(axis));
        let mut fixed: Vec<_> = axes.filter_map(|(axis, at)| Some((mesh.position(axis)?, *at))).collect();
        fixed.sort_unstable();
        fixed
    };
    let fixed: Vec<_> = classes.iter().map(outside).collect();
    let mut first: Vec<usize> = vec![];
    for (c, mine) in fixed.iter().enumerate() {
        let differs =
            |theirs: &[(usize, usize)]| mine.iter().any(|(a, v)| theirs.iter().any(|(b, w)| a == b && v != w));
        if let Some(other) = (0..c).find(|&d| fixed[d] != *mine && !differs(&fixed[d])) {
            return Err((other, c));
        }
        first.push((0..c).find(|&d| fixed[d] == *mine).unwrap_or(c));
    }
    Ok(first)
}

struct Check<'a> {
    plan: &'a Plan,
    program: &'a Program,
    findings: &'a mut Findings,
    sites: Vec<Sites>,
    /// What `met` says of each group; none where classes are not symmetric.
    groups: Vec<(&'a [Name], Option<Vec<usize>>)>,
    /// The class that sends what an instruction of a class receives.
    senders: FxHashMap<(usize, usize), usize>,
}

impl<'a> Check<'a> {
    fn new(plan: &'a Plan, program: &'a Program, findings: &'a mut Findings) -> Self {
        Self { plan, program, findings, sites: vec![], groups: vec![], senders: FxHashMap::default() }
    }

    /// Gives the number of meetings.
    fn run(mut self) -> usize {
        let before = self.findings.list.len();
        for class in 0..self.program.bodies.len() {
            let sites = self.ids(class);
            self.sites.push(sites);
            self.lanes(class);
        }
        for class in 0..self.program.bodies.len() {
            for (index, collect) in collects(&self.program.bodies[class]) {
                if self.findings.full() {
                    return 0;
                }
                if is_message(collect) {
                    messages::check(&mut self, class, index, collect);
                } else {
                    self.collective(class, index, collect);
                }
            }
        }
        // Who does not come at all is named by now.
        if self.findings.list.len() == before { self.circles() } else { 0 }
    }

    fn who(&self, class: usize, index: usize) -> String {
        let (plan, program, body) = (self.plan, self.program, &self.program.bodies[class]);
        let class = &plan.classes[class];
        let text = Scope { plan, program, class, body }.describe(index);
        if plan.classes.len() > 1 { format!("{}: {text}", class.name) } else { text }
    }

    fn report(&mut self, class: usize, index: usize, what: &str) {
        let who = self.who(class, index);
        self.findings.add(Rule::Rendezvous, format!("{who} {what}"));
    }

    fn ids(&mut self, class: usize) -> Sites {
        let body = &self.program.bodies[class];
        let mut sites = Sites::default();
        for (index, collect) in collects(body) {
            let known = sites.entry(collect.id).or_default();
            let pair = |&other: &usize| match (&collect.kind, &body.instructions[other].op) {
                (CollectKind::Send { .. }, Op::Collect(c)) => matches!(c.kind, CollectKind::Receive { .. }),
                (CollectKind::Receive { .. }, Op::Collect(c)) => matches!(c.kind, CollectKind::Send { .. }),
                _ => false,
            };
            if let Some(&first) = known.first()
                && !(known.len() == 1 && pair(&first))
            {
                self.report(class, index, &format!("has the id of #{first}"));
            }
            known.push(index);
        }
        sites
    }

    fn lanes(&mut self, class: usize) {
        let body = &self.program.bodies[class];
        let mut served: FxHashMap<usize, usize> = FxHashMap::default();
        let mut lane_of: FxHashMap<&[Name], usize> = FxHashMap::default();
        for (index, collect) in collects(body) {
            let lane = |index: usize| body.instructions[index].lane.index();
            let first = *served.entry(lane(index)).or_insert(index);
            if let Op::Collect(other) = &body.instructions[first].op
                && other.group != collect.group
            {
                let kind = body.lanes[lane(index)];
                self.report(class, index, &format!("stands on {kind}, which serves the group of #{first}"));
            }
            if !is_message(collect) {
                let first = *lane_of.entry(&collect.group).or_insert(index);
                if lane(first) != lane(index) {
                    let (mine, other) = (body.lanes[lane(index)], body.lanes[lane(first)]);
                    let what =
                        format!("stands on {mine}, and #{first} over the same group on {other}: nothing orders them");
                    self.report(class, index, &what);
                }
            }
        }
    }

    /// The classes that have ranks in one group with this one's, itself included.
    fn meet(&mut self, class: usize, index: usize, collect: &'a Collect) -> Option<Vec<usize>> {
        let at = match self.groups.iter().position(|(group, _)| *group == collect.group) {
            Some(at) => at,
            None => {
                let classes = met(&self.plan.header.mesh, &self.plan.classes, &collect.group);
                if let Err((a, b)) = classes {
                    let (a, b) = (&self.plan.classes[a].name, &self.plan.classes[b].name);
                    let what =
                        format!("joins ranks of `{a}` and `{b}`, which do not fix the same axes outside its group");
                    self.report(class, index, &what);
                }
                self.groups.push((&collect.group, classes.ok()));
                self.groups.len() - 1
            }
        };
        let first = self.groups[at].1.as_ref()?;
        let mine = first[class];
        let met = (0..first.len()).filter(|&d| first[d] == mine).collect();
        // Classes that share no group with this one: who has the id there must mean the same.
        let stranger = (0..class).find(|&d| first[d] != mine && self.sites[d].contains_key(&collect.id));
        if let Some(other) = stranger {
            let there = self.sites[other][&collect.id][0];
            if let Some(what) = self.differ((class, index), (other, there)) {
                let there = self.who(other, there);
                self.report(class, index, &format!("has the id of {there}, and {what} differ"));
            }
        }
        Some(met)
    }

    fn collective(&mut self, class: usize, index: usize, collect: &'a Collect) {
        let Some(met) = self.meet(class, index, collect) else { return };
        for other in met.into_iter().filter(|d| *d != class) {
            let Some(&there) = self.sites[other].get(&collect.id).and_then(|s| s.first()) else {
                let name = &self.plan.classes[other].name;
                let what = format!("waits for class `{name}`, which is in its group and has no c{}", collect.id);
                self.report(class, index, &what);
                continue;
            };
            // Each pair once, but where groups differ the other may not know that it is awaited here.
            if let Some(what) = self.differ((class, index), (other, there))
                && (class < other || what == GROUPS)
            {
                let there = self.who(other, there);
                self.report(class, index, &format!("meets {there}: {what} differ"));
            }
        }
    }

    /// What two who meet do not agree on.
    fn differ(&self, a: (usize, usize), b: (usize, usize)) -> Option<&'static str> {
        let side = |(class, index): (usize, usize)| {
            let body = &self.program.bodies[class];
            let instruction = &body.instructions[index];
            let Op::Collect(collect) = &instruction.op else { return None };
            Some((collect, body.lanes[instruction.lane.index()]))
        };
        let ((a, a_lane), (b, b_lane)) = (side(a)?, side(b)?);
        let sizes = |slices: &[crate::Slice]| slices.iter().map(|s| s.bytes).collect::<SmallVec<[u64; 4]>>();
        // A send and its receive; two ends of the same kind are compared whole, but for their peers.
        let message = is_message(a) && is_message(b);
        let across = message && a.kind.name() != b.kind.name();
        let sizes_agree = match across {
            // One of `from` and `to` is empty in each.
            true => sizes(&a.from) == sizes(&b.to) && sizes(&a.to) == sizes(&b.from),
            false => sizes(&a.from) == sizes(&b.from) && sizes(&a.to) == sizes(&b.to),
        };
        if a.kind.name() != b.kind.name() && !across {
            Some("their kinds")
        } else if a.group != b.group {
            Some(GROUPS)
        } else if (a.from.len(), a.to.len()) != (b.from.len(), b.to.len()) && !across {
            Some("their numbers of tensors")
        } else if !sizes_agree {
            Some("their sizes")
        } else if a.kind != b.kind && !message {
            Some("their reductions, shifts or roots")
        } else if a_lane != b_lane {
            Some("their communicators")
        } else {
            None
        }
    }

    fn circles(&mut self) -> usize {
        let mut known: FxHashMap<(u32, Option<usize>), u32> = FxHashMap::default();
        let mut meetings: Vec<Vec<Standing>> = vec![];
        let mut parties = vec![];
        for (c, body) in self.program.bodies.iter().enumerate() {
            let mut of = vec![None; body.instructions.len()];
            for (index, collect) in collects(body) {
                let host = match &collect.kind {
                    CollectKind::Send { .. } => Some(c),
                    CollectKind::Receive { .. } => self.senders.get(&(c, index)).copied(),
                    _ => self.groups.iter().find(|(g, _)| *g == collect.group).and_then(|(_, m)| Some(m.as_ref()?[c])),
                };
                let meeting = *known.entry((collect.id, host)).or_insert(meetings.len() as u32);
                if meeting as usize == meetings.len() {
                    meetings.push(vec![]);
                }
                meetings[meeting as usize].push(Standing { party: c, instruction: index });
                of[index] = Some(meeting);
            }
            parties.push(Party { body, meetings: of });
        }
        if let Some(circle) = standstill::find(&parties, &meetings) {
            let lane = |s: &Standing| {
                let body = &self.program.bodies[s.party];
                let lane: LaneKind = body.lanes[body.instructions[s.instruction].lane.index()];
                format!("{lane} at {}", self.who(s.party, s.instruction))
            };
            let list: Vec<_> = circle.iter().map(lane).collect();
            let message = format!("lanes that wait for one another would never go on: {}", list.join(", waits for "));
            self.findings.add(Rule::Hang, message);
        }
        meetings.len()
    }
}
