//! The drawing of a plan: buffers with offsets and lives, and lanes as columns.

use std::fmt::{self, Write};

use types::Runs;

use crate::{
    Access, Affine, Buffer, BufferId, CollectKind, Layout, Life, Op, Plan, Program, Ranks, Scope, Slice, Source,
    StateInit, When,
};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let h = &self.header;
        let mesh: Vec<_> = h.mesh.axes.iter().map(|a| format!("{}:{}", a.name, a.size)).collect();
        writeln!(
            f,
            "plan {} {} {} for {} ({}) {} seed {} mesh [{}]",
            h.model,
            h.preset,
            h.task,
            h.target,
            h.device,
            h.dtype,
            h.seed,
            mesh.join(" ")
        )?;
        for (i, k) in self.kernels.iter().enumerate() {
            let args: String = k
                .args
                .iter()
                .map(|a| match a {
                    Access::Read => 'r',
                    Access::Write => 'w',
                    Access::ReadWrite => 'x',
                })
                .collect();
            write!(f, "kernel k{i} {} args {args}", k.symbol)?;
            for (read, written) in &k.in_place {
                write!(f, " {read}={written}")?;
            }
            if k.scalars > 0 {
                write!(f, " scalars {}", k.scalars)?;
            }
            write!(f, " parts {} flops {} products {}", k.max_parts, k.flops, k.products)?;
            writeln!(f, " elementwise {} bytes {}", k.elementwise, k.bytes)?;
        }
        manifest(self, f)?;
        for (i, residency) in self.residencies.iter().enumerate() {
            writeln!(f, "residency {i} {}", residency.name)?;
        }
        for program in &self.programs {
            interface(self, program, f)?;
        }
        for (c, class) in self.classes.iter().enumerate() {
            writeln!(f, "class {} ({})", class.name, ranks(&class.ranks))?;
            for (i, buffer) in class.persistent.iter().enumerate() {
                buffer_line(f, BufferId::new(i), buffer)?;
            }
            for program in &self.programs {
                let Some(body) = program.bodies.get(c) else { continue };
                let times = match program.runs {
                    Runs::Asked => String::new(),
                    Runs::Times(times) => format!(", {times} times"),
                    Runs::OnDemand => ", on demand".into(),
                    Runs::Prepare => ", to prepare values".into(),
                };
                let host =
                    if body.host_bytes > 0 { format!(" and {} B of the host", body.host_bytes) } else { String::new() };
                writeln!(f, "program {} on {}, arena {} B{host}{times}", program.name, class.name, body.arena_bytes)?;
                for (i, buffer) in body.buffers.iter().enumerate() {
                    buffer_line(f, BufferId::new(class.persistent.len() + i), buffer)?;
                }
                lanes(Scope { plan: self, program, class, body }, f)?;
            }
        }
        Ok(())
    }
}

/// One instruction, without its lane: `k3 matmul(b0 b1 -> b2)`.
pub(crate) fn operation(scope: Scope<'_>, op: &Op) -> String {
    let Scope { plan, program, .. } = scope;
    let slice = |s: &Slice| slice(scope, s);
    let list = |s: &[Slice]| s.iter().map(&slice).collect::<Vec<_>>().join(" ");
    match op {
        Op::Launch(launch) => {
            let kernel = plan.kernels.get(launch.kernel.index());
            let symbol = kernel.map_or("?", |k| k.symbol.as_str());
            let side = |write: bool| {
                let accesses = plan.accesses(launch.kernel).iter();
                let chosen =
                    launch.args.iter().zip(accesses).filter(|(_, a)| if write { a.writes() } else { a.reads() });
                chosen.map(|(s, _)| slice(s)).collect::<Vec<_>>().join(" ")
            };
            let scalars: Vec<_> = launch.scalars.iter().map(affine).collect();
            let scalars = if scalars.is_empty() { String::new() } else { format!("; {}", scalars.join(" ")) };
            format!("{} {symbol}({} -> {}{scalars})", launch.kernel, side(false), side(true))
        }
        Op::Collect(collect) => {
            let kind = match &collect.kind {
                CollectKind::AllReduce(r) => format!("all_reduce {:?} {}", r.kind, r.dtype).to_lowercase(),
                CollectKind::AllGather => "all_gather".into(),
                CollectKind::ReduceScatter(r) => format!("reduce_scatter {:?} {}", r.kind, r.dtype).to_lowercase(),
                CollectKind::AllToAll => "all_to_all".into(),
                CollectKind::Broadcast { root } => format!("broadcast from {}", affine(root)),
                CollectKind::Permute { shifts } => format!("permute {shifts:?}"),
                CollectKind::Send { peer } => format!("send to {}", affine(peer)),
                CollectKind::Receive { peer } => format!("receive from {}", affine(peer)),
            };
            let group: Vec<_> = collect.group.iter().map(|n| n.as_str()).collect();
            format!("c{} {kind} over {}({} -> {})", collect.id, group.join(" "), list(&collect.from), list(&collect.to))
        }
        Op::Copy { from, to } => format!("copy({} -> {})", slice(from), slice(to)),
        Op::Record { event } => format!("record {event}"),
        Op::Wait { event } => format!("wait {event}"),
        Op::Feed { feed, to } => {
            format!("feed {} -> {}", program.feeds.get(feed.index()).map_or("?", |f| f.name.as_str()), slice(to))
        }
        Op::Emit { emit, from } => {
            format!("emit {} <- {}", program.emits.get(emit.index()).map_or("?", |e| e.name.as_str()), slice(from))
        }
    }
}

/// `b2`, or `b2[64..128]` where it is not the whole buffer.
fn slice(scope: Scope<'_>, s: &Slice) -> String {
    match scope.buffer(s.buffer) {
        Some(b) if s.offset == 0 && s.bytes == b.bytes => s.buffer.to_string(),
        _ => format!("{}[{}..{}]", s.buffer, s.offset, s.offset.saturating_add(s.bytes)),
    }
}

