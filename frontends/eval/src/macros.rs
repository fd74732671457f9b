//! The macros of the language: `dims!`, `instances!`, `presets!` and `Tensor![..]`.

use crate::span::span_in;
use diag::{Diagnostic, SourceId, Span};
use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, LitStr, Path, Token};

/// The dim of samples.
pub const BATCH: &str = "B";

/// `B` (given from outside), `T: free` (bound at each call), `L = F * H` or `PATCHES: ragged = 256` in `dims!`.
pub struct DimDeclaration {
    pub ident: Ident,
    /// Samples have any number of rows along it; its size is what a data group has room for.
    pub ragged: bool,
    pub value: DimValue,
}

pub enum DimValue {
    Given,
    Free,
    Computed(Box<Expr>),
}

pub struct Preset {
    pub name: String,
    /// Of dims and constants of the file, and of instances: `visual::HEADS`.
    pub values: Vec<(Path, Expr)>,
}

/// What `instances!` gives to one of them.
pub struct Settings {
    pub name: Ident,
    pub values: Vec<(Ident, Expr)>,
}

/// `Tensor![B, .., L if PER_TOKEN, DIM; f32]`.
pub struct TensorContract {
    pub dims: Vec<ContractDim>,
    pub dtype: Option<Ident>,
}

pub enum ContractDim {
    /// Any number of dims.
    Any,
    /// `L`, `visual::L`, `L if PER_TOKEN`.
    Named { path: Path, condition: Option<Box<Expr>> },
}

pub fn parse_dims(source: SourceId, whole: Span, tokens: TokenStream) -> Result<Vec<DimDeclaration>, Diagnostic> {
    let list = Punctuated::<DimDeclaration, Token![,]>::parse_terminated.parse2(tokens);
    list.map(|l| l.into_iter().collect()).map_err(|e| {
        Diagnostic::error(format!("`dims!` does not read: {e}"))
            .at(place(source, whole, e.span()), "")
            .help("write `dims! { B, S = 512, L = F * S, T: free }`")
    })
}

/// `owners! { PATCHES = rows(IMAGES, product(image_grid_thw)) }`: whose the rows along a ragged axis are.
pub fn parse_owners(source: SourceId, whole: Span, tokens: TokenStream) -> Result<Vec<(Ident, Expr)>, Diagnostic> {
    parse_pairs(source, whole, tokens, "owners! { PATCHES = rows(IMAGES, product(image_grid_thw)) }")
}

/// `aliases! { input_ids = ids }`.
pub fn parse_aliases(source: SourceId, whole: Span, tokens: TokenStream) -> Result<Vec<(Ident, Ident)>, Diagnostic> {
    parse_pairs(source, whole, tokens, "aliases! { input_ids = ids }")
}

/// `name = value, ..`; `form` shows how to write the macro.
fn parse_pairs<V: Parse>(
    source: SourceId,
    whole: Span,
    tokens: TokenStream,
    form: &str,
) -> Result<Vec<(Ident, V)>, Diagnostic> {
    let pair = |input: ParseStream<'_>| {
        let name: Ident = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok((name, input.parse()?))
    };
    let list = (|input: ParseStream<'_>| Punctuated::<_, Token![,]>::parse_terminated_with(input, pair)).parse2(tokens);
    list.map(|l| l.into_iter().collect()).map_err(|e| {
        let name = form.split(' ').next().unwrap_or_default();
        Diagnostic::error(format!("`{name}` does not read: {e}"))
            .at(place(source, whole, e.span()), "")
            .help(format!("write `{form}`"))
    })
}

/// `instances! { visual { DIM = V_DIM, HEADS = 16, EPS } }`, in which `EPS` is short for `EPS = EPS`.
pub fn parse_instances(source: SourceId, whole: Span, tokens: TokenStream) -> Result<Vec<Settings>, Diagnostic> {
    let list = Punctuated::<Settings, Token![,]>::parse_terminated.parse2(tokens);
    list.map(|l| l.into_iter().collect()).map_err(|e| {
        Diagnostic::error(format!("`instances!` does not read: {e}"))
            .at(place(source, whole, e.span()), "")
            .help("write `instances! { visual { DIM = V_DIM, HEADS = 16, EPS }, .. }`")
    })
}

