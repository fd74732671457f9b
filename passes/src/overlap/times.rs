//! Times of nodes and of regions in pieces, as the figures of a machine predict them.

use cost::{Exchange, KernelTypes, Machine, Work};
use ir::{Class, Function, Inst, NodeId, Op};
use plan::{Access, CollectKind};
use smallvec::{SmallVec, smallvec};
use types::{DType, Mesh, Name, TensorType};

use super::region::{Cut, Region};
use crate::{times, unroll};

pub struct Times<'a> {
    machine: &'a Machine,
    world: usize,
    exchanges: times::Times<'a>,
}

type Types = SmallVec<[TensorType; 4]>;

impl<'a> Times<'a> {
    pub fn new(machine: &'a Machine, mesh: &'a Mesh) -> Self {
        Self { machine, world: mesh.world(), exchanges: times::Times::new(machine, mesh) }
    }

    /// Seconds of a node as a kernel of its own, or as a collective.
    pub fn node(&mut self, function: &Function, id: NodeId) -> f64 {
        let node = &function.nodes[id];
        let Inst::Op(op) = &node.inst else { return 0.0 };
        let args = node.args.iter().filter_map(|arg| function.ty(*arg).tensor().cloned()).collect();
        self.operator(op, &args, &node.ty.tensors().cloned().collect())
    }

    fn operator(&mut self, op: &Op, args: &Types, results: &Types) -> f64 {
        match op.class() {
            Class::View | Class::Source => 0.0,
            Class::Collective => {
                collective(op, args, results).map_or(0.0, |of| self.exchanges.exchange(exchange(&of, args, results)))
            }
            _ => {
                let of: SmallVec<[&TensorType; 4]> = args.iter().collect();
                let work = Work {
                    products: op.matmul_flops(&of, results),
                    elementwise: op.vector_ops(&of, results),
                    bytes: bytes(args) + bytes(results),
                };
                self.kernel(work, args, results)
            }
        }
    }

    fn kernel(&self, work: Work, args: &Types, results: &Types) -> f64 {
        let reads = args.iter().map(|ty| (Access::Read, ty));
        let types = KernelTypes::of(reads.chain(results.iter().map(|ty| (Access::Write, ty))));
        cost::seconds_of_work(self.machine, self.world, work, types)
    }

    /// Seconds that a region in so many pieces takes less, where compute would wait `exposed` seconds for its collective;
    /// none if a piece would be too small or is no whole number of elements.
    pub fn gain(&mut self, function: &Function, region: &Region, count: usize, exposed: f64) -> Option<f64> {
        let (mut whole, mut piece, mut travels, mut aside) = (0.0, 0.0, 0.0, 0.0);
        for (&id, step) in &region.steps {
            let node = &function.nodes[id];
            let Inst::Op(op) = &node.inst else { return None };
            let result = node.ty.tensor()?;
            let mut args = Types::new();
            for (arg, cut) in node.args.iter().zip(&step.args) {
                let ty = function.ty(*arg).tensor()?;
                args.push(cut.map_or_else(|| ty.clone(), |cut| smaller(ty, cut, count)));
                if let Some(cut) = cut.filter(|cut| !region.steps.contains_key(arg) && !is_run(ty, *cut)) {
                    aside += count as f64 * self.moved(&smaller(ty, cut, count));
                }
            }
            let results: Types = [smaller(result, step.result, count)].into_iter().collect();
            let seconds = self.operator(op, &args, &results);
            if id == region.collective {
                travels = seconds;
                let piece = collective(op, &args, &results)?;
                if !self.exchanges.is_full(exchange(&piece, &args, &results)) {
                    return None;
                }
            } else {
                whole += self.node(function, id);
                piece += seconds;
            }
        }
        for id in &region.outputs {
            aside += self.moved(function.ty(*id).tensor()?);
        }
        // Two lanes: what comes first goes on without a break, and the other follows it piece by piece.
        let (first, second) = if region.gathers() { (travels, piece) } else { (piece, travels) };
        let both = first + second + (count as f64 - 1.0) * first.max(second);
        Some(whole + exposed - both - aside)
    }

    /// Seconds in which a tensor is copied.
    fn moved(&self, ty: &TensorType) -> f64 {
        let types: Types = [ty.clone()].into_iter().collect();
        self.kernel(Work { products: 0, elementwise: 0, bytes: 2 * bytes(&types) }, &types, &types)
    }
}

/// The kind and the group of a collective that takes so many tensors.
fn collective(op: &Op, from: &Types, to: &Types) -> Option<(CollectKind, Vec<Name>)> {
    let dtype = to.first().map_or(DType::F32, |ty| ty.dtype);
    let (kind, group, _) = unroll::collect_kind(op.collective()?, dtype, from.len())?;
    Some((kind, group))
}

fn exchange<'a>((kind, group): &'a (CollectKind, Vec<Name>), from: &Types, to: &Types) -> Exchange<'a> {
    Exchange { kind, group, from: smallvec![bytes(from)], to: smallvec![bytes(to)] }
}

fn bytes(types: &Types) -> u64 {
    types.iter().map(|ty| ty.bytes() as u64).sum()
}

/// Whether pieces are runs of memory.
pub fn is_run(ty: &TensorType, cut: Cut) -> bool {
    cut.outer == 1 && ty.dims[..cut.dim].iter().all(|dim| dim.size == 1)
}

/// The type of one of `count` pieces.
pub fn smaller(ty: &TensorType, cut: Cut, count: usize) -> TensorType {
    let mut ty = ty.clone();
    ty.dims[cut.dim].size /= count;
    ty
}
