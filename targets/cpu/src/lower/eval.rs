//! The value of any node at given coordinates: operands are asked at the coordinates they map to, reductions become loops.
//!
//! Values are remembered within the loop that computed them. Before a loop starts, whatever does not depend on it is
//! computed first, so that a reduction read by many elements is done once.

use std::collections::{BTreeMap, BTreeSet};

use ir::{Function, Inst, NodeId};
use types::{DType, TensorType};

use super::LowerError;
use super::apply::{apply, constant, load, stored, truth};
use super::coord::{self, Coord, Key};
use super::form::Form;
use crate::emit::{Cmp, Elem, Emitter, Ty, Val};

/// A node, its coordinates, and the mask and lanes that they are read under.
type MemoKey = (NodeId, Vec<Key>, u64, u32);
/// The same where not all coordinates are known yet.
type HoistKey = (NodeId, Vec<Option<Key>>, u64, u32);

/// What was computed within one loop.
#[derive(Default)]
struct Memo {
    values: BTreeMap<MemoKey, Val>,
    /// What was looked through for values that could be computed before the loops inside.
    hoisted: BTreeSet<HoistKey>,
}

/// So few operands of a `concat` are asked for one after another.
const FLAT: usize = 8;

/// Evaluates the nodes of one function.
pub struct Eval<'f> {
    pub function: &'f Function,
    /// Base addresses: parameters, and sources that are stored as tables.
    pub bases: BTreeMap<NodeId, Val>,
    /// Lanes of a run, and those that exist.
    pub lanes: u32,
    pub mask: Option<Val>,
    memo: Vec<Memo>,
}

impl<'f> Eval<'f> {
    pub fn new(function: &'f Function, bases: BTreeMap<NodeId, Val>) -> Eval<'f> {
        Eval { function, bases, lanes: 0, mask: None, memo: vec![Memo::default()] }
    }

    pub fn ty(&self, node: NodeId) -> Result<&'f TensorType, LowerError> {
        self.function.ty(node).tensor().ok_or_else(|| LowerError::new("a tuple inside a fused kernel"))
    }