/// A path as messages and settings have it: `visual.HEADS`.
pub fn dotted(path: &Path) -> String {
    path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>().join(".")
}

pub fn parse_presets(source: SourceId, whole: Span, tokens: TokenStream) -> Result<Vec<Preset>, Diagnostic> {
    let parser = |input: ParseStream<'_>| {
        let mut presets = vec![];
        while !input.is_empty() {
            let name: LitStr = input.parse()?;
            let body;
            syn::braced!(body in input);
            let pair = |input: ParseStream<'_>| {
                let path = Path::parse_mod_style(input)?;
                input.parse::<Token![=]>()?;
                Ok((path, input.parse::<Expr>()?))
            };
            let values = Punctuated::<(Path, Expr), Token![,]>::parse_terminated_with(&body, pair)?;
            presets.push(Preset { name: name.value(), values: values.into_iter().collect() });
            if input.peek(Token![,]) {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(presets)
    };
    parser.parse2(tokens).map_err(|e: syn::Error| {
        Diagnostic::error(format!("`presets!` does not read: {e}"))
            .at(place(source, whole, e.span()), "")
            .help("write `presets! { \"small\" { LAYERS = 2, HEADS = 4 }, .. }`")
    })
}

pub fn parse_contract(source: SourceId, whole: Span, tokens: TokenStream) -> Result<TensorContract, Diagnostic> {
    syn::parse2(tokens).map_err(|e| {
        Diagnostic::error(format!("`Tensor![..]` does not read: {e}"))
            .at(place(source, whole, e.span()), "")
            .help("write `Tensor![B, L, DIM]`, with an element type after a semicolon if it is not the working type")
    })
}

/// Where an error is; the macro itself if its end came too soon.
pub fn place(source: SourceId, whole: Span, found: proc_macro2::Span) -> Span {
    if found.byte_range().is_empty() { whole } else { span_in(source, found) }
}

impl Parse for Settings {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.parse()?;
        let body;
        syn::braced!(body in input);
        let value = |input: ParseStream<'_>| {
            let ident: Ident = input.parse()?;
            if !input.peek(Token![=]) {
                let path = syn::ExprPath { attrs: vec![], qself: None, path: ident.clone().into() };
                return Ok((ident, Expr::Path(path)));
            }
            input.parse::<Token![=]>()?;
            Ok((ident, input.parse()?))
        };
        let values = Punctuated::<_, Token![,]>::parse_terminated_with(&body, value)?;
        Ok(Self { name, values: values.into_iter().collect() })
    }
}

impl Parse for DimDeclaration {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let ident: Ident = input.parse()?;
        let kind: Option<Ident> = match input.parse::<Option<Token![:]>>()? {
            Some(_) => Some(input.parse()?),
            None => None,
        };
        let is = |word: &str| kind.as_ref().is_some_and(|kind| kind == word);
        let (ragged, free) = (is("ragged"), is("free"));
        if let Some(kind) = kind.filter(|_| !ragged && !free) {
            return Err(syn::Error::new(kind.span(), "expected `free` or `ragged`"));
        }
        let value = match free {
            true => DimValue::Free,
            false => match input.parse::<Option<Token![=]>>()? {
                Some(_) => DimValue::Computed(Box::new(input.parse()?)),
                None => DimValue::Given,
            },
        };
        Ok(Self { ident, ragged, value })
    }
}

impl Parse for TensorContract {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut dims = vec![];
        while !input.is_empty() && !input.peek(Token![;]) {
            if input.peek(Token![..]) {
                input.parse::<Token![..]>()?;
                dims.push(ContractDim::Any);
            } else {
                let path = Path::parse_mod_style(input)?;
                let condition = if input.peek(Token![if]) {
                    input.parse::<Token![if]>()?;
                    Some(Box::new(input.parse()?))
                } else {
                    None
                };
                dims.push(ContractDim::Named { path, condition });
            }
            if !input.is_empty() && !input.peek(Token![;]) {
                input.parse::<Token![,]>()?;
            }
        }
        let dtype = if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            Some(input.parse()?)
        } else {
            None
        };
        if !input.is_empty() {
            return Err(input.error("expected `]`"));
        }
        if dims.iter().filter(|d| matches!(d, ContractDim::Any)).count() > 1 {
            return Err(input.error("`..` may stand once"));
        }
        Ok(Self { dims, dtype })
    }
}
