//! The plan of a module whose programs have their lanes, live ranges and offsets.

use plan::{
    Body, Buffer, BufferId, Class, Header, Instruction, Kernel, LaneKind, Life, Manifest, Op, PlaceId, Places, Plan,
    Ranks,
};
use types::Name;

use crate::{Lane, Program, RankModule, RankProgram};

/// Everything of a plan but its code: `object` is left empty.
///
/// Ranks drop the persistent buffers that they do not hold. The persistent buffers lie first in each arena, the buffers of
/// programs behind them. Collectives and places that are a rank's own get numbers of the whole plan.
pub fn plan(module: RankModule, header: Header) -> Plan {
    let mut numbers = Numbers::default();
    let count = module.programs.iter().map(|p| p.ranks.len()).max().unwrap_or(0);
    let mut classes: Vec<Class> = (0..count).map(|rank| class(&module, rank)).collect();
    let held: Vec<Vec<bool>> = (0..count).map(|rank| held(&module, rank)).collect();
    let kernels = module.kernels.to_vec();
    let ranks = if module.is_pipeline { count.max(1) } else { 1 };
    let each = (header.world() / ranks) as u128;
    let mut manifest = module.manifest;
    let mut programs: Vec<plan::Program> =
        module.programs.into_iter().map(|program| numbers.program(program, &kernels, each)).collect();
    drop_missing(&mut classes, &mut programs, &mut manifest, &held);
    let places = numbers.places.into_list();
    let residencies = module.residencies;
    let mut plan = Plan { header, kernels, classes, residencies, programs, manifest, places, object: vec![] };
    place_persistent(&mut plan, module.alignment);
    plan
}

/// The ranks at one place of the pipeline, with all persistent buffers.
fn class(module: &RankModule, rank: usize) -> Class {
    let mut bodies = module.programs.iter().filter_map(|p| p.ranks.get(rank));
    let mut persistent: Vec<Buffer> = bodies.next().map_or_else(Vec::new, |r| r.buffers[..r.persistent].to_vec());
    for other in bodies {
        for (buffer, same) in persistent.iter_mut().zip(&other.buffers) {
            buffer.space = buffer.space.max(same.space);
        }
    }
    match module.is_pipeline {
        false => Class { name: "all".into(), ranks: Ranks::all(), persistent },
        true => Class { name: format!("pp {rank}").into(), ranks: Ranks { at: vec![("pp".into(), rank)] }, persistent },
    }
}

/// By persistent buffer: whether the rank holds it for any program.
fn held(module: &RankModule, rank: usize) -> Vec<bool> {
    let mut held: Vec<bool> = vec![];
    for body in module.programs.iter().filter_map(|p| p.ranks.get(rank)) {
        held.resize(body.held.len(), false);
        held.iter_mut().zip(&body.held).for_each(|(known, held)| *known |= held);
    }
    held
}

/// What is numbered over all programs and ranks.
#[derive(Default)]
struct Numbers {
    places: Places,
    collectives: u32,
    communicators: Vec<(Vec<Name>, Option<[i64; 2]>)>,
}

impl Numbers {
    /// `each` is how many ranks run what a rank of the module does.
    fn program(&mut self, program: Program, kernels: &[Kernel], each: u128) -> plan::Program {
        let launched = program.ranks.iter().flat_map(|r| &r.instructions).filter_map(|i| match &i.op {
            Op::Launch(l) => kernels.get(l.kernel.index()).map(|k| u128::from(k.flops)),
            _ => None,
        });
        let flops = launched.sum::<u128>().saturating_mul(each);
        let (first, shared) = (self.collectives, program.collectives);
        self.collectives += shared;
        let all = program.ranks.first().map_or(&[][..], |r| &r.places.sites()[..program.places]);
        let places: Vec<PlaceId> = all.iter().map(|site| self.places.add(site.place())).collect();
        let body = |rank: RankProgram| {
            let mut places = places.clone();
            places.extend(rank.places.sites()[program.places..].iter().map(|site| self.places.add(site.place())));
            let place = |id: PlaceId| places.get(id.index()).copied().unwrap_or(PlaceId::new(0));
            let own = self.collectives;
            self.collectives += rank.collectives.saturating_sub(shared);
            let lanes = rank.lanes.iter().map(|lane| self.lane(lane)).collect();
            let instructions = rank.instructions.into_iter().map(|instruction| {
                let mut op = instruction.op;
                if let Op::Collect(collect) = &mut op {
                    collect.id = if collect.id < shared { collect.id + first } else { collect.id - shared + own };
                }
                let (lane, origin) = (instruction.lane, instruction.origin.in_plan());
                Instruction { lane, place: place(instruction.origin.place), origin, op }
            });
            let mut kept = rank.kept;
            kept.iter_mut().for_each(|kept| kept.place = place(kept.place));
            let mut buffers = rank.buffers;
            Body {
                buffers: buffers.split_off(rank.persistent),
                lanes,
                instructions: instructions.collect(),
                events: rank.events,
                arena_bytes: rank.arena_bytes,
                host_bytes: rank.host_bytes,
                units: rank.units,
                kept,
            }
        };
        let bodies = program.ranks.into_iter().map(body).collect();
        let Program { name, runs, residency, feeds, emits, .. } = program;
        plan::Program { name, runs, residency, tokens: 0, flops, feeds, emits, bodies }
    }

