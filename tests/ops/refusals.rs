//! Operands that do not fit are refused with a reason: one line for each rule.

use ir::Op;
use types::TensorType;

/// `text` is an operator as in text IR, with types for operands.
fn refused(text: &str, operands: &[&str], expected: &str) {
    let (name, attributes) = text.split_once(' ').unwrap_or((text, "{}"));
    let op = Op::from_attributes(name, serde_json::from_str(attributes).unwrap()).unwrap();
    let types: Vec<TensorType> = operands.iter().map(|t| t.parse().unwrap()).collect();
    match op.infer(&types.iter().collect::<Vec<_>>()) {
        Ok(found) => panic!("{text} of {operands:?} gives {found:?}"),
        Err(e) => {
            assert!(e.to_string().contains(expected), "{text} of {operands:?}: `{e}`, not `{expected}`");
            assert!(e.operands.iter().all(|i| *i < operands.len()), "{text} blames operands {:?}", e.operands);
        }
    }
}

#[test]
fn elementwise() {
    refused("add", &["f32[A:2]"], "`add` takes 2 operands, here are 1");
    refused("exp", &["f32[A:2]", "f32[A:2]"], "`exp` takes 1 operand, here are 2");
    refused("add", &["f32[A:2]", "f32[A:3]"], "dim A is 2 in `f32[A:2]` and 3 in `f32[A:3]`");
    refused("add", &["f32[A:2, B:3]", "f32[B:3, A:2]"], "dims in different orders");
    refused("mul", &["f32[A:2]", "bf16[A:2]"], "`mul` of f32 and bf16");
    refused("exp", &["i64[A:2]"], "`exp` of i64");
    refused("select", &["f32[]", "f32[A:2]", "f32[A:2]"], "`select` asks f32, not bool");
    refused("select", &["bool[]", "f32[A:2]", "i64[A:2]"], "`select` of f32 and i64");
    refused("swiglu", &["f32[A:2]", "f32[]"], "must be of one type");
    refused("compare {\"kind\":\"less\"}", &["f32[A:2]", "i64[]"], "`compare` of f32 and i64");
}

#[test]
fn moves() {
    let x = "f32[A:2, B:3]";
    refused("reshape {\"dims\":[{\"name\":\"C\",\"size\":5}]}", &[x], "has 6 elements and `f32[C:5]` has 5");
    let twice = "{\"dims\":[{\"name\":\"C\",\"size\":2},{\"name\":\"C\",\"size\":3}]}";
    refused(&format!("reshape {twice}"), &[x], "dim C twice");
    refused("transpose {\"order\":[\"A\"]}", &[x], "other dims than the new order");
    refused("transpose {\"order\":[\"A\",\"C\"]}", &[x], "no dim C");
    refused("transpose {\"order\":[\"A\",\"A\"]}", &[x], "other dims than the new order");
    refused("broadcast {\"dims\":[{\"name\":\"A\",\"size\":2}]}", &[x], "does not broadcast");
    let swapped = "{\"dims\":[{\"name\":\"B\",\"size\":3},{\"name\":\"A\",\"size\":2}]}";
    refused(&format!("broadcast {swapped}"), &[x], "does not broadcast");
    refused("slice {\"dim\":\"C\",\"start\":0,\"size\":1}", &[x], "no dim C");
    refused("slice {\"dim\":\"B\",\"start\":2,\"size\":2}", &[x], "2 elements from 2 on reach past B:3");
    refused("slice {\"dim\":\"B\",\"start\":18446744073709551615,\"size\":2}", &[x], "reach past B:3");
    refused("pad {\"dim\":\"C\",\"before\":0,\"after\":0,\"value\":0}", &[x], "no dim C");
    refused("concat {\"dim\":\"A\"}", &[], "at least one operand");
    refused("concat {\"dim\":\"C\"}", &[x], "no dim C");
    refused("concat {\"dim\":\"A\"}", &[x, "f32[A:2, B:4]"], "do not join along A");
    refused("concat {\"dim\":\"A\"}", &[x, "f32[B:3, A:2]"], "do not join along A");
    refused("concat {\"dim\":\"A\"}", &[x, "i64[A:2, B:3]"], "do not join along A");
    refused("gather {\"dim\":\"C\"}", &[x, "i64[S:2]"], "no dim C");
    refused("gather {\"dim\":\"A\"}", &[x, "f32[S:2]"], "operand 1 of `gather` is f32");
    refused("gather {\"dim\":\"A\"}", &[x, "i64[B:2]"], "dim B is 3 in `f32[A:2, B:3]` and 2 in `i64[B:2]`");
    let v = "{\"dim\":{\"name\":\"V\",\"size\":4}}";
    refused(&format!("scatter_add {v}"), &[x, "i64[C:2]"], "do not stand together");
    refused(&format!("scatter_add {v}"), &["f32[A:2, C:5, B:3]", "i64[A:2, B:3]"], "do not stand together");
    refused(&format!("scatter_add {v}"), &[x, "i64[A:3]"], "do not stand together");
    refused(&format!("scatter_add {v}"), &[x, "f32[A:2]"], "operand 1 of `scatter_add` is f32");
    refused(&format!("scatter_add {v}"), &["i64[A:2]", "i64[A:2]"], "`scatter_add` of i64");
    refused("scatter_add {\"dim\":{\"name\":\"B\",\"size\":4}}", &[x, "i64[A:2]"], "dim B twice");
    let batch = |names: &str| format!("scatter_add {{\"dim\":{{\"name\":\"V\",\"size\":4}},\"batch\":[{names}]}}");
    refused(&batch("\"C\""), &[x, "i64[A:2]"], "`i64[A:2]` has no batch dim C");
    refused(&batch("\"B\""), &[x, "i64[A:2, B:3]"], "batch dims come before the others");
    refused(&batch("\"A\""), &["f32[A:2, B:3, V:4]", "i64[A:2, B:3]"], "dim V twice");
    refused("table {\"dims\":[{\"name\":\"A\",\"size\":2}],\"dtype\":\"f32\",\"data\":[1]}", &[], "1 numbers");
    let nan = "table {\"dims\":[{\"name\":\"A\",\"size\":2}],\"dtype\":\"f32\",\"data\":[1,\"NaN\"]}";
    refused(nan, &[], "element 1 of a table `f32[A:2]` is not a number");
    refused("constant {\"value\":\"NaN\",\"dtype\":\"f32\"}", &[], "a constant that is not a number");
}

