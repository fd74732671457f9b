//! Which axes cut each factor of one operator, given what is known of its operands and results.

use ir::{Class, FactorKind, Factors, Op, ring, split};
use types::Name;

use super::assignment::{DimAxes, Rank, TensorAxes};

/// The operator's tensors: operands first, then results.
pub struct Around<'a> {
    pub op: &'a Op,
    pub factors: &'a Factors,
    pub args: Vec<&'a TensorAxes>,
    pub results: Vec<&'a TensorAxes>,
    /// Axes that leave a dim which would go around a ring for another dim.
    pub exchange: &'a [Name],
}

/// By factor.
pub type Cuts = Vec<DimAxes>;

impl Around<'_> {
    /// What the operator's tensors ask of its factors together: of two lists of axes the one that extends the other,
    /// else the one of the better hint. An axis stays with the factor whose hint is best, unless the two make a ring.
    pub fn cuts(&self, mesh: &types::Mesh) -> Cuts {
        let mut cuts: Cuts = vec![DimAxes::new(); self.factors.factors.len()];
        let sides = [(&self.factors.args, &self.args), (&self.factors.results, &self.results)];
        for (dims, tensors) in sides {
            for (dims, tensor) in dims.iter().zip(tensors) {
                for (of, axes) in dims.iter().zip(tensor.iter()) {
                    for (f, own) in parts(mesh, self.factors, of, axes) {
                        if better(&own, &cuts[f]) {
                            cuts[f] = own;
                        }
                    }
                }
            }
        }
        self.swap(mesh, &mut cuts);
        self.restrict(mesh, &mut cuts);
        cuts
    }

    /// Axes to exchange leave the two factors of a ring for the first factor that all operands have, can be cut and
    /// divides.
    fn swap(&self, mesh: &types::Mesh, cuts: &mut Cuts) {
        for axis in self.exchange {
            let Some((stays, goes)) = self.ring_of(axis, cuts) else { continue };
            let Some(rank) = cuts[stays].iter().find(|(a, _)| a == axis).map(|(_, rank)| *rank) else { continue };
            for f in [stays, goes] {
                if let Some(at) = cuts[f].iter().position(|(a, _)| a == axis) {
                    cuts[f].truncate(at);
                }
            }
            let free = (0..cuts.len()).find(|&f| {
                let parts = mesh.group(&super::assignment::names(&cuts[f])) * mesh.size(axis);
                self.is_shared(f) && self.factors.factors[f].size.is_multiple_of(parts)
            });
            if let Some(f) = free {
                cuts[f].push((axis.clone(), rank));
            }
        }
    }

    /// What to say if an axis to exchange found no other factor, and the way out.
    pub fn unexchanged(&self, mesh: &types::Mesh, cuts: &Cuts) -> Option<(String, String)> {
        let before =
            Around { exchange: &[], args: self.args.clone(), results: self.results.clone(), ..*self }.cuts(mesh);
        let lost =
            |axis: &&Name| self.ring_of(axis, &before).is_some() && !cuts.iter().flatten().any(|(a, _)| a == *axis);
        let axis = self.exchange.iter().find(lost)?;
        let shared = (0..cuts.len()).find(|&f| self.is_shared(f))?;
        let factor = &self.factors.factors[shared];
        let parts = mesh.group(&super::assignment::names(&cuts[shared]));
        let own = factor.size / parts;
        let message = format!(
            "`{}` has {own} {} on each rank, which do not divide by {}, the size of {axis}",
            self.op.name(),
            factor.name,
            mesh.size(axis)
        );
        let legal: Vec<String> = (1..=own).filter(|n| own.is_multiple_of(*n)).map(|n| n.to_string()).collect();
        Some((message, format!("give {axis} a size of {}", legal.join(", "))))
    }

    /// The factors of a ring along `axis`: the one that stays and the one that goes around.
    pub fn ring_of(&self, axis: &Name, cuts: &Cuts) -> Option<(usize, usize)> {
        let has = |f: &usize| cuts[*f].iter().any(|(a, _)| a == axis);
        let cut: Vec<usize> = (0..cuts.len()).filter(has).collect();
        cut.iter()
            .flat_map(|&f| cut.iter().map(move |&g| (f, g)))
            .find(|&(f, g)| f < g)
            .and_then(|(f, g)| ring(self.factors, f, g))
    }

    /// Cuts that do not fall on borders of factors, in a dim of several, are dropped.
    fn align(&self, mesh: &types::Mesh, cuts: &mut Cuts) {
        loop {
            let dims = self.factors.args.iter().chain(&self.factors.results).flatten().filter(|of| of.len() > 1);
            let mut wrong = dims.filter_map(|of| {
                let fitting = joined(mesh, self.factors, of, cuts).len();
                let mut before = 0;
                of.iter().find_map(|&f| {
                    before += cuts[f].len();
                    (before > fitting).then(|| (f, cuts[f].len() - (before - fitting)))
                })
            });
            let Some((f, kept)) = wrong.next() else { return };
            drop(wrong);
            cuts[f].truncate(kept);
        }
    }

    /// A parallel factor that every operand with dims has.
    fn is_shared(&self, f: usize) -> bool {
        self.factors.factors[f].kind == FactorKind::Parallel
            && self.factors.args.iter().filter(|d| !d.is_empty()).all(|d| d.iter().any(|of| of.contains(&f)))
    }

    /// Drops what the operator does not allow.
    fn restrict(&self, mesh: &types::Mesh, cuts: &mut Cuts) {
        let kinds = self.factors.factors.iter().map(|f| f.kind);
        let plain = self.op.class() != Class::Contract
            && !kinds.clone().any(|k| matches!(k, FactorKind::Whole | FactorKind::Merge));
        for (cut, kind) in cuts.iter_mut().zip(kinds) {
            if kind == FactorKind::Whole {
                cut.clear();
            }
            // What is stored in parts is computed in parts only where that changes nothing: casts, updates, norms.
            if !plain && let Some(first) = cut.iter().position(|(_, rank)| *rank == Rank::Store) {
                cut.truncate(first);
            }
        }
        let mut claims: Vec<(Rank, usize, Name)> = vec![];
        for (f, cut) in cuts.iter().enumerate() {
            claims.extend(cut.iter().map(|(axis, rank)| (*rank, f, axis.clone())));
        }
        claims.sort_by_key(|(rank, f, _)| (*rank, *f));
        for (i, (_, f, axis)) in claims.iter().enumerate() {
            let before = claims[..i].iter().find(|(_, g, a)| a == axis && cuts[*g].iter().any(|(x, _)| x == a));
            if let Some((_, g, _)) = before
                && ring(self.factors, *f, *g).is_none()
                && let Some(at) = cuts[*f].iter().position(|(a, _)| a == axis)
            {
                cuts[*f].truncate(at);
            }
        }
        self.align(mesh, cuts);
    }
}

