//! Targets by the names that `--target` takes: the compiler's half of each.

#[cfg(feature = "ascend")]
mod ascend;
#[cfg(feature = "cpu")]
mod cpu;

use std::path::Path;

use diag::{Diagnostic, Diagnostics};
use passes::{PrecisionMode, WorkType};
use target::{NoTarget, Target};

use crate::args::Options;

/// Every target of this build; the first is the default.
const TARGETS: &[Family] = &[
    #[cfg(feature = "cpu")]
    cpu::FAMILY,
    Family { names: || vec!["none"], make: |_, _| Ok(Box::new(NoTarget)), has_kernels: false, narrow: None },
    #[cfg(feature = "ascend")]
    ascend::FAMILY,
];

type Make = fn(&Options, Option<&Path>) -> Result<Box<dyn Target>, Diagnostics>;

/// Targets that have all but their names in common.
pub struct Family {
    names: fn() -> Vec<&'static str>,
    /// The one that the options name; the path is where it keeps compiled kernels.
    make: Make,
    /// Whether it compiles kernels for a processor, which `--cpu` names and `--cache` keeps.
    has_kernels: bool,
    /// Why the working type is bf16 where none is asked for; f32 otherwise.
    pub narrow: Option<Narrow>,
}

pub struct Narrow {
    /// What messages call the target: `an Ascend`.
    pub called: &'static str,
    /// What f32 costs.
    pub wide: &'static str,
}

pub fn names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().flat_map(|family| (family.names)())
}

/// The family of the target that the options name.
pub fn family(options: &Options) -> Option<&'static Family> {
    TARGETS.iter().find(|family| (family.names)().contains(&options.target.as_str()))
}

/// The working type: what is asked for, that of a precision, or the target's own.
pub fn work_type(options: &Options, precision: Option<PrecisionMode>) -> WorkType {
    let is_narrow = family(options).is_some_and(|family| family.narrow.is_some());
    let is_narrow = is_narrow || precision.is_some();
    options.policy.dtype.unwrap_or(if is_narrow { WorkType::Bf16 } else { WorkType::F32 })
}

/// The target that the options name; `cache` is where it keeps compiled kernels.
pub fn target(options: &Options, cache: Option<&Path>) -> Result<Box<dyn Target>, Diagnostics> {
    let Some(family) = family(options) else {
        return Err(Diagnostic::error(format!("there is no target `{}`", options.target))
            .help(format!("the targets of this build are {}", names().collect::<Vec<_>>().join(", ")))
            .into());
    };
    if !family.has_kernels {
        let others = TARGETS.iter().filter(|family| family.has_kernels).flat_map(|family| (family.names)());
        let others: Vec<String> = others.map(|name| format!("`{name}`")).collect();
        let (target, others) = (&options.target, others.join(", "));
        if cache.is_some() {
            return Err(Diagnostic::error(format!("--cache has no use for the target `{target}`"))
                .note(format!("it keeps compiled kernels, and only the target {others} compiles any"))
                .help("leave --cache out")
                .into());
        }
        if let Some(cpu) = &options.cpu {
            return Err(Diagnostic::error(format!("--cpu {cpu} has no use for the target `{target}`"))
                .note(format!("it names the processor that the target {others} compiles kernels for"))
                .help("leave --cpu out, or compile with --target cpu")
                .into());
        }
    }
    (family.make)(options, cache)
}
