//! The recorder: a stack of functions being built, and what each of them takes from outside when it is closed.

use std::rc::Rc;

use diag::{Diagnostic, PlaceId, Span};
use ir::{Arena, Array, Builder, Class, Function, Id, Inst, Mismatch, Module, Node, NodeId, Op, Type};
use rustc_hash::FxHashMap;
use types::{DType, Distribution, GROUPS, MAX_ELEMENTS, MAX_FLOP, Name, SizeError, TensorType};

use crate::tables;
use crate::value::{Leaf, Operand, Source};

#[derive(Default)]
pub struct Tracer {
    pub module: Module,
    pub frames: Vec<Frame>,
    pub feeds: Vec<FeedDeclaration>,
    /// Where dims of size 0 are declared.
    pub empty_dims: FxHashMap<Name, Span>,
    /// Tables with elements that are no numbers, and where those came up.
    nans: Vec<(Rc<Array>, Span)>,
    /// Values that are changed in place, and where: they must not be read any more.
    stale: Vec<(Source, Span)>,
    /// Whose method the next call runs, if modules are marked.
    pub callee: Option<Name>,
    next_frame: u32,
}

impl FeedDeclaration {
    /// The name in the program: a family's has braces for the number.
    pub fn full_name(&self) -> Name {
        self.count.map_or_else(|| self.name.clone(), |_| Name::from(format!("{}.{{}}", self.name)))
    }

    pub fn full_type(&self) -> Type {
        match self.count {
            Some(count) => Type::Stack { count, of: self.ty.clone() },
            None => Type::Tensor(self.ty.clone()),
        }
    }
}

pub struct FeedDeclaration {
    pub name: Name,
    pub ty: TensorType,
    pub draw: Option<Distribution>,
    /// A state of the program instead of a feed.
    pub state: bool,
    /// Of a family, how many there are.
    pub count: Option<usize>,
}

/// A function being built.
pub struct Frame {
    pub id: u32,
    repeated: bool,
    builder: Builder,
    /// Values from outside that became parameters.
    captures: Vec<(Source, NodeId)>,
    /// By the address of the array, which is kept with it.
    constants: FxHashMap<*const Array, (Rc<Array>, NodeId)>,
    casts: FxHashMap<(NodeId, DType), NodeId>,
    /// Where modules compute in it, if that is asked for.
    marks: Vec<Mark>,
}

/// A finished function, and what its parameters are outside.
pub struct Closed {
    pub function: Function,
    pub captures: Vec<Source>,
    pub marks: Vec<Mark>,
}

/// Where a module computes in a function.
#[derive(Clone, Debug)]
pub struct Mark {
    pub node: NodeId,
    pub what: Marked,
    /// Where the module stands in the model while the function is traced; afterwards, seen from the function's own module.
    pub path: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// The node is the module's output.
    Output,
    /// The node is a call of a method of the module.
    Call,
}

/// Where a node is recorded: its expression, and the calls that led there.
#[derive(Clone, Copy)]
pub struct Site {
    pub span: Span,
    pub caller: PlaceId,
}

impl Tracer {
    /// Opens a function; the number is that of its `Source::Node` and `Source::Arg`. One that is `repeated` takes
    /// tables from outside, so that there is one of each.
    pub fn open(&mut self, repeated: bool) -> u32 {
        let id = self.next_frame;
        self.next_frame += 1;
        let builder = Builder::new("");
        let (constants, casts) = (FxHashMap::default(), FxHashMap::default());
        self.frames.push(Frame { id, repeated, builder, captures: vec![], constants, casts, marks: vec![] });
        id
    }

    /// Marks what a module computed in the innermost function.
    pub fn mark(&mut self, leaf: &Leaf, path: Name) {
        if let (Source::Node(id, node), Some(frame)) = (&leaf.source, self.frames.last_mut())
            && *id == frame.id
        {
            frame.marks.push(Mark { node: *node, what: Marked::Output, path });
        }
    }

    fn frame(&mut self) -> Result<&mut Frame, Diagnostic> {
        self.frames.last_mut().ok_or_else(|| {
            Diagnostic::error("a tensor is computed outside of a task").help("compute it in the task's function")
        })
    }

