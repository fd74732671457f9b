//! Reads the text form of modules. Errors carry a byte range, so that they can be shown in the listing.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use diag::{Cursor, Parsed};
use smallvec::SmallVec;
use types::{MAX_PADDED_ELEMENTS, Mesh, Name, Runs, TensorType, TypeParseError};

use super::attributes;
use crate::{
    Builder, Call, DimSharding, Function, FunctionKind, Holds, Inst, Level, Module, Node, NodeId, Parameter,
    PartialKind, Program, Sharding, State, Type,
};

/// Reads a module. The result is well-formed text, not yet a verified module.
pub fn parse(text: &str) -> Parsed<Module> {
    let mut p = Parser { cursor: Cursor::new(text), functions: HashMap::new() };
    let mut module = Module::default();
    if p.eat("module") {
        module.name = p.string()?.into();
    }
    loop {
        if p.at_end() {
            return Ok(module);
        } else if p.eat("mesh") {
            module.mesh = p.mesh()?;
        } else if p.eat("level ") {
            module.level = p.level()?;
        } else if p.eat("hint ") || p.eat("wish ") {
            // Earlier versions wrote `wish`.
            module.hints.push((p.json()?, diag::PlaceId::NONE));
        } else if p.eat("ragged ") {
            module.ragged.push(p.json()?);
        } else if p.eat("param ") {
            let name: Name = p.string()?.into();
            p.expect(":")?;
            let ty = p.ty()?;
            let record = p.json()?;
            module.parameters.insert(name, Parameter { ty, record });
        } else if p.eat("state ") {
            let name: Name = p.string()?.into();
            p.expect(":")?;
            let ty = p.ty()?;
            let init = p.json()?;
            let holds = match () {
                () if p.eat("copy of ") => Some(Holds::Copy),
                () if p.eat("moment of ") => Some(Holds::Moment),
                () => None,
            };
            let of = holds.map(|holds| Ok((holds, p.string()?.into()))).transpose()?;
            module.states.insert(name, State { ty, init, of });
        } else if p.eat("program ") {
            let program = p.program()?;
            module.programs.push(program);
        } else {
            let function = p.function()?;
            let name = function.name.clone();
            let id = module.functions.add(function);
            p.functions.entry(name).or_insert(id);
        }
    }
}

struct Parser<'t> {
    cursor: Cursor<'t>,
    /// The functions so far, by name.
    functions: HashMap<Name, crate::Id<Function>>,
}

impl<'t> Deref for Parser<'t> {
    type Target = Cursor<'t>;

    fn deref(&self) -> &Cursor<'t> {
        &self.cursor
    }
}

impl<'t> DerefMut for Parser<'t> {
    fn deref_mut(&mut self) -> &mut Cursor<'t> {
        &mut self.cursor
    }
}

