//! `precision`: decides what the working type is, everywhere at once.
//!
//! It runs before `autodiff`, so that gradients follow the declared types: the cotangent of a bf16 value is bf16 and
//! that of an f32 island is f32, with no rule of its own for either.

use clap::ValueEnum;
use diag::Diagnostics;
use ir::{Function, Inst, Module, Op, Rewriter, Type};
use serde::{Deserialize, Serialize};
use types::{DType, TensorType};

use crate::{Context, Pass, diagnostics};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Precision {
    pub dtype: WorkType,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkType {
    #[default]
    F32,
    Bf16,
}

impl From<WorkType> for DType {
    fn from(ty: WorkType) -> DType {
        match ty {
            WorkType::F32 => DType::F32,
            WorkType::Bf16 => DType::BF16,
        }
    }
}

impl Pass for Precision {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        let to = self.dtype.into();
        for parameter in module.parameters.values_mut() {
            parameter.ty = decided(&parameter.ty, to);
        }
        for state in module.states.values_mut() {
            state.ty = decided(&state.ty, to);
        }
        for (_, function) in module.functions.iter_mut() {
            for (_, node) in function.nodes.iter_mut() {
                node.ty = decided(&node.ty, to);
                if let Inst::Op(op) = &mut node.inst {
                    decide(op, to);
                }
            }
            let before = function.nodes.len();
            *function = without_casts(function).map_err(|m| diagnostics::unfit("precision", function, &m))?;
            cx.stats.count("casts dropped", (before - function.nodes.len()) as u64);
        }
        Ok(())
    }
}

fn decided(ty: &Type, to: DType) -> Type {
    ty.map(&|t: &TensorType| if t.dtype == DType::Work { t.with_dtype(to) } else { t.clone() })
}

/// The verifier finds any operator that keeps a type in its attributes and is not listed here.
fn decide(op: &mut Op, to: DType) {
    let dtype = match op {
        Op::Cast(cast) => Some(&mut cast.to),
        Op::Constant(constant) => Some(&mut constant.dtype),
        Op::Iota(iota) => Some(&mut iota.dtype),
        Op::Table(table) => Some(&mut table.dtype),
        Op::Matmul(matmul) => matmul.dtype.as_mut(),
        _ => None,
    };
    if let Some(dtype) = dtype.filter(|d| **d == DType::Work) {
        *dtype = to;
    }
}

/// Casts from a type to itself become their operand.
fn without_casts(function: &Function) -> Result<Function, ir::Mismatch> {
    let mut rewriter = Rewriter::new(function);
    let live = function.live();
    for (id, node) in function.nodes.iter() {
        if !live[id.index()] || rewriter.done(id) {
            continue;
        }
        match &node.inst {
            Inst::Op(Op::Cast(_)) if function.ty(node.args[0]) == &node.ty => {
                let operand = rewriter.get(node.args[0]);
                rewriter.set(id, operand);
            }
            _ => {
                rewriter.copy(id);
            }
        }
    }
    rewriter.finish()
}
