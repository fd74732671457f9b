//! Rules of selection and extremes.

use super::{Of, Rule, found};

pub const RULES: &[Rule] = &[
    Rule {
        name: "no choice",
        law: "select(c, x, x) = x",
        of: Of::Op("select"),
        apply: |s| found(s.equal(s.arg(1), s.arg(2)).then(|| s.arg(1))),
        example: "fn @f(%0: f32[A:3], %1: f32[A:3]) {
            %2 = compare(%0, %1) {\"kind\":\"less\"} : bool[A:3]
            %3 = select(%2, %0, %0) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "a choice made",
        law: "select(true, x, y) = x, select(false, x, y) = y",
        of: Of::Op("select"),
        apply: |s| found(s.same(s.arg(0)).map(|c| if c != 0.0 { s.arg(1) } else { s.arg(2) })),
        example: "fn @f(%0: f32[A:3], %1: f32[A:3]) {
            %2 = constant() {\"value\":1.0,\"dtype\":\"bool\"} : bool[]
            %3 = select(%2, %0, %1) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "max of one",
        law: "max(x, x) = x",
        of: Of::Op("max"),
        apply: |s| found(s.equal(s.arg(0), s.arg(1)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) { %1 = max(%0, %0) : f32[A:3]  return %1 }",
    },
    Rule {
        name: "min of one",
        law: "min(x, x) = x",
        of: Of::Op("min"),
        apply: |s| found(s.equal(s.arg(0), s.arg(1)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) { %1 = min(%0, %0) : f32[A:3]  return %1 }",
    },
];
