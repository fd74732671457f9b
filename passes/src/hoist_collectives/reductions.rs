//! Hoists sums over ranks out of repeated calls: what each turn would reduce and add to a carried value is added up on each
//! rank, and reduced once after the last turn.

use std::collections::HashMap;

use ir::{Call, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter, Type};
use smallvec::SmallVec;
use types::TensorType;

use super::site::{Calls, copy, each, finish, op, result};
use crate::autodiff::Derivatives;

/// Which sums are hoisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// Those that all ranks hold whole, or that live no longer than a loop of which no turn is a loop itself: little
    /// memory more.
    Whole,
    /// Those of which each rank keeps a part too.
    Scattered,
}

/// Rewrites `caller` and those functions of which its repeated calls are the only calls; returns how
/// many sums were hoisted.
pub fn hoist_reductions(module: &mut Module, caller: Id<Function>, kinds: Kinds) -> Result<u64, Mismatch> {
    let mut hoisted = 0;
    while let Some((node, call, sum)) = first(module, caller, kinds) {
        sum.apply(module, caller, node, &call)?;
        hoisted += 1;
    }
    Ok(hoisted)
}

fn first(module: &Module, caller: Id<Function>, kinds: Kinds) -> Option<(NodeId, Call, Sum)> {
    let calls = Calls::of(module, &module.functions[caller]);
    let mut uses = Uses { module, of: HashMap::new() };
    calls.repeated(&module.functions[caller]).into_iter().find_map(|(node, call)| {
        let innermost = calls.repeated(&module.functions[call.callee]).is_empty();
        let kinds = if innermost { Kinds::Scattered } else { kinds };
        let sum = (0..call.carried).find_map(|i| Sum::of((&calls, &mut uses), caller, (node, &call), i, kinds))?;
        Some((node, call, sum))
    })
}

/// Who reads the values of functions, found once for all that is asked of one.
struct Uses<'m> {
    module: &'m Module,
    of: HashMap<Id<Function>, Use>,
}

struct Use {
    users: Vec<SmallVec<[NodeId; 4]>>,
    /// By node: how many results it is.
    returned: Vec<usize>,
}

impl Uses<'_> {
    fn of(&mut self, id: Id<Function>) -> &Use {
        let function = &self.module.functions[id];
        self.of.entry(id).or_insert_with(|| {
            let mut returned = vec![0; function.nodes.len()];
            function.results.iter().for_each(|result| returned[result.index()] += 1);
            Use { users: function.users(), returned }
        })
    }
}

/// A carried value that grows by a sum over ranks in each turn, where nothing else looks at either.
struct Sum {
    /// Which carried value of the repeated call.
    index: usize,
    /// What is added to it, in the callee.
    addend: NodeId,
    /// The call in the callee that reduces it, and which of its results it is; the callee itself if none.
    inner: Option<(NodeId, Call, usize)>,
    /// What is reduced, by which operator.
    of: NodeId,
    reduce: Op,
    /// What each rank adds up, and the sum over ranks as it is carried.
    part: TensorType,
    whole: TensorType,
}

