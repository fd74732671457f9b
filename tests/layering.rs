//! The direction of dependencies between crates, and the absences that the architecture promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each crate may depend on among the project's own. A crate that is missing here fails the test.
const ALLOWED: &[(&str, &[&str])] = &[
    ("diag", &[]),
    ("types", &[]),
    ("plan", &["diag", "types"]),
    ("cost", &["plan", "types"]),
    ("report", &["diag", "types", "plan", "cost"]),
    ("ir", &["diag", "types"]),
    ("program", &["diag", "types", "ir", "plan", "cost"]),
    ("target", &["diag", "types", "ir", "plan", "cost", "program"]),
    ("passes", &["diag", "types", "ir", "plan", "cost", "program", "target"]),
    ("target-cpu", &["diag", "types", "ir", "plan", "target"]),
    ("target-ascend", &["diag", "types", "ir", "plan", "target"]),
    ("mm", &["mm-derive"]),
    ("mm-derive", &[]),
    ("eval", &["diag", "types", "ir"]),
    ("models", &["mm"]),
    (
        "mmc",
        &[
            "diag",
            "types",
            "ir",
            "plan",
            "cost",
            "program",
            "report",
            "target",
            "passes",
            "target-cpu",
            "target-ascend",
            "eval",
        ],
    ),
    ("comm", &["plan", "types"]),
    ("runtime-core", &["plan", "types", "comm"]),
    ("device", &["plan", "types", "comm", "runtime-core"]),
    ("data", &["plan", "types", "comm", "runtime-core"]),
    ("mmrun", &["plan", "types", "comm", "runtime-core", "device", "data"]),
    // Emulators know neither the compiler nor the runtime that runs on them.
    ("emulator-ge", &[]),
    ("emulator-ascendcl", &["emulator-ge"]),
    ("emulator-hccl", &[]),
    ("emulator-atc", &["emulator-ge"]),
];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().expect("cargo metadata runs")
}

/// Normal and build dependencies; development dependencies are tests' own business.
fn own_dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let members = metadata.workspace_packages();
    let own: BTreeSet<String> = members.iter().map(|p| p.name.to_string()).collect();
    let dependencies = |p: &cargo_metadata::Package| {
        let all = p.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        all.map(|d| d.name.clone()).filter(|n| own.contains(n)).collect()
    };
    members.iter().filter(|p| !p.name.ends_with("tests")).map(|p| (p.name.to_string(), dependencies(p))).collect()
}

#[test]
fn crates_depend_in_one_direction() {
    let found = own_dependencies(&metadata());
    for (name, dependencies) in &found {
        let allowed = ALLOWED.iter().find(|(n, _)| n == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("crate `{name}` has no line in ALLOWED"));
        for dependency in dependencies {
            assert!(allowed.contains(&dependency.as_str()), "`{name}` must not depend on `{dependency}`");
        }
    }
    assert!(found.len() >= 14, "the workspace has its crates");
}

/// Everything a package pulls in, outside crates included.
fn closure(metadata: &Metadata, root: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let name = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
    let mut open = vec![resolve.nodes.iter().find(|n| name(&n.id) == root).expect("a member").id.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(name(&id)) {
            continue;
        }
        let node = resolve.nodes.iter().find(|n| n.id == id).expect("a node");
        let normal = |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
        open.extend(node.deps.iter().filter(normal).map(|d| d.pkg.clone()));
    }
    seen
}

#[test]
fn only_the_cpu_target_links_llvm() {
    let metadata = metadata();
    let llvm = ["melior", "mlir-sys", "inkwell", "llvm-sys"];
    for package in metadata.workspace_packages() {
        let pulls = closure(&metadata, &package.name);
        let links = llvm.iter().any(|l| pulls.contains(*l));
        let may = ["target-cpu", "mmc", "plan-tests"].contains(&package.name.as_str());
        assert!(may || !links, "`{}` pulls in LLVM", package.name);
    }
    for package in ["mmrun", "comm", "runtime-core", "data", "device"] {
        assert!(!closure(&metadata, package).contains("ir"), "`{package}` sees the graph");
    }
}

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)];
    let mut out = vec![];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).expect("a folder").map(|e| e.expect("an entry").path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            out.push((path, text));
        }
    }
    out.sort();
    out
}

