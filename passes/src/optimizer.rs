//! `optimizer`: appends the update of each parameter that has a gradient, as ordinary operators over ordinary state.
//!
//! State: `step`, which counts from 0, and for AdamW the families `exp_avg/<parameter>` and `exp_avg_sq/<parameter>`.
//! Parameters that a step reads in bf16 alone have a copy in it, `working/<parameter>`, which follows them.
//! Learning rate, bias corrections and the global norm are traced from them in f32.
//!
//! A step whose loss or gradient norm is not finite changes nothing: parameters, moments, copies and `step` stay as they
//! are, to the bit. The norm is emitted as `grad_norm`.

mod guard;
mod norm;
mod rate;
mod update;
pub mod working;

use std::collections::HashMap;

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Holds, Input, Mismatch, Module, NodeId, Output, Program, Rewriter, State, Type, ops};
use serde::{Deserialize, Serialize};
use types::{DType, Init, Name, TensorType};

use self::update::Updates;
use crate::{Context, Pass, callgraph, diagnostics};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    pub kind: OptimizerKind,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// The largest norm of all gradients together; 0 is none.
    pub clip: f64,
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0.
    pub warmup: u64,
    /// Steps of the whole run, for schedules that end.
    pub total: u64,
    /// Keep a copy of each parameter that is read in a narrower type alone, in that type.
    pub working: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// torch.optim.AdamW.
    #[default]
    Adamw,
    /// torch.optim.SGD without momentum.
    Sgd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    #[default]
    Constant,
    Cosine,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            clip: 1.0,
            schedule: Schedule::Constant,
            warmup: 0,
            total: 0,
            working: true,
        }
    }
}

const STEP: &str = "step";
const NORM: &str = "grad_norm";

