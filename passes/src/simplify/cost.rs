//! What an operator costs, to choose among equal ones: arithmetic, bytes of memory, bytes between ranks; each operator
//! taken as a kernel of its own.

use ir::{Class, Inst, Op, Type};
use types::TensorType;

use super::facts::Graph;
use super::term::Term;

/// A kernel of its own is worth a few elements.
const LAUNCH: u64 = 8;

/// A byte between ranks counts as this many bytes of memory: links are slower by about as much.
const WIRE: u64 = 16;
/// What a link carries in the time that it takes to start a collective.
const START: u64 = 256 << 10;

pub fn of(graph: &Graph, term: &Term, ty: &Type) -> u64 {
    let op = match &term.kind.inst {
        Inst::Op(op) => op,
        // Nothing else is ever rewritten, so all it takes is to be the same in any comparison.
        Inst::Param(_) | Inst::Get(_) => return 0,
        _ => return LAUNCH,
    };
    let results: Vec<TensorType> = ty.tensors().cloned().collect();
    let written: u64 = results.iter().map(|t| t.bytes() as u64).sum();
    match op {
        Op::Constant(_) => return 1,
        // Computed by whoever reads it.
        Op::Iota(_) => return 2,
        Op::Table(_) => return 3 + written,
        _ => {}
    }
    if op.class() == Class::View {
        return 1;
    }
    let args: Vec<&TensorType> = term.children.iter().filter_map(|&c| graph[c].data.ty.tensor()).collect();
    let read: u64 = args.iter().map(|t| t.bytes() as u64).sum();
    if let Some(sent) = sent(op, &args, read, written) {
        return sent.saturating_add(START).saturating_mul(WIRE);
    }
    LAUNCH.saturating_add(op.flops(&args, &results)).saturating_add(written).saturating_add(read)
}

/// Bytes that one rank sends in a collective, by the bandwidth-optimal algorithm.
fn sent(op: &Op, args: &[&TensorType], read: u64, written: u64) -> Option<u64> {
    let first = args.first().and_then(|t| t.dims.first()).map_or(1, |d| d.size);
    let (whole, ranks) = match op {
        Op::AllReduce(op) => (2 * read, op.ranks),
        Op::AllGather(op) => (written, op.dim.size),
        Op::ReduceScatter(_) | Op::AllToAll(_) => (read, first),
        Op::Permute(_) => return Some(read),
        _ => return None,
    };
    Some(whole / ranks.max(1) as u64 * (ranks.max(1) as u64 - 1))
}
