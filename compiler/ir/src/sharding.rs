//! Shardings: how the ranks of a mesh share a tensor, and whether those of one operator's operands and results fit.
//!
//! After GSPMD and Shardy: each dim is cut by mesh axes, major first; what an axis does not cut, its ranks hold alike; a
//! partial value is a term of a sum, a maximum or a softmax over the ranks of an axis.

use std::fmt;

use smallvec::SmallVec;
use types::{Cut, Mesh, Name, TensorType};

use crate::{FactorKind, Factors};

pub type Axes = SmallVec<[Name; 2]>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DimSharding {
    pub axes: Axes,
    /// Propagation may add axes.
    pub open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartialKind {
    Sum,
    Max,
    /// Softmax over a part of the keys, or the log of its sum: results that [`crate::SpmdBuilder::merge`] closes together.
    Merge,
}

/// One entry a dim; a sharding without entries leaves the tensor whole on every rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sharding {
    pub dims: SmallVec<[DimSharding; 4]>,
    pub partial: SmallVec<[(Name, PartialKind); 2]>,
}

impl Sharding {
    pub fn of_axes(dims: impl IntoIterator<Item = Axes>) -> Self {
        let dims = dims.into_iter().map(|axes| DimSharding { axes, open: false }).collect();
        Self { dims, partial: SmallVec::new() }
    }

    /// The axes that cut dim `i`.
    pub fn axes(&self, i: usize) -> &[Name] {
        self.dims.get(i).map_or(&[], |d| &d.axes)
    }

    pub fn is_whole(&self) -> bool {
        self.partial.is_empty() && self.dims.iter().all(|d| d.axes.is_empty() && !d.open)
    }

    /// Whether an axis cuts a dim or is summed over.
    pub fn uses(&self, axis: &Name) -> bool {
        self.dims.iter().any(|d| d.axes.contains(axis)) || self.partial.iter().any(|(a, _)| a == axis)
    }

    pub fn cuts(&self) -> Vec<Cut> {
        self.dims.iter().map(|d| Cut { axes: d.axes.clone() }).collect()
    }

    /// What one rank holds of `ty`, at its capacity.
    pub fn local(&self, mesh: &Mesh, ty: &TensorType) -> TensorType {
        mesh.local(ty, &self.cuts())
    }

    /// Equal up to how "whole" is written.
    pub fn same(&self, other: &Self) -> bool {
        let n = self.dims.len().max(other.dims.len());
        let sorted = |s: &Self| {
            let mut partial = s.partial.clone();
            partial.sort();
            partial
        };
        (0..n).all(|i| self.axes(i) == other.axes(i)) && sorted(self) == sorted(other)
    }
}

impl fmt::Display for DimSharding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, axis) in self.axes.iter().enumerate() {
            write!(f, "{}@{axis}", if i == 0 { " " } else { "" })?;
        }
        match (self.open, self.axes.is_empty()) {
            (false, _) => Ok(()),
            (true, true) => f.write_str(" ?"),
            (true, false) => f.write_str("?"),
        }
    }
}

/// The partial kinds as they follow an operator: ` +tp`, ` max tp`, ` merge cp`.
pub(crate) fn partial_text(sharding: &Sharding) -> String {
    let each = sharding.partial.iter().map(|(axis, kind)| match kind {
        PartialKind::Sum => format!(" +{axis}"),
        PartialKind::Max => format!(" max {axis}"),
        PartialKind::Merge => format!(" merge {axis}"),
    });
    each.collect()
}

/// The axes that cut each factor of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment(pub Vec<Axes>);

impl Assignment {
    /// What the shardings of operands and results say of the factors, or where they do not fit together.
    ///
    /// They fit if all tensors that have a factor cut it alike, nothing whole is cut, sums over cut factors are
    /// partial in the results, and no axis cuts two factors, unless one of them goes around in a [`ring`].
    pub fn of(mesh: &Mesh, factors: &Factors, args: &[Sharding], results: &[Sharding]) -> Result<Self, String> {
        let mut axes: Vec<Option<Axes>> = vec![None; factors.factors.len()];
        let sides = [("operand", &factors.args, args), ("result", &factors.results, results)];
        for (side, dims, shardings) in sides {
            for (t, (dims, sharding)) in dims.iter().zip(shardings).enumerate() {
                for (d, of) in dims.iter().enumerate() {
                    let split = split(mesh, factors, of, sharding.axes(d))
                        .ok_or_else(|| format!("dim {d} of {side} {t} cannot be cut by {:?}", sharding.axes(d)))?;
                    for (&f, own) in of.iter().zip(split) {
                        match &axes[f] {
                            Some(known) if *known != own => {
                                return Err(format!(
                                    "factor {} is cut by {known:?} and, in {side} {t}, by {own:?}",
                                    factors.factors[f].name
                                ));
                            }
                            _ => axes[f] = Some(own),
                        }
                    }
                }
            }
        }
        let out = Self(axes.into_iter().map(Option::unwrap_or_default).collect());
        if let Some(f) =
            (0..out.0.len()).find(|&f| factors.factors[f].kind == FactorKind::Whole && !out.0[f].is_empty())
        {
            return Err(format!("factor {} must be whole and is cut by {:?}", factors.factors[f].name, out.0[f]));
        }
        out.check_axes(factors)?;
        for (r, sharding) in results.iter().enumerate() {
            let natural = out.result(factors, r);
            let missing = |a: &Sharding, b: &Sharding| a.partial.iter().find(|p| !b.partial.contains(p)).cloned();
            if let Some((axis, kind)) = missing(&natural, sharding).or_else(|| missing(sharding, &natural)) {
                return Err(format!("result {r} is partial by kind {kind:?} over {axis}, or not, against its factors"));
            }
        }
        Ok(out)
    }

