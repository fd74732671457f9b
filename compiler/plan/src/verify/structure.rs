//! Structure: every index in a plan points at something, sizes agree, and no arithmetic on them overflows.

use rustc_hash::FxHashSet;
use types::{DType, Mesh, Name, Runs, TensorType};

use super::{collectives, ragged};
use crate::violation::{Findings, Rule};
use crate::{
    Buffer, BufferId, BufferKind, Class, Instruction, LaneKind, Layout, Life, Op, Plan, Program, Scope, Slice,
    StateInit, Violation,
};

/// No plan comes near these; they keep all later arithmetic inside 64 bits.
const MOST_BYTES: u64 = 1 << 52;
const MOST_RANKS: usize = types::MAX_RANKS;
const MOST_LANES: usize = 1024;

/// Checks what all other code takes for granted when it indexes into a plan.
pub fn structure(plan: &Plan) -> Result<(), Vec<Violation>> {
    let mut findings = Findings::new();
    mesh(&plan.header.mesh, &mut findings);
    // What follows computes with the mesh.
    if findings.list.is_empty() {
        whole(plan, &mut findings);
        manifest(plan, &mut findings);
        ragged::axes(plan, &mut findings);
        for program in &plan.programs {
            findings.scope = program.name.to_string();
            interface(plan, program, &mut findings);
            ragged::feeds(plan, program, &mut findings);
        }
        for (c, class) in plan.classes.iter().enumerate() {
            findings.scope = class.name.to_string();
            persistent(plan, class, &mut findings);
            for program in &plan.programs {
                if let Some(body) = program.bodies.get(c) {
                    findings.scope = format!("{}, {}", program.name, class.name);
                    check_body(Scope { plan, program, class, body }, &mut findings);
                }
            }
        }
    }
    findings.into_result()
}

fn mesh(mesh: &Mesh, findings: &mut Findings) {
    let world =
        mesh.axes.iter().try_fold(1usize, |n, a| n.checked_mul(a.size)).filter(|n| (1..=MOST_RANKS).contains(n));
    if world.is_none() {
        findings.add(Rule::Structure, "the mesh has no ranks, or more than can be");
    }
    distinct("mesh axes", mesh.axes.iter().map(|a| &a.name), findings);
}

fn distinct<'a>(what: &str, names: impl Iterator<Item = &'a Name>, findings: &mut Findings) {
    let mut seen = FxHashSet::default();
    for name in names {
        if !seen.insert(name) {
            findings.add(Rule::Structure, format!("two {what} are called `{name}`"));
        }
    }
}

fn whole(plan: &Plan, findings: &mut Findings) {
    let mesh = &plan.header.mesh;
    let mut ranks = 0;
    for (i, class) in plan.classes.iter().enumerate() {
        distinct("conditions of a class", class.ranks.at.iter().map(|(axis, _)| axis), findings);
        if let Some((axis, at)) =
            class.ranks.at.iter().find(|(axis, at)| mesh.position(axis).is_none() || *at >= mesh.size(axis))
        {
            findings
                .add(Rule::Structure, format!("class `{}` is at {axis}={at}, where the mesh has no rank", class.name));
            return;
        }
        ranks += mesh.world() / class.ranks.at.iter().map(|(axis, _)| mesh.size(axis)).product::<usize>();
        for other in &plan.classes[..i] {
            let differ = |(axis, at): &(Name, usize)| other.ranks.at.iter().any(|(a, v)| a == axis && v != at);
            if !class.ranks.at.iter().any(differ) {
                findings.add(Rule::Structure, format!("classes `{}` and `{}` share ranks", other.name, class.name));
            }
        }
    }
    if ranks != mesh.world() {
        findings.add(Rule::Structure, format!("the classes hold {ranks} ranks, and the mesh {}", mesh.world()));
    }
    distinct("classes", plan.classes.iter().map(|c| &c.name), findings);
    distinct("programs", plan.programs.iter().map(|p| &p.name), findings);
    distinct("residencies", plan.residencies.iter().map(|r| &r.name), findings);
    for program in plan.programs.iter().filter(|p| p.bodies.len() != plan.classes.len()) {
        let (have, want) = (program.bodies.len(), plan.classes.len());
        findings.add(Rule::Structure, format!("program `{}` has {have} bodies for {want} classes", program.name));
    }
    for kernel in plan.kernels.iter().filter(|k| k.max_parts == 0) {
        findings.add(Rule::Structure, format!("kernel `{}` may be split into no parts at all", kernel.symbol));
    }
}

