//! What operators make of odd values: NaN, ids out of range, labels to ignore; and what they cost.

use ir::ops::*;
use ir::{Array, Class, Op};
use types::{DType, Dim, TensorType};

use crate::cases;

fn eval(op: impl Into<Op>, operands: &[(&str, &[f64])]) -> Vec<Vec<f64>> {
    let op = op.into();
    let array = |(ty, data): &(&str, &[f64])| Array::new(ty.parse().unwrap(), data.to_vec());
    let arrays: Vec<Array> = operands.iter().map(array).collect();
    let results = op.infer(&arrays.iter().map(|a| &a.ty).collect::<Vec<_>>()).unwrap();
    op.eval(&arrays.iter().collect::<Vec<_>>(), &results).into_iter().map(|a| a.data).collect()
}

/// NaN as text, so that it equals itself.
fn text(values: &[f64]) -> String {
    format!("{values:?}")
}

const NAN: f64 = f64::NAN;

#[test]
fn nan_goes_through_maxima() {
    let (a, b): (&[f64], &[f64]) = (&[NAN, 1.0, 2.0], &[1.0, NAN, 1.0]);
    let both = [("f32[A:3]", a), ("f32[A:3]", b)];
    assert_eq!(text(&eval(Max {}, &both)[0]), "[NaN, NaN, 2.0]");
    assert_eq!(text(&eval(Min {}, &both)[0]), "[NaN, NaN, 1.0]");
    let reduce = ReduceMax { dims: vec!["A".into()] };
    for row in [[NAN, 1.0, 2.0], [1.0, NAN, 2.0], [1.0, 2.0, NAN]] {
        assert_eq!(text(&eval(reduce.clone(), &[("f32[A:3]", &row)])[0]), "[NaN]");
    }
}

#[test]
fn comparisons_hold_as_written() {
    let (a, b): (&[f64], &[f64]) = (&[1.0, 2.0, 3.0, NAN], &[2.0, 2.0, 2.0, NAN]);
    let check = |kind: Comparison, expected: [f64; 4]| {
        assert_eq!(eval(Compare { kind }, &[("f32[A:4]", a), ("f32[A:4]", b)])[0], expected, "{kind:?}");
    };
    check(Comparison::Less, [1.0, 0.0, 0.0, 0.0]);
    check(Comparison::LessEqual, [1.0, 1.0, 0.0, 0.0]);
    check(Comparison::Equal, [0.0, 1.0, 0.0, 0.0]);
    check(Comparison::Greater, [0.0, 0.0, 1.0, 0.0]);
    check(Comparison::GreaterEqual, [0.0, 1.0, 1.0, 0.0]);
    check(Comparison::NotEqual, [1.0, 0.0, 1.0, 1.0]);
}