    fn check_axes(&self, factors: &Factors) -> Result<(), String> {
        for (f, axes) in self.0.iter().enumerate() {
            for axis in axes {
                let other = (0..f).find(|&g| self.0[g].contains(axis));
                if let Some(g) = other
                    && ring(factors, f, g).is_none()
                {
                    let names = [g, f].map(|i| &factors.factors[i].name);
                    return Err(format!("{axis} cuts two factors, {} and {}", names[0], names[1]));
                }
            }
        }
        Ok(())
    }

    /// The sharding that operand `i` needs.
    pub fn operand(&self, factors: &Factors, i: usize) -> Sharding {
        Sharding::of_axes(factors.args[i].iter().map(|of| self.joined(of)))
    }

    /// The sharding that result `i` has by nature: sums over cut factors are partial.
    pub fn result(&self, factors: &Factors, i: usize) -> Sharding {
        let mut sharding = Sharding::of_axes(factors.results[i].iter().map(|of| self.joined(of)));
        let has = |result: &Vec<SmallVec<[usize; 2]>>, f: usize| result.iter().any(|of| of.contains(&f));
        for (f, axes) in self.0.iter().enumerate().filter(|(f, _)| !has(&factors.results[i], *f)) {
            let kind = match factors.factors[f].kind {
                FactorKind::Sum => PartialKind::Sum,
                FactorKind::Max => PartialKind::Max,
                FactorKind::Merge if factors.results.iter().any(|result| has(result, f)) => PartialKind::Sum,
                FactorKind::Merge => PartialKind::Merge,
                FactorKind::Parallel | FactorKind::Whole => continue,
            };
            // What goes around a ring meets every part: nothing is left to sum.
            let rings = |axis: &&Name| {
                (0..self.0.len()).any(|g| g != f && self.0[g].contains(axis) && ring(factors, f, g).is_some())
            };
            sharding.partial.extend(axes.iter().filter(|a| !rings(a)).map(|axis| (axis.clone(), kind)));
        }
        sharding.partial.sort();
        sharding
    }

    fn joined(&self, of: &[usize]) -> Axes {
        of.iter().flat_map(|&f| self.0[f].iter().cloned()).collect()
    }
}

/// Of two factors cut by one axis, (the one that stays, the one that goes around): each rank keeps its part of the
/// first and meets all parts of the second, one after another.
///
/// The second is merged, and no operand has both.
pub fn ring(factors: &Factors, f: usize, g: usize) -> Option<(usize, usize)> {
    let has = |dims: &Vec<SmallVec<[usize; 2]>>, x: usize| dims.iter().any(|of| of.contains(&x));
    if factors.args.iter().any(|dims| has(dims, f) && has(dims, g)) {
        return None;
    }
    let travels = |x: usize| factors.factors[x].kind == FactorKind::Merge;
    match (travels(f), travels(g)) {
        (false, true) => Some((f, g)),
        (true, false) => Some((g, f)),
        _ => None,
    }
}

/// The axes of one dim, by factor: axes go to the first factor as long as they divide it, then to the next. A dim of
/// one factor takes any axes; `None` if the axes do not fall on borders of factors.
pub fn split(mesh: &Mesh, factors: &Factors, of: &[usize], axes: &[Name]) -> Option<SmallVec<[Axes; 2]>> {
    let mut out: SmallVec<[Axes; 2]> = SmallVec::from_elem(Axes::new(), of.len());
    if let [_] = of {
        out[0] = axes.iter().cloned().collect();
        return Some(out);
    }
    let mut at = 0;
    let mut rest = of.first().map_or(1, |&f| factors.factors[f].size);
    for axis in axes {
        let size = mesh.size(axis);
        while rest == 1 && at + 1 < of.len() {
            at += 1;
            rest = factors.factors[of[at]].size;
        }
        if of.is_empty() || !rest.is_multiple_of(size) {
            return None;
        }
        rest /= size;
        out[at].push(axis.clone());
    }
    Some(out)
}
