//! Fused kernels: for each shape of results one nest of loops that evaluates and stores them.

use std::collections::{BTreeMap, BTreeSet};

use ir::{Function, Inst, NodeId};
use types::TensorType;

use super::apply::{store, stored};
use super::coord::{self, Coord};
use super::eval::{Eval, runs, widen};
use super::form::Form;
use super::reduce::{along_lanes, run_lanes};
use super::{LowerError, Needs, Pointers};
use crate::cpu::Cpu;
use crate::emit::{Elem, Emitter, Kernel, Ty, Val};

/// Vectors of a run that one part does at a time.
const CHUNK: u64 = 64;

pub struct NestKernel {
    nests: Vec<Nest>,
}

/// The loops over one shape.
struct Nest {
    /// Result numbers.
    results: Vec<usize>,
    /// Results that have the first so many dims alone: stored once for each of these rows.
    row_results: Vec<(usize, usize)>,
    sizes: Vec<u64>,
    /// Dims in the order of their loops; the one in lanes is among them.
    order: Vec<usize>,
    /// The dim in lanes, and how many.
    lanes: Option<(usize, u32)>,
    /// Loops, from the outermost, that parts share.
    shared: usize,
    /// The run is cut in chunks, for parts to share.
    chunk: Option<u64>,
}

impl Nest {
    fn shared_sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = self.order[..self.shared].iter().map(|&dim| self.sizes[dim]).collect();
        if let (Some(chunk), Some((dim, _))) = (self.chunk, self.lanes) {
            sizes.push(self.sizes[dim].div_ceil(chunk));
        }
        sizes
    }

    fn shares(&self) -> u64 {
        self.shared_sizes().iter().product()
    }
}

impl NestKernel {
    pub fn new(function: &Function, cpu: &Cpu) -> Result<NestKernel, LowerError> {
        let mut nests: Vec<(TensorType, Vec<usize>)> = Vec::new();
        for (index, &result) in function.results.iter().enumerate() {
            let ty = tensor(function, result)?;
            match nests.iter_mut().find(|(other, _)| other.dims == ty.dims) {
                Some((_, results)) => results.push(index),
                None => nests.push((ty.clone(), vec![index])),
            }
        }
        // A shape that is the head of a longer one is stored along with it.
        nests.sort_by_key(|(ty, _)| std::cmp::Reverse(ty.rank()));
        let mut plans: Vec<Nest> = Vec::new();
        let mut shapes: Vec<TensorType> = Vec::new();
        for (ty, results) in nests {
            let host = shapes.iter().zip(&mut plans).find(|(shape, nest)| {
                let rows = &shape.dims[..ty.rank().min(shape.rank())];
                let natural = nest.order.iter().copied().eq(0..shape.rank());
                natural && nest.shared >= ty.rank() && nest.shared == ty.rank() && *rows == ty.dims[..]
            });
            if let Some((_, nest)) = host {
                nest.row_results.extend(results.iter().map(|&result| (result, ty.rank())));
                continue;
            }
            plans.push(nest(function, &ty, results, cpu)?);
            shapes.push(ty);
        }
        Ok(NestKernel { nests: plans })
    }

    pub fn needs(&self, function: &Function) -> Needs {
        let parts = self.nests.iter().map(Nest::shares).max().unwrap_or(1).clamp(1, 1 << 16);
        Needs { workspace: 0, parts, in_place: in_place(function) }
    }

    pub fn emit(
        &self,
        e: &mut Emitter,
        kernel: &Kernel,
        function: &Function,
        pointers: &Pointers,
    ) -> Result<(), LowerError> {
        for nest in &self.nests {
            let mut eval = Eval::new(function, pointers.bases.clone());
            emit_nest(e, kernel, &mut eval, nest, &pointers.results)?;
        }
        Ok(())
    }
}

fn tensor(function: &Function, node: NodeId) -> Result<&TensorType, LowerError> {
    function.ty(node).tensor().ok_or_else(|| LowerError::new("a fused kernel with a result that is no tensor"))
}

