//! How a function falls into kernels: products with what follows them elementwise, and loops that share a shape.
//!
//! Operators join the kernel of an operand where one nest of loops computes both without doing anything twice. Kernels
//! never depend on each other in a circle. What asks other ranks stands between kernels. A kernel has a bound, so that a chain
//! of operators, however long, becomes kernels of which each takes a bounded time to compile.

use std::collections::{BTreeMap, BTreeSet};

use ir::ops::{ReduceMax, ReduceSum};
use ir::{Class, Function, Inst, NodeId, Op};
use types::{Dim, Name};

type Dims = Vec<Dim>;

/// A kernel has at most so many operators, reads so many tensors, and has so many levels of rows on a way through it: code
/// that reads a row is written again for each level that reads the row above it.
const MOST_OPERATORS: usize = 96;
const MOST_OPERANDS: usize = 64;
const MOST_LEVELS: usize = 4;
/// A search for a circle ends after so many operators, as if there were one.
const MOST_SEARCHED: usize = 4096;

/// What an operator is to the loops around it.
enum Role {
    /// Each element from the same elements of the operands.
    Map,
    /// Each element from a row of the operands, which these dims cut out; each row is read in so many places.
    Row(Vec<Name>, usize),
    /// These dims of the operand are folded, and they are its last ones.
    FoldRow(Vec<Name>),
    /// Shares no loops with what reads it: dims are folded that are not the operand's last ones, or there are several
    /// results.
    Sink,
    /// Elements come from elsewhere.
    Move,
    Product,
    /// A kernel of its own.
    Alone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KernelKind {
    Product,
    Loops,
    /// Nothing joins any more.
    Closed,
}

struct Group {
    kind: KernelKind,
    members: Vec<NodeId>,
    space: Dims,
    /// Rows of the space are read whole; they are the dims after the first so many.
    rows: Option<usize>,
}

/// The groups of a function, in the order of their first nodes.
pub fn group(function: &Function) -> Vec<Vec<NodeId>> {
    let returned = function.returned();
    let levels = vec![0; function.nodes.len()];
    let users = function.users();
    let mut state = Grouping { function, users, returned, levels, groups: Vec::new(), of: BTreeMap::new() };
    let live = function.live();
    for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()]) {
        if let Inst::Op(op) = &node.inst {
            state.place(id, op);
        }
    }
    state.groups.into_iter().map(|group| group.members).filter(|members| !members.is_empty()).collect()
}

struct Grouping<'f> {
    function: &'f Function,
    users: Vec<smallvec::SmallVec<[NodeId; 4]>>,
    /// By node: whether it is a result of the function.
    returned: Vec<bool>,
    /// By node: the levels of rows that it adds to those of its operands.
    levels: Vec<usize>,
    groups: Vec<Group>,
    of: BTreeMap<NodeId, usize>,
}

