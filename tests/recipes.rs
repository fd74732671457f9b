//! The recipes of ARCHITECTURE.md, "Adding ...": each place that they name exists, and what stands in a table that they name
//! stands nowhere else.

use std::path::{Path, PathBuf};

use passes::SCHEDULES;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect("a page")
}

/// Places that a recipe names, from the root of the repository.
fn places(recipe: &str) -> Vec<&str> {
    let quoted = recipe.split('`').skip(1).step_by(2);
    quoted.filter(|word| word.contains('/') && !word.contains(' ')).collect()
}

#[test]
fn every_place_is_there() {
    let page = page("ARCHITECTURE.md");
    let recipes: Vec<&str> = page.split("\n## ").filter(|section| section.starts_with("Adding ")).collect();
    let titles: Vec<&str> = recipes.iter().filter_map(|recipe| recipe.lines().next()).collect();
    assert_eq!(
        titles,
        ["Adding an operator", "Adding a pass", "Adding a schedule", "Adding a model", "Adding a target"]
    );
    for (title, recipe) in titles.iter().zip(&recipes) {
        let places = places(recipe);
        assert!(places.len() >= 3, "{title} names {places:?}");
        for place in places {
            // Of `passes/src/<name>.rs`, the folder is there.
            let known = place.split_once('<').map_or(place, |(folder, _)| folder);
            assert!(root().join(known).exists(), "{title}: there is no {place}");
        }
    }
}

/// The code of crates, without comments and unit tests: by file, its lines.
fn code() -> Vec<(String, Vec<String>)> {
    let mut open: Vec<PathBuf> =
        ["compiler", "frontends", "passes", "targets", "runtime"].map(|folder| root().join(folder)).into();
    let mut out = vec![];
    while let Some(path) = open.pop() {
        let is_tests = path.file_name().is_some_and(|name| name == "tests" || name == "tests.rs");
        if path.is_dir() && !is_tests {
            open.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|ending| ending == "rs") && !is_tests {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
            let lines = lines.filter(|line| !line.trim_start().starts_with("//")).map(String::from).collect();
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            out.push((name, lines));
        }
    }
    out
}

/// Files with a line of which this is said.
fn files(code: &[(String, Vec<String>)], said: impl Fn(&str) -> bool) -> Vec<&str> {
    let found = code.iter().filter(|(_, lines)| lines.iter().any(|line| said(line)));
    let mut files: Vec<&str> = found.map(|(name, _)| name.as_str()).collect();
    files.sort();
    files
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
}

#[test]
fn a_schedule_stands_in_its_table_alone() {
    let code = code();
    // The words are those of other things elsewhere: a rope may be interleaved.
    let speaks_of_schedules =
        |file: &str| ["compiler/mmc/", "frontends/mm/", "passes/"].iter().any(|f| file.starts_with(f));
    let spoken: Vec<(String, Vec<String>)> =
        code.iter().filter(|(file, _)| speaks_of_schedules(file)).cloned().collect();
    for schedule in SCHEDULES {
        let name = format!("\"{}\"", schedule.name);
        let named = files(&code, |line| line.contains(&name));
        let worded = files(&spoken, |line| has_word(line, schedule.word));
        assert_eq!((named, worded), (vec!["passes/src/stages/table.rs"], vec!["passes/src/stages/table.rs"]), "{name}");
    }
}

/// Names of Ascend's SoCs are those of the target; machines have files with the same names.
#[test]
fn a_target_is_named_by_its_crate_alone() {
    let code = code();
    let found = files(&code, |line| line.contains("\"ascend-"));
    assert_eq!(found, ["compiler/cost/src/machine.rs", "targets/ascend/src/soc.rs"]);
    let tables = files(&code, |line| line.contains("const TARGETS:") || line.contains("const BACKENDS:"));
    assert_eq!(tables, ["compiler/mmc/src/targets.rs", "runtime/mmrun/src/backend.rs"]);
}
