//! `docs/mm.md` and the README: each of their Rust blocks is a model that compiles, and `docs/mm.md` shows every word of
//! the language.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{evaluate, options};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    std::fs::read_to_string(path).expect("a page")
}

/// The Rust blocks of a page.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```rust\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block)).collect()
}

#[test]
fn every_block_is_a_model() {
    let text = page("docs/mm.md") + &page("README.md");
    let tasks = ["train", "forward", "sample"];
    let mut count = 0;
    for block in blocks(&text) {
        let own = tasks.iter().filter(|task| block.contains(&format!("\npub fn {task}(")));
        for task in own {
            let settings = options(task, None, &[]);
            let evaluated = evaluate("net.mm", block, &settings).unwrap_or_else(|e| panic!("{block}\n{e}"));
            ir::verify(&evaluated.module).unwrap_or_else(|e| panic!("{block}\n{e:?}"));
            count += 1;
        }
    }
    assert!(count >= blocks(&text).len(), "a block without a task");
}

#[test]
fn every_word_is_shown() {
    let text = page("docs/mm.md");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let shown: BTreeSet<&str> = text.split(|c| !is_word(c)).collect();
    let missing: Vec<&str> = eval::words().chain(eval::schedules()).filter(|word| !shown.contains(word)).collect();
    assert!(missing.is_empty(), "docs/mm.md does not show {missing:?}");
}
