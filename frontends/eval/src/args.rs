//! The arguments of a call of the vocabulary, read as what the callee expects.

use diag::{Diagnostic, Span};
use types::{DType, Dim, Name};

use crate::stop::{Eval, Stop};
use crate::trace::Site;
use crate::value::{Bound, Value, real, whole};

pub struct Args<'a> {
    /// The callee as messages call it.
    pub name: String,
    pub site: Site,
    pub items: Vec<(Value<'a>, Span)>,
}

impl<'a> Args<'a> {
    /// That there are `count` arguments; `form` shows how to write the call.
    pub fn expect(&self, count: usize, form: &str) -> Eval<'a, ()> {
        if self.items.len() == count {
            return Ok(());
        }
        let s = if count == 1 { "" } else { "s" };
        let here = match self.items.len() {
            1 => "here is 1".into(),
            n => format!("here are {n}"),
        };
        Err(Diagnostic::error(format!("`{}` takes {count} argument{s}, {here}", self.name))
            .at(self.site.span, "")
            .help(format!("write `{form}`"))
            .into())
    }

    pub fn get(&self, i: usize) -> Eval<'a, (Value<'a>, Span)> {
        self.items.get(i).cloned().ok_or_else(|| {
            Diagnostic::error(format!("`{}` lacks an argument", self.name)).at(self.site.span, "").into()
        })
    }

    pub fn span(&self, i: usize) -> Span {
        self.items.get(i).map_or(self.site.span, |(_, s)| *s)
    }

    fn wrong(&self, i: usize, expected: &str) -> Stop<'a> {
        let found = self.items.get(i).map_or("nothing".into(), |(v, _)| v.describe());
        Diagnostic::error(format!("`{}` expects {expected}, found {found}", self.name)).at(self.span(i), "").into()
    }

    pub fn dim(&self, i: usize) -> Eval<'a, Dim> {
        match self.get(i)?.0 {
            Value::Dim(dim) => Ok(dim),
            Value::Int(n) => Err(Diagnostic::error(format!("`{}` expects a dim, found the number {n}", self.name))
                .at(self.span(i), "a size without a name")
                .help("axes are named: declare it in `dims!`")
                .into()),
            _ => Err(self.wrong(i, "a dim")),
        }
    }

    pub fn dims(&self, i: usize) -> Eval<'a, Vec<Dim>> {
        let (Value::Array(items), span) = self.get(i)? else { return Err(self.wrong(i, "a list of dims, `[A, B]`")) };
        let inner =
            Args { name: self.name.clone(), site: self.site, items: items.iter().map(|v| (v.clone(), span)).collect() };
        (0..items.len()).map(|k| inner.dim(k)).collect()
    }

    pub fn names(&self, i: usize) -> Eval<'a, Vec<Name>> {
        Ok(self.dims(i)?.into_iter().map(|d| d.name).collect())
    }

    pub fn number(&self, i: usize) -> Eval<'a, f64> {
        real(&self.get(i)?.0).ok_or_else(|| self.wrong(i, "a number"))
    }

    /// A whole number from 0.
    pub fn count(&self, i: usize) -> Eval<'a, usize> {
        let n = whole(&self.get(i)?.0).ok_or_else(|| self.wrong(i, "a whole number"))?;
        usize::try_from(n).map_err(|_| self.wrong(i, "a whole number from 0"))
    }

    pub fn dtype(&self, i: usize) -> Eval<'a, DType> {
        match self.get(i)?.0 {
            Value::DType(dtype) => Ok(dtype),
            _ => Err(self.wrong(i, "an element type such as `f32` or `work`")),
        }
    }

    pub fn text(&self, i: usize) -> Eval<'a, std::rc::Rc<str>> {
        match self.get(i)?.0 {
            Value::Str(text) => Ok(text),
            _ => Err(self.wrong(i, "a text")),
        }
    }

    /// `a..b` of real numbers.
    pub fn interval(&self, i: usize) -> Eval<'a, (f64, f64)> {
        if let Value::Range(range) = self.get(i)?.0
            && let (Some(start), Some(end)) = (range.start, range.end)
        {
            if start.f64() < end.f64() {
                return Ok((start.f64(), end.f64()));
            }
            let what = format!("the range {:?}..{:?} is empty", start.f64(), end.f64());
            return Err(Diagnostic::error(what).at(self.span(i), "").into());
        }
        Err(self.wrong(i, "a range such as `0.0..1.0`"))
    }

    /// Start and length of `a..b`, `a..` or `..b` within `size`.
    pub fn part(&self, i: usize, size: usize) -> Eval<'a, (usize, usize)> {
        let Value::Range(range) = self.get(i)?.0 else { return Err(self.wrong(i, "a range such as `1..3`")) };
        let at = |bound: Option<Bound>, otherwise: usize| match bound {
            None => Some(otherwise),
            Some(Bound::Int(v)) => usize::try_from(v).ok(),
            Some(Bound::Float(_)) => None,
        };
        let start = at(range.start, 0);
        let end = at(range.end, size).map(|e| e + usize::from(range.closed));
        match (start, end) {
            (Some(start), Some(end)) if start < end && end <= size => Ok((start, end - start)),
            (Some(start), Some(end)) => Err(Diagnostic::error(format!("`{}` of {start}..{end}", self.name))
                .at(self.span(i), format!("there are {size} elements"))
                .help("a part starts before it ends, and ends within the axis")
                .into()),
            _ => Err(self.wrong(i, "a range of whole numbers from 0")),
        }
    }

    pub fn array(&self, i: usize) -> Eval<'a, Vec<(Value<'a>, Span)>> {
        match self.get(i)? {
            (Value::Array(items) | Value::Tuple(items), span) => Ok(items.iter().map(|v| (v.clone(), span)).collect()),
            _ => Err(self.wrong(i, "an array")),
        }
    }
}