#[test]
fn only_the_command_lines_touch_the_outside() {
    let quiet = [
        "compiler/diag/src",
        "compiler/types/src",
        "compiler/ir/src",
        "compiler/plan/src",
        "compiler/cost/src",
        "compiler/program/src",
        "frontends/eval/src",
        "passes/src",
        "targets/target/src",
        "targets/ascend/src",
    ];
    for folder in quiet {
        for (path, text) in sources(folder) {
            for word in ["println!", "std::env::", "std::fs::", "std::process::"] {
                let used = text.lines().any(|l| l.contains(word) && !l.trim_start().starts_with("//"));
                assert!(!used, "{} uses {word}", path.display());
            }
        }
    }
}

/// `println!` and its kin panic where standard output or standard error is full or closed.
#[test]
fn printing_does_not_panic() {
    for folder in ["compiler/mmc/src", "compiler/report/src", "runtime"] {
        for (path, text) in sources(folder).into_iter().filter(|(path, _)| !path.iter().any(|part| part == "tests")) {
            let mut code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
            let printed = code.find(|l| l.contains("print!(") || l.contains("println!("));
            assert!(printed.is_none(), "{}: {}", path.display(), printed.unwrap_or_default());
        }
    }
}

#[test]
fn no_folder_or_file_is_a_drawer() {
    for folder in ["compiler", "frontends", "passes", "targets", "runtime", "models", "tests"] {
        for (path, text) in sources(folder) {
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or("");
            assert!(!["utils", "util", "helpers", "common", "manager", "misc"].contains(&name), "{}", path.display());
            assert!(text.lines().count() <= 800 || folder == "tests", "{} is over 800 lines", path.display());
        }
    }
}

/// The modules of a crate, each with those that it leads to by `crate::` paths outside of tests.
fn imports(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut direct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    for (path, text) in sources(folder) {
        let inside = path.strip_prefix(&root).expect("a path inside").with_extension("");
        let module = inside.iter().next().expect("a name").to_string_lossy().into_owned();
        let code = text.split("#[cfg(test)]").next().expect("code");
        for path in code.split("crate::").skip(1) {
            let list = path.strip_prefix('{').and_then(|list| list.split('}').next());
            for item in list.unwrap_or(path).split(',').take(if list.is_some() { usize::MAX } else { 1 }) {
                let name = item.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("a name");
                direct.entry(module.clone()).or_default().insert(name.to_owned());
            }
        }
    }
    let reached = |module: &String| {
        let (mut open, mut seen) = (vec![module.clone()], BTreeSet::new());
        while let Some(next) = open.pop() {
            open.extend(direct.get(&next).into_iter().flatten().filter(|name| seen.insert((*name).clone())).cloned());
        }
        (module.clone(), seen)
    };
    direct.keys().map(reached).collect()
}

#[test]
fn files_import_each_other_in_no_circle() {
    // The search for a plan that fits lowers a program again and again, and lowering begins it.
    let allowed = ["lower", "memory_search"];
    for folder in ["frontends/eval/src", "passes/src"] {
        let found = imports(folder);
        assert!(found.values().map(BTreeSet::len).sum::<usize>() > 50, "{folder}: paths are found");
        let circles = found.iter().filter(|(module, leads)| leads.contains(*module));
        let circles: Vec<&String> = circles.map(|(name, _)| name).filter(|n| !allowed.contains(&n.as_str())).collect();
        assert!(circles.is_empty(), "{folder}: {circles:?} import each other");
    }
}
