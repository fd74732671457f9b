//! The manifest: every parameter and state of the plan, and every feed and emit of its programs, by global name and type.

use serde::{Deserialize, Serialize};
use types::{Distribution, FileForm, GROUPS, Indices, Init, Name, Ragged, TensorType};

use crate::{BufferId, ClassId, Layout, ParameterId};

/// What all programs share. Feeds and emits belong to a program.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub parameters: Vec<Parameter>,
    pub states: Vec<State>,
    /// Axes of feeds on which samples have any number of rows. With several data groups such a feed has [`types::GROUPS`]
    /// before that axis.
    pub ragged: Vec<Ragged>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feed {
    pub name: Name,
    /// Other names that data may have for it.
    pub aliases: Vec<Name>,
    /// Of the whole logical tensor.
    pub ty: TensorType,
    pub layout: Layout,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// Comes from `--data` or `--inputs`.
    Data,
    /// Drawn by the runtime for each step, unless `--inputs` gives a tensor of that name.
    Draw(Distribution),
    /// Comes from `--data` or `--inputs`, and picks rows: numbers out of range are refused.
    Indices(Indices),
}

impl Source {
    /// Whether the user gives the values.
    pub const fn is_data(&self) -> bool {
        matches!(self, Self::Data | Self::Indices(_))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// The checkpoint's name.
    pub name: Name,
    /// Names in other releases.
    pub aliases: Vec<Name>,
    /// Of the whole logical tensor, in the stored type.
    pub ty: TensorType,
    pub layout: Layout,
    pub init: Init,
    pub trainable: bool,
    /// Other forms in which files may hold it.
    pub forms: Vec<FileForm>,
    /// The persistent buffer in each class; none where the class does not hold it.
    pub buffers: Vec<Option<BufferId>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `step`, `exp_avg/blocks.0.ffn.net.2.weight`, ...
    pub name: Name,
    /// The parameter whose moment or copy it is.
    #[serde(default)]
    pub of: Option<ParameterId>,
    pub ty: TensorType,
    pub layout: Layout,
    pub init: StateInit,
    pub buffers: Vec<Option<BufferId>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StateInit {
    Value(Init),
    /// Holds the parameter that it is of in its own type, from when that is loaded on; no checkpoint holds it.
    Parameter,
    /// The rank's coordinate on a mesh axis, as one i64; no checkpoint holds it.
    Coordinate(Name),
    /// A prepared value: a program that runs as [`types::Runs::Prepare`] computes it from parameters; no checkpoint holds it.
    Prepared,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Emit {
    /// `loss`, `out`, `grad/blocks.0.ffn.net.2.weight`, ...
    pub name: Name,
    /// The parameter whose gradient it is.
    #[serde(default)]
    pub of: Option<ParameterId>,
    pub ty: TensorType,
    pub layout: Layout,
    pub when: When,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    Always,
    /// If `--emit` names this word: `grads`.
    OnRequest(Name),
}

impl Feed {
    /// Its name, and then its aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        [&self.name].into_iter().chain(&self.aliases).map(|name| name.as_str())
    }
}

impl Parameter {
    /// The form in which the class saves it, if that is not one tensor of its name.
    pub fn saved_form(&self) -> Option<&FileForm> {
        self.forms.iter().find(|form| form.saved)
    }

    pub fn buffer(&self, class: ClassId) -> Option<BufferId> {
        self.buffers.get(class.index()).copied().flatten()
    }
}

impl State {
    pub fn buffer(&self, class: ClassId) -> Option<BufferId> {
        self.buffers.get(class.index()).copied().flatten()
    }
}

impl Manifest {
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == *name)
    }

    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.iter().find(|s| s.name == *name)
    }

    /// The ragged axis of a feed, if it has one, and the number of its data groups.
    pub fn ragged_axis(&self, feed: &Feed) -> Option<(&Ragged, usize)> {
        let mut dims = feed.ty.dims.iter().peekable();
        let groups = dims.next_if(|dim| dim.name == *GROUPS).map_or(1, |dim| dim.size);
        let axis = &dims.next()?.name;
        self.ragged.iter().find(|ragged| ragged.axis == *axis).map(|ragged| (ragged, groups))
    }
}
