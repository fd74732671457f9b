//! Prints modules of programs.

use std::fmt::{self, Display, Write};

use cost::Unit;
use plan::{
    Access, Affine, Buffer, BufferId, Collect, CollectKind, Kernel, Life, Op, Phase, Reduce, Slice, Unit as PlanUnit,
};
use serde::Serialize;
use types::Runs;

use crate::{Instruction, Lane, Program, RankModule, RankProgram, Site, Turn};

impl Display for RankModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<_> = self.mesh.axes.iter().map(|a| format!("{}:{}", a.name, a.size)).collect();
        let pipeline = if self.is_pipeline { " pipeline" } else { "" };
        writeln!(f, "ranks of [{}] align {}{pipeline}", axes.join(" "), self.alignment)?;
        for (i, kernel) in self.kernels.iter().enumerate() {
            kernel_line(f, i, kernel)?;
        }
        let m = &self.manifest;
        m.parameters.iter().try_for_each(|x| json_line(f, "parameter", x))?;
        m.states.iter().try_for_each(|x| json_line(f, "state", x))?;
        m.ragged.iter().try_for_each(|x| json_line(f, "ragged", x))?;
        self.residencies.iter().try_for_each(|x| json_line(f, "residency", &x.name))?;
        self.programs.iter().try_for_each(|program| program_lines(f, program))
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn json_line(f: &mut fmt::Formatter<'_>, word: &str, value: &impl Serialize) -> fmt::Result {
    writeln!(f, "{word} {}", json(value))
}

fn kernel_line(f: &mut fmt::Formatter<'_>, index: usize, k: &Kernel) -> fmt::Result {
    let letter = |a: &Access| match a {
        Access::Read => 'r',
        Access::Write => 'w',
        Access::ReadWrite => 'x',
    };
    write!(f, "kernel k{index} {} args {}", json(&k.symbol), k.args.iter().map(letter).collect::<String>())?;
    for (read, written) in &k.in_place {
        write!(f, " in_place {read}={written}")?;
    }
    if k.max_parts != 1 {
        write!(f, " parts {}", k.max_parts)?;
    }
    let numbers = [
        ("scalars", u64::from(k.scalars)),
        ("flops", k.flops),
        ("products", k.products),
        ("elementwise", k.elementwise),
        ("bytes", k.bytes),
        ("workspace", k.workspace),
    ];
    for (word, number) in numbers.into_iter().filter(|(_, number)| *number > 0) {
        write!(f, " {word} {number}")?;
    }
    writeln!(f)
}

fn program_lines(f: &mut fmt::Formatter<'_>, program: &Program) -> fmt::Result {
    write!(f, "program {} collectives {} places {}", json(&program.name), program.collectives, program.places)?;
    match program.runs {
        Runs::Asked => {}
        Runs::Times(times) => write!(f, " times {times}")?,
        Runs::OnDemand => f.write_str(" on demand")?,
        Runs::Prepare => f.write_str(" prepare")?,
    }
    if let Some(residency) = program.residency {
        write!(f, " residency {}", residency.0)?;
    }
    writeln!(f)?;
    program.feeds.iter().try_for_each(|x| json_line(f, "  feed", x))?;
    program.emits.iter().try_for_each(|x| json_line(f, "  emit", x))?;
    program.ranks.iter().try_for_each(|rank| rank_lines(f, rank))
}

