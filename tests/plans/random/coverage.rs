//! What cases covered, and how many each thing must be in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ir::{Inst, Module, PartialKind, Type};
use plan::{CollectKind, Op, Plan, ReduceKind};
use types::TensorType;

/// The classes of one case.
pub type Classes = BTreeSet<String>;

#[derive(Default)]
pub struct Histogram {
    pub cases: usize,
    pub counts: BTreeMap<String, usize>,
}

/// Per cent of the cases that must at least be of each class.
const FLOORS: &[(&str, usize)] = &[
    ("collective all_gather", 20),
    ("collective all_reduce max", 5),
    ("collective all_reduce sum", 20),
    ("collective all_to_all", 5),
    ("collective permute", 5),
    ("collective reduce_scatter", 5),
    ("cut argsort", 1),
    ("cut attention", 5),
    ("cut attention by a bias", 1),
    ("cut attention by a window", 1),
    ("cut attention by positions", 1),
    ("cut attention by segments", 1),
    ("cut attention_grad", 2),
    ("cut broadcast", 5),
    ("cut call", 2),
    ("cut cast", 20),
    ("cut chunks", 2),
    ("cut concat", 1),
    ("cut cross_entropy", 1),
    ("cut cumsum", 1),
    ("cut gather", 2),
    ("cut grouped_matmul", 2),
    ("cut grouped_matmul_weight", 1),
    ("cut matmul", 20),
    ("cut pad", 1),
    ("cut parameter", 10),
    ("cut reduce_max", 5),
    ("cut reduce_sum", 5),
    ("cut repeated call", 2),
    ("cut reshape", 2),
    ("cut rms_norm", 1),
    ("cut rope", 1),
    ("cut scatter_add", 1),
    ("cut select", 1),
    ("cut slice", 1),
    ("cut softmax", 1),
    ("cut state", 2),
    ("cut top_k", 1),
    ("cut transpose", 2),
    ("cut write", 1),
    ("gradients", 20),
    ("bf16", 1),
    ("held up", 20),
    ("optimizer", 10),
    ("poisoned", 20),
    ("partial max", 5),
    ("partial merge", 2),
    ("partial sum", 20),
    ("ranks 2", 5),
    ("ranks 3", 3),
    ("ranks 4", 5),
    ("ranks 5", 3),
    ("ranks 6", 3),
    ("ranks 7", 3),
    ("ranks 8", 10),
    ("several axes on one dim", 5),
    ("sub-axes", 20),
    ("ring and exchange", 2),
    ("collectives travel together", 5),
    ("short parts", 30),
    ("empty parts", 5),
    ("segments", 5),
];

/// What stands in a module after `shard`.
pub fn of_sharded(module: &Module, classes: &mut Classes) {
    let mesh = &module.mesh;
    classes.insert(format!("ranks {}", mesh.world()));
    if ["cp.ring", "cp.ulysses"].iter().all(|axis| mesh.size(axis) > 1) {
        classes.insert("ring and exchange".into());
    }
    for (_, function) in module.functions.iter() {
        for (_, node) in function.nodes.iter() {
            let is_cut = |id: ir::NodeId| function.nodes[id].shardings.iter().any(|s| !s.is_whole());
            let tensors: Vec<&TensorType> = match &node.ty {
                Type::Tuple(items) => items.iter().filter_map(Type::element).collect(),
                one => one.element().into_iter().collect(),
            };
            for (i, ty) in tensors.iter().enumerate() {
                let sharding = node.sharding(i);
                for (_, kind) in &sharding.partial {
                    let kind = match kind {
                        PartialKind::Sum => "sum",
                        PartialKind::Max => "max",
                        PartialKind::Merge => "merge",
                    };
                    classes.insert(format!("partial {kind}"));
                }
                for (d, dim) in ty.dims.iter().enumerate() {
                    let axes = sharding.axes(d);
                    if axes.len() > 1 {
                        classes.insert("several axes on one dim".into());
                    }
                    if axes.iter().any(|axis| axis.contains('.')) {
                        classes.insert("sub-axes".into());
                    }
                    let blocks = mesh.blocks(dim.size, axes);
                    let mut rest = dim.size;
                    for (axis, block) in axes.iter().zip(&blocks[1..]) {
                        if block * mesh.size(axis) != rest {
                            classes.insert("short parts".into());
                        }
                        if block * (mesh.size(axis) - 1) >= rest {
                            classes.insert("empty parts".into());
                        }
                        rest = *block;
                    }
                }
            }
            let is_cut = node.shardings.iter().any(|s| !s.is_whole()) || node.args.iter().any(|&a| is_cut(a));
            let what = match &node.inst {
                Inst::Op(op) => op.name(),
                Inst::Call(call) if call.times.is_some() => "repeated call",
                Inst::Call(_) => "call",
                Inst::Chunk { .. } | Inst::Unchunk => "chunks",
                Inst::Param(_) | Inst::Get(_) | Inst::Repeat { .. } => continue,
            };
            if let Inst::Op(ir::Op::Attention(op)) = &node.inst
                && is_cut
            {
                let seen = &op.visibility;
                let kinds = [
                    ("segments", seen.segments),
                    ("positions", seen.positions),
                    ("a window", seen.left.or(seen.right).is_some()),
                    ("a bias", op.bias.is_some()),
                ];
                classes.extend(
                    kinds.iter().filter(|(_, there)| *there).map(|(kind, _)| format!("cut attention by {kind}")),
                );
            }
            if is_cut {
                classes.insert(format!("cut {what}"));
            }
            if tensors.iter().any(|t| t.dtype == types::DType::BF16) {
                classes.insert("bf16".into());
            }
        }
    }
}

/// What a plan does.
pub fn of_plan(plan: &Plan, classes: &mut Classes) {
    let cut = |layout: &plan::Layout| layout.cuts.iter().any(|c| !c.axes.is_empty());
    if plan.manifest.parameters.iter().any(|p| cut(&p.layout)) {
        classes.insert("cut parameter".into());
    }
    if plan.manifest.states.iter().any(|s| cut(&s.layout)) {
        classes.insert("cut state".into());
    }
    let bodies = plan.programs.iter().flat_map(|p| &p.bodies);
    for instruction in bodies.flat_map(|b| &b.instructions) {
        if let Op::Collect(collect) = &instruction.op {
            let kind = match &collect.kind {
                CollectKind::AllReduce(r) if r.kind == ReduceKind::Sum => "all_reduce sum",
                CollectKind::AllReduce(_) => "all_reduce max",
                kind => kind.name(),
            };
            classes.insert(format!("collective {kind}"));
            if !matches!(collect.kind, CollectKind::Permute { .. }) && collect.from.len() > 1 {
                classes.insert("collectives travel together".into());
            }
        }
    }
}

impl Histogram {
    pub fn add(&mut self, classes: &Classes) {
        self.cases += 1;
        for class in classes {
            *self.counts.entry(class.clone()).or_default() += 1;
        }
    }

    /// The classes that fell below their floors.
    pub fn below(&self) -> Vec<String> {
        let count = |class: &str| self.counts.get(class).copied().unwrap_or(0);
        let low = FLOORS.iter().filter(|(class, floor)| count(class) * 100 < floor * self.cases);
        low.map(|(class, floor)| format!("{class}: {} of {} cases, below {floor} %", count(class), self.cases))
            .collect()
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} cases", self.cases)?;
        for (class, count) in &self.counts {
            let share = 100.0 * *count as f64 / self.cases.max(1) as f64;
            writeln!(f, "{share:5.1} % {class}")?;
        }
        Ok(())
    }
}
