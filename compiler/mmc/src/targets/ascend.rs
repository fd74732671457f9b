//! Ascend: a target for each SoC.

use diag::Diagnostic;
use target_ascend::soc::soc;
use target_ascend::{AscendTarget, SOCS};

use super::{Family, Narrow};

pub const FAMILY: Family = Family {
    names: || SOCS.iter().map(|soc| soc.name).collect(),
    make: |options, _| {
        let soc = soc(&options.target).ok_or_else(|| Diagnostic::error(format!("{} is no Ascend", options.target)))?;
        Ok(Box::new(AscendTarget { soc }))
    },
    has_kernels: false,
    narrow: Some(Narrow {
        called: "an Ascend",
        wide: "in f32 an Ascend has no fused attention, whose scores lie in memory instead",
    }),
};
