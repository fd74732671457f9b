//! One reshard as collectives: sums first, in parts where parts are wanted; then exchanges, slices, gathers.

use ir::{Axes, Mismatch, NodeId, PartialKind, Sharding, SpmdBuilder};
use types::{Name, TensorType};

/// `x`, a rank's part of `ty` as `held` says, as `want` says.
pub fn lower(
    r: &mut SpmdBuilder<'_>,
    x: NodeId,
    ty: &TensorType,
    held: &Sharding,
    want: &Sharding,
    why: &Name,
) -> Result<NodeId, Mismatch> {
    let mut s = State { x, dims: (0..ty.rank()).map(|d| axes(held, d)).collect(), ty, why };
    let want: Vec<Axes> = (0..ty.rank()).map(|d| axes(want, d)).collect();
    s.complete(r, held, &want)?;
    while s.dims != want {
        if !(s.exchange(r, &want) || s.slice(r, &want) || s.gather(r, &want)) {
            return Err(Mismatch::new(format!("no way from {:?} to {want:?}", s.dims)));
        }
    }
    Ok(s.x)
}

fn axes(sharding: &Sharding, d: usize) -> Axes {
    sharding.axes(d).iter().cloned().collect()
}

struct State<'a> {
    x: NodeId,
    /// The axes that cut each dim now.
    dims: Vec<Axes>,
    ty: &'a TensorType,
    why: &'a Name,
}

impl State<'_> {
    /// Reduces what is partial, straight into parts of dims that are wanted cut by those axes.
    fn complete(&mut self, r: &mut SpmdBuilder<'_>, held: &Sharding, want: &[Axes]) -> Result<(), Mismatch> {
        if held.partial.iter().any(|(_, kind)| *kind == PartialKind::Merge) {
            return Err(Mismatch::new("a part of a softmax is merged where it arises, with its weights"));
        }
        let mut sums: Vec<Name> = of_kind(r, held, PartialKind::Sum);
        for (d, want) in want.iter().enumerate() {
            if !want.starts_with(&self.dims[d]) {
                continue;
            }
            let rest = &want[self.dims[d].len()..];
            let scattered: Vec<Name> = rest.iter().take_while(|a| sums.contains(a)).cloned().collect();
            if !scattered.is_empty() {
                self.x = r.reduce_scatter(self.x, d, &scattered, self.why);
                sums.retain(|a| !scattered.contains(a));
                self.dims[d].extend(scattered);
            }
        }
        for (kind, axes) in [(PartialKind::Sum, sums), (PartialKind::Max, of_kind(r, held, PartialKind::Max))] {
            if !axes.is_empty() {
                self.x = r.all_reduce(self.x, kind, &axes, self.why);
            }
        }
        Ok(())
    }

    /// An axis that leaves the end of one dim for the end of another.
    fn exchange(&mut self, r: &mut SpmdBuilder<'_>, want: &[Axes]) -> bool {
        for from in 0..self.dims.len() {
            let Some(axis) = self.dims[from].last().cloned() else { continue };
            if want[from].starts_with(&self.dims[from]) {
                continue;
            }
            let ends = |to: &usize| {
                let have = self.dims[*to].len();
                *to != from && want[*to].starts_with(&self.dims[*to]) && want[*to].get(have) == Some(&axis)
            };
            let Some(to) = (0..self.dims.len()).find(ends) else { continue };
            self.dims[from].pop();
            let size = self.size(r, from);
            self.x = r.all_to_all(self.x, (to, from), size, std::slice::from_ref(&axis), self.why);
            self.dims[to].push(axis);
            return true;
        }
        false
    }

    /// A dim whose further axes cut nothing now: every rank has it, and keeps its part.
    fn slice(&mut self, r: &mut SpmdBuilder<'_>, want: &[Axes]) -> bool {
        for (d, want) in want.iter().enumerate() {
            if !want.starts_with(&self.dims[d]) {
                continue;
            }
            let used = |a: &Name| self.dims.iter().flatten().any(|x| x == a);
            let free: Vec<Name> = want[self.dims[d].len()..].iter().take_while(|a| !used(a)).cloned().collect();
            if !free.is_empty() {
                self.x = r.window(self.x, d, &free);
                self.dims[d].extend(free);
                return true;
            }
        }
        false
    }

    /// A dim cut by axes that are not wanted there.
    fn gather(&mut self, r: &mut SpmdBuilder<'_>, want: &[Axes]) -> bool {
        for (d, want) in want.iter().enumerate() {
            let common = self.dims[d].iter().zip(want).take_while(|(a, b)| a == b).count();
            if common < self.dims[d].len() {
                let gathered: Vec<Name> = self.dims[d].drain(common..).collect();
                let size = self.size(r, d);
                self.x = r.all_gather(self.x, d, size, &gathered, self.why);
                return true;
            }
        }
        false
    }

    /// What a rank has of dim `d` now.
    fn size(&self, r: &SpmdBuilder<'_>, d: usize) -> usize {
        let blocks = r.mesh.blocks(self.ty.dims[d].size, &self.dims[d]);
        blocks[self.dims[d].len()]
    }
}

/// In the order of the mesh, so that equal groups are written alike.
pub fn of_kind(r: &SpmdBuilder<'_>, held: &Sharding, kind: PartialKind) -> Vec<Name> {
    let is = |axis: &Name| held.partial.iter().any(|(a, k)| a == axis && *k == kind);
    r.mesh.axes.iter().map(|a| a.name.clone()).filter(is).collect()
}