fn nest(function: &Function, ty: &TensorType, results: Vec<usize>, cpu: &Cpu) -> Result<Nest, LowerError> {
    let sizes: Vec<u64> = ty.dims.iter().map(|dim| dim.size as u64).collect();
    let mut reductions = Reductions::default();
    for &result in &results {
        reductions.collect(function, function.results[result], identity(ty))?;
    }
    // Dims that some reduction keeps come first; all in their own order.
    let kept = |dim: usize| reductions.all.iter().all(|reduction| reduction.kept.contains(&dim));
    let mut order: Vec<usize> = (0..sizes.len()).filter(|&dim| kept(dim)).collect();
    order.extend((0..sizes.len()).filter(|&dim| !kept(dim)));
    let last = sizes.len().wrapping_sub(1);
    let in_lanes = !sizes.is_empty()
        && sizes[last] > 1
        && !reductions.all.iter().any(|reduction| reduction.lanewise && reduction.kept.contains(&last));
    let columns = reductions.all.iter().any(|reduction| !reduction.lanewise);
    let lanes = in_lanes.then(|| {
        let width = if columns { run_lanes(cpu.lanes, sizes[last]) } else { cpu.lanes };
        (last, width)
    });
    let shared = match lanes {
        Some((dim, _)) => order.iter().position(|&other| other == dim).unwrap_or(0),
        None => order.len(),
    };
    // A loop that a reduction does not keep repeats it: parts share only loops outside of all reductions.
    let outside = order.iter().take_while(|&&dim| kept(dim)).count();
    let shared = if reductions.all.is_empty() { shared } else { shared.min(outside) };
    let rows: u64 = order[..shared].iter().map(|&dim| sizes[dim]).product();
    let chunk = lanes.and_then(|(dim, width)| {
        let next = order.get(shared) == Some(&dim) && kept(dim);
        let chunk = if columns { u64::from(width) } else { u64::from(width) * CHUNK };
        (next && rows < 256 && sizes[dim] > chunk).then_some(chunk)
    });
    Ok(Nest { results, row_results: Vec::new(), sizes, order, lanes, shared, chunk })
}

/// For each dim of a node, the dims of the space that its coordinate depends on.
type Depends = Vec<Vec<usize>>;

fn identity(ty: &TensorType) -> Depends {
    (0..ty.rank()).map(|dim| vec![dim]).collect()
}

struct Reduction {
    /// Dims of the space that its element depends on.
    kept: Vec<usize>,
    lanewise: bool,
}

#[derive(Default)]
struct Reductions {
    all: Vec<Reduction>,
    seen: BTreeSet<(NodeId, Depends)>,
    /// Seen, and what they read is not.
    open: Vec<(NodeId, Depends)>,
}

impl Reductions {
    /// Collects what `node` reads, with the coordinates' dependence on the dims of the space.
    fn collect(&mut self, function: &Function, node: NodeId, at: Depends) -> Result<(), LowerError> {
        self.add(node, at);
        while let Some((node, at)) = self.open.pop() {
            self.read(function, node, &at)?;
        }
        Ok(())
    }

    fn add(&mut self, node: NodeId, at: Depends) {
        if self.seen.insert((node, at.clone())) {
            self.open.push((node, at));
        }
    }