    /// Communicators are numbered in the order in which they occur. Both ends of a way have it under one number.
    fn lane(&mut self, lane: &Lane) -> LaneKind {
        match lane {
            Lane::Compute => LaneKind::Compute,
            Lane::Copy => LaneKind::Copy,
            Lane::Comm { group, way } => {
                let known = self.communicators.iter().position(|(g, w)| g == group && w == way);
                LaneKind::Comm(known.unwrap_or_else(|| {
                    self.communicators.push((group.clone(), *way));
                    self.communicators.len() - 1
                }) as u32)
            }
        }
    }
}

/// Takes from each class the persistent buffers that it does not hold.
fn drop_missing(classes: &mut [Class], programs: &mut [plan::Program], manifest: &mut Manifest, held: &[Vec<bool>]) {
    let mut ids = vec![];
    for (c, (class, held)) in classes.iter_mut().zip(held).enumerate() {
        let before = class.persistent.len();
        let mut here: Vec<Option<BufferId>> = vec![];
        let mut count = 0;
        for &held in held {
            here.push(held.then(|| BufferId::new(count)));
            count += usize::from(held);
        }
        let mut held = held.iter();
        class.persistent.retain(|_| held.next().copied().unwrap_or(false));
        let bodies = programs.iter_mut().filter_map(|p| p.bodies.get_mut(c));
        for slice in bodies.flat_map(|b| &mut b.instructions).flat_map(|i| i.op.slices_mut()) {
            let id = slice.buffer.index();
            slice.buffer = here.get(id).copied().flatten().unwrap_or_else(|| BufferId::new(id + count - before));
        }
        ids.push(here);
    }
    let of = |buffers: &mut Vec<Option<BufferId>>| {
        let whole = buffers.first().copied().flatten();
        *buffers = ids.iter().map(|here| whole.and_then(|id| here.get(id.index()).copied().flatten())).collect();
    };
    manifest.parameters.iter_mut().for_each(|p| of(&mut p.buffers));
    manifest.states.iter_mut().for_each(|s| of(&mut s.buffers));
}

/// Offsets of persistent buffers: first those that always lie in the arena, then the region that residencies share. Those
/// of programs, which begin at 0, go above them.
pub fn place_persistent(plan: &mut Plan, alignment: u64) {
    for (c, class) in plan.classes.iter_mut().enumerate() {
        let mut ends = [0; 2];
        for buffer in class.persistent.iter_mut().filter(|b| b.life == Life::Persistent) {
            let end = &mut ends[usize::from(buffer.on_host())];
            buffer.offset = *end;
            *end = (*end + buffer.bytes).next_multiple_of(alignment);
        }
        let mut region = vec![ends[0]; plan.residencies.len()];
        for buffer in &mut class.persistent {
            let Life::Resident(residency) = buffer.life else { continue };
            let Some(end) = region.get_mut(residency.index()) else { continue };
            buffer.offset = *end;
            *end = (*end + buffer.bytes).next_multiple_of(alignment);
        }
        ends[0] = region.into_iter().fold(ends[0], u64::max);
        for body in plan.programs.iter_mut().filter_map(|program| program.bodies.get_mut(c)) {
            body.buffers.iter_mut().for_each(|b| b.offset += ends[usize::from(b.on_host())]);
            body.arena_bytes += ends[0];
            body.host_bytes += ends[1];
        }
    }
}
