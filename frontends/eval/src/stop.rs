//! Why evaluation leaves an expression early: an error, or `return`.

use diag::Diagnostic;

use crate::value::Value;

pub enum Stop<'a> {
    Error(Box<Diagnostic>),
    Return(Box<Value<'a>>),
}

pub type Eval<'a, T> = Result<T, Stop<'a>>;

impl From<Diagnostic> for Stop<'_> {
    fn from(diagnostic: Diagnostic) -> Self {
        Stop::Error(Box::new(diagnostic))
    }
}
