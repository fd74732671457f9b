//! Mutations: plans with one fault each, made from any plan, which a verifier must refuse wherever the fault matters.

use types::{Name, philox4x32_10};

use crate::{
    Affine, Body, Class, ClassId, Collect, CollectKind, Instruction, LaneKind, Life, Op, Plan, Ranks, Reduce,
    ReduceKind,
};

/// The plan with each class cut into one for each coordinate on `axis`, all with the same bodies: it does the same.
pub fn split(plan: &Plan, axis: &Name) -> Plan {
    let mut out = plan.clone();
    let size = plan.header.mesh.size(axis);
    let parts = |class: &Class| if class.ranks.at.iter().any(|(a, _)| a == axis) { 1 } else { size };
    let copies: Vec<usize> =
        plan.classes.iter().enumerate().flat_map(|(c, class)| std::iter::repeat_n(c, parts(class))).collect();
    let again = |buffers: &[Option<crate::BufferId>]| copies.iter().map(|&c| buffers[c]).collect::<Vec<_>>();
    out.classes = plan
        .classes
        .iter()
        .flat_map(|class| {
            (0..parts(class)).map(move |at| {
                let Class { name, ranks, persistent } = class.clone();
                if ranks.at.iter().any(|(a, _)| a == axis) {
                    return Class { name, ranks, persistent };
                }
                let ranks = Ranks { at: ranks.at.into_iter().chain([(axis.clone(), at)]).collect() };
                Class { name: format!("{name} {axis}={at}").into(), ranks, persistent }
            })
        })
        .collect();
    for program in &mut out.programs {
        program.bodies = copies.iter().map(|&c| program.bodies[c].clone()).collect();
    }
    out.manifest.parameters.iter_mut().for_each(|p| p.buffers = again(&p.buffers));
    out.manifest.states.iter_mut().for_each(|s| s.buffers = again(&s.buffers));
    out
}

/// One plan for each kind of fault that this one has room for, with the fault's name; the seed chooses the places. A plan
/// of one class is cut in two or more first, so that ranks can come to differ.
pub fn mutations(plan: &Plan, seed: u32) -> Vec<(String, Plan)> {
    let axis = plan.header.mesh.axes.iter().find(|a| a.size > 1);
    let base = match axis {
        Some(axis) if plan.classes.len() == 1 => split(plan, &axis.name),
        _ => plan.clone(),
    };
    type Mutation = fn(&mut Plan, &mut Dice) -> Option<String>;
    let kinds: [(&str, Mutation); 13] = [
        ("collectives swapped", swap),
        ("collective dropped", drop_collective),
        ("collective twice", repeat),
        ("collective elsewhere", lane),
        ("group changed", group),
        ("id reused", id),
        ("reduction changed", reduction),
        ("size changed", size),
        ("sizes changed on one side", sizes),
        ("send without receive", send),
        ("wait removed", |plan, dice| remove(plan, dice, |op| matches!(op, Op::Wait { .. }))),
        ("record removed", |plan, dice| remove(plan, dice, |op| matches!(op, Op::Record { .. }))),
        ("buffer moved", buffer),
    ];
    let mut out = vec![];
    for (i, (name, mutate)) in kinds.into_iter().enumerate() {
        let mut dice = Dice { seed, stream: i as u32, count: 0 };
        let mut plan = base.clone();
        if let Some(what) = mutate(&mut plan, &mut dice) {
            out.push((format!("{name}: {what}"), plan));
        }
    }
    out
}

/// Random numbers of one mutation.
struct Dice {
    seed: u32,
    stream: u32,
    count: u32,
}

impl Dice {
    fn choose<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        self.count += 1;
        let number = philox4x32_10([self.count, self.stream, 0, 0], [self.seed, 0])[0] as usize;
        (!from.is_empty()).then(|| from[number % from.len()].clone())
    }
}

/// Program, class and instruction.
type Site = (usize, usize, usize);

fn sites(plan: &Plan, keep: impl Fn(&Body, usize) -> bool) -> Vec<Site> {
    let mut out = vec![];
    for (p, program) in plan.programs.iter().enumerate() {
        for (c, body) in program.bodies.iter().enumerate() {
            out.extend((0..body.instructions.len()).filter(|i| keep(body, *i)).map(|i| (p, c, i)));
        }
    }
    out
}

