//! Buffers of parameters and states, families written out, and their entries in the manifest.

use std::collections::{HashMap, HashSet};

use ir::{Collective, Holds, Input, Inst, Module, Output, Type};
use plan::{Buffer, BufferId, BufferKind, Layout, Life, Manifest, ParameterId, Space, StateInit};
use types::{DType, FileForm, Name, Runs, TensorType};

/// How parameters and states are cut, by whether it is a parameter and by name.
fn cuts(module: &Module) -> HashMap<(bool, &Name), Layout> {
    let mut cuts = HashMap::new();
    for program in &module.programs {
        let inputs = program.inputs.iter().map(|input| match input {
            Input::Parameter(n) => Some((true, n)),
            Input::State(n) => Some((false, n)),
            Input::Feed(_) => None,
        });
        let outputs = program.outputs.iter().map(|output| match output {
            Output::Parameter(n) => Some((true, n)),
            Output::State(n) => Some((false, n)),
            _ => None,
        });
        for (key, logical) in inputs.chain(outputs).zip(&program.logical) {
            if let Some(key) = key.filter(|_| logical.cuts.iter().any(|c| !c.axes.is_empty())) {
                cuts.insert(key, Layout { cuts: logical.cuts.clone() });
            }
        }
    }
    cuts
}

/// The state that holds a rank's coordinate.
pub fn coordinate(axis: &str) -> Name {
    format!("coordinate/{axis}").into()
}

/// Buffers of parameters, numbered as in the manifest, and behind them of state, families written out; by each, the parameter that it holds a moment or a copy of; and
/// their entries in the manifest.
pub fn persistent(module: &Module, alignment: u64) -> (Vec<Buffer>, Vec<Option<BufferId>>, Manifest) {
    let cuts = cuts(module);
    let layout = |parameter: bool, name| cuts.get(&(parameter, name)).cloned().unwrap_or_else(Layout::whole);
    let (mut buffers, mut owner) = (vec![], vec![]);
    let mut homes: HashMap<Name, BufferId> = HashMap::new();
    let mut manifest = Manifest { ragged: module.ragged.clone(), ..Manifest::default() };
    let mut add = |name: Name, kind: BufferKind, of: Option<BufferId>, ty: &TensorType, layout: &Layout| {
        let ty = &module.mesh.local(ty, &layout.cuts);
        let bytes = (ty.bytes() as u64).next_multiple_of(alignment);
        buffers.push(Buffer {
            name,
            kind,
            space: Space::Device,
            offset: 0,
            bytes,
            ty: Some(ty.clone().into()),
            life: Life::Persistent,
        });
        owner.push(of);
        BufferId::new(buffers.len() - 1)
    };
    for (family, parameter) in &module.parameters {
        let layout = layout(true, family);
        for (name, i, ty) in members(family, &parameter.ty) {
            let expand = |n: &Name| member_name(n, i);
            let record = &parameter.record;
            let home = add(name.clone(), BufferKind::Parameter, None, ty, &layout);
            homes.insert(name.clone(), home);
            manifest.parameters.push(plan::Parameter {
                buffers: vec![Some(home)],
                name,
                aliases: record.aliases.iter().chain(&record.tied).map(expand).collect(),
                ty: ty.clone(),
                layout: layout.clone(),
                init: record.init,
                trainable: record.trainable,
                forms: record.forms.iter().map(|form| FileForm { name: expand(&form.name), ..form.clone() }).collect(),
            });
        }
    }
    let prepared = module.programs.iter().filter(|p| p.runs == Runs::Prepare).flat_map(|p| &p.outputs);
    let prepared: HashSet<&Name> =
        prepared.filter_map(|o| if let Output::State(n) = o { Some(n) } else { None }).collect();
    for (family, state) in &module.states {
        let layout = layout(false, family);
        let is_prepared = prepared.contains(family);
        let kind = match state.of {
            Some((Holds::Copy, _)) => BufferKind::Parameter,
            Some((Holds::Moment, _)) => BufferKind::Optimizer,
            None if is_prepared => BufferKind::Parameter,
            None => BufferKind::State,
        };
        for (name, i, ty) in members(family, &state.ty) {
            let of = state.parameter().and_then(|of| homes.get(&member_name(of, i)).copied());
            manifest.states.push(plan::State {
                buffers: vec![Some(add(name.clone(), kind, of, ty, &layout))],
                name,
                of: of.map(|home| ParameterId(home.0)),
                ty: ty.clone(),
                layout: layout.clone(),
                init: match state.copy_of() {
                    _ if is_prepared => StateInit::Prepared,
                    Some(_) => StateInit::Parameter,
                    None => StateInit::Value(state.init),
                },
            });
        }
    }
    let mut asked: Vec<Name> = vec![];
    for (_, node) in module.functions.iter().flat_map(|(_, f)| f.nodes.iter()) {
        if let Inst::Op(op) = &node.inst
            && let Some(Collective::Coordinate(axis)) = op.collective()
            && !asked.contains(&axis)
        {
            asked.push(axis);
        }
    }
    for axis in asked {
        let (name, ty) = (coordinate(&axis), TensorType::scalar(DType::I64));
        manifest.states.push(plan::State {
            buffers: vec![Some(add(name.clone(), BufferKind::State, None, &ty, &Layout::whole()))],
            name,
            of: None,
            ty,
            layout: Layout::whole(),
            init: StateInit::Coordinate(axis),
        });
    }
    (buffers, owner, manifest)
}

/// Each tensor of a family with its name; a plain tensor as the only one.
pub fn members<'a>(family: &'a Name, ty: &'a Type) -> impl Iterator<Item = (Name, Option<usize>, &'a TensorType)> {
    let stacked = matches!(ty, Type::Stack { .. });
    ty.element().into_iter().flat_map(move |of| {
        (0..ty.count()).map(move |i| {
            let i = stacked.then_some(i);
            (member_name(family, i), i, of)
        })
    })
}

/// The name of a family's tensor `i`, or of a plain tensor.
pub fn member_name(family: &Name, i: Option<usize>) -> Name {
    i.map_or_else(|| family.clone(), |i| ir::indexed_name(family, i).into())
}
