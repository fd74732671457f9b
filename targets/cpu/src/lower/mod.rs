//! From kernels, functions of the IR, to modules of code.
//!
//! | kernel | code |
//! |---|---|
//! | one product and what follows it elementwise | [`product`] |
//! | one product by expert, its weight's gradient | [`experts`] |
//! | one scatter-add | [`scatter`] |
//! | one write of rows | [`write`] |
//! | one cumulative sum | [`cumsum`] |
//! | one sort, or the first few of one | [`sort`] |
//! | attention, its gradient | [`flash`] |
//! | one transpose of the last dim | [`transpose`] |
//! | all else, fused | [`nest`] over [`eval`] |

mod apply;
mod coord;
mod cumsum;
mod eval;
mod expand;
mod experts;
mod flash;
mod form;
mod nest;
mod pairs;
mod product;
mod reduce;
mod rows;
mod scatter;
mod sort;
mod table;
mod transpose;
mod write;

use std::collections::BTreeMap;

use ir::{Function, Inst, NodeId, Op};

use crate::cpu::Cpu;
use crate::emit::{Emitter, Kernel, Module, Val};

use cumsum::CumsumKernel;
use experts::ExpertKernel;
use flash::AttentionKernel;
use form::{Form, Whole};
use nest::NestKernel;
use product::ProductKernel;
use scatter::ScatterKernel;
use sort::SortKernel;
use transpose::TransposeKernel;
use write::WriteKernel;

pub use expand::expand;

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LowerError {
    message: String,
}

impl LowerError {
    pub fn new(message: impl Into<String>) -> LowerError {
        LowerError { message: message.into() }
    }
}

impl From<ir::Mismatch> for LowerError {
    fn from(mismatch: ir::Mismatch) -> LowerError {
        LowerError::new(mismatch.to_string())
    }
}

/// What a kernel needs beside its code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub workspace: u64,
    pub parts: u64,
    /// Pairs (parameter, result) that may share their bytes.
    pub in_place: Vec<(usize, usize)>,
}

/// One kernel, expanded and sorted into its kind.
pub struct Lowering {
    function: Function,
    kind: Kind,
    lanes: u32,
}

enum Kind {
    Nest(NestKernel),
    Product(ProductKernel),
    Experts(ExpertKernel),
    Scatter(ScatterKernel),
    Write(WriteKernel),
    Cumsum(CumsumKernel),
    Sort(SortKernel),
    Flash(AttentionKernel),
    Transpose(TransposeKernel),
}

impl Lowering {
    pub fn new(kernel: &Function, cpu: &Cpu) -> Result<Lowering, LowerError> {
        let function = expand(kernel)?;
        let live = function.live();
        let nodes = || function.nodes.iter().filter(|(id, _)| live[id.index()]);
        let mut whole = None;
        for (id, node) in nodes() {
            let Inst::Op(op) = &node.inst else { continue };
            match Form::of(op) {
                Form::Collective => {
                    return Err(LowerError::new(format!(
                        "`{}` asks other ranks, which no kernel can: it must stand between kernels (group the function again)",
                        op.name()
                    )));
                }
                Form::Whole(op) => whole = whole.or(Some((id, op))),
                _ => {}
            }
        }
        let kind = match whole {
            Some((node, Whole::Matmul(op))) => Kind::Product(ProductKernel::new(&function, node, op, cpu)?),
            Some((node, Whole::GroupedMatmul(op))) => Kind::Experts(ExpertKernel::products(&function, node, op, cpu)?),
            Some((node, Whole::GroupedMatmulWeight(op))) => {
                Kind::Experts(ExpertKernel::weight(&function, node, op, cpu)?)
            }
            Some((node, Whole::ScatterAdd(op))) => Kind::Scatter(ScatterKernel::new(&function, node, op)?),
            Some((node, Whole::Write(op))) => Kind::Write(WriteKernel::new(&function, node, op)?),
            Some((node, Whole::Cumsum(op))) => Kind::Cumsum(CumsumKernel::new(&function, node, op)?),
            Some((node, Whole::Argsort(op))) => Kind::Sort(SortKernel::whole(&function, node, op)?),
            Some((node, Whole::TopK(op))) => Kind::Sort(SortKernel::first(&function, node, op)?),
            Some((node, Whole::Attention(op))) => Kind::Flash(AttentionKernel::forward(&function, node, op, cpu)?),
            Some((node, Whole::AttentionGrad(op))) => Kind::Flash(AttentionKernel::backward(&function, node, op, cpu)?),
            Some((node, Whole::AttentionBiasGrad(op))) => {
                Kind::Flash(AttentionKernel::of_scores(&function, node, op, cpu)?)
            }
            None => match TransposeKernel::new(&function, cpu) {
                Some(plan) => Kind::Transpose(plan),
                None => Kind::Nest(NestKernel::new(&function, cpu)?),
            },
        };
        Ok(Lowering { function, kind, lanes: cpu.lanes })
    }