fn rank_lines(f: &mut fmt::Formatter<'_>, rank: &RankProgram) -> fmt::Result {
    writeln!(f, "  rank {} collectives {}", rank.pipeline.rank, rank.collectives)?;
    for (i, site) in rank.places.sites().iter().enumerate() {
        writeln!(f, "    place p{i} {}", place(site))?;
    }
    for (i, buffer) in rank.buffers.iter().enumerate() {
        let persistent = (i < rank.persistent).then(|| (rank.held[i], rank.owner[i]));
        buffer_line(f, i, buffer, persistent)?;
    }
    for block in &rank.blocks {
        writeln!(f, "    block{}", ids(block.iter()))?;
    }
    if !rank.once.is_empty() {
        writeln!(f, "    once{}", ids(rank.once.iter()))?;
    }
    for update in &rank.updates {
        writeln!(f, "    update {} -> {}", slice(rank, &update.value), update.home)?;
    }
    if !rank.pipeline.units.is_empty() {
        let units: String = rank.pipeline.units.iter().map(|u| format!(" {}", unit(u))).collect();
        writeln!(f, "    units{units}")?;
    }
    for (send, unit) in &rank.pipeline.settles {
        writeln!(f, "    settles c{send} {unit}")?;
    }
    if !rank.lanes.is_empty() {
        writeln!(f, "    lanes{}", rank.lanes.iter().map(|l| format!(" {}", lane(l))).collect::<String>())?;
        writeln!(f, "    events {}", rank.events)?;
    }
    for PlanUnit { stage, microbatch, kind, first, end } in &rank.units {
        writeln!(f, "    unit {}{microbatch}.{stage} #{first}..#{end}", kind.letter())?;
    }
    for kept in &rank.kept {
        writeln!(f, "    kept {}", json(kept))?;
    }
    if rank.arena_bytes + rank.host_bytes > 0 {
        writeln!(f, "    arena {} host {}", rank.arena_bytes, rank.host_bytes)?;
    }
    let mut turns = rank.turns.iter().peekable();
    for (i, instruction) in rank.instructions.iter().enumerate() {
        while let Some(turn) = turns.next_if(|turn| turn.at <= i) {
            turn_line(f, turn)?;
        }
        instruction_line(f, rank, instruction)?;
    }
    turns.try_for_each(|turn| turn_line(f, turn))
}

fn place(site: &Site) -> String {
    let mut text = json(&site.what);
    for frame in &site.frames {
        let _ = write!(text, " {} {} {}", json(&frame.file), frame.line, frame.column);
    }
    text
}

fn ids<'b>(of: impl Iterator<Item = &'b BufferId>) -> String {
    of.map(|id| format!(" {id}")).collect()
}

fn buffer_line(
    f: &mut fmt::Formatter<'_>,
    index: usize,
    buffer: &Buffer,
    persistent: Option<(bool, Option<BufferId>)>,
) -> fmt::Result {
    write!(f, "    buffer b{index} {} {}", buffer.kind, json(&buffer.name))?;
    if let Some(ty) = &buffer.ty {
        write!(f, " {ty}")?;
    }
    if buffer.ty.as_ref().is_none_or(|ty| ty.bytes() as u64 != buffer.bytes) {
        write!(f, " {} bytes", buffer.bytes)?;
    }
    if let Some((held, owner)) = persistent {
        f.write_str(if held { " persistent" } else { " elsewhere" })?;
        if let Some(owner) = owner {
            write!(f, " of {owner}")?;
        }
    }
    if buffer.on_host() {
        f.write_str(" host")?;
    }
    if let Life::Resident(residency) = buffer.life {
        write!(f, " residency {}", residency.0)?;
    }
    if let Life::Span { first, last } = buffer.life
        && (first, last, buffer.offset) != (0, 0, 0)
    {
        write!(f, " live #{first}..#{last} at {}", buffer.offset)?;
    }
    writeln!(f)
}

fn unit(u: &Unit) -> String {
    format!("{}{}.{}", u.kind.letter(), u.microbatch, u.stage)
}

fn lane(lane: &Lane) -> String {
    match lane {
        Lane::Compute => "compute".into(),
        Lane::Copy => "copy".into(),
        Lane::Comm { group, way: None } => format!("comm({})", axes(group)),
        Lane::Comm { group, way: Some([from, to]) } => format!("comm({} {from} {to})", axes(group)),
    }
}

fn axes(group: &[types::Name]) -> String {
    group.iter().map(|axis| axis.as_str()).collect::<Vec<_>>().join(",")
}

fn turn_line(f: &mut fmt::Formatter<'_>, turn: &Turn) -> fmt::Result {
    f.write_str("    turn")?;
    if turn.is_block {
        f.write_str(" block")?;
    }
    match turn.unit {
        Some(u32::MAX) => f.write_str(" unit end")?,
        Some(unit) => write!(f, " unit {unit}")?,
        None => {}
    }
    writeln!(f)
}

