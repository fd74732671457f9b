//! `config!`: where the config.json of a published class has the figures of the model.

use diag::{Diagnostic, PlaceId, SourceId, Span};
use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, Lit, LitStr, Token, parenthesized};
use types::{Config, Fact, Figure, Name};

use crate::evaluator::{Evaluator, Scope};
use crate::file::span_of;
use crate::macros::place;
use crate::stop::{Eval, Stop};
use crate::value::Value;

/// The entries of one class.
pub struct ClassConfig {
    class: LitStr,
    entries: Vec<Entry>,
}

/// `NAME = key | other.key | default`, or `expect(key | default == value)`.
struct Entry {
    keys: Vec<Name>,
    default: Option<Fact>,
    wanted: Wanted,
}

enum Wanted {
    /// A dim or a constant of the file.
    Named(Ident),
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
        let entries = Punctuated::<Entry, Token![,]>::parse_terminated(&body)?;
        Ok(Self { class, entries: entries.into_iter().collect() })
    }
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name: Ident = input.parse()?;
        if name != "expect" {
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
}

/// Keys with `|` between them, of which the last may be a value instead.
fn parse_keys(input: ParseStream<'_>) -> syn::Result<(Vec<Name>, Option<Fact>)> {
    let mut keys = vec![];
    loop {
        if input.peek(Lit) || input.peek(syn::token::Bracket) {
            if keys.is_empty() {
                return Err(input.error("expected a key before the value"));
            }
            let default = parse_fact(input)?;
            return Ok((keys, Some(default)));
        }
        let mut path = Ident::parse_any(input)?.unraw().to_string();
        while input.peek(Token![.]) {
            input.parse::<Token![.]>()?;
            path = format!("{path}.{}", Ident::parse_any(input)?.unraw());
        }
        keys.push(Name::from(path));
        if !input.peek(Token![|]) {
            return Ok((keys, None));
        }
        input.parse::<Token![|]>()?;
    }
}

fn parse_fact(input: ParseStream<'_>) -> syn::Result<Fact> {
    if input.peek(syn::token::Bracket) {
        let body;
        syn::bracketed!(body in input);
        let items = Punctuated::<Fact, Token![,]>::parse_terminated_with(&body, parse_fact)?;
        return Ok(Fact::List(items.into_iter().collect()));
    }
    let lit: Lit = input.parse()?;
    match &lit {
        Lit::Bool(v) => Ok(Fact::Bool(v.value)),
        Lit::Int(v) => Ok(Fact::Integer(v.base10_parse()?)),
        Lit::Float(v) => Ok(Fact::Number(v.base10_parse()?)),
        Lit::Str(v) => Ok(Fact::Text(v.value().into())),
        _ => Err(syn::Error::new(lit.span(), "expected a number, a text, `true` or `false`")),
    }
}

impl<'a> Evaluator<'a> {
    /// The figures of the main file's classes, with their values.
    pub fn configs(&mut self) -> Eval<'a, Vec<Config>> {
        let files = self.files;
        let mut configs: Vec<Config> = vec![];
        for declared in &files[0].configs {
            let class = Name::from(declared.class.value());
            if configs.iter().any(|c| c.class == class) {
                let at = span_of(files[0].source, &declared.class);
                return Err(Diagnostic::error(format!("the class `{class}` is declared twice"))
                    .at(at, "the second time")
                    .into());
            }
            let figures = declared.entries.iter().map(|entry| self.figure(entry)).collect::<Result<_, Stop<'a>>>()?;
            configs.push(Config { class, figures });
        }
        Ok(configs)
    }

    fn figure(&mut self, entry: &'a Entry) -> Eval<'a, Figure> {
        let (keys, default) = (entry.keys.clone(), entry.default.clone());
        let (value, setting, at) = match &entry.wanted {
            Wanted::Equal(e) => {
                (self.expr(&mut Scope::new(0, PlaceId::NONE), e)?, None, span_of(self.files[0].source, e))
            }
            Wanted::Named(ident) => {
                let (name, at) = (ident.to_string(), span_of(self.files[0].source, ident));
                let value = self
                    .named_number(0, &name, at)?
                    .ok_or_else(|| Diagnostic::error(format!("there is no dim or constant `{name}`")).at(at, ""))?;
                (value, self.check_setting(&name, None).is_ok().then(|| Name::from(name)), at)
            }
        };
        let value = fact(&value).ok_or_else(|| {
            Diagnostic::error(format!("{} is not what a config can hold", value.describe()))
                .at(at, "expected a number, a text, `true`, `false` or a list of these")
        })?;
        Ok(Figure { keys, default, value, setting })
    }
}

fn fact(value: &Value<'_>) -> Option<Fact> {
    Some(match value {
        Value::Bool(v) => Fact::Bool(*v),
        Value::Int(v) => Fact::Integer(*v),
        Value::Float(v) => Fact::Number(*v),
        Value::Dim(dim) => Fact::Integer(i64::try_from(dim.size).ok()?),
        Value::Str(text) => Fact::Text(Name::new(text)),
        Value::Array(items) => Fact::List(items.iter().map(fact).collect::<Option<_>>()?),
        _ => return None,
    })
}