impl Sum {
    fn of(
        (calls, uses): (&Calls, &mut Uses<'_>),
        caller: Id<Function>,
        (node, call): (NodeId, &Call),
        index: usize,
        kinds: Kinds,
    ) -> Option<Self> {
        let module = uses.module;
        let callee = &module.functions[call.callee];
        let (param, grown) = (callee.params[index], callee.results[index]);
        if uses.of(call.callee).returned[grown.index()] != 1 {
            return None;
        }
        let args = callee.nodes[grown].args.as_slice();
        let adds = match &callee.nodes[grown].inst {
            Inst::Op(op) => matches!(op, Op::Add(_)),
            Inst::Call(add) => {
                add.carried + add.shared == 0 && add.times.is_some() && adds(&module.functions[add.callee])
            }
            _ => false,
        };
        let &[a, b] = args else { return None };
        let addend = if a == param { b } else { a };
        if !adds || a == b {
            return None;
        }
        let own = uses.of(call.callee);
        let only = |id: NodeId| own.users[id.index()].as_slice() == [grown] && own.returned[id.index()] == 0;
        if !own.users[grown.index()].is_empty() || !only(param) || !only(addend) {
            return None;
        }
        // From a start that is not zero, a stack would take one more addition each.
        let start = module.functions[caller].nodes[node].args[index];
        if callee.ty(param).tensor().is_none() && !is_zero(&module.functions[caller], start) {
            return None;
        }
        let (all, position) = match callee.nodes[addend].inst {
            Inst::Get(i) => (callee.nodes[addend].args[0], i),
            _ => (addend, 0),
        };
        let inner = calls.only(&callee.nodes[all].inst).filter(|c| c.times.is_none() || position >= c.carried);
        let (within, root) = match inner {
            Some(inner) => (inner.callee, module.functions[inner.callee].results[position]),
            None => (call.callee, addend),
        };
        let user = inner.is_none().then_some(grown);
        let (of, reduce) = reduced(&module.functions[within], uses.of(within), (root, user), kinds)?;
        let within = &module.functions[within];
        let part = within.ty(of).tensor()?.with_dtype(within.ty(root).tensor()?.dtype);
        let whole = callee.ty(param).element()?.clone();
        let inner = inner.map(|inner| (all, inner.clone(), position));
        Some(Self { index, addend, inner, of, reduce, part, whole })
    }

    fn apply(&self, module: &mut Module, caller: Id<Function>, node: NodeId, call: &Call) -> Result<(), Mismatch> {
        if let Some((_, inner, position)) = &self.inner {
            let old = module.functions[inner.callee].clone();
            let mut r = Rewriter::new(&old);
            for id in old.nodes.ids() {
                if !r.done(id) {
                    r.copy(id);
                }
            }
            r.b.place = old.nodes[old.results[*position]].place;
            let part = r.get(self.of);
            let part = r.b.cast(part, self.part.dtype);
            let mut results: Vec<NodeId> = old.results.iter().map(|&result| r.get(result)).collect();
            results[*position] = part;
            let mut new = r.b.finish()?;
            new.results = results;
            module.functions[inner.callee] = Rewriter::new(&new).finish()?;
        }
        let ty = self.within(module, call)?;
        self.after(module, caller, node, call, &ty)
    }

    /// The callee, which adds up without reducing. Returns the type of the sum.
    fn within(&self, module: &mut Module, call: &Call) -> Result<Type, Mismatch> {
        let old = module.functions[call.callee].clone();
        let part = match &self.inner {
            None => Type::Tensor(self.part.clone()),
            Some((all, inner, position)) => {
                let types: Vec<&Type> = old.nodes[*all].args.iter().map(|&a| old.ty(a)).collect();
                match inner.infer(&module.functions[inner.callee], &types)? {
                    Type::Tuple(mut items) => items.swap_remove(*position),
                    one => one,
                }
            }
        };
        let mut derivatives = Derivatives::new(module);
        let mut r = Rewriter::with_param_types(&old, |i, ty| if i == self.index { part.clone() } else { ty.clone() });
        let grown = old.results[self.index];
        for id in old.nodes.ids() {
            if id == grown {
                r.b.place = old.nodes[id].place;
                let part = r.get(if self.inner.is_some() { self.addend } else { self.of });
                let part = r.b.cast(part, self.part.dtype);
                let sum = r.get(old.params[self.index]);
                let sum = derivatives.add(&mut r.b, sum, part);
                r.set(id, sum);
            } else if !r.done(id) {
                copy(&mut r, derivatives.module, id);
            }
        }
        module.functions[call.callee] = finish(r)?;
        Ok(part)
    }

    /// The caller: the call starts from zero, and what it carries out is reduced and added to what it carried in.
    fn after(
        &self,
        module: &mut Module,
        caller: Id<Function>,
        node: NodeId,
        call: &Call,
        part: &Type,
    ) -> Result<(), Mismatch> {
        let old = module.functions[caller].clone();
        let carried = old.nodes[node].args[self.index];
        let mut r = Rewriter::new(&old);
        let reduced = |r: &mut Rewriter<'_>, module: &mut Module, sum: NodeId| {
            let reduce = |b: &mut ir::Builder, x: NodeId| {
                let x = b.op(self.reduce.clone(), &[x]);
                b.reshape(x, &self.whole)
            };
            let sum = each(module, &mut r.b, self.reduce.name(), sum, reduce)?;
            let start = r.get(carried);
            Ok::<_, Mismatch>(if is_zero(&old, carried) { sum } else { r.b.add(start, sum) })
        };
        for id in old.nodes.ids() {
            let inst = &old.nodes[id].inst;
            if id == node {
                r.b.place = old.nodes[id].place;
                let mut args = r.args(id);
                args[self.index] = Derivatives::new(module).zero(&mut r.b, part);
                let all = r.b.call(call.clone(), &module.functions[call.callee], &args);
                let single = !matches!(old.nodes[id].ty, Type::Tuple(_));
                let all = if single { reduced(&mut r, module, all)? } else { all };
                r.set(id, all);
            } else if old.nodes[id].args.first() == Some(&node) && matches!(inst, Inst::Get(i) if *i == self.index) {
                r.b.place = old.nodes[id].place;
                let all = r.get(node);
                let sum = result(&mut r.b, all, self.index);
                let sum = reduced(&mut r, module, sum)?;
                r.set(id, sum);
            } else if !r.done(id) {
                copy(&mut r, module, id);
            }
        }
        module.functions[caller] = finish(r)?;
        Ok(())
    }
}