    fn read(&mut self, function: &Function, node: NodeId, at: &Depends) -> Result<(), LowerError> {
        let data = &function.nodes[node];
        let Inst::Op(op) = &data.inst else { return Ok(()) };
        let ty = tensor(function, node)?;
        for (index, &arg) in data.args.iter().enumerate() {
            let operand = tensor(function, arg)?;
            let by_name: Depends = operand
                .dims
                .iter()
                .map(|dim| ty.position(&dim.name).map(|place| at[place].clone()).unwrap_or_default())
                .collect();
            let inner = match Form::of(op) {
                Form::Fold(_, dims) => {
                    let mut kept: Vec<usize> = at.iter().flatten().copied().collect();
                    kept.sort_unstable();
                    kept.dedup();
                    self.all.push(Reduction { kept, lanewise: along_lanes(operand, dims) });
                    by_name
                }
                Form::Reshape => {
                    let mut inner = Vec::new();
                    for (to, from) in runs(ty, operand) {
                        let mut all: Vec<usize> = at[to].iter().flatten().copied().collect();
                        all.sort_unstable();
                        all.dedup();
                        inner.extend(from.map(|_| all.clone()));
                    }
                    inner
                }
                Form::Gather(op) => {
                    let table = tensor(function, data.args[0])?;
                    let ids = tensor(function, data.args[1])?;
                    let mut inner = by_name;
                    if let (0, Some(place)) = (index, table.position(&op.dim)) {
                        let of_ids = ids.dims.iter().filter_map(|dim| ty.position(&dim.name));
                        inner[place] = of_ids.flat_map(|dim| at[dim].iter().copied()).collect();
                    }
                    inner
                }
                Form::Constant(_)
                | Form::Iota
                | Form::Table
                | Form::Elementwise(_)
                | Form::Renamed
                | Form::Slice(_)
                | Form::Concat(_)
                | Form::Pad(_)
                | Form::Window(_)
                | Form::Whole(_)
                | Form::Composite
                | Form::Collective => by_name,
            };
            self.add(arg, inner);
        }
        Ok(())
    }
}

fn emit_nest(
    e: &mut Emitter,
    kernel: &Kernel,
    eval: &mut Eval<'_>,
    nest: &Nest,
    pointers: &[Val],
) -> Result<(), LowerError> {
    let sizes = nest.shared_sizes();
    let count: u64 = sizes.iter().product();
    let (from, to) = e.share(kernel, count, count);
    let mut result = Ok(());
    let roots: Vec<NodeId> = nest.results.iter().map(|&result| eval.function.results[result]).collect();
    let nothing = vec![None; nest.sizes.len()];
    for &root in &roots {
        eval.hoist(e, root, &nothing)?;
    }
    e.for_each((from, to, 1), &[], |e, index, _| {
        result = eval.scope(|eval| {
            let at = e.unravel(index, &sizes);
            let mut coords = nothing.clone();
            for (&dim, &at) in nest.order[..nest.shared].iter().zip(&at) {
                coords[dim] = Some(Coord::one(at));
            }
            let chunk = nest.chunk.map(|chunk| {
                let chunk = e.i64(chunk as i64);
                e.mul(at[nest.shared], chunk)
            });
            for &root in &roots {
                eval.hoist(e, root, &coords)?;
            }
            for &(result, rank) in &nest.row_results {
                let at: Vec<Coord> = coords[..rank].iter().flatten().copied().collect();
                let node = eval.function.results[result];
                let value = eval.value(e, node, &at)?;
                put(e, eval, (node, pointers[result]), &at, value)?;
            }
            inner(e, eval, nest, nest.shared, coords, (&roots, pointers), chunk)
        });
        Vec::new()
    });
    result
}

/// The loops inside of the shared ones.
fn inner(
    e: &mut Emitter,
    eval: &mut Eval<'_>,
    nest: &Nest,
    depth: usize,
    coords: Vec<Option<Coord>>,
    (roots, pointers): (&[NodeId], &[Val]),
    chunk: Option<Val>,
) -> Result<(), LowerError> {
    let Some(&dim) = nest.order.get(depth) else {
        let at: Vec<Coord> = coords.into_iter().flatten().collect();
        // All loads come before any store: a result may be one of the operands.
        let mut values = Vec::new();
        for &root in roots {
            values.push(eval.value(e, root, &at)?);
        }
        for ((&root, &result), value) in roots.iter().zip(&nest.results).zip(values) {
            put(e, eval, (root, pointers[result]), &at, value)?;
        }
        return Ok(());
    };
    let size = nest.sizes[dim];
    let (mut from, mut to) = (e.i64(0), e.i64(size as i64));
    let end = to;
    let lanes = nest.lanes.filter(|&(other, _)| other == dim).map(|(_, lanes)| lanes);
    if let (Some(start), Some(chunk), Some(_)) = (chunk, nest.chunk, lanes) {
        let chunk = e.i64(chunk as i64);
        from = start;
        let stop = e.add(start, chunk);
        to = e.min_int(stop, to);
    }
    let mut result = Ok(());
    e.for_each((from, to, i64::from(lanes.unwrap_or(1))), &[], |e, index, _| {
        result = eval.scope(|eval| {
            let mut coords = coords.clone();
            coords[dim] = Some(match lanes {
                None => Coord::One { at: index, multiple: 1 },
                Some(lanes) => {
                    eval.lanes = lanes;
                    eval.mask = (!size.is_multiple_of(u64::from(lanes))).then(|| {
                        let left = e.sub(end, index);
                        e.first_lanes(left, lanes)
                    });
                    Coord::Run { first: index, step: 1, multiple: u64::from(lanes) }
                }
            });
            if depth + 1 < nest.order.len() {
                for &root in roots {
                    eval.hoist(e, root, &coords)?;
                }
            }
            let done = inner(e, eval, nest, depth + 1, coords, (roots, pointers), chunk);
            if lanes.is_some() {
                (eval.lanes, eval.mask) = (0, None);
            }
            done
        });
        Vec::new()
    });
    result
}

