//! Rules of matmul: its letters already say in which order the dims stand, and go by position, not by name.

use egg::Id;
use ir::Op;
use ir::ops::Matmul;

use super::super::site::Site;
use super::{Of, Rule};

pub const RULES: &[Rule] = &[
    Rule {
        name: "matmul of transposed operands",
        law: "matmul(transpose(x), y) = matmul(x, y) with other letters",
        of: Of::Op("matmul"),
        apply: |s| {
            operands(s, |s, letters, arg| {
                let inner = s.inside(arg, |op| matches!(op, Op::Transpose(_)).then_some(()));
                let mut out = vec![];
                for (_, x) in inner {
                    let (Some(from), Some(to)) = (s.ty_of(x[0]), s.ty_of(arg)) else { continue };
                    let letter = |d: &types::Dim| Some(letters[to.position(&d.name)?]);
                    out.extend(from.dims.iter().map(letter).collect::<Option<Vec<u8>>>().map(|l| (l, x[0])));
                }
                out
            })
        },
        example: "fn @f(%0: f32[K:4, A:3], %1: f32[K:4, B:2]) {
            %2 = transpose(%0) {\"order\":[\"A\",\"K\"]} : f32[A:3, K:4]
            %3 = matmul(%2, %1) {\"spec\":\"ak,kb->ab\",\"dims\":[\"A\",\"B\"]} : f32[A:3, B:2]
            return %3 }",
    },
    Rule {
        name: "matmul of renamed operands",
        law: "matmul(rename(x), y) = matmul(x, y)",
        of: Of::Op("matmul"),
        apply: |s| operands(s, |s, letters, arg| s.renames(arg).into_iter().map(|x| (letters.to_vec(), x)).collect()),
        example: "fn @f(%0: f32[C:3, D:4], %1: f32[K:4, B:2]) {
            %2 = reshape(%0) {\"dims\":[{\"name\":\"A\",\"size\":3},{\"name\":\"K\",\"size\":4}]} : f32[A:3, K:4]
            %3 = matmul(%2, %1) {\"spec\":\"ak,kb->ab\",\"dims\":[\"A\",\"B\"]} : f32[A:3, B:2]
            return %3 }",
    },
    Rule {
        name: "transposed matmul",
        law: "transpose(matmul(x, y)) = matmul(x, y) with other letters",
        of: Of::Op("transpose"),
        apply: |s| {
            let Some(inner) = s.ty_of(s.arg(0)).cloned() else { return vec![] };
            let at: Vec<usize> = s.ty.dims.iter().filter_map(|d| inner.position(&d.name)).collect();
            let names = Site::names(s.ty);
            rebuilt(s, |m, out| {
                let letters = at.iter().map(|&i| out.get(i).copied()).collect::<Option<Vec<u8>>>()?;
                Some(Matmul {
                    dims: names.clone(),
                    spec: m.spec.split_once("->")?.0.to_owned() + "->" + &text(&letters),
                    ..m.clone()
                })
            })
        },
        example: "fn @f(%0: f32[A:3, K:4], %1: f32[K:4, B:2]) {
            %2 = matmul(%0, %1) {\"spec\":\"ak,kb->ab\",\"dims\":[\"A\",\"B\"]} : f32[A:3, B:2]
            %3 = transpose(%2) {\"order\":[\"B\",\"A\"]} : f32[B:2, A:3]
            return %3 }",
    },
    Rule {
        name: "renamed matmul",
        law: "rename(matmul(x, y)) = matmul(x, y) with other names",
        of: Of::Op("reshape"),
        apply: |s| {
            if s.ty_of(s.arg(0)).is_none_or(|t| t.sizes() != s.ty.sizes()) {
                return vec![];
            }
            let names = Site::names(s.ty);
            rebuilt(s, |m, _| Some(Matmul { dims: names.clone(), ..m.clone() }))
        },
        example: "fn @f(%0: f32[A:3, K:4], %1: f32[K:4, B:2]) {
            %2 = matmul(%0, %1) {\"spec\":\"ak,kb->ab\",\"dims\":[\"A\",\"B\"]} : f32[A:3, B:2]
            %3 = reshape(%2) {\"dims\":[{\"name\":\"C\",\"size\":3},{\"name\":\"D\",\"size\":2}]} : f32[C:3, D:2]
            return %3 }",
    },
];

/// This matmul with one operand replaced: `others` gives the new letters and operands.
fn operands(s: &mut Site<'_>, others: impl Fn(&Site<'_>, &[u8], Id) -> Vec<(Vec<u8>, Id)>) -> Vec<Id> {
    let Op::Matmul(matmul) = s.op else { return vec![] };
    let Some(letters) = matmul.letters() else { return vec![] };
    let args = s.args();
    let mut out = vec![];
    for (i, own) in [letters.lhs, letters.rhs].into_iter().enumerate() {
        for (new, x) in others(s, own, args[i]) {
            let mut sides = [letters.lhs.to_vec(), letters.rhs.to_vec()];
            sides[i] = new;
            let spec = format!("{},{}->{}", text(&sides[0]), text(&sides[1]), text(letters.out));
            let mut args = args.clone();
            args[i] = x;
            out.extend(s.make(Matmul { spec, ..matmul.clone() }, &args));
        }
    }
    out
}

/// Each matmul in the operand's class, as `f` changes it.
fn rebuilt(s: &mut Site<'_>, f: impl Fn(&Matmul, &[u8]) -> Option<Matmul>) -> Vec<Id> {
    let inner = s.inside(s.arg(0), |op| match op {
        Op::Matmul(m) => f(m, m.letters()?.out),
        _ => None,
    });
    inner.into_iter().filter_map(|(m, args)| s.make(m, &args)).collect()
}

fn text(letters: &[u8]) -> String {
    String::from_utf8_lossy(letters).into_owned()
}