/// What `root` is a sum over ranks of, and how, if it is one but for casts and reshapes. `user` is who reads the root;
/// none, if the function returns it.
fn reduced(
    function: &Function,
    Use { users, returned }: &Use,
    (root, user): (NodeId, Option<NodeId>),
    kinds: Kinds,
) -> Option<(NodeId, Op)> {
    let returned = |id: NodeId| returned[id.index()];
    if users[root.index()].as_slice() != user.as_slice() || returned(root) != usize::from(user.is_none()) {
        return None;
    }
    let widest = function.ty(root).tensor()?.dtype.bytes();
    let mut at = root;
    loop {
        let from = *function.nodes[at].args.first()?;
        let bytes = |ty: &TensorType| ty.dtype.bytes() <= widest;
        match op(function, at)? {
            Op::AllReduce(reduce) if !reduce.max => return Some((from, Op::AllReduce(reduce.clone()))),
            Op::ReduceScatter(reduce) if kinds == Kinds::Scattered => {
                return Some((from, Op::ReduceScatter(reduce.clone())));
            }
            Op::Cast(_) | Op::Reshape(_) if bytes(function.ty(from).tensor()?) => {}
            _ => return None,
        }
        if users[from.index()].as_slice() != [at] || returned(from) > 0 {
            return None;
        }
        at = from;
    }
}

/// Whether a function is `(a, b) -> a + b`.
fn adds(function: &Function) -> bool {
    let &[sum] = function.results.as_slice() else { return false };
    let args = function.nodes[sum].args.as_slice();
    matches!(op(function, sum), Some(Op::Add(_))) && args == function.params.as_slice()
}

fn is_zero(function: &Function, mut id: NodeId) -> bool {
    while let Inst::Op(Op::Broadcast(_)) | Inst::Repeat { .. } = &function.nodes[id].inst {
        id = function.nodes[id].args[0];
    }
    matches!(&function.nodes[id].inst, Inst::Op(Op::Constant(constant)) if constant.value == 0.0)
}