impl Pass for Optimizer {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        self.check()?;
        cx.schedule_end = Some(self.total).filter(|_| self.schedule == Schedule::Cosine);
        for index in 0..module.programs.len() {
            let gradients = module.programs[index].outputs.iter().filter(|o| matches!(o, Output::Gradient(_))).count();
            if gradients > 0 {
                self.program(module, index)?;
                cx.stats.count("parameters updated", gradients as u64);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

impl Optimizer {
    fn check(&self) -> Result<(), Diagnostics> {
        let mut found = Diagnostics::default();
        let mut demand = |holds: bool, option: &str, value: f64, wish: &str| {
            if !holds {
                // Without the digits of a number that has hundreds.
                let value = if value.abs() < 1e15 { value.to_string() } else { format!("{value:e}") };
                let message = format!("the optimiser's `{option}` is {value}");
                found.push(Diagnostic::error(message).help(format!("give {wish}")));
            }
        };
        demand(self.lr.is_finite() && self.lr >= 0.0, "lr", self.lr, "a learning rate of 0 or more");
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            // At 0 its logarithm, from which the bias correction is traced, is not finite.
            demand(beta > 0.0 && beta < 1.0, name, beta, "a number between 0 and 1, both excluded");
        }
        demand(self.eps >= 0.0, "eps", self.eps, "0 or more");
        demand(self.weight_decay >= 0.0, "weight_decay", self.weight_decay, "0 or more");
        demand(self.clip >= 0.0, "clip", self.clip, "the largest norm, or 0 for none");
        let numbers = [("lr", self.lr), ("eps", self.eps), ("weight_decay", self.weight_decay), ("clip", self.clip)];
        for (name, value) in numbers {
            demand((value as f32).is_finite(), name, value, "a number that f32 can hold");
        }
        if self.schedule == Schedule::Cosine {
            let wish = "the number of steps of the run, more than `warmup`";
            demand(self.total > self.warmup, "total", self.total as f64, wish);
        }
        if found.has_errors() { Err(found) } else { Ok(()) }
    }

    fn program(&self, module: &mut Module, index: usize) -> Result<(), Diagnostics> {
        let mut program = module.programs[index].clone();
        let old = module.functions[program.function].clone();
        let new = self.extend(module, &mut program, &old).map_err(|m| diagnostics::unfit("optimizer", &old, &m))?;
        module.programs[index].inputs = program.inputs;
        module.programs[index].outputs = program.outputs;
        if module.programs.iter().enumerate().any(|(i, p)| i != index && p.function == program.function) {
            let new = Function { name: module.fresh_name(&new.name), ..new };
            module.programs[index].function = module.functions.add(new);
        } else {
            module.functions[program.function] = new;
        }
        Ok(())
    }

    fn extend(&self, module: &mut Module, program: &mut Program, old: &Function) -> Result<Function, Mismatch> {
        let trained = trained(program, old)?;
        if program.outputs.contains(&Output::Emit(NORM.into())) {
            return Err(Mismatch::new(format!("the optimiser emits `{NORM}`, and the program emits one of that name")));
        }
        let mut rewriter = Rewriter::new(old);
        let step_ty = Type::Tensor(TensorType::scalar(DType::I64));
        let step = state(module, program, &mut rewriter, STEP.into(), step_ty, None)?;
        let (mut moments, mut copies) = (vec![], vec![]);
        let (allowed, readers) = (self.working && working::allowed(module), working::Readers::of(old));
        for t in &trained {
            let narrow = working::wanted(module, &readers, t.parameter, None).filter(|_| allowed);
            copies.push(match narrow {
                Some(dtype) => {
                    let ty = old.ty(t.parameter).map(&|ty| ty.with_dtype(dtype));
                    let copy = state(
                        module,
                        program,
                        &mut rewriter,
                        working::name(&t.name),
                        ty,
                        Some((Holds::Copy, &t.name)),
                    )?;
                    Some((copy, dtype))
                }
                None => None,
            });
            let ty = old.ty(t.parameter).map(&moment);
            moments.push(match self.kind {
                OptimizerKind::Adamw => {
                    let mut of = |kind: &str| {
                        let name = Name::from(format!("{kind}/{}", t.name));
                        state(module, program, &mut rewriter, name, ty.clone(), Some((Holds::Moment, &t.name)))
                    };
                    vec![of("exp_avg")?, of("exp_avg_sq")?]
                }
                OptimizerKind::Sgd => vec![],
            });
        }
        let copied: HashMap<NodeId, NodeId> = trained
            .iter()
            .zip(&copies)
            .filter_map(|(t, copy)| Some((t.parameter, copy.map(|(copy, _)| copy)?)))
            .collect();
        let copy = |value: NodeId| copied.get(&value).copied();
        let live = old.live();
        let mut made = working::Narrowed::default();
        for id in old.nodes.ids() {
            if live[id.index()] && !rewriter.done(id) {
                working::copy(module, &mut rewriter, id, &copy, &mut made)?;
            }
        }
        let gradients: Vec<NodeId> = trained.iter().map(|t| rewriter.get(t.gradient)).collect();
        let parameters: Vec<NodeId> = trained.iter().map(|t| rewriter.get(t.parameter)).collect();
        let mut results: Vec<NodeId> = old.results.iter().map(|&r| rewriter.get(r)).collect();
        let mut b = rewriter.b;

        let norm = norm::norm(module, &mut b, &gradients);
        let guard = guard::of(&mut b, program, &results, norm);
        let t = b.cast(step, DType::F32);
        let mut shared = vec![guard, self.rate(&mut b, t)];
        if self.kind == OptimizerKind::Adamw {
            shared.extend([self.beta1, self.beta2].map(|beta| rate::bias_correction(&mut b, t, beta)));
        }
        if self.clip > 0.0 {
            shared.push(norm::coefficient(&mut b, norm, self.clip));
        }
        let mut updates = Updates::new(self, shared);
        for (i, t) in trained.iter().enumerate() {
            let mut own = vec![parameters[i], gradients[i]];
            own.extend(&moments[i]);
            results.extend(updates.apply(module, &mut b, &own, copies[i].map(|(_, dtype)| dtype)));
            program.outputs.push(Output::Parameter(t.name.clone()));
            if self.kind == OptimizerKind::Adamw {
                program
                    .outputs
                    .extend(["exp_avg", "exp_avg_sq"].map(|k| Output::State(format!("{k}/{}", t.name).into())));
            }
            if copies[i].is_some() {
                program.outputs.push(Output::State(working::name(&t.name)));
            }
        }
        let one = b.constant(1.0, DType::I64);
        let next = b.add(step, one);
        let finite = ops::Compare::finite(&mut b, guard);
        results.push(b.op(ops::Select {}, &[finite, next, step]));
        program.outputs.push(Output::State(STEP.into()));
        results.push(norm);
        program.outputs.push(Output::Emit(NORM.into()));
        let mut function = b.finish()?;
        function.results = results;
        Ok(function)
    }
}

/// A parameter with a gradient.
struct Trained {
    name: Name,
    parameter: NodeId,
    gradient: NodeId,
}

fn trained(program: &Program, function: &Function) -> Result<Vec<Trained>, Mismatch> {
    let pairs = program.outputs.iter().zip(&function.results);
    pairs
        .filter_map(|(output, &gradient)| match output {
            Output::Gradient(name) => Some((name, gradient)),
            _ => None,
        })
        .map(|(name, gradient)| {
            let input = program.inputs.iter().position(|i| matches!(i, Input::Parameter(n) if n == name));
            let input = input.ok_or_else(|| Mismatch::new(format!("no input is the parameter `{name}`")))?;
            Ok(Trained { name: name.clone(), parameter: function.params[input], gradient })
        })
        .collect()
}

/// Moments are f32, or f64 for an f64 parameter.
fn moment(ty: &TensorType) -> TensorType {
    ty.with_dtype(update::wide(ty.dtype))
}

/// A state that starts at zero or as a parameter, and the function's parameter for it.
fn state(
    module: &mut Module,
    program: &mut Program,
    rewriter: &mut Rewriter<'_>,
    name: Name,
    ty: Type,
    of: Option<(Holds, &Name)>,
) -> Result<NodeId, Mismatch> {
    // Several programs may train the same parameters; they share the state.
    let new = State { ty: ty.clone(), init: Init::Zeros, of: of.map(|(holds, name)| (holds, name.clone())) };
    let known = module.states.entry(name.clone()).or_insert(new);
    let used = program.inputs.contains(&Input::State(name.clone()));
    if known.ty != ty || used {
        return Err(Mismatch::new(format!("the optimiser's state `{name}` would meet another one of that name")));
    }
    program.inputs.push(Input::State(name));
    Ok(rewriter.b.param(ty))
}
