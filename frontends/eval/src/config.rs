//! `config!`: where the config.json of a published class has the figures of the model, and what a given one says.

use std::collections::BTreeMap;

use diag::{Diagnostic, SourceId, Span};
use proc_macro2::TokenStream;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{BinOp, Expr, Ident, Lit, LitStr, Token, parenthesized};
use types::{Fact, Name, NamePattern, Rename, fact_at};

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
    /// The part of the config that is the model's: `"Class" in thinker_config`.
    pub part: Option<Name>,
    /// How files of the class write the beginning of names.
    pub renames: Vec<Rename>,
    /// Tensors of its other parts.
    pub other_weights: Vec<NamePattern>,
    /// Classes of schedulers whose settings mean here what they mean there.
    pub schedulers: Vec<Name>,
}

/// The class of a pipeline's scheduler.
pub const SCHEDULER: &str = "scheduler._class_name";

/// `NAME = key | other.key | default`, or `expect(key | default == value)`. In place of keys there may be
/// `match key | default { "text" => value, .. }`.
pub struct Entry {
    pub keys: Vec<Name>,
    pub default: Option<Fact>,
    /// What the values under the keys stand for; empty where they are the figure itself.
    pub cases: Vec<Arm>,
    pub wanted: Wanted,
}

/// `"a" | "b" => value`, `_ => value`, or `"a" => value | other`.
pub struct Arm {
    /// Empty for `_`.
    pub said: Vec<Fact>,
    pub values: Vec<Expr>,
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
        let part = match input.parse::<Option<Token![in]>>()? {
            Some(_) => Some(Name::from(parse_path(input)?)),
            None => None,
        };
        let body;
        syn::braced!(body in input);
        let (mut entries, mut ignored, mut ignored_weights) = (vec![], vec![], vec![]);
        let (mut renames, mut other_weights, mut schedulers) = (vec![], vec![], vec![]);
        while !body.is_empty() {
            let name = syn::Path::parse_mod_style(&body)?;
            if name.is_ident("ignore") {
                let inside;
                parenthesized!(inside in body);
                let keys = Punctuated::<Name, Token![,]>::parse_terminated_with(&inside, parse_pattern)?;
                ignored.extend(keys);
            } else if name.is_ident("ignore_weights") {
                parse_weights(&body, &mut ignored_weights)?;
            } else if name.is_ident("other_weights") {
                parse_weights(&body, &mut other_weights)?;
            } else if name.is_ident("schedulers") {
                let inside;
                parenthesized!(inside in body);
                let names = Punctuated::<LitStr, Token![,]>::parse_terminated(&inside)?;
                schedulers.extend(names.iter().map(|name| Name::from(name.value())));
            } else if name.is_ident("rename") {
                let inside;
                parenthesized!(inside in body);
                renames.extend(Punctuated::<Rename, Token![,]>::parse_terminated_with(&inside, parse_rename)?);
            } else {
                entries.push(Entry::parse(name, &body)?);
            }
            if !body.is_empty() {
                body.parse::<Token![,]>()?;
            }
        }
        let place = |key: &Name| match &part {
            Some(part) => key.split(" / ").map(|path| within(part, path)).collect::<Vec<_>>().join(" / ").into(),
            None => key.clone(),
        };
        entries.iter_mut().flat_map(|entry| &mut entry.keys).for_each(|key| *key = place(key));
        ignored.iter_mut().for_each(|key| *key = place(key));
        Ok(Self { class, entries, ignored, ignored_weights, part, renames, other_weights, schedulers })
    }
}

impl Entry {
    fn parse(name: syn::Path, input: ParseStream<'_>) -> syn::Result<Self> {
        if !name.is_ident("expect") {
            input.parse::<Token![=]>()?;
            let (keys, default, cases) = parse_source(input)?;
            return Ok(Self { keys, default, cases, wanted: Wanted::Named(name) });
        }
        let inside;
        parenthesized!(inside in input);
        let (keys, default, cases) = parse_source(&inside)?;
        inside.parse::<Token![==]>()?;
        let wanted = Wanted::Equal(inside.parse()?);
        if !inside.is_empty() {
            return Err(inside.error("expected `)`"));
        }
        Ok(Self { keys, default, cases, wanted })
    }

    /// The first key that a config has, with its value. Of a scheduler that the class does not know nothing is read.
    pub fn value(&self, facts: &BTreeMap<Name, Fact>, class: &ClassConfig) -> Option<(&Name, Fact)> {
        let reads = |key: &str| !key.starts_with("scheduler.") || class.knows_scheduler(facts);
        let keys = self.keys.iter().filter(|key| reads(key));
        keys.into_iter().find_map(|key| Some((key, fact_at(key, |k| facts.get(k).cloned())?)))
    }
}