/// Stores one element, or one run.
fn put(
    e: &mut Emitter,
    eval: &Eval<'_>,
    (node, base): (NodeId, Val),
    at: &[Coord],
    value: Val,
) -> Result<(), LowerError> {
    let ty = eval.ty(node)?;
    let sizes: Vec<u64> = ty.dims.iter().map(|dim| dim.size as u64).collect();
    let elem = stored(ty.dtype);
    match coord::ravel(e, at, &sizes) {
        Coord::One { at, .. } => {
            let at = e.at(base, elem, at);
            store(e, value, at, ty.dtype, None);
        }
        Coord::Run { first, step: 1, .. } => {
            let value = widen(e, value, eval.lanes);
            let at = e.at(base, elem, first);
            store(e, value, at, ty.dtype, eval.mask);
        }
        other => {
            let value = widen(e, value, eval.lanes);
            let value = if value.ty.elem == Elem::I1 { e.extend_unsigned(value, Elem::I8) } else { value };
            let indices = coord::lanes(e, other, eval.lanes);
            let pointers = e.pointers(base, elem, indices);
            let mask = eval.mask.unwrap_or_else(|| e.int(Ty::vector(Elem::I1, eval.lanes), 1));
            e.scatter(value, pointers, elem, mask);
        }
    }
    Ok(())
}

/// Results that may overwrite a parameter: elementwise kernels of one shape read each element just before they write it.
/// The nearest parameter is chosen, which of an optimiser's results is what each updates.
fn in_place(function: &Function) -> Vec<(usize, usize)> {
    let live = function.live();
    let Some(shape) = function.results.first().and_then(|&result| function.ty(result).tensor()) else {
        return Vec::new();
    };
    let plain = function.nodes.iter().filter(|(id, _)| live[id.index()]).all(|(id, node)| {
        let same = function.ty(id).tensor().is_some_and(|ty| ty.dims == shape.dims || ty.rank() == 0);
        match &node.inst {
            Inst::Param(_) => true,
            Inst::Op(op) => same && matches!(op.class(), ir::Class::Elementwise | ir::Class::Source),
            _ => false,
        }
    });
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    if !plain {
        return pairs;
    }
    for (r, result) in function.result_types().enumerate() {
        let steps = steps_from(function, function.results[r]);
        let fits = |(p, ty): &(usize, &ir::Type)| *ty == result && !pairs.iter().any(|pair| pair.0 == *p);
        let far = |(p, _): &(usize, &ir::Type)| steps.get(&function.params[*p]).copied().unwrap_or(usize::MAX);
        if let Some((p, _)) = function.param_types().enumerate().filter(fits).min_by_key(far) {
            pairs.push((p, r));
        }
    }
    pairs
}

/// How many operators lie between `result` and each node that it reads, at the least.
fn steps_from(function: &Function, result: NodeId) -> BTreeMap<NodeId, usize> {
    let mut steps = BTreeMap::from([(result, 0)]);
    // Operands come before what reads them.
    for (id, node) in function.nodes.iter().rev() {
        let Some(&here) = steps.get(&id) else { continue };
        for &arg in &node.args {
            let arg = steps.entry(arg).or_insert(usize::MAX);
            *arg = (*arg).min(here + 1);
        }
    }
    steps
}
