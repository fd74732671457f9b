//! Two towers over inputs of one name: several programs in one plan.

use mm::prelude::*;

dims! { B, ROWS = 2, IN = 3, WIDE = 9, OUT = 2 }

#[derive(Module)]
pub struct Towers {
    narrow: Param,
    wide: Param,
    both: Param,
}

impl Towers {
    pub fn new() -> Self {
        let both = Param::normal([OUT], 1.0);
        Self { narrow: Param::normal([OUT, IN], 0.5), wide: Param::normal([OUT, WIDE], 0.5), both }
    }
}

pub fn narrow(towers: &Towers, x: Tensor![B, IN]) -> Tensor![B, OUT] {
    x.contract(towers.narrow, [IN]) + towers.both
}

pub fn wide(towers: &Towers, x: Tensor![ROWS, WIDE]) -> Tensor![ROWS, OUT] {
    x.contract(towers.wide, [WIDE]) * 2.0 + towers.both
}

pub struct Folded {
    pub folded: Tensor,
}

pub fn fold(towers: &Towers) -> Folded {
    Folded { folded: towers.narrow * towers.narrow + 1.0 }
}

pub fn through(towers: &Towers, x: Tensor![B, IN; f32], folded: State![OUT, IN; f32]) -> Tensor![B, OUT; f32] {
    x.contract(folded, [IN]) + towers.both
}

/// One after the other.
pub fn in_turn(run: &mut Run) {
    run.repeat(narrow, 2).repeat(wide, 1);
}

/// As the host asks.
pub fn on_demand(run: &mut Run) {
    run.offer(narrow).offer(wide);
}

/// With a value that follows from a parameter.
pub fn prepared(run: &mut Run) {
    run.prepare(fold).repeat(through, 1);
}