/// Bytes of a type, if they stay within reason and the type may occur in a plan.
fn bytes(ty: &TensorType) -> Option<u64> {
    let sizes = ty.dims.iter().try_fold(1u64, |n, d| n.checked_mul(d.size as u64));
    sizes?.checked_mul(ty.dtype.bytes() as u64).filter(|b| *b <= MOST_BYTES && ty.dtype != DType::Work)
}

/// Bytes that a rank reserves for its region: whole ceil blocks.
fn capacity(mesh: &Mesh, ty: &TensorType, layout: &Layout) -> Option<u64> {
    bytes(ty)?;
    bytes(&mesh.local(ty, &layout.cuts))
}

/// What is wrong with the type or the layout of a value, if anything is.
fn typed(mesh: &Mesh, what: &str, name: &Name, ty: &TensorType, layout: &Layout, findings: &mut Findings) {
    let known = layout.cuts.iter().flat_map(|c| &c.axes).all(|a| mesh.position(a).is_some());
    let once: FxHashSet<_> = layout.cuts.iter().flat_map(|c| &c.axes).collect();
    let axes = layout.cuts.iter().map(|c| c.axes.len()).sum::<usize>();
    if !known || once.len() != axes || !(layout.cuts.is_empty() || layout.cuts.len() == ty.rank()) {
        findings.add(Rule::Structure, format!("{what} `{name}` is cut in a way that its dims or the mesh do not have"));
    }
    if bytes(ty).is_none() || ty.elements() == 0 {
        findings.add(Rule::Structure, format!("{what} `{name}` cannot have the type {ty}"));
    }
}

/// What a program says of itself.
fn interface(plan: &Plan, program: &Program, findings: &mut Findings) {
    let mesh = &plan.header.mesh;
    distinct("feeds", program.feeds.iter().map(|f| &f.name), findings);
    distinct("emits", program.emits.iter().map(|e| &e.name), findings);
    program.feeds.iter().for_each(|x| typed(mesh, "feed", &x.name, &x.ty, &x.layout, findings));
    program.emits.iter().for_each(|x| typed(mesh, "emit", &x.name, &x.ty, &x.layout, findings));
    for emit in program.emits.iter().filter(|e| e.of.is_some_and(|of| of.index() >= plan.manifest.parameters.len())) {
        findings.add(Rule::Structure, format!("emit `{}` is the gradient of no parameter", emit.name));
    }
    if let Some(residency) = program.residency.filter(|r| r.index() >= plan.residencies.len()) {
        findings.add(Rule::Structure, format!("needs {residency}, which does not exist"));
    }
    if program.runs == Runs::Prepare && !(program.feeds.is_empty() && program.emits.is_empty()) {
        findings.add(Rule::Structure, "prepares values, and takes feeds or gives emits");
    }
}

fn manifest(plan: &Plan, findings: &mut Findings) {
    let m = &plan.manifest;
    let mesh = &plan.header.mesh;
    distinct("parameters", m.parameters.iter().flat_map(|p| [&p.name].into_iter().chain(&p.aliases)), findings);
    distinct("states", m.states.iter().map(|s| &s.name), findings);
    m.parameters.iter().for_each(|x| typed(mesh, "parameter", &x.name, &x.ty, &x.layout, findings));
    m.states.iter().for_each(|x| typed(mesh, "state", &x.name, &x.ty, &x.layout, findings));

    for p in &m.parameters {
        held(plan, "parameter", &p.name, (&p.ty, &p.layout), &p.buffers, &[BufferKind::Parameter], findings);
    }
    for s in &m.states {
        let kinds: &[BufferKind] = match &s.init {
            StateInit::Parameter | StateInit::Prepared => &[BufferKind::Parameter],
            _ => &[BufferKind::Optimizer, BufferKind::State],
        };
        held(plan, "state", &s.name, (&s.ty, &s.layout), &s.buffers, kinds, findings);
        let of = s.of.map(|of| m.parameters.get(of.index()));
        let follows = s.init == StateInit::Parameter;
        if of.is_some_and(|of| of.is_none())
            || follows && !of.flatten().is_some_and(|p| p.ty.sizes() == s.ty.sizes() && p.layout == s.layout)
        {
            findings.add(Rule::Structure, format!("state `{}` is of no parameter that it can follow", s.name));
        }
    }
}

