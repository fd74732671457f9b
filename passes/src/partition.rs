//! `partition`: the program of one rank: shapes of its parts, and collectives where a `reshard` stood.
//!
//! All ranks run the same program; what differs follows from the coordinates that it reads.

mod collectives;
mod ring;

use std::collections::HashMap;

use diag::{Diagnostic, Diagnostics, PlaceId};
use ir::{
    Assignment, Builder, Class, FactorKind, Factors, Function, Inst, Level, Logical, Mismatch, Module, NodeId, NodeIds,
    Op, PartContext, PartOf, PartialKind, Rewriter, Sharding, SpmdBuilder, Type, ring as ring_of,
};
use serde::{Deserialize, Serialize};
use types::{Mesh, TensorType};

use crate::{Context, Pass, diagnostics};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {}

impl Pass for Partition {
    fn run(&self, module: &mut Module, _: &mut Context<'_>) -> Result<(), Diagnostics> {
        if module.level != Level::Sharded {
            return Ok(());
        }
        let mut local = vec![];
        for (_, function) in module.functions.iter() {
            local.push(rank_of(&module.mesh, function).map_err(|refusal| refused(module, function, &refusal))?);
        }
        for program in &mut module.programs {
            let function = &module.functions[program.function];
            let sides = function.params.iter().chain(&function.results);
            let logical = |&id: &NodeId| {
                let ty = function.ty(id).element()?.clone();
                Some(Logical { ty, cuts: function.nodes[id].sharding(0).cuts() })
            };
            program.logical = sides.filter_map(logical).collect();
        }
        let ids: Vec<_> = module.functions.ids().collect();
        for (id, function) in ids.into_iter().zip(local) {
            module.functions[id] = function;
        }
        module.level = Level::Local;
        Ok(())
    }
}

/// Why a function has no program for one rank.
enum Refusal {
    Unfit(Mismatch),
    /// The operands of the operator at this place would go around so many ranks.
    Ring(PlaceId, usize),
}

impl From<Mismatch> for Refusal {
    fn from(mismatch: Mismatch) -> Self {
        Self::Unfit(mismatch)
    }
}

fn refused(module: &Module, function: &Function, refusal: &Refusal) -> Diagnostics {
    match refusal {
        Refusal::Unfit(mismatch) => {
            Diagnostic::internal(format!("@{} has no program for one rank: {mismatch}", function.name)).into()
        }
        Refusal::Ring(place, ranks) => {
            let message = format!("the operands of this go around {ranks} ranks, at most {}", ring::MAX_STEPS);
            let error = Diagnostic::error(message).note("each step around the ring is written out");
            diagnostics::at(module, *place, error).help("take fewer ranks, or exchange heads on more of them").into()
        }
    }
}

/// The function of one rank.
fn rank_of(mesh: &Mesh, function: &Function) -> Result<Function, Refusal> {
    let empty = Function {
        name: function.name.clone(),
        kind: function.kind,
        recompute: function.recompute,
        ..Function::default()
    };
    let mut l = Localiser {
        r: SpmdBuilder::new(Builder::extend(empty), mesh),
        from: function,
        map: vec![None; function.nodes.len()],
        several: HashMap::new(),
    };
    for &p in &function.params {
        l.r.b.place = function.nodes[p].place;
        let new = l.r.b.param(local(mesh, function, p));
        l.map[p.index()] = Some(new);
    }
    let live = function.live();
    for id in function.nodes.ids().filter(|id| live[id.index()]) {
        if l.map[id.index()].is_none() {
            l.r.b.place = function.nodes[id].place;
            let new = l.node(id)?;
            l.map[id.index()] = Some(new);
        }
    }
    let results = function.results.iter().map(|r| l.get(*r)).collect();
    let mut out = l.r.b.finish()?;
    out.results = results;
    // Where parts begin and end is asked by few.
    Ok(Rewriter::new(&out).finish()?)
}

/// The type of a node on one rank.
fn local(mesh: &Mesh, function: &Function, id: NodeId) -> Type {
    let node = &function.nodes[id];
    match &node.ty {
        Type::Tuple(items) => {
            let each = items.iter().enumerate().map(|(i, t)| t.map(&|t: &TensorType| node.sharding(i).local(mesh, t)));
            Type::Tuple(each.collect())
        }
        one => one.map(&|t: &TensorType| node.sharding(0).local(mesh, t)),
    }
}

struct Localiser<'a> {
    r: SpmdBuilder<'a>,
    from: &'a Function,
    map: Vec<Option<NodeId>>,
    /// Results of operators, for those who read one of several.
    several: HashMap<NodeId, NodeIds>,
}