impl Grouping<'_> {
    fn dims(&self, node: NodeId) -> Option<Dims> {
        self.function.ty(node).tensor().map(|ty| ty.dims.to_vec())
    }

    fn args(&self, node: NodeId) -> Vec<NodeId> {
        self.function.nodes[node].args.to_vec()
    }

    fn place(&mut self, node: NodeId, op: &Op) {
        if matches!(op.class(), Class::Source | Class::View | Class::Collective) {
            return;
        }
        let role = self.role(node, op);
        self.levels[node.index()] = match role {
            Role::Row(_, places) => places,
            Role::FoldRow(_) => 1,
            Role::Map | Role::Sink | Role::Move | Role::Product | Role::Alone => 0,
        };
        match role {
            Role::Map => self.place_map(node),
            Role::Row(dims, _) => self.place_row(node, &dims),
            Role::FoldRow(dims) => self.place_fold(node, &dims),
            Role::Sink => self.place_sink(node),
            Role::Move => {
                let space = self.dims(node).unwrap_or_default();
                self.open(KernelKind::Loops, node, space, None);
            }
            Role::Product => {
                let space = self.dims(node).unwrap_or_default();
                self.open(KernelKind::Product, node, space, None);
            }
            Role::Alone => {
                // Such a kernel reads operands from memory: one that counts has a kernel of its own.
                for arg in self.args(node) {
                    if self.is_source(arg) && self.function.ty(arg).tensor().is_some_and(|ty| ty.rank() > 0) {
                        let space = self.dims(arg).unwrap_or_default();
                        if !self.of.contains_key(&arg) {
                            self.open(KernelKind::Loops, arg, space, None);
                        }
                    }
                }
                self.open(KernelKind::Closed, node, Vec::new(), None);
            }
        }
    }

    fn role(&self, node: NodeId, op: &Op) -> Role {
        let operand = self.args(node).first().and_then(|&arg| self.dims(arg)).unwrap_or_default();
        let own = self.dims(node);
        match op {
            Op::Add(_)
            | Op::Sub(_)
            | Op::Mul(_)
            | Op::Div(_)
            | Op::FloorDiv(_)
            | Op::Remainder(_)
            | Op::Max(_)
            | Op::Min(_)
            | Op::Compare(_)
            | Op::Select(_)
            | Op::Neg(_)
            | Op::Abs(_)
            | Op::Exp(_)
            | Op::Expm1(_)
            | Op::Log(_)
            | Op::Log1p(_)
            | Op::Floor(_)
            | Op::Round(_)
            | Op::Sqrt(_)
            | Op::Rsqrt(_)
            | Op::Tanh(_)
            | Op::Sin(_)
            | Op::Cos(_)
            | Op::Sigmoid(_)
            | Op::Erf(_)
            | Op::Cast(_)
            | Op::GeluTanh(_)
            | Op::GeluTanhGrad(_)
            | Op::Silu(_)
            | Op::SiluGrad(_)
            | Op::Swiglu(_) => Role::Map,
            Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Concat(_)
            | Op::Pad(_)
            | Op::Gather(_)
            | Op::Window(_) => Role::Move,
            Op::ReduceSum(ReduceSum { dims }) | Op::ReduceMax(ReduceMax { dims }) => fold(&operand, dims),
            // It reads each row in two places.
            Op::Rope(op) => row(own, &operand, &op.dim, 2),
            Op::Softmax(op) => row(own, &operand, &op.dim, 1),
            Op::SoftmaxGrad(op) => row(own, &operand, &op.dim, 1),
            Op::RmsNorm(op) => row(own, &operand, &op.dim, 1),
            Op::RmsNormGrad(op) => row(own, &operand, &op.dim, 1),
            Op::LayerNorm(op) => row(own, &operand, &op.dim, 1),
            Op::LayerNormGrad(op) => row(own, &operand, &op.dim, 1),
            Op::CrossEntropy(op) => fold(&operand, std::slice::from_ref(&op.dim)),
            Op::Adamw(_) | Op::SwigluGrad(_) => Role::Sink,
            Op::Matmul(_) => Role::Product,
            Op::GroupedMatmul(_)
            | Op::GroupedMatmulWeight(_)
            | Op::ScatterAdd(_)
            | Op::Write(_)
            | Op::Cumsum(_)
            | Op::Argsort(_)
            | Op::TopK(_)
            | Op::Attention(_)
            | Op::AttentionGrad(_)
            | Op::AttentionBiasGrad(_)
            | Op::CrossEntropyGrad(_) => Role::Alone,
            // These are in no kernel.
            Op::Constant(_)
            | Op::Iota(_)
            | Op::Table(_)
            | Op::Reshape(_)
            | Op::Reshard(_)
            | Op::Coordinate(_)
            | Op::AllReduce(_)
            | Op::AllGather(_)
            | Op::ReduceScatter(_)
            | Op::AllToAll(_)
            | Op::Permute(_) => Role::Alone,
        }
    }

    fn open(&mut self, kind: KernelKind, node: NodeId, space: Dims, rows: Option<usize>) -> usize {
        self.groups.push(Group { kind, members: vec![node], space, rows });
        self.of.insert(node, self.groups.len() - 1);
        self.groups.len() - 1
    }

    fn join(&mut self, group: usize, node: NodeId) {
        self.groups[group].members.push(node);
        self.of.insert(node, group);
    }

    /// Groups of the operands, latest first.
    fn candidates(&self, node: NodeId) -> Vec<usize> {
        let mut groups: Vec<usize> = self.args(node).iter().filter_map(|arg| self.of.get(arg).copied()).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.reverse();
        groups
    }

    /// Operands of `node` inside `group` all have one of these shapes.
    fn reads_only(&self, node: NodeId, group: usize, fits: impl Fn(&Dims) -> bool) -> bool {
        let inside = self.args(node).into_iter().filter(|arg| self.of.get(arg) == Some(&group));
        inside.into_iter().all(|arg| self.dims(arg).is_some_and(|dims| fits(&dims)))
    }

    fn has_room(&self, group: usize, node: NodeId) -> bool {
        self.is_bounded(self.groups[group].members.iter().copied().chain([node]))
    }

    /// Whether these operators are no more than one kernel may have.
    fn is_bounded(&self, members: impl Iterator<Item = NodeId>) -> bool {
        let mut members: Vec<NodeId> = members.take(MOST_OPERATORS + 1).collect();
        if members.len() > MOST_OPERATORS {
            return false;
        }
        members.sort_unstable();
        // By member: the levels of rows on the longest way to it.
        let mut levels: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut operands: BTreeSet<NodeId> = BTreeSet::new();
        for member in members {
            let mut before = 0;
            for arg in &self.function.nodes[member].args {
                if let Some(&level) = levels.get(arg) {
                    before = before.max(level);
                } else if !self.is_source(*arg) {
                    operands.insert(*arg);
                }
            }
            levels.insert(member, before + self.levels[member.index()]);
        }
        operands.len() <= MOST_OPERANDS && levels.values().all(|level| *level <= MOST_LEVELS)
    }

    fn is_source(&self, node: NodeId) -> bool {
        matches!(&self.function.nodes[node].inst, Inst::Op(op) if op.class() == Class::Source)
    }

    fn place_map(&mut self, node: NodeId) {
        let space = self.dims(node).unwrap_or_default();
        let mut joined = None;
        for group in self.candidates(node) {
            let of = &self.groups[group];
            let row_shape = of.rows.map(|rows| of.space[..rows].to_vec());
            let same = of.space == space;
            let in_row = row_shape.as_ref() == Some(&space);
            let fits = match of.kind {
                KernelKind::Product => same && self.reads_only(node, group, |dims| *dims == space),
                KernelKind::Loops if same => {
                    self.reads_only(node, group, |dims| *dims == space || Some(dims) == row_shape.as_ref())
                }
                KernelKind::Loops if in_row => self.reads_only(node, group, |dims| *dims == space),
                _ => false,
            };
            if fits && self.has_room(group, node) && !self.circle(group, &self.args(node)) {
                joined = Some(group);
                break;
            }
        }
        let group = match joined {
            Some(group) => {
                self.join(group, node);
                group
            }
            None => self.open(KernelKind::Loops, node, space.clone(), None),
        };
        if self.groups[group].kind == KernelKind::Loops && self.groups[group].space == space {
            self.unite_operands(group, node, &space);
        }
    }

    fn place_row(&mut self, node: NodeId, dims: &[Name]) {
        let space = self.dims(node).unwrap_or_default();
        let rows = space.len() - dims.len();
        for group in self.candidates(node) {
            let of = &self.groups[group];
            let fits = of.kind == KernelKind::Loops
                && of.space == space
                && of.rows.is_none_or(|own| own == rows)
                && self.reads_only(node, group, |dims| *dims == space || *dims == space[..rows]);
            if fits && self.has_room(group, node) && !self.circle(group, &self.args(node)) {
                self.groups[group].rows = Some(rows);
                return self.join(group, node);
            }
        }
        self.open(KernelKind::Loops, node, space, Some(rows));
    }

    fn place_fold(&mut self, node: NodeId, dims: &[Name]) {
        let space = self.args(node).first().and_then(|&arg| self.dims(arg)).unwrap_or_default();
        let rows = space.len() - dims.len();
        if rows == 0 || space[..rows].iter().all(|dim| dim.size == 1) {
            return self.place_sink(node);
        }
        for group in self.candidates(node) {
            let of = &self.groups[group];
            let fits = of.kind == KernelKind::Loops
                && of.space == space
                && of.rows.is_none_or(|own| own == rows)
                && self.reads_only(node, group, |dims| *dims == space || *dims == space[..rows]);
            if fits && self.has_room(group, node) && !self.circle(group, &self.args(node)) {
                self.groups[group].rows = Some(rows);
                return self.join(group, node);
            }
        }
        self.open(KernelKind::Loops, node, space, Some(rows));
    }

    /// Takes in elementwise operands that nothing else reads, where less then goes through memory.
    fn place_sink(&mut self, node: NodeId) {
        let sink = self.open(KernelKind::Closed, node, Vec::new(), None);
        for group in self.candidates(node) {
            let of = &self.groups[group];
            if group == sink || of.kind != KernelKind::Loops || of.rows.is_some() {
                continue;
            }
            let taken = self.read_alone_by(node, group);
            if !self.is_bounded(self.groups[sink].members.iter().chain(&taken).copied()) {
                continue;
            }
            if taken.len() == of.members.len() || self.spared(node, group, &taken) > 0 {
                self.take(sink, group, &taken);
            }
        }
    }

    /// Elementwise members of `group` that `node` alone reads, itself or through each other, last first.
    fn read_alone_by(&self, node: NodeId, group: usize) -> Vec<NodeId> {
        let mut taken: Vec<NodeId> = Vec::new();
        for &member in self.groups[group].members.iter().rev() {
            let map = matches!(&self.function.nodes[member].inst, Inst::Op(op) if op.class() == Class::Elementwise);
            let here = self.users[member.index()].iter().all(|user| *user == node || taken.contains(user));
            if map && here && !self.returned[member.index()] {
                taken.push(member);
            }
        }
        taken
    }

    /// Tensors that are neither written nor read any more once `taken` leave `group` for the kernel of `node`, less those
    /// that now are.
    fn spared(&self, node: NodeId, group: usize, taken: &[NodeId]) -> i64 {
        let handed = self.args(node).iter().filter(|arg| taken.contains(arg)).count() as i64;
        let mut read: Vec<NodeId> = taken.iter().flat_map(|&member| self.args(member)).collect();
        read.sort_unstable();
        read.dedup();
        let space = &self.groups[group].space;
        read.retain(|arg| !taken.contains(arg) && self.dims(*arg).is_some_and(|dims| dims == *space));
        let stored_for_this = |arg: &&NodeId| {
            let others = |user: &NodeId| *user != node && !taken.contains(user) && self.of.get(user) != Some(&group);
            self.of.get(arg) == Some(&group)
                && !self.returned[arg.index()]
                && !self.users[arg.index()].iter().any(others)
        };
        2 * handed - read.len() as i64 - read.iter().filter(stored_for_this).count() as i64
    }

    /// Joins the groups of other operands that loop over the same space.
    fn unite_operands(&mut self, group: usize, node: NodeId, space: &Dims) {
        for other in self.candidates(node) {
            let (a, b) = (&self.groups[group], &self.groups[other]);
            let fits = other != group
                && b.kind == KernelKind::Loops
                && b.space == *space
                && (a.rows.is_none() || b.rows.is_none() || a.rows == b.rows);
            if !fits || !self.is_bounded(a.members.iter().chain(&b.members).copied()) {
                continue;
            }
            let operands =
                |group: &Group| -> Vec<NodeId> { group.members.iter().flat_map(|&member| self.args(member)).collect() };
            let (of_a, of_b) = (operands(a), operands(b));
            // A move reads what is not in its own loops.
            let moves = |group: &Group| {
                group.members.iter().any(
                    |&member| matches!(&self.function.nodes[member].inst, Inst::Op(op) if op.class() == Class::Move),
                )
            };
            let crossed = (moves(b) && of_b.iter().any(|arg| self.of.get(arg) == Some(&group)))
                || (moves(a) && of_a.iter().any(|arg| self.of.get(arg) == Some(&other) && *arg != node) && moves(a));
            if crossed || self.circle_of_two(group, other, &of_a, &of_b) {
                continue;
            }
            let rows = a.rows.or(b.rows);
            self.absorb(group, other);
            self.groups[group].rows = rows;
        }
    }

    /// All of one group becomes part of another.
    fn absorb(&mut self, into: usize, from: usize) {
        let members = self.groups[from].members.clone();
        self.take(into, from, &members);
    }

    fn take(&mut self, into: usize, from: usize, members: &[NodeId]) {
        for &member in members {
            self.of.insert(member, into);
        }
        self.groups[into].members.extend(members);
        self.groups[into].members.sort_unstable();
        self.groups[from].members.retain(|member| !members.contains(member));
        if self.groups[from].members.is_empty() {
            self.groups[from].kind = KernelKind::Closed;
        }
    }

    /// Whether an operand that is outside `group` depends on it.
    fn circle(&self, group: usize, operands: &[NodeId]) -> bool {
        let outside = operands.iter().copied().filter(|arg| self.of.get(arg) != Some(&group)).collect();
        self.reaches(outside, &[group])
    }

    /// Whether two groups made one would depend on themselves through others.
    fn circle_of_two(&self, a: usize, b: usize, of_a: &[NodeId], of_b: &[NodeId]) -> bool {
        let both = [a, b];
        let inside = |arg: &NodeId| self.of.get(arg).is_some_and(|group| both.contains(group));
        let outside = of_a.iter().chain(of_b).copied().filter(|arg| !inside(arg)).collect();
        self.reaches(outside, &both)
    }

    /// Whether any of `from` depends on one of `groups`, kernels counted as one; or whether that takes too long to tell.
    fn reaches(&self, from: Vec<NodeId>, groups: &[usize]) -> bool {
        let first = groups.iter().flat_map(|&group| &self.groups[group].members).min().copied();
        let Some(first) = first else { return false };
        let mut pending = from;
        let mut seen_nodes = BTreeSet::new();
        let mut seen_groups = BTreeSet::new();
        let mut searched = 0;
        while let Some(node) = pending.pop() {
            searched += 1;
            if searched > MOST_SEARCHED {
                return true;
            }
            match self.of.get(&node) {
                Some(group) if groups.contains(group) => return true,
                Some(&group) => {
                    if !seen_groups.insert(group) {
                        continue;
                    }
                    let members = &self.groups[group].members;
                    // A kernel all of whose nodes come before cannot depend on it.
                    if members.iter().max().is_some_and(|last| *last < first) {
                        continue;
                    }
                    pending.extend(members.iter().flat_map(|&member| self.args(member)));
                }
                None => {
                    if node >= first && seen_nodes.insert(node) {
                        pending.extend(self.args(node));
                    }
                }
            }
        }
        false
    }
}