    /// Runs `body` in a scope of its own: what it computes is forgotten.
    pub fn scope<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        self.memo.push(Memo::default());
        let result = body(self);
        self.memo.pop();
        result
    }

    pub fn value(&mut self, e: &mut Emitter, node: NodeId, at: &[Coord]) -> Result<Val, LowerError> {
        // One element is the same under any mask.
        let (mask, lanes) = if at.iter().all(Coord::is_one) { (None, 0) } else { (self.mask, self.lanes) };
        let key = (node, at.iter().map(Coord::key).collect(), mask.map_or(0, |mask| mask.key() + 1), lanes);
        if let Some(&value) = self.memo.iter().rev().find_map(|scope| scope.values.get(&key)) {
            return Ok(value);
        }
        let value = self.compute(e, node, at)?;
        if let Some(scope) = self.memo.last_mut() {
            scope.values.insert(key, value);
        }
        Ok(value)
    }

    fn compute(&mut self, e: &mut Emitter, node: NodeId, at: &[Coord]) -> Result<Val, LowerError> {
        if self.bases.contains_key(&node) {
            return self.element(e, node, at);
        }
        let data = &self.function.nodes[node];
        let ty = self.ty(node)?;
        let args = data.args.clone();
        let Inst::Op(op) = &data.inst else { return Err(LowerError::new("a call inside a fused kernel")) };
        let form = Form::of(op);
        match form {
            Form::Constant(op) => Ok(constant(e, op.value, op.dtype)),
            Form::Iota => Ok(self.iota(e, ty.dtype, at[0])),
            Form::Slice(_) | Form::Reshape | Form::Renamed => {
                if let Some(value) = self.interleaved(e, node, at)? {
                    return Ok(value);
                }
                let arg = self.ty(args[0])?;
                let mapped = match form {
                    Form::Slice(op) => {
                        let place = ty.position(&op.dim).unwrap_or(0);
                        let mut at = at.to_vec();
                        at[place] = coord::shift(e, at[place], op.start as i64);
                        at
                    }
                    Form::Reshape => reshaped(e, ty, arg, at, self.lanes),
                    _ => named(ty, arg, at),
                };
                self.value(e, args[0], &mapped)
            }
            Form::Concat(dim) => self.concat(e, ty.position(dim).unwrap_or(0), &args, at),
            Form::Pad(op) => {
                let place = ty.position(&op.dim).unwrap_or(0);
                let outside = constant(e, op.value, ty.dtype);
                let mut at = at.to_vec();
                at[place] = coord::shift(e, at[place], -(op.before as i64));
                self.padded(e, args[0], place, outside, at)
            }
            Form::Window(op) => {
                let place = ty.position(&op.dim).unwrap_or(0);
                let start = self.value(e, args[1], &[])?;
                let outside = constant(e, 0.0, ty.dtype);
                let mut at = at.to_vec();
                at[place] = coord::add(e, at[place], Coord::one(start));
                self.padded(e, args[0], place, outside, at)
            }
            Form::Gather(op) => self.gather(e, (ty, op), &args, at),
            Form::Fold(fold, dims) => self.reduce(e, node, args[0], dims, fold, at),
            Form::Elementwise(scalar) => {
                let mut values = Vec::new();
                for &arg in &args {
                    let own = named(ty, self.ty(arg)?, at);
                    values.push(self.value(e, arg, &own)?);
                }
                let from = self.ty(*args.first().ok_or_else(|| LowerError::new("an operator of nothing"))?)?.dtype;
                apply(e, scalar, &values, from, ty.dtype)
                    .ok_or_else(|| LowerError::new(format!("no code for `{}` on {from}", op.name())))
            }
            Form::Table | Form::Whole(_) | Form::Composite | Form::Collective => {
                Err(LowerError::new(format!("no code for `{}` inside a fused kernel", op.name())))
            }
        }
    }

    /// Loads an element of a buffer.
    fn element(&mut self, e: &mut Emitter, node: NodeId, at: &[Coord]) -> Result<Val, LowerError> {
        let ty = self.ty(node)?;
        let base = self.bases[&node];
        let elem = stored(ty.dtype);
        let sizes: Vec<u64> = ty.dims.iter().map(|dim| dim.size as u64).collect();
        Ok(match coord::ravel(e, at, &sizes) {
            Coord::One { at, .. } => {
                let at = e.at(base, elem, at);
                load(e, at, ty.dtype, 0, None)
            }
            Coord::Run { first, step: 1, .. } => {
                let at = e.at(base, elem, first);
                load(e, at, ty.dtype, self.lanes, self.mask)
            }
            Coord::Run { first, step: 2, .. } => {
                let at = e.at(base, elem, first);
                self.every_second(e, at, ty.dtype)
            }
            other => {
                let indices = coord::lanes(e, other, self.lanes);
                let pointers = e.pointers(base, elem, indices);
                let mask = self.mask.unwrap_or_else(|| e.int(Ty::vector(Elem::I1, self.lanes), 1));
                let raw = e.gather(pointers, elem, mask);
                truth(e, raw, ty.dtype)
            }
        })
    }

    fn iota(&mut self, e: &mut Emitter, dtype: DType, at: Coord) -> Val {
        let held = super::apply::held(dtype);
        let index = match at {
            Coord::One { at, .. } if held == Elem::I32 => e.truncate(at, Elem::I32),
            Coord::One { at, .. } => at,
            run if held == Elem::I32 => coord::narrow_lanes(e, run, self.lanes),
            run => coord::lanes(e, run, self.lanes),
        };
        match held {
            Elem::I64 | Elem::I32 => index,
            Elem::I1 => {
                let zero = e.int(index.ty, 0);
                e.cmp(Cmp::Ne, index, zero)
            }
            elem => {
                let value = e.int_to_float(index, elem);
                e.round_through(value, stored(dtype))
            }
        }
    }

    fn concat(&mut self, e: &mut Emitter, place: usize, args: &[NodeId], at: &[Coord]) -> Result<Val, LowerError> {
        let (&arg, rest) = args.split_first().ok_or_else(|| LowerError::new("`concat` of nothing"))?;
        if rest.is_empty() {
            return self.value(e, arg, at);
        }
        // Branches nest as deep as the logarithm of the number of operands.
        let (front, rest) = args.split_at(if args.len() <= FLAT { 1 } else { args.len() / 2 });
        let mut size = 0;
        for &arg in front {
            size += self.ty(arg)?.dims[place].size as i64;
        }
        let mut beyond = at.to_vec();
        beyond[place] = coord::shift(e, at[place], -size);
        let bound = e.i64(size);
        match at[place] {
            Coord::One { at: index, .. } => {
                let first = e.cmp(Cmp::Lt, index, bound);
                // The type is known only once the arms are written; both are written apart for that.
                let lanes = if at.iter().all(Coord::is_one) { 0 } else { self.lanes };
                let ty = Ty::vector(super::apply::held(self.ty(arg)?.dtype), lanes);
                let mut failed = None;
                let values = {
                    let this = std::cell::RefCell::new(&mut *self);
                    let failure = std::cell::RefCell::new(&mut failed);
                    let arm = |e: &mut Emitter, value: &dyn Fn(&mut Self, &mut Emitter) -> Result<Val, LowerError>| {
                        let mut this = this.borrow_mut();
                        match this.scope(|this| value(this, e)) {
                            Ok(value) => vec![widen(e, value, lanes)],
                            Err(error) => {
                                **failure.borrow_mut() = Some(error);
                                vec![if ty.elem.is_float() { e.float(ty, 0.0) } else { e.int(ty, 0) }]
                            }
                        }
                    };
                    e.if_else(
                        first,
                        &[ty],
                        |e| arm(e, &|this, e| this.concat(e, place, front, at)),
                        |e| arm(e, &|this, e| this.concat(e, place, rest, &beyond)),
                    )
                };
                failed.map_or(Ok(values[0]), Err)
            }
            run => {
                let index = coord::lanes(e, run, self.lanes);
                let bound = e.int(index.ty, size);
                let first = e.cmp(Cmp::Lt, index, bound);
                let ones = e.int(first.ty, 1);
                let second = e.xor(first, ones);
                let a = self.masked(e, first, |this, e| this.concat(e, place, front, at))?;
                let b = self.masked(e, second, |this, e| this.concat(e, place, rest, &beyond))?;
                Ok(e.select(first, a, b))
            }
        }
    }

    /// The operand's element, or `outside` where the coordinate along `place` is not inside of it.
    fn padded(
        &mut self,
        e: &mut Emitter,
        arg: NodeId,
        place: usize,
        outside: Val,
        mut inner: Vec<Coord>,
    ) -> Result<Val, LowerError> {
        let size = self.ty(arg)?.dims[place].size as i64;
        match inner[place] {
            Coord::One { at: index, .. } => {
                let (zero, last) = (e.i64(0), e.i64(size - 1));
                let bound = e.i64(size);
                let exists = e.below(index, bound);
                let clipped = e.max_int(index, zero);
                let clipped = e.min_int(clipped, last);
                inner[place] = Coord::one(clipped);
                let value = self.value(e, arg, &inner)?;
                let outside = widen(e, outside, value.ty.lanes);
                Ok(e.select(exists, value, outside))
            }
            run => {
                let index = coord::lanes(e, run, self.lanes);
                let bound = e.int(index.ty, size);
                let exists = e.below(index, bound);
                let value = self.masked(e, exists, |this, e| this.value(e, arg, &inner))?;
                let outside = widen(e, outside, self.lanes);
                Ok(e.select(exists, value, outside))
            }
        }
    }

    /// Evaluates in the lanes of `condition` alone: a vector.
    fn masked(
        &mut self,
        e: &mut Emitter,
        condition: Val,
        body: impl FnOnce(&mut Self, &mut Emitter) -> Result<Val, LowerError>,
    ) -> Result<Val, LowerError> {
        let outer = self.mask;
        self.mask = Some(outer.map_or(condition, |mask| e.and(mask, condition)));
        let value = body(self, e);
        self.mask = outer;
        let value = value?;
        Ok(widen(e, value, self.lanes))
    }

    fn gather(
        &mut self,
        e: &mut Emitter,
        (ty, op): (&TensorType, &ir::ops::Gather),
        args: &[NodeId],
        at: &[Coord],
    ) -> Result<Val, LowerError> {
        let (table, ids) = (self.ty(args[0])?, self.ty(args[1])?);
        let place = table.position(&op.dim).unwrap_or(0);
        let rank = op.picked(table, ids).len();
        let id = self.value(e, args[1], &named(ty, ids, at))?;
        let id = e.extend_signed(id, Elem::I64);
        let size = e.int(id.ty, table.dims[place].size as i64);
        let exists = e.below(id, size);
        let zero = e.int(id.ty, 0);
        let safe = e.select(exists, id, zero);
        let mut inner = at[..place].to_vec();
        inner.push(if safe.ty.is_vector() { Coord::Any(safe) } else { Coord::one(safe) });
        inner.extend_from_slice(&at[place + rank..]);
        let value = self.value(e, args[0], &inner)?;
        if !value.ty.elem.is_float() {
            return Ok(value);
        }
        let value = widen(e, value, exists.ty.lanes.max(value.ty.lanes));
        let nan = e.float(value.ty, f64::NAN);
        Ok(e.select(exists, value, nan))
    }

    /// Computes now whatever under `node` is already determined by the coordinates given.
    pub fn hoist(&mut self, e: &mut Emitter, node: NodeId, at: &[Option<Coord>]) -> Result<(), LowerError> {
        if self.bases.contains_key(&node) {
            return Ok(());
        }
        let data = &self.function.nodes[node];
        let Inst::Op(op) = &data.inst else { return Ok(()) };
        if let Some(known) = at.iter().copied().collect::<Option<Vec<Coord>>>() {
            return self.value(e, node, &known).map(|_| ());
        }
        // Each node once: a graph has many more paths than nodes.
        let key: HoistKey = {
            let coords = at.iter().map(|coord| coord.as_ref().map(Coord::key)).collect();
            (node, coords, self.mask.map_or(0, |mask| mask.key() + 1), self.lanes)
        };
        if self.memo.iter().any(|scope| scope.hoisted.contains(&key)) {
            return Ok(());
        }
        if let Some(scope) = self.memo.last_mut() {
            scope.hoisted.insert(key);
        }
        let ty = self.ty(node)?;
        let args = data.args.clone();
        match Form::of(op) {
            Form::Constant(_) | Form::Iota | Form::Table | Form::Concat(_) | Form::Pad(_) => Ok(()),
            Form::Window(_) => self.hoist(e, args[1], &[]),
            Form::Slice(op) => {
                let place = ty.position(&op.dim).unwrap_or(0);
                let mut at = at.to_vec();
                at[place] = at[place].map(|coord| coord::shift(e, coord, op.start as i64));
                self.hoist(e, args[0], &at)
            }
            Form::Reshape => {
                let arg = self.ty(args[0])?;
                let at = reshaped_where_known(e, ty, arg, at, self.lanes);
                self.hoist(e, args[0], &at)
            }
            Form::Gather(_) => {
                let own = named_where_known(ty, self.ty(args[1])?, at);
                self.hoist(e, args[1], &own)
            }
            Form::Elementwise(_)
            | Form::Renamed
            | Form::Fold(..)
            | Form::Whole(_)
            | Form::Composite
            | Form::Collective => {
                for &arg in &args {
                    let own = named_where_known(ty, self.ty(arg)?, at);
                    self.hoist(e, arg, &own)?;
                }
                Ok(())
            }
        }
    }
}

