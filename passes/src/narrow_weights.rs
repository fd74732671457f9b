//! `narrow-weights`: where nothing is trained, a weight is stored once, in the type in which it is read.
//!
//! A weight is narrowed if all who read it cast it to that type, or pick rows from it: an embedding's table is then rounded
//! before rows are picked, as a class is whose weights were loaded in that type. What is read in full stays as it is, such as
//! the scales of norms. Weights are rounded while they are loaded, so no bit of a cast's result changes.

use std::collections::BTreeMap;

use diag::{Diagnostic, Diagnostics};
use ir::{Function, Id, Input, Module, Output};
use serde::{Deserialize, Serialize};
use types::{DType, Name};

use crate::optimizer::working::{self, Narrowed, Readers};
use crate::{Context, Pass, callgraph, diagnostics};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NarrowWeights {
    pub dtype: DType,
}

impl Default for NarrowWeights {
    fn default() -> Self {
        Self { dtype: DType::BF16 }
    }
}

impl Pass for NarrowWeights {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        let writes = |output: &Output| matches!(output, Output::Parameter(_) | Output::Gradient(_));
        if module.programs.iter().any(|program| program.outputs.iter().any(writes)) {
            return Err(Diagnostic::error("`narrow-weights` is for models that train nothing").into());
        }
        let narrow = self.narrow(module);
        let mut made = Narrowed::default();
        for at in 0..module.programs.len() {
            let program = &module.programs[at];
            let named = |input: &Input| matches!(input, Input::Parameter(name) if narrow.get(name) == Some(&true));
            let operands: Vec<(usize, DType)> =
                (0..program.inputs.len()).filter(|i| named(&program.inputs[*i])).map(|i| (i, self.dtype)).collect();
            let function: Id<Function> = program.function;
            if !operands.is_empty() {
                module.programs[at].function = working::narrowed(module, function, &operands, &mut made)
                    .map_err(|m| diagnostics::unfit("narrow-weights", &module.functions[function], &m))?;
            }
        }
        for (name, parameter) in &mut module.parameters {
            if narrow.get(name) == Some(&true) {
                parameter.ty = parameter.ty.map(&|ty| ty.with_dtype(self.dtype));
                cx.stats.count("weights in the type they are read in", parameter.ty.count() as u64);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

impl NarrowWeights {
    /// For each parameter that a program reads, whether all programs read it in the narrow type.
    fn narrow(&self, module: &Module) -> BTreeMap<Name, bool> {
        let mut narrow = BTreeMap::new();
        for program in &module.programs {
            let function = &module.functions[program.function];
            let readers = Readers::of(function);
            for (input, &param) in program.inputs.iter().zip(&function.params) {
                if let Input::Parameter(name) = input {
                    let wanted = working::wanted(module, &readers, param, Some(self.dtype)) == Some(self.dtype);
                    *narrow.entry(name.clone()).or_insert(true) &= wanted;
                }
            }
        }
        narrow
    }
}
