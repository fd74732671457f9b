//! The manifest: segments, groups, buffers and the order in which everything runs, as JSON.

use plan::operators::Report;
use plan::{Affine, Archive, BlobKind, CollectKind, Instruction, LaneKind, Op, Plan, ReduceKind, Scope, Slice};
use prost::Message;
use serde_json::{Value, json};
use types::{Name, Runs, TensorType};

use super::{ExportError, air, atc};
use crate::dtype::DataType;
use crate::proto::{ModelDef, TensorDescriptor};
use crate::report;
use crate::soc::Soc;
use crate::table;

pub fn manifest(plan: &Plan, hash: &str, soc: &Soc, archive: &Archive) -> Result<Value, ExportError> {
    let report = archive.blobs.iter().find(|b| b.kind == BlobKind::Report);
    let report = report.and_then(|b| report::from_bytes(&b.bytes).ok()).unwrap_or_default();
    let segments: Vec<Value> =
        (0..plan.kernels.len()).map(|k| segment(plan, k, soc, archive, &report)).collect::<Result<_, _>>()?;
    let mesh: Vec<Value> = plan.header.mesh.axes.iter().map(|a| json!({ "axis": a.name, "size": a.size })).collect();
    let programs: Vec<Value> = plan.scopes().map(program).collect();
    Ok(json!({
        "plan": hash,
        "model": plan.header.model,
        "preset": plan.header.preset,
        "task": plan.header.task,
        "dtype": plan.header.dtype.name(),
        "soc_version": soc.version,
        "world": plan.header.world(),
        "mesh": mesh,
        "segments": segments,
        "groups": groups(plan),
        "programs": programs,
    }))
}

