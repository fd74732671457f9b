//! What mistakes look like: whole messages, as a user sees them.

use crate::{evaluate, model, options};

/// The message for a published model after one edit, in its own file or in the first of those that it uses.
fn edited(name: &str, task: &str, from: &str, to: &str) -> String {
    let mut edits = 0;
    let mut edit = |text: String| {
        let here = edits == 0 && text.contains(from);
        edits += usize::from(here);
        if here { text.replacen(from, to, 1) } else { text }
    };
    let mut sources = diag::Sources::default();
    let file = sources.add(name, edit(model(name)));
    let asked = options(task, Some("tiny"), &[]);
    let evaluated = eval::evaluate(&mut sources, file, &asked, &mut |name, of| {
        let read = crate::used(name, of)?;
        Some(eval::Sibling { text: edit(read.text), ..read })
    });
    assert_eq!(edits, 1, "`{from}` is in {name} or in what it uses");
    evaluated.map(|e| e.module.to_string()).map_err(|e| diag::render(&e, &sources, false)).expect_err("an error")
}

/// The message for an untouched model under these settings.
fn asked(task: &str, preset: Option<&str>, set: &[(&str, &str)]) -> String {
    evaluate("wan2.2.mm", &model("wan2.2.mm"), &options(task, preset, set))
        .map(|e| e.module.to_string())
        .expect_err("an error")
}

/// The message for a small file around one body.
fn small(declarations: &str, body: &str) -> String {
    let text = format!(
        "use mm::prelude::*;

dims! {{ B, L = 6, DIM = 8, HEADS = 2, HEAD = 4, OTHER = 5, T: free }}
{declarations}
#[derive(Module)]
pub struct Net {{
    up: Linear,
}}

impl Net {{
    pub fn new() -> Self {{
        Self {{ up: linear(DIM, OTHER) }}
    }}

    fn mix(&self, a: Tensor![B, T, DIM], b: Tensor![B, T, DIM]) -> Tensor![B, T, DIM] {{
        a + b
    }}
}}

pub fn train(net: &Net, x: Tensor![B, L, DIM], ids: Tensor![B, L; i64]) -> Tensor![; f32] {{
{body}
}}
"
    );
    evaluate("net.mm", &text, &options("train", None, &[])).map(|e| e.module.to_string()).expect_err("an error")
}

