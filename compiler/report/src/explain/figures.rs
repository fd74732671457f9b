//! The figures of one program on one class of ranks, each a sum over its buffers and instructions, and their JSON form.

use cost::{Machine, Prediction};
use diag::Diagnostics;
use plan::{Archive, BlobKind, Body, LaneKind, Memory, Op, Plan, Scope, Traffic};
use serde_json::{Map, Value, json};

use super::memory::{self, Peak};
use super::reshards::{Reshard, reshards};
use crate::describe;

pub struct Figures {
    pub program: String,
    pub class: String,
    pub ranks: Vec<usize>,
    pub instructions: usize,
    pub launches: usize,
    pub memory: Memory,
    pub peak: Peak,
    /// Only `mmc pack` will know the real size of the workspace.
    pub estimated: bool,
    pub flops: u128,
    pub traffic: Vec<Traffic>,
    pub reshards: Vec<Reshard>,
    /// What became of values that wait for the backward; null where nothing was to be chosen.
    pub kept: Value,
    /// What an Ascend plan's operators became; null for other targets.
    pub operators: Value,
    /// None where no machine is known.
    pub prediction: Option<Prediction>,
}

impl Figures {
    /// What memory is for, and how many bytes.
    pub fn memory_rows(&self) -> [(&'static str, u64); 7] {
        let m = &self.memory;
        let workspace = if self.estimated {
            "workspace at its peak, an estimate until `mmc pack`"
        } else {
            "workspace at its peak"
        };
        [
            ("parameters", m.params_bytes),
            ("optimiser", m.optimizer_bytes),
            ("gradients when the optimiser starts", m.gradients_bytes),
            ("activations at their peak", m.activations_peak_bytes),
            (workspace, m.workspace_bytes),
            ("communication buffers at their peak", m.comm_bytes),
            ("the whole arena", m.arena_bytes),
        ]
    }
}

/// One entry for each program and each class of ranks that runs it.
pub fn figures(plan: &Plan, machine: Option<&Machine>) -> Result<Vec<Figures>, Diagnostics> {
    let mut out = vec![];
    let blobs = Archive::from_bytes(&plan.object).unwrap_or_default().blobs;
    let estimated = blobs.iter().any(|b| b.kind == BlobKind::Air);
    for program in &plan.programs {
        let mut predictions = match machine {
            Some(machine) => crate::predicted(machine, plan, program)?.into_iter().map(Some).collect(),
            None => vec![],
        };
        predictions.resize_with(plan.classes.len(), || None);
        for (scope, prediction) in plan.scopes_of(program).zip(predictions) {
            let mut figures = of(scope);
            let communicators = scope.body.lanes.iter().filter(|lane| matches!(lane, LaneKind::Comm(_))).count();
            let each = machine.map_or(0, Machine::communicator_bytes);
            figures.memory.comm_bytes += each * communicators as u64;
            figures.prediction = prediction;
            figures.estimated = estimated;
            out.push(figures);
        }
    }
    Ok(out)
}

fn of(scope: Scope<'_>) -> Figures {
    let Scope { plan, program, class, body } = scope;
    Figures {
        program: program.name.to_string(),
        class: class.name.to_string(),
        ranks: describe::ranks(plan, class),
        instructions: body.instructions.len(),
        launches: body.instructions.iter().filter(|i| matches!(i.op, Op::Launch(_))).count(),
        memory: plan::memory(scope),
        peak: memory::peak(scope),
        estimated: false,
        flops: plan::flops(plan, body),
        traffic: plan::traffic(plan, body),
        reshards: reshards(plan, body),
        kept: if body.kept.is_empty() { Value::Null } else { super::kept::json(plan, body) },
        operators: operators(plan, body),
        prediction: None,
    }
}

fn operators(plan: &Plan, body: &Body) -> Value {
    let rows = super::operators::rows(plan, body);
    if rows.is_empty() { Value::Null } else { json!(rows) }
}

pub fn json(plan: &Plan, hash: &str, machine: Option<&Machine>) -> Result<Value, Diagnostics> {
    let ranks: Vec<Value> = figures(plan, machine)?
        .iter()
        .map(|f| {
            let m = &f.memory;
            let mut entry = json!({
                "program": f.program,
                "count": f.ranks.len(),
                "class": f.class,
                "ranks": describe::ranges(&f.ranks),
                "params_bytes": m.params_bytes,
                "gradients_bytes": m.gradients_bytes,
                "optimizer_bytes": m.optimizer_bytes,
                "activations_peak_bytes": m.activations_peak_bytes,
                "comm_bytes": m.comm_bytes,
                "workspace_bytes": m.workspace_bytes,
                "peak_bytes": m.peak_bytes,
                "arena_bytes": m.arena_bytes,
                "host_bytes": m.host_bytes,
                "sleeping_bytes": m.sleeping_bytes,
                "live_bytes": f.peak.fullest.bytes,
                "live_at": f.peak.fullest.instruction,
                "live": f.peak.held.iter().map(memory::json).collect::<Vec<_>>(),
                "step_seconds": f.prediction.as_ref().map(|p| p.step_seconds),
                "compute_seconds": f.prediction.as_ref().map(|p| p.compute_seconds),
                "exposed_comm_seconds": f.prediction.as_ref().map(|p| p.exposed_comm_seconds),
                "bubble_fraction": f.prediction.as_ref().map(|p| p.bubble_fraction),
                "peak_fraction": f.prediction.as_ref().map(|p| p.peak_fraction),
                "instructions": f.instructions,
                "flops": number(f.flops),
                "comm": f.traffic,
                "reshards": f.reshards.iter().map(reshard).collect::<Vec<_>>(),
            });
            if !f.kept.is_null() {
                entry["kept"] = f.kept.clone();
            }
            if !f.operators.is_null() {
                entry["operators"] = f.operators.clone();
            }
            entry
        })
        .collect();
    let mesh: Map<String, Value> =
        describe::axes(&plan.header.mesh).into_iter().map(|(name, size)| (name, json!(size))).collect();
    Ok(json!({
        "model": plan.header.model,
        "preset": plan.header.preset,
        "task": plan.header.task,
        "world": plan.header.world(),
        "mesh": mesh,
        "plan_hash": hash,
        "machine": machine.map(|m| &m.name),
        "ranks": ranks,
    }))
}

/// JSON's integers end at 2^64 for most who read them.
fn number(n: u128) -> Value {
    u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n))
}

fn reshard(r: &Reshard) -> Value {
    json!({
        "kind": r.kind,
        "group": r.group,
        "why": r.why,
        "place": r.place,
        "count": r.count,
        "bytes_each": r.bytes_each,
        "bytes": r.bytes,
    })
}
