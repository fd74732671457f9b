//! What a run gives besides its final state: numbers of each step, tensors of the last, gradients of the first.

use std::path::Path;

use data::Outputs;
use plan::{Emit, EmitId, Plan, When};
use runtime_core::Executor;

use crate::cli::Args;
use crate::failure::Failure;

pub struct Results {
    /// Single numbers, shown and logged.
    numbers: Vec<EmitId>,
    /// Whole tensors; the last step's stays.
    tensors: Vec<EmitId>,
    /// Asked for with `--emit`, and taken from the first step.
    first: Vec<EmitId>,
    params: bool,
    outputs: Outputs,
}

impl Results {
    /// Decides what is to be kept, and tells the executor.
    pub fn new(args: &Args, executor: &mut Executor, program: usize) -> Result<Self, Failure> {
        let plan = executor.plan().clone();
        let mut results =
            Self { numbers: vec![], tensors: vec![], first: vec![], params: false, outputs: Outputs::default() };
        let mut words = vec!["params".to_string()];
        for (index, _) in executor.emits(program) {
            let emit = &plan.manifest.emits[*index];
            let id = EmitId::new(*index);
            let word = match &emit.when {
                When::Always => emit.name.to_string(),
                When::OnRequest(word) => word.to_string(),
            };
            match &emit.when {
                When::Always if emit.ty.rank() == 0 => results.numbers.push(id),
                When::Always if args.outputs.is_some() => results.tensors.push(id),
                When::OnRequest(_) if args.emit.contains(&word) => results.first.push(id),
                _ => {}
            }
            if !words.contains(&word) {
                words.push(word);
            }
        }
        if let Some(word) = args.emit.iter().find(|w| !words.contains(w)) {
            words.sort();
            let program = &plan.programs[program].name;
            return Err(Failure::new(format!("the program `{program}` does not give `{word}`"))
                .help(format!("--emit takes {}", words.join(", "))));
        }
        results.params = args.emit.iter().any(|w| w == "params");
        if args.outputs.is_none() && (results.params || !results.first.is_empty()) {
            return Err(Failure::new("--emit has nowhere to write to").help("add --outputs F.safetensors"));
        }
        for emit in results.numbers.iter().chain(&results.tensors).chain(&results.first) {
            executor.request(*emit, true);
        }
        Ok(results)
    }

    /// Takes what the last step gave; the numbers among it come back.
    pub fn step(&mut self, executor: &mut Executor) -> Vec<(String, f32)> {
        let plan = executor.plan().clone();
        for id in &self.tensors {
            self.outputs.add(emit(&plan, *id), &executor.emitted(*id));
        }
        for id in std::mem::take(&mut self.first) {
            self.outputs.add(emit(&plan, id), &executor.emitted(id));
            executor.request(id, false);
        }
        let mut numbers = Vec::new();
        for id in &self.numbers {
            let (emit, bytes) = (emit(&plan, *id), executor.emitted(*id));
            self.outputs.add(emit, &bytes);
            let mut value = Vec::new();
            data::widen(emit.ty.dtype, &bytes, &mut value);
            numbers.extend(value.first().map(|v| (emit.name.to_string(), *v)));
        }
        numbers
    }

    /// Writes the outputs; gives the number of tensors.
    pub fn write(mut self, executor: &Executor, path: &Path) -> Result<usize, Failure> {
        for p in executor.plan().manifest.parameters.iter().filter(|_| self.params) {
            let values = p.buffer(executor.class()).and_then(|id| executor.read(id)).unwrap_or_default();
            self.outputs.set(&format!("param/{}", p.name), &p.ty, values);
        }
        self.outputs.write(path)?;
        Ok(self.outputs.names().count())
    }
}

fn emit(plan: &Plan, id: EmitId) -> &Emit {
    &plan.manifest.emits[id.index()]
}