fn body(plan: &mut Plan, (program, class, _): Site) -> &mut Body {
    &mut plan.programs[program].bodies[class]
}

fn named(plan: &Plan, (program, class, index): Site) -> String {
    let Some(scope) = plan.scope(program, ClassId::new(class)) else { return String::new() };
    format!("{}, {}: {}", scope.program.name, scope.class.name, scope.describe(index))
}

fn collect(body: &Body, index: usize) -> Option<&Collect> {
    match &body.instructions[index].op {
        Op::Collect(collect) => Some(collect),
        _ => None,
    }
}

/// Some collective that `fits`, for a change; and its name as it was.
fn chosen(plan: &mut Plan, dice: &mut Dice, fits: impl Fn(&Body, &Collect) -> bool) -> Option<(Site, String)> {
    let site = dice.choose(&sites(plan, |body, i| collect(body, i).is_some_and(|c| fits(body, c))))?;
    Some((site, named(plan, site)))
}

fn change(plan: &mut Plan, site: Site, with: impl FnOnce(&mut Collect)) {
    if let Op::Collect(collect) = &mut body(plan, site).instructions[site.2].op {
        with(collect);
    }
}

/// Takes an instruction out, and moves lives along.
fn take(body: &mut Body, at: usize) {
    body.instructions.remove(at);
    let at = at as u32;
    for buffer in &mut body.buffers {
        if let Life::Span { first, last } = &mut buffer.life {
            *first -= u32::from(*first > at);
            *last = (*last - u32::from(*last >= at && *last > 0)).max(*first);
        }
    }
}

fn insert(body: &mut Body, at: usize, instruction: Instruction) {
    body.instructions.insert(at, instruction);
    for buffer in &mut body.buffers {
        if let Life::Span { first, last } = &mut buffer.life {
            *first += u32::from(*first as usize >= at);
            *last += u32::from(*last as usize >= at);
        }
    }
}

fn remove(plan: &mut Plan, dice: &mut Dice, which: fn(&Op) -> bool) -> Option<String> {
    let site = dice.choose(&sites(plan, |body, i| which(&body.instructions[i].op)))?;
    let what = named(plan, site);
    take(body(plan, site), site.2);
    Some(what)
}

fn drop_collective(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    remove(plan, dice, |op| matches!(op, Op::Collect(_)))
}

fn repeat(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let (site, what) = chosen(plan, dice, |_, _| true)?;
    let again = body(plan, site).instructions[site.2].clone();
    insert(body(plan, site), site.2 + 1, again);
    Some(what)
}

/// With the next one on its lane.
fn swap(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let next = |body: &Body, i: usize| {
        let lane = body.instructions[i].lane;
        (i + 1..body.instructions.len()).find(|&j| body.instructions[j].lane == lane && collect(body, j).is_some())
    };
    let site = dice.choose(&sites(plan, |body, i| collect(body, i).is_some() && next(body, i).is_some()))?;
    let what = named(plan, site);
    let body = body(plan, site);
    let other = next(body, site.2)?;
    body.instructions.swap(site.2, other);
    Some(what)
}

fn lane(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let comm =
        |body: &Body| (0..body.lanes.len()).filter(|l| matches!(body.lanes[*l], LaneKind::Comm(_))).collect::<Vec<_>>();
    let (site, what) = chosen(plan, dice, |body, _| comm(body).len() > 1)?;
    let body = body(plan, site);
    let mine = body.instructions[site.2].lane;
    let others: Vec<usize> = comm(body).into_iter().filter(|l| *l != mine.index()).collect();
    body.instructions[site.2].lane = crate::LaneId::new(dice.choose(&others)?);
    Some(what)
}

/// Over an axis less, or one more.
fn group(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let (site, what) = chosen(plan, dice, |_, _| true)?;
    let axes: Vec<Name> = plan.header.mesh.axes.iter().filter(|a| a.size > 1).map(|a| a.name.clone()).collect();
    let axis = dice.choose(&axes)?;
    change(plan, site, |c| match c.group.iter().position(|a| *a == axis) {
        Some(at) => drop(c.group.remove(at)),
        None => c.group.push(axis),
    });
    Some(what)
}

