//! Probes: outputs of modules as results of the programs, under the modules' paths.
//!
//! While a model is traced, what its modules compute is marked in the functions of the graph, by paths that begin at the
//! module whose method a function is, since calls of equal modules share it. Afterwards the marked values become results
//! of their functions, of those that call them, and of the programs; in a repeated call, stacks of them.

use diag::Diagnostic;
use ir::{Builder, Call, Function, Id, Inst, Mismatch, Module, NodeId, Output};
use regex::Regex;
use rustc_hash::FxHashMap;
use types::Name;

use crate::evaluator::Evaluator;
use crate::leaves::leaves;
use crate::stop::Eval;
use crate::trace::{Mark, Marked};
use crate::value::{Source, Value};

/// A path that does not begin at the function's own module.
const ABSOLUTE: char = '/';

impl<'a> Evaluator<'a> {
    /// Marks the first tensor that a method of a module gave: `forward` under the module's path, others behind it.
    pub fn mark_output(&mut self, path: &Name, method: &str, value: &Value<'a>) {
        if self.options.probe.is_none() || path.is_empty() {
            return;
        }
        let path = if method == "forward" { path.clone() } else { Name::from(format!("{path}:{method}")) };
        if let Some(leaf) = leaves(value).iter().find(|leaf| matches!(leaf.source, Source::Node(..))) {
            self.trace.mark(leaf, path);
        }
    }

    /// Keeps the marks of a function of a module's.
    pub fn keep_marks(&mut self, function: Id<Function>, marks: Vec<Mark>, module: &str) {
        if self.options.probe.is_none() {
            return;
        }
        let seen_from = |mark: Mark| {
            let path = match mark.path.strip_prefix(module) {
                Some(rest) if module.is_empty() || rest.is_empty() || rest.starts_with(['.', ':']) => rest.to_string(),
                _ => format!("{ABSOLUTE}{}", mark.path),
            };
            Mark { path: path.trim_start_matches('.').into(), ..mark }
        };
        self.marks.insert(function, marks.into_iter().map(seen_from).collect());
    }

    /// Gives the programs what `Options::probe` asks for.
    pub fn probe(&mut self) -> Eval<'a, ()> {
        let Some(pattern) = &self.options.probe else { return Ok(()) };
        let regex = |pattern: &str| {
            Regex::new(pattern).map_err(|e| {
                Diagnostic::error(format!("`--probe {pattern}` is no regular expression")).note(e.to_string())
            })
        };
        let (pattern, any) = (regex(pattern)?, regex("")?);
        let marks = std::mem::take(&mut self.marks);
        let mut probes = Probes { module: &mut self.trace.module, marks, pattern, made: FxHashMap::default() };
        let unfit = |m: Mismatch| Diagnostic::internal(m.message);
        let found = probes.programs().map_err(unfit)?;
        if found == 0 {
            let Probes { pattern, .. } = &probes;
            let error = Diagnostic::error(format!("no module matches `--probe {pattern}`"));
            probes.pattern = any;
            let known = probes.all();
            let shown: Vec<&str> = known.iter().take(12).map(Name::as_str).collect();
            let more = match known.len() - shown.len() {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            return Err(error.help(format!("modules are {}{more}", shown.join(", "))).into());
        }
        Ok(())
    }
}

struct Probes<'m> {
    module: &'m mut Module,
    marks: FxHashMap<Id<Function>, Vec<Mark>>,
    pattern: Regex,
    /// By function and the paths that it gives: the function that does.
    made: FxHashMap<(Id<Function>, Vec<Name>), Id<Function>>,
}