#[test]
fn reductions_and_products() {
    refused("reduce_sum {\"dims\":[\"C\"]}", &["f32[A:2]"], "no dim C to sum over");
    refused("reduce_sum {\"dims\":[\"A\"]}", &["bool[A:2]"], "a sum of bool");
    refused("reduce_max {\"dims\":[\"C\"]}", &["f32[A:2]"], "no dim C to take the maximum over");
    let matmul = |spec: &str, dims: &str| format!("matmul {{\"spec\":\"{spec}\",\"dims\":[{dims}]}}");
    let (x, w) = ("f32[A:2, K:3]", "f32[K:3, B:5]");
    refused(&matmul("ak,kb", "\"A\",\"B\""), &[x, w], "is no matmul");
    refused(&matmul("aa,kb->ab", "\"A\",\"B\""), &[x, w], "is no matmul");
    refused(&matmul("akc,kb->ab", "\"A\",\"B\""), &[x, w], "does not fit `f32[A:2, K:3]`");
    refused(&matmul("ak,kb->ab", "\"A\""), &[x, w], "has 2 result dims, 1 are named");
    refused(&matmul("ak,kb->ab", "\"A\",\"A\""), &[x, w], "dim A twice");
    refused(&matmul("ak,kb->ab", "\"A\",\"B\""), &[x, "f32[K:4, B:5]"], "K:3 on the left meets K:4 on the right");
    refused(&matmul("ak,kb->ab", "\"A\",\"B\""), &[x, "bf16[K:3, B:5]"], "`matmul` of f32 and bf16");
    refused(&matmul("ak,kb->b", "\"B\""), &[x, w], "sums a dim that only one operand has");
    refused(&matmul("ak,kb->a", "\"A\""), &[x, w], "sums a dim that only one operand has");
    refused(&matmul("ak,kb->abz", "\"A\",\"B\",\"Z\""), &[x, w], "a result letter that no operand has");
}

