//! Rules of casts: a type that holds all values of another loses nothing.

use ir::Op;
use ir::ops::{Cast, Matmul};
use types::DType;

use super::{Of, Rule, found};

pub const RULES: &[Rule] = &[
    Rule {
        name: "cast to itself",
        law: "cast(x) = x, if x has the type",
        of: Of::Op("cast"),
        apply: |s| found(s.fits(s.arg(0)).then(|| s.arg(0))),
        example: "fn @f(%0: f32[A:3]) { %1 = cast(%0) {\"to\":\"f32\"} : f32[A:3]  return %1 }",
    },
    Rule {
        name: "cast of a wider cast",
        law: "cast(cast(x, wide), to) = cast(x, to), if wide holds all values of x",
        of: Of::Op("cast"),
        apply: |s| {
            let (between, to) = (s.ty_of(s.arg(0)).map(|t| t.dtype), s.ty.dtype);
            let inner = s.inside(s.arg(0), |op| matches!(op, Op::Cast(_)).then_some(()));
            let mut out = vec![];
            for (_, x) in inner {
                let from = s.ty_of(x[0]).map(|t| t.dtype);
                if let (Some(from), Some(between)) = (from, between)
                    && holds(between, from)
                {
                    out.extend(if from == to { Some(x[0]) } else { s.make(Cast { to }, &x) });
                }
            }
            out
        },
        example: "fn @f(%0: bf16[A:3]) {
            %1 = cast(%0) {\"to\":\"f32\"} : f32[A:3]
            %2 = cast(%1) {\"to\":\"bf16\"} : bf16[A:3]
            return %2 }",
    },
    Rule {
        name: "matmul rounds itself",
        law: "cast(matmul(x, y) in f32, to) = matmul(x, y) in to",
        of: Of::Op("cast"),
        apply: |s| {
            let to = s.ty.dtype;
            // Sums are kept in f32 either way; from f64 the two roundings would differ from one.
            let products = s.inside(s.arg(0), |op| match op {
                Op::Matmul(m) if m.dtype == Some(DType::F32) && matches!(to, DType::BF16 | DType::F16) => {
                    Some(m.clone())
                }
                _ => None,
            });
            products
                .into_iter()
                .filter_map(|(m, args)| {
                    let operand = s.ty_of(args[0])?.dtype;
                    s.make(Matmul { dtype: (operand != to).then_some(to), ..m }, &args)
                })
                .collect()
        },
        example: "fn @f(%0: bf16[A:3, K:4], %1: bf16[K:4, B:2]) {
            %2 = matmul(%0, %1) {\"spec\":\"ak,kb->ab\",\"dims\":[\"A\",\"B\"],\"dtype\":\"f32\"} : f32[A:3, B:2]
            %3 = cast(%2) {\"to\":\"bf16\"} : bf16[A:3, B:2]
            return %3 }",
    },
];

/// Whether `wide` holds every value of `narrow`.
fn holds(wide: DType, narrow: DType) -> bool {
    use DType::{BF16, Bool, F16, F32, F64, I32, I64};
    match narrow {
        Bool => matches!(wide, F64 | F32 | BF16 | F16 | I64 | I32 | Bool),
        BF16 => matches!(wide, BF16 | F32 | F64),
        F16 => matches!(wide, F16 | F32 | F64),
        F32 => matches!(wide, F32 | F64),
        I32 => matches!(wide, I32 | I64 | F64),
        F64 => wide == F64,
        I64 => wide == I64,
        // What it will be is not decided yet.
        DType::Work => false,
    }
}