fn instruction_line(f: &mut fmt::Formatter<'_>, rank: &RankProgram, instruction: &Instruction) -> fmt::Result {
    f.write_str("      ")?;
    if instruction.lane.0 > 0 {
        write!(f, "@{} ", instruction.lane.0)?;
    }
    f.write_str(&operation(rank, &instruction.op))?;
    let origin = &instruction.origin;
    if origin.place.0 > 0 {
        write!(f, " {}", origin.place)?;
    }
    match origin.phase {
        Phase::Forward => {}
        Phase::Backward => f.write_str(" backward")?,
        Phase::Update => f.write_str(" update")?,
    }
    if let Some(block) = origin.block {
        write!(f, " block {block}")?;
    }
    if let Some(microbatch) = origin.microbatch {
        write!(f, " microbatch {microbatch}")?;
    }
    if origin.site > 0 {
        write!(f, " site {}", origin.site)?;
    }
    if let Some(joins) = instruction.joins {
        write!(f, " joins {} until #{}", joins.block, joins.until)?;
    }
    writeln!(f)
}

/// An instruction without its lane and origin: `k3(b0 b1 -> b2)`.
fn operation(rank: &RankProgram, op: &Op) -> String {
    let list = |of: &[Slice]| of.iter().map(|s| slice(rank, s)).collect::<Vec<_>>().join(" ");
    match op {
        Op::Launch(launch) => {
            let accesses = rank.accesses(launch.kernel);
            let inputs = accesses.iter().take_while(|a| !matches!(a, Access::Write)).count().min(launch.args.len());
            let (inputs, outputs) = launch.args.split_at(inputs);
            let scalars: String = launch.scalars.iter().map(|s| format!(" ; {}", affine(s))).collect();
            format!("{}({} -> {}{scalars})", launch.kernel, list(inputs), list(outputs))
        }
        Op::Collect(collect) => collective(collect, &list(&collect.from), &list(&collect.to)),
        Op::Copy { from, to } => format!("copy({} -> {})", slice(rank, from), slice(rank, to)),
        Op::Record { event } => format!("record {event}"),
        Op::Wait { event } => format!("wait {event}"),
        Op::Feed { feed, to } => format!("{feed} -> {}", slice(rank, to)),
        Op::Emit { emit, from } => format!("{emit} <- {}", slice(rank, from)),
    }
}

fn collective(collect: &Collect, from: &str, to: &str) -> String {
    let reduce = |r: &Reduce| format!("{:?} {}", r.kind, r.dtype).to_lowercase();
    let kind = match &collect.kind {
        CollectKind::AllReduce(r) => format!("all_reduce {}", reduce(r)),
        CollectKind::ReduceScatter(r) => format!("reduce_scatter {}", reduce(r)),
        CollectKind::Broadcast { root } => format!("broadcast {}", affine(root)),
        CollectKind::Permute { shifts } => format!("permute {}", json(shifts)),
        CollectKind::Send { peer } => format!("send {}", affine(peer)),
        CollectKind::Receive { peer } => format!("receive {}", affine(peer)),
        CollectKind::AllGather => "all_gather".into(),
        CollectKind::AllToAll => "all_to_all".into(),
    };
    format!("c{} {kind} over {}({from} -> {to}) {}", collect.id, axes(&collect.group), json(&collect.why))
}

/// A number, or the whole of what depends on coordinates.
fn affine(a: &Affine) -> String {
    if *a == Affine::constant(a.base) { a.base.to_string() } else { json(a) }
}

/// `b2`, or `b2[64..128]` where it is not the whole buffer.
fn slice(rank: &RankProgram, s: &Slice) -> String {
    match rank.buffers.get(s.buffer.index()) {
        Some(b) if s.offset == 0 && s.bytes == b.bytes => s.buffer.to_string(),
        _ => format!("{}[{}..{}]", s.buffer, s.offset, s.offset.saturating_add(s.bytes)),
    }
}
