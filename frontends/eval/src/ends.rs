//! The byte range of an expression from its first and last token: operators nest as deep as there are of them in a row, and
//! the tokens of all that are inside would be walked for each.

use crate::span::span_of;
use diag::{SourceId, Span};
use syn::Expr;

pub fn of_expr(source: SourceId, e: &Expr) -> Span {
    let (first, last) = (span_of(source, first(e)), last(source, e));
    Span::new(source, first.start as usize, last as usize)
}

pub fn of_binary(source: SourceId, binary: &syn::ExprBinary) -> Span {
    if !binary.attrs.is_empty() {
        return span_of(source, binary);
    }
    let (first, last) = (of_expr(source, &binary.left), of_expr(source, &binary.right));
    Span::new(source, first.start as usize, last.end as usize)
}

pub fn of_unary(source: SourceId, unary: &syn::ExprUnary) -> Span {
    if !unary.attrs.is_empty() {
        return span_of(source, unary);
    }
    let (first, last) = (span_of(source, &unary.op), last(source, &unary.expr));
    Span::new(source, first.start as usize, last as usize)
}

/// What an expression begins with.
fn first(mut e: &Expr) -> &Expr {
    loop {
        e = match e {
            Expr::Binary(inner) if inner.attrs.is_empty() => &inner.left,
            Expr::MethodCall(inner) if inner.attrs.is_empty() => &inner.receiver,
            Expr::Field(inner) if inner.attrs.is_empty() => &inner.base,
            Expr::Index(inner) if inner.attrs.is_empty() => &inner.expr,
            Expr::Cast(inner) if inner.attrs.is_empty() => &inner.expr,
            _ => return e,
        };
    }
}

/// Where an expression ends.
fn last(source: SourceId, mut e: &Expr) -> u32 {
    loop {
        e = match e {
            Expr::Binary(inner) => &inner.right,
            Expr::Unary(inner) => &inner.expr,
            Expr::Reference(inner) => &inner.expr,
            Expr::MethodCall(inner) => return end(source, inner.paren_token.span.close()),
            Expr::Call(inner) => return end(source, inner.paren_token.span.close()),
            Expr::Index(inner) => return end(source, inner.bracket_token.span.close()),
            Expr::Paren(inner) => return end(source, inner.paren_token.span.close()),
            Expr::Cast(inner) => return span_of(source, &inner.ty).end,
            Expr::Field(inner) => return span_of(source, &inner.member).end,
            _ => return span_of(source, e).end,
        };
    }
}

fn end(source: SourceId, span: proc_macro2::Span) -> u32 {
    crate::span::span_in(source, span).end
}