fn held(
    plan: &Plan,
    what: &str,
    name: &Name,
    (ty, layout): (&TensorType, &Layout),
    buffers: &[Option<BufferId>],
    kinds: &[BufferKind],
    findings: &mut Findings,
) {
    if buffers.len() != plan.classes.len() {
        let (have, want) = (buffers.len(), plan.classes.len());
        findings.add(Rule::Structure, format!("{what} `{name}` names {have} buffers for {want} classes"));
        return;
    }
    if buffers.iter().all(Option::is_none) {
        findings.add(Rule::Structure, format!("{what} `{name}` is in no class's memory"));
    }
    for (class, id) in plan.classes.iter().zip(buffers).filter_map(|(c, id)| id.map(|id| (c, id))) {
        let fits = class.persistent.get(id.index()).is_some_and(|b| {
            kinds.contains(&b.kind)
                && b.ty.as_ref().is_some_and(|t| t.dtype == ty.dtype)
                && capacity(&plan.header.mesh, ty, layout).is_some_and(|c| c <= b.bytes)
        });
        if !fits {
            let message = format!("{what} `{name}` does not fit {id}, its buffer in class `{}`", class.name);
            findings.add(Rule::Structure, message);
        }
    }
}

fn persistent(plan: &Plan, class: &Class, findings: &mut Findings) {
    for buffer in &class.persistent {
        check_buffer(buffer, [MOST_BYTES; 2], findings);
        match buffer.life {
            Life::Persistent => {}
            Life::Span { .. } => {
                let what = format!("`{}` stands among the persistent buffers and is none", buffer.name);
                findings.add(Rule::Structure, what);
            }
            Life::Resident(id) if id.index() >= plan.residencies.len() => {
                findings.add(Rule::Structure, format!("`{}` is in {id}, which does not exist", buffer.name));
            }
            Life::Resident(_) if buffer.on_host() || buffer.kind != BufferKind::Parameter => {
                let what = format!("`{}` is in a residency, and no parameter on the device", buffer.name);
                findings.add(Rule::Structure, what);
            }
            Life::Resident(_) => {}
        }
    }
}

fn check_buffer(buffer: &Buffer, room: [u64; 2], findings: &mut Findings) {
    let (room, of) = if buffer.on_host() { (room[1], "the host's arena") } else { (room[0], "the arena") };
    if buffer.offset.checked_add(buffer.bytes).is_none_or(|end| end > room) {
        let range = format!("{}..{}", buffer.offset, buffer.end());
        findings.add(Rule::Structure, format!("`{}` at bytes {range} is outside {of} of {room}", buffer.name));
    }
    if let Some(ty) = &buffer.ty
        && let Some(dim) = ty.dims.iter().find(|d| d.size == 0)
    {
        findings.add(Rule::Structure, format!("`{}` is {ty}: {} has no elements", buffer.name, dim.name));
    }
    if let Some(ty) = &buffer.ty
        && bytes(ty).is_none_or(|b| b > buffer.bytes)
    {
        findings.add(Rule::Structure, format!("`{}` has {} bytes, too few for {ty}", buffer.name, buffer.bytes));
    }
}

fn check_body(scope: Scope<'_>, findings: &mut Findings) {
    let Scope { plan, class, body, .. } = scope;
    if body.arena_bytes.max(body.host_bytes) > MOST_BYTES
        || body.lanes.len() > MOST_LANES
        || body.events as usize > body.instructions.len()
    {
        findings.add(Rule::Structure, "more memory, lanes or events than can be");
        return;
    }
    let kept = |host: bool| class.persistent.iter().filter(move |b| b.on_host() == host).map(Buffer::end);
    let first_free = [false, true].map(|host| kept(host).max().unwrap_or(0));
    if first_free[0] > body.arena_bytes || first_free[1] > body.host_bytes {
        findings.add(Rule::Structure, "the arena has no room for the persistent buffers");
    }
    for buffer in &body.buffers {
        check_buffer(buffer, [body.arena_bytes, body.host_bytes], findings);
        match buffer.life {
            Life::Persistent | Life::Resident(_) => {
                findings
                    .add(Rule::Structure, format!("`{}` is persistent and does not belong to a program", buffer.name));
            }
            Life::Span { first, last } if first > last || last as usize >= body.instructions.len() => {
                findings.add(
                    Rule::Structure,
                    format!("`{}` lives from #{first} to #{last}, which is no span", buffer.name),
                );
            }
            Life::Span { .. } => {}
        }
        if buffer.offset < first_free[usize::from(buffer.on_host())] && buffer.bytes > 0 {
            findings.add(Rule::Structure, format!("`{}` lies among the persistent buffers", buffer.name));
        }
    }
    let mut until = 0;
    for unit in &body.units {
        if unit.first < until || unit.end < unit.first || unit.end as usize > body.instructions.len() {
            let (name, range) = (format!("{}{}", unit.kind.letter(), unit.microbatch), unit.first..unit.end);
            findings.add(Rule::Structure, format!("{name} of stage {} is not where it can be: {range:?}", unit.stage));
        }
        until = until.max(unit.end);
    }
    for kept in body.kept.iter().filter(|kept| kept.place.index() >= plan.places.len()) {
        let message = format!("values of `{}` come from {}, which does not exist", kept.what, kept.place);
        findings.add(Rule::Structure, message);
    }
    for (index, instruction) in body.instructions.iter().enumerate() {
        if findings.full() {
            return;
        }
        if let Some(what) = fault(scope, instruction) {
            let who = match instruction.op {
                Op::Collect(_) => scope.describe(index),
                _ => format!("#{index}"),
            };
            findings.add(Rule::Structure, format!("{who} {what}"));
        }
    }
}