/// A key of a class's part, in the whole config: `super.key` is outside of the part, and what stands in other files is no
/// part's.
fn within(part: &str, key: &str) -> String {
    match key.strip_prefix("super.") {
        Some(outside) => outside.into(),
        None if key.starts_with("model_index.") || key.starts_with("scheduler.") => key.into(),
        None => format!("{part}.{key}"),
    }
}

/// Keys, or `match keys { .. }`.
fn parse_source(input: ParseStream<'_>) -> syn::Result<(Vec<Name>, Option<Fact>, Vec<Arm>)> {
    let word = input.parse::<Option<Token![match]>>()?;
    let (keys, default) = parse_keys(input)?;
    let Some(word) = word else { return Ok((keys, default, vec![])) };
    let body;
    syn::braced!(body in input);
    let arms: Vec<Arm> = Punctuated::<Arm, Token![,]>::parse_terminated(&body)?.into_iter().collect();
    if arms.is_empty() {
        return Err(syn::Error::new(word.span, "expected `\"text\" => value` in the braces"));
    }
    if arms.iter().rev().skip(1).any(|arm| arm.said.is_empty()) {
        return Err(syn::Error::new(word.span, "`_` takes all that is left: it stands last"));
    }
    Ok((keys, default, arms))
}

impl Parse for Arm {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut said = vec![];
        if input.parse::<Option<Token![_]>>()?.is_none() {
            said.push(parse_fact(input)?);
            while input.parse::<Option<Token![|]>>()?.is_some() {
                said.push(parse_fact(input)?);
            }
        }
        input.parse::<Token![=>]>()?;
        let mut values = vec![];
        alternatives(input.parse()?, &mut values);
        Ok(Self { said, values })
    }
}

/// What stands between the `|` of a value.
fn alternatives(e: Expr, values: &mut Vec<Expr>) {
    match e {
        Expr::Binary(syn::ExprBinary { left, op: BinOp::BitOr(_), right, .. }) => {
            alternatives(*left, values);
            alternatives(*right, values);
        }
        e => values.push(e),
    }
}

/// `("^mtp\\.", ..)`: patterns of tensors' names.
fn parse_weights(input: ParseStream<'_>, patterns: &mut Vec<NamePattern>) -> syn::Result<()> {
    let inside;
    parenthesized!(inside in input);
    for text in Punctuated::<LitStr, Token![,]>::parse_terminated(&inside)? {
        let pattern = NamePattern::new(&text.value());
        patterns.push(pattern.map_err(|what| syn::Error::new(text.span(), what))?);
    }
    Ok(())
}

/// `"model." = "model.language_model." | "language_model.model."`
fn parse_rename(input: ParseStream<'_>) -> syn::Result<Rename> {
    let text = |input: ParseStream<'_>| Ok::<_, syn::Error>(Name::from(input.parse::<LitStr>()?.value()));
    let model = text(input)?;
    input.parse::<Token![=]>()?;
    let mut files = vec![text(input)?];
    while input.parse::<Option<Token![|]>>()?.is_some() {
        files.push(text(input)?);
    }
    Ok(Rename { model, files })
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

    /// Whether the settings of the pipeline's scheduler are understood.
    pub fn knows_scheduler(&self, facts: &BTreeMap<Name, Fact>) -> bool {
        matches!(facts.get(SCHEDULER), Some(Fact::Text(class)) if self.schedulers.contains(class))
    }

    /// Whether a key is read, expected or ignored.
    pub fn reads(&self, key: &str) -> bool {
        let below = |pattern: &str| match pattern.strip_suffix(".*") {
            Some(above) => key.strip_prefix(above).is_some_and(|rest| rest.starts_with('.')),
            None => key == pattern,
        };
        // Of a part, the words of its own; of the whole, what lies in no other part.
        let last = match &self.part {
            Some(part) => key.strip_prefix(part.as_str()).and_then(|rest| rest.strip_prefix('.')).unwrap_or(key),
            None => key,
        };
        BOOKKEEPING.contains(&last)
            // What is not followed of a scheduler is told where something is sampled.
            || key.starts_with("scheduler.")
            || self.part.is_some() && last == key && key.contains('.')
            || self.ignored.iter().any(|pattern| below(pattern))
            || self.entries.iter().flat_map(|e| &e.keys).any(|k| k.split(" / ").any(|path| path == key))
    }
}
