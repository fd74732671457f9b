//! What a run gives besides its final state: numbers of each step, tensors of the last, gradients of the first.

use std::path::Path;

use data::{Outputs, Pieces, Share, Wait};
use plan::{Emit, EmitId, Plan, When};
use serde_json::json;

use crate::cli::Args;
use crate::failure::Failure;
use crate::probe::{self, PROBE};
use crate::world::World;

#[derive(Default)]
pub struct Results {
    /// Single numbers, shown and logged.
    numbers: Vec<Kept>,
    /// Whole tensors; the last step's stays.
    tensors: Vec<Kept>,
    /// Asked for with `--emit`, and taken from the first step.
    first: Vec<Kept>,
    params: bool,
    outputs: Outputs,
    /// Asked for with `--probe`, and taken from the first step.
    probed: Vec<Kept>,
    probes: Outputs,
    /// The probes in order of computation, each with its place in the model.
    modules: Vec<(String, String)>,
}

/// An emit, and the ranks that give its parts.
struct Kept {
    program: usize,
    id: EmitId,
    /// In the outputs.
    name: String,
    sources: Vec<(usize, Share)>,
}

impl Results {
    /// Decides what is to be kept, and tells the ranks.
    pub fn new(args: &Args, world: &mut World, programs: &[usize]) -> Result<Self, Failure> {
        let plan = world.plan().clone();
        let mut results = Self::default();
        let pattern = args.probe.as_deref().map(regex::Regex::new).transpose();
        let pattern = pattern.map_err(|e| Failure::new(format!("--probe is no regular expression: {e}")))?;
        let mut words = vec!["params".to_string()];
        let emits = programs.iter().flat_map(|&p| world.emits(p).into_iter().map(move |id| (p, id)));
        for (program, id) in emits.collect::<Vec<_>>() {
            let emit = &plan.programs[program].emits[id.index()];
            let name = output_name(&plan, programs, program, &emit.name);
            let kept = || Kept { program, id, name: name.clone(), sources: world.sources(program, id) };
            let word = match &emit.when {
                When::Always => emit.name.to_string(),
                When::OnRequest(word) => word.to_string(),
            };
            match &emit.when {
                When::Always if emit.ty.rank() == 0 => results.numbers.push(kept()),
                When::Always if args.outputs.is_some() => results.tensors.push(kept()),
                When::OnRequest(_) if args.emit.contains(&word) => results.first.push(kept()),
                _ => {}
            }
            if let (When::OnRequest(word), Some(pattern)) = (&emit.when, &pattern) {
                let path = name.strip_prefix(PROBE).unwrap_or(&name);
                if word == "grads" || (word == "probes" && pattern.is_match(path)) {
                    results.probed.push(Kept { name: path.into(), ..kept() });
                }
            }
            if !words.contains(&word) {
                words.push(word);
            }
        }
        if let Some(word) = args.emit.iter().find(|w| !words.contains(w)) {
            words.sort();
            let names: Vec<_> = programs.iter().map(|p| format!("`{}`", plan.programs[*p].name)).collect();
            let (of, give) = if names.len() == 1 { ("program", "does not give") } else { ("programs", "do not give") };
            return Err(Failure::new(format!("the {of} {} {give} `{word}`", names.join(", ")))
                .help(format!("--emit takes {}", words.join(", "))));
        }
        if pattern.is_some() {
            results.modules =
                probe::modules(&plan, &results.probed.iter().map(|k| (k.program, k.id)).collect::<Vec<_>>());
            if results.probed.iter().all(|kept| kept.name.starts_with("grad/")) {
                return Err(Failure::new("the plan has no modules that match --probe")
                    .help("compile it with `mmc compile .. --probe REGEX`"));
            }
        }
        results.params = args.emit.iter().any(|w| w == "params");
        if args.outputs.is_none() && (results.params || !results.first.is_empty()) {
            return Err(Failure::new("--emit has nowhere to write to").help("add --outputs F.safetensors"));
        }
        for kept in results.numbers.iter().chain(&results.tensors).chain(&results.first).chain(&results.probed) {
            kept.request(world, true);
        }
        Ok(results)
    }

