//! One program of a plan as clusters, boxes, collectives and edges.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use plan::{Collect, CollectKind, Op, Plan, Program, Scope, Slice, When};

use super::picture::{Cluster, Edge, Look, NodeId, Picture, Shape};
use super::units::{Units, figures, units};
use crate::describe;
use crate::dot::Level;
use crate::outline::{Outline, Phase, Segments, outline, segments};
use crate::quantity::bytes;

/// Edges between two clusters that are drawn as one: bytes, the heaviest edge's ends, its bytes.
type Bundle = (u64, (NodeId, NodeId), u64);

pub fn program(picture: &mut Picture, plan: &Plan, program: &Program, level: Level, rank: Option<usize>) {
    let outer = (plan.programs.len() > 1).then(|| {
        let title = format!("program {}", program.name);
        picture.cluster(Cluster { parent: None, title, detail: String::new(), look: Look::Ranks })
    });
    let only = rank.and_then(|r| plan.class_of(r)).map(|c| c.index());
    let mut meetings: BTreeMap<u32, Vec<(bool, NodeId, Slice)>> = BTreeMap::new();
    for (c, outline) in outline(plan, program).into_iter().enumerate().filter(|(c, _)| only.is_none_or(|o| o == *c)) {
        let segments = segments(plan, &outline);
        let units = units(plan, &outline, &segments, level);
        let scope = Scope { plan, program, class: &plan.classes[c], body: outline.body };
        let cluster = ranks(picture, scope, &outline, outer, rank);
        Drawing { picture: &mut *picture, plan, program, outline, segments, units, level, cluster, rank }
            .draw(&mut meetings);
    }
    messages(picture, &meetings);
}

/// The cluster of a class of ranks.
fn ranks(
    picture: &mut Picture,
    scope: Scope<'_>,
    outline: &Outline<'_>,
    parent: Option<usize>,
    rank: Option<usize>,
) -> usize {
    let Scope { plan, class, .. } = scope;
    let who = describe::ranks(plan, class);
    let name = if plan.classes.len() > 1 { format!("{}: ", class.name) } else { String::new() };
    let title = match rank {
        Some(rank) => {
            let at = plan.header.mesh.coordinates(rank);
            let at = plan.header.mesh.axes.iter().zip(at).filter(|(axis, _)| axis.size > 1);
            let at: Vec<String> = at.map(|(axis, at)| format!("{} {at}", axis.name)).collect();
            let at = if at.is_empty() { String::new() } else { format!(" at {}", at.join(", ")) };
            format!("{name}rank {rank}{at}")
        }
        None if who.len() > 1 => format!("{name}{}, each", describe::ranges(&who)),
        None => format!("{name}{}", describe::ranges(&who)),
    };
    let memory = plan::memory(scope);
    let launches: Vec<usize> = (0..outline.body.instructions.len()).collect();
    let detail = format!(
        "{}; arena {} = parameters {} + optimiser {} + the rest {}",
        figures(plan, outline, &launches),
        bytes(memory.arena_bytes),
        bytes(memory.params_bytes),
        bytes(memory.optimizer_bytes),
        bytes(memory.arena_bytes.saturating_sub(memory.params_bytes + memory.optimizer_bytes))
    );
    picture.cluster(Cluster { parent, title, detail, look: Look::Ranks })
}

/// Edges between clusters: what one class sends and another receives, all messages between two boxes together.
fn messages(picture: &mut Picture, meetings: &BTreeMap<u32, Vec<(bool, NodeId, Slice)>>) {
    let mut edges: BTreeMap<(NodeId, NodeId), (u64, u64)> = BTreeMap::new();
    for meeting in meetings.values() {
        let from = meeting.iter().filter(|(sends, ..)| *sends);
        for ((_, from, slice), (_, to, _)) in
            from.flat_map(|f| meeting.iter().filter(|(sends, ..)| !sends).map(move |t| (f, t)))
        {
            let (count, sum) = edges.entry((*from, *to)).or_default();
            *count += 1;
            *sum = sum.saturating_add(slice.bytes);
        }
    }
    for ((from, to), (count, sum)) in edges {
        let axes = match &picture.nodes[from].shape {
            Shape::Collective(axes) => axes.clone(),
            _ => String::new(),
        };
        let label = format!("{count} \u{d7} {}", bytes(sum / count.max(1)));
        picture.edges.push(Edge { from, to, label, axes, kept: false, tail: None, head: None });
    }
}

