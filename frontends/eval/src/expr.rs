//! Expressions: literals, names, fields, and the way to everything else.

use diag::{Diagnostic, Span};
use syn::{Expr, Lit, UnOp};

use crate::evaluator::{Evaluator, Found, Scope};
use crate::instance::InstanceId;
use crate::stop::{Eval, Stop};
use crate::suggest::{listed, nearest};
use crate::value::{Bound, Closure, Function, Range, Struct, StructKind, Value};
use crate::vocabulary;
use crate::vocabulary::truncated;

impl<'a> Evaluator<'a> {
    pub fn expr(&mut self, scope: &mut Scope<'a>, e: &'a Expr) -> Eval<'a, Value<'a>> {
        self.step(scope, e)?;
        match e {
            Expr::Lit(lit) => self.literal(scope, &lit.lit),
            Expr::Path(path) => self.path(scope, path),
            Expr::Paren(inner) => self.expr(scope, &inner.expr),
            Expr::Group(inner) => self.expr(scope, &inner.expr),
            Expr::Reference(inner) => self.expr(scope, &inner.expr),
            Expr::Unary(unary) => match unary.op {
                UnOp::Deref(_) => self.expr(scope, &unary.expr),
                _ => self.unary(scope, unary),
            },
            Expr::Binary(binary) => self.binary(scope, binary),
            Expr::Assign(assign) => {
                let value = self.expr(scope, &assign.right)?;
                self.assign(scope, &assign.left, value)?;
                Ok(Value::Unit)
            }
            Expr::Tuple(tuple) if tuple.elems.is_empty() => Ok(Value::Unit),
            Expr::Tuple(tuple) => Ok(Value::Tuple(self.list(scope, &tuple.elems)?.into())),
            Expr::Array(array) => Ok(Value::Array(self.list(scope, &array.elems)?.into())),
            Expr::Repeat(repeat) => self.repeated_array(scope, repeat),
            Expr::Block(block) => self.block(scope, &block.block),
            Expr::If(branch) => self.branch(scope, branch),
            Expr::Match(m) => self.match_arms(scope, m),
            Expr::ForLoop(l) => self.for_loop(scope, l),
            Expr::Let(l) => {
                let value = self.expr(scope, &l.expr)?;
                Ok(Value::Bool(self.matches(scope, &l.pat, value)?))
            }
            Expr::Return(r) => {
                let value = match &r.expr {
                    Some(e) => self.expr(scope, e)?,
                    None => Value::Unit,
                };
                Err(Stop::Return(Box::new(value)))
            }
            Expr::Closure(closure) => Ok(Value::Closure(std::rc::Rc::new(Closure {
                syntax: closure,
                instance: scope.instance,
                captured: scope.vars.clone(),
                self_type: scope.self_type,
            }))),
            Expr::Range(range) => self.range(scope, range),
            Expr::Struct(s) => self.struct_literal(scope, s),
            Expr::Field(field) => self.field(scope, field),
            Expr::Index(index) => self.index(scope, index),
            Expr::Cast(cast) => self.cast(scope, cast),
            Expr::Call(call) => self.call_expr(scope, call),
            Expr::MethodCall(call) => self.method_call(scope, call),
            other => Err(self.unsupported(scope, other)),
        }
    }

    pub fn list(
        &mut self,
        scope: &mut Scope<'a>,
        elems: impl IntoIterator<Item = &'a Expr>,
    ) -> Eval<'a, Vec<Value<'a>>> {
        elems.into_iter().map(|e| self.expr(scope, e)).collect()
    }

    fn literal(&self, scope: &Scope<'a>, lit: &'a Lit) -> Eval<'a, Value<'a>> {
        let bad = |what: &str| Diagnostic::error(what).at(self.span(scope, lit), "");
        Ok(match lit {
            Lit::Int(i) if matches!(i.suffix(), "f64" | "f32") => {
                Value::Float(i.base10_parse().map_err(|_| bad("this number does not read"))?)
            }
            Lit::Int(i) => Value::Int(i.base10_parse().map_err(|_| bad("this number is too large"))?),
            Lit::Float(f) => match f.base10_parse::<f64>() {
                Ok(v) if v.is_finite() => Value::Float(v),
                _ => return Err(bad("this number is too large").into()),
            },
            Lit::Bool(b) => Value::Bool(b.value),
            Lit::Str(s) => Value::Str(s.value().into()),
            _ => return Err(bad("literals are numbers, `true`, `false` and texts").into()),
        })
    }