/// How a reduction joins values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    Sum,
    Max,
}

/// A scalar in all of `lanes`; a vector as it is.
pub fn widen(e: &mut Emitter, value: Val, lanes: u32) -> Val {
    if value.ty.lanes == lanes { value } else { e.broadcast(value, lanes) }
}

/// The coordinates of an operand whose dims are among the result's.
pub fn named(ty: &TensorType, arg: &TensorType, at: &[Coord]) -> Vec<Coord> {
    arg.dims.iter().filter_map(|dim| ty.position(&dim.name)).map(|place| at[place]).collect()
}

fn named_where_known(ty: &TensorType, arg: &TensorType, at: &[Option<Coord>]) -> Vec<Option<Coord>> {
    arg.dims.iter().map(|dim| ty.position(&dim.name).and_then(|place| at[place])).collect()
}

/// Runs of dims that cover the same elements in both shapes.
pub fn runs(to: &TensorType, from: &TensorType) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let (mut i, mut j) = (0, 0);
    let mut runs = Vec::new();
    while i < to.rank() || j < from.rank() {
        let (i0, j0) = (i, j);
        let (mut a, mut b) = (1, 1);
        if i < to.rank() {
            a = to.dims[i].size;
            i += 1;
        }
        if j < from.rank() {
            b = from.dims[j].size;
            j += 1;
        }
        while a != b {
            if a < b && i < to.rank() {
                a *= to.dims[i].size;
                i += 1;
            } else if j < from.rank() {
                b *= from.dims[j].size;
                j += 1;
            } else {
                break;
            }
        }
        runs.push((i0..i, j0..j));
    }
    runs
}