impl Localiser<'_> {
    fn get(&self, old: NodeId) -> NodeId {
        self.map[old.index()].expect("operands are written before their users")
    }

    fn node(&mut self, id: NodeId) -> Result<NodeId, Refusal> {
        let node = &self.from.nodes[id];
        let args: Vec<NodeId> = node.args.iter().map(|&a| self.get(a)).collect();
        if let Inst::Get(i) = node.inst
            && let Some(values) = self.several.get(&node.args[0])
        {
            return Ok(*values.get(i).ok_or_else(|| Mismatch::new("`get` past the end"))?);
        }
        let Inst::Op(op) = &node.inst else {
            let ty = local(self.r.mesh, self.from, id);
            return Ok(self.r.b.push(node.inst.clone(), args, ty));
        };
        if let (Op::Reshard(reshard), &[out, lse]) = (op, args.as_slice()) {
            let axes = collectives::of_kind(&self.r, &self.from.nodes[node.args[0]].sharding(0), PartialKind::Merge);
            let whole = self.r.merge([out, lse], &axes, &reshard.why);
            self.several.insert(id, whole.into_iter().collect());
            return Ok(whole[0]);
        }
        if let Op::Reshard(reshard) = op {
            let (held, want) = (self.from.nodes[node.args[0]].sharding(0), node.sharding(0));
            let ty = self.tensor(node.args[0])?;
            return Ok(collectives::lower(&mut self.r, args[0], &ty, &held, &want, &reshard.why)?);
        }
        let types = node.args.iter().map(|&a| self.tensor(a)).collect::<Result<Vec<_>, _>>()?;
        let results: Vec<TensorType> = node.ty.tensors().cloned().collect();
        let factors = op.factors(&types.iter().collect::<Vec<_>>(), &results);
        let held: Vec<Sharding> = node.args.iter().map(|&a| self.from.nodes[a].sharding(0)).collect();
        let given: Vec<Sharding> = (0..results.len()).map(|i| node.sharding(i)).collect();
        let cuts = Assignment::of(self.r.mesh, &factors, &held, &given).map_err(Mismatch::new)?;
        let of = Local {
            op,
            factors: &factors,
            cuts: &cuts,
            args: &args,
            shardings: &held,
            logical: &types,
            results: results.iter().zip(&given).map(|(t, s)| s.local(self.r.mesh, t)).collect(),
        };
        let values = match of.ring() {
            Some((stays, goes)) => {
                let ranks = self.r.mesh.group(&ring::axes(&of, stays, goes));
                if ranks > ring::MAX_STEPS {
                    return Err(Refusal::Ring(node.place, ranks));
                }
                ring::unroll(&mut self.r, &of, stays, goes)?
            }
            None => {
                let parts = of.parts(&mut self.r);
                of.compute(&mut self.r, &args, &parts)?
            }
        };
        let first = *values.first().ok_or_else(|| Mismatch::new(format!("`{}` gives nothing", op.name())))?;
        self.several.insert(id, values);
        Ok(first)
    }

    fn tensor(&self, id: NodeId) -> Result<TensorType, Mismatch> {
        self.from.ty(id).tensor().cloned().ok_or_else(|| Mismatch::new(format!("{id} is no tensor")))
    }
}

/// One operator on one rank.
pub struct Local<'a> {
    pub op: &'a Op,
    pub factors: &'a Factors,
    pub cuts: &'a Assignment,
    pub args: &'a [NodeId],
    pub shardings: &'a [Sharding],
    /// The operands' types before they were cut.
    pub logical: &'a [TensorType],
    pub results: Vec<TensorType>,
}

impl Local<'_> {
    /// The factor that stays and the one that goes around, if an axis cuts two.
    fn ring(&self) -> Option<(usize, usize)> {
        let cuts = &self.cuts.0;
        let both = |f: usize, g: usize| cuts[f].iter().any(|a| cuts[g].contains(a));
        (0..cuts.len())
            .flat_map(|f| (0..f).map(move |g| (g, f)))
            .find(|&(g, f)| both(g, f))
            .and_then(|(g, f)| ring_of(self.factors, g, f))
    }

    /// Which part of each factor this rank has; only those operators ask that are not the same for all parts.
    fn parts(&self, r: &mut SpmdBuilder<'_>) -> Vec<Option<PartOf>> {
        let asks = !matches!(self.op.class(), Class::Elementwise | Class::View | Class::Contract);
        let part = |(f, axes): (usize, &ir::Axes)| {
            (asks && !axes.is_empty()).then(|| r.part(self.factors.factors[f].size, axes))
        };
        self.cuts.0.iter().enumerate().map(part).collect()
    }

    /// The results over these operands; sums see no element that is not there.
    fn compute(&self, r: &mut SpmdBuilder<'_>, args: &[NodeId], parts: &[Option<PartOf>]) -> Result<NodeIds, Mismatch> {
        let masked: Vec<NodeId> = (0..args.len()).map(|i| self.masked(r, i, args[i])).collect();
        let mut cx = PartContext {
            b: &mut r.b,
            args,
            results: &self.results,
            factors: self.factors,
            cuts: parts,
            masked: &masked,
        };
        let values = match self.op.partition(&mut cx) {
            Some(values) => values,
            None => {
                let all = r.b.try_op(self.op.localize(&self.results), &masked)?;
                r.b.results(all)
            }
        };
        for (value, ty) in values.iter().zip(&self.results) {
            if r.b.ty(*value).sizes() != ty.sizes() {
                return Err(Mismatch::new(format!("`{}` gives `{}`, not `{ty}`", self.op.name(), r.b.ty(*value))));
            }
        }
        Ok(values)
    }

    fn masked(&self, r: &mut SpmdBuilder<'_>, arg: usize, x: NodeId) -> NodeId {
        let mut x = x;
        for (d, of) in self.factors.args[arg].iter().enumerate() {
            let [f] = of.as_slice() else { continue };
            let least = match self.factors.factors[*f].kind {
                FactorKind::Sum => 0.0,
                FactorKind::Max if self.logical[arg].dtype.is_float() => f64::NEG_INFINITY,
                FactorKind::Max => f64::from(i32::MIN),
                FactorKind::Parallel | FactorKind::Merge | FactorKind::Whole => continue,
            };
            x = r.mask(x, d, self.logical[arg].dims[d].size, self.shardings[arg].axes(d), least);
        }
        x
    }
}