    pub fn needs(&self) -> Needs {
        match &self.kind {
            Kind::Nest(plan) => plan.needs(&self.function),
            Kind::Product(plan) => plan.needs(),
            Kind::Experts(plan) => plan.needs(),
            Kind::Scatter(plan) => plan.needs(),
            Kind::Write(plan) => plan.needs(),
            Kind::Cumsum(plan) => plan.needs(self.lanes),
            Kind::Sort(plan) => plan.needs(),
            Kind::Flash(plan) => plan.needs(),
            Kind::Transpose(plan) => plan.needs(),
        }
    }

    /// The pair (parameter, result) that is one argument, of which some rows change, and the bytes that it then touches.
    pub fn overwrites(&self) -> Option<((usize, usize), u64)> {
        match &self.kind {
            Kind::Write(plan) => Some(((plan.table, 0), plan.bytes)),
            _ => None,
        }
    }

    /// Writes the kernel as a module of its own.
    pub fn module(&self, symbol: &str, cpu: &Cpu) -> Result<Module, LowerError> {
        let mut e = Emitter::new(cpu);
        let mut result = Ok(());
        table::declare(&mut e, &self.function)?;
        e.kernel(symbol, |e, kernel| {
            let pointers = Pointers::new(e, &self.function, kernel);
            result = match &self.kind {
                Kind::Nest(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Product(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Experts(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Scatter(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Write(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Cumsum(plan) => plan.emit(e, kernel, &pointers),
                Kind::Sort(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Flash(plan) => plan.emit(e, kernel, &self.function, &pointers),
                Kind::Transpose(plan) => plan.emit(e, kernel, &pointers),
            };
        });
        result.map(|()| e.finish(symbol))
    }
}

/// The buffers of a kernel.
pub struct Pointers {
    /// Parameters and tables.
    pub bases: BTreeMap<NodeId, Val>,
    pub results: Vec<Val>,
    pub workspace: Val,
}

impl Pointers {
    fn new(e: &mut Emitter, function: &Function, kernel: &Kernel) -> Pointers {
        let mut bases: BTreeMap<NodeId, Val> = BTreeMap::new();
        for (index, &param) in function.params.iter().enumerate() {
            bases.insert(param, kernel.pointer(e, index));
        }
        bases.extend(table::addresses(e, function));
        let first = function.params.len();
        let results = (0..function.results.len()).map(|index| kernel.pointer(e, first + index)).collect();
        let zero = e.i64(0);
        Pointers { bases, results, workspace: zero }
    }

    /// The scratch pointer: the last argument of a kernel that declared a need for it.
    fn workspace(e: &mut Emitter, function: &Function, kernel: &Kernel) -> Val {
        kernel.pointer(e, function.params.len() + function.results.len())
    }
}

/// Follows views back to the node whose bytes they show.
pub fn behind_views(function: &Function, mut node: NodeId) -> NodeId {
    while let Inst::Op(Op::Reshape(_)) = &function.nodes[node].inst {
        node = function.nodes[node].args[0];
    }
    node
}