    /// Takes what the last step gave, a run of `program`; the numbers among it that are at hand come back.
    pub fn step(&mut self, world: &mut World, program: usize) -> Vec<(String, f32)> {
        for kept in self.tensors.iter().filter(|kept| kept.program == program) {
            kept.with(world, |value| self.outputs.add(value));
        }
        for kept in self.first.extract_if(.., |kept| kept.program == program) {
            kept.with(world, |value| self.outputs.add(value));
            kept.request(world, false);
        }
        for kept in self.probed.extract_if(.., |kept| kept.program == program) {
            kept.with(world, |value| self.probes.add(value));
            kept.request(world, self.first.iter().any(|k| (k.program, k.id) == (kept.program, kept.id)));
        }
        let mut numbers = Vec::new();
        for kept in self.numbers.iter().filter(|kept| kept.program == program) {
            kept.with(world, |value| {
                self.outputs.add(value);
                if value.is_complete() {
                    let mut number = Vec::new();
                    data::widen(value.ty.dtype, &value.bytes(), &mut number);
                    let emit = &world.plan().programs[program].emits[kept.id.index()];
                    numbers.extend(number.first().map(|v| (emit.name.to_string(), *v)));
                }
            });
        }
        numbers
    }

    /// Whether any of it comes from steps.
    pub fn needs_steps(&self) -> bool {
        !(self.numbers.is_empty() && self.tensors.is_empty() && self.first.is_empty())
    }

    /// Writes the folder of `--probe`; gives the number of tensors.
    pub fn write_probes(&self, world: &World, folder: &Path, wait: &Wait) -> Result<usize, Failure> {
        let made = std::fs::create_dir_all(folder).map(|()| vec![]);
        let made = made.map_err(|e| data::DataError::File { path: folder.into(), error: e });
        world.together().agree("make the folder of --probe", made)?;
        self.probes.write(&folder.join("probes.safetensors"), wait, world.together())?;
        if world.together().is_first() {
            let list = self.modules.iter().map(|(name, place)| json!({ "name": name, "place": place }));
            let path = folder.join("modules.json");
            let text = serde_json::to_string_pretty(&list.collect::<Vec<_>>()).unwrap_or_default();
            std::fs::write(&path, text + "\n").map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
        }
        Ok(self.probes.names().count())
    }

    /// Writes the outputs; gives the number of tensors.
    pub fn write(mut self, world: &World, path: &Path, wait: &Wait) -> Result<usize, Failure> {
        if self.params {
            for parameter in world.parameters()? {
                self.outputs.set(&format!("param/{}", parameter.name), &parameter);
            }
        }
        self.outputs.write(path, wait, world.together())?;
        Ok(self.outputs.names().count())
    }
}

/// What an emit is called in the outputs: `encode/out` where another program of the run has an emit `out`, too, unless both
/// give the value of a state that they share.
fn output_name(plan: &Plan, programs: &[usize], program: usize, emit: &str) -> String {
    let others = programs.iter().filter(|p| **p != program).flat_map(|p| &plan.programs[*p].emits);
    match others.into_iter().any(|other| other.name == *emit) && plan.manifest.state(emit).is_none() {
        true => format!("{}/{emit}", plan.programs[program].name),
        false => emit.to_owned(),
    }
}

impl Kept {
    fn request(&self, world: &mut World, wanted: bool) {
        for executor in world.executors_mut() {
            if self.sources.iter().any(|(source, _)| *source == executor.rank()) {
                executor.request(self.program, self.id, wanted);
            }
        }
    }

    /// Calls `take` with the value of the last step.
    fn with(&self, world: &World, take: impl FnOnce(&Pieces<'_>)) {
        let emit: &Emit = &world.plan().programs[self.program].emits[self.id.index()];
        let source = |number: usize| self.sources.iter().find(|(source, _)| *source == number);
        let given = world.executors().filter_map(|e| Some((source(e.rank())?, e.emitted(self.program, self.id))));
        let given: Vec<_> = given.collect();
        let pieces = given.iter().map(|((_, share), bytes)| (share.clone(), bytes.as_slice())).collect();
        take(&Pieces { name: &self.name, ty: &emit.ty, pieces });
    }
}