fn affine(a: &Affine) -> String {
    let mut text = a.base.to_string();
    for term in &a.terms {
        let _ = write!(text, "+{}*{}", term.scale, term.axis);
    }
    match (a.least, a.most) {
        (i64::MIN, i64::MAX) => text,
        (i64::MIN, most) => format!("min({text}, {most})"),
        (least, i64::MAX) => format!("max({text}, {least})"),
        (least, most) => format!("clamp({text}, {least}, {most})"),
    }
}

fn buffer_line(f: &mut fmt::Formatter<'_>, id: BufferId, buffer: &Buffer) -> fmt::Result {
    let life = match buffer.life {
        Life::Persistent => "always".to_string(),
        Life::Resident(residency) => format!("in {}", residency.0),
        Life::Span { first, last } => format!("#{first}..#{last}"),
    };
    let host = if buffer.on_host() { "host " } else { "" };
    let range = format!("{host}{}..{}", buffer.offset, buffer.end());
    let ty = buffer.ty.as_ref().map(ToString::to_string).unwrap_or_default();
    let line = format!("  {:<5} {range:<19} {life:<10} {:<10} {} {ty}", id.to_string(), buffer.kind, buffer.name);
    writeln!(f, "{}", line.trim_end())
}

fn lanes(scope: Scope<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Scope { plan, body, .. } = scope;
    let drawn: Vec<_> = body.instructions.iter().map(|i| (i.lane.index(), operation(scope, &i.op))).collect();
    let mut widths: Vec<usize> = body.lanes.iter().map(|l| l.to_string().len()).collect();
    for (lane, text) in &drawn {
        if let Some(width) = widths.get_mut(*lane) {
            *width = (*width).max(text.len());
        }
    }
    let mut head = "       ".to_string();
    for (lane, width) in body.lanes.iter().zip(&widths) {
        let _ = write!(head, " {:<width$} |", lane.to_string());
    }
    writeln!(f, "{}", head.trim_end_matches([' ', '|']))?;
    for (index, (lane, text)) in drawn.iter().enumerate() {
        let mut line = format!("  #{index:<4}");
        for (l, width) in widths.iter().enumerate() {
            let _ = write!(line, " {:<width$} |", if l == *lane { text } else { "" });
        }
        let place =
            plan.places.get(body.instructions[index].place.index()).map(ToString::to_string).unwrap_or_default();
        writeln!(f, "{} // {place}", line.trim_end_matches('|').trim_end())?;
    }
    Ok(())
}

fn manifest(plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let m = &plan.manifest;
    for p in &m.parameters {
        let frozen = if p.trainable { "" } else { " frozen" };
        writeln!(f, "parameter {} {}{} init {:?}{frozen}", p.name, p.ty, layout(&p.layout, &p.ty), p.init)?;
    }
    for s in &m.states {
        let init = match &s.init {
            StateInit::Value(init) => format!("{init:?}"),
            StateInit::Parameter => "as its parameter".into(),
            StateInit::Coordinate(axis) => format!("as the coordinate on {axis}"),
            StateInit::Prepared => "prepared".into(),
        };
        let of =
            s.of.and_then(|of| m.parameters.get(of.index())).map(|of| format!(" of {}", of.name)).unwrap_or_default();
        writeln!(f, "state {} {}{}{of} init {init}", s.name, s.ty, layout(&s.layout, &s.ty))?;
    }
    for r in &m.ragged {
        writeln!(f, "ragged {} = {} up to {} rows", r.axis, r.owner, r.capacity)?;
    }
    Ok(())
}

/// What a program takes, gives and does, on all classes together.
fn interface(plan: &Plan, program: &Program, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "program {} tokens {} flops {}", program.name, program.tokens, program.flops)?;
    if let Some(residency) = program.residency.and_then(|id| plan.residencies.get(id.index())) {
        write!(f, " in residency {}", residency.name)?;
    }
    writeln!(f)?;
    for feed in &program.feeds {
        let source = match feed.source {
            Source::Data => "data".to_string(),
            Source::Indices(types::Indices { rows, .. }) => format!("data of {rows} rows"),
            Source::Draw(types::Distribution::Uniform { lo, hi }) => format!("draw uniform({lo}, {hi})"),
            Source::Draw(types::Distribution::Normal { mean, std }) => format!("draw normal({mean}, {std})"),
        };
        writeln!(f, "  feed {} {}{} {source}", feed.name, feed.ty, layout(&feed.layout, &feed.ty))?;
    }
    for e in &program.emits {
        let when = match &e.when {
            When::Always => "always".to_string(),
            When::OnRequest(word) => format!("if {word} are asked for"),
        };
        writeln!(f, "  emit {} {}{} {when}", e.name, e.ty, layout(&e.layout, &e.ty))?;
    }
    Ok(())
}

/// ` @ B:dp L:cp` for the dims that are cut.
fn layout(layout: &Layout, ty: &types::TensorType) -> String {
    let mut text = String::new();
    for (dim, cut) in ty.dims.iter().zip(&layout.cuts).filter(|(_, c)| !c.axes.is_empty()) {
        let axes: Vec<_> = cut.axes.iter().map(|a| a.as_str()).collect();
        let _ = write!(text, " {}:{}", dim.name, axes.join("."));
    }
    if text.is_empty() { text } else { format!(" @{text}") }
}

fn ranks(ranks: &Ranks) -> String {
    if ranks.at.is_empty() {
        return "all ranks".into();
    }
    ranks.at.iter().map(|(axis, at)| format!("{axis}={at}")).collect::<Vec<_>>().join(" ")
}
