//! Rules of signs, units and constant factors.
//!
//! Floating-point addition and multiplication are no ring: only what holds after rounding stands here. A factor that is
//! a power of two moves freely, since it changes no digit.

use egg::Id;
use ir::Op;
use ir::ops::{Add, Mul, Neg, ReduceSum, Sub};

use super::super::site::Site;
use super::{Of, Rule, found};

pub const RULES: &[Rule] = &[
    Rule {
        name: "times one",
        law: "x * 1 = x",
        of: Of::Op("mul"),
        apply: |s| sides(s, |s, x, c| (s.same(c) == Some(1.0)).then_some(x)),
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":1.0,\"dtype\":\"f32\"} : f32[]
            %2 = mul(%1, %0) : f32[A:3]
            return %2 }",
    },
    Rule {
        name: "times minus one",
        law: "x * -1 = -x",
        of: Of::Op("mul"),
        apply: |s| sides(s, |s, x, c| if s.same(c) == Some(-1.0) { s.make(Neg {}, &[x]) } else { None }),
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":-1.0,\"dtype\":\"f32\"} : f32[]
            %2 = mul(%0, %1) : f32[A:3]
            return %2 }",
    },
    Rule {
        name: "over one",
        law: "x / 1 = x",
        of: Of::Op("div"),
        apply: |s| found((s.same(s.arg(1)) == Some(1.0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":1.0,\"dtype\":\"f32\"} : f32[]
            %2 = div(%0, %1) : f32[A:3]
            return %2 }",
    },
    Rule {
        name: "plus zero",
        law: "x + 0 = x",
        of: Of::Op("add"),
        apply: |s| sides(s, |s, x, c| (s.same(c) == Some(0.0)).then_some(x)),
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":0.0,\"dtype\":\"f32\"} : f32[]
            %2 = add(%1, %0) : f32[A:3]
            return %2 }",
    },
    Rule {
        name: "minus zero",
        law: "x - 0 = x",
        of: Of::Op("sub"),
        apply: |s| found((s.same(s.arg(1)) == Some(0.0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":0.0,\"dtype\":\"f32\"} : f32[]
            %2 = sub(%0, %1) : f32[A:3]
            return %2 }",
    },
    Rule {
        name: "zero minus",
        law: "0 - x = -x",
        of: Of::Op("sub"),
        apply: |s| found(if s.same(s.arg(0)) == Some(0.0) { s.make(Neg {}, &[s.arg(1)]) } else { None }),
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":0.0,\"dtype\":\"f32\"} : f32[]
            %2 = sub(%1, %0) : f32[A:3]
            return %2 }",
    },
    Rule {
        name: "minus minus",
        law: "--x = x",
        of: Of::Op("neg"),
        apply: |s| negated(s, s.arg(0)),
        example: "fn @f(%0: f32[A:3]) { %1 = neg(%0) : f32[A:3]  %2 = neg(%1) : f32[A:3]  return %2 }",
    },
    Rule {
        name: "minus a difference",
        law: "-(x - y) = y - x",
        of: Of::Op("neg"),
        apply: |s| {
            let differences = s.inside(s.arg(0), |op| matches!(op, Op::Sub(_)).then_some(()));
            differences.into_iter().filter_map(|(_, a)| s.make(Sub {}, &[a[1], a[0]])).collect()
        },
        example: "fn @f(%0: f32[A:3], %1: f32[A:3]) {
            %2 = sub(%0, %1) : f32[A:3]
            %3 = neg(%2) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "minus a product",
        law: "-(x * c) = x * -c",
        of: Of::Op("neg"),
        apply: |s| {
            let products = factors(s, s.arg(0));
            products.into_iter().filter_map(|(x, c)| scaled(s, x, -c)).collect()
        },
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":0.3,\"dtype\":\"f32\"} : f32[]
            %2 = mul(%0, %1) : f32[A:3]
            %3 = neg(%2) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "plus a negative",
        law: "x + -y = x - y",
        of: Of::Op("add"),
        apply: |s| {
            let args = s.args();
            let mut out = vec![];
            for (x, n) in [(args[0], args[1]), (args[1], args[0])] {
                out.extend(negated(s, n).into_iter().filter_map(|y| s.make(Sub {}, &[x, y])));
            }
            out
        },
        example: "fn @f(%0: f32[A:3], %1: f32[A:3]) {
            %2 = neg(%1) : f32[A:3]
            %3 = add(%2, %0) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "minus a negative",
        law: "x - -y = x + y",
        of: Of::Op("sub"),
        apply: |s| negated(s, s.arg(1)).into_iter().filter_map(|y| s.make(Add {}, &[s.arg(0), y])).collect(),
        example: "fn @f(%0: f32[A:3], %1: f32[A:3]) {
            %2 = neg(%1) : f32[A:3]
            %3 = sub(%0, %2) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "minus times minus",
        law: "-x * -y = x * y",
        of: Of::Op("mul"),
        apply: |s| {
            let mut out = vec![];
            for x in negated(s, s.arg(0)) {
                for y in negated(s, s.arg(1)) {
                    out.extend(s.make(Mul {}, &[x, y]));
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:3], %1: f32[A:3]) {
            %2 = neg(%0) : f32[A:3]
            %3 = neg(%1) : f32[A:3]
            %4 = mul(%2, %3) : f32[A:3]
            return %4 }",
    },
    Rule {
        name: "minus times a constant",
        law: "-x * c = x * -c",
        of: Of::Op("mul"),
        apply: |s| {
            let args = s.args();
            let mut out = vec![];
            for (n, c) in [(args[0], args[1]), (args[1], args[0])] {
                let Some(c) = s.same(c) else { continue };
                out.extend(negated(s, n).into_iter().filter_map(|x| scaled(s, x, -c)));
            }
            out
        },
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":0.3,\"dtype\":\"f32\"} : f32[]
            %2 = neg(%0) : f32[A:3]
            %3 = mul(%2, %1) : f32[A:3]
            return %3 }",
    },
    Rule {
        name: "two factors",
        law: "(x * c) * d = x * (c * d), if c or d is a power of two",
        of: Of::Op("mul"),
        apply: |s| {
            let args = s.args();
            let mut out = vec![];
            for (product, d) in [(args[0], args[1]), (args[1], args[0])] {
                let Some(d) = s.same(d) else { continue };
                for (x, c) in factors(s, product) {
                    if power_of_two(c) || power_of_two(d) || !s.ty.dtype.is_float() {
                        out.extend(scaled(s, x, c * d));
                    }
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:3]) {
            %1 = constant() {\"value\":0.3,\"dtype\":\"f32\"} : f32[]
            %2 = constant() {\"value\":0.25,\"dtype\":\"f32\"} : f32[]
            %3 = mul(%0, %1) : f32[A:3]
            %4 = mul(%3, %2) : f32[A:3]
            return %4 }",
    },
    Rule {
        name: "two integer terms",
        law: "(x + c) + d = x + (c + d), for integers",
        of: Of::Op("add"),
        apply: |s| {
            let args = s.args();
            let mut out = vec![];
            for (sum, d) in [(args[0], args[1]), (args[1], args[0])] {
                let Some(d) = s.same(d).filter(|_| !s.ty.dtype.is_float()) else { continue };
                for (x, c) in terms(s, sum) {
                    // Integers wrap in their own type; the sum of the constants must not.
                    let Some(c) = (s.ty.dtype.round(c + d) == c + d).then(|| s.number(c + d)).flatten() else {
                        continue;
                    };
                    out.extend(s.make(Add {}, &[x, c]));
                }
            }
            out
        },
        example: "fn @f(%0: i32[A:3]) {
            %1 = constant() {\"value\":3.0,\"dtype\":\"i32\"} : i32[]
            %2 = constant() {\"value\":4.0,\"dtype\":\"i32\"} : i32[]
            %3 = add(%0, %1) : i32[A:3]
            %4 = add(%3, %2) : i32[A:3]
            return %4 }",
    },
    Rule {
        name: "a sum of multiples",
        law: "sum(x * c) = sum(x) * c, if c is a power of two",
        of: Of::Op("reduce_sum"),
        apply: |s| {
            let Op::ReduceSum(sum) = s.op else { return vec![] };
            let sum: ReduceSum = sum.clone();
            let products = factors(s, s.arg(0)).into_iter().filter(|(_, c)| power_of_two(*c)).collect::<Vec<_>>();
            products
                .into_iter()
                .filter_map(|(x, c)| {
                    let x = s.make(sum.clone(), &[x])?;
                    scaled(s, x, c)
                })
                .collect()
        },
        example: "fn @f(%0: f32[A:3, B:4]) {
            %1 = constant() {\"value\":0.25,\"dtype\":\"f32\"} : f32[]
            %2 = mul(%0, %1) : f32[A:3, B:4]
            %3 = reduce_sum(%2) {\"dims\":[\"B\"]} : f32[A:3]
            return %3 }",
    },
];

/// Tries a rule with either operand as the constant.
fn sides(s: &mut Site<'_>, rule: impl Fn(&mut Site<'_>, Id, Id) -> Option<Id>) -> Vec<Id> {
    let (a, b) = (s.arg(0), s.arg(1));
    rule(s, a, b).into_iter().chain(rule(s, b, a)).collect()
}

/// What a class is the negative of.
fn negated(s: &Site<'_>, id: Id) -> Vec<Id> {
    s.inside(id, |op| matches!(op, Op::Neg(_)).then_some(())).into_iter().map(|(_, a)| a[0]).collect()
}

/// Ways in which a class is a value times a number.
fn factors(s: &Site<'_>, id: Id) -> Vec<(Id, f64)> {
    with_constant(s, s.inside(id, |op| matches!(op, Op::Mul(_)).then_some(())))
}

/// Ways in which a class is a value plus a number.
fn terms(s: &Site<'_>, id: Id) -> Vec<(Id, f64)> {
    with_constant(s, s.inside(id, |op| matches!(op, Op::Add(_)).then_some(())))
}

fn with_constant(s: &Site<'_>, pairs: Vec<((), Vec<Id>)>) -> Vec<(Id, f64)> {
    let mut out = vec![];
    for (_, a) in pairs {
        for (x, c) in [(a[0], a[1]), (a[1], a[0])] {
            out.extend(s.same(c).map(|c| (x, c)));
        }
    }
    out
}

/// `x * c`; `None` if the type of this value cannot hold `c` as it is.
fn scaled(s: &mut Site<'_>, x: Id, c: f64) -> Option<Id> {
    if s.ty.dtype.round(c) != c {
        return None;
    }
    let c = s.number(c)?;
    s.make(Mul {}, &[x, c])
}

/// Of normal size, so that a product with another constant stays so too.
fn power_of_two(c: f64) -> bool {
    let c = c.abs();
    c.is_normal() && (2f64.powi(-60)..=2f64.powi(60)).contains(&c) && c.log2().fract() == 0.0
}
