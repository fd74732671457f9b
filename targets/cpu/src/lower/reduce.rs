//! Reductions inside fused kernels, in an order fixed by the reduction alone.
//!
//! Where the operand's last dim is reduced, lanes run along it and are folded pairwise at the end; otherwise each result
//! element is one sequential sum, in lanes or not. Sums go in blocks, each into its own accumulator: errors then grow
//! with the number of blocks, not of elements.

use ir::NodeId;
use types::{Name, TensorType};

use super::LowerError;
use super::apply::{extreme, held, stored};
use super::coord::Coord;
use super::eval::{Eval, Fold, widen};
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};

/// Elements, or vectors, that are summed into one accumulator.
const BLOCK: u64 = 64;

/// Whether lanes run along the reduced dims of `arg`.
pub fn along_lanes(arg: &TensorType, dims: &[Name]) -> bool {
    arg.dims.last().is_some_and(|last| dims.contains(&last.name) && last.size > 1)
}

/// Lanes for a run of `size` elements: several registers where there is work for them.
pub fn run_lanes(width: u32, size: u64) -> u32 {
    if size >= u64::from(4 * width) { 4 * width } else { width }
}

struct Loop {
    place: usize,
    size: u64,
    step: u64,
}

impl Eval<'_> {
    pub fn reduce(
        &mut self,
        e: &mut Emitter,
        node: NodeId,
        arg: NodeId,
        dims: &[Name],
        fold: Fold,
        at: &[Coord],
    ) -> Result<Val, LowerError> {
        let (ty, operand) = (self.ty(node)?, self.ty(arg)?);
        let inner: Vec<Option<Coord>> =
            operand.dims.iter().map(|dim| ty.position(&dim.name).map(|place| at[place])).collect();
        let lanewise = along_lanes(operand, dims);
        if lanewise && !at.iter().all(Coord::is_one) {
            return Err(LowerError::new("a reduction along lanes is read in lanes"));
        }
        let last = operand.rank().wrapping_sub(1);
        let lanes = match (lanewise, at.iter().all(Coord::is_one)) {
            (true, _) => run_lanes(e.lanes(), operand.dims[last].size as u64),
            (false, true) => 0,
            (false, false) => self.lanes,
        };
        let loops: Vec<Loop> = (0..operand.rank())
            .filter(|&place| inner[place].is_none())
            .map(|place| {
                let step = if lanewise && place == last { u64::from(lanes) } else { 1 };
                Loop { place, size: operand.dims[place].size as u64, step }
            })
            .collect();

        let held_ty = Ty::vector(held(operand.dtype), lanes);
        let neutral = neutral(e, fold, held_ty);
        let outer = (self.lanes, self.mask);
        if lanewise {
            (self.lanes, self.mask) = (lanes, None);
        }
        let sum = self.sweep(e, arg, &loops, inner, fold, neutral);
        (self.lanes, self.mask) = outer;
        let mut sum = sum?;
        if lanewise {
            sum = e.fold_lanes(sum, |e, x, y| join(e, fold, x, y));
        }
        Ok(e.round_through(sum, stored(ty.dtype)))
    }

    /// Folds over `loops`, outermost first.
    fn sweep(
        &mut self,
        e: &mut Emitter,
        arg: NodeId,
        loops: &[Loop],
        at: Vec<Option<Coord>>,
        fold: Fold,
        neutral: Val,
    ) -> Result<Val, LowerError> {
        let Some((this, rest)) = loops.split_first() else {
            let known: Vec<Coord> = at.into_iter().flatten().collect();
            let value = self.value(e, arg, &known)?;
            return Ok(widen(e, value, neutral.ty.lanes));
        };
        self.hoist(e, arg, &at)?;
        let block = this.step * BLOCK;
        let (zero, end) = (e.i64(0), e.i64(this.size as i64));
        if this.size <= 2 * block {
            return self.block(e, (zero, end), arg, (this, rest), &at, fold, neutral);
        }
        let mut failed = Ok(());
        let total = e.for_each((zero, end, block as i64), &[neutral], |e, start, total| {
            let size = e.i64(block as i64);
            let stop = e.add(start, size);
            let stop = e.min_int(stop, end);
            match self.scope(|this_| this_.block(e, (start, stop), arg, (this, rest), &at, fold, neutral)) {
                Ok(part) => vec![join(e, fold, total[0], part)],
                Err(error) => {
                    failed = Err(error);
                    vec![total[0]]
                }
            }
        });
        failed.map(|()| total[0])
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a recursion")]
    fn block(
        &mut self,
        e: &mut Emitter,
        (start, stop): (Val, Val),
        arg: NodeId,
        (this, rest): (&Loop, &[Loop]),
        at: &[Option<Coord>],
        fold: Fold,
        neutral: Val,
    ) -> Result<Val, LowerError> {
        let mut failed = Ok(());
        let total = e.for_each((start, stop, this.step as i64), &[neutral], |e, index, total| {
            let value = self.scope(|eval| {
                let mut at = at.to_vec();
                let mut mask = None;
                at[this.place] = Some(match this.step {
                    1 => Coord::One { at: index, multiple: 1 },
                    step => {
                        if !this.size.is_multiple_of(step) {
                            let size = e.i64(this.size as i64);
                            let left = e.sub(size, index);
                            mask = Some(e.first_lanes(left, step as u32));
                            eval.mask = mask;
                        }
                        Coord::Run { first: index, step: 1, multiple: step }
                    }
                });
                let value = eval.sweep(e, arg, rest, at, fold, neutral);
                if mask.is_some() {
                    eval.mask = None;
                }
                value.map(|value| match mask {
                    Some(mask) => e.select(mask, value, neutral),
                    None => value,
                })
            });
            match value {
                Ok(value) => vec![join(e, fold, total[0], value)],
                Err(error) => {
                    failed = Err(error);
                    vec![total[0]]
                }
            }
        });
        failed.map(|()| total[0])
    }
}

fn neutral(e: &mut Emitter, fold: Fold, ty: Ty) -> Val {
    match (fold, ty.elem.is_float()) {
        (Fold::Sum, true) => e.float(ty, 0.0),
        (Fold::Sum, false) => e.int(ty, 0),
        (Fold::Max, true) => e.float(ty, f64::NEG_INFINITY),
        (Fold::Max, false) => e.int(ty, if ty.elem == Elem::I64 { i64::MIN } else { i64::from(i32::MIN) }),
    }
}

fn join(e: &mut Emitter, fold: Fold, a: Val, b: Val) -> Val {
    match fold {
        Fold::Sum => e.add(a, b),
        Fold::Max => extreme(e, Cmp::Gt, a, b),
    }
}