#[test]
fn ids_out_of_range_are_loud() {
    let table: (&str, &[f64]) = ("f32[V:2, D:2]", &[1.0, 2.0, 3.0, 4.0]);
    let found = eval(Gather { dim: "V".into() }, &[table, ("i64[S:4]", &[1.0, 2.0, -1.0, 0.0])]);
    assert_eq!(text(&found[0]), "[3.0, 4.0, NaN, NaN, NaN, NaN, 1.0, 2.0]");
    let add = ScatterAdd { dim: Dim::new("V", 3), batch: vec![] };
    let updates: (&str, &[f64]) = ("f32[D:2, S:3]", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
    let found = eval(add.clone(), &[updates, ("i64[S:3]", &[2.0, 0.0, 2.0])]);
    assert_eq!(found[0], [2.0, 0.0, 5.0, 16.0, 0.0, 40.0]);
    let found = eval(add.clone(), &[updates, ("i64[S:3]", &[2.0, 3.0, 2.0])]);
    assert!(found[0].iter().all(|x| x.is_nan()), "{found:?}");
    // Only the column of the bad id is lost.
    let found = eval(add, &[("f32[S:2, D:2]", &[1.0, 2.0, 4.0, 8.0]), ("i64[S:2]", &[-1.0, 1.0])]);
    assert_eq!(text(&found[0]), "[NaN, NaN, NaN, NaN, NaN, NaN]");
    let logits: (&str, &[f64]) = ("f32[N:2, V:2]", &[0.0, 0.0, 0.0, 0.0]);
    let loss = CrossEntropy { dim: "V".into(), ignore: -100 };
    assert_eq!(text(&eval(loss, &[logits, ("i64[N:2]", &[2.0, -100.0])])[0]), "[NaN, 0.0]");
}

#[test]
fn rows_are_ordered_with_nan_last_and_equal_ones_in_place() {
    let x: &[f64] = &[2.0, NAN, -0.0, f64::INFINITY, 0.0, -1.0, NAN, f64::NEG_INFINITY];
    let order = |descending| eval(Argsort { dim: "A".into(), descending }, &[("f32[A:8]", x)]).remove(0);
    assert_eq!(order(false), [7.0, 5.0, 2.0, 4.0, 0.0, 3.0, 1.0, 6.0]);
    assert_eq!(order(true), [3.0, 0.0, 2.0, 4.0, 5.0, 7.0, 1.0, 6.0]);
    let most = eval(TopK { dim: "A".into(), to: Dim::new("K", 7) }, &[("f32[A:8]", x)]);
    assert_eq!(text(&most[0]), "[inf, 2.0, -0.0, 0.0, -1.0, -inf, NaN]");
    assert_eq!(most[1], [3.0, 0.0, 2.0, 4.0, 5.0, 7.0, 1.0]);
    let sums: (&str, &[f64]) = ("i64[A:2, B:3]", &[1.0, -2.0, 5.0, 4.0, 4.0, 4.0]);
    assert_eq!(eval(Cumsum { dim: "B".into(), reverse: false }, &[sums])[0], [1.0, -1.0, 4.0, 4.0, 8.0, 12.0]);
    assert_eq!(eval(Cumsum { dim: "B".into(), reverse: true }, &[sums])[0], [4.0, 3.0, 5.0, 12.0, 8.0, 4.0]);
    assert_eq!(eval(Cumsum { dim: "A".into(), reverse: false }, &[sums])[0], [1.0, -2.0, 5.0, 5.0, 2.0, 9.0]);
}

#[test]
fn whole_numbers_divide_as_written() {
    let (a, b): (&[f64], &[f64]) =
        (&[7.0, -7.0, 7.0, -7.0, 6.0, -6.0, 5.0, -5.0], &[2.0, 2.0, -2.0, -2.0, 3.0, 3.0, 0.0, 0.0]);
    let both = [("i64[A:8]", a), ("i64[A:8]", b)];
    assert_eq!(eval(FloorDiv {}, &both)[0], [3.0, -4.0, -4.0, 3.0, 2.0, -2.0, 0.0, 0.0]);
    assert_eq!(eval(Remainder {}, &both)[0], [1.0, 1.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(eval(Div {}, &both)[0], [3.0, -3.0, -3.0, 3.0, 2.0, -2.0, 0.0, 0.0]);
    let large: f64 = -9_007_199_254_740_991.0;
    let found = eval(FloorDiv {}, &[("i64[]", &[large]), ("i64[]", &[2.0])]);
    assert_eq!(found[0], [-4_503_599_627_370_496.0]);
    let least = f64::from(i32::MIN);
    assert_eq!(eval(FloorDiv {}, &[("i32[]", &[least]), ("i32[]", &[-1.0])])[0], [least]);
    let halves: (&str, &[f64]) = ("f32[A:6]", &[0.5, 1.5, 2.5, -0.5, -1.5, 2.4]);
    assert_eq!(eval(Round {}, &[halves])[0], [0.0, 2.0, 2.0, -0.0, -2.0, 2.0]);
    assert_eq!(eval(Floor {}, &[halves])[0], [0.0, 1.0, 2.0, -1.0, -2.0, 2.0]);
}

#[test]
fn moves_put_elements_where_they_say() {
    let x: (&str, &[f64]) = ("f32[A:2, B:3]", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(eval(Slice { dim: "B".into(), start: 1, size: 2 }, &[x])[0], [2.0, 3.0, 5.0, 6.0]);
    let pad = Pad { dim: "A".into(), before: 1, after: 0, value: 9.0 };
    assert_eq!(eval(pad, &[x])[0], [9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let joined = eval(Concat { dim: "B".into() }, &[x, ("f32[A:2, B:1]", &[7.0, 8.0])]);
    assert_eq!(joined[0], [1.0, 2.0, 3.0, 7.0, 4.0, 5.0, 6.0, 8.0]);
    assert_eq!(eval(Transpose { order: vec!["B".into(), "A".into()] }, &[x])[0], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    let dims = vec![Dim::new("A", 2), Dim::new("C", 2), Dim::new("B", 3)];
    let found = eval(Broadcast { dims }, &[x]);
    assert_eq!(found[0], [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
    assert_eq!(eval(Iota { dim: Dim::new("A", 3), dtype: DType::I64 }, &[])[0], [0.0, 1.0, 2.0]);
}

fn flops(op: impl Into<Op>, operands: &[&str]) -> u64 {
    counts(op, operands)[0]
}

/// All operations, those of products, and what is done on single elements.
fn counts(op: impl Into<Op>, operands: &[&str]) -> [u64; 3] {
    let op = op.into();
    let types: Vec<TensorType> = operands.iter().map(|t| t.parse().unwrap()).collect();
    let types: Vec<&TensorType> = types.iter().collect();
    let results = op.infer(&types).unwrap();
    [op.flops(&types, &results), op.matmul_flops(&types, &results), op.vector_ops(&types, &results)]
}

#[test]
fn products_are_counted_exactly() {
    let matmul = Matmul { spec: "blk,ok->blo".into(), dims: ["B", "L", "O"].map(Into::into).to_vec(), dtype: None };
    assert_eq!(flops(matmul, &["f32[B:2, L:3, K:5]", "f32[O:7, K:5]"]), 2 * 2 * 3 * 5 * 7);
    let attention = |causal| Attention {
        q_len: "L".into(),
        kv_len: "T".into(),
        heads: "H".into(),
        kv_heads: "K".into(),
        head: "D".into(),
        causal,
        scale: 1.0,
        visibility: Visibility::default(),
        bias: None,
    };
    let (q, kv) = ("f32[B:2, L:3, H:4, D:5]", "f32[B:2, T:7, K:2, D:5]");
    let products = 2 * 4 * 3 * 7 * 5;
    assert_eq!(flops(attention(false), &[q, kv, kv]), 4 * products);
    assert_eq!(flops(attention(true), &[q, kv, kv]), 2 * products);
    let grad = AttentionGrad::of(&attention(false));
    let operands = [q, kv, kv, q, "f32[B:2, L:3, H:4]", q];
    assert_eq!(flops(grad.clone(), &operands), 10 * products);

    // A softmax of each score is beside the products; a causal one sees half of them.
    let [all, in_products, elementwise] = counts(attention(false), &[q, kv, kv]);
    let (scores, results) = (2 * 4 * 3 * 7, 2 * 4 * 3 * 5);
    assert_eq!(all, in_products);
    assert!((10 * scores..=30 * scores).contains(&(elementwise - 5 * results)), "{elementwise}");
    let [_, _, causal] = counts(attention(true), &[q, kv, kv]);
    assert_eq!(2 * (causal - 5 * results), elementwise - 5 * results);
    let [all, in_products, backward] = counts(grad, &operands);
    assert_eq!(all, in_products);
    assert!(backward > 10 * scores, "{backward}");
}

/// A product by expert costs what the numbers ask for, however many experts there are; a part of them, its share.
#[test]
fn experts_cost_by_the_rows_that_are_sent() {
    let types: Vec<TensorType> =
        ["f32[T:40, D:6]", "i64[T:40, K:2]", "f32[E:8, D:6, F:5]"].iter().map(|t| t.parse().unwrap()).collect();
    let cost = |experts: usize, among: Option<usize>| {
        let mut types = types.clone();
        types[2].dims[0].size = experts;
        let (spec, dims) = ("td,tk,edf->tkf".to_string(), ["T", "K", "F"].map(Into::into).to_vec());
        let op = Op::from(GroupedMatmul { spec, dims, among });
        let args: Vec<&TensorType> = types.iter().collect();
        op.matmul_flops(&args, &op.infer(&args).unwrap())
    };
    let whole = 2 * 40 * 2 * 6 * 5;
    assert_eq!(
        [cost(8, None), cost(64, None), cost(2, Some(8)), cost(3, Some(8))],
        [whole, whole, whole / 4, whole * 3 / 8]
    );
    let y: TensorType = "f32[T:40, K:2, F:5]".parse().unwrap();
    let (spec, dims) = ("td,tk,tkf->edf".to_string(), ["E", "D", "F"].map(Into::into).to_vec());
    let op = Op::from(GroupedMatmulWeight { spec, dims, experts: 2, among: Some(8) });
    let args = [&types[0], &types[1], &y];
    assert_eq!(op.matmul_flops(&args, &op.infer(&args).unwrap()), whole / 4);
}

/// What computes costs at least one operation for each element it touches, and not more than a few dozen; what moves
/// costs none.
#[test]
fn costs_follow_sizes() {
    for case in cases::all(2, DType::F32) {
        let (results, name) = (case.results(), case.op.name());
        let found = case.op.flops(&case.types(), &results);
        let [products, elementwise] =
            [case.op.matmul_flops(&case.types(), &results), case.op.vector_ops(&case.types(), &results)];
        let whole = name.starts_with("attention") || name.starts_with("grouped_matmul");
        let is_product = case.op.class() == Class::Contract || whole;
        assert_eq!(products, if is_product { found } else { 0 }, "{}", case.text());
        let largest = case.operands.iter().map(|o| o.ty.elements()).chain(results.iter().map(|r| r.elements())).max();
        let most = 40 * largest.unwrap_or(0) as u64;
        assert!(is_product || (found..=most).contains(&elementwise), "{}: {elementwise}", case.text());
        if matches!(case.op.class(), Class::Move | Class::View | Class::Source | Class::Collective) || name == "cast" {
            assert_eq!(found, 0, "{}", case.text());
        } else if !is_product {
            let first = case.operands[0].ty.elements() as u64;
            let most = 20 * first.max(results[0].elements() as u64);
            assert!((first..=most).contains(&found), "{}: {found} for {first} elements", case.text());
        }
    }
}

#[test]
fn results_have_the_types_of_their_roles() {
    let infer = |op: Op, operands: &[&str]| {
        let types: Vec<TensorType> = operands.iter().map(|t| t.parse().unwrap()).collect();
        let found = op.infer(&types.iter().collect::<Vec<_>>()).unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // Moments and gradients may be narrower than the parameter.
    let adamw = Adamw { beta1: 0.9, beta2: 0.9, eps: 0.0, weight_decay: 0.0 };
    let operands = ["f32[A:2]", "bf16[A:2]", "f16[A:2]", "bf16[A:2]", "f32[]", "f32[]", "f32[]"];
    assert_eq!(infer(adamw.into(), &operands), operands[..3]);
    // Losses are f32, or f64 for logits in f64.
    let loss = || Op::from(CrossEntropy { dim: "V".into(), ignore: -1 });
    assert_eq!(infer(loss(), &["bf16[N:2, V:3]", "i64[N:2]"]), ["f32[N:2]"]);
    assert_eq!(infer(loss(), &["f64[N:2, V:3]", "i32[N:2]"]), ["f64[N:2]"]);
    let compare = Compare { kind: Comparison::Less };
    assert_eq!(infer(compare.into(), &["i64[A:2]", "i64[]"]), ["bool[A:2]"]);
}

#[test]
fn a_table_has_at_most_a_mebibyte() {
    let table = |n: usize| Table { dims: vec![Dim::new("A", n)], dtype: DType::F32, data: vec![0.0; n] };
    assert!(Op::from(table(1 << 18)).infer(&[]).is_ok());
    assert!(Op::from(table((1 << 18) + 1)).infer(&[]).is_err_and(|e| e.message.contains("a table at most 1048576")));
    let short = Table { data: vec![0.0; 3], ..table(4) };
    assert!(Op::from(short).infer(&[]).is_err_and(|e| e.message.contains("3 numbers for `f32[A:4]`")));
}
