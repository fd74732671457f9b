//! Ragged axes, and tensors by data groups.
//!
//! A step of several data groups computes each group for itself: every tensor that follows from inputs has the axis
//! [`GROUPS`] beside those that the model speaks of, which no name in a model can be. Operators keep it, as they keep all dims
//! that they are not told of; contracts do not count it, and words that list the dims of their result have it added here.

use diag::{Diagnostic, Span};
use ir::{Feed, Input, Module, Program, ops};
use syn::{BinOp, Expr};
use types::{Count, Dim, GROUPS, Name, Owner, Ragged, TensorType};

use crate::evaluator::{Evaluator, Scope};
use crate::instance::InstanceId;
use crate::macros::BATCH;
use crate::stop::{Eval, Stop};
use crate::trace::Site;
use crate::value::{Leaf, Operand, whole};

impl<'a> Evaluator<'a> {
    /// Data groups of a step, if it has several and the model has ragged axes.
    pub fn groups(&self) -> Option<usize> {
        self.options.groups.filter(|_| self.file(InstanceId::MODEL).dims.values().any(|d| d.ragged))
    }

    /// Whether samples, or rows of theirs, lie along this axis.
    fn holds_rows(&self, name: &str) -> bool {
        name == BATCH || self.is_ragged(name)
    }

    /// Whether samples have any number of rows along this axis.
    pub fn is_ragged(&self, name: &str) -> bool {
        self.file(InstanceId::MODEL).dims.get(name).is_some_and(|d| d.ragged)
    }

