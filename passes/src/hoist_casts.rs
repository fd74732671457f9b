//! `hoist-casts`: a cast of what all turns of a repeated call share is done once, before the first of them.
//!
//! A loss that is taken chunk by chunk would otherwise cast its whole vocabulary for each chunk. Only casts to a smaller type
//! leave a body, and only if nothing else there reads what they cast, so that turns have no more to read than before; and only
//! bodies that repeat nothing themselves are looked at, so that what was cast lives no longer than one such loop. Runs
//! after `autodiff`: gradients of what is shared are still added up in its own type.

use std::collections::{BTreeMap, HashMap};

use diag::Diagnostics;
use ir::{Call, Function, Id, Inst, Mismatch, Module, NodeId, Op, Rewriter, Type};
use serde::{Deserialize, Serialize};
use types::{DType, TensorType};

use crate::{Context, Pass, callgraph, diagnostics};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoistCasts {}

/// By operand of a call: the type that its body casts it to.
type Casts = BTreeMap<usize, DType>;

impl Pass for HoistCasts {
    fn run(&self, module: &mut Module, cx: &mut Context<'_>) -> Result<(), Diagnostics> {
        // By body: the one that takes what was cast, if there is anything to cast.
        let mut bodies: HashMap<Id<Function>, Option<(Id<Function>, Casts)>> = HashMap::new();
        for caller in module.functions.ids().collect::<Vec<_>>() {
            let function = &module.functions[caller];
            let calls = function.nodes.iter().filter_map(|(_, node)| repeated(&node.inst)).cloned();
            for call in calls.collect::<Vec<_>>() {
                if bodies.contains_key(&call.callee) {
                    continue;
                }
                let body = &module.functions[call.callee];
                let casts = casts(body, &call);
                let new = if casts.is_empty() {
                    None
                } else {
                    let mut new = without(body, &casts).map_err(|m| diagnostics::unfit("hoist-casts", body, &m))?;
                    new.name = module.fresh_name(&format!("{}.cast", body.name));
                    Some((module.functions.add(new), casts))
                };
                bodies.insert(call.callee, new);
            }
            let function = &module.functions[caller];
            let (new, count) = cast(function, &bodies).map_err(|m| diagnostics::unfit("hoist-casts", function, &m))?;
            if count > 0 {
                module.functions[caller] = new;
                cx.stats.count("casts before loops", count);
            }
        }
        callgraph::sweep(module);
        Ok(())
    }
}

fn repeated(inst: &Inst) -> Option<&Call> {
    match inst {
        Inst::Call(call) if call.times.is_some_and(|times| times > 1) => Some(call),
        _ => None,
    }
}

/// What of a body can be done before the call.
fn casts(body: &Function, call: &Call) -> Casts {
    if body.nodes.iter().any(|(_, node)| matches!(node.inst, Inst::Call(_))) {
        return Casts::new();
    }
    let (users, live) = (body.users(), body.live());
    let only = |index: usize| {
        let param = body.params[index];
        let ty = body.ty(param).tensor()?;
        if body.results.contains(&param) {
            return None;
        }
        let mut to = users[param.index()].iter().filter(|user| live[user.index()]).map(|user| {
            let Inst::Op(Op::Cast(_)) = body.nodes[*user].inst else { return None };
            body.ty(*user).tensor().map(|t| t.dtype)
        });
        let first = to.next()??;
        (to.all(|other| other == Some(first)) && first.bytes() < ty.dtype.bytes()).then_some(first)
    };
    (call.carried..call.carried + call.shared).filter_map(|i| Some((i, only(i)?))).collect()
}

/// The body, with operands that were cast before.
fn without(body: &Function, casts: &Casts) -> Result<Function, Mismatch> {
    let mut r = Rewriter::with_param_types(body, |i, ty| match (casts.get(&i), ty) {
        (Some(&dtype), Type::Tensor(ty)) => TensorType { dtype, ..ty.clone() }.into(),
        _ => ty.clone(),
    });
    // Nothing but casts reads them.
    let given: Vec<NodeId> = casts.keys().map(|&i| body.params[i]).collect();
    for (id, node) in body.nodes.iter() {
        if let Some(&arg) = node.args.first().filter(|arg| given.contains(arg)) {
            let operand = r.get(arg);
            r.set(id, operand);
        }
    }
    r.finish()
}

/// The caller, with casts before its calls; and how many.
fn cast(
    caller: &Function,
    bodies: &HashMap<Id<Function>, Option<(Id<Function>, Casts)>>,
) -> Result<(Function, u64), Mismatch> {
    let mut r = Rewriter::new(caller);
    let (live, mut count) = (caller.live(), 0);
    for (id, node) in caller.nodes.iter().filter(|(id, _)| live[id.index()]) {
        r.b.place = node.place;
        let new = repeated(&node.inst).and_then(|call| Some((call, bodies.get(&call.callee)?.as_ref()?)));
        if let Some((call, (body, casts))) = new {
            let mut operands = r.args(id);
            for (&i, &dtype) in casts {
                operands[i] = r.b.cast(operands[i], dtype);
            }
            count += casts.len() as u64;
            let call = Call { callee: *body, ..call.clone() };
            let new = r.b.push(Inst::Call(call), operands, node.ty.clone());
            r.set(id, new);
        } else if !r.done(id) {
            r.copy(id);
        }
    }
    Ok((r.finish()?, count))
}
