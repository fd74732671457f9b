//! A call on the way back: the forward call is made to return residuals, and a call of the backward reads them.

use diag::Diagnostics;
use ir::{Call, Inst, NodeId, Type};

use super::derivative::{Derivatives, Key, Read};
use super::joint::Joint;
use super::sums::accumulator;
use crate::activity;

/// A call in the joint graph.
pub struct Site<'a> {
    pub at: NodeId,
    pub args: &'a [NodeId],
    pub results: &'a [NodeId],
    /// Which operands depend on what is differentiated by.
    pub active: &'a [bool],
    /// One for each result.
    pub cotangents: &'a [Option<NodeId>],
}

impl Derivatives<'_> {
    pub fn call(&mut self, joint: &mut Joint, call: &Call, site: &Site<'_>) -> Result<(), Diagnostics> {
        let &Site { at, args, results, active, cotangents } = site;
        let (wanted, _) = activity::through_call(self.module, call, active);
        let given = cotangents.iter().map(Option::is_some).collect();
        let split = call.times.map(|_| (call.carried, call.shared));
        let derivative = self.derivative(Key { callee: call.callee, split, wanted, given })?;
        let Some(backward) = derivative.backward else { return Ok(()) };
        let recompute = self.module.functions[call.callee].recompute;

        let own = cotangents.len();
        let types: Vec<Type> = self.module.functions[derivative.forward]
            .result_types()
            .skip(own)
            .map(|ty| stacked(ty, call.times))
            .collect();
        let node = &mut joint.b.function.nodes[at];
        node.inst = Inst::Call(Call { callee: derivative.forward, ..call.clone() });
        if let Type::Tuple(items) = &mut node.ty {
            items.extend(types.iter().cloned());
        }
        let residuals: Vec<NodeId> =
            types.into_iter().enumerate().map(|(i, ty)| joint.residual(at, own + i, ty)).collect();

        let mut operands = vec![];
        for &i in &derivative.carried {
            operands.push(match cotangents[i] {
                Some(cotangent) => cotangent,
                None => {
                    let ty = joint.b.function.ty(results[i]).clone();
                    self.zero(&mut joint.b, &ty)
                }
            });
        }
        for &i in &derivative.accumulated {
            let ty = accumulator(joint.b.function.ty(args[i]));
            operands.push(self.zero(&mut joint.b, &ty));
        }
        for read in &derivative.reads {
            operands.push(match *read {
                Read::Operand(i) => args[i],
                Read::Result(i) => results[i],
                Read::Residual(i) => residuals[i],
            });
        }
        operands.extend(derivative.cotangents.iter().filter_map(|&i| cotangents[i]));

        // Cotangents of operands, each under the operand's own type; sums may be wider.
        let carried = derivative.carried.iter().map(|&i| (i, joint.b.function.ty(args[i]).clone()));
        let sums = derivative.accumulated.iter().map(|&i| (i, accumulator(joint.b.function.ty(args[i]))));
        let produced = derivative.produced.iter().map(|&i| (i, joint.b.function.ty(args[i]).clone()));
        let targets: Vec<(usize, Type)> = carried.chain(sums).chain(produced).collect();
        let mut back = Call {
            callee: backward,
            times: call.times,
            carried: derivative.carried.len() + derivative.accumulated.len(),
            shared: derivative.shared_reads,
            reverse: call.times.is_some() && !call.reverse,
        };
        // Spliced into one function, what is computed again would be found equal to what was computed before, and the
        // memory would be held after all. A call that is repeated once stays a call.
        let joins = |(_, ty): &(usize, Type)| ty.tensor().is_some_and(|t| t.rank() > 0);
        let apart = call.times.is_none() && recompute && targets.iter().all(joins);
        if apart {
            (back.times, back.shared) = (Some(1), operands.len());
        }
        let types: Vec<Type> =
            targets.iter().map(|(_, ty)| if apart { stacked(ty, Some(1)) } else { ty.clone() }).collect();
        let back = joint.b.push(Inst::Call(back), operands, Type::Tuple(types.clone()));
        for (k, ((i, _), ty)) in targets.into_iter().zip(types).enumerate() {
            if active[i] {
                let value = joint.b.push(Inst::Get(k), [back], ty);
                let value = if apart { joint.b.unchunk(value) } else { value };
                joint.give(args[i], value);
            }
        }
        Ok(())
    }
}

fn stacked(ty: &Type, times: Option<usize>) -> Type {
    match (times, ty) {
        (Some(count), Type::Tensor(of)) => Type::Stack { count, of: of.clone() },
        _ => ty.clone(),
    }
}