    /// That rows of data come first in an input.
    pub fn check_rows_first(&self, name: &str, ty: &TensorType, at: Span) -> Eval<'a, ()> {
        match ty.dims.iter().skip(1).find(|d| self.is_ragged(&d.name)) {
            None => Ok(()),
            Some(dim) => Err(Diagnostic::error(format!("the ragged axis `{}` is not the first of `{name}`", dim.name))
                .at(at, format!("this is `{ty}`"))
                .help("rows of samples lie one after another along the first dim: take it so, and `.transpose([..])`")
                .into()),
        }
    }

    /// The dims with that of data groups before them, if rows of data lie along one of them.
    pub fn with_groups(&self, mut dims: Vec<Dim>) -> Vec<Dim> {
        let is_grouped = dims.iter().any(|d| d.name == *GROUPS);
        if let Some(size) = self.groups().filter(|_| !is_grouped && dims.iter().any(|d| self.holds_rows(&d.name))) {
            dims.insert(0, Dim { name: GROUPS.into(), size });
        }
        dims
    }

    /// The type of an input whose first dim is of rows of data, for all data groups together.
    pub fn grouped(&self, ty: TensorType) -> TensorType {
        match ty.dims.first() {
            Some(first) if self.holds_rows(&first.name) => {
                TensorType::new(ty.dtype, self.with_groups(ty.dims.to_vec()))
            }
            _ => ty,
        }
    }

    /// An output as the class of the model gives it: rows of all data groups one after another.
    pub fn ungrouped(&mut self, leaf: Leaf, span: Span, site: Site) -> Eval<'a, Leaf> {
        let leaf = self.trace.groups_first(Operand { leaf: &leaf, span }, site)?;
        let dims = &leaf.tensor().dims;
        let rows = dims.iter().position(|d| self.holds_rows(&d.name));
        let (Some(at), Some(0)) = (rows, leaf.tensor().position(GROUPS)) else { return Ok(leaf) };
        let mut order: Vec<Name> = dims.iter().map(|d| d.name.clone()).collect();
        order[..at].rotate_left(1);
        let mut joined: Vec<Dim> = dims[1..].to_vec();
        joined[at - 1].size *= dims[0].size;
        let leaf = if at > 1 {
            self.trace.op(ops::Transpose { order }, &[Operand { leaf: &leaf, span }], site)?
        } else {
            leaf
        };
        Ok(self.trace.op(ops::Reshape { dims: joined }, &[Operand { leaf: &leaf, span }], site)?)
    }

    /// The ragged axes of the programs' feeds, owners before what they own.
    pub fn ragged_axes(&mut self) -> Eval<'a, Vec<Ragged>> {
        let file = self.file(InstanceId::MODEL);
        for (i, (axis, _)) in file.owners.iter().enumerate() {
            let at = self.span_in(InstanceId::MODEL, axis);
            if file.owners[..i].iter().any(|(before, _)| before == axis) {
                return Err(Diagnostic::error(format!("`{axis}` is given an owner twice")).at(at, "the second").into());
            }
            if !self.is_ragged(&axis.to_string()) {
                return Err(not_ragged(&axis.to_string(), at));
            }
        }
        let mut found: Vec<Ragged> = vec![];
        let mut open: Vec<(&'a syn::Ident, Vec<&'a syn::Ident>)> = vec![];
        for declared in file.dims.values().filter(|d| d.ragged) {
            if self.is_fed(&declared.ident.to_string()) {
                open.push((&declared.ident, vec![]));
            }
        }
        open.reverse();
        while let Some((ident, mut path)) = open.pop() {
            let name = ident.to_string();
            if found.iter().any(|r| r.axis == *name) {
                continue;
            }
            let at = self.span_in(InstanceId::MODEL, ident);
            let Some((_, owner)) = file.owners.iter().find(|(axis, _)| *axis == name) else {
                return Err(Diagnostic::error(format!("nobody owns the rows of `{name}`"))
                    .at(at, "a ragged axis")
                    .help(format!(
                        "say whose they are: `owners! {{ {name} = samples(1) }}`, `tokens(..)` or `rows(..)`"
                    ))
                    .into());
            };
            if path.contains(&ident) {
                return Err(Diagnostic::error(format!("rows of `{name}` belong to each other in a circle"))
                    .at(self.span_in(InstanceId::MODEL, owner), "")
                    .into());
            }
            let owner_at = self.span_in(InstanceId::MODEL, owner);
            let owner = self.owner(owner)?;
            self.check_owner(&name, &owner, owner_at)?;
            if let Owner::Rows { of, .. } = &owner
                && !found.iter().any(|r| r.axis == *of)
            {
                let Some(of) = file.dims.values().find(|d| d.ragged && d.ident == of.as_str()) else {
                    return Err(not_ragged(of, owner_at));
                };
                path.push(ident);
                open.push((ident, path.clone()));
                open.push((&of.ident, path));
                continue;
            }
            let declared = &file.dims[&name];
            let capacity = self.dim(InstanceId::MODEL, declared, at)?.size;
            found.push(Ragged { axis: name.into(), capacity, owner });
        }
        Ok(found)
    }

    /// Whether a program has a feed with this axis.
    fn is_fed(&self, axis: &str) -> bool {
        let module = &self.trace.module;
        module.programs.iter().any(|program| feeds(module, program).any(|(_, ty)| ty.position(axis).is_some()))
    }

    /// That the inputs which tell whose the rows are come with them.
    fn check_owner(&self, axis: &str, owner: &Owner, at: Span) -> Eval<'a, ()> {
        let module = &self.trace.module;
        for program in &module.programs {
            let feed = |name: &Name| {
                let mut data = feeds(module, program).filter(|(feed, _)| feed.draw.is_none());
                data.find(|(feed, _)| feed.name == *name).map(|(_, ty)| ty)
            };
            let owned = feeds(module, program).any(|(_, ty)| ty.position(axis).is_some());
            for name in owner.inputs().into_iter().filter(|_| owned) {
                let error = |what: &str| -> Stop<'a> {
                    Diagnostic::error(format!("rows of `{axis}` are told by `{name}`, {what}"))
                        .at(at, "")
                        .help(format!("`{name}` must be an input of whole numbers that `{}` reads", program.name))
                        .into()
                };
                // The rows of an input that counts are those of whose rows it tells.
                let is_tokens = matches!(owner, Owner::Tokens { input, .. } if input == name);
                let led_by = match owner {
                    Owner::Samples { .. } => BATCH,
                    Owner::Tokens { .. } if is_tokens => BATCH,
                    Owner::Tokens { .. } => axis,
                    Owner::Rows { of, .. } => of.as_str(),
                };
                match feed(name) {
                    None => return Err(error(&format!("which `{}` does not read", program.name))),
                    Some(ty) if ty.dtype.is_float() => return Err(error(&format!("which is {ty}"))),
                    Some(ty) => {
                        let first = ty.dims.iter().find(|d| d.name != *GROUPS);
                        if first.is_none_or(|d| d.name != *led_by) {
                            return Err(error(&format!("which has not one row for each of `{led_by}`: it is {ty}")));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// `samples(count)`, `tokens(input, TOKEN, count)` or `rows(AXIS, count)`.
    fn owner(&mut self, expr: &'a Expr) -> Eval<'a, Owner> {
        let at = self.span_in(InstanceId::MODEL, expr);
        let wrong = || -> Stop<'a> {
            Diagnostic::error("this does not say whose rows they are")
                .at(at, "")
                .help("write `samples(count)`, `tokens(input_ids, IMAGE_TOKEN, count)` or `rows(IMAGES, count)`")
                .help("a count is made of numbers, `product(input)`, `sum(input)` and + - * /")
                .into()
        };
        let Expr::Call(call) = expr else { return Err(wrong()) };
        let args: Vec<&'a Expr> = call.args.iter().collect();
        match (word(&call.func).as_deref(), args.as_slice()) {
            (Some("samples"), [count]) => Ok(Owner::Samples { count: self.count_of(count)? }),
            (Some("rows"), [of, count]) => {
                let of = word(of).ok_or_else(wrong)?;
                Ok(Owner::Rows { of: of.into(), count: self.count_of(count)? })
            }
            (Some("tokens"), [input, token, count]) => {
                let input = word(input).ok_or_else(wrong)?;
                let token = self.expr(&mut Scope::new(InstanceId::MODEL, diag::PlaceId::NONE), token)?;
                let token = whole(&token).ok_or_else(wrong)?;
                Ok(Owner::Tokens { input: input.into(), token, count: self.count_of(count)? })
            }
            _ => Err(wrong()),
        }
    }

    fn count_of(&mut self, expr: &'a Expr) -> Eval<'a, Count> {
        let both = |left: Count, right: Count| Box::new([left, right]);
        match expr {
            Expr::Paren(inner) => self.count_of(&inner.expr),
            Expr::Call(call) if call.args.len() == 1 => {
                match (word(&call.func).as_deref(), call.args.first().and_then(word)) {
                    (Some("product"), Some(input)) => Ok(Count::Product(input.into())),
                    (Some("sum"), Some(input)) => Ok(Count::Sum(input.into())),
                    _ => self.number_of(expr),
                }
            }
            Expr::Binary(binary) if !is_number(expr) => {
                let operands = both(self.count_of(&binary.left)?, self.count_of(&binary.right)?);
                match binary.op {
                    BinOp::Add(_) => Ok(Count::Add(operands)),
                    BinOp::Sub(_) => Ok(Count::Sub(operands)),
                    BinOp::Mul(_) => Ok(Count::Mul(operands)),
                    BinOp::Div(_) => Ok(Count::Div(operands)),
                    _ => self.number_of(expr),
                }
            }
            _ => self.number_of(expr),
        }
    }

    fn number_of(&mut self, expr: &'a Expr) -> Eval<'a, Count> {
        let at = self.span_in(InstanceId::MODEL, expr);
        let value = self.expr(&mut Scope::new(InstanceId::MODEL, diag::PlaceId::NONE), expr)?;
        whole(&value).map(Count::Number).ok_or_else(|| {
            let what = format!("a count of rows is a whole number, this is {}", value.describe());
            Diagnostic::error(what).at(at, "").into()
        })
    }
}

/// The feeds of a program with their types.
fn feeds<'m>(module: &'m Module, program: &'m Program) -> impl Iterator<Item = (&'m Feed, &'m TensorType)> {
    let function = &module.functions[program.function];
    program.inputs.iter().zip(&function.params).filter_map(|(input, &param)| match input {
        Input::Feed(feed) => Some((feed, function.ty(param).element()?)),
        _ => None,
    })
}

fn not_ragged<'a>(axis: &str, at: Span) -> Stop<'a> {
    Diagnostic::error(format!("`{axis}` is no ragged axis"))
        .at(at, "")
        .help(format!("declare it: `dims! {{ {axis}: ragged = 8 }}`"))
        .into()
}

/// Whether no input is read in it.
fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Paren(inner) => is_number(&inner.expr),
        Expr::Binary(binary) => is_number(&binary.left) && is_number(&binary.right),
        Expr::Call(call) => !matches!(word(&call.func).as_deref(), Some("product" | "sum")),
        _ => true,
    }
}

fn word(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Path(path) => path.path.get_ident().map(ToString::to_string),
        _ => None,
    }
}
