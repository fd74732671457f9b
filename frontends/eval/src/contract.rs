//! Types in signatures as contracts: what an argument or result must be, and which free dims it binds.

use diag::{Diagnostic, Span};
use syn::Type;
use types::{DType, Dim, GROUPS, Name, TensorType};

use crate::evaluator::{Evaluator, Found, Scope};
use crate::file::StructDeclaration;
use crate::instance::InstanceId;
use crate::macros::{ContractDim, DimValue, TensorContract, dotted};
use crate::stop::{Eval, Stop};
use crate::suggest::nearest;
use crate::trace::in_place_of;
use crate::value::{Leaf, StructKind, Value};

/// One entry of a contract after names are looked up.
enum Entry {
    Any,
    /// A free dim that the argument binds.
    Free(String),
    Fixed(Dim),
}

/// What a free dim's name becomes inside the function.
#[derive(Clone, Copy, PartialEq)]
pub enum FreeDims {
    /// Another name for the caller's dim: for code that becomes part of the caller's function.
    Alias,
    /// A dim of its own: for code that becomes a function of the graph.
    Rename,
}

impl<'a> Evaluator<'a> {
    pub fn check_type(
        &mut self,
        scope: &mut Scope<'a>,
        ty: &'a Type,
        value: Value<'a>,
        at: Span,
    ) -> Eval<'a, Value<'a>> {
        self.check(scope, ty, value, at, FreeDims::Alias)
    }

    /// The value in the form that `ty` asks for; an error where it does not fit.
    pub fn check(
        &mut self,
        scope: &mut Scope<'a>,
        ty: &'a Type,
        value: Value<'a>,
        at: Span,
        free: FreeDims,
    ) -> Eval<'a, Value<'a>> {
        match (ty, value) {
            (Type::Reference(r), value) => self.check(scope, &r.elem, value, at, free),
            (Type::Paren(p), value) => self.check(scope, &p.elem, value, at, free),
            (Type::Macro(m), Value::Tensor(leaf)) => {
                let declared = self.span(scope, m);
                let Some(contract) = self.file(scope.instance).contracts.get(&declared.start) else {
                    return Ok(Value::Tensor(leaf));
                };
                Ok(Value::Tensor(self.check_tensor(scope, contract, leaf, at, declared, free)?))
            }
            (Type::Tuple(t), Value::Tuple(items)) if t.elems.len() == items.len() => {
                let pairs = t.elems.iter().zip(items.iter());
                let items: Eval<'a, Vec<_>> = pairs.map(|(t, v)| self.check(scope, t, v.clone(), at, free)).collect();
                Ok(Value::Tuple(items?.into()))
            }
            (Type::Array(array), Value::Array(items)) => {
                let items: Eval<'a, Vec<_>> =
                    items.iter().map(|v| self.check(scope, &array.elem, v.clone(), at, free)).collect();
                Ok(Value::Array(items?.into()))
            }
            (Type::ImplTrait(_) | Type::Infer(_) | Type::Slice(_), value) => Ok(value),
            (Type::Path(path), value) => self.check_path(scope, path, value, at, free),
            (ty, value) => Err(self.type_mismatch(scope, ty, &value, at)),
        }
    }