impl<'t> Parser<'t> {
    /// The name of an operator or an axis.
    fn word(&mut self) -> Parsed<&'t str> {
        self.skip();
        let start = self.at;
        let word = self.take(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '/'));
        if word.is_empty() { self.fail(start, "expected a name") } else { Ok(word) }
    }

    /// The name of a function: all up to a space or a parenthesis.
    fn function_name(&mut self) -> Parsed<&'t str> {
        self.skip();
        let start = self.at;
        let name = self.take(|c| !c.is_whitespace() && c != '(');
        if name.is_empty() { self.fail(start, "expected the name of a function") } else { Ok(name) }
    }

    fn begins(&mut self, with: impl Fn(char) -> bool) -> bool {
        self.skip();
        self.rest().starts_with(with)
    }

    fn string(&mut self) -> Parsed<String> {
        self.json()
    }

    fn mesh(&mut self) -> Parsed<Mesh> {
        self.skip();
        let start = self.at;
        self.expect("[")?;
        let mut axes = vec![];
        while !self.eat("]") {
            let name = self.word()?;
            self.expect(":")?;
            axes.push((name, self.number()?));
            self.eat(",");
        }
        Mesh::new(axes).or_else(|e| self.fail(start, e.to_string()))
    }

    fn level(&mut self) -> Parsed<Level> {
        self.skip();
        let start = self.at;
        match self.word()? {
            "sharded" => Ok(Level::Sharded),
            "local" => Ok(Level::Local),
            _ => self.fail(start, "a level is `sharded` or `local`"),
        }
    }

    fn ty(&mut self) -> Parsed<Type> {
        Ok(self.sharded_ty()?.0)
    }

    /// A tensor, a stack, or a tuple of these; no tuple is inside another. Shardings are none if no tensor has one.
    fn sharded_ty(&mut self) -> Parsed<(Type, SmallVec<[Sharding; 1]>)> {
        let mut shardings = SmallVec::new();
        let ty = if self.eat("(") {
            let mut items = vec![];
            while !self.eat(")") {
                let (item, mut sharding) = self.element_ty()?;
                self.partial(&mut sharding)?;
                items.push(item);
                shardings.push(sharding);
                self.eat(",");
            }
            Type::Tuple(items)
        } else {
            let (ty, sharding) = self.element_ty()?;
            shardings.push(sharding);
            ty
        };
        if shardings.iter().all(|s| *s == Sharding::default()) {
            shardings.clear();
        }
        Ok((ty, shardings))
    }

    fn element_ty(&mut self) -> Parsed<(Type, Sharding)> {
        self.skip();
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            let count = self.number()?;
            self.expect("x")?;
            let (of, sharding) = self.tensor_ty()?;
            return Ok((Type::Stack { count, of }, sharding));
        }
        let (ty, sharding) = self.tensor_ty()?;
        Ok((Type::Tensor(ty), sharding))
    }

    /// `f32[B:4 @dp, L:9 @cp@tp?]`: the type without its cuts is read as usual.
    fn tensor_ty(&mut self) -> Parsed<(TensorType, Sharding)> {
        self.skip();
        let start = self.at;
        let end = self.rest().find(']').map(|i| self.at + i + 1);
        let Some(end) = end else { return self.fail(start, "expected a type like `f32[B:1]`") };
        self.at = end;
        let text = &self.text[start..end];
        let (mut plain, mut dims) = (String::with_capacity(text.len()), SmallVec::new());
        let body = text.find('[').map_or(text.len(), |i| i + 1);
        plain.push_str(&text[..body]);
        for (i, piece) in text[body..].trim_end_matches(']').split(',').enumerate() {
            let cut = piece.find(['@', '?']).unwrap_or(piece.len());
            plain.push_str(if i > 0 { "," } else { "" });
            plain.push_str(&piece[..cut]);
            let (axes, open) = match piece[cut..].trim().strip_suffix('?') {
                Some(axes) => (axes, true),
                None => (piece[cut..].trim(), false),
            };
            let axes = axes.split('@').map(str::trim).filter(|a| !a.is_empty()).map(Name::new).collect();
            dims.push(DimSharding { axes, open });
        }
        plain.push(']');
        let ty: TensorType = plain.parse().or_else(|e: TypeParseError| self.fail(start, e.to_string()))?;
        ty.check_size(MAX_PADDED_ELEMENTS).or_else(|e| self.fail(start, e.to_string()))?;
        let said = dims.iter().any(|d: &DimSharding| d.open || !d.axes.is_empty());
        let sharding = if said { Sharding { dims, partial: SmallVec::new() } } else { Sharding::default() };
        Ok((ty, sharding))
    }

    /// ` +tp`, ` max tp`, ` merge cp`, any number of them.
    fn partial(&mut self, sharding: &mut Sharding) -> Parsed<()> {
        loop {
            let kind = if self.eat("+") {
                PartialKind::Sum
            } else if self.eat("max ") {
                PartialKind::Max
            } else if self.eat("merge ") {
                PartialKind::Merge
            } else {
                return Ok(());
            };
            let axis = self.word()?.into();
            sharding.partial.push((axis, kind));
        }
    }

    fn id(&mut self) -> Parsed<(usize, usize)> {
        self.skip();
        let start = self.at;
        self.expect("%")?;
        Ok((start, self.number()?))
    }

    fn callee(&mut self) -> Parsed<crate::Id<Function>> {
        self.skip();
        let start = self.at;
        self.expect("@")?;
        let name = self.function_name()?;
        match self.functions.get(name) {
            Some(&id) => Ok(id),
            None => self.fail(start, format!("there is no function @{name} before this line")),
        }
    }

    fn program(&mut self) -> Parsed<Program> {
        let name = self.string()?.into();
        let runs = if self.eat("times ") {
            Runs::Times(self.number()?)
        } else if self.eat("on demand") {
            Runs::OnDemand
        } else if self.eat("prepare ") {
            Runs::Prepare
        } else {
            Runs::Asked
        };
        self.expect("=")?;
        let function = self.callee()?;
        self.expect("{")?;
        let mut program = Program { name, runs, function, inputs: vec![], outputs: vec![], logical: vec![] };
        loop {
            if self.eat("}") {
                return Ok(program);
            } else if self.eat("in ") {
                program.inputs.push(self.json()?);
            } else if self.eat("of ") {
                program.logical.push(self.json()?);
            } else {
                self.expect("out ")?;
                program.outputs.push(self.json()?);
            }
        }
    }

    fn function(&mut self) -> Parsed<Function> {
        let recompute = self.eat("recompute ");
        let kind = if self.eat("kernel ") {
            FunctionKind::Kernel
        } else {
            self.expect("fn ")?;
            FunctionKind::Plain
        };
        self.expect("@")?;
        let mut b = Builder::new(self.function_name()?);
        (b.function.kind, b.function.recompute) = (kind, recompute);
        let mut ids: HashMap<usize, NodeId> = HashMap::new();
        self.expect("(")?;
        while !self.eat(")") {
            let (start, id) = self.id()?;
            self.expect(":")?;
            let (ty, shardings) = self.sharded_ty()?;
            let new = b.param(ty);
            b.function.nodes[new].shardings = shardings;
            if ids.insert(id, new).is_some() {
                return self.fail(start, format!("%{id} is declared twice"));
            }
            self.eat(",");
        }
        self.expect("{")?;
        while !self.eat("return") {
            let (start, id) = self.id()?;
            self.expect("=")?;
            let node = self.node(&ids)?;
            if ids.insert(id, b.function.nodes.add(node)).is_some() {
                return self.fail(start, format!("%{id} is declared twice"));
            }
        }
        let mut function = b.function;
        while !self.eat("}") {
            function.results.push(self.operand(&ids)?);
            self.eat(",");
        }
        Ok(function)
    }

    fn operand(&mut self, ids: &HashMap<usize, NodeId>) -> Parsed<NodeId> {
        let (start, id) = self.id()?;
        ids.get(&id).copied().map_or_else(|| self.fail(start, format!("%{id} is not declared before this line")), Ok)
    }

    fn node(&mut self, ids: &HashMap<usize, NodeId>) -> Parsed<Node> {
        self.skip();
        let start = self.at;
        let word = self.word()?;
        let inst = match word {
            "get" => Some(Inst::Get(self.number()?)),
            "chunk" => Some(Inst::Chunk { count: self.number()? }),
            "unchunk" => Some(Inst::Unchunk),
            "repeat" => Some(Inst::Repeat { count: self.number()? }),
            "call" => Some(Inst::Call(self.call()?)),
            _ => None,
        };
        self.expect("(")?;
        let mut args = SmallVec::new();
        while !self.eat(")") {
            args.push(self.operand(ids)?);
            self.eat(",");
        }
        let alone = match inst {
            None if self.begins(|c| matches!(c, '"' | '[' | '-') || c.is_ascii_digit()) => Some(self.json()?),
            _ => None,
        };
        let others = if inst.is_none() && self.begins(|c| c == '{') { self.json()? } else { serde_json::Map::new() };
        let end = self.at;
        let mut partial = Sharding::default();
        self.partial(&mut partial)?;
        self.expect(":")?;
        let (ty, mut shardings) = self.sharded_ty()?;
        if !partial.partial.is_empty() {
            if shardings.is_empty() {
                shardings.push(Sharding::default());
            }
            shardings[0].partial = partial.partial;
        }
        let inst = match inst {
            Some(inst) => inst,
            None => match attributes::read(word, alone, others, &ty) {
                Ok(op) => Inst::Op(op),
                Err(e) => {
                    self.at = end;
                    return self.fail(start, e);
                }
            },
        };
        Ok(Node { inst, args, ty, shardings, place: diag::PlaceId::NONE })
    }

    fn call(&mut self) -> Parsed<Call> {
        let mut call = Call::once(self.callee()?);
        self.skip();
        if self.rest().starts_with('x') {
            self.prefix('x')?;
            call.times = Some(self.number()?);
            self.expect("carry")?;
            call.carried = self.number()?;
            self.expect("share")?;
            call.shared = self.number()?;
            call.reverse = self.eat("reverse");
        }
        Ok(call)
    }
}