impl Probes<'_> {
    /// Gives each program its probes; how many there are.
    fn programs(&mut self) -> Result<usize, Mismatch> {
        let mut found = 0;
        for index in 0..self.module.programs.len() {
            let old = self.module.programs[index].function;
            let paths = self.wanted(old, "", None);
            if paths.is_empty() {
                continue;
            }
            found += paths.len();
            let function = self.probed(old, "", None)?;
            let program = &mut self.module.programs[index];
            program.function = function;
            program.outputs.extend(paths.into_iter().map(Output::Probe));
        }
        Ok(found)
    }

    /// Full paths of what a function gives whose module stands at `at`, in a loop of so many turns.
    fn wanted(&self, function: Id<Function>, at: &str, times: Option<usize>) -> Vec<Name> {
        let mut paths: Vec<Name> = vec![];
        for mark in self.marks.get(&function).into_iter().flatten() {
            let path = full(at, &mark.path);
            match mark.what {
                // What a loop computes with one module is in pieces, which have no path of their own.
                Marked::Output if times.is_some() && !path.contains('{') => {}
                Marked::Output if self.matches(&path, times) => paths.push(path.into()),
                Marked::Output => {}
                Marked::Call => {
                    let Inst::Call(call) = &self.module.functions[function].nodes[mark.node].inst else { continue };
                    // There are no stacks of stacks.
                    if call.times.is_none() || times.is_none() {
                        paths.extend(self.wanted(call.callee, &path, call.times.or(times)));
                    }
                }
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        paths
    }

    /// Whether the path, or that of a member of its family, matches.
    fn matches(&self, path: &str, times: Option<usize>) -> bool {
        match times {
            Some(times) if path.contains('{') => (0..times).any(|i| self.pattern.is_match(&ir::indexed_name(path, i))),
            _ => self.pattern.is_match(path),
        }
    }

    /// The function with what is wanted of it behind its results.
    fn probed(&mut self, id: Id<Function>, at: &str, times: Option<usize>) -> Result<Id<Function>, Mismatch> {
        let wanted = self.wanted(id, at, times);
        let seen: Vec<Name> = wanted.iter().map(|path| path.strip_prefix(at).unwrap_or(path).into()).collect();
        if let Some(made) = self.made.get(&(id, seen.clone())) {
            return Ok(*made);
        }
        let old = self.module.functions[id].clone();
        let marks = self.marks.get(&id).cloned().unwrap_or_default();
        let mut b = Builder::new(self.module.fresh_name(&old.name));
        (b.function.kind, b.function.recompute) = (old.kind, old.recompute);
        // A call gives several results; of other nodes the list has one.
        let mut map: Vec<Vec<NodeId>> = vec![];
        let mut found: FxHashMap<Name, NodeId> = FxHashMap::default();
        for (node_id, node) in old.nodes.iter() {
            b.place = node.place;
            let args: Vec<NodeId> = node.args.iter().filter_map(|a| map[a.index()].first().copied()).collect();
            let new = match &node.inst {
                Inst::Param(_) => vec![b.param(node.ty.clone())],
                Inst::Get(i) if matches!(old.nodes[node.args[0]].inst, Inst::Call(_)) => {
                    vec![map[node.args[0].index()][*i]]
                }
                Inst::Call(call) => self.call(&mut b, (node_id, call), &args, (at, times), &marks, &mut found)?,
                Inst::Op(op) => vec![b.try_op(op.clone(), &args)?],
                inst => vec![b.push(inst.clone(), args, node.ty.clone())],
            };
            for mark in marks.iter().filter(|m| m.node == node_id && m.what == Marked::Output) {
                if let Some(first) = new.first() {
                    found.entry(full(at, &mark.path).into()).or_insert(*first);
                }
            }
            map.push(new);
        }
        let results = old.results.iter().filter_map(|r| map[r.index()].first().copied());
        b.function.results = results.chain(wanted.iter().filter_map(|path| found.get(path).copied())).collect();
        let made = b.finish()?;
        let made = self.module.functions.add(made);
        self.made.insert((id, seen), made);
        Ok(made)
    }

    fn call(
        &mut self,
        b: &mut Builder,
        (node, call): (NodeId, &Call),
        args: &[NodeId],
        (at, times): (&str, Option<usize>),
        marks: &[Mark],
        found: &mut FxHashMap<Name, NodeId>,
    ) -> Result<Vec<NodeId>, Mismatch> {
        let mark = marks.iter().find(|m| m.node == node && m.what == Marked::Call);
        let nested = call.times.is_some() && times.is_some();
        let path = mark.filter(|_| !nested).map(|mark| full(at, &mark.path));
        let times = call.times.or(times);
        let paths = path.as_ref().map(|path| self.wanted(call.callee, path, times)).unwrap_or_default();
        let callee = match path.filter(|_| !paths.is_empty()) {
            Some(path) => self.probed(call.callee, &path, times)?,
            None => call.callee,
        };
        let called = self.module.functions[callee].clone();
        let id = b.try_call(Call { callee, ..call.clone() }, &called, args)?;
        let results: Vec<NodeId> = b.results(id).to_vec();
        for (path, value) in paths.iter().rev().zip(results.iter().rev()) {
            found.entry(path.clone()).or_insert(*value);
        }
        Ok(results)
    }

    /// Every path, for a message.
    fn all(&self) -> Vec<Name> {
        self.module.programs.iter().flat_map(|p| self.wanted(p.function, "", None)).collect()
    }
}

fn full(at: &str, path: &str) -> String {
    match path.strip_prefix(ABSOLUTE) {
        Some(path) => path.into(),
        None if at.is_empty() || path.is_empty() || path.starts_with(':') => format!("{at}{path}"),
        None => format!("{at}.{path}"),
    }
}