    fn check_path(
        &mut self,
        scope: &mut Scope<'a>,
        path: &'a syn::TypePath,
        value: Value<'a>,
        at: Span,
        free: FreeDims,
    ) -> Eval<'a, Value<'a>> {
        let Some(last) = path.path.segments.last() else { return Ok(value) };
        let name = last.ident.to_string();
        if name == "Option"
            && let syn::PathArguments::AngleBracketed(inner) = &last.arguments
            && let Some(syn::GenericArgument::Type(inner)) = inner.args.first()
        {
            return match value {
                Value::Option(None) => Ok(value),
                Value::Option(Some(v)) => Ok(Value::some(self.check(scope, inner, (*v).clone(), at, free)?)),
                other => Err(self.type_mismatch(scope, path, &other, at)),
            };
        }
        let fits = match (name.as_str(), &value) {
            ("Tensor", Value::Tensor(_))
            | ("Param", Value::Param(_))
            | ("i64" | "usize", Value::Int(_))
            | ("Size", Value::Dim(_) | Value::Int(_))
            | ("f64", Value::Float(_))
            | ("bool", Value::Bool(_))
            | ("str", Value::Str(_))
            | ("DType", Value::DType(_))
            | ("Stack" | "Chunks", Value::Stack(_))
            | ("Plan", Value::Plan)
            | ("Run", Value::Run) => true,
            ("Self", Value::Struct(s)) => match (s.kind, scope.self_type) {
                (StructKind::User { declaration, .. }, Some(own)) => std::ptr::eq(declaration, own),
                _ => false,
            },
            (_, Value::Struct(s)) => match (s.kind, self.struct_at(scope.instance, &path.path)) {
                (StructKind::User { declaration, .. }, Some(found)) => std::ptr::eq(declaration, found),
                (kind, None) => kind.name() == name,
                _ => false,
            },
            _ => false,
        };
        if fits { Ok(value) } else { Err(self.type_mismatch(scope, path, &value, at)) }
    }

