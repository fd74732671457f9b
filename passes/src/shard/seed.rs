//! Hints as the first axes of dims, and whether they can be met at all.

use diag::{Diagnostic, Diagnostics, PlaceId};
use ir::{Module, ShardingHint, Stored};
use types::{Mesh, Name};

use super::assignment::{AxisAssignment, Rank, names, tensors};

/// That every axis wished for is one of the mesh.
pub fn check(module: &Module) -> Result<(), Diagnostics> {
    let mut errors = vec![];
    for (hint, place) in &module.hints {
        let axes = match hint {
            ShardingHint::Shard { axes, .. }
            | ShardingHint::SequenceParallel { axes, .. }
            | ShardingHint::Store { axes, .. }
            | ShardingHint::Exchange { axes } => axes,
        };
        for axis in axes.iter().filter(|a| module.mesh.position(a).is_none()) {
            let known: Vec<&str> = module.mesh.axes.iter().map(|a| a.name.as_str()).collect();
            errors.push(
                at(module, *place, format!("the mesh has no axis `{axis}`"))
                    .help(format!("its axes are {}", known.join(", "))),
            );
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
}

/// An error at a place of the model, if there is one.
pub fn at(module: &Module, place: PlaceId, message: String) -> Diagnostic {
    let error = Diagnostic::error(message);
    match module.places.get(place) {
        Some(place) => error.at(place.span, ""),
        None => error,
    }
}

/// The dims that the model's plan names, wherever they occur.
pub fn model(module: &Module, table: &mut AxisAssignment) -> Result<(), Diagnostics> {
    let mut errors = vec![];
    for (hint, place) in &module.hints {
        let ShardingHint::Shard { dim, axes, exact } = hint else { continue };
        if *exact && let Some(size) = indivisible(table, dim, axes) {
            let parts = table.mesh.group(axes);
            let legal: Vec<String> = (1..=size).filter(|n| size % n == 0).map(|n| n.to_string()).collect();
            let message =
                format!("{dim} is {size}, which does not divide by {parts}, the size of {}", axes.join(" x "));
            errors.push(at(module, *place, message).help(format!(
                "give {} a size of {}",
                axes.join(" x "),
                legal.join(", ")
            )));
        }
        each(module, |site, ty| {
            if let Some(d) = ty.position(dim) {
                let wanted: Vec<_> = sized(&table.mesh, axes).map(|a| (a.clone(), Rank::Model)).collect();
                table.extend(site, d, &wanted);
            }
        });
    }
    if errors.is_empty() { Ok(()) } else { Err(Diagnostics(errors)) }
}

/// The size of a dim that is a part of a merged one and does not fall into equal parts.
fn indivisible(table: &AxisAssignment, dim: &Name, axes: &[Name]) -> Option<usize> {
    let parts = table.mesh.group(axes);
    let mut merged = table.factors.iter().flatten().flatten().flat_map(|factors| {
        let dims = factors.args.iter().chain(&factors.results).flatten().filter(|of| of.len() > 1);
        dims.flatten().map(|&f| &factors.factors[f])
    });
    merged.find(|f| f.name == *dim && f.size % parts != 0).map(|f| f.size)
}

/// Sequence parallelism: dims of tensors that have something else to divide too.
pub fn fill(module: &Module, table: &mut AxisAssignment) {
    for (hint, _) in &module.hints {
        let ShardingHint::SequenceParallel { dim, of, axes } = hint else { continue };
        each(module, |site, ty| {
            let Some(d) = ty.position(dim).filter(|_| ty.position(of).is_some() && ty.rank() > 2) else { return };
            let mut wanted = table.at(site)[d].to_vec();
            let used = |a: &Name| table.at(site).iter().flatten().any(|(x, _)| x == a);
            wanted.extend(sized(&table.mesh, axes).filter(|a| !used(a)).map(|a| (a.clone(), Rank::SequenceParallel)));
            table.extend(site, d, &wanted);
        });
    }
}

/// Which dim of a parameter or of its optimiser state is kept in parts: the first that divides, else the longest.
pub fn store(module: &Module, table: &mut AxisAssignment) {
    for (hint, _) in &module.hints {
        let ShardingHint::Store { what, axes } = hint else { continue };
        if *what == Stored::Optimizer {
            close(module, table, axes);
        }
        for program in &module.programs {
            let function = &module.functions[program.function];
            for (input, &param) in program.inputs.iter().zip(&function.params) {
                let stored = match (input, what) {
                    (ir::Input::Parameter(_), Stored::Parameters) => true,
                    (ir::Input::State(name), _) => module.states.get(name).is_some_and(|s| s.of.is_some()),
                    _ => false,
                };
                let Some(ty) = function.ty(param).element().filter(|_| stored) else { continue };
                let site = (program.function, param, 0);
                let axes: Vec<Name> = sized(&table.mesh, axes).cloned().collect();
                let whole: Vec<&Name> =
                    axes.iter().filter(|a| !table.at(site).iter().flatten().any(|(x, _)| x == *a)).collect();
                if whole.is_empty() {
                    continue;
                }
                let parts = |d: usize| {
                    table.mesh.group(&names(&table.at(site)[d]))
                        * whole.iter().map(|a| table.mesh.size(a)).product::<usize>()
                };
                let exact = (0..ty.rank()).find(|&d| ty.dims[d].size.is_multiple_of(parts(d)));
                let longest = (0..ty.rank()).max_by_key(|&d| (ty.dims[d].size, std::cmp::Reverse(d)));
                let Some(d) = exact.or(longest) else { continue };
                let mut wanted = table.at(site)[d].to_vec();
                wanted.extend(whole.into_iter().map(|a| (a.clone(), Rank::Store)));
                table.extend(site, d, &wanted);
            }
        }
    }
}

/// Parameters stay as they are where only the optimiser's state is stored in parts.
fn close(module: &Module, table: &mut AxisAssignment, axes: &[Name]) {
    table.closed_to.extend(axes.iter().cloned());
    for program in &module.programs {
        let function = &module.functions[program.function];
        let inputs = program.inputs.iter().zip(&function.params).filter(|(i, _)| matches!(i, ir::Input::Parameter(_)));
        table.closed.extend(inputs.map(|(_, &p)| (program.function, p, 0)));
    }
}

/// Axes of one rank cut nothing.
fn sized<'a>(mesh: &'a Mesh, axes: &'a [Name]) -> impl Iterator<Item = &'a Name> {
    axes.iter().filter(|a| mesh.size(a) > 1)
}

fn each(module: &Module, mut f: impl FnMut(super::assignment::Site, &types::TensorType)) {
    for (id, function) in module.functions.iter() {
        for (node, n) in function.nodes.iter() {
            for (i, ty) in tensors(&n.ty).enumerate() {
                f((id, node, i), ty);
            }
        }
    }
}
