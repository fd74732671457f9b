//! `unroll`: writes the programs of a module out. Every call becomes launches, every value a slice of a buffer.
//!
//! Views and stacks become slices, repeated calls are written once for each turn. What comes out runs on one rank that
//! holds all parameters; `stages` parts it among the ranks of a pipeline.

mod kernels;
mod layouts;
mod persistent;
mod phases;
mod places;

use std::sync::Arc;

use diag::{Diagnostic, Diagnostics, PlaceId as GraphPlace, Sources};
use ir::{
    Call, Class, Collective, Function, FunctionKind, Id, Input, Inst, Logical, Module, NodeId, Output, PartialKind,
    Program,
};
use plan::{
    Buffer, BufferId, BufferKind, Collect, CollectKind, EmitId, FeedId, Kernel, KernelId, Launch, Layout, Life, Op,
    ParameterId, PlaceId, Reduce, ReduceKind, Slice, Source, Space, When,
};
use program::{Instruction, Origin, RankModule, RankProgram, Turn, Update};
use rustc_hash::{FxHashMap, FxHashSet};
use target::{KernelFacts, Target};
use types::{DType, Name, TensorType};

use self::kernels::kernel;
use self::layouts::{joined, ungrouped, whole};
use self::persistent::{coordinate, member_name, members, persistent};
use self::places::Places;

pub use self::kernels::kernels;

/// What an instruction says of a collective of so many operands: its kind, the group, and why it is there. None of a
/// coordinate.
pub fn collect_kind(collective: Collective, dtype: DType, operands: usize) -> Option<(CollectKind, Vec<Name>, Name)> {
    let reduce = |kind: PartialKind| Reduce {
        kind: if kind == PartialKind::Max { ReduceKind::Max } else { ReduceKind::Sum },
        dtype,
    };
    Some(match collective {
        Collective::Coordinate(_) => return None,
        Collective::AllReduce { kind, axes, why } => (CollectKind::AllReduce(reduce(kind)), axes, why),
        Collective::AllGather { axes, why } => (CollectKind::AllGather, axes, why),
        Collective::ReduceScatter { axes, why } => (CollectKind::ReduceScatter(reduce(PartialKind::Sum)), axes, why),
        Collective::AllToAll { axes, why } => (CollectKind::AllToAll, axes, why),
        Collective::Permute { axes, shift, why } => (CollectKind::Permute { shifts: vec![shift; operands] }, axes, why),
    })
}

/// Where a value lies.
#[derive(Clone, Debug)]
enum Storage {
    Slice(Slice),
    Stack(Vec<Slice>),
    Tuple(Vec<Storage>),
}

/// The programs of a module of kernel calls, each as one rank runs it that holds everything.
pub fn unroll(module: &Module, sources: &Sources, target: &dyn Target) -> Result<RankModule, Diagnostics> {
    let alignment = target.alignment();
    let facts: Vec<KernelFacts> = kernels(module).map(|(_, k)| target.describe(k)).collect();
    let kernels: Arc<[Kernel]> = kernels(module).zip(&facts).map(|((_, k), facts)| kernel(k, facts)).collect();
    let (persistent, owner, manifest) = persistent(module, alignment);
    let mut programs = vec![];
    for program in &module.programs {
        let mut unrolled = self::program(module, sources, program, (&kernels, &facts), &persistent)?;
        unrolled.ranks.iter_mut().for_each(|rank| rank.owner.clone_from(&owner));
        programs.push(unrolled);
    }
    let (mesh, residencies) = (module.mesh.clone(), vec![]);
    Ok(RankModule { mesh, alignment, is_pipeline: false, kernels, manifest, residencies, programs })
}

