//! Loops, branches, calls, and the split of work into parts.

use super::{Elem, Emitter, Kernel, Ty, Val};

impl Emitter {
    /// A counted loop that carries values; `body` returns the next ones.
    pub fn for_each(
        &mut self,
        (from, to, step): (Val, Val, i64),
        carried: &[Val],
        body: impl FnOnce(&mut Emitter, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let step = self.i64(step);
        let index = self.fresh(Ty::I64);
        let inner: Vec<Val> = carried.iter().map(|value| self.fresh(value.ty)).collect();
        let result = self.fresh(Ty::I64);
        let types: Vec<String> = carried.iter().map(|value| value.ty.to_string()).collect();
        let types = types.join(", ");
        if carried.is_empty() {
            self.line(format_args!("scf.for {index} = {from} to {to} step {step} : i64 {{"));
        } else {
            let pairs: Vec<String> = inner.iter().zip(carried).map(|(a, b)| format!("{a} = {b}")).collect();
            let pairs = pairs.join(", ");
            let count = carried.len();
            self.line(format_args!(
                "{result}:{count} = scf.for {index} = {from} to {to} step {step} iter_args({pairs}) -> ({types}) : i64 {{"
            ));
        }
        self.body.depth += 1;
        let yielded = body(self, index, &inner);
        debug_assert_eq!(yielded.len(), carried.len());
        self.yield_values(&yielded);
        self.body.depth -= 1;
        self.line(format_args!("}}"));
        results(result, carried)
    }

    /// A counted loop that carries nothing.
    pub fn for_range(&mut self, range: (Val, Val, i64), body: impl FnOnce(&mut Emitter, Val)) {
        if let (Some(from), Some(to)) = (range.0.known, range.1.known) {
            if from >= to {
                return;
            }
            if to - from <= range.2 {
                return body(self, range.0);
            }
        }
        self.for_each(range, &[], |e, index, _| {
            body(e, index);
            Vec::new()
        });
    }

    /// `for index in 0..count`, in steps.
    pub fn for_count(&mut self, count: u64, step: u64, body: impl FnOnce(&mut Emitter, Val)) {
        let zero = self.i64(0);
        let to = self.i64(count as i64);
        self.for_range((zero, to, step as i64), body);
    }

    pub fn if_then(&mut self, condition: Val, body: impl FnOnce(&mut Emitter)) {
        self.line(format_args!("scf.if {condition} {{"));
        self.body.depth += 1;
        body(self);
        self.body.depth -= 1;
        self.line(format_args!("}}"));
    }

    /// A branch with values; both arms return the same types.
    pub fn if_else(
        &mut self,
        condition: Val,
        types: &[Ty],
        yes: impl FnOnce(&mut Emitter) -> Vec<Val>,
        no: impl FnOnce(&mut Emitter) -> Vec<Val>,
    ) -> Vec<Val> {
        let result = self.fresh(Ty::I64);
        let count = types.len();
        let list: Vec<String> = types.iter().map(Ty::to_string).collect();
        let list = list.join(", ");
        match count {
            0 => self.line(format_args!("scf.if {condition} {{")),
            _ => self.line(format_args!("{result}:{count} = scf.if {condition} -> ({list}) {{")),
        }
        self.body.depth += 1;
        let values = yes(self);
        self.yield_values(&values);
        self.body.depth -= 1;
        self.line(format_args!("}} else {{"));
        self.body.depth += 1;
        let values = no(self);
        self.yield_values(&values);
        self.body.depth -= 1;
        self.line(format_args!("}}"));
        let shape: Vec<Val> = types.iter().map(|&ty| Val { id: 0, result: None, known: None, ty }).collect();
        results(result, &shape)
    }

    fn yield_values(&mut self, values: &[Val]) {
        if values.is_empty() {
            return;
        }
        let names: Vec<String> = values.iter().map(Val::to_string).collect();
        let types: Vec<String> = values.iter().map(|value| value.ty.to_string()).collect();
        let (names, types) = (names.join(", "), types.join(", "));
        self.line(format_args!("scf.yield {names} : {types}"));
    }

    /// Calls a function of this module that returns nothing.
    pub fn call(&mut self, name: &str, args: &[Val]) {
        let names: Vec<String> = args.iter().map(Val::to_string).collect();
        let types: Vec<String> = args.iter().map(|value| value.ty.to_string()).collect();
        let (names, types) = (names.join(", "), types.join(", "));
        self.line(format_args!("func.call @{name}({names}) : ({types}) -> ()"));
    }

    /// This part's share `[from, to)` of `count` equal items, at most `max_parts` of the parts taking any.
    pub fn share(&mut self, kernel: &Kernel, count: u64, max_parts: u64) -> (Val, Val) {
        let count = self.i64(count as i64);
        self.share_of(kernel, count, max_parts)
    }

    /// The same of a number of items that is not known while emitting.
    pub fn share_of(&mut self, kernel: &Kernel, count: Val, max_parts: u64) -> (Val, Val) {
        let most = self.i64(max_parts as i64);
        let parts = self.min_int(kernel.parts, most);
        let part = self.min_int(kernel.part, parts);
        let one = self.i64(1);
        let next = self.add(part, one);
        let next = self.min_int(next, parts);
        let from = self.mul(count, part);
        let from = self.div_unsigned(from, parts);
        let to = self.mul(count, next);
        let to = self.div_unsigned(to, parts);
        (from, to)
    }

    /// Runs `body` on part 0 alone.
    pub fn on_first_part(&mut self, kernel: &Kernel, body: impl FnOnce(&mut Emitter)) {
        let zero = self.i64(0);
        let first = self.cmp(super::Cmp::Eq, kernel.part, zero);
        self.if_then(first, body);
    }

    /// The coordinates of the row-major linear `index` in a box of `sizes`.
    pub fn unravel(&mut self, index: Val, sizes: &[u64]) -> Vec<Val> {
        let mut rest = index;
        let zero = self.i64(0);
        let mut coordinates = vec![zero; sizes.len()];
        let outermost = sizes.iter().position(|&size| size != 1).unwrap_or(sizes.len());
        for axis in (outermost..sizes.len()).rev() {
            let size = self.i64(sizes[axis] as i64);
            if axis == outermost {
                coordinates[axis] = rest;
            } else {
                coordinates[axis] = self.rem_unsigned(rest, size);
                rest = self.div_unsigned(rest, size);
            }
        }
        coordinates
    }

    /// `true` in the lanes below `count`, an `i64` that may be negative or above the width.
    pub fn lanes_below(&mut self, count: Val) -> Val {
        let lanes = self.lanes();
        self.first_lanes(count, lanes)
    }

    /// The lanes of a vector at `index` that lie before `end`; `None` where all do, runs of `size` being whole vectors.
    pub fn lanes_before(&mut self, (index, end): (Val, Val), size: u64) -> Option<Val> {
        if size.is_multiple_of(u64::from(self.lanes())) {
            return None;
        }
        let left = self.sub(end, index);
        Some(self.lanes_below(left))
    }

    /// `true` in those of `lanes` that are below `count`.
    pub fn first_lanes(&mut self, count: Val, lanes: u32) -> Val {
        let ty = Ty::vector(Elem::I32, lanes);
        if let Some(known) = count.known {
            return self.constant(ty.with(Elem::I1), &mask_literal(lanes, known), None);
        }
        let steps = self.steps(ty);
        let width = self.i64(i64::from(ty.lanes));
        let zero = self.i64(0);
        let clipped = self.min_int(count, width);
        let clipped = self.max_int(clipped, zero);
        let narrow = self.truncate(clipped, Elem::I32);
        let bound = self.broadcast(narrow, ty.lanes);
        self.cmp(super::Cmp::Lt, steps, bound)
    }
}

impl Emitter {
    /// Whether `mask` is the constant that has the first lane and no other.
    pub(super) fn is_first_lane_alone(&mut self, mask: Val) -> bool {
        let first = self.constant(mask.ty, &mask_literal(mask.ty.lanes, 1), None);
        first.key() == mask.key()
    }
}

fn mask_literal(lanes: u32, count: i64) -> String {
    let list: Vec<&str> = (0..i64::from(lanes)).map(|lane| if lane < count { "true" } else { "false" }).collect();
    format!("dense<[{}]>", list.join(", "))
}

/// The results of a multi-result operation, shaped like `like`.
fn results(result: Val, like: &[Val]) -> Vec<Val> {
    like.iter()
        .enumerate()
        .map(|(index, value)| Val { id: result.id, result: Some(index as u16), known: None, ty: value.ty })
        .collect()
}