#[test]
fn settings() {
    let messages = [
        asked("train", Some("t2v-14b"), &[]),
        asked("train", Some("huge"), &[]),
        asked("trian", None, &[]),
        asked("train", None, &[("LYAERS", "2")]),
        asked("train", None, &[("LAYERS", "two")]),
        asked("train", None, &[("LAYERS", "0")]),
        asked("train", None, &[("DIM", "64")]),
        asked("train", None, &[("dit.T", "64")]),
        asked("train", None, &[("EXPERT", "middle")]),
        asked("train", None, &[("TI2V", "maybe")]),
        asked("train", None, &[("BOUNDARY", "much")]),
        asked("train", None, &[("IN", "8")]),
        asked("train", None, &[("H", "61")]),
        asked("train", None, &[("LAYERS", "9999999999999")]),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn names() {
    let messages = [
        edited("wan2.2.mm", "train", "linear(DIM, FFN)", "linear(DMI, FFN)"),
        edited("wan2.2.mm", "train", "self.attn2.to_context", "self.atn2.to_context"),
        edited("wan2.2.mm", "train", ".gelu_tanh()", ".gelu_tan()"),
        edited("wan2.2.mm", "train", "to: Tensor![B, T, DIM]", "to: Tensor![B, U, DIM]"),
        edited("wan2.2.mm", "train", "Rope::new()", "Rope::make()"),
        edited("wan2.2.mm", "train", "norm2: layer_norm(DIM, EPS),", "nrom2: layer_norm(DIM, EPS),"),
        edited("wan2.2.mm", "train", "norm2: layer_norm(DIM, EPS),", ""),
        edited("qwen3.mm", "train", "linear(from, to)", "lineer(from, to)"),
        edited("qwen3.mm", "train", "\"1.7b\" { HIDDEN = 2048", "\"1.7b\" { HIDDAN = 2048"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn dims() {
    let messages = [
        edited("wan2.2.mm", "train", "linear(FFN, DIM)", "linear(DIM, FFN)"),
        edited("wan2.2.mm", "train", "down: linear(FFN, DIM)", "down: linear(FFN, FREQ)"),
        edited("wan2.2.mm", "train", "t.split(DIM, [HEADS, HEAD])", "t.split(DIM, [HEADS, FREQ])"),
        edited("wan2.2.mm", "train", ".transpose([B, OUT, FRAMES, PF,", ".transpose([B, OUT, PF,"),
        edited("wan2.2.mm", "train", "merge([FRAMES, ROWS, COLS], L)", "merge([ROWS, FRAMES, COLS], L)"),
        edited("qwen3.mm", "train", ".split(KV, [KV_HEADS, HEAD]));", ".split(Q, [KV_HEADS, HEAD]));"),
        edited("qwen3.mm", "train", "rope.rotate(k), v", "rope.rotate(k), x"),
        edited("qwen3.mm", "train", "HIDDEN]).chunks(CHUNKS, CHUNKS)", "HIDDEN]).chunks(CHUNKS, VOCAB)"),
        small("", "    (x + x.transpose([DIM, B, L])).cast(f32).mean()"),
        small("", "    let y = x.rename(DIM, OTHER);\n    (net.up.forward(x) + y).cast(f32).mean()"),
        small("", "    net.up.forward(x).split(OTHER, [HEADS, HEAD]).cast(f32).mean()"),
        small("", "    linear(HEAD, DIM).forward(x).cast(f32).mean()"),
        small("", "    x.slice(L, 4..9).cast(f32).mean()"),
        small("", "    x.at(L, 6).cast(f32).mean()"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn contracts() {
    let messages = [
        edited("wan2.2.mm", "train", "self.attn1.forward(a, a, Some(rope))", "self.attn1.forward(text, a, Some(rope))"),
        edited("wan2.2.mm", "train", "self.attn1.forward(a, a, Some(rope))", "self.attn1.forward(a, a)"),
        edited("wan2.2.mm", "train", "self.attn1.forward(a, a, Some(rope))", "self.attn1.forward(a, a, rope)"),
        edited(
            "wan2.2.mm",
            "train",
            "wan.forward(x.cast(work), t * 1000.0, None, encoder_hidden_states, picture)",
            "wan.forward(x, t * 1000.0, None, encoder_hidden_states, picture)",
        ),
        edited("wan2.2.mm", "train", "(seen - flow).square().mean()\n}", "(seen - flow).square().mean_over([F])\n}"),
        edited(
            "wan2.2.mm",
            "forward",
            ") -> Tensor![B, OUT, F, H, W] {\n        let rope",
            ") -> Tensor![B, IN, F, H, W] {\n        let rope",
        ),
        small("", "    net.mix(x, x.slice(L, 0..3)).cast(f32).mean()"),
        small("", "    net.mix(x).cast(f32).mean()"),
        small("", "    let y: Tensor![B, DIM] = x;\n    y.cast(f32).mean()"),
        small("", "    net.up.forward(ids).cast(f32).mean()"),
        small("", "    x.mean()"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn values() {
    let messages = [
        small("", "    if x { x.sum() } else { x.mean() }"),
        small("", "    if x == 1.0 { x.sum() } else { x.mean() }"),
        small("", "    x[0].sum()"),
        small("", "    let y = 1 / 0;\n    x.sum()"),
        small("", "    x.silu(1.0).sum()"),
        small("", "    ids.silu().sum()"),
        small("", "    (ids * 0.5).sum()"),
        small("", "    x.expand([B, 3, L, DIM]).sum()"),
        small("", "    let [a, b] = x.unstack(L);\n    a.sum()"),
        small("", "    for y in x { }\n    x.sum()"),
        small("", "    match 3 { 1 => x.sum(), 2 => x.mean() }"),
        small("", "    draw(\"t\", 3).sum()"),
        small("", "    let f = || draw(\"t\", uniform([B], 0.0..1.0));\n    f().sum()"),
        small("", "    draw(\"t\", uniform([B], 1.0..0.0)).sum()"),
        small("", "    draw(\"x\", uniform([B], 0.0..1.0)).sum()"),
        small("", "    require(DIM == 9, \"DIM must be 9\");\n    x.sum()"),
        small("", "    iota(L, f64).cos().sum() * x.cast(f32).sum()"),
        small("", "    (x * iota(L, f64)).sum()"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn indices_and_truth_values() {
    let kept = "dims! { KEPT = 9, TWO = 2 }";
    let messages = [
        small(kept, "    x.cast(f32).top_k(DIM, KEPT).0.sum()"),
        small(kept, "    x.cast(f32).cumsum(TWO).sum()"),
        small(kept, "    x.grouped_matmul(OTHER, ids, constant(0.0, work).expand([KEPT, DIM, TWO])).0.cast(f32).sum()"),
        small(kept, "    x.grouped_matmul(KEPT, ids, constant(0.0, work).expand([KEPT, TWO])).0.cast(f32).sum()"),
        small(
            kept,
            "    x.grouped_matmul(KEPT, ids.at(L, 0), constant(0.0, work).expand([KEPT, DIM, TWO])).0.cast(f32).sum()",
        ),
        small(
            kept,
            "    x.grouped_matmul(KEPT, ids.expand([B, L, TWO]), constant(0.0, work).expand([KEPT, DIM, TWO])).1.cast(f32).sum()",
        ),
        small(
            kept,
            "    x.grouped_matmul(KEPT, ids.cast(f32), constant(0.0, work).expand([KEPT, DIM, TWO])).0.cast(f32).sum()",
        ),
        small(kept, "    x.floor_div(2).cast(f32).sum()"),
        small(kept, "    (ids % 2).cast(f32).sum()"),
        small(kept, "    ids.and(ids).cast(f32).sum()"),
        small(kept, "    x.clamp(1.0, 0.0).cast(f32).sum()"),
        small(kept, "    ids.gelu().cast(f32).sum()"),
        small(kept, "    x.pad(L, 0, 1, 0.0).gather(DIM, ids).cast(f32).sum()"),
        small(kept, "    x.segments(ids, ids).cast(f32).sum()"),
        small(
            kept,
            "    let h = x.split(DIM, [HEADS, HEAD]);\n    attend(h, h, h).segments(ids, ids.cast(f32)).cast(f32).sum()",
        ),
        small(
            kept,
            "    let h = x.split(DIM, [HEADS, HEAD]);\n    attend(h, h, h).segments(ids, ids).segments(ids, ids).cast(f32).sum()",
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

/// A dim may be 0, an axis may not: every way to make one is refused where it is made.
#[test]
fn axes_of_size_0() {
    let none = "dims! { NONE = L - 6, HALF = DIM / 9, REST = L % 3, K = 2 }";
    let messages = [
        small(none, "    (iota(NONE, f32) * x.cast(f32).mean()).sum()"),
        small(none, "    (iota(HALF, i64).cast(f32) * x.cast(f32).mean()).sum()"),
        small(none, "    zeros([B, REST], f32).sum() + x.cast(f32).sum()"),
        small(none, "    x.expand([B, NONE, L, DIM]).sum().cast(f32)"),
        small(none, "    (draw(\"t\", uniform([NONE], 0.0..1.0)).sum() + x.cast(f32).sum())"),
        small(none, "    linear(DIM, NONE).forward(x).sum().cast(f32)"),
        small(none, "    stack(NONE, Net::new).fold(x, |x, net| x).sum().cast(f32)"),
        small(none, "    x.split(L, [L, NONE]).sum().cast(f32)"),
        small(none, "    x.slice(L, 2..2).sum().cast(f32)"),
        small(none, "    x.slice(L, NONE..NONE).sum().cast(f32)"),
        small(
            none,
            "    x.transpose([L, B, DIM]).chunks(L, NONE).fold(constant(0.0, f32), |s, p| s + p.cast(f32).sum())",
        ),
        small(none, "    concat(L, []).sum()"),
        edited("wan2.2.mm", "train", "L = FRAMES * ROWS * COLS", "L = FRAMES * ROWS * COLS * 0"),
        asked("train", Some("tiny"), &[("HEAD", "1")]),
        asked("train", Some("tiny"), &[("F", "0")]),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

/// Sizes whose products no machine holds, in dims, constants and shapes.
#[test]
fn absurd_sizes() {
    let large = "dims! { TERA = 1_099_511_627_776, MEGA = 1_048_576 }";
    let messages = [
        asked("train", Some("tiny"), &[("LAYERS", "100000000")]),
        asked("train", Some("tiny"), &[("HEADS", "1099511627776"), ("HEAD", "1099511627776")]),
        asked("train", Some("tiny"), &[("H", "9223372036854775807")]),
        asked("train", Some("tiny"), &[("H", "9223372036854775808")]),
        small("dims! { K = 9_223_372_036_854_775_807 + L }", "    x.cast(f32).sum()"),
        small("const K: i64 = 9_223_372_036_854_775_807 * 2;", "    x.cast(f32).sum() * K.f64()"),
        small("const K: f64 = 1e308 * 10.0;", "    x.cast(f32).sum() * K"),
        small(large, "    x.expand([TERA, B, L, DIM, HEADS, HEAD]).cast(f32).sum()"),
        small(large, "    x.pad(L, 0, TERA, 0.0).pad(DIM, 0, TERA, 0.0).cast(f32).sum()"),
        small(large, "    zeros([TERA, MEGA], f32).sum() + x.cast(f32).sum()"),
        small(large, "    x.expand([MEGA, B, L, DIM]).chunks(MEGA, TERA).fold(constant(0.0, f32), |s, p| s)"),
        small(
            large,
            "    zeros([TERA], f32).chunks(TERA, TERA).fold(constant(0.0, f32), |s, p| s + p.sum() + x.cast(f32).sum())",
        ),
        small(
            "dims! { GIGA = 1_073_741_824, ONE = 1 }",
            "    let v = zeros([B, GIGA, ONE, DIM], f32) + x.cast(f32).mean();\n    attend(v, v, v).sum()",
        ),
        small("", "    let mut s = 0;\n    for i in 0..9_223_372_036_854_775_807 { s += i; }\n    x.cast(f32).sum()"),
        small("", "    x.slice(L, 0..=9_223_372_036_854_775_807).cast(f32).sum()"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

/// `batch` is the size of `B`, over the preset's and the file's own.
#[test]
fn the_batch() {
    let text = |dims: &str| {
        format!(
            "use mm::prelude::*;\ndims! {{ {dims}, K = 2 }}\npresets! {{ \"p\" {{ K = 3 }} }}\n#[derive(Module)]\npub struct Net {{ w: Param }}\nimpl Net {{ pub fn new() -> Self {{ Self {{ w: Param::ones([K]) }} }} }}\npub fn train(net: &Net, x: Tensor![{}, K; f32]) -> Tensor![; f32] {{ (x * net.w.keep(f32)).sum() }}\n",
            dims.split([' ', ',']).next().unwrap_or_default()
        )
    };
    let size = |dims: &str, batch: Option<usize>, default_batch: usize| {
        let options = eval::Options { batch, default_batch, ..options("train", None, &[]) };
        evaluate("net.mm", &text(dims), &options).map(|e| e.batch)
    };
    assert_eq!(size("B", None, 0), Ok(1));
    assert_eq!(size("B", None, 6), Ok(6));
    assert_eq!(size("B", Some(8), 6), Ok(8));
    assert_eq!(size("B = 4", None, 6), Ok(4));
    assert_eq!(size("B = 4", Some(8), 6), Ok(8));
    let messages = [size("N = 4", Some(8), 8), size("B = M * 2, M = 2", Some(8), 8)].map(|r| r.expect_err("an error"));
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn folds() {
    let messages = [
        edited(
            "qwen3.mm",
            "train",
            "layer.forward(x, rope, segments));",
            "layer.forward(x, rope, segments).cast(work));",
        ),
        edited("qwen3.mm", "train", "(loss + losses.sum(), count", "(loss + losses.sum(), count, count"),
        edited("qwen3.mm", "train", "let none = constant(0.0, f32);", "let none = 0.0;"),
        edited(
            "wan2.2.mm",
            "train",
            "let x = self.blocks.fold(x, |x, block| block.forward(x, six, of_token, text, picture, rope));",
            "for block in self.blocks { x = block.forward(x, six, of_token, text, picture, rope); }",
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn subset() {
    let messages = [
        small("enum Kind { A, B }", "    x.sum()"),
        small("trait Forward {}", "    x.sum()"),
        small("use std::collections::HashMap;", "    x.sum()"),
        small("use super::other::Thing;", "    x.sum()"),
        small("fn id<A>(a: A) -> A { a }", "    x.sum()"),
        small("dims! { DIM = 3 }", "    x.sum()"),
        small("dims! { K = }", "    x.sum()"),
        small("dims! { K = M, M = K }", "    x.sum()"),
        small("dims! { K = L - DIM }", "    x.sum()"),
        small("dims! { K }", "    x.sum()"),
        small("fn f(n: i64) -> i64 { f(n + 1) }", "    let n = f(0);\n    x.sum()"),
        small("", "    while true { }\n    x.sum()"),
        small("", "    println!(\"{}\", 3);\n    x.sum()"),
        small("", "    let n = 3;\n    let f = |m: i64| { n += m; n };\n    f(1);\n    x.sum()"),
        small("", "    for i in 0..10_000_000_000 { }\n    x.sum()"),
        small("", "    let x = (;\n    x.sum()"),
        small("", "    x.sum()?"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

/// A chain of functions, each of which calls the next.
fn chain(count: usize) -> String {
    let function = |i: usize| format!("fn f{i}(n: i64) -> i64 {{ f{}(n) }}\n", i + 1);
    (0..count - 1).map(function).collect::<String>() + &format!("fn f{}(n: i64) -> i64 {{ n }}\n", count - 1)
}

/// Calls that nest too deep are told by the chain of functions; that one calls itself is said only where it does.
#[test]
fn calls_within_calls() {
    let body = |call: &str| format!("    let n = {call};\n    x.cast(f32).mean() * n.f64()");
    let said = small(&chain(65), &body("f0(0)"));
    for words in ["calls nest deeper than 64", "the chain is `f0`, `f1`, `f2`, .., `f62`, `f63`, `f64`"] {
        assert!(said.contains(words) && !said.contains("itself"), "{words}: {said}");
    }
    let said = small("fn f(n: i64) -> i64 { f(n + 1) }\n", &body("f(0)"));
    assert!(said.contains("`f` calls itself, more than 64 calls deep"), "{said}");
    let two = "fn even(n: i64) -> i64 { odd(n + 1) }\nfn odd(n: i64) -> i64 { even(n + 1) }\n";
    let said = small(two, &body("even(0)"));
    assert!(said.contains("`even` calls itself, through `odd`, more than 64 calls deep"), "{said}");
    let closures = (1..65).map(|i| format!("    let f{i} = |n: i64| f{}(n);\n", i - 1)).collect::<String>();
    let said = small("", &format!("    let f0 = |n: i64| n;\n{closures}{}", body("f64(0)")));
    assert!(said.contains("calls nest deeper than 64") && !said.contains("itself"), "{said}");
}

/// What is too deep or too long for the parser is shown where it is.
#[test]
fn limits_have_places() {
    let deep = format!("    let n = {}0{};\n    x.cast(f32).mean()", "(".repeat(120), ")".repeat(120));
    let said = small("", &deep);
    assert!(said.contains("brackets nest deeper than 100") && said.contains("net.mm:21:111"), "{said}");
    let long = format!("    let n = 1{};\n    x.cast(f32).mean()", " + 1".repeat(6000));
    let said = small("", &long);
    let column = said.split_once("net.mm:21:").and_then(|(_, rest)| rest.lines().next()?.parse::<usize>().ok());
    // The line has 24,000 columns, and each token takes two of them.
    assert!(said.contains("more than 10000 tokens") && column.is_some_and(|c| c > 19_000 && c < 21_000), "{said}");
}

/// Numbers outside of what a formula takes are refused, and no dim of size 0 comes from a rename.
#[test]
fn domains() {
    let table = |formula: &str| format!("    let t = {formula};\n    (x.cast(f32) * t).mean()");
    let messages = [
        small("", "    (x.normalize(DIM, -1e-6)).cast(f32).mean()"),
        small("", "    (x.rms_normalize(DIM, -0.5)).cast(f32).mean()"),
        small("", &table("powers(0.0, iota(DIM, f32))")),
        small("", &table("powers(-2.0, iota(DIM, f32))")),
        small("", &table("(iota(DIM, f32) - 1.0).log()")),
        small("", &table("(iota(DIM, f32) / iota(DIM, f32)) * 2.0 + 1.0")),
        small("dims! { NONE = 0 }", "    x.rename(L, NONE).cast(f32).mean()"),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}