    fn struct_at(&self, instance: InstanceId, path: &syn::Path) -> Option<&'a StructDeclaration> {
        match self.find_path(instance, path) {
            Some(Found::Struct(_, declared)) => Some(declared),
            _ => None,
        }
    }

    fn type_mismatch(
        &self,
        scope: &Scope<'a>,
        ty: &impl syn::spanned::Spanned,
        value: &Value<'a>,
        at: Span,
    ) -> Stop<'a> {
        Diagnostic::error("a value does not have the type that its place declares")
            .at(at, format!("this is {}", value.describe()))
            .at(self.span(scope, ty), "expected this type")
            .into()
    }

    fn check_tensor(
        &mut self,
        scope: &mut Scope<'a>,
        contract: &'a TensorContract,
        leaf: Leaf,
        at: Span,
        declared: Span,
        free: FreeDims,
    ) -> Eval<'a, Leaf> {
        let entries = self.entries(scope, contract)?;
        let dtype = self.contract_dtype(scope, contract)?;
        let mut ty = leaf.tensor().clone();
        let groups = ty.position(GROUPS).map(|at| (at, ty.dims.remove(at)));
        let ty = ty;
        let expected = || written(&entries, dtype);
        let refuse = |message: String| {
            Diagnostic::error(message)
                .at(at, format!("this is `{ty}`"))
                .at(declared, format!("expected `{}`", expected()))
        };
        if ty.dtype != dtype {
            let mut error = refuse(format!("a tensor of {} where {dtype} is declared", ty.dtype));
            if ty.dtype.is_float() && dtype.is_float() {
                error = error.help(format!("cast it: `.cast({dtype})`, or declare `Tensor![..; {}]`", ty.dtype));
            }
            return Err(error.into());
        }
        let any = entries.iter().position(|e| matches!(e, Entry::Any));
        let fixed = entries.len() - usize::from(any.is_some());
        if ty.rank() < fixed || (any.is_none() && ty.rank() != fixed) {
            let s = if fixed == 1 { "" } else { "s" };
            let more = if any.is_some() { " or more" } else { "" };
            return Err(refuse(format!("{} dims where {fixed}{more} dim{s} are declared", ty.rank())).into());
        }
        let mut bound = ty.clone();
        let skipped = ty.rank() - fixed;
        let mut at_dim = 0;
        for entry in &entries {
            let found = ty.dims.get(at_dim);
            match (entry, found) {
                (Entry::Any, _) => {
                    at_dim += skipped;
                    continue;
                }
                (Entry::Fixed(dim), Some(found)) if dim != found => {
                    let what = if dim.name == found.name { "sizes differ" } else { "dims do not match" };
                    return Err(refuse(format!("{what}: {found} where {dim} is declared")).into());
                }
                (Entry::Free(name), Some(found)) => {
                    let dim = match free {
                        FreeDims::Alias => found.clone(),
                        FreeDims::Rename => {
                            let name = self.instances.full_name(scope.instance, name);
                            Dim { name: Name::from(name), size: found.size }
                        }
                    };
                    match scope.get(name) {
                        Some(Value::Dim(known)) if known.size != dim.size => {
                            let message = format!("{name} is {} and {} in one call", known.size, dim.size);
                            return Err(refuse(message).into());
                        }
                        Some(_) => {}
                        None => scope.set(name.clone(), Value::Dim(dim.clone())),
                    }
                    bound.dims[at_dim] = dim;
                }
                _ => {}
            }
            at_dim += 1;
        }
        if let Some((at, groups)) = groups {
            bound.dims.insert(at, groups);
        }
        if let Some(i) = (1..bound.rank()).find(|&i| bound.dims[..i].iter().any(|d| d.name == bound.dims[i].name)) {
            return Err(refuse(format!("dim {} would stand twice", bound.dims[i].name)).into());
        }
        let ty = if free == FreeDims::Rename { in_place_of(&leaf.ty, bound) } else { leaf.ty };
        Ok(Leaf { ty, source: leaf.source })
    }

    fn entries(&mut self, scope: &mut Scope<'a>, contract: &'a TensorContract) -> Eval<'a, Vec<Entry>> {
        let mut out = vec![];
        for dim in &contract.dims {
            let ContractDim::Named { path, condition } = dim else {
                out.push(Entry::Any);
                continue;
            };
            if let Some(condition) = condition
                && !self.condition(scope, condition)?
            {
                continue;
            }
            let name = dotted(path);
            let span = self.span(scope, path);
            if let Some(Value::Dim(bound)) = scope.get(&name) {
                out.push(Entry::Fixed(bound.clone()));
                continue;
            }
            match self.find_path(scope.instance, path) {
                Some(Found::Dim(_, d)) if matches!(d.value, DimValue::Free) => out.push(Entry::Free(name)),
                Some(Found::Dim(instance, d)) => out.push(Entry::Fixed(self.dim(instance, d, span)?)),
                _ => {
                    let mut error = Diagnostic::error(format!("there is no dim `{name}`")).at(span, "not found");
                    if let Some(near) = nearest(&name, self.file(scope.instance).dims.keys().map(String::as_str)) {
                        error = error.help(format!("did you mean `{near}`?"));
                    }
                    let help =
                        format!("declare it: `dims! {{ {name} = .. }}`, or `{name}: free` for a new size at each call");
                    return Err(error.help(help).into());
                }
            }
        }
        Ok(out)
    }

    fn contract_dtype(&self, scope: &Scope<'a>, contract: &TensorContract) -> Eval<'a, DType> {
        let Some(ident) = &contract.dtype else { return Ok(DType::Work) };
        if ident == crate::vocabulary::STREAM {
            return Ok(self.stream());
        }
        ident.to_string().parse().map_err(|e: String| Diagnostic::error(e).at(self.span(scope, ident), "").into())
    }

    /// The type that a contract without free dims or `..` spells out: what a feed is. Its size is for the caller to check:
    /// an optional input may have no elements.
    pub fn feed_type(&mut self, scope: &mut Scope<'a>, ty: &'a syn::TypeMacro) -> Eval<'a, TensorType> {
        let span = self.span(scope, ty);
        let Some(contract) = self.file(scope.instance).contracts.get(&span.start) else {
            return Err(Diagnostic::error("this type does not read").at(span, "").into());
        };
        let dtype = self.contract_dtype(scope, contract)?;
        let mut out = TensorType::scalar(dtype);
        for entry in self.entries(scope, contract)? {
            match entry {
                Entry::Fixed(dim) if out.position(&dim.name).is_none() => out.dims.push(dim),
                Entry::Fixed(dim) => {
                    return Err(Diagnostic::error(format!("dim {} stands twice", dim.name)).at(span, "").into());
                }
                Entry::Any | Entry::Free(_) => {
                    return Err(Diagnostic::error("an input of a task has one fixed type")
                        .at(span, "`..` and free dims have no size here")
                        .into());
                }
            }
        }
        Ok(out)
    }
}

fn written(entries: &[Entry], dtype: DType) -> String {
    let entry = |e: &Entry| match e {
        Entry::Any => "..".into(),
        Entry::Free(name) => name.clone(),
        Entry::Fixed(dim) => dim.to_string(),
    };
    format!("{dtype}[{}]", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
}
