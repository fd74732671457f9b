//! What a target must answer: which nodes form a kernel, what a kernel needs and costs, and its code.

mod none;

pub use none::NoTarget;

use ir::{Function, NodeId};
use types::TensorType;

/// A machine that kernels are made for. Passes speak to targets through this alone.
pub trait Target {
    /// As `--target` names it.
    fn name(&self) -> &str;

    /// Bytes to which every buffer is aligned.
    fn alignment(&self) -> u64;

    /// How the operators of a function fall into kernels.
    ///
    /// The function has no plain calls left. Each group is a set of operator nodes, convex (no path leaves it and comes
    /// back), in an order in which it can be computed; groups are disjoint. Sources (constants, tables) need not be
    /// listed: each kernel that reads one gets its own copy. Views need not be listed: one between kernels is another
    /// name for the same bytes. Collectives are in no group: what they give enters kernels as an operand. Any other
    /// operator must be in exactly one group.
    fn group(&self, function: &Function) -> Vec<Vec<NodeId>>;

    /// What a kernel needs from the plan and the runtime.
    fn describe(&self, kernel: &Function) -> KernelFacts;

    /// Code for all kernels of a plan: one blob that defines each symbol. Empty if the target has none.
    fn emit(&self, kernels: &[(&str, &Function)]) -> Result<Vec<u8>, EmitError>;

    /// The processor that the code is for and the features that the machine must have; empty if that is all one.
    fn machine(&self) -> Machine {
        Machine::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpu: String,
    pub features: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFacts {
    /// Bytes of scratch memory, given as one more argument after parameters and results; 0 for none.
    pub workspace: u64,
    /// The most parts that one call may be split into.
    pub max_parts: u32,
    /// Pairs (parameter, result) that may be the same bytes: each element is read before it is written, and not after.
    pub in_place: Vec<(usize, usize)>,
    /// Pairs (parameter, result) of which the kernel has one argument, read and written: the result is the parameter with
    /// some of its rows changed, and the others are not touched.
    pub overwrites: Vec<(usize, usize)>,
    pub flops: u64,
    /// Those of the operations that are in products of matrices.
    pub products: u64,
    /// What is done on single elements beside the products, in additions of the same time.
    pub elementwise: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl KernelFacts {
    /// Costs by the operators' own rules, each parameter read once and each result written once.
    pub fn counted(kernel: &Function) -> Self {
        Self {
            workspace: 0,
            max_parts: 1,
            in_place: vec![],
            overwrites: vec![],
            flops: flops(kernel),
            products: sum(kernel, ir::Op::matmul_flops),
            elementwise: sum(kernel, ir::Op::vector_ops),
            bytes: traffic(kernel),
        }
    }
}

/// Floating-point operations of all operators of a function.
pub fn flops(function: &Function) -> u64 {
    sum(function, ir::Op::flops)
}

fn sum(function: &Function, of: impl Fn(&ir::Op, &[&TensorType], &[TensorType]) -> u64) -> u64 {
    let cost = |node: &ir::Node| {
        let ir::Inst::Op(op) = &node.inst else { return 0 };
        let args: Vec<_> = node.args.iter().filter_map(|&a| function.ty(a).tensor()).collect();
        let results: Vec<_> = node.ty.tensors().cloned().collect();
        of(op, &args, &results)
    };
    function.nodes.iter().fold(0, |n, (_, node)| n.saturating_add(cost(node)))
}

/// Bytes of all parameters and results.
pub fn traffic(function: &Function) -> u64 {
    let bytes = |ty: &ir::Type| (ty.count() as u64).saturating_mul(ty.element().map_or(0, |t| t.bytes() as u64));
    function.param_types().chain(function.result_types()).fold(0, |n, ty| n.saturating_add(bytes(ty)))
}

#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    #[error("kernel {kernel}: {reason}")]
    Kernel { kernel: String, reason: String },
    #[error("{0}")]
    Tool(String),
}