    /// Records an operator with one result.
    pub fn op(&mut self, op: impl Into<Op>, operands: &[Operand<'_>], site: Site) -> Result<Leaf, Diagnostic> {
        let mut results = self.ops(op, operands, site)?;
        results.pop().ok_or_else(|| Diagnostic::error("an operator without a result").at(site.span, ""))
    }

    /// The operator that made a value of the innermost function, and its operands; of one with several results, the first's.
    pub fn maker(&self, leaf: &Leaf) -> Option<(Op, Vec<Leaf>)> {
        let frame = self.frames.last()?;
        let Source::Node(id, mut node) = leaf.source else { return None };
        if id != frame.id {
            return None;
        }
        let nodes = &frame.builder.function.nodes;
        if matches!(nodes[node].inst, Inst::Get(0)) {
            node = nodes[node].args[0];
        }
        let Inst::Op(op) = &nodes[node].inst else { return None };
        let leaf = |arg: &NodeId| Leaf { ty: nodes[*arg].ty.clone(), source: Source::Node(id, *arg) };
        Some((op.clone(), nodes[node].args.iter().map(leaf).collect()))
    }

    pub fn ops(&mut self, op: impl Into<Op>, operands: &[Operand<'_>], site: Site) -> Result<Vec<Leaf>, Diagnostic> {
        let op = op.into();
        let explain = |mismatch: Mismatch| explain(&op, mismatch, operands, site);
        let types: Vec<&TensorType> = operands.iter().map(|o| o.leaf.tensor()).collect();
        let results = op.infer(&types).map_err(explain)?;
        results.iter().try_for_each(|ty| self.check_size(ty, site.span))?;
        if op.class() == Class::Elementwise && results[0].position(GROUPS).is_some_and(|at| at > 0) {
            let wide = self.in_all_groups(operands, site)?;
            let wide: Vec<Operand<'_>> =
                wide.iter().zip(operands).map(|(leaf, o)| Operand { leaf, span: o.span }).collect();
            return self.ops(op, &wide, site);
        }
        // A gradient takes up to two and a half times what its operator does.
        if op.flops(&types, &results) > MAX_FLOP / 4 {
            return Err(too_much_work(&op, operands, site));
        }
        if let Some(array) = tables::fold(&op, operands, &results) {
            let array = Rc::new(array);
            self.note_nan(&array, operands, site.span);
            return Ok(vec![Leaf::new(array.ty.clone(), Source::Const(array))]);
        }
        let mut ids = vec![];
        for operand in operands {
            ids.push(self.node(operand.leaf, operand.span)?);
        }
        let place = self.module.places.add(site.span, site.caller);
        let frame = self.frame()?;
        let cast = match &op {
            Op::Cast(cast) => Some(cast.to),
            _ => None,
        };
        if let Some(to) = cast
            && let Some(known) = frame.casts.get(&(ids[0], to))
        {
            return Ok(vec![Leaf::new(results[0].clone(), Source::Node(frame.id, *known))]);
        }
        frame.builder.place = place;
        let id = frame.builder.try_op(op.clone(), &ids).map_err(explain)?;
        if let Some(to) = cast {
            frame.casts.insert((ids[0], to), id);
        }
        let ids = frame.builder.results(id);
        let leaf = |id: NodeId| Leaf { ty: frame.builder.function.ty(id).clone(), source: Source::Node(frame.id, id) };
        Ok(ids.into_iter().map(leaf).collect())
    }

    /// The tensor with the dim of data groups first, if it has one.
    pub fn groups_first(&mut self, x: Operand<'_>, site: Site) -> Result<Leaf, Diagnostic> {
        let ty = x.leaf.tensor();
        let Some(at) = ty.position(GROUPS).filter(|at| *at > 0) else { return Ok(x.leaf.clone()) };
        let mut order: Vec<Name> = ty.dims.iter().map(|d| d.name.clone()).collect();
        order[..=at].rotate_right(1);
        self.op(ir::ops::Transpose { order }, &[x], site)
    }

    /// Operands with the dim of data groups first in each, if one has it; numbers stay as they are.
    pub fn in_all_groups(&mut self, operands: &[Operand<'_>], site: Site) -> Result<Vec<Leaf>, Diagnostic> {
        let groups = operands.iter().find_map(|o| o.leaf.tensor().dims.iter().find(|d| d.name == *GROUPS).cloned());
        let wide = |operand: &Operand<'_>| match (&groups, operand.leaf.tensor()) {
            (Some(groups), ty) if ty.rank() > 0 && ty.position(GROUPS).is_none() => {
                let dims = [groups].into_iter().chain(&ty.dims).cloned().collect();
                self.op(ir::ops::Broadcast { dims }, &[*operand], site)
            }
            _ => self.groups_first(*operand, site),
        };
        operands.iter().map(wide).collect()
    }

    /// Keeps where elements that are no numbers come up. They may vanish in what is computed of the table, so it is refused
    /// where the program reads it.
    fn note_nan(&mut self, array: &Rc<Array>, operands: &[Operand<'_>], at: Span) {
        if !array.data.iter().any(|x| x.is_nan()) {
            return;
        }
        let known = operands.iter().find_map(|operand| self.nan_made(&operand.leaf.source));
        self.nans.push((array.clone(), known.unwrap_or(at)));
    }

    /// From here on `leaf` is not what it was.
    pub fn note_changed(&mut self, leaf: &Leaf, at: Span) {
        self.stale.push((leaf.source.clone(), at));
    }

    fn nan_made(&self, source: &Source) -> Option<Span> {
        let Source::Const(array) = source else { return None };
        self.nans.iter().find(|(nan, _)| Rc::ptr_eq(nan, array)).map(|(_, made)| *made)
    }

    /// The structural instructions: `chunk` and its kin.
    pub fn structure(
        &mut self,
        operand: Operand<'_>,
        site: Site,
        build: impl FnOnce(&mut Builder, NodeId) -> NodeId,
    ) -> Result<Leaf, Diagnostic> {
        let id = self.node(operand.leaf, operand.span)?;
        let place = self.module.places.add(site.span, site.caller);
        let frame = self.frame()?;
        frame.builder.place = place;
        let id = build(&mut frame.builder, id);
        Ok(Leaf { ty: frame.builder.function.ty(id).clone(), source: Source::Node(frame.id, id) })
    }

    /// The node of the innermost function that holds this value; a parameter is added if it comes from outside.
    pub fn node(&mut self, leaf: &Leaf, span: Span) -> Result<NodeId, Diagnostic> {
        if let Some((_, written)) = self.stale.iter().find(|(source, _)| *source == leaf.source) {
            return Err(Diagnostic::error("this is a state as it was before something was written to it")
                .at(span, "read here")
                .at(*written, "written here, in place")
                .help("read what `write` gives instead, or read this before"));
        }
        let place = self.module.places.add(span, PlaceId::NONE);
        let made = self.nan_made(&leaf.source);
        let frame = self.frame()?;
        match &leaf.source {
            Source::Node(id, node) if *id == frame.id => Ok(*node),
            Source::Const(array) if !frame.repeated || array.ty.rank() == 0 => {
                if let Some((_, node)) = frame.constants.get(&Rc::as_ptr(array)) {
                    return Ok(*node);
                }
                frame.builder.place = place;
                let node = tables::record(&mut frame.builder, array, span, made)?;
                frame.constants.insert(Rc::as_ptr(array), (array.clone(), node));
                Ok(node)
            }
            Source::Unplaced => Err(Diagnostic::error("this parameter is not part of the model")
                .at(span, "used here")
                .help("a module's parameters exist once the module is a field of the model that the task takes")),
            source => {
                if let Some((_, node)) = frame.captures.iter().find(|(s, _)| s == source) {
                    return Ok(*node);
                }
                frame.builder.place = place;
                let node = frame.builder.param(leaf.ty.clone());
                frame.captures.push((source.clone(), node));
                Ok(node)
            }
        }
    }

    /// Closes the innermost function; its parameters stand in the order of `key`.
    pub fn close<K: Ord>(
        &mut self,
        name: &str,
        results: &[(Leaf, Span)],
        key: impl Fn(&Module, &Source) -> K,
    ) -> Result<Closed, Diagnostic> {
        let mut nodes = vec![];
        for (leaf, span) in results {
            nodes.push(self.node(leaf, *span)?);
        }
        let Some(mut frame) = self.frames.pop() else { return Err(Diagnostic::error("no function is open")) };
        frame.captures.sort_by_key(|(source, _)| key(&self.module, source));
        let params: Vec<NodeId> = frame.captures.iter().map(|(_, node)| *node).collect();
        let function = frame.builder.finish().map_err(|m| Diagnostic::error(m.message))?;
        let (mut function, map) = compact(&function, &params, &nodes);
        function.name = self.module.fresh_name(name);
        let kept = |mark: Mark| map[mark.node.index()].map(|node| Mark { node, ..mark });
        let marks = frame.marks.into_iter().filter_map(kept).collect();
        Ok(Closed { function, captures: frame.captures.into_iter().map(|(s, _)| s).collect(), marks })
    }

    /// Drops the innermost function. Its nodes must not be used any more.
    pub fn abandon(&mut self) {
        self.frames.pop();
    }

    /// Records a call of a finished function; results as leaves.
    pub fn call(&mut self, call: ir::Call, operands: &[(Leaf, Span)], site: Site) -> Result<Vec<Leaf>, Diagnostic> {
        let mut ids = vec![];
        for (leaf, span) in operands {
            ids.push(self.node(leaf, *span)?);
        }
        let place = self.module.places.add(site.span, site.caller);
        let Some(callee) = self.module.functions.get(call.callee) else {
            return Err(Diagnostic::error("a call of no function").at(site.span, ""));
        };
        let Some(frame) = self.frames.last_mut() else {
            return Err(Diagnostic::error("a call outside of a task").at(site.span, ""));
        };
        frame.builder.place = place;
        let id = frame
            .builder
            .try_call(call, callee, &ids)
            .map_err(|m| Diagnostic::error(m.message).at(site.span, "in this call"))?;
        if let Some(path) = self.callee.take() {
            frame.marks.push(Mark { node: id, what: Marked::Call, path });
        }
        let ids = frame.builder.results(id);
        let leaf = |id: NodeId| Leaf { ty: frame.builder.function.ty(id).clone(), source: Source::Node(frame.id, id) };
        Ok(ids.into_iter().map(leaf).collect())
    }

    /// That a tensor has elements, and not too many; `span` is what makes it.
    pub fn check_size(&self, ty: &TensorType, span: Span) -> Result<(), Diagnostic> {
        let error = match ty.check_size(MAX_ELEMENTS) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let said = Diagnostic::error(error.to_string()).at(span, "made here");
        Err(match &error {
            SizeError::Empty { dim, .. } => {
                let declared = self.empty_dims.get(dim);
                let said = declared.iter().fold(said, |said, at| said.at(**at, "0 under these settings"));
                said.help(format!("give {dim} another size, or leave the tensor out: `if {dim} > 0 {{ .. }}`"))
            }
            SizeError::TooLarge { .. } => {
                let largest = ty.dims.iter().max_by_key(|d| d.size);
                let named = largest.map_or(String::new(), |dim| format!(": {} is {}", dim.name, dim.size));
                said.help(format!("make its dims smaller{named}"))
            }
        })
    }

    pub fn add_function(&mut self, function: Function) -> Id<Function> {
        self.module.functions.add(function)
    }
}

/// The function with `params` first and without nodes that no result needs; and what became of each node.
fn compact(old: &Function, params: &[NodeId], results: &[NodeId]) -> (Function, Vec<Option<NodeId>>) {
    let mut live = vec![false; old.nodes.len()];
    results.iter().for_each(|r| live[r.index()] = true);
    for (id, node) in old.nodes.iter().rev() {
        if live[id.index()] {
            node.args.iter().for_each(|a| live[a.index()] = true);
        }
    }
    let mut map: Vec<Option<NodeId>> = vec![None; old.nodes.len()];
    let mut nodes = Arena::default();
    for (i, &p) in params.iter().enumerate() {
        let node = &old.nodes[p];
        map[p.index()] = Some(nodes.add(Node { inst: Inst::Param(i), ..node.clone() }));
    }
    for (id, node) in old.nodes.iter() {
        if live[id.index()] && map[id.index()].is_none() {
            let args = node.args.iter().filter_map(|a| map[a.index()]).collect();
            map[id.index()] = Some(nodes.add(Node { args, ..node.clone() }));
        }
    }
    let at = |old: &NodeId| map[old.index()];
    let function = Function {
        nodes,
        params: params.iter().filter_map(at).collect(),
        results: results.iter().filter_map(at).collect(),
        ..Function::default()
    };
    (function, map)
}

/// An operator on tensors that each are small enough.
fn too_much_work(op: &Op, operands: &[Operand<'_>], site: Site) -> Diagnostic {
    let message = format!("this `{}` takes more than 2^{} FLOP", op.name(), (MAX_FLOP / 4).ilog2());
    let error = Diagnostic::error(message).at(site.span, "");
    let error = operands.iter().take(2).fold(error, |error, o| error.at(o.span, format!("this is `{}`", o.leaf.ty)));
    error.help("make its dims smaller")
}

/// An operator's refusal, drawn at the operands it blames.
fn explain(op: &Op, mismatch: Mismatch, operands: &[Operand<'_>], site: Site) -> Diagnostic {
    let mut out = Diagnostic::error(mismatch.message).at(site.span, format!("in this `{}`", op.name()));
    for &i in &mismatch.operands {
        let Some(operand) = operands.get(i) else { continue };
        out = out.at(operand.span, format!("this is `{}`", operand.leaf.ty));
    }
    match mismatch.help {
        Some(help) => out.help(help),
        None => out,
    }
}

/// The same tensor type, in a stack if `like` is one.
pub fn in_place_of(like: &Type, of: TensorType) -> Type {
    match like {
        Type::Stack { count, .. } => Type::Stack { count: *count, of },
        _ => Type::Tensor(of),
    }
}
