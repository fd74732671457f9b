//! Rules of broadcasting: elementwise operators do it by themselves, and first is cheaper than last.

use egg::Id;
use ir::Op;
use ir::ops::{Broadcast, Reshape};

use super::super::site::Site;
use super::{Of, Rule, found};

pub const RULES: &[Rule] = &[
    Rule {
        name: "operands broadcast themselves",
        law: "f(broadcast(x), y) = f(x, y), if y has the other dims",
        of: Of::Elementwise,
        apply: |s| {
            let (op, args) = (s.op.clone(), s.args());
            let mut out = vec![];
            for i in 0..args.len() {
                for x in narrow(s, args[i]) {
                    let mut args = args.clone();
                    args[i] = x;
                    out.extend(s.make(op.clone(), &args));
                }
            }
            out
        },
        example: "fn @f(%0: f32[B:2], %1: f32[A:3, B:2]) {
            %2 = broadcast(%0) {\"dims\":[{\"name\":\"A\",\"size\":3},{\"name\":\"B\",\"size\":2}]} : f32[A:3, B:2]
            %3 = mul(%2, %1) : f32[A:3, B:2]
            return %3 }",
    },
    Rule {
        name: "broadcast last",
        law: "f(broadcast(x), broadcast(y)) = broadcast(f(x, y))",
        of: Of::Elementwise,
        apply: |s| {
            let (op, args) = (s.op.clone(), s.args());
            let narrowest: Vec<Id> = args.iter().map(|&a| narrow(s, a).into_iter().next().unwrap_or(a)).collect();
            if narrowest == args {
                return vec![];
            }
            let Some(small) = s.make(op, &narrowest) else { return vec![] };
            found(if s.fits(small) { None } else { s.make(Broadcast { dims: s.ty.dims.to_vec() }, &[small]) })
        },
        example: "fn @f(%0: f32[B:2]) {
            %1 = broadcast(%0) {\"dims\":[{\"name\":\"A\",\"size\":3},{\"name\":\"B\",\"size\":2}]} : f32[A:3, B:2]
            %2 = exp(%1) : f32[A:3, B:2]
            return %2 }",
    },
    Rule {
        name: "broadcast of broadcast",
        law: "broadcast(broadcast(x)) = broadcast(x)",
        of: Of::Op("broadcast"),
        apply: |s| {
            let dims = s.ty.dims.to_vec();
            narrow(s, s.arg(0)).into_iter().filter_map(|x| s.make(Broadcast { dims: dims.clone() }, &[x])).collect()
        },
        example: "fn @f(%0: f32[B:2]) {
            %1 = broadcast(%0) {\"dims\":[{\"name\":\"A\",\"size\":3},{\"name\":\"B\",\"size\":2}]} : f32[A:3, B:2]
            %2 = broadcast(%1) {\"dims\":[{\"name\":\"A\",\"size\":3},{\"name\":\"B\",\"size\":2},{\"name\":\"C\",\"size\":2}]} : f32[A:3, B:2, C:2]
            return %2 }",
    },
    Rule {
        name: "broadcast to one",
        law: "broadcast(x) = reshape(x), if the new dims have size 1",
        of: Of::Op("broadcast"),
        apply: |s| {
            let dims = s.ty.dims.to_vec();
            let grows = s.ty_of(s.arg(0)).is_none_or(|t| t.elements() != s.ty.elements());
            found(if grows { None } else { s.make(Reshape { dims }, &[s.arg(0)]) })
        },
        example: "fn @f(%0: f32[B:2]) {
            %1 = broadcast(%0) {\"dims\":[{\"name\":\"A\",\"size\":1},{\"name\":\"B\",\"size\":2}]} : f32[A:1, B:2]
            return %1 }",
    },
];

/// What a class is broadcast from.
fn narrow(s: &Site<'_>, id: Id) -> Vec<Id> {
    s.inside(id, |op| matches!(op, Op::Broadcast(_)).then_some(())).into_iter().map(|(_, a)| a[0]).collect()
}
