//! The sizes of dims and the values of constants, under the preset and `--set`.

use diag::{Diagnostic, PlaceId, Span};
use syn::visit::Visit;
use syn::{Expr, Type};
use types::{Dim, Name};

use crate::evaluator::{Callee, Evaluator, Found, Number, Scope};
use crate::file::File;
use crate::instance::InstanceId;
use crate::macros::{BATCH, DimDeclaration, DimValue, dotted};
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::suggest::{listed, nearest};
use crate::value::{Value, whole};

/// One axis, not a whole tensor: 2^40, so that products of two stay inside 64 bits for messages.
const MAX_SIZE: i64 = 1 << 40;

/// The position of the preset asked for; the first is the default.
pub fn choose_preset(file: &File, asked: Option<&str>) -> Result<Option<usize>, Diagnostic> {
    let Some(asked) = asked else { return Ok((!file.presets.is_empty()).then_some(0)) };
    let names = || file.presets.iter().map(|p| p.name.as_str());
    match names().position(|n| n == asked) {
        Some(i) => Ok(Some(i)),
        None if file.presets.is_empty() => {
            Err(Diagnostic::error(format!("there is no preset `{asked}`: this model has no presets")))
        }
        None => {
            let mut error = Diagnostic::error(format!("there is no preset `{asked}`"));
            if let Some(near) = nearest(asked, names()) {
                error = error.help(format!("did you mean `{near}`?"));
            }
            Err(error.help(format!("the presets are {}", listed(names()))))
        }
    }
}