    fn path(&mut self, scope: &mut Scope<'a>, path: &'a syn::ExprPath) -> Eval<'a, Value<'a>> {
        let span = self.span(scope, path);
        let segments: Vec<String> = path.path.segments.iter().map(|s| s.ident.to_string()).collect();
        match segments.as_slice() {
            [name] => {
                if let Some(value) = scope.get(name) {
                    return Ok(value.clone());
                }
                match self.find(scope.instance, name) {
                    Some(Found::Module(_)) => {
                        return Err(Diagnostic::error(format!("`{name}` is a file, not a value"))
                            .at(span, "")
                            .help(format!("name what is in it: `{name}::NAME`"))
                            .into());
                    }
                    Some(found) => {
                        if let Some(value) = self.item(found, span)? {
                            return Ok(value);
                        }
                    }
                    None => {}
                }
                let stream = (name == vocabulary::STREAM).then(|| Value::DType(self.stream()));
                stream.or_else(|| vocabulary::name(name)).ok_or_else(|| self.unknown_name(scope, name, span))
            }
            [module @ .., name] => match self.module_at(scope.instance, module) {
                Some(of) => self.item_of(of, name, span),
                None => self.associated(scope, &path.path, span),
            },
            [] => Err(leads_nowhere(span)),
        }
    }

    /// What an item is as a value; nothing for types and modules.
    fn item(&mut self, found: Found<'a>, span: Span) -> Eval<'a, Option<Value<'a>>> {
        Ok(Some(match found {
            Found::Dim(instance, d) => Value::Dim(self.dim(instance, d, span)?),
            Found::Constant(instance, c) => self.constant(instance, c, span)?,
            Found::Function(instance, syntax) => Value::Function(Function::Free { instance, syntax }),
            Found::Struct(..) | Found::Module(_) => return Ok(None),
        }))
    }

    /// `visual::HEADS`: what the file of an instance declares.
    fn item_of(&mut self, instance: InstanceId, name: &str, span: Span) -> Eval<'a, Value<'a>> {
        if let Some(found) = self.find(instance, name)
            && let Some(value) = self.item(found, span)?
        {
            return Ok(value);
        }
        let file = self.file(instance);
        let mut error = Diagnostic::error(format!("{} has no `{name}`", file.path)).at(span, "not found");
        if let Some(near) = nearest(name, file.names()) {
            error = error.help(format!("did you mean `{near}`?"));
        }
        Err(error.into())
    }

    /// `Tower::new`, `visual::Tower::new`, `Param::ones`.
    fn associated(&mut self, scope: &Scope<'a>, path: &syn::Path, span: Span) -> Eval<'a, Value<'a>> {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let [module @ .., owner, name] = segments.as_slice() else { return Err(leads_nowhere(span)) };
        let found = match (owner.as_str(), scope.self_type) {
            ("Self", Some(declared)) if module.is_empty() => Some((scope.instance, declared)),
            _ => match self.module_at(scope.instance, module).and_then(|of| self.find(of, owner)) {
                Some(Found::Struct(instance, declared)) => Some((instance, declared)),
                _ if module.is_empty() => None,
                _ => return Err(leads_nowhere(span)),
            },
        };
        if let Some((instance, declared)) = found {
            return match declared.methods.get(name) {
                Some(syntax) => Ok(Value::Function(Function::Associated { instance, owner: declared, syntax })),
                None => {
                    let mut error = Diagnostic::error(format!("`{owner}` has no function `{name}`")).at(span, "");
                    if let Some(near) = nearest(name, declared.methods.keys().map(String::as_str)) {
                        error = error.help(format!("did you mean `{near}`?"));
                    }
                    Err(error.into())
                }
            };
        }
        vocabulary::associated(owner, name)
            .ok_or_else(|| Diagnostic::error(format!("there is no `{owner}::{name}`")).at(span, "not found").into())
    }

    fn unknown_name(&self, scope: &Scope<'a>, name: &str, span: Span) -> Stop<'a> {
        let mut known: Vec<String> = self.known_names(scope.instance).into_iter().map(Into::into).collect();
        known.extend(scope.vars.iter().map(|(n, _)| n.clone()));
        known.extend(vocabulary::names().map(Into::into));
        let mut error = Diagnostic::error(format!("there is no `{name}` here")).at(span, "not found");
        if let Some(near) = nearest(name, known.iter().map(String::as_str)) {
            error = error.help(format!("did you mean `{near}`?"));
        } else if name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()) {
            error = error.help(format!("declare it: `dims! {{ {name} = .. }}`"));
        }
        error.into()
    }

