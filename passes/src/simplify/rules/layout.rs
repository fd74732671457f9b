//! Rules of movement: views, orders of dims, pieces and joins.

use ir::Op;
use ir::ops::{Concat, Pad, ReduceMax, ReduceSum, Reshape, Slice, Transpose};
use types::Name;

use super::super::site::Site;
use super::{Of, Rule, found};

pub const RULES: &[Rule] = &[
    Rule {
        name: "reshape to itself",
        law: "reshape(x) = x, if x has the dims",
        of: Of::Op("reshape"),
        apply: |s| found(s.fits(s.arg(0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) {
            %1 = reshape(%0) {\"dims\":[{\"name\":\"A\",\"size\":3}]} : f32[A:3]
            return %1 }",
    },
    Rule {
        name: "reshape of reshape",
        law: "reshape(reshape(x)) = reshape(x)",
        of: Of::Op("reshape"),
        apply: |s| {
            let dims = s.ty.dims.to_vec();
            let inner = s.inside(s.arg(0), |op| matches!(op, Op::Reshape(_)).then_some(()));
            inner.into_iter().filter_map(|(_, x)| s.make(Reshape { dims: dims.clone() }, &x)).collect()
        },
        example: "fn @f(%0: f32[A:4]) {
            %1 = reshape(%0) {\"dims\":[{\"name\":\"B\",\"size\":2},{\"name\":\"C\",\"size\":2}]} : f32[B:2, C:2]
            %2 = reshape(%1) {\"dims\":[{\"name\":\"D\",\"size\":4}]} : f32[D:4]
            return %2 }",
    },
    Rule {
        name: "transpose to itself",
        law: "transpose(x) = x, if x has the order",
        of: Of::Op("transpose"),
        apply: |s| found(s.fits(s.arg(0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3, B:2]) {
            %1 = transpose(%0) {\"order\":[\"A\",\"B\"]} : f32[A:3, B:2]
            return %1 }",
    },
    Rule {
        name: "transpose of transpose",
        law: "transpose(transpose(x)) = transpose(x)",
        of: Of::Op("transpose"),
        apply: |s| {
            let order = Site::names(s.ty);
            let inner = s.inside(s.arg(0), |op| matches!(op, Op::Transpose(_)).then_some(()));
            inner.into_iter().filter_map(|(_, x)| s.make(Transpose { order: order.clone() }, &x)).collect()
        },
        example: "fn @f(%0: f32[A:3, B:2, C:2]) {
            %1 = transpose(%0) {\"order\":[\"B\",\"A\",\"C\"]} : f32[B:2, A:3, C:2]
            %2 = transpose(%1) {\"order\":[\"C\",\"A\",\"B\"]} : f32[C:2, A:3, B:2]
            return %2 }",
    },
    Rule {
        name: "transpose of ones",
        law: "transpose(x) = reshape(x), if only dims of size 1 change places",
        of: Of::Op("transpose"),
        apply: |s| {
            let wide = |t: &types::TensorType| -> Vec<Name> {
                t.dims.iter().filter(|d| d.size != 1).map(|d| d.name.clone()).collect()
            };
            let same = s.ty_of(s.arg(0)).is_some_and(|t| wide(t) == wide(s.ty));
            found(if same { s.make(Reshape { dims: s.ty.dims.to_vec() }, &[s.arg(0)]) } else { None })
        },
        example: "fn @f(%0: f32[A:1, B:2, C:3]) {
            %1 = transpose(%0) {\"order\":[\"B\",\"A\",\"C\"]} : f32[B:2, A:1, C:3]
            return %1 }",
    },
    Rule {
        name: "transpose of a renamed tensor",
        law: "transpose(rename(x)) = rename(transpose(x))",
        of: Of::Op("transpose"),
        apply: |s| {
            let Some(inner) = s.ty_of(s.arg(0)).cloned() else { return vec![] };
            let at: Vec<usize> = s.ty.dims.iter().filter_map(|d| inner.position(&d.name)).collect();
            let sources = s.renames(s.arg(0));
            sources
                .into_iter()
                .filter_map(|x| {
                    let names = Site::names(s.ty_of(x)?);
                    let moved = s.make(Transpose { order: at.iter().map(|&i| names[i].clone()).collect() }, &[x])?;
                    s.renamed(moved)
                })
                .collect()
        },
        example: "fn @f(%0: f32[A:3, B:2]) {
            %1 = reshape(%0) {\"dims\":[{\"name\":\"C\",\"size\":3},{\"name\":\"D\",\"size\":2}]} : f32[C:3, D:2]
            %2 = transpose(%1) {\"order\":[\"D\",\"C\"]} : f32[D:2, C:3]
            return %2 }",
    },
    Rule {
        name: "sum over one",
        law: "sum over A of x = reshape(x), if A has size 1",
        of: Of::Op("reduce_sum"),
        apply: |s| {
            let Op::ReduceSum(ReduceSum { dims }) = s.op else { return vec![] };
            without_ones(s, &dims.clone(), |dims| ReduceSum { dims }.into())
        },
        example: "fn @f(%0: f32[A:1, B:2, C:3]) {
            %1 = reduce_sum(%0) {\"dims\":[\"A\",\"C\"]} : f32[B:2]
            return %1 }",
    },
    Rule {
        name: "max over one",
        law: "max over A of x = reshape(x), if A has size 1",
        of: Of::Op("reduce_max"),
        apply: |s| {
            let Op::ReduceMax(ReduceMax { dims }) = s.op else { return vec![] };
            without_ones(s, &dims.clone(), |dims| ReduceMax { dims }.into())
        },
        example: "fn @f(%0: f32[A:1, B:2]) {
            %1 = reduce_max(%0) {\"dims\":[\"A\"]} : f32[B:2]
            return %1 }",
    },
    Rule {
        name: "slice of all",
        law: "slice(x) = x, if it takes all",
        of: Of::Op("slice"),
        apply: |s| found(s.fits(s.arg(0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) {
            %1 = slice(%0) {\"dim\":\"A\",\"start\":0,\"size\":3} : f32[A:3]
            return %1 }",
    },
    Rule {
        name: "slice of slice",
        law: "slice(slice(x)) = slice(x), along one dim",
        of: Of::Op("slice"),
        apply: |s| {
            let Op::Slice(outer) = s.op else { return vec![] };
            let outer = outer.clone();
            let inner = s.inside(s.arg(0), |op| match op {
                Op::Slice(inner) if inner.dim == outer.dim => Some(inner.start),
                _ => None,
            });
            let slice = |start| Slice { start: start + outer.start, ..outer.clone() };
            inner.into_iter().filter_map(|(start, x)| s.make(slice(start), &x)).collect()
        },
        example: "fn @f(%0: f32[A:6]) {
            %1 = slice(%0) {\"dim\":\"A\",\"start\":1,\"size\":4} : f32[A:4]
            %2 = slice(%1) {\"dim\":\"A\",\"start\":2,\"size\":2} : f32[A:2]
            return %2 }",
    },
    Rule {
        name: "slice of concat",
        law: "slice(concat(x, y)) = slice(x), if it takes from x alone",
        of: Of::Op("slice"),
        apply: |s| {
            let Op::Slice(slice) = s.op else { return vec![] };
            let slice = slice.clone();
            let joins = s.inside(s.arg(0), |op| match op {
                Op::Concat(join) if join.dim == slice.dim => Some(()),
                _ => None,
            });
            let mut out = vec![];
            for (_, parts) in joins {
                let mut first = 0;
                for part in parts {
                    let Some(size) = s.ty_of(part).and_then(|t| t.size_of(&slice.dim)) else { break };
                    if slice.start >= first && slice.start + slice.size <= first + size {
                        out.extend(s.make(Slice { start: slice.start - first, ..slice.clone() }, &[part]));
                    }
                    first += size;
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:2, B:2], %1: f32[A:3, B:2]) {
            %2 = concat(%0, %1) {\"dim\":\"A\"} : f32[A:5, B:2]
            %3 = slice(%2) {\"dim\":\"A\",\"start\":3,\"size\":2} : f32[A:2, B:2]
            return %3 }",
    },
    Rule {
        name: "slice of pad",
        law: "slice(pad(x)) = slice(x), if it takes no padding",
        of: Of::Op("slice"),
        apply: |s| {
            let Op::Slice(slice) = s.op else { return vec![] };
            let slice = slice.clone();
            let pads = s.inside(s.arg(0), |op| match op {
                Op::Pad(pad) if pad.dim == slice.dim => slice.start.checked_sub(pad.before),
                _ => None,
            });
            pads.into_iter().filter_map(|(start, x)| s.make(Slice { start, ..slice.clone() }, &x)).collect()
        },
        example: "fn @f(%0: f32[A:3]) {
            %1 = pad(%0) {\"dim\":\"A\",\"before\":1,\"after\":2,\"value\":0.0} : f32[A:6]
            %2 = slice(%1) {\"dim\":\"A\",\"start\":2,\"size\":2} : f32[A:2]
            return %2 }",
    },
    Rule {
        name: "slice of a broadcast",
        law: "slice(broadcast(x)) = broadcast(x), along a new dim",
        of: Of::Op("slice"),
        apply: |s| {
            let Op::Slice(slice) = s.op else { return vec![] };
            let dim = slice.dim.clone();
            let dims = s.ty.dims.to_vec();
            let inner = s.inside(s.arg(0), |op| matches!(op, Op::Broadcast(_)).then_some(()));
            inner
                .into_iter()
                .filter_map(|(_, x)| {
                    let new = s.ty_of(x[0])?.position(&dim).is_none();
                    if new { s.make(ir::ops::Broadcast { dims: dims.clone() }, &x) } else { None }
                })
                .collect()
        },
        example: "fn @f(%0: f32[B:2]) {
            %1 = broadcast(%0) {\"dims\":[{\"name\":\"A\",\"size\":3},{\"name\":\"B\",\"size\":2}]} : f32[A:3, B:2]
            %2 = slice(%1) {\"dim\":\"A\",\"start\":1,\"size\":2} : f32[A:2, B:2]
            return %2 }",
    },
    Rule {
        name: "concat of one",
        law: "concat(x) = x",
        of: Of::Op("concat"),
        apply: |s| found((s.args().len() == 1).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:2]) { %1 = concat(%0) {\"dim\":\"A\"} : f32[A:2]  return %1 }",
    },
    Rule {
        name: "concat of concat",
        law: "concat(concat(x, y), z) = concat(x, y, z)",
        of: Of::Op("concat"),
        apply: |s| {
            let Op::Concat(join) = s.op else { return vec![] };
            let join: Concat = join.clone();
            let mut parts = vec![];
            for arg in s.args() {
                let inner = s.inside(arg, |op| matches!(op, Op::Concat(c) if c.dim == join.dim).then_some(()));
                match inner.into_iter().next() {
                    Some((_, inner)) => parts.extend(inner),
                    None => parts.push(arg),
                }
            }
            found(if parts == s.args() { None } else { s.make(join, &parts) })
        },
        example: "fn @f(%0: f32[A:2], %1: f32[A:1]) {
            %2 = concat(%0, %1) {\"dim\":\"A\"} : f32[A:3]
            %3 = concat(%2, %0) {\"dim\":\"A\"} : f32[A:5]
            return %3 }",
    },
    Rule {
        name: "concat of neighbours",
        law: "concat(slice(x), slice(x)) = slice(x), if the second starts where the first ends",
        of: Of::Op("concat"),
        apply: |s| {
            let Op::Concat(join) = s.op else { return vec![] };
            let dim = join.dim.clone();
            let of = |s: &Site<'_>, id| {
                s.inside(id, |op| match op {
                    Op::Slice(slice) if slice.dim == dim => Some((slice.start, slice.start + slice.size)),
                    _ => None,
                })
            };
            let args = s.args();
            let mut out = vec![];
            for ((start, mut end), x) in of(s, args[0]) {
                let mut next = |&arg: &egg::Id| {
                    let follows = of(s, arg).into_iter().find(|(range, y)| range.0 == end && s.equal(x[0], y[0]));
                    follows.map(|(range, _)| end = range.1).is_some()
                };
                if args[1..].iter().all(&mut next) {
                    out.extend(s.make(Slice { dim: dim.clone(), start, size: end - start }, &x));
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:6]) {
            %1 = slice(%0) {\"dim\":\"A\",\"start\":1,\"size\":2} : f32[A:2]
            %2 = slice(%0) {\"dim\":\"A\",\"start\":3,\"size\":3} : f32[A:3]
            %3 = concat(%1, %2) {\"dim\":\"A\"} : f32[A:5]
            return %3 }",
    },
    Rule {
        name: "sum of neighbours",
        law: "pad(x) + pad(y) = pad(concat(x, y)), with zeros, if y starts where x ends",
        of: Of::Op("add"),
        apply: |s| {
            let (left, right) = (padded(s, s.arg(0)), padded(s, s.arg(1)));
            let mut out = vec![];
            for (a, b) in left.iter().flat_map(|a| right.iter().flat_map(move |b| [(a, b), (b, a)])) {
                let ((first, x), (second, y)) = (a, b);
                let end = s.ty_of(*x).and_then(|t| t.size_of(&first.dim)).map(|size| first.before + size);
                if first.dim == second.dim && end == Some(second.before) {
                    let pad = Pad { before: first.before, ..second.clone() };
                    let joined = s.make(Concat { dim: pad.dim.clone() }, &[*x, *y]);
                    out.extend(joined.and_then(|joined| s.make(pad, &[joined])));
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:2], %1: f32[A:3]) {
            %2 = pad(%0) {\"dim\":\"A\",\"before\":1,\"after\":4,\"value\":0.0} : f32[A:7]
            %3 = pad(%1) {\"dim\":\"A\",\"before\":3,\"after\":1,\"value\":0.0} : f32[A:7]
            %4 = add(%3, %2) : f32[A:7]
            return %4 }",
    },
    Rule {
        name: "pad by nothing",
        law: "pad(x) = x, if it adds nothing",
        of: Of::Op("pad"),
        apply: |s| found(s.fits(s.arg(0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) {
            %1 = pad(%0) {\"dim\":\"A\",\"before\":0,\"after\":0,\"value\":0.0} : f32[A:3]
            return %1 }",
    },
];

/// Ways in which a class is something with zeros around it.
fn padded(s: &Site<'_>, id: egg::Id) -> Vec<(Pad, egg::Id)> {
    let pads = s.inside(id, |op| match op {
        Op::Pad(pad) if pad.value == 0.0 => Some(pad.clone()),
        _ => None,
    });
    pads.into_iter().map(|(pad, x)| (pad, x[0])).collect()
}

/// A reduction over `dims` without those of size 1, which only change the view.
fn without_ones(s: &mut Site<'_>, dims: &[Name], reduce: impl Fn(Vec<Name>) -> Op) -> Vec<egg::Id> {
    let Some(ty) = s.ty_of(s.arg(0)).cloned() else { return vec![] };
    let (ones, rest): (Vec<Name>, Vec<Name>) = dims.iter().cloned().partition(|d| ty.size_of(d) == Some(1));
    if ones.is_empty() && !rest.is_empty() {
        return vec![];
    }
    let Some(x) = s.make(Reshape { dims: ty.without(&ones).dims.to_vec() }, &[s.arg(0)]) else { return vec![] };
    found(if rest.is_empty() { Some(x) } else { s.make(reduce(rest), &[x]) })
}