#[test]
fn experts() {
    let op = |spec: &str, dims: &str| format!("grouped_matmul {{\"spec\":\"{spec}\",\"dims\":[{dims}]}}");
    let (spec, dims) = ("td,tk,edf->tkf", "\"T\",\"K\",\"F\"");
    let [x, ids, w] = ["f32[T:4, D:3]", "i64[T:4, K:2]", "f32[E:5, D:3, F:7]"];
    for wrong in ["td,tk->tkf", "td,tk,edf->tf", "td,tk,edf->tkd", "td,k,edf->tkf", "td,tk,df->tkf", "td,tk,tdf->tkf"] {
        refused(&op(wrong, dims), &[x, ids, w], "is no `grouped_matmul`");
    }
    refused(&op(spec, dims), &[x, ids], "takes 3 operands");
    refused(&op(spec, dims), &[x, "f32[T:4, K:2]", w], "operand 1 of `grouped_matmul` is f32");
    refused(&op(spec, dims), &[x, "i64[T:4]", w], "`tk` of `grouped_matmul` does not fit `i64[T:4]`");
    refused(&op(spec, dims), &[x, ids, "f32[E:5, D:2, F:7]"], "D:2 of operand 2 meets 3 elements");
    refused(&op(spec, dims), &[x, ids, "bf16[E:5, D:3, F:7]"], "`grouped_matmul` of f32 and bf16");
    refused(&op(spec, dims), &["i64[T:4, D:3]", ids, "i64[E:5, D:3, F:7]"], "`grouped_matmul` of i64 and i64");
    refused(&op(spec, "\"T\",\"K\""), &[x, ids, w], "has 3 result dims, 2 are named");
    refused(&op(spec, "\"T\",\"K\",\"T\""), &[x, ids, w], "dim T twice");
    let weight = |spec: &str, experts: usize| {
        format!("grouped_matmul_weight {{\"spec\":\"{spec}\",\"dims\":[\"E\",\"D\",\"F\"],\"experts\":{experts}}}")
    };
    refused(&weight("td,tk,edf->tkf", 5), &[x, ids, w], "is no `grouped_matmul_weight`");
    refused(&weight("td,tk,tkf->edf", 5), &[x, ids, "f32[T:4, K:3, F:7]"], "K:3 of operand 2 meets 2 elements");
}

#[test]
fn orders_and_whole_numbers() {
    refused("cumsum {\"dim\":\"C\",\"reverse\":false}", &["f32[A:2]"], "no dim C to sum along");
    refused("cumsum {\"dim\":\"A\",\"reverse\":false}", &["bool[A:2]"], "a sum of bool");
    refused("argsort {\"dim\":\"C\",\"descending\":false}", &["f32[A:2]"], "no dim C for `argsort`");
    refused("argsort {\"dim\":\"A\",\"descending\":false}", &["bool[A:2]"], "`argsort` of bool");
    let top =
        |name: &str, size: usize| format!("top_k {{\"dim\":\"A\",\"to\":{{\"name\":\"{name}\",\"size\":{size}}}}}");
    refused(&top("K", 3), &["f32[A:2]"], "the 3 largest of A:2");
    refused(&top("K", 0), &["f32[A:2]"], "the 0 largest of A:2");
    refused(&top("B", 1), &["f32[A:2, B:3]"], "dim B twice");
    refused(&top("K", 1), &["bool[A:2]"], "`top_k` of bool");
    for name in ["floor_div", "remainder"] {
        refused(name, &["f32[A:2]", "f32[A:2]"], &format!("`{name}` of f32"));
        refused(name, &["i64[A:2]", "i32[A:2]"], &format!("`{name}` of i64 and i32"));
    }
    refused("floor", &["i64[A:2]"], "`floor` of i64");
}