struct Drawing<'a, 'p> {
    picture: &'a mut Picture,
    plan: &'p Plan,
    program: &'p Program,
    outline: Outline<'p>,
    segments: Segments,
    units: Units,
    level: Level,
    /// Of the class.
    cluster: usize,
    rank: Option<usize>,
}

/// A collective's box: the unit it serves, what it is, and whether it brings weights.
type Station = (Option<usize>, &'static str, String, bool);

#[derive(Default)]
struct Tally {
    count: u64,
    sent: u64,
    /// Of those of the first turn.
    shown: (u64, u64),
}

/// Bytes by writer and slice, so that a tensor which is read twice flows once.
type Flows = BTreeMap<(NodeId, NodeId), BTreeSet<(usize, u32, u64, u64)>>;

impl Drawing<'_, '_> {
    fn draw(mut self, meetings: &mut BTreeMap<u32, Vec<(bool, NodeId, Slice)>>) {
        let clusters = self.clusters();
        let unit_nodes: Vec<NodeId> = (0..self.units.list.len())
            .map(|u| {
                let unit = &self.units.list[u];
                let cluster = self.home(&clusters, Some(u));
                self.picture.node(Some(cluster), Shape::Compute(unit.phase), unit.lines.clone())
            })
            .collect();
        let anchors = self.anchors();
        let mut stations: BTreeMap<Station, (Tally, Vec<usize>)> = BTreeMap::new();
        let instructions = &self.outline.body.instructions;
        for (index, instruction) in instructions.iter().enumerate() {
            let Op::Collect(collect) = &instruction.op else { continue };
            let (unit, turn) = anchors[index];
            let station = (unit, collect.kind.name(), axes(collect), self.outline.weight[index]);
            let sent = plan::sent(&self.plan.header.mesh, collect);
            let (tally, members) = stations.entry(station).or_default();
            members.push(index);
            (tally.count, tally.sent) = (tally.count + 1, tally.sent.saturating_add(sent));
            if turn {
                tally.shown = (tally.shown.0 + 1, tally.shown.1.saturating_add(sent));
            }
        }
        let mut nodes: Vec<Option<NodeId>> = self.units.of.iter().map(|unit| unit.map(|u| unit_nodes[u])).collect();
        for ((unit, kind, axes, weight), (tally, members)) in &stations {
            let cluster = self.home(&clusters, *unit);
            let lines = self.station(kind, axes, *weight, tally, members);
            let node = self.picture.node(Some(cluster), Shape::Collective(axes.clone()), lines);
            for &index in members {
                nodes[index] = Some(node);
                if let Op::Collect(collect) = &instructions[index].op {
                    match (&collect.kind, collect.from.first(), collect.to.first()) {
                        (CollectKind::Send { .. }, Some(&slice), _) => {
                            meetings.entry(collect.id).or_default().push((true, node, slice));
                        }
                        (CollectKind::Receive { .. }, _, Some(&slice)) => {
                            meetings.entry(collect.id).or_default().push((false, node, slice));
                        }
                        _ => {}
                    }
                }
            }
        }
        self.feeds(&mut nodes);
        self.edges(&nodes, &clusters, &anchors);
    }

    /// Clusters of segments and of the loops around them, at the levels that draw them.
    fn clusters(&mut self) -> Vec<usize> {
        let mut loops: HashMap<usize, usize> = HashMap::new();
        let mut out = vec![];
        for segment in &self.segments.list {
            let mut parent = self.cluster;
            if self.level != Level::Stages {
                for &l in &segment.around {
                    parent = *loops.entry(l).or_insert_with(|| {
                        let title = format!("\u{d7} {}", self.outline.loops[l].times);
                        let look = Look::Phase(segment.phase);
                        self.picture.cluster(Cluster { parent: Some(parent), title, detail: String::new(), look })
                    });
                }
            }
            if self.level == Level::Ops {
                let title = match segment.times {
                    1 => segment.name.clone(),
                    n => format!("{} \u{d7} {n}", segment.name),
                };
                let detail = match segment.phase {
                    Phase::Update => String::new(),
                    phase => phase.name().to_owned(),
                };
                let look = Look::Phase(segment.phase);
                parent = self.picture.cluster(Cluster { parent: Some(parent), title, detail, look });
            }
            out.push(parent);
        }
        out
    }

    fn home(&self, clusters: &[usize], unit: Option<usize>) -> usize {
        let segment = unit.and_then(|u| self.units.list[u].segment);
        segment.map_or(self.cluster, |s| clusters[s])
    }

    /// For each collective the unit that it serves, and whether that is in the first turn of its loops: the one that
    /// reads a weight, else the one that made what is sent, else the one that reads what comes.
    fn anchors(&self) -> Vec<(Option<usize>, bool)> {
        let reads = &self.outline.reads;
        let own = |index: usize| (self.units.of[index], self.outline.first[index] == index);
        let mut reader: Vec<Option<usize>> = vec![None; reads.len()];
        for index in (0..reads.len()).rev() {
            let here = if self.units.of[index].is_some() { Some(index) } else { reader[index] };
            for writer in reads[index].iter().filter_map(|r| r.writer) {
                if here.is_some() {
                    reader[writer] = here;
                }
            }
        }
        let mut out: Vec<(Option<usize>, bool)> = vec![(None, true); reads.len()];
        for index in 0..reads.len() {
            let made = || reads[index].iter().find_map(|r| r.writer).map(|w| out[w]).filter(|(unit, _)| unit.is_some());
            let read = || reader[index].map(own);
            out[index] = match self.units.of[index] {
                Some(_) => own(index),
                None if self.outline.weight[index] => read().unwrap_or((None, true)),
                None => made().or_else(read).unwrap_or((None, true)),
            };
        }
        out
    }

    fn station(&self, kind: &str, axes: &str, weight: bool, tally: &Tally, members: &[usize]) -> Vec<String> {
        let (count, sent) = if self.level == Level::Ops { tally.shown } else { (tally.count, tally.sent) };
        let times = if count > 1 { format!("{count} \u{d7} ") } else { String::new() };
        let mut lines = vec![format!("{times}{kind} over {axes}")];
        let what = if weight { " of weights" } else { "" };
        if kind != "receive" {
            lines.push(format!("{} sent{what}", bytes(sent)));
        }
        if let (Some(rank), Some(&index)) = (self.rank, members.first())
            && let Op::Collect(collect) = &self.outline.body.instructions[index].op
        {
            lines.push(peers(self.plan, rank, collect));
        }
        lines
    }

    /// Boxes for what comes in and goes out, with the instructions that do it.
    fn feeds(&mut self, nodes: &mut [Option<NodeId>]) {
        let mut known: BTreeMap<String, NodeId> = BTreeMap::new();
        for (index, instruction) in self.outline.body.instructions.iter().enumerate() {
            let (name, what) = match &instruction.op {
                Op::Feed { feed, .. } => match self.program.feeds.get(feed.index()) {
                    Some(feed) => (feed.name.to_string(), feed.ty.to_string()),
                    None => continue,
                },
                Op::Emit { emit, .. } => match self.program.emits.get(emit.index()) {
                    Some(emit) if emit.when == When::Always => (emit.name.to_string(), emit.ty.to_string()),
                    _ => continue,
                },
                _ => continue,
            };
            let (lines, key) = match (&instruction.op, self.level) {
                (Op::Feed { .. }, Level::Stages) => (vec!["feeds".to_owned()], String::new()),
                _ => (vec![name.clone(), what], name),
            };
            let node = *known.entry(key).or_insert_with(|| self.picture.node(Some(self.cluster), Shape::Feed, lines));
            nodes[index] = Some(node);
        }
    }

    fn edges(&mut self, nodes: &[Option<NodeId>], clusters: &[usize], anchors: &[(Option<usize>, bool)]) {
        let mut flows: Flows = BTreeMap::new();
        let segment = |index: usize| anchors[index].0.and_then(|u| self.units.list[u].segment);
        for (index, reads) in self.outline.reads.iter().enumerate() {
            let Some(to) = nodes[index] else { continue };
            for read in reads {
                let Some((writer, from)) = read.writer.and_then(|w| nodes[w].map(|n| (w, n))) else { continue };
                // Inside a part of the model its first turn is drawn; the next turns are the same.
                let inside = segment(index).is_some() && segment(index) == segment(writer);
                let first = anchors[index].1 && anchors[writer].1;
                if from != to && (self.level != Level::Ops || !inside || first) {
                    let s = read.slice;
                    flows.entry((from, to)).or_default().insert((writer, s.buffer.0, s.offset, s.bytes));
                }
            }
        }
        let flows = flows.into_iter().map(|(ends, flow)| (ends, flow.iter().map(|(.., n)| n).sum::<u64>()));
        let mut bundles: BTreeMap<(usize, usize), Bundle> = BTreeMap::new();
        for ((from, to), sum) in flows {
            let ends = [from, to].map(|n| self.picture.nodes[n].cluster.filter(|c| clusters.contains(c)));
            match ends {
                // Between two parts one edge stands for all.
                [Some(a), Some(b)] if self.level == Level::Ops && a != b => {
                    let (all, thickest, most) = bundles.entry((a, b)).or_insert((0, (from, to), 0));
                    *all += sum;
                    if sum > *most {
                        (*thickest, *most) = ((from, to), sum);
                    }
                }
                _ => self.edge(from, to, sum, None),
            }
        }
        for ((a, b), (sum, (from, to), _)) in bundles {
            self.edge(from, to, sum, Some((a, b)));
        }
    }

    fn edge(&mut self, from: NodeId, to: NodeId, sum: u64, between: Option<(usize, usize)>) {
        let axes = [from, to].into_iter().find_map(|n| match &self.picture.nodes[n].shape {
            Shape::Collective(axes) => Some(axes.clone()),
            _ => None,
        });
        let phase = |n: NodeId| match &self.picture.nodes[n].shape {
            Shape::Compute(phase) => Some(*phase),
            _ => None,
        };
        let kept = phase(from) == Some(Phase::Forward) && phase(to) == Some(Phase::Backward);
        let label = match (&axes, kept) {
            (_, true) => format!("{} kept", bytes(sum)),
            (Some(axes), _) if between.is_none() => format!("{}, {axes}", bytes(sum)),
            _ => bytes(sum),
        };
        let (tail, head) = between.unzip();
        let axes = axes.filter(|_| between.is_none()).unwrap_or_default();
        self.picture.edges.push(Edge { from, to, label, axes, kept, tail, head });
    }
}

/// `fsdp x tp`.
fn axes(collect: &Collect) -> String {
    collect.group.iter().map(|axis| axis.as_str()).collect::<Vec<_>>().join(" x ")
}

/// `with ranks 0-3`, `to rank 4`.
fn peers(plan: &Plan, rank: usize, collect: &Collect) -> String {
    let mesh = &plan.header.mesh;
    let here = mesh.coordinates(rank);
    let other = |other: &usize| {
        let there = mesh.coordinates(*other);
        let of = |i: usize| here[i] == there[i] || collect.group.contains(&mesh.axes[i].name);
        (0..mesh.axes.len()).all(of)
    };
    let group: Vec<usize> = (0..mesh.world()).filter(other).collect();
    // Positions in the group count its axes in the group's own order.
    let position = |r: usize| {
        let at = mesh.coordinates(r);
        let place = |axis: &types::Name| mesh.position(axis).map_or(0, |p| at[p]);
        collect.group.iter().fold(0, |sum, axis| sum * mesh.size(axis) + place(axis)) as i64
    };
    let peer = |affine: &plan::Affine| group.iter().find(|&&r| position(r) == affine.at(mesh, &here));
    match &collect.kind {
        CollectKind::Send { peer: to } => peer(to).map_or_else(String::new, |r| format!("to rank {r}")),
        CollectKind::Receive { peer: of } => peer(of).map_or_else(String::new, |r| format!("from rank {r}")),
        _ => format!("among {}", describe::ranges(&group)),
    }
}