fn program(
    module: &Module,
    sources: &Sources,
    program: &Program,
    (kernels, facts): (&Arc<[Kernel]>, &[KernelFacts]),
    persistent: &[Buffer],
) -> Result<program::Program, Diagnostics> {
    let homes = persistent.iter().enumerate().map(|(i, b)| (b.name.clone(), i)).collect();
    let mut u = Unroller {
        module,
        facts,
        persistent: persistent.len(),
        homes,
        feeds: vec![],
        emits: vec![],
        emit_ids: FxHashMap::default(),
        places: Places::new(module, sources),
        collectives: 0,
        buffers: persistent.to_vec(),
        instructions: vec![],
        turns: vec![Turn { at: 0, is_block: true, unit: None }],
        depth: 0,
        in_block: false,
        blocks: vec![],
        origin: Origin::at(PlaceId::new(0)),
    };
    let function = &module.functions[program.function];
    let mut args = vec![];
    for (i, (input, &param)) in program.inputs.iter().zip(&function.params).enumerate() {
        args.push(u.input(input, function, param, program.logical.get(i))?);
    }
    let results = u.function(function, &args)?;
    let mut updates = vec![];
    let results = results.into_iter().zip(&function.results).enumerate();
    for (output, (i, (storage, &node))) in program.outputs.iter().zip(results) {
        let logical = program.logical.get(program.inputs.len() + i);
        u.output(output, storage, (function, node), logical, &mut updates)?;
    }
    let Program { name, runs, .. } = program;
    let mut program = RankProgram {
        kernels: kernels.clone(),
        buffers: u.buffers,
        persistent: persistent.len(),
        held: vec![true; persistent.len()],
        instructions: u.instructions,
        turns: u.turns,
        blocks: u.blocks,
        updates,
        collectives: u.collectives,
        places: u.places.table.into(),
        ..RankProgram::default()
    };
    let begin = program.instructions.iter().position(|i| i.origin.microbatch.is_some()).unwrap_or(0);
    let before = program.instructions[..begin].iter().flat_map(|i| program.touches(i));
    program.once = before.filter(|(_, access)| access.writes()).map(|(slice, _)| slice.buffer).collect();
    drop_unread_feeds(&mut program);
    number_sites(&mut program);
    phases::set(&mut program, &u.emits);
    Ok(program::Program {
        name: name.clone(),
        runs: *runs,
        residency: None,
        feeds: u.feeds,
        emits: u.emits,
        collectives: program.collectives,
        places: program.places.sites().len(),
        ranks: vec![program],
    })
}

/// Nothing would wait for such a feed, so that its memory could never be used again.
fn drop_unread_feeds(program: &mut RankProgram) {
    let mut read: FxHashSet<BufferId> = program.updates.iter().map(|update| update.value.buffer).collect();
    for instruction in program.instructions.iter().filter(|i| !matches!(i.op, Op::Feed { .. })) {
        read.extend(program.touches(instruction).map(|(slice, _)| slice.buffer));
    }
    let is_read = |i: &Instruction| match &i.op {
        Op::Feed { to, .. } => read.contains(&to.buffer),
        _ => true,
    };
    let mut kept = 0;
    let mut before = Vec::with_capacity(program.instructions.len());
    for instruction in &program.instructions {
        before.push(kept);
        kept += usize::from(is_read(instruction));
    }
    for turn in &mut program.turns {
        turn.at = before.get(turn.at).copied().unwrap_or(kept);
    }
    program.instructions.retain(is_read);
}

/// Instructions that do the same for different micro-batches get one number.
fn number_sites(program: &mut RankProgram) {
    let (mut microbatch, mut at, count) = (None, 0, program.instructions.len());
    for (i, instruction) in program.instructions.iter_mut().enumerate() {
        if instruction.origin.microbatch != microbatch {
            (microbatch, at) = (instruction.origin.microbatch, 0);
        }
        at += 1;
        instruction.origin.site = if microbatch.is_some() { at } else { (count + i) as u32 };
    }
}

struct Unroller<'a> {
    module: &'a Module,
    /// By kernel.
    facts: &'a [KernelFacts],
    /// Number of persistent buffers.
    persistent: usize,
    /// Persistent buffers by name.
    homes: FxHashMap<Name, usize>,
    feeds: Vec<plan::Feed>,
    emits: Vec<plan::Emit>,
    emit_ids: FxHashMap<Name, usize>,
    places: Places<'a>,
    /// Number of collectives so far.
    collectives: u32,
    /// Persistent ones first.
    buffers: Vec<Buffer>,
    instructions: Vec<Instruction>,
    turns: Vec<Turn>,
    /// How many repeated calls this is inside of.
    depth: usize,
    /// Whether this is a turn that is a block, to which calls inside it belong.
    in_block: bool,
    blocks: Vec<Vec<BufferId>>,
    /// Of what is written out now.
    origin: Origin,
}

