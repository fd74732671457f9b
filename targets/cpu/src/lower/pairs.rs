//! Runs over pairs of neighbours, as in interleaved rotary embedding: lanes are picked and woven instead of gathered.

use ir::{Inst, NodeId, Op};
use types::DType;

use super::LowerError;
use super::apply::load;
use super::coord::Coord;
use super::eval::{Eval, runs, widen};
use crate::emit::{Emitter, Val};

impl Eval<'_> {
    /// A run over two tensors joined element by element, `reshape(concat(a[.., 1], b[.., 1]))`: half a run of each, woven.
    pub fn interleaved(&mut self, e: &mut Emitter, node: NodeId, at: &[Coord]) -> Result<Option<Val>, LowerError> {
        let function = self.function;
        let (Inst::Op(Op::Reshape(_)), &[joined]) = (&function.nodes[node].inst, &function.nodes[node].args[..]) else {
            return Ok(None);
        };
        let (Inst::Op(Op::Concat(op)), &[a, b]) = (&function.nodes[joined].inst, &function.nodes[joined].args[..])
        else {
            return Ok(None);
        };
        let (ty, pairs) = (self.ty(node)?, self.ty(joined)?);
        let single = |node| self.ty(node).map(|ty| ty.dims.last().is_some_and(|dim| dim.size == 1));
        if pairs.dims.last().is_none_or(|last| last.name != op.dim) || !single(a)? || !single(b)? {
            return Ok(None);
        }
        let lanes = self.lanes;
        // The last dim is the halves by the pair; the others are as they were.
        let mut inner = Vec::new();
        let mut woven = false;
        for (to, from) in runs(ty, pairs) {
            match at[to.clone()] {
                [Coord::Run { first, step: 1, multiple }]
                    if from.end == pairs.rank() && from.len() == 2 && multiple % 2 == 0 && lanes.is_multiple_of(2) =>
                {
                    let (two, zero) = (e.i64(2), e.i64(0));
                    let first = e.div_unsigned(first, two);
                    inner.push(Coord::Run { first, step: 1, multiple: multiple / 2 });
                    inner.push(Coord::one(zero));
                    woven = true;
                }
                [one] if from.len() == 1 && one.is_one() => inner.push(one),
                [] => {
                    let zero = e.i64(0);
                    inner.extend(from.map(|_| Coord::one(zero)));
                }
                _ => return Ok(None),
            }
        }
        if !woven {
            return Ok(None);
        }
        let outer = (self.lanes, self.mask);
        let even: Vec<u32> = (0..lanes / 2).map(|lane| 2 * lane).collect();
        self.mask = self.mask.map(|mask| e.shuffle(mask, mask, &even));
        self.lanes = lanes / 2;
        let both = self.value(e, a, &inner).and_then(|a| Ok((a, self.value(e, b, &inner)?)));
        (self.lanes, self.mask) = outer;
        let (a, b) = both?;
        let (a, b) = (widen(e, a, lanes / 2), widen(e, b, lanes / 2));
        let order: Vec<u32> = (0..lanes).map(|lane| lane / 2 + lane % 2 * (lanes / 2)).collect();
        Ok(Some(e.shuffle(a, b, &order)))
    }

    /// Loads a run of every second element; the elements between are not touched.
    pub fn every_second(&mut self, e: &mut Emitter, at: Val, dtype: DType) -> Val {
        let lanes = self.lanes;
        let mut mask = e.even_lanes(2 * lanes);
        if let Some(own) = self.mask {
            let twice: Vec<u32> = (0..2 * lanes).map(|lane| lane / 2).collect();
            let own = e.shuffle(own, own, &twice);
            mask = e.and(mask, own);
        }
        let all = load(e, at, dtype, 2 * lanes, Some(mask));
        let even: Vec<u32> = (0..lanes).map(|lane| 2 * lane).collect();
        e.shuffle(all, all, &even)
    }
}
