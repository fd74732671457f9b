//! Operators whose operands go around a ring of ranks: each rank keeps its part of one factor and meets all parts of
//! another, one after another (ring attention, Liu et al., 2023).

use ir::{Axes, Mismatch, NodeId, NodeIds, PartOf, SpmdBuilder};
use types::{DType, Name};

use super::Local;

/// Steps of one ring: each is written out in the graph, for every operator whose operands go around. A ring of so many
/// ranks has a thousandth of the tokens on each.
pub const MAX_STEPS: usize = 1024;

/// The axes around which the factor `goes` travels.
pub fn axes(of: &Local<'_>, stays: usize, goes: usize) -> Axes {
    of.cuts.0[goes].iter().filter(|a| of.cuts.0[stays].contains(a)).cloned().collect()
}

/// Results over the part that stays are merged; results that have the factor which goes around travel with it, in f32,
/// and are home after the last step.
pub fn unroll(r: &mut SpmdBuilder<'_>, of: &Local<'_>, stays: usize, goes: usize) -> Result<NodeIds, Mismatch> {
    let axes = axes(of, stays, goes);
    let why = format!("{} goes around {} for `{}`", of.factors.factors[goes].name, axes.join(" x "), of.op.name());
    let why = Name::from(why);
    let has = |dims: &Vec<smallvec::SmallVec<[usize; 2]>>| dims.iter().any(|d| d.contains(&goes));
    let travels: Vec<usize> = (0..of.args.len()).filter(|&i| has(&of.factors.args[i])).collect();
    let follows: Vec<bool> = of.factors.results.iter().map(has).collect();
    let dtypes: Vec<DType> = of.results.iter().map(|t| t.dtype).collect();

    let mut args = of.args.to_vec();
    let mut parts = of.parts(r);
    let mut acc: Vec<NodeId> = vec![];
    // Several axes are one ring of all their ranks.
    let steps = r.mesh.group(&axes);
    for step in 0..steps {
        let values = of.compute(r, &args, &parts)?;
        let values: Vec<NodeId> = values.into_iter().map(|v| wide(r, v)).collect();
        acc = if step == 0 {
            values
        } else {
            match of.op.merge(&mut r.b, &acc, &values) {
                Some(merged) => merged.to_vec(),
                None => acc.iter().zip(&values).map(|(&a, &v)| r.b.add(a, v)).collect(),
            }
        };
        let last = step + 1 == steps;
        let mut moved: Vec<NodeId> = vec![];
        if !last {
            moved.extend(travels.iter().map(|&i| args[i]));
            moved.extend(parts[goes].iter().flat_map(|p| [Some(p.start), p.length]).flatten());
        }
        moved.extend((0..acc.len()).filter(|&i| follows[i]).map(|i| acc[i]));
        if moved.is_empty() {
            continue;
        }
        let mut arrived = r.rotate(&moved, &axes, &why).into_iter();
        let mut next = || arrived.next().ok_or_else(|| Mismatch::new("a ring loses a value"));
        if !last {
            for &i in &travels {
                args[i] = next()?;
            }
            if let Some(part) = parts[goes] {
                let start = next()?;
                let length = if part.length.is_some() { Some(next()?) } else { None };
                parts[goes] = Some(PartOf { start, length });
            }
        }
        for i in (0..acc.len()).filter(|&i| follows[i]) {
            acc[i] = next()?;
        }
    }
    Ok(acc.into_iter().zip(dtypes).map(|(v, dtype)| r.b.cast(v, dtype)).collect())
}

fn wide(r: &mut SpmdBuilder<'_>, x: NodeId) -> NodeId {
    let dtype = if r.b.ty(x).dtype == DType::F64 { DType::F64 } else { DType::F32 };
    r.b.cast(x, dtype)
}
