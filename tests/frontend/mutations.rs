//! Damaged models: any text ends in a graph or in a message, never in a panic.

use diag::Sources;
use eval::Sibling;
use proptest::prelude::*;

use crate::{evaluate, model, options, used};

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

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut tokens = tokens(text);
    for damage in damages {
        let n = tokens.len();
        match damage {
            Damage::Delete(i) => drop(tokens.remove(i.index(n))),
            Damage::Duplicate(i) => tokens.insert(i.index(n), tokens[i.index(n)].clone()),
            Damage::Swap(a, b) => tokens.swap(a.index(n), b.index(n)),
            Damage::Replace(i, word) => tokens[i.index(n)].clone_from(word),
        }
    }
    tokens.concat()
}

/// Evaluates a model whose own file, or one of those that it uses, is damaged: the one that is read at this turn.
fn check(name: &str, turn: &prop::sample::Index, damages: &[Damage]) {
    let evaluated = |task: &str, hit: Option<usize>| {
        let mut turns = 0;
        let mut text = |text: String| {
            turns += 1;
            if hit == Some(turns - 1) { damaged(&text, damages) } else { text }
        };
        let mut sources = Sources::default();
        let file = sources.add(name, text(model(name)));
        let asked = options(task, Some("tiny"), &[]);
        let evaluated = eval::evaluate(&mut sources, file, &asked, &mut |name, of| {
            let read = used(name, of)?;
            Some(Sibling { text: text(read.text), ..read })
        });
        (evaluated.map_err(|errors| diag::render(&errors, &sources, false)), turns)
    };
    for task in ["forward", "train"] {
        let (whole, files) = evaluated(task, None);
        assert!(whole.is_ok() && files > 1);
        match evaluated(task, Some(turn.index(files))).0 {
            Ok(evaluated) => ir::verify(&evaluated.module).unwrap_or_else(|e| panic!("unsound: {e:?}")),
            Err(message) => assert!(!message.contains("fault in mmc"), "{message}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_wan_never_panics(turn in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..4)) {
        check("wan2.2.mm", &turn, &damages);
    }

    #[test]
    fn a_damaged_qwen3_never_panics(turn in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..4)) {
        check("qwen3.mm", &turn, &damages);
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