impl Unroller<'_> {
    fn buffer(&mut self, name: Name, kind: BufferKind, bytes: u64, ty: Option<Arc<TensorType>>) -> Slice {
        // A tensor without elements still needs an address.
        let bytes = bytes.max(1);
        self.buffers.push(Buffer {
            name,
            kind,
            space: Space::Device,
            offset: 0,
            bytes,
            ty,
            life: Life::Span { first: 0, last: 0 },
        });
        Slice::whole(BufferId::new(self.buffers.len() - 1), bytes)
    }

    fn tensor(&mut self, name: &str, kind: BufferKind, ty: &TensorType) -> Slice {
        self.buffer(name.into(), kind, ty.bytes() as u64, Some(ty.clone().into()))
    }

    /// Turns inside a block are part of it.
    fn begin_turn(&mut self, is_block: bool) {
        if is_block || (self.depth == 1 && !self.in_block) {
            self.turns.push(Turn { at: self.instructions.len(), is_block, unit: None });
        }
    }

    fn push(&mut self, op: Op, place: GraphPlace, what: &str) {
        let place = self.places.add(place, what);
        self.instructions.push(Instruction::new(op, Origin { place, ..self.origin }));
    }

    fn input(
        &mut self,
        input: &Input,
        function: &Function,
        param: NodeId,
        logical: Option<&Logical>,
    ) -> Result<Storage, Diagnostics> {
        let ty = function.ty(param);
        match input {
            Input::Parameter(name) | Input::State(name) => {
                let mut slices = vec![];
                for (member, _, of) in members(name, ty) {
                    slices.push(Slice { bytes: of.bytes() as u64, ..self.persistent_slice(&member)? });
                }
                Ok(match ty {
                    ir::Type::Stack { .. } => Storage::Stack(slices),
                    _ => Storage::Slice(
                        slices.pop().ok_or_else(|| Diagnostic::internal("a parameter without a tensor"))?,
                    ),
                })
            }
            Input::Feed(feed) => {
                let part =
                    ty.element().ok_or_else(|| Diagnostic::internal(format!("feed `{}` is no tensor", feed.name)))?;
                let parts = ty.count();
                let ragged = &self.module.ragged;
                let data = feed.indices.map_or(Source::Data, Source::Indices);
                let source = feed.draw.map_or(data, Source::Draw);
                let (of, layout) = whole(part, logical);
                let place = function.nodes[param].place;
                let cut = || {
                    let error = Diagnostic::error(format!("`{}` is cut along the samples of a data group", feed.name))
                        .help("cut samples over dp and fsdp alone, or leave ragged axes out of `dims!`");
                    crate::diagnostics::at(self.module, place, error)
                };
                let (of, layout) = ungrouped(joined(&of, parts), layout, ragged).ok_or_else(cut)?;
                let (ty, _) = ungrouped(joined(part, parts), Layout::whole(), ragged).ok_or_else(cut)?;
                let name = feed.name.clone();
                let known = self.feeds.iter().position(|f| f.name == name);
                let id = known.unwrap_or_else(|| {
                    let aliases = feed.aliases.clone();
                    self.feeds.push(plan::Feed { name, aliases, ty: of, layout, source });
                    self.feeds.len() - 1
                });
                let to = self.tensor(&feed.name, BufferKind::Feed, &ty);
                let what = format!("feed {}", feed.name);
                self.push(Op::Feed { feed: FeedId::new(id), to }, function.nodes[param].place, &what);
                if let ir::Type::Tensor(_) = function.ty(param) {
                    return Ok(Storage::Slice(to));
                }
                let bytes = part.bytes() as u64;
                let piece = |i| Slice { offset: to.offset + i as u64 * bytes, bytes, ..to };
                Ok(Storage::Stack((0..parts).map(piece).collect()))
            }
        }
    }

    fn persistent_slice(&self, name: &str) -> Result<Slice, Diagnostics> {
        let at = *self.homes.get(name).ok_or_else(|| Diagnostic::internal(format!("`{name}` has no buffer")))?;
        Ok(Slice::whole(BufferId::new(at), self.buffers[at].bytes))
    }

    fn output(
        &mut self,
        output: &Output,
        storage: Storage,
        (function, node): (&Function, NodeId),
        logical: Option<&Logical>,
        updates: &mut Vec<Update>,
    ) -> Result<(), Diagnostics> {
        let (ty, place) = (function.ty(node), function.nodes[node].place);
        let slices = match storage {
            Storage::Slice(slice) => vec![slice],
            Storage::Stack(slices) => slices,
            Storage::Tuple(_) => return Err(Diagnostic::internal("a program's result is a tuple").into()),
        };
        let (name, group) = match output {
            Output::Parameter(name) | Output::State(name) => {
                for ((member, _, _), slice) in members(name, ty).zip(slices) {
                    updates.push(Update { value: slice, home: self.persistent_slice(&member)?.buffer });
                }
                return Ok(());
            }
            Output::Gradient(of) => (Name::from(format!("grad/{of}")), When::OnRequest("grads".into())),
            Output::Probe(path) => (Name::from(format!("probe/{path}")), When::OnRequest("probes".into())),
            Output::Loss(name) | Output::Emit(name) => (name.clone(), When::Always),
        };
        for ((member, i, part), from) in members(&name, ty).zip(slices) {
            let parameter = if let Output::Gradient(of) = output { self.homes.get(&member_name(of, i)) } else { None };
            let of = parameter.map(|&home| ParameterId::new(home));
            if let Some(buffer) = self.own(from.buffer)
                && of.is_some()
            {
                buffer.kind = BufferKind::Gradient;
                buffer.name = member.clone();
            }
            let id = *self.emit_ids.entry(member.clone()).or_insert_with(|| {
                let ((ty, layout), when) = (whole(part, logical), group.clone());
                self.emits.push(plan::Emit { name: member.clone(), of, ty, layout, when });
                self.emits.len() - 1
            });
            self.push(Op::Emit { emit: EmitId::new(id), from }, place, &format!("emit {member}"));
        }
        Ok(())
    }

    fn own(&mut self, id: BufferId) -> Option<&mut Buffer> {
        self.buffers.get_mut(id.index()).filter(|buffer| !buffer.is_persistent())
    }

    fn function(&mut self, function: &Function, args: &[Storage]) -> Result<Vec<Storage>, Diagnostics> {
        let live = function.live();
        let mut values: Vec<Option<Storage>> = vec![None; function.nodes.len()];
        for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()]) {
            let value = match &node.inst {
                Inst::Param(i) => args[*i].clone(),
                inst => {
                    let operands: Option<Vec<&Storage>> =
                        node.args.iter().map(|a| values[a.index()].as_ref()).collect();
                    let operands = operands
                        .ok_or_else(|| Diagnostic::internal(format!("{id} reads a value that is not there")))?;
                    self.node(function, id, inst, &operands)?
                }
            };
            values[id.index()] = Some(value);
        }
        let results: Option<Vec<Storage>> = function.results.iter().map(|r| values[r.index()].clone()).collect();
        results
            .ok_or_else(|| Diagnostic::internal(format!("@{} returns a value that is not there", function.name)).into())
    }

    fn node(
        &mut self,
        function: &Function,
        id: NodeId,
        inst: &Inst,
        operands: &[&Storage],
    ) -> Result<Storage, Diagnostics> {
        let node = &function.nodes[id];
        Ok(match (inst, operands) {
            (Inst::Get(i), [Storage::Tuple(items)]) => {
                items.get(*i).cloned().ok_or_else(|| Diagnostic::internal("`get` past the end"))?
            }
            (Inst::Get(i), [Storage::Stack(items)]) => {
                Storage::Slice(*items.get(*i).ok_or_else(|| Diagnostic::internal("`get` past the end of a stack"))?)
            }
            (Inst::Call(call), _) => {
                let mut results = if self.module.functions[call.callee].kind == FunctionKind::Kernel {
                    self.launch(call.callee, operands, node.place)?
                } else {
                    self.repeat(call, operands)?
                };
                if matches!(node.ty, ir::Type::Tuple(_)) { Storage::Tuple(results) } else { results.remove(0) }
            }
            (Inst::Chunk { count }, [Storage::Slice(whole)]) => {
                let bytes = whole.bytes / *count as u64;
                let piece = |i| Slice { offset: whole.offset + i as u64 * bytes, bytes, ..*whole };
                Storage::Stack((0..*count).map(piece).collect())
            }
            (Inst::Repeat { count }, [Storage::Slice(one)]) => Storage::Stack(vec![*one; *count]),
            (Inst::Unchunk, [Storage::Stack(pieces)]) => {
                let ty = node.ty.tensor().ok_or_else(|| Diagnostic::internal("`unchunk` makes no tensor"))?;
                self.join(pieces, ty, node.place)
            }
            (Inst::Op(op), [Storage::Slice(slice)]) if op.class() == Class::View => Storage::Slice(*slice),
            (Inst::Op(op), _) if op.class() == Class::Collective => {
                self.collective(op, &node.ty, operands, node.place)?
            }
            (inst, _) => {
                return Err(
                    Diagnostic::internal(format!("{id} ({inst:?}) in @{} is in no kernel", function.name)).into()
                );
            }
        })
    }

    fn collective(
        &mut self,
        op: &ir::Op,
        ty: &ir::Type,
        operands: &[&Storage],
        place: GraphPlace,
    ) -> Result<Storage, Diagnostics> {
        let types: Vec<&TensorType> = ty.tensors().collect();
        let collective = op.collective().ok_or_else(|| Diagnostic::internal("a reshard is left"))?;
        if let Collective::Coordinate(axis) = &collective {
            return Ok(Storage::Slice(Slice { bytes: 8, ..self.persistent_slice(&coordinate(axis))? }));
        }
        let dtype = types.first().map_or(DType::F32, |t| t.dtype);
        let (kind, group, why) = collect_kind(collective, dtype, operands.len())
            .ok_or_else(|| Diagnostic::internal("a coordinate is no exchange"))?;
        let mut from = vec![];
        for operand in operands {
            let Storage::Slice(slice) = operand else {
                return Err(Diagnostic::internal("a collective of something else than tensors").into());
            };
            from.push(*slice);
        }
        let to: Vec<Slice> = types.iter().map(|t| self.tensor(op.name(), BufferKind::Activation, t)).collect();
        let id = self.collectives;
        self.collectives += 1;
        let collect = Collect { id, kind, group, from, to: to.clone(), why };
        self.push(Op::Collect(collect.into()), place, op.name());
        let mut values: Vec<Storage> = to.into_iter().map(Storage::Slice).collect();
        Ok(if matches!(ty, ir::Type::Tuple(_)) { Storage::Tuple(values) } else { values.remove(0) })
    }

    /// The pieces side by side: nothing to do if they are already, else one copy each.
    fn join(&mut self, pieces: &[Slice], ty: &TensorType, place: GraphPlace) -> Storage {
        let side_by_side =
            pieces.windows(2).all(|w| w[0].buffer == w[1].buffer && w[0].offset + w[0].bytes == w[1].offset);
        if let (true, Some(first)) = (side_by_side, pieces.first()) {
            return Storage::Slice(Slice { bytes: ty.bytes() as u64, ..*first });
        }
        let whole = self.tensor("joined", BufferKind::Activation, ty);
        let mut offset = 0;
        for &from in pieces {
            let to = Slice { offset, bytes: from.bytes, ..whole };
            offset += from.bytes;
            self.push(Op::Copy { from, to }, place, "join chunks");
        }
        Storage::Slice(whole)
    }

    fn launch(
        &mut self,
        callee: Id<Function>,
        operands: &[&Storage],
        place: GraphPlace,
    ) -> Result<Vec<Storage>, Diagnostics> {
        let module = self.module;
        let function = &module.functions[callee];
        // Kernels stand first in the module, so a kernel's function id is its kernel id.
        let kernel = KernelId::new(callee.index());
        let mut args = vec![];
        for operand in operands {
            match operand {
                Storage::Slice(slice) => args.push(*slice),
                _ => {
                    return Err(Diagnostic::internal(format!(
                        "kernel @{} reads something that is no tensor",
                        function.name
                    ))
                    .into());
                }
            }
        }
        let facts = &self.facts[kernel.index()];
        let mut results = vec![];
        for (r, ty) in function.result_types().enumerate() {
            let ty = ty.tensor().ok_or_else(|| Diagnostic::internal("a kernel's result is no tensor"))?;
            let slice = self.tensor(&function.name, BufferKind::Activation, ty);
            match facts.overwrites.iter().find(|(_, result)| *result == r) {
                // The old value may be read later; `in-place` drops the copy where it is not.
                Some(&(p, _)) => {
                    self.push(Op::Copy { from: args[p], to: slice }, place, &function.name);
                    args[p] = slice;
                }
                None => args.push(slice),
            }
            results.push(Storage::Slice(slice));
        }
        let workspace = facts.workspace;
        if workspace > 0 {
            args.push(self.buffer(format!("{} scratch", function.name).into(), BufferKind::Workspace, workspace, None));
        }
        self.push(Op::Launch(Launch { kernel, args, scalars: vec![] }), place, &function.name);
        Ok(results)
    }

    fn repeat(&mut self, call: &Call, operands: &[&Storage]) -> Result<Vec<Storage>, Diagnostics> {
        let module = self.module;
        let callee = &module.functions[call.callee];
        let mut args: Vec<Storage> = operands.iter().map(|&o| o.clone()).collect();
        let Some(times) = call.times else { return self.function(callee, &args) };
        let mut stacks: Vec<Vec<Option<Slice>>> = vec![vec![None; times]; callee.results.len() - call.carried];
        let stacked = &operands[(call.carried + call.shared).min(operands.len())..];
        let own = |slice: &Slice| slice.buffer.index() < self.persistent;
        let fed = |slice: &Slice| self.buffers[slice.buffer.index()].kind == BufferKind::Feed;
        let holds = |operand: &&Storage, what: &dyn Fn(&Slice) -> bool| match operand {
            Storage::Stack(items) => items.iter().any(what),
            _ => false,
        };
        let are_blocks = !self.in_block && call.carried > 0 && stacked.iter().any(|o| holds(o, &own));
        let are_microbatches = self.depth == 0 && !stacked.is_empty() && stacked.iter().all(|o| holds(o, &fed));
        self.depth += 1;
        self.in_block |= are_blocks;
        for turn in 0..times {
            self.begin_turn(are_blocks);
            let i = if call.reverse { times - 1 - turn } else { turn };
            for (k, operand) in operands.iter().enumerate().skip(call.carried + call.shared) {
                let Storage::Stack(items) = operand else {
                    return Err(Diagnostic::internal("a repeated call reads no stack").into());
                };
                args[k] = Storage::Slice(*items.get(i).ok_or_else(|| Diagnostic::internal("a stack is too short"))?);
            }
            if are_blocks {
                let members = args[call.carried + call.shared..].iter().filter_map(|arg| match arg {
                    Storage::Slice(slice) if slice.buffer.index() < self.persistent => Some(slice.buffer),
                    _ => None,
                });
                let members = members.collect();
                self.origin.block = Some(self.blocks.len() as u32);
                self.blocks.push(members);
            }
            if are_microbatches {
                self.origin.microbatch = Some(turn as u32);
            }
            let mut results = self.function(callee, &args)?.into_iter();
            for (slot, result) in args.iter_mut().take(call.carried).zip(results.by_ref()) {
                *slot = result;
            }
            for (stack, result) in stacks.iter_mut().zip(results) {
                let Storage::Slice(slice) = result else {
                    return Err(Diagnostic::internal("a stacked result is no tensor").into());
                };
                stack[i] = Some(slice);
            }
        }
        self.begin_turn(are_blocks);
        self.in_block &= !are_blocks;
        self.depth -= 1;
        if are_blocks {
            self.origin.block = None;
        }
        if are_microbatches {
            self.origin.microbatch = None;
        }
        args.truncate(call.carried);
        args.extend(stacks.into_iter().map(|s| Storage::Stack(s.into_iter().flatten().collect())));
        Ok(args)
    }
}
