//! A module: functions, and the programs that run them over named parameters, state and feeds.

use std::collections::HashSet;

use diag::{PlaceId, Places};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use types::{Cut, DType, Distribution, FileForm, Indices, Init, Mesh, Name, Ragged, Runs, TensorType};

use crate::{Arena, Function, Id, Type};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    pub name: Name,
    pub functions: Arena<Function>,
    pub programs: Vec<Program>,
    pub parameters: IndexMap<Name, Parameter>,
    pub states: IndexMap<Name, State>,
    pub mesh: Mesh,
    pub level: Level,
    /// What the model's plan and the flags ask of the `shard` pass.
    pub hints: Vec<(ShardingHint, PlaceId)>,
    /// Axes of feeds on which samples have any number of rows.
    pub ragged: Vec<Ragged>,
    pub places: Places,
}

/// How far a module is on its way to the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Logical shapes; shardings are hints.
    #[default]
    Global,
    /// Logical shapes; every tensor has its sharding, and operands fit their operators.
    Sharded,
    /// Shapes of one rank; collectives are operators.
    Local,
}

/// All dims and axes are named. Axes are major first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardingHint {
    /// Cut this dim wherever it occurs; `exact` if its size must divide where it is merged with others (heads).
    Shard {
        dim: Name,
        axes: Vec<Name>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        exact: bool,
    },
    /// Cut this dim, in tensors that have the dim `of` too, where the axes are not in use: sequence parallelism
    /// between tensor-parallel regions (Korthikanti et al., 2022).
    #[serde(alias = "fill")]
    SequenceParallel { dim: Name, of: Name, axes: Vec<Name> },
    /// Keep these in parts over the axes from step to step, and gather them where they are used.
    Store { what: Stored, axes: Vec<Name> },
    /// Where a dim cut by these axes goes around or must be whole, cut another instead: heads for tokens (Ulysses,
    /// Jacobs et al., 2023).
    Exchange { axes: Vec<Name> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    /// Parameters, their gradients and the optimiser's state: FSDP, ZeRO-3.
    Parameters,
    /// The optimiser's state alone: ZeRO-1.
    Optimizer,
}

impl Module {
    /// Whether a program has a loss.
    pub fn trains(&self) -> bool {
        self.programs.iter().flat_map(|p| &p.outputs).any(|o| matches!(o, Output::Loss(_)))
    }

    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|p| p.name == *name)
    }

    pub fn function_named(&self, name: &str) -> Option<Id<Function>> {
        self.functions.iter().find(|(_, f)| f.name == *name).map(|(id, _)| id)
    }

    /// `base`, or `base.2`, `base.3` ... if functions of that name exist.
    pub fn fresh_name(&self, base: &str) -> Name {
        let taken: HashSet<&str> =
            self.functions.iter().map(|(_, f)| f.name.as_str()).filter(|name| name.starts_with(base)).collect();
        let mut name = Name::new(base);
        let mut n = 2;
        while taken.contains(name.as_str()) {
            name = Name::from(format!("{base}.{n}"));
            n += 1;
        }
        name
    }

    /// The parameter, or the copy of one in another type.
    pub fn is_parameter(&self, input: &Input) -> bool {
        match input {
            Input::Parameter(_) => true,
            Input::State(name) => self.states.get(name).is_some_and(|s| s.copy_of().is_some()),
            Input::Feed(_) => false,
        }
    }

    /// Total number of elements of all parameters.
    pub fn parameter_count(&self) -> u64 {
        let elements = |p: &Parameter| p.ty.element().map_or(0, |t| t.elements() as u64);
        let each = self.parameters.values().map(|p| (p.ty.count() as u64).saturating_mul(elements(p)));
        each.fold(0, u64::saturating_add)
    }
}

/// A parameter, or a family of equal ones: `blocks.{}.ffn.net.2.weight` with type `40 x f32[..]` stands for forty.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The master copy's type: what is trained and stored.
    pub ty: Type,
    pub record: ParameterInfo,
}

/// What a checkpoint and an optimiser need to know of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterInfo {
    pub init: Init,
    pub trainable: bool,
    /// Names of the same tensor in other releases of the checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Name>,
    /// The type in which published checkpoints store it, if not the master's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<DType>,
    /// The checkpoint may leave it out because it equals this one (tied weights are one parameter with two names).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tied: Vec<Name>,
    /// Other forms in which files may hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forms: Vec<FileForm>,
}

/// A tensor that a run keeps from step to step beside the parameters: optimiser moments, the step counter, a latent.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub ty: Type,
    pub init: Init,
    /// The parameter that it belongs to, and as what.
    pub of: Option<(Holds, Name)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A copy in another type. The runtime fills it when the parameter is loaded; checkpoints omit it.
    Copy,
    /// A running mean of its gradients or of their squares.
    Moment,
}

impl State {
    /// The parameter that it belongs to.
    pub fn parameter(&self) -> Option<&Name> {
        self.of.as_ref().map(|(_, name)| name)
    }

    /// The parameter that it is a copy of.
    pub fn copy_of(&self) -> Option<&Name> {
        self.of.as_ref().filter(|(holds, _)| *holds == Holds::Copy).map(|(_, name)| name)
    }
}

/// (state, feeds, step) -> (state, emits): one function, and what each of its parameters and results is.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub name: Name,
    pub runs: Runs,
    pub function: Id<Function>,
    /// One for each parameter of the function.
    pub inputs: Vec<Input>,
    /// One for each result of the function.
    pub outputs: Vec<Output>,
    /// At [`Level::Local`], the tensors of which the function's parameters, and then its results, are a rank's parts.
    pub logical: Vec<Logical>,
}

/// A tensor, or the element of a stack, before it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logical {
    pub ty: TensorType,
    /// One a dim, or none.
    pub cuts: Vec<Cut>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Parameter(Name),
    State(Name),
    Feed(Feed),
}

/// What comes in at every step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feed {
    pub name: Name,
    /// Other names that data may have for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Name>,
    /// Random numbers, unless the user gives a tensor of this name; otherwise data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draw: Option<Distribution>,
    /// Of data that pick rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indices: Option<Indices>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The parameter's value after the step.
    Parameter(Name),
    State(Name),
    /// A scalar to minimise: emitted, and what `autodiff` starts from.
    Loss(Name),
    /// The gradient of the loss by a parameter, before clipping; emitted on request as `grad/<name>`.
    Gradient(Name),
    Emit(Name),
    /// The output of the module at this path of the model, emitted on request as `probe/<path>`.
    Probe(Name),
}
