//! Damaged models: any text ends in a graph or in a message, never in a panic.

use proptest::prelude::*;

use crate::{evaluate, model, options};

/// Words and signs with their places, comments left out.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("");
        let mut word = String::new();
        for c in line.chars() {
            if c.is_alphanumeric() || c == '_' || c == '"' {
                word.push(c);
                continue;
            }
            if !word.is_empty() {
                out.push(std::mem::take(&mut word));
            }
            out.push(c.to_string());
        }
        out.extend((!word.is_empty()).then_some(word));
        out.push("\n".into());
    }
    out
}

#[derive(Clone, Debug)]
enum Damage {
    Delete(prop::sample::Index),
    Duplicate(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Replace(prop::sample::Index, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let words = prop::sample::select(vec![
        "0",
        "1",
        "-1",
        "9999999999",
        "0.0",
        "1e308",
        "L",
        "DIM",
        "T",
        "x",
        "self",
        "None",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "fold",
        "forward",
        "new",
        "split",
        "merge",
        "chunks",
        "f64",
        "bool",
        "i64",
        "if",
        "return",
        "*",
        "/",
        "..",
        "|x|",
    ]);
    prop_oneof![
        at().prop_map(Damage::Delete),
        at().prop_map(Damage::Duplicate),
        (at(), at()).prop_map(|(a, b)| Damage::Swap(a, b)),
        (at(), words).prop_map(|(a, w)| Damage::Replace(a, w.into())),
    ]
}

fn check(name: &str, damages: &[Damage]) {
    let mut tokens = tokens(&model(name));
    for damage in damages {
        let n = tokens.len();
        match damage {
            Damage::Delete(i) => drop(tokens.remove(i.index(n))),
            Damage::Duplicate(i) => tokens.insert(i.index(n), tokens[i.index(n)].clone()),
            Damage::Swap(a, b) => tokens.swap(a.index(n), b.index(n)),
            Damage::Replace(i, word) => tokens[i.index(n)].clone_from(word),
        }
    }
    let text = tokens.concat();
    for task in ["forward", "train"] {
        match evaluate(name, &text, &options(task, Some("tiny"), &[])) {
            Ok(evaluated) => ir::verify(&evaluated.module).unwrap_or_else(|e| panic!("unsound: {e:?}")),
            Err(message) => assert!(!message.contains("fault in mmc"), "{message}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_wan_never_panics(damages in prop::collection::vec(damage(), 1..4)) {
        check("wan2.2.mm", &damages);
    }

    #[test]
    fn a_damaged_qwen3_never_panics(damages in prop::collection::vec(damage(), 1..4)) {
        check("qwen3.mm", &damages);
    }

    #[test]
    fn noise_never_panics(text in "\\PC{0,200}") {
        let _ = evaluate("noise.mm", &text, &options("train", None, &[]));
    }
}

#[test]
fn deep_and_long_texts_are_refused() {
    let deep = format!("pub const X: i64 = {}1{};", "(".repeat(5000), ")".repeat(5000));
    let signs = format!("pub const X: i64 = {}1;", "-".repeat(50_000));
    let sum = format!("pub const X: i64 = {}1;", "1 + ".repeat(50_000));
    let chain = format!("pub fn train() {{ {} {{}} }}", "if true {} else ".repeat(20_000));
    let blocks = format!("pub fn train() {{ {} }}", "A{} + ".repeat(40_000));
    for text in [deep, signs, sum, chain, blocks] {
        let message = evaluate("deep.mm", &text, &options("train", None, &[])).expect_err("refused");
        assert!(!message.contains("fault in mmc"), "{}", &message[..200]);
    }
}