/// The axes of a dim, by factor; those that do not fall on borders of factors are left out.
fn parts(mesh: &types::Mesh, factors: &Factors, of: &[usize], axes: &DimAxes) -> Vec<(usize, DimAxes)> {
    let names = super::assignment::names(axes);
    let fitting = (0..=axes.len()).rev().find_map(|n| split(mesh, factors, of, &names[..n]));
    let mut rest = axes.iter();
    let parts = fitting.into_iter().flatten().zip(of);
    parts.map(|(part, &f)| (f, rest.by_ref().take(part.len()).cloned().collect())).collect()
}

/// The axes of a dim as its factors have them, as far as they fall on borders of factors.
pub fn joined(mesh: &types::Mesh, factors: &Factors, of: &[usize], cuts: &Cuts) -> DimAxes {
    let all: DimAxes = of.iter().flat_map(|&f| cuts[f].iter().cloned()).collect();
    let names = super::assignment::names(&all);
    let agrees = |n: &usize| {
        split(mesh, factors, of, &names[..*n]).is_some_and(|parts| {
            let whose = |part: &ir::Axes, f: usize| super::assignment::names(&cuts[f]).starts_with(part);
            parts.iter().zip(of).all(|(part, &f)| whose(part, f))
        })
    };
    let n = (0..=all.len()).rev().find(agrees).unwrap_or(0);
    all.into_iter().take(n).collect()
}

fn better(new: &DimAxes, old: &DimAxes) -> bool {
    match new.iter().zip(old).position(|((a, _), (b, _))| a != b) {
        Some(at) => new[at].1 < old[at].1,
        None => new.len() > old.len(),
    }
}