fn fault(scope: Scope<'_>, instruction: &Instruction) -> Option<String> {
    let Scope { plan, program, body, .. } = scope;
    if instruction.lane.index() >= body.lanes.len() {
        return Some(format!("runs on {}, which does not exist", instruction.lane));
    }
    if instruction.place.index() >= plan.places.len() {
        return Some(format!("comes from {}, which does not exist", instruction.place));
    }
    let outside = |slice: &Slice| {
        let buffer = scope.buffer(slice.buffer);
        let inside = buffer.is_some_and(|b| slice.offset.checked_add(slice.bytes).is_some_and(|end| end <= b.bytes));
        (!inside)
            .then(|| format!("touches {}[{}, {} bytes], which is not there", slice.buffer, slice.offset, slice.bytes))
    };
    // The host's memory is there to be copied to and from, and a parameter of another residency sleeps there.
    let outside = |slice: &Slice| {
        let buffer = scope.buffer(slice.buffer);
        let host = buffer.filter(|b| b.on_host() && !matches!(instruction.op, Op::Copy { .. }));
        let asleep = buffer.filter(|b| !b.is_there(program.residency));
        outside(slice).or_else(|| host.map(|b| format!("touches `{}`, which is in the host's memory", b.name))).or_else(
            || asleep.map(|b| format!("touches `{}`, which is of a residency that the program does not need", b.name)),
        )
    };
    // A slice that takes a value of the manifest has exactly this rank's share of it.
    let share = |name: &Name, ty: &TensorType, layout: &Layout, slice: &Slice| {
        let want = capacity(&plan.header.mesh, ty, layout);
        (want != Some(slice.bytes)).then(|| format!("gives {} bytes to `{name}`, whose type is {ty}", slice.bytes))
    };
    match &instruction.op {
        Op::Launch(launch) => {
            let Some(kernel) = plan.kernels.get(launch.kernel.index()) else {
                return Some(format!("launches {}, which does not exist", launch.kernel));
            };
            if kernel.args.len() != launch.args.len() || kernel.scalars as usize != launch.scalars.len() {
                let (a, s) = (launch.args.len(), launch.scalars.len());
                return Some(format!(
                    "launches `{}` with {a} arguments and {s} scalars; it takes {} and {}",
                    kernel.symbol,
                    kernel.args.len(),
                    kernel.scalars
                ));
            }
            launch.args.iter().find_map(outside)
        }
        Op::Collect(collect) => {
            if body.lanes.get(instruction.lane.index()).is_some_and(|l| !matches!(l, LaneKind::Comm(_))) {
                return Some("is a collective, and its lane is no communicator's".into());
            }
            if let Some(what) = collectives::fault(&plan.header.mesh, collect) {
                return Some(what);
            }
            collect.from.iter().chain(&collect.to).find_map(outside)
        }
        Op::Copy { from, to } => {
            let sizes = || format!("copies {} bytes to {}", from.bytes, to.bytes);
            outside(from).or_else(|| outside(to)).or_else(|| (from.bytes != to.bytes).then(sizes))
        }
        Op::Record { event } | Op::Wait { event } => {
            (event.0 >= body.events).then(|| format!("names {event}, which does not exist"))
        }
        Op::Feed { feed, to } => match program.feeds.get(feed.index()) {
            Some(f) => outside(to).or_else(|| share(&f.name, &f.ty, &f.layout, to)),
            None => Some(format!("takes {feed}, which does not exist")),
        },
        Op::Emit { emit, from } => match program.emits.get(emit.index()) {
            Some(e) => outside(from).or_else(|| share(&e.name, &e.ty, &e.layout, from)),
            None => Some(format!("gives {emit}, which does not exist")),
        },
    }
}