    fn repeated_array(&mut self, scope: &mut Scope<'a>, repeat: &'a syn::ExprRepeat) -> Eval<'a, Value<'a>> {
        let value = self.expr(scope, &repeat.expr)?;
        let count = match self.expr(scope, &repeat.len)? {
            Value::Int(n) if (0..=4096).contains(&n) => n as usize,
            Value::Dim(d) if d.size <= 4096 => d.size,
            other => {
                return Err(Diagnostic::error(format!("an array of {}", other.describe()))
                    .at(self.span(scope, &repeat.len), "expected a number from 0 to 4096")
                    .into());
            }
        };
        Ok(Value::array(std::iter::repeat_n(value, count)))
    }

    fn range(&mut self, scope: &mut Scope<'a>, range: &'a syn::ExprRange) -> Eval<'a, Value<'a>> {
        let mut bound = |e: &'a Option<Box<Expr>>| -> Eval<'a, Option<Bound>> {
            let Some(e) = e else { return Ok(None) };
            match self.expr(scope, e)? {
                Value::Int(v) => Ok(Some(Bound::Int(v))),
                Value::Float(v) => Ok(Some(Bound::Float(v))),
                Value::Dim(d) => Ok(Some(Bound::Int(d.size as i64))),
                other => Err(Diagnostic::error(format!("a range of {}", other.describe()))
                    .at(self.span(scope, e), "expected a number")
                    .into()),
            }
        };
        let (start, end) = (bound(&range.start)?, bound(&range.end)?);
        let closed = matches!(range.limits, syn::RangeLimits::Closed(_));
        Ok(Value::Range(std::rc::Rc::new(Range { start, end, closed })))
    }

