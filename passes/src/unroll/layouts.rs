//! Types and layouts of what a program takes and gives, as the manifest tells them.

use ir::Logical;
use plan::Layout;
use types::{Dim, GROUPS, Ragged, TensorType};

/// The logical tensor of which `ty` is a rank's part, and how it is cut.
pub fn whole(ty: &TensorType, logical: Option<&Logical>) -> (TensorType, Layout) {
    match logical {
        Some(l) if l.cuts.iter().any(|c| !c.axes.is_empty()) => (l.ty.clone(), Layout { cuts: l.cuts.clone() }),
        _ => (ty.clone(), Layout::whole()),
    }
}

/// Parts of a feed, for one micro-batch each, lie side by side along its first dim.
pub fn joined(part: &TensorType, parts: usize) -> TensorType {
    let mut ty = part.clone();
    if let Some(samples) = ty.dims.first_mut() {
        samples.size *= parts;
    }
    ty
}

/// A feed in which data have one row a sample is that of all data groups together; in others, each group has rows of its own.
pub fn ungrouped(ty: TensorType, mut layout: Layout, ragged: &[Ragged]) -> Option<(TensorType, Layout)> {
    let is_grouped = ty.dims.first().is_some_and(|dim| dim.name == *GROUPS);
    let Some(rows) = ty.dims.get(1).filter(|dim| is_grouped && ragged.iter().all(|r| r.axis != dim.name)) else {
        return Some((ty, layout));
    };
    if layout.cuts.get(1).is_some_and(|cut| !cut.axes.is_empty()) {
        return None;
    }
    let samples = Dim { name: rows.name.clone(), size: ty.dims[0].size * rows.size };
    if !layout.cuts.is_empty() {
        layout.cuts.remove(1);
    }
    Some((TensorType::new(ty.dtype, [samples].into_iter().chain(ty.dims[2..].iter().cloned())), layout))
}