impl<'a> Evaluator<'a> {
    /// That every name of `--set` and of the presets is a dim or constant that may be set.
    pub fn check_settings(&self) -> Result<(), Vec<Diagnostic>> {
        let main = self.file(InstanceId::MODEL);
        let mut errors = vec![];
        for (name, _) in &self.options.set {
            errors.extend(self.check_setting(name, None).err());
        }
        if self.options.batch.is_some() {
            let known = main.dims.contains_key(BATCH);
            let missing = || {
                Diagnostic::error(format!("--batch is the size of `{BATCH}`, and this model has no such dim"))
                    .help(format!("declare `{BATCH}` in `dims!`, first in every feed, or leave the flag out"))
            };
            errors.extend(if known { self.check_setting(BATCH, None).err() } else { Some(missing()) });
        }
        for preset in &main.presets {
            for (path, _) in &preset.values {
                errors.extend(self.check_setting(&dotted(path), Some(span_of(main.source, path))).err());
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Why a name cannot be set, if it cannot. Names of instances are `visual.HEADS`.
    pub fn check_setting(&self, full: &str, at: Option<Span>) -> Result<(), Diagnostic> {
        let place = |error: Diagnostic| match at {
            Some(span) => error.at(span, ""),
            None => error,
        };
        let follows = |declared: Span, what: &str, instance: InstanceId, names: &[String]| {
            let names: Vec<String> = names.iter().map(|name| self.instances.full_name(instance, name)).collect();
            Err(place(Diagnostic::error(format!("`{full}` cannot be set: it follows from others")))
                .at(declared, what)
                .help(format!("set {} instead", listed(names.iter().map(String::as_str)))))
        };
        if let Some((instance, name)) = self.instances.named(full) {
            let file = self.file(instance);
            let dim = file.dims.get(&name);
            if let Some(d) = dim.filter(|d| matches!(d.value, DimValue::Free)) {
                let span = span_of(file.source, &d.ident);
                return Err(place(Diagnostic::error(format!("`{full}` cannot be set")))
                    .at(span, "a free dim has a new size at each call"));
            }
            let known = dim.is_some() || file.constants.contains_key(&name);
            if known && instance != InstanceId::MODEL && name == BATCH {
                return Err(place(Diagnostic::error(format!("`{full}` is the model's `{BATCH}`")))
                    .help(format!("set `{BATCH}`, or give --batch")));
            }
            if let Some((ident, e)) = self.instances.given(instance, &name)
                && let names = names_in(e)
                && !names.is_empty()
            {
                let user = self.instances[instance].user;
                return follows(self.span_in(user, ident), "given here", user, &names);
            }
            if let Some(DimDeclaration { ident, value: DimValue::Computed(e), .. }) = dim
                && let names = names_in(e)
                && !names.is_empty()
            {
                return follows(span_of(file.source, ident), "computed here", instance, &names);
            }
            if known {
                return Ok(());
            }
        }
        let main = self.file(InstanceId::MODEL);
        let own = || main.dims.keys().chain(main.constants.keys()).map(String::as_str);
        let instances = self.instances.iter().skip(1).filter(|_| full.contains('.')).flat_map(|(id, instance)| {
            let dims =
                instance.file.dims.iter().filter(|(name, d)| *name != BATCH && !matches!(d.value, DimValue::Free));
            let names = dims.map(|(name, _)| name).chain(instance.file.constants.keys());
            let open = names.filter(move |name| self.instances.given(id, name).is_none());
            open.map(move |name| self.instances.full_name(id, name))
        });
        let instances: Vec<String> = instances.collect();
        let mut error = place(Diagnostic::error(format!("there is no dim or constant `{full}` to set")));
        if let Some(near) = nearest(full, own().chain(instances.iter().map(String::as_str))) {
            error = error.help(format!("did you mean `{near}`?"));
        }
        let error = error.help(format!("there are {}", listed(own().chain(instances.iter().map(String::as_str)))));
        let names = self.instances.iter().skip(1).map(|(_, instance)| instance.name.as_str());
        let names: Vec<&str> = names.filter(|_| full.contains('.')).collect();
        let is_instance = full.rsplit_once('.').is_some_and(|(of, _)| names.contains(&of));
        Err(match names.is_empty() || is_instance {
            true => error,
            false => error.help(format!("instances are {}", listed(names))),
        })
    }

    pub fn dim(&mut self, instance: InstanceId, declared: &'a DimDeclaration, used: Span) -> Eval<'a, Dim> {
        let name = declared.ident.to_string();
        let value = self.number(instance, &name, used, |this| this.compute_dim(instance, declared, used))?;
        match value {
            Value::Dim(dim) => Ok(dim),
            other => Err(Diagnostic::error(format!("`{name}` is {}", other.describe())).at(used, "").into()),
        }
    }

    fn compute_dim(&mut self, instance: InstanceId, declared: &'a DimDeclaration, used: Span) -> Eval<'a, Value<'a>> {
        let own = declared.ident.to_string();
        let at = self.span_in(instance, &declared.ident);
        if own == BATCH
            && instance != InstanceId::MODEL
            && let Some(Found::Dim(_, batch)) = self.find(InstanceId::MODEL, BATCH)
        {
            return Ok(Value::Dim(self.dim(InstanceId::MODEL, batch, used)?));
        }
        let name = self.instances.full_name(instance, &own);
        let value = match (self.setting(&name)?, self.instances.given(instance, &own), &declared.value) {
            (Some(value), ..) => value,
            (None, Some((ident, e)), value) => {
                let user = self.instances[instance].user;
                let given = self.expr(&mut Scope::new(user, PlaceId::NONE), e)?;
                let place = self.span_in(user, ident);
                self.check_formula(instance, &name, value, &given, (place, at))?;
                // A dim is given as it is: it stays the using file's axis.
                if let Value::Dim(dim) = given {
                    return Ok(Value::Dim(dim));
                }
                given
            }
            (None, None, DimValue::Computed(e)) => self.expr(&mut Scope::new(instance, PlaceId::NONE), e)?,
            (None, None, DimValue::Given) if name == BATCH => self.samples(self.options.default_batch.max(1))?,
            (None, None, DimValue::Given) => return Err(self.without_size(instance, &name, at, used).into()),
            (None, None, DimValue::Free) => {
                return Err(Diagnostic::error(format!("`{name}` has no size here"))
                    .at(used, "")
                    .at(at, "a free dim has a size only where a signature binds it")
                    .into());
            }
        };
        let size = match value {
            Value::Int(v) => v,
            Value::Dim(d) => d.size as i64,
            other => {
                return Err(Diagnostic::error(format!("the size of `{name}` is {}", other.describe()))
                    .at(at, "expected a whole number")
                    .into());
            }
        };
        if !(0..=MAX_SIZE).contains(&size) {
            let what = if size < 0 { "negative" } else { "more than 2^40" };
            return Err(Diagnostic::error(format!("`{name}` is {size}, which is {what}")).at(at, "").into());
        }
        if size == 0 {
            self.trace.empty_dims.insert(Name::new(&name), at);
        }
        Ok(Value::Dim(Dim { name: Name::from(name), size: size as usize }))
    }

    /// What is given for a dim that follows from others has the size that they make.
    fn check_formula(
        &mut self,
        instance: InstanceId,
        name: &str,
        declared: &'a DimValue,
        given: &Value<'a>,
        (place, at): (Span, Span),
    ) -> Eval<'a, ()> {
        let DimValue::Computed(e) = declared else { return Ok(()) };
        if names_in(e).is_empty() {
            return Ok(());
        }
        let computed = self.expr(&mut Scope::new(instance, PlaceId::NONE), e)?;
        match (whole(&computed), whole(given)) {
            (Some(computed), Some(given)) if computed != given => Err(Diagnostic::error(format!(
                "`{name}` is given as {given}, and {computed} follows from its other dims"
            ))
            .at(place, "given here")
            .at(at, "computed here")
            .into()),
            _ => Ok(()),
        }
    }

    fn without_size(&self, instance: InstanceId, name: &str, at: Span, used: Span) -> Diagnostic {
        let mut error = Diagnostic::error(format!("`{name}` has no size")).at(at, "declared without one");
        if used != at {
            error = error.at(used, "needed here");
        }
        let of = &self.instances[instance];
        let Some((local, own)) = of.name.rsplit('.').next().zip(name.rsplit('.').next()) else { return error };
        if instance == InstanceId::MODEL {
            return error.help(format!("give one with `--set {name}=..`, or choose a preset that does"));
        }
        if own == BATCH {
            return error.help(format!("declare `{BATCH}` in the model's `dims!`"));
        }
        let brought = self.file(of.user).module(local);
        let error = brought.into_iter().fold(error, |error, (brought, _)| error.at(brought, "the instance"));
        error.help(format!("give it where the file is used: `instances! {{ {local} {{ {own} = .. }} }}`"))
    }

    pub fn constant(&mut self, instance: InstanceId, declared: &'a syn::ItemConst, used: Span) -> Eval<'a, Value<'a>> {
        let name = declared.ident.to_string();
        self.number(instance, &name, used, |this| {
            let own = this.expr(&mut Scope::new(instance, PlaceId::NONE), &declared.expr)?;
            if let Some(value) = this.constant_setting(&this.instances.full_name(instance, &name), declared)? {
                return this.coerce_number(value, &declared.ty, this.span_in(instance, &declared.expr));
            }
            let Some((ident, e)) = this.instances.given(instance, &name) else {
                return this.coerce_number(own, &declared.ty, this.span_in(instance, &declared.expr));
            };
            let user = this.instances[instance].user;
            let given = this.expr(&mut Scope::new(user, PlaceId::NONE), e)?;
            let at = this.span_in(user, ident);
            let choices = choices(&declared.expr);
            match &given {
                Value::Str(text) if !choices.is_empty() && !choices.iter().any(|choice| **choice == **text) => {
                    let choices = listed(choices.iter().map(String::as_str));
                    Err(Diagnostic::error(format!("`{name}` takes one of {choices}, this is {}", given.describe()))
                        .at(at, "given here")
                        .into())
                }
                _ => this.coerce_number(given, &declared.ty, at),
            }
        })
    }

    fn number(
        &mut self,
        instance: InstanceId,
        name: &str,
        used: Span,
        compute: impl FnOnce(&mut Self) -> Eval<'a, Value<'a>>,
    ) -> Eval<'a, Value<'a>> {
        let key = (instance, name.to_string());
        match self.numbers.get(&key) {
            Some(Number::Done(value)) => return Ok(value.clone()),
            Some(Number::Pending) => {
                return Err(Diagnostic::error(format!("`{name}` depends on itself")).at(used, "").into());
            }
            None => {}
        }
        self.numbers.insert(key.clone(), Number::Pending);
        let value = self.nested(Callee { name, declared: used }, used, compute)?;
        self.numbers.insert(key, Number::Done(value.clone()));
        Ok(value)
    }

    /// The value of a dim under `--set`, the config or the preset.
    fn setting(&mut self, name: &str) -> Eval<'a, Option<Value<'a>>> {
        if let Some((_, text)) = self.options.set.iter().rev().find(|(n, _)| n == name) {
            let value = text.trim().replace('_', "").parse::<i64>();
            return value
                .map(|v| Some(Value::Int(v)))
                .map_err(|_| Diagnostic::error(format!("`--set {name}={text}`: a dim takes a whole number")).into());
        }
        if let Some(batch) = self.options.batch.filter(|_| name == BATCH) {
            return Ok(Some(self.samples(batch)?));
        }
        match self.published_value(name)? {
            Some(value) => Ok(Some(value)),
            None => self.preset_value(name),
        }
    }

    /// The samples of a data group.
    fn samples(&self, batch: usize) -> Eval<'a, Value<'a>> {
        let groups = self.groups().unwrap_or(1);
        if !batch.is_multiple_of(groups) {
            return Err(Diagnostic::error(format!("{batch} samples do not fall into {groups} equal data groups"))
                .note("a model with ragged axes computes the micro-batch of each replica for itself")
                .help(format!("give --batch a multiple of {groups}"))
                .into());
        }
        Ok(Value::Int(i64::try_from(batch / groups).unwrap_or(i64::MAX)))
    }

    fn preset_value(&mut self, name: &str) -> Eval<'a, Option<Value<'a>>> {
        let file = self.file(InstanceId::MODEL);
        let Some(preset) = self.preset.and_then(|i| file.presets.get(i)) else { return Ok(None) };
        match preset.values.iter().find(|(path, _)| dotted(path) == name) {
            Some((_, e)) => Ok(Some(self.expr(&mut Scope::new(InstanceId::MODEL, PlaceId::NONE), e)?)),
            None => Ok(None),
        }
    }

    fn constant_setting(&mut self, name: &str, declared: &'a syn::ItemConst) -> Eval<'a, Option<Value<'a>>> {
        let Some((_, text)) = self.options.set.iter().rev().find(|(n, _)| n == name) else {
            return match self.published_value(name)? {
                Some(value) => Ok(Some(value)),
                None => self.preset_value(name),
            };
        };
        let refuse = |expected: &str| -> Stop<'a> {
            Diagnostic::error(format!("`--set {name}={text}`: `{name}` takes {expected}")).into()
        };
        let value = match type_name(&declared.ty).as_deref() {
            Some("bool") => match text.as_str() {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => return Err(refuse("`true` or `false`")),
            },
            Some("str") => {
                let choices = choices(&declared.expr);
                if !choices.is_empty() && !choices.contains(text) {
                    return Err(refuse(&format!("one of {}", listed(choices.iter().map(String::as_str)))));
                }
                Value::Str(text.as_str().into())
            }
            Some("[i64]") => {
                let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
                let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
                let items = items.map(|item| item.parse().map(Value::Int));
                let items: Result<Vec<_>, _> = items.collect();
                Value::array(items.map_err(|_| refuse("whole numbers with commas between them"))?)
            }
            Some("f64") => match text.parse::<f64>() {
                Ok(v) if v.is_finite() => Value::Float(v),
                _ => return Err(refuse("a number")),
            },
            _ => Value::Int(text.parse().map_err(|_| refuse("a whole number"))?),
        };
        Ok(Some(value))
    }

    /// A constant in its declared type.
    fn coerce_number(&self, value: Value<'a>, ty: &Type, at: Span) -> Eval<'a, Value<'a>> {
        let name = type_name(ty);
        match (name.as_deref(), &value) {
            (Some("f64"), Value::Float(_))
            | (Some("bool"), Value::Bool(_))
            | (Some("str"), Value::Str(_))
            | (Some("i64"), Value::Int(_)) => Ok(value),
            (Some("[i64]"), Value::Array(items)) if items.iter().all(|item| matches!(item, Value::Int(_))) => Ok(value),
            (Some(known @ ("f64" | "bool" | "str" | "i64" | "[i64]")), other) => {
                Err(Diagnostic::error(format!("expected `{known}`, found {}", other.describe())).at(at, "").into())
            }
            _ => Err(Diagnostic::error("a constant is an `f64`, `i64`, `bool`, `&str` or `&[i64]`")
                .at(at, "")
                .help("sizes of axes are declared in `dims!`")
                .into()),
        }
    }

    /// A dim or constant by its path, `visual::HEADS`.
    pub fn number_at(&mut self, from: InstanceId, path: &syn::Path, used: Span) -> Eval<'a, Option<Value<'a>>> {
        match self.find_path(from, path) {
            Some(Found::Dim(at, d)) => Ok(Some(Value::Dim(self.dim(at, d, used)?))),
            Some(Found::Constant(at, c)) => Ok(Some(self.constant(at, c, used)?)),
            _ => Ok(None),
        }
    }
}

/// The last word of a type, `str` for `&str` and `&'static str`, `[i64]` for `&[i64]`.
pub fn type_name(ty: &Type) -> Option<String> {
    match ty {
        Type::Reference(r) => type_name(&r.elem),
        Type::Path(p) => p.path.segments.last().map(|s| s.ident.to_string()),
        Type::Paren(p) => type_name(&p.elem),
        Type::Slice(s) => Some(format!("[{}]", type_name(&s.elem)?)),
        _ => None,
    }
}

/// The texts of `one_of(["a", "b"])`.
pub fn choices(e: &Expr) -> Vec<String> {
    let Expr::Call(call) = e else { return vec![] };
    let Some(Expr::Array(array)) = call.args.first() else { return vec![] };
    let text = |e: &Expr| match e {
        Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(s), .. }) => Some(s.value()),
        _ => None,
    };
    array.elems.iter().filter_map(text).collect()
}

/// Names that an expression mentions.
fn names_in(e: &Expr) -> Vec<String> {
    struct Names(Vec<String>);
    impl Visit<'_> for Names {
        fn visit_expr_path(&mut self, p: &syn::ExprPath) {
            if let Some(ident) = p.path.get_ident() {
                self.0.push(ident.to_string());
            }
        }
    }
    let mut names = Names(vec![]);
    names.visit_expr(e);
    names.0.dedup();
    names.0
}
