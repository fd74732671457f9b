//! Patterns: `let` and its destructuring, `match` arms, and assignment to places.

use diag::{Diagnostic, Span};
use syn::punctuated::Punctuated;
use syn::{Expr, Pat, Token};

use crate::evaluator::{Evaluator, Found, Scope};
use crate::stop::Eval;
use crate::value::{Bound, Value, real, same};

impl<'a> Evaluator<'a> {
    /// Binds a pattern that must match.
    pub fn bind(&mut self, scope: &mut Scope<'a>, pattern: &'a Pat, value: Value<'a>) -> Eval<'a, ()> {
        let described = value.describe();
        if self.matches(scope, pattern, value)? {
            return Ok(());
        }
        Err(Diagnostic::error(format!("{described} does not fit this pattern"))
            .at(self.span(scope, pattern), "")
            .into())
    }

    /// Whether `value` has the pattern's form; binds its names if so.
    pub fn matches(&mut self, scope: &mut Scope<'a>, pattern: &'a Pat, value: Value<'a>) -> Eval<'a, bool> {
        self.step(scope, pattern)?;
        let span = self.span(scope, pattern);
        match pattern {
            Pat::Wild(_) => Ok(true),
            Pat::Ident(ident) => {
                let name = ident.ident.to_string();
                if name == "None" {
                    return Ok(matches!(value, Value::Option(None)));
                }
                if ident.subpat.is_none()
                    && let Some(Found::Constant(..) | Found::Dim(..)) = self.find(scope.instance, &name)
                {
                    let known = self.number_at(scope.instance, &ident.ident.clone().into(), span)?;
                    return Ok(known.is_some_and(|k| same(&k, &value)));
                }
                if let Some((_, inner)) = &ident.subpat
                    && !self.matches(scope, inner, value.clone())?
                {
                    return Ok(false);
                }
                scope.set(name, value);
                Ok(true)
            }
            Pat::Paren(inner) => self.matches(scope, &inner.pat, value),
            Pat::Reference(inner) => self.matches(scope, &inner.pat, value),
            Pat::Type(typed) => {
                let value = self.check_type(scope, &typed.ty, value, span)?;
                self.matches(scope, &typed.pat, value)
            }
            Pat::Tuple(tuple) => match &value {
                Value::Tuple(items) => self.sequence(scope, &tuple.elems, items, span),
                _ => Ok(false),
            },
            Pat::Slice(slice) => match &value {
                Value::Array(items) => self.sequence(scope, &slice.elems, items, span),
                _ => Ok(false),
            },
            Pat::TupleStruct(s) if s.path.is_ident("Some") => match (&value, s.elems.first()) {
                (Value::Option(Some(inner)), Some(p)) if s.elems.len() == 1 => {
                    self.matches(scope, p, (**inner).clone())
                }
                _ => Ok(false),
            },
            Pat::Struct(s) => self.fields(scope, s, &value),
            Pat::Or(or) => {
                for case in &or.cases {
                    let outer = scope.vars.len();
                    if self.matches(scope, case, value.clone())? {
                        return Ok(true);
                    }
                    scope.vars.truncate(outer);
                }
                Ok(false)
            }
            Pat::Lit(lit) => {
                let known = self.literal_value(scope, lit)?;
                Ok(same(&known, &value))
            }
            Pat::Path(path) => {
                let known = self.number_at(scope.instance, &path.path, span)?;
                Ok(known.is_some_and(|k| same(&k, &value)))
            }
            Pat::Range(range) => {
                let Some(at) = real(&value) else { return Ok(false) };
                let mut bound = |e: &'a Option<Box<Expr>>| -> Eval<'a, Option<f64>> {
                    match e {
                        Some(e) => Ok(real(&self.expr(scope, e)?)),
                        None => Ok(None),
                    }
                };
                let (start, end) = (bound(&range.start)?, bound(&range.end)?);
                let closed = matches!(range.limits, syn::RangeLimits::Closed(_));
                let above = start.is_none_or(|s| at >= s);
                Ok(above && end.is_none_or(|e| if closed { at <= e } else { at < e }))
            }
            _ => Err(Diagnostic::error("this pattern is not in the subset of .mm files")
                .at(span, "")
                .help("patterns are names, `_`, tuples, arrays, structs, `Some(..)`, `None`, literals and ranges")
                .into()),
        }
    }

    fn literal_value(&mut self, scope: &mut Scope<'a>, lit: &'a syn::PatLit) -> Eval<'a, Value<'a>> {
        Ok(match &lit.lit {
            syn::Lit::Int(i) => Value::Int(i.base10_parse().unwrap_or(i64::MAX)),
            syn::Lit::Float(f) => Value::Float(f.base10_parse().unwrap_or(f64::NAN)),
            syn::Lit::Bool(b) => Value::Bool(b.value),
            syn::Lit::Str(s) => Value::Str(s.value().into()),
            other => {
                return Err(Diagnostic::error("a pattern's literal is a number, a text, `true` or `false`")
                    .at(self.span(scope, other), "")
                    .into());
            }
        })
    }

    fn sequence(
        &mut self,
        scope: &mut Scope<'a>,
        patterns: &'a Punctuated<Pat, Token![,]>,
        items: &[Value<'a>],
        span: Span,
    ) -> Eval<'a, bool> {
        let rest = patterns.iter().position(|p| matches!(p, Pat::Rest(_)));
        let fits = match rest {
            Some(_) => items.len() + 1 >= patterns.len(),
            None => items.len() == patterns.len(),
        };
        if !fits {
            return Err(Diagnostic::error(format!("{} names for {} items", patterns.len(), items.len()))
                .at(span, format!("there are {} items", items.len()))
                .into());
        }
        let before = rest.unwrap_or(patterns.len());
        let after = patterns.len() - before - usize::from(rest.is_some());
        let values = items[..before].iter().chain(&items[items.len() - after..]);
        let named = patterns.iter().filter(|p| !matches!(p, Pat::Rest(_)));
        for (pattern, value) in named.zip(values) {
            if !self.matches(scope, pattern, value.clone())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fields(&mut self, scope: &mut Scope<'a>, s: &'a syn::PatStruct, value: &Value<'a>) -> Eval<'a, bool> {
        let Value::Struct(found) = value else { return Ok(false) };
        for field in &s.fields {
            let at = self.span(scope, &field.member);
            let syn::Member::Named(name) = &field.member else {
                return Err(Diagnostic::error("fields have names").at(at, "").into());
            };
            let Some(value) = found.field(&name.to_string()).cloned() else {
                return Err(Diagnostic::error(format!("`{}` has no field `{name}`", found.kind.name()))
                    .at(at, "")
                    .into());
            };
            if !self.matches(scope, &field.pat, value)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Assignment to a variable, or to a tuple or array of them.
    pub fn assign(&mut self, scope: &mut Scope<'a>, place: &'a Expr, value: Value<'a>) -> Eval<'a, ()> {
        let span = self.span(scope, place);
        match (place, &value) {
            (Expr::Paren(inner), _) => self.assign(scope, &inner.expr, value),
            (Expr::Tuple(syn::ExprTuple { elems, .. }), Value::Tuple(items))
            | (Expr::Array(syn::ExprArray { elems, .. }), Value::Array(items))
                if elems.len() == items.len() =>
            {
                let items = items.clone();
                elems.iter().zip(items.iter()).try_for_each(|(e, item)| self.assign(scope, e, item.clone()))
            }
            (Expr::Infer(_), _) => Ok(()),
            (Expr::Path(path), _) => {
                let name = path.path.get_ident().map(ToString::to_string).unwrap_or_default();
                match scope.vars.iter().rposition(|(n, _)| *n == name) {
                    Some(i) if i >= scope.floor => {
                        scope.vars[i].1 = value;
                        Ok(())
                    }
                    Some(_) => Err(Diagnostic::error(format!("a closure cannot assign `{name}`"))
                        .at(span, "declared outside of the closure")
                        .help("return the new value from the closure")
                        .into()),
                    None => Err(Diagnostic::error(format!("there is no variable `{name}`"))
                        .at(span, "")
                        .help(format!("declare it: `let mut {name} = ..`"))
                        .into()),
                }
            }
            _ => Err(Diagnostic::error(format!("{} cannot be assigned to this", value.describe()))
                .at(span, "")
                .help("assign to a variable, or to a tuple of variables")
                .into()),
        }
    }
}

impl Bound {
    pub fn f64(self) -> f64 {
        match self {
            Bound::Int(v) => v as f64,
            Bound::Float(v) => v,
        }
    }
}
