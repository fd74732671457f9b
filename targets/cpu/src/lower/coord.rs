//! Coordinates of elements: one number, a run of lanes, or any vector; and their arithmetic by constants.

use crate::emit::{Elem, Emitter, Ty, Val};

/// An index along one dim.
#[derive(Clone, Copy, Debug)]
pub enum Coord {
    /// The same in all lanes; `multiple` divides it.
    One { at: Val, multiple: u64 },
    /// `first + lane * step`; `multiple` divides `first`.
    Run { first: Val, step: i64, multiple: u64 },
    /// Any vector of `i64`.
    Any(Val),
}

/// What tells two coordinates apart.
pub type Key = (u8, u64, i64);

impl Coord {
    pub fn one(at: Val) -> Coord {
        Coord::One { at, multiple: at.known().map_or(1, |value| value.unsigned_abs()) }
    }

    pub fn key(&self) -> Key {
        match self {
            Coord::One { at, .. } => (0, at.key(), 0),
            Coord::Run { first, step, .. } => (1, first.key(), *step),
            Coord::Any(vector) => (2, vector.key(), 0),
        }
    }

    pub fn is_one(&self) -> bool {
        matches!(self, Coord::One { .. })
    }
}

/// `coord * factor`.
pub fn scale(e: &mut Emitter, coord: Coord, factor: u64) -> Coord {
    if factor == 1 {
        return coord;
    }
    let by = e.i64(factor as i64);
    match coord {
        Coord::One { at, multiple } => Coord::One { at: e.mul(at, by), multiple: multiple.saturating_mul(factor) },
        Coord::Run { first, step, multiple } => Coord::Run {
            first: e.mul(first, by),
            step: step * factor as i64,
            multiple: multiple.saturating_mul(factor),
        },
        Coord::Any(vector) => {
            let by = e.int(vector.ty, factor as i64);
            Coord::Any(e.mul(vector, by))
        }
    }
}

pub fn add(e: &mut Emitter, a: Coord, b: Coord) -> Coord {
    match (a, b) {
        (Coord::One { at: x, multiple: m }, Coord::One { at: y, multiple: n }) => {
            Coord::One { at: e.add(x, y), multiple: gcd(m, n) }
        }
        (Coord::One { at, multiple: m }, Coord::Run { first, step, multiple: n })
        | (Coord::Run { first, step, multiple: n }, Coord::One { at, multiple: m }) => {
            Coord::Run { first: e.add(first, at), step, multiple: gcd(m, n) }
        }
        (Coord::Run { first: x, step: s, multiple: m }, Coord::Run { first: y, step: t, multiple: n }) => {
            Coord::Run { first: e.add(x, y), step: s + t, multiple: gcd(m, n) }
        }
        (Coord::Any(vector), other) | (other, Coord::Any(vector)) => {
            let other = lanes(e, other, vector.ty.lanes);
            Coord::Any(e.add(vector, other))
        }
    }
}

/// `coord + shift`.
pub fn shift(e: &mut Emitter, coord: Coord, by: i64) -> Coord {
    let by = e.i64(by);
    add(e, coord, Coord::one(by))
}

/// The coordinate as a vector.
pub fn lanes(e: &mut Emitter, coord: Coord, count: u32) -> Val {
    match coord {
        Coord::One { at, .. } => e.broadcast(at, count),
        Coord::Any(vector) => vector,
        Coord::Run { first, step, .. } => run(e, first, step, count),
    }
}

/// The coordinate as a vector of 32 bits, of which a register holds twice as many.
pub fn narrow_lanes(e: &mut Emitter, coord: Coord, count: u32) -> Val {
    match coord {
        Coord::Run { first, step, .. } => {
            let first = e.truncate(first, Elem::I32);
            run(e, first, step, count)
        }
        other => {
            let wide = lanes(e, other, count);
            e.truncate(wide, Elem::I32)
        }
    }
}

fn run(e: &mut Emitter, first: Val, step: i64, count: u32) -> Val {
    let ty = Ty::vector(first.ty.elem, count);
    let (steps, step) = (e.steps(ty), e.int(ty, step));
    let steps = e.mul(steps, step);
    let first = e.broadcast(first, count);
    e.add(first, steps)
}

/// `(coord / size, coord % size)`. A run stays one where it cannot cross a multiple of `size`.
pub fn split(e: &mut Emitter, coord: Coord, size: u64, count: u32) -> (Coord, Coord) {
    let by = e.i64(size as i64);
    match coord {
        Coord::One { at, multiple } => {
            let quotient = if multiple.is_multiple_of(size) { multiple / size } else { 1 };
            let quotient = Coord::One { at: e.div_unsigned(at, by), multiple: quotient };
            (quotient, Coord::One { at: e.rem_unsigned(at, by), multiple: gcd(multiple, size) })
        }
        Coord::Run { first, step: 1, multiple }
            if size.is_multiple_of(u64::from(count)) && multiple.is_multiple_of(u64::from(count)) =>
        {
            let quotient = Coord::One { at: e.div_unsigned(first, by), multiple: 1 };
            (quotient, Coord::Run { first: e.rem_unsigned(first, by), step: 1, multiple: gcd(multiple, size) })
        }
        _ => {
            // In 32 bits: the vector instructions have no 64-bit division.
            let wide = lanes(e, coord, count);
            let narrow = e.truncate(wide, Elem::I32);
            let by = e.int(narrow.ty, size as i64);
            let (quotient, rest) = (e.div_unsigned(narrow, by), e.rem_unsigned(narrow, by));
            let quotient = e.extend_unsigned(quotient, Elem::I64);
            (Coord::Any(quotient), Coord::Any(e.extend_unsigned(rest, Elem::I64)))
        }
    }
}

/// The row-major linear index of `coords` in a box of `sizes`.
pub fn ravel(e: &mut Emitter, coords: &[Coord], sizes: &[u64]) -> Coord {
    let zero = e.i64(0);
    let mut sum = Coord::One { at: zero, multiple: 0 };
    let mut stride = 1;
    for (&coord, &size) in coords.iter().zip(sizes).rev() {
        let term = scale(e, coord, stride);
        sum = add(e, sum, term);
        stride *= size;
    }
    sum
}

/// The coordinates of a linear index.
pub fn unravel(e: &mut Emitter, index: Coord, sizes: &[u64], count: u32) -> Vec<Coord> {
    let zero = e.i64(0);
    let mut coords = vec![Coord::one(zero); sizes.len()];
    let mut rest = index;
    for axis in (0..sizes.len()).rev() {
        if sizes[axis] == 1 {
            continue;
        }
        if sizes[..axis].iter().all(|&size| size == 1) {
            coords[axis] = rest;
            break;
        }
        (rest, coords[axis]) = split(e, rest, sizes[axis], count);
    }
    coords
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
