//! The sizes of dims and the values of constants, under the preset and `--set`.

use diag::{Diagnostic, PlaceId, Span};
use syn::visit::Visit;
use syn::{Expr, Type};
use types::{Dim, Name};

use crate::evaluator::{Callee, Evaluator, Found, Number, Scope};
use crate::file::File;
use crate::macros::{DimDeclaration, DimValue};
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::suggest::{listed, nearest};
use crate::value::Value;

/// One axis, not a whole tensor: 2^40, so that products of two stay inside 64 bits for messages.
const MAX_SIZE: i64 = 1 << 40;

/// The dim of samples.
const BATCH: &str = "B";

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
        let main = &self.files[0];
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
            for (ident, _) in &preset.values {
                errors.extend(self.check_setting(&ident.to_string(), Some(span_of(main.source, ident))).err());
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Why a name cannot be set, if it cannot.
    pub fn check_setting(&self, name: &str, at: Option<Span>) -> Result<(), Diagnostic> {
        let main = &self.files[0];
        let place = |error: Diagnostic| match at {
            Some(span) => error.at(span, ""),
            None => error,
        };
        if let Some(d) = main.dims.get(name) {
            let span = span_of(main.source, &d.ident);
            return match &d.value {
                DimValue::Free => Err(place(Diagnostic::error(format!("`{name}` cannot be set")))
                    .at(span, "a free dim has a new size at each call")),
                DimValue::Computed(e) => match names_in(e).as_slice() {
                    [] => Ok(()),
                    names => Err(place(Diagnostic::error(format!("`{name}` cannot be set: it follows from others")))
                        .at(span, "computed here")
                        .help(format!("set {} instead", listed(names.iter().map(String::as_str))))),
                },
                DimValue::Given => Ok(()),
            };
        }
        if main.constants.contains_key(name) {
            return Ok(());
        }
        let known = || main.dims.keys().chain(main.constants.keys()).map(String::as_str);
        let mut error = place(Diagnostic::error(format!("there is no dim or constant `{name}` to set")));
        if let Some(near) = nearest(name, known()) {
            error = error.help(format!("did you mean `{near}`?"));
        }
        Err(error.help(format!("there are {}", listed(known()))))
    }

    pub fn dim(&mut self, file: usize, declared: &'a DimDeclaration, used: Span) -> Eval<'a, Dim> {
        let name = declared.ident.to_string();
        let value = self.number(file, &name, used, |this| this.compute_dim(file, declared, used))?;
        match value {
            Value::Dim(dim) => Ok(dim),
            other => Err(Diagnostic::error(format!("`{name}` is {}", other.describe())).at(used, "").into()),
        }
    }

    fn compute_dim(&mut self, file: usize, declared: &'a DimDeclaration, used: Span) -> Eval<'a, Value<'a>> {
        let name = declared.ident.to_string();
        let at = self.span_in(file, &declared.ident);
        let value = match (self.setting(file, &name)?, &declared.value) {
            (Some(value), _) => value,
            (None, DimValue::Computed(e)) => self.expr(&mut Scope::new(file, PlaceId::NONE), e)?,
            (None, DimValue::Given) if name == BATCH => {
                Value::Int(i64::try_from(self.options.default_batch.max(1)).unwrap_or(i64::MAX))
            }
            (None, DimValue::Given) => {
                let mut error = Diagnostic::error(format!("`{name}` has no size")).at(at, "declared without one");
                if used != at {
                    error = error.at(used, "needed here");
                }
                return Err(error
                    .help(format!("give one with `--set {name}=..`, or choose a preset that does"))
                    .into());
            }
            (None, DimValue::Free) => {
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

    pub fn constant(&mut self, file: usize, declared: &'a syn::ItemConst, used: Span) -> Eval<'a, Value<'a>> {
        let name = declared.ident.to_string();
        self.number(file, &name, used, |this| {
            let own = this.expr(&mut Scope::new(file, PlaceId::NONE), &declared.expr)?;
            let value = match this.constant_setting(file, &name, declared)? {
                Some(value) => value,
                None => own,
            };
            let at = this.span_in(file, &declared.expr);
            this.coerce_number(value, &declared.ty, at)
        })
    }

    fn number(
        &mut self,
        file: usize,
        name: &str,
        used: Span,
        compute: impl FnOnce(&mut Self) -> Eval<'a, Value<'a>>,
    ) -> Eval<'a, Value<'a>> {
        let key = (file, name.to_string());
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

    /// The value of a dim under `--set` or the preset.
    fn setting(&mut self, file: usize, name: &str) -> Eval<'a, Option<Value<'a>>> {
        if file != 0 {
            return Ok(None);
        }
        if let Some((_, text)) = self.options.set.iter().rev().find(|(n, _)| n == name) {
            let value = text.trim().replace('_', "").parse::<i64>();
            return value
                .map(|v| Some(Value::Int(v)))
                .map_err(|_| Diagnostic::error(format!("`--set {name}={text}`: a dim takes a whole number")).into());
        }
        if let Some(batch) = self.options.batch.filter(|_| name == BATCH) {
            return Ok(Some(Value::Int(i64::try_from(batch).unwrap_or(i64::MAX))));
        }
        match self.published_value(name)? {
            Some(value) => Ok(Some(value)),
            None => self.preset_value(name),
        }
    }

    fn preset_value(&mut self, name: &str) -> Eval<'a, Option<Value<'a>>> {
        let files = self.files;
        let Some(preset) = self.preset.and_then(|i| files[0].presets.get(i)) else { return Ok(None) };
        match preset.values.iter().find(|(n, _)| n == name) {
            Some((_, e)) => Ok(Some(self.expr(&mut Scope::new(0, PlaceId::NONE), e)?)),
            None => Ok(None),
        }
    }

    fn constant_setting(
        &mut self,
        file: usize,
        name: &str,
        declared: &'a syn::ItemConst,
    ) -> Eval<'a, Option<Value<'a>>> {
        if file != 0 {
            return Ok(None);
        }
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
            (Some(known @ ("f64" | "bool" | "str" | "i64")), other) => {
                Err(Diagnostic::error(format!("expected `{known}`, found {}", other.describe())).at(at, "").into())
            }
            _ => Err(Diagnostic::error("a constant is an `f64`, `i64`, `bool` or `&str`")
                .at(at, "")
                .help("sizes of axes are declared in `dims!`")
                .into()),
        }
    }

    /// A dim or constant by name, for messages and contracts.
    pub fn named_number(&mut self, file: usize, name: &str, used: Span) -> Eval<'a, Option<Value<'a>>> {
        match self.find(file, name) {
            Some(Found::Dim(at, d)) => Ok(Some(Value::Dim(self.dim(at, d, used)?))),
            Some(Found::Constant(at, c)) => Ok(Some(self.constant(at, c, used)?)),
            _ => Ok(None),
        }
    }
}

/// The last word of a type, `str` for `&str` and `&'static str`.
pub fn type_name(ty: &Type) -> Option<String> {
    match ty {
        Type::Reference(r) => type_name(&r.elem),
        Type::Path(p) => p.path.segments.last().map(|s| s.ident.to_string()),
        Type::Paren(p) => type_name(&p.elem),
        _ => None,
    }
}

/// The texts of `one_of(["a", "b"])`.
fn choices(e: &Expr) -> Vec<String> {
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