#[test]
fn norms_and_losses() {
    for (name, rest) in [("rms_norm", ",\"eps\":0"), ("layer_norm", ",\"eps\":0"), ("softmax", "")] {
        refused(&format!("{name} {{\"dim\":\"C\"{rest}}}"), &["f32[A:2]"], "no dim C");
        refused(&format!("{name} {{\"dim\":\"A\"{rest}}}"), &["i64[A:2]"], "of i64");
        refused(&format!("{name}_grad {{\"dim\":\"C\"{rest}}}"), &["f32[A:2]", "f32[A:2]"], "no dim C");
        refused(&format!("{name}_grad {{\"dim\":\"A\"{rest}}}"), &["f32[A:2]", "f32[A:3]"], "must be of one type");
    }
    for eps in ["-1", "1e300", "-1e-300"] {
        for (name, count) in [("rms_norm", 1), ("rms_norm_grad", 2), ("layer_norm", 1), ("layer_norm_grad", 2)] {
            let op = format!("{name} {{\"dim\":\"A\",\"eps\":{eps}}}");
            refused(&op, &["f32[A:2]", "f32[A:2]"][..count], "with an eps of");
        }
    }
    let loss = "cross_entropy {\"dim\":\"V\",\"ignore\":-1}";
    refused(loss, &["f32[N:2, W:3]", "i64[N:2]"], "are no logits over V");
    refused(loss, &["i64[N:2, V:3]", "i64[N:2]"], "are no logits over V");
    refused(loss, &["f32[N:2, V:3]", "f32[N:2]"], "operand 1 of `cross_entropy` is f32");
    refused(loss, &["f32[N:2, V:3]", "i64[M:2]"], "labels `i64[M:2]` for logits");
    let grad = "cross_entropy_grad {\"dim\":\"V\",\"ignore\":-1}";
    refused(grad, &["bf16[N:2, V:3]", "i64[N:2]", "bf16[N:2]"], "no cotangent of losses");
    let adamw = "adamw {\"beta1\":0.9,\"beta2\":0.9,\"eps\":0,\"weight_decay\":0}";
    let (p, s) = ("f32[A:2]", "f32[]");
    for (from, to, said) in [
        ("beta1\":0.9", "beta1\":1", "a beta1 of 1.0"),
        ("beta2\":0.9", "beta2\":-0.5", "a beta2 of -0.5"),
        ("eps\":0", "eps\":-1", "`eps` of -1.0"),
        ("weight_decay\":0", "weight_decay\":1e300", "`weight_decay` of 1e300"),
    ] {
        refused(&adamw.replace(from, to), &[p, p, p, p, s, s, s], said);
    }
    refused(adamw, &[p, p, "f32[B:2]", p, s, s, s], "with `f32[B:2]`");
    refused(adamw, &[p, p, p, "i64[A:2]", s, s, s], "with `i64[A:2]`");
    refused(adamw, &[p, p, p, p, s, "f32[A:2]", s], "operand 5 of `adamw`");
    refused(adamw, &[p, p, p, p, s, s, "bf16[]"], "operand 6 of `adamw`");
    refused(adamw, &[p, p, p, p, s, s, s, "bool[]"], "operand 7 of `adamw`");
}

#[test]
fn rope() {
    let op = "rope {\"dim\":\"D\",\"form\":\"half\"}";
    let (x, t) = ("bf16[B:2, L:3, D:4]", "f32[L:3, P:2]");
    refused(op, &["bf16[B:2, L:3]", t, t], "no dim D to rotate");
    refused(op, &["bf16[L:3, D:5]", t, t], "rotates pairs");
    refused(op, &["i64[L:3, D:4]", t, t], "rotates pairs");
    refused(op, &[x, t, "f32[L:3, Q:2]"], "the cosines are `f32[L:3, P:2]` and the sines");
    refused(op, &[x, "bf16[L:3, P:2]", "bf16[L:3, P:2]"], "the tables of `rope` are bf16, not f32");
    refused(op, &[x, "f32[L:3, P:4]", "f32[L:3, P:4]"], "must have 2 elements");
    refused(op, &[x, "f32[]", "f32[]"], "must have 2 elements");
    refused(op, &[x, "f32[M:3, P:2]", "f32[M:3, P:2]"], "does not broadcast over");
    refused(op, &[x, "f32[L:2, P:2]", "f32[L:2, P:2]"], "does not broadcast over");
    refused(op, &[x, "f32[L:3, B:2]", "f32[L:3, B:2]"], "does not broadcast over");
    refused(op, &[x, "f32[L:3, B:2, P:2]", "f32[L:3, B:2, P:2]"], "does not broadcast over");
}