fn segment(plan: &Plan, index: usize, soc: &Soc, archive: &Archive, report: &Report) -> Result<Value, ExportError> {
    let kernel = &plan.kernels[index];
    let symbol = kernel.symbol.as_str();
    let bytes = archive.blob(BlobKind::Air, symbol).map_or(&[][..], |b| &b.bytes);
    let model = ModelDef::decode(bytes).map_err(|reason| ExportError::Graph { segment: symbol.to_owned(), reason })?;
    let nodes = model.graph.first().map_or(&[][..], |g| &g.op);
    let of = |kind: table::Op| nodes.iter().filter(move |op| op.r#type == kind.name());
    let inputs: Vec<Value> = of(table::Op::Data).flat_map(|op| &op.output_desc).map(tensor).collect();
    let outputs: Vec<Value> = of(table::Op::NetOutput).flat_map(|op| &op.input_desc).map(tensor).collect();
    let launches = plan.programs.iter().flat_map(|p| &p.bodies).flat_map(|b| &b.instructions);
    let launches = launches.filter(|i| matches!(&i.op, Op::Launch(l) if l.kernel.index() == index)).count();
    Ok(json!({
        "name": symbol,
        "file": air(symbol),
        "om": format!("om/{symbol}.om"),
        "atc": atc(soc, symbol),
        "bytes": bytes.len(),
        "nodes": nodes.len(),
        "inputs": inputs,
        "outputs": outputs,
        "in_place": kernel.in_place,
        "workspace_estimate": kernel.workspace,
        "flops": kernel.flops,
        "launches": launches,
        "operators": report.kernels.get(symbol),
    }))
}

fn tensor(desc: &TensorDescriptor) -> Value {
    let dtype = DataType::try_from(desc.dtype).map_or("DT_UNDEFINED", DataType::text);
    json!({ "dtype": dtype, "shape": desc.shape.as_ref().map(|s| &s.dim) })
}

/// Each group of mesh axes that a collective spans, with the ranks of each of its communicators in order of position.
fn groups(plan: &Plan) -> Vec<Value> {
    let mut all: Vec<&[Name]> = vec![];
    for instruction in plan.programs.iter().flat_map(|p| &p.bodies).flat_map(|b| &b.instructions) {
        if let Op::Collect(collect) = &instruction.op
            && !all.contains(&collect.group.as_slice())
        {
            all.push(&collect.group);
        }
    }
    all.into_iter().map(|axes| json!({ "axes": axes, "communicators": communicators(plan, axes) })).collect()
}

fn communicators(plan: &Plan, axes: &[Name]) -> Vec<Vec<usize>> {
    let mesh = &plan.header.mesh;
    let at = |name: &Name, coordinates: &[usize]| mesh.position(name).map_or(0, |p| coordinates[p]);
    let mut by_rest: std::collections::BTreeMap<Vec<usize>, Vec<(Vec<usize>, usize)>> = Default::default();
    for rank in 0..mesh.world() {
        let coordinates = mesh.coordinates(rank);
        let rest = mesh.axes.iter().filter(|a| !axes.contains(&a.name)).map(|a| at(&a.name, &coordinates)).collect();
        let position = axes.iter().map(|a| at(a, &coordinates)).collect();
        by_rest.entry(rest).or_default().push((position, rank));
    }
    by_rest
        .into_values()
        .map(|mut ranks| {
            ranks.sort();
            ranks.into_iter().map(|(_, rank)| rank).collect()
        })
        .collect()
}

fn program(scope: Scope<'_>) -> Value {
    let Scope { plan, program, class, body } = scope;
    let mesh = &plan.header.mesh;
    let ranks: Vec<usize> = (0..mesh.world()).filter(|&r| class.ranks.contain(mesh, &mesh.coordinates(r))).collect();
    let buffers: Vec<Value> = body
        .all_buffers(class)
        .map(|(_, b)| {
            json!({
                "name": b.name,
                "kind": b.kind.name(),
                "offset": b.offset,
                "bytes": b.bytes,
                "type": b.ty.as_deref().map(TensorType::to_string),
                "persistent": b.is_persistent(),
            })
        })
        .collect();
    let lanes: Vec<String> = body.lanes.iter().map(LaneKind::to_string).collect();
    json!({
        "program": program.name,
        "times": if let Runs::Times(times) = program.runs { times } else { 0 },
        "class": class.name,
        "ranks": ranks,
        "arena_bytes": body.arena_bytes,
        "lanes": lanes,
        "events": body.events,
        "buffers": buffers,
        "order": body.instructions.iter().map(|i| instruction(scope, i)).collect::<Vec<_>>(),
    })
}

/// A position in a group: a number, or how it follows from a rank's coordinates.
fn position(at: &Affine) -> Value {
    if at.terms.is_empty() { json!(at.base) } else { json!(at) }
}

/// Lanes, events and buffers by number; a slice is [buffer, offset, bytes]. A collective stands `with` the position in its
/// group that sends or takes, or with how far each tensor goes around.
fn instruction(scope: Scope<'_>, i: &Instruction) -> Value {
    let Scope { plan, program, .. } = scope;
    let lane = i.lane.index();
    let place = plan.places.get(i.place.index()).map(ToString::to_string);
    let slice = |s: &Slice| json!([s.buffer.index(), s.offset, s.bytes]);
    let slices = |all: &[Slice]| all.iter().map(slice).collect::<Vec<_>>();
    match &i.op {
        Op::Launch(launch) => {
            let symbol = plan.kernels.get(launch.kernel.index()).map(|k| &k.symbol);
            json!({ "lane": lane, "launch": symbol, "args": slices(&launch.args), "place": place })
        }
        Op::Collect(c) => {
            let reduce = match &c.kind {
                CollectKind::AllReduce(r) | CollectKind::ReduceScatter(r) => {
                    let kind = if r.kind == ReduceKind::Max { "max" } else { "sum" };
                    json!({ "kind": kind, "dtype": r.dtype.name() })
                }
                _ => Value::Null,
            };
            let with = match &c.kind {
                CollectKind::Broadcast { root: at }
                | CollectKind::Send { peer: at }
                | CollectKind::Receive { peer: at } => position(at),
                CollectKind::Permute { shifts } => json!(shifts),
                _ => Value::Null,
            };
            json!({
                "lane": lane,
                "collect": c.kind.name(),
                "id": c.id,
                "group": c.group,
                "with": with,
                "reduce": reduce,
                "from": slices(&c.from),
                "to": slices(&c.to),
                "why": c.why,
                "place": place,
            })
        }
        Op::Copy { from, to } => json!({ "lane": lane, "copy": [slice(from), slice(to)], "place": place }),
        Op::Record { event } => json!({ "lane": lane, "record": event.index() }),
        Op::Wait { event } => json!({ "lane": lane, "wait": event.index() }),
        Op::Feed { feed, to } => {
            json!({ "lane": lane, "feed": program.feeds.get(feed.index()).map(|f| &f.name), "to": slice(to) })
        }
        Op::Emit { emit, from } => {
            json!({ "lane": lane, "emit": program.emits.get(emit.index()).map(|e| &e.name), "from": slice(from) })
        }
    }
}
