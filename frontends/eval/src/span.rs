//! Byte ranges of syntax.

use diag::{SourceId, Span};
use syn::spanned::Spanned;

/// The byte range of a piece of syntax.
pub fn span_of(source: SourceId, syntax: &impl Spanned) -> Span {
    span_in(source, syntax.span())
}

pub fn span_in(source: SourceId, span: proc_macro2::Span) -> Span {
    let range = span.byte_range();
    Span::new(source, range.start, range.end)
}