fn row(own: Option<Dims>, operand: &Dims, dim: &Name, places: usize) -> Role {
    match own {
        Some(own) if own == *operand && own.last().is_some_and(|last| last.name == *dim) => {
            Role::Row(vec![dim.clone()], places)
        }
        _ => Role::Alone,
    }
}

fn fold(operand: &Dims, dims: &[Name]) -> Role {
    let kept = operand.len() - dims.len();
    let last = operand[kept..].iter().all(|dim| dims.contains(&dim.name));
    if last { Role::FoldRow(dims.to_vec()) } else { Role::Sink }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members of the kernels of `count` operators in a row, each of which is made from the one before.
    fn chain(count: usize, next: impl Fn(&mut ir::Builder, NodeId, NodeId) -> NodeId) -> Vec<usize> {
        let mut b = ir::Builder::new("chain");
        let [x, mut y] = [0, 1].map(|_| b.param("f32[A:8, B:32]".parse::<types::TensorType>().expect("a type")));
        for _ in 0..count {
            y = next(&mut b, y, x);
        }
        let mut function = b.finish().expect("a function");
        function.results = vec![y];
        group(&function).iter().map(Vec::len).collect()
    }

    #[test]
    fn a_chain_falls_into_kernels_of_bounded_size() {
        let maps = chain(10_000, |b, y, x| b.add(y, x));
        assert_eq!(maps.iter().sum::<usize>(), 10_000);
        assert_eq!(maps.len(), 10_000_usize.div_ceil(MOST_OPERATORS));
        let rows = chain(1_000, |b, y, _| b.op(ir::ops::Softmax { dim: "B".into() }, &[y]));
        assert!(rows.iter().all(|&members| members == MOST_LEVELS), "{rows:?}");
        // Each reads a tensor more.
        let mut b = ir::Builder::new("sum");
        let ty: types::TensorType = "f32[A:8, B:32]".parse().expect("a type");
        let mut sum = b.param(ty.clone());
        for _ in 0..1_000 {
            let next = b.param(ty.clone());
            sum = b.add(sum, next);
        }
        let mut function = b.finish().expect("a function");
        function.results = vec![sum];
        let operands = |members: &Vec<NodeId>| {
            let read = members.iter().flat_map(|&m| function.nodes[m].args.iter().copied());
            read.filter(|arg| !members.contains(arg)).collect::<BTreeSet<_>>().len()
        };
        assert!(group(&function).iter().all(|members| operands(members) <= MOST_OPERANDS));
    }

    #[test]
    fn a_sum_of_squares_squares_what_is_kept() {
        let mut b = ir::Builder::new("norm");
        let params: Vec<NodeId> =
            (0..2).map(|_| b.param("f32[A:64, B:32]".parse::<types::TensorType>().expect("a type"))).collect();
        let sum = b.add(params[0], params[1]);
        let square = b.mul(sum, sum);
        let norm = b.reduce_sum(square, &["A".into(), "B".into()]);
        let mut function = b.finish().expect("a function");
        function.results = vec![sum, norm];
        assert_eq!(group(&function), [vec![sum], vec![square, norm]]);
        // Where nothing else reads the sum, one kernel does it all.
        function.results = vec![norm];
        assert_eq!(group(&function), [vec![sum, square, norm]]);
    }
}
