//! `config!`: where the config.json of a published class has the figures of the model, and what a given one says.

use std::collections::BTreeMap;

use diag::{Diagnostic, PlaceId, SourceId, Span};
use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Expr, Ident, Lit, LitStr, Token, parenthesized};
use types::{Config, Fact, Figure, Name, fact_at};

use crate::evaluator::{Evaluator, Scope};
use crate::macros::place;
use crate::numbers::type_name;
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::suggest::{listed, nearest};
use crate::value::Value;

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
    "model_type",
    "torch_dtype",
    "transformers_version",
];

/// The entries of one class.
pub struct ClassConfig {
    class: LitStr,
    entries: Vec<Entry>,
    /// Keys that are passed over; `rope.*` is all below `rope`.
    ignored: Vec<Name>,
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
        let (mut entries, mut ignored) = (vec![], vec![]);
        while !body.is_empty() {
            let name: Ident = body.parse()?;
            if name == "ignore" {
                let inside;
                parenthesized!(inside in body);
                let keys = Punctuated::<Name, Token![,]>::parse_terminated_with(&inside, parse_pattern)?;
                ignored.extend(keys);
            } else {
                entries.push(Entry::parse(name, &body)?);
            }
            if !body.is_empty() {
                body.parse::<Token![,]>()?;
            }
        }
        Ok(Self { class, entries, ignored })
    }
}