#[test]
fn attention() {
    let with = |q_len: &str, kv_len: &str, heads: &str, kv_heads: &str, causal: bool| {
        format!(
            "{{\"q_len\":\"{q_len}\",\"kv_len\":\"{kv_len}\",\"heads\":\"{heads}\",\"kv_heads\":\"{kv_heads}\",\
             \"head\":\"D\",\"causal\":{causal},\"scale\":1}}"
        )
    };
    let cross = format!("attention {}", with("L", "T", "H", "K", false));
    let (q, kv) = ("f32[B:2, L:3, H:4, D:5]", "f32[B:2, T:7, K:2, D:5]");
    let check = |q: &str, k: &str, v: &str, expected: &str| refused(&cross, &[q, k, v], expected);
    check("i64[B:2, L:3, H:4, D:5]", kv, kv, "`attention` of");
    check("bf16[B:2, L:3, H:4, D:5]", kv, kv, "`attention` of");
    check(q, kv, "f32[B:2, T:7, K:2, D:6]", "`attention` of");
    check("f32[B:2, M:3, H:4, D:5]", kv, kv, "no dim L");
    check(q, "f32[B:2, M:7, K:2, D:5]", "f32[B:2, M:7, K:2, D:5]", "no dim T");
    check(q, "f32[B:2, T:7, K:2, D:6]", "f32[B:2, T:7, K:2, D:6]", "do not fit");
    check(q, "f32[B:1, T:7, K:2, D:5]", "f32[B:1, T:7, K:2, D:5]", "do not fit");
    check(q, "f32[T:7, K:2, D:5]", "f32[T:7, K:2, D:5]", "do not fit");
    check(q, "f32[B:2, T:7, K:3, D:5]", "f32[B:2, T:7, K:3, D:5]", "4 heads cannot share 3");
    check(q, "f32[B:2, T:7, K:0, D:5]", "f32[B:2, T:7, K:0, D:5]", "4 heads cannot share 0");
    let causal = format!("attention {}", with("L", "T", "H", "K", true));
    let short = "f32[B:2, T:2, K:2, D:5]";
    refused(&causal, &[q, short, short], "3 queries of length L with 2 keys");
    let same = format!("attention {}", with("L", "L", "H", "H", false));
    let (more, fewer) = ("f32[B:2, L:4, H:4, D:5]", "f32[B:2, L:3, H:2, D:5]");
    refused(&same, &[q, more, more], "3 queries of length L with 4 keys");
    refused(&same, &[q, fewer, fewer], "4 heads cannot share 2");
    let confused = format!("attention {}", with("L", "T", "L", "K", false));
    refused(&confused, &["f32[L:4, D:5]", "f32[T:7, K:2, D:5]", "f32[T:7, K:2, D:5]"], "do not fit");
    let seen = |rest: &str| format!("{}{rest}}}", cross.strip_suffix('}').unwrap());
    let segments = seen(",\"visibility\":{\"segments\":true}");
    refused(&segments, &[q, kv, kv], "takes 5 operands as it is, here are 3");
    refused(&segments, &[q, kv, kv, "i64[B:2, L:3]", "i32[T:7]"], "operand 4 of `attention` is `i32[T:7]`");
    refused(&segments, &[q, kv, kv, "i64[B:2, L:3, H:4]", "i64[T:7]"], "which does not number");
    refused(&segments, &[q, kv, kv, "i64[B:2]", "i64[T:7]"], "which does not number");
    refused(&segments, &[q, kv, kv, "i64[L:4]", "i64[T:7]"], "which does not number");
    let near = seen(",\"visibility\":{\"left\":1}");
    refused(&near, &[q, short, short], "queries of length L with");
    let biased = seen(",\"bias\":\"T\"");
    refused(&biased, &[q, kv, kv], "takes a bias as operand 3, here are 3");
    refused(&biased, &[q, kv, kv, "f32[H:4, L:3, T:6]"], "which is no bias of");
    refused(&biased, &[q, kv, kv, "i64[H:4, T:7]"], "which is no bias of");
    refused(&biased, &[q, kv, kv, "f32[D:5, T:7]"], "which is no bias of");
    refused(&seen(",\"bias\":\"L\""), &[q, kv, kv, "f32[L:3]"], "cannot be called L like a dim of");
    let grad = format!("attention_grad {}", with("L", "T", "H", "K", false));
    let lse = "f32[B:2, L:3, H:4]";
    refused(&grad, &[q, kv, kv, kv, lse, q], "operand 3 of `attention_grad`");
    refused(&grad, &[q, kv, kv, q, q, q], "operand 4 of `attention_grad`");
    refused(&grad, &[q, kv, kv, q, lse, kv], "operand 5 of `attention_grad`");
}
