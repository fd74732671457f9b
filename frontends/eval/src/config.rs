//! `config!`: where the config.json of a published class has the figures of the model, and what a given one says.

use std::collections::BTreeMap;

use diag::{Diagnostic, SourceId, Span};
use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, Lit, LitStr, Token, parenthesized};
use types::{Fact, Name, NamePattern, fact_at};

use crate::macros::place;

/// A published config.json: the model has its figures instead of a preset's.
#[derive(Clone, Debug)]
pub struct Published {
    /// As messages call the file.
    pub path: String,
    /// None for a config that does not say it: then it is that of which most keys are there.
    pub class: Option<Name>,
    /// What it says, by paths with dots between keys. Nulls are left out.
    pub facts: BTreeMap<Name, Fact>,
}

/// Keys that say nothing of what a model computes.
const BOOKKEEPING: &[&str] = &[
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "architectures",
    "dtype",
    "torch_dtype",
    "transformers_version",
];

/// The entries of one class.
pub struct ClassConfig {
    pub class: LitStr,
    pub entries: Vec<Entry>,
    /// Keys that are passed over; `rope.*` is all below `rope`.
    pub ignored: Vec<Name>,
    /// Tensors that are passed over in files of weights.
    pub ignored_weights: Vec<NamePattern>,
}

/// `NAME = key | other.key | default`, or `expect(key | default == value)`.
pub struct Entry {
    pub keys: Vec<Name>,
    pub default: Option<Fact>,
    pub wanted: Wanted,
}

pub enum Wanted {
    /// A dim or a constant of the file, or of an instance.
    Named(syn::Path),
    Equal(Box<Expr>),
}

pub fn parse_config(source: SourceId, whole: Span, tokens: TokenStream) -> Result<Vec<ClassConfig>, Diagnostic> {
    let list = Punctuated::<ClassConfig, Token![,]>::parse_terminated.parse2(tokens);
    list.map(|l| l.into_iter().collect()).map_err(|e| {
        Diagnostic::error(format!("`config!` does not read: {e}"))
            .at(place(source, whole, e.span()), "")
            .help("write `config! { \"Class\" { EPS = rms_norm_eps | 1e-6, expect(act | \"silu\" == \"silu\") }, .. }`")
    })
}

impl Parse for ClassConfig {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let class = input.parse()?;
        let body;
        syn::braced!(body in input);
        let (mut entries, mut ignored, mut ignored_weights) = (vec![], vec![], vec![]);
        while !body.is_empty() {
            let name = syn::Path::parse_mod_style(&body)?;
            if name.is_ident("ignore") {
                let inside;
                parenthesized!(inside in body);
                let keys = Punctuated::<Name, Token![,]>::parse_terminated_with(&inside, parse_pattern)?;
                ignored.extend(keys);
            } else if name.is_ident("ignore_weights") {
                let inside;
                parenthesized!(inside in body);
                for text in Punctuated::<LitStr, Token![,]>::parse_terminated(&inside)? {
                    let pattern = NamePattern::new(&text.value());
                    ignored_weights.push(pattern.map_err(|what| syn::Error::new(text.span(), what))?);
                }
            } else {
                entries.push(Entry::parse(name, &body)?);
            }
            if !body.is_empty() {
                body.parse::<Token![,]>()?;
            }
        }
        Ok(Self { class, entries, ignored, ignored_weights })
    }
}

impl Entry {
    fn parse(name: syn::Path, input: ParseStream<'_>) -> syn::Result<Self> {
        if !name.is_ident("expect") {
            input.parse::<Token![=]>()?;
            let (keys, default) = parse_keys(input)?;
            return Ok(Self { keys, default, wanted: Wanted::Named(name) });
        }
        let inside;
        parenthesized!(inside in input);
        let (keys, default) = parse_keys(&inside)?;
        inside.parse::<Token![==]>()?;
        let wanted = Wanted::Equal(inside.parse()?);
        if !inside.is_empty() {
            return Err(inside.error("expected `)`"));
        }
        Ok(Self { keys, default, wanted })
    }

    pub fn value(&self, facts: &BTreeMap<Name, Fact>) -> Option<(&Name, Fact)> {
        self.keys.iter().find_map(|key| Some((key, fact_at(key, |k| facts.get(k).cloned())?)))
    }
}

/// Keys with `|` between them, of which the last may be a value instead.
fn parse_keys(input: ParseStream<'_>) -> syn::Result<(Vec<Name>, Option<Fact>)> {
    let mut keys = vec![];
    loop {
        if input.peek(Lit) || input.peek(Token![-]) || input.peek(syn::token::Bracket) {
            if keys.is_empty() {
                return Err(input.error("expected a key before the value"));
            }
            let default = parse_fact(input)?;
            return Ok((keys, Some(default)));
        }
        let mut key = parse_path(input)?;
        if input.peek(Token![/]) {
            input.parse::<Token![/]>()?;
            key = format!("{key} / {}", parse_path(input)?);
        }
        keys.push(Name::from(key));
        if !input.peek(Token![|]) {
            return Ok((keys, None));
        }
        input.parse::<Token![|]>()?;
    }
}

/// `a.b.0`: keys of objects and places in lists.
fn parse_path(input: ParseStream<'_>) -> syn::Result<String> {
    let mut path = Ident::parse_any(input)?.unraw().to_string();
    while input.peek(Token![.]) && !input.peek2(Token![*]) {
        input.parse::<Token![.]>()?;
        let part = match input.peek(syn::LitInt) {
            true => input.parse::<syn::LitInt>()?.to_string(),
            false => Ident::parse_any(input)?.unraw().to_string(),
        };
        path = format!("{path}.{part}");
    }
    Ok(path)
}

fn parse_pattern(input: ParseStream<'_>) -> syn::Result<Name> {
    let path = parse_path(input)?;
    if !input.peek(Token![.]) {
        return Ok(path.into());
    }
    input.parse::<Token![.]>()?;
    input.parse::<Token![*]>()?;
    Ok(format!("{path}.*").into())
}

fn parse_fact(input: ParseStream<'_>) -> syn::Result<Fact> {
    if input.peek(syn::token::Bracket) {
        let body;
        syn::bracketed!(body in input);
        let items = Punctuated::<Fact, Token![,]>::parse_terminated_with(&body, parse_fact)?;
        return Ok(Fact::List(items.into_iter().collect()));
    }
    let sign = if input.peek(Token![-]) { input.parse::<Token![-]>().map(|_| -1)? } else { 1 };
    let lit: Lit = input.parse()?;
    match &lit {
        Lit::Int(v) => Ok(Fact::Integer(sign * v.base10_parse::<i64>()?)),
        Lit::Float(v) => Ok(Fact::Number(sign as f64 * v.base10_parse::<f64>()?)),
        Lit::Bool(v) => Ok(Fact::Bool(v.value)),
        Lit::Str(v) => Ok(Fact::Text(v.value().into())),
        _ => Err(syn::Error::new(lit.span(), "expected a number, a text, `true` or `false`")),
    }
}

impl ClassConfig {
    pub fn class(&self) -> String {
        self.class.value()
    }

    /// Whether a key is read, expected or ignored.
    pub fn reads(&self, key: &str) -> bool {
        let below = |pattern: &str| match pattern.strip_suffix(".*") {
            Some(above) => key.strip_prefix(above).is_some_and(|rest| rest.starts_with('.')),
            None => key == pattern,
        };
        BOOKKEEPING.contains(&key)
            || self.ignored.iter().any(|pattern| below(pattern))
            || self.entries.iter().flat_map(|e| &e.keys).any(|k| k.split(" / ").any(|path| path == key))
    }
}