impl Entry {
    fn parse(name: Ident, input: ParseStream<'_>) -> syn::Result<Self> {
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

    fn value(&self, facts: &BTreeMap<Name, Fact>) -> Option<(&Name, Fact)> {
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

/// What went wrong with a published config.
fn told(published: &Published, key: &str, said: &Fact, what: &str) -> Diagnostic {
    Diagnostic::error(format!("{}: `{key}` is {said}, and {what}", published.path))
}

impl<'a> Evaluator<'a> {
    /// The classes that the main file declares.
    pub fn classes(&self) -> impl Iterator<Item = String> {
        self.files[0].configs.iter().map(|c| c.class.value())
    }

    /// The given config, and what the file declares of its class.
    fn published(&self) -> Option<(&'a Published, &'a ClassConfig)> {
        let (files, published) = (self.files, self.options.published.as_ref()?);
        let there = |c: &&ClassConfig| c.entries.iter().filter(|e| e.value(&published.facts).is_some()).count();
        let class = match &published.class {
            Some(class) => files[0].configs.iter().find(|c| c.class.value() == **class),
            None => files[0].configs.iter().rev().max_by_key(there),
        }?;
        Some((published, class))
    }

    /// That the file declares the class of the given config.
    pub fn check_class(&self) -> Result<(), Diagnostic> {
        let Some(published) = &self.options.published else { return Ok(()) };
        if self.published().is_some() {
            return Ok(());
        }
        let names: Vec<String> = self.classes().collect();
        let names = || names.iter().map(String::as_str);
        let class = published.class.as_ref().map_or("a class", |class| class.as_str());
        let mut error =
            Diagnostic::error(format!("{} is of {class}, which the model does not declare", published.path));
        if let Some(near) = nearest(class, names()) {
            error = error.help(format!("did you mean `{near}`?"));
        }
        Err(match names().next() {
            Some(_) => error.help(format!("its `config!` has {}", listed(names()))),
            None => {
                error.help("say in `config! { \"Class\" { NAME = key, .. } }` where a config has the model's figures")
            }
        })
    }

    /// What the given config says of a dim or a constant.
    pub fn published_value(&self, name: &str) -> Eval<'a, Option<Value<'a>>> {
        let Some((published, class)) = self.published() else { return Ok(None) };
        let named = |entry: &&Entry| matches!(&entry.wanted, Wanted::Named(ident) if ident == name);
        let Some(entry) = class.entries.iter().find(named) else { return Ok(None) };
        let (key, said) = match (entry.value(&published.facts), &entry.default) {
            (Some((key, said)), _) => (key, said),
            (None, Some(default)) => (&entry.keys[0], default.clone()),
            (None, None) => return Ok(None),
        };
        let Wanted::Named(ident) = &entry.wanted else { return Ok(None) };
        let at = span_of(self.files[0].source, ident);
        let constant = self.files[0].constants.get(name).and_then(|c| type_name(&c.ty));
        let (value, wants) = match (constant.as_deref(), &said) {
            (None | Some("i64"), Fact::Integer(v)) => (Value::Int(*v), ""),
            (Some("f64"), Fact::Integer(v)) => (Value::Float(*v as f64), ""),
            (Some("f64"), Fact::Number(v)) => (Value::Float(*v), ""),
            (Some("bool"), Fact::Bool(v)) => (Value::Bool(*v), ""),
            (Some("str"), Fact::Text(v)) => (Value::Str(v.as_str().into()), ""),
            (Some("f64"), _) => (Value::Int(0), "a number"),
            (Some("bool"), _) => (Value::Int(0), "true or false"),
            (Some("str"), _) => (Value::Int(0), "a text"),
            _ => (Value::Int(0), "a whole number"),
        };
        match wants {
            "" => Ok(Some(value)),
            wants => {
                let said = match said {
                    Fact::Text(text) => Fact::Text(format!("the text \"{text}\"").into()),
                    other => other,
                };
                Err(told(published, key, &said, &format!("`{name}` takes {wants}")).at(at, "read here").into())
            }
        }
    }

    /// That the given config asks for nothing else than what the model computes. Gives a warning for keys that nobody reads.
    pub fn check_published(&mut self) -> Eval<'a, Option<Diagnostic>> {
        let Some((published, class)) = self.published() else { return Ok(None) };
        for entry in &class.entries {
            let Wanted::Equal(e) = &entry.wanted else { continue };
            let computed = self.figure(entry)?.value;
            let at = span_of(self.files[0].source, e);
            match (entry.value(&published.facts), &entry.default) {
                (Some((key, said)), _) if !said.equals(&computed) => {
                    let what = format!("this model computes {computed}");
                    return Err(told(published, key, &said, &what)
                        .at(at, "what the model computes")
                        .help("these weights need another model: `mmc models` lists those that are built in")
                        .into());
                }
                (None, Some(default)) if !default.equals(&computed) => {
                    let (path, key) = (&published.path, &entry.keys[0]);
                    return Err(Diagnostic::error(format!(
                        "{path}: `{key}` is not there, which means {default}, and this model computes {computed}"
                    ))
                    .at(at, "what the model computes")
                    .into());
                }
                _ => {}
            }
        }
        let unread: Vec<&str> = published.facts.keys().map(Name::as_str).filter(|key| !class.reads(key)).collect();
        if unread.is_empty() {
            return Ok(None);
        }
        let (some, path) = (if unread.len() == 1 { "a key that" } else { "keys that" }, &published.path);
        Ok(Some(
            Diagnostic::warning(format!("{path} has {some} the model does not read: {}", listed(unread.into_iter())))
                .at(span_of(self.files[0].source, &class.class), "the class")
                .help("where they change what is computed, this is another model; else list them in `ignore(..)`"),
        ))
    }

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

impl ClassConfig {
    pub fn class(&self) -> String {
        self.class.value()
    }

    /// Whether a key is read, expected or ignored.
    fn reads(&self, key: &str) -> bool {
        let below = |pattern: &str| match pattern.strip_suffix(".*") {
            Some(above) => key.strip_prefix(above).is_some_and(|rest| rest.starts_with('.')),
            None => key == pattern,
        };
        BOOKKEEPING.contains(&key)
            || self.ignored.iter().any(|pattern| below(pattern))
            || self.entries.iter().flat_map(|e| &e.keys).any(|k| k.split(" / ").any(|path| path == key))
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