fn box_of(ty: &TensorType, dims: std::ops::Range<usize>) -> Vec<u64> {
    ty.dims[dims].iter().map(|dim| dim.size as u64).collect()
}

fn reshaped(e: &mut Emitter, ty: &TensorType, arg: &TensorType, at: &[Coord], lanes: u32) -> Vec<Coord> {
    let mut out = Vec::new();
    for (to, from) in runs(ty, arg) {
        if to.len() == 1 && from.len() == 1 {
            out.push(at[to.start]);
            continue;
        }
        let linear = coord::ravel(e, &at[to.clone()], &box_of(ty, to));
        out.extend(coord::unravel(e, linear, &box_of(arg, from), lanes));
    }
    out
}

fn reshaped_where_known(
    e: &mut Emitter,
    ty: &TensorType,
    arg: &TensorType,
    at: &[Option<Coord>],
    lanes: u32,
) -> Vec<Option<Coord>> {
    let mut out = Vec::new();
    for (to, from) in runs(ty, arg) {
        match at[to.clone()].iter().copied().collect::<Option<Vec<Coord>>>() {
            Some(known) if to.len() == 1 && from.len() == 1 => out.push(Some(known[0])),
            Some(known) => {
                let linear = coord::ravel(e, &known, &box_of(ty, to));
                out.extend(coord::unravel(e, linear, &box_of(arg, from), lanes).into_iter().map(Some));
            }
            None => out.extend(from.map(|_| None)),
        }
    }
    out
}
