//! Whole-vector operations: broadcast, shuffle, horizontal reductions, transposition.

use super::{Elem, Emitter, Ty, Val};

impl Emitter {
    /// `a` in all lanes.
    pub fn broadcast(&mut self, a: Val, lanes: u32) -> Val {
        let ty = Ty::vector(a.ty.elem, lanes);
        self.op(ty, format_args!("vector.broadcast {a} : {} to {ty}", a.ty))
    }

    /// `a` in all lanes of a full vector.
    pub fn splat(&mut self, a: Val) -> Val {
        let lanes = self.lanes();
        self.broadcast(a, lanes)
    }

    pub fn extract(&mut self, a: Val, lane: u32) -> Val {
        let ty = Ty::scalar(a.ty.elem);
        self.op(ty, format_args!("vector.extract {a}[{lane}] : {ty} from {}", a.ty))
    }

    /// Lanes picked from `a` followed by `b`.
    pub fn shuffle(&mut self, a: Val, b: Val, lanes: &[u32]) -> Val {
        let ty = Ty::vector(a.ty.elem, lanes.len() as u32);
        let list: Vec<String> = lanes.iter().map(u32::to_string).collect();
        let list = list.join(", ");
        self.op(ty, format_args!("vector.shuffle {a}, {b} [{list}] : {}, {}", a.ty, b.ty))
    }

    /// Folds the lanes pairwise, halves first: the order is the same on every machine of one width.
    pub fn fold_lanes(&mut self, a: Val, mut combine: impl FnMut(&mut Emitter, Val, Val) -> Val) -> Val {
        let mut rest = a;
        while rest.ty.lanes > 1 {
            let half = rest.ty.lanes / 2;
            let low: Vec<u32> = (0..half).collect();
            let high: Vec<u32> = (half..2 * half).collect();
            let (low, high) = (self.shuffle(rest, rest, &low), self.shuffle(rest, rest, &high));
            rest = combine(self, low, high);
        }
        self.extract(rest, 0)
    }

    /// The sum of the lanes, pairwise.
    pub fn sum_lanes(&mut self, a: Val) -> Val {
        self.fold_lanes(a, |e, x, y| e.add(x, y))
    }

    /// The transpose of a square of `rows.len()` vectors with as many lanes.
    pub fn transpose(&mut self, mut rows: Vec<Val>) -> Vec<Val> {
        let count = rows.len() as u32;
        let mut block = 1;
        while block < count {
            let first: Vec<u32> = (0..count).map(|j| if j & block == 0 { j } else { count + j - block }).collect();
            let second: Vec<u32> = (0..count).map(|j| if j & block == 0 { j + block } else { count + j }).collect();
            for row in 0..count {
                if row & block == 0 {
                    let (a, b) = (rows[row as usize], rows[(row + block) as usize]);
                    rows[row as usize] = self.shuffle(a, b, &first);
                    rows[(row + block) as usize] = self.shuffle(a, b, &second);
                }
            }
            block *= 2;
        }
        rows
    }

    /// `true` in the even ones of `lanes`.
    pub fn even_lanes(&mut self, lanes: u32) -> Val {
        let bits: Vec<&str> = (0..lanes).map(|lane| if lane % 2 == 0 { "true" } else { "false" }).collect();
        self.constant(Ty::vector(Elem::I1, lanes), &format!("dense<[{}]>", bits.join(", ")), None)
    }

    /// A full vector of `i64` lane numbers plus `start`.
    pub fn lane_index(&mut self, start: Val) -> Val {
        let ty = Ty::vector(Elem::I64, self.lanes());
        let steps = self.steps(ty);
        let start = self.splat(start);
        self.add(start, steps)
    }
}