fn id(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let (site, what) = chosen(plan, dice, |_, _| true)?;
    let mine = collect(body(plan, site), site.2)?.id;
    let ids: Vec<u32> = plan
        .programs
        .iter()
        .flat_map(|p| p.bodies.iter().flat_map(|b| (0..b.instructions.len()).filter_map(|i| Some(collect(b, i)?.id))))
        .filter(|other| *other != mine)
        .collect();
    let other = dice.choose(&ids)?;
    change(plan, site, |c| c.id = other);
    Some(what)
}

fn reduction(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let reduces = |c: &Collect| matches!(c.kind, CollectKind::AllReduce(_) | CollectKind::ReduceScatter(_));
    let (site, what) = chosen(plan, dice, |_, c| reduces(c))?;
    change(plan, site, |c| {
        if let CollectKind::AllReduce(Reduce { kind, .. }) | CollectKind::ReduceScatter(Reduce { kind, .. }) =
            &mut c.kind
        {
            *kind = if *kind == ReduceKind::Sum { ReduceKind::Max } else { ReduceKind::Sum };
        }
    });
    Some(what)
}

fn size(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let (site, what) = chosen(plan, dice, |_, c| c.from.first().is_some_and(|s| s.bytes > 0))?;
    change(plan, site, |c| c.from[0].bytes -= 1);
    Some(what)
}

/// The collective is right by itself, and smaller than on the other ranks.
fn sizes(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let halves = |c: &Collect| c.from.iter().chain(&c.to).all(|s| s.bytes % 16 == 0 && s.bytes > 0);
    let (site, what) = chosen(plan, dice, |_, c| halves(c))?;
    change(plan, site, |c| c.from.iter_mut().chain(&mut c.to).for_each(|s| s.bytes /= 2));
    Some(what)
}

fn send(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let mesh = plan.header.mesh.clone();
    let (site, what) = chosen(plan, dice, |_, c| mesh.group(&c.group) > 1 && !c.from.is_empty())?;
    let most = sites(plan, |body, i| collect(body, i).is_some()).into_iter();
    let id = 1 + most.filter_map(|s| Some(collect(&plan.programs[s.0].bodies[s.1], s.2)?.id)).max()?;
    let body = body(plan, site);
    let mut message = body.instructions[site.2].clone();
    if let Op::Collect(collect) = &mut message.op {
        collect.id = id;
        collect.kind = CollectKind::Send { peer: Affine::constant(1) };
        collect.to.clear();
    }
    insert(body, site.2 + 1, message);
    Some(what)
}

/// Onto another that lives at the same time.
fn buffer(plan: &mut Plan, dice: &mut Dice) -> Option<String> {
    let mut pairs = vec![];
    for (p, program) in plan.programs.iter().enumerate() {
        for (c, body) in program.bodies.iter().enumerate() {
            let spans = body.buffers.iter().map(|b| match b.life {
                Life::Span { first, last } => (first, last, b.bytes),
                Life::Persistent | Life::Resident(_) => (0, u32::MAX, b.bytes),
            });
            let spans: Vec<_> = spans.collect();
            // Each with the next few that it shares time with: enough to choose from.
            for (i, a) in spans.iter().enumerate() {
                let later = spans.iter().enumerate().skip(i + 1).take(16);
                let meets = |b: &(u32, u32, u64)| a.0 <= b.1 && b.0 <= a.1 && a.2 > 0 && b.2 > 0;
                pairs.extend(later.filter(|(_, b)| meets(b)).map(|(j, _)| (p, c, i, j)));
            }
        }
    }
    let (p, c, i, j) = dice.choose(&pairs)?;
    let body = &mut plan.programs[p].bodies[c];
    let what = format!("`{}` onto `{}`", body.buffers[i].name, body.buffers[j].name);
    body.buffers[i].offset = body.buffers[j].offset;
    body.arena_bytes = body.arena_bytes.max(body.buffers[i].end());
    Some(format!("{}, {}: {what}", plan.programs[p].name, plan.classes[c].name))
}