    fn struct_literal(&mut self, scope: &mut Scope<'a>, s: &'a syn::ExprStruct) -> Eval<'a, Value<'a>> {
        let span = self.span(scope, &s.path);
        let name = s.path.segments.last().map(|p| p.ident.to_string()).unwrap_or_default();
        let (instance, declared) = match (name.as_str(), scope.self_type) {
            ("Self", Some(declared)) => (scope.instance, declared),
            _ => match self.find_path(scope.instance, &s.path) {
                Some(Found::Struct(instance, declared)) => (instance, declared),
                _ => return Err(self.unknown_name(scope, &name, span)),
            },
        };
        if let Some(rest) = &s.rest {
            return Err(Diagnostic::error("`..rest` in a struct is not in the subset")
                .at(self.span(scope, rest), "")
                .help("write every field")
                .into());
        }
        let mut given: Vec<(String, Value<'a>, Span)> = vec![];
        for field in &s.fields {
            let at = self.span(scope, &field.member);
            let syn::Member::Named(ident) = &field.member else {
                return Err(Diagnostic::error("fields have names").at(at, "").into());
            };
            let ident = ident.to_string();
            if given.iter().any(|(n, ..)| *n == ident) {
                return Err(Diagnostic::error(format!("field `{ident}` is given twice")).at(at, "").into());
            }
            if !declared.fields.iter().any(|f| f.ident == ident) {
                let known = declared.fields.iter().map(|f| f.ident.as_str());
                let mut error = Diagnostic::error(format!("`{}` has no field `{ident}`", declared.name)).at(at, "");
                if let Some(near) = nearest(&ident, known) {
                    error = error.help(format!("did you mean `{near}`?"));
                }
                return Err(error.into());
            }
            let value = self.expr(scope, &field.expr)?;
            given.push((ident, value, self.span(scope, &field.expr)));
        }
        let missing: Vec<&str> = (declared.fields.iter())
            .map(|f| f.ident.as_str())
            .filter(|n| !given.iter().any(|(g, ..)| g == n))
            .collect();
        if !missing.is_empty() {
            return Err(Diagnostic::error(format!("`{}` lacks {}", declared.name, listed(missing)))
                .at(span, "")
                .into());
        }
        let mut fields = vec![];
        for f in &declared.fields {
            if let Some(i) = given.iter().position(|(n, ..)| *n == f.ident) {
                let (name, value, at) = given.swap_remove(i);
                // The field's type stands in the file that declares the struct.
                let mut home = Scope::new(instance, scope.caller);
                home.self_type = Some(declared);
                fields.push((name.into(), self.check_type(&mut home, &f.ty, value, at)?));
            }
        }
        let kind = StructKind::User { instance, declaration: declared };
        Ok(Value::Struct(std::rc::Rc::new(Struct { kind, fields, renamed: None, path: types::Name::default() })))
    }

    fn field(&mut self, scope: &mut Scope<'a>, field: &'a syn::ExprField) -> Eval<'a, Value<'a>> {
        let base = self.expr(scope, &field.base)?;
        let span = self.span(scope, &field.member);
        let found = match (&base, &field.member) {
            (Value::Struct(s), syn::Member::Named(name)) => s.field(&name.to_string()).cloned(),
            (Value::Tuple(items), syn::Member::Unnamed(i)) => items.get(i.index as usize).cloned(),
            _ => None,
        };
        let name = match &field.member {
            syn::Member::Named(name) => name.to_string(),
            syn::Member::Unnamed(i) => i.index.to_string(),
        };
        if let Some(value) = found {
            return Ok(named_stack(value, &name));
        }
        let mut error = Diagnostic::error(format!("{} has no field `{name}`", base.describe())).at(span, "");
        if let Value::Struct(s) = &base
            && let Some(near) = nearest(&name, s.fields.iter().map(|(n, _)| n.as_str()))
        {
            error = error.help(format!("did you mean `{near}`?"));
        }
        Err(error.into())
    }

    fn index(&mut self, scope: &mut Scope<'a>, index: &'a syn::ExprIndex) -> Eval<'a, Value<'a>> {
        let base = self.expr(scope, &index.expr)?;
        let at = match self.expr(scope, &index.index)? {
            Value::Int(i) => usize::try_from(i).ok(),
            Value::Dim(d) => Some(d.size),
            _ => None,
        };
        let span = self.span(scope, &index.index);
        match (&base, at) {
            (Value::Array(items) | Value::Tuple(items), Some(i)) => items.get(i).cloned().ok_or_else(|| {
                Diagnostic::error(format!("index {i} of {}", base.describe())).at(span, "past the end").into()
            }),
            (Value::Array(_) | Value::Tuple(_), None) => {
                Err(Diagnostic::error("an index is a whole number from 0").at(span, "").into())
            }
            _ => Err(Diagnostic::error(format!("{} has no index", base.describe()))
                .at(span, "")
                .help("tensors are cut by name: `x.at(DIM, 0)`, `x.slice(DIM, 1..3)`")
                .into()),
        }
    }

    fn cast(&mut self, scope: &mut Scope<'a>, cast: &'a syn::ExprCast) -> Eval<'a, Value<'a>> {
        let value = self.expr(scope, &cast.expr)?;
        let to = crate::numbers::type_name(&cast.ty);
        Ok(match (value, to.as_deref()) {
            (Value::Int(v), Some("f64")) => Value::Float(v as f64),
            (Value::Float(v), Some("i64")) => Value::Int(truncated(v, self.span(scope, cast))?),
            (v @ Value::Float(_), Some("f64")) | (v @ Value::Int(_), Some("i64")) => v,
            (other, _) => {
                return Err(Diagnostic::error(format!("`as` does not convert {}", other.describe()))
                    .at(self.span(scope, cast), "")
                    .help("`as` converts numbers to `f64` and `i64`; tensors have `.cast(f32)`, dims `.f64()`")
                    .into());
            }
        })
    }

    fn unsupported(&self, scope: &Scope<'a>, e: &'a Expr) -> Stop<'a> {
        let (what, instead) = match e {
            Expr::While(_) | Expr::Loop(_) | Expr::Break(_) | Expr::Continue(_) => {
                ("such loops are", "write `for x in ..` over an array or a range")
            }
            Expr::Macro(_) => ("macros are", "write a function; `require(condition, \"message\")` checks something"),
            Expr::Unsafe(_) => ("unsafe blocks are", "write the code without it"),
            Expr::Async(_) | Expr::Await(_) => ("async code is", "write plain functions"),
            Expr::Try(_) => ("`?` is", "handle the value with `match` or `if let`"),
            _ => ("such expressions are", "write it with `let`, `if`, `match`, `for`, calls and arithmetic"),
        };
        Diagnostic::error(format!("{what} not in the subset of .mm files"))
            .at(self.span(scope, e), "")
            .help(instead)
            .into()
    }
}

fn leads_nowhere<'a>(span: Span) -> Stop<'a> {
    Diagnostic::error("this path leads nowhere")
        .at(span, "")
        .help("names from siblings are brought in with `use`")
        .into()
}

/// A stack remembers the field it was read from: that is the name of its folds.
fn named_stack<'a>(value: Value<'a>, name: &str) -> Value<'a> {
    match value {
        Value::Stack(s) if s.name.is_none() => {
            Value::Stack(std::rc::Rc::new(crate::value::Stack { name: Some(name.into()), ..(*s).clone() }))
        }
        value => value,
    }
}
