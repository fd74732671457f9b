//! What a published checkpoint's config says, against the file's `config!`.

use diag::{Diagnostic, PlaceId};
use types::{Config, Fact, Figure, Name};

use crate::config::{ClassConfig, Entry, Published, Wanted};
use crate::evaluator::{Evaluator, Scope};
use crate::instance::InstanceId;
use crate::macros::dotted;
use crate::numbers::type_name;
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::suggest::{listed, nearest};
use crate::value::Value;

/// What went wrong with a published config.
fn told(published: &Published, key: &str, said: &Fact, what: &str) -> Diagnostic {
    Diagnostic::error(format!("{}: `{key}` is {said}, and {what}", published.path))
}

impl<'a> Evaluator<'a> {
    /// The classes that the main file declares.
    pub fn classes(&self) -> impl Iterator<Item = String> {
        self.file(InstanceId::MODEL).configs.iter().map(|c| c.class.value())
    }

    /// The given config, and what the file declares of its class.
    fn published(&self) -> Option<(&'a Published, &'a ClassConfig)> {
        let (file, published) = (self.file(InstanceId::MODEL), self.options.published.as_ref()?);
        let there = |c: &&ClassConfig| c.entries.iter().filter(|e| e.value(&published.facts).is_some()).count();
        let class = match &published.class {
            Some(class) => file.configs.iter().find(|c| c.class.value() == **class),
            None => file.configs.iter().rev().max_by_key(there),
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
        let named = |entry: &&Entry| matches!(&entry.wanted, Wanted::Named(path) if dotted(path) == name);
        let Some(entry) = class.entries.iter().find(named) else { return Ok(None) };
        let (key, said) = match (entry.value(&published.facts), &entry.default) {
            (Some((key, said)), _) => (key, said),
            (None, Some(default)) => (&entry.keys[0], default.clone()),
            (None, None) => return Ok(None),
        };
        let Wanted::Named(path) = &entry.wanted else { return Ok(None) };
        let at = span_of(self.source(InstanceId::MODEL), path);
        let declared = self.instances.named(name).and_then(|(of, name)| self.file(of).constants.get(&name));
        let constant = declared.and_then(|c| type_name(&c.ty));
        let wrong = match (constant.as_deref(), said) {
            (None | Some("i64"), Fact::Integer(v)) => return Ok(Some(Value::Int(v))),
            (Some("f64"), Fact::Integer(v)) => return Ok(Some(Value::Float(v as f64))),
            (Some("f64"), Fact::Number(v)) => return Ok(Some(Value::Float(v))),
            (Some("bool"), Fact::Bool(v)) => return Ok(Some(Value::Bool(v))),
            (Some("str"), Fact::Text(v)) => return Ok(Some(Value::Str(v.as_str().into()))),
            (kind, said) => {
                let wants = match kind {
                    Some("f64") => "a number",
                    Some("bool") => "true or false",
                    Some("str") => "a text",
                    _ => "a whole number",
                };
                let said = match said {
                    Fact::Text(text) => Fact::Text(format!("the text \"{text}\"").into()),
                    other => other,
                };
                told(published, key, &said, &format!("`{name}` takes {wants}"))
            }
        };
        Err(wrong.at(at, "read here").into())
    }

    /// That the given config asks for nothing else than what the model computes. Gives a warning for keys that nobody reads.
    pub fn check_published(&mut self) -> Eval<'a, Option<Diagnostic>> {
        let Some((published, class)) = self.published() else { return Ok(None) };
        for entry in &class.entries {
            let Wanted::Equal(e) = &entry.wanted else { continue };
            let computed = self.figure(entry)?.value;
            let at = span_of(self.source(InstanceId::MODEL), e);
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
                .at(span_of(self.source(InstanceId::MODEL), &class.class), "the class")
                .help("where they change what is computed, this is another model; else list them in `ignore(..)`"),
        ))
    }

    /// The figures of the main file's classes, with their values.
    pub fn configs(&mut self) -> Eval<'a, Vec<Config>> {
        let file = self.file(InstanceId::MODEL);
        let mut configs: Vec<Config> = vec![];
        for declared in &file.configs {
            let class = Name::from(declared.class.value());
            if configs.iter().any(|c| c.class == class) {
                let at = span_of(file.source, &declared.class);
                return Err(Diagnostic::error(format!("the class `{class}` is declared twice"))
                    .at(at, "the second time")
                    .into());
            }
            let figures = declared.entries.iter().map(|entry| self.figure(entry)).collect::<Result<_, Stop<'a>>>()?;
            configs.push(Config { class, figures, ignored_weights: declared.ignored_weights.clone() });
        }
        Ok(configs)
    }

    fn figure(&mut self, entry: &'a Entry) -> Eval<'a, Figure> {
        let (keys, default) = (entry.keys.clone(), entry.default.clone());
        let (value, setting, at) = match &entry.wanted {
            Wanted::Equal(e) => (
                self.expr(&mut Scope::new(InstanceId::MODEL, PlaceId::NONE), e)?,
                None,
                span_of(self.source(InstanceId::MODEL), e),
            ),
            Wanted::Named(path) => {
                let (name, at) = (dotted(path), span_of(self.source(InstanceId::MODEL), path));
                let value = self
                    .number_at(InstanceId::MODEL, path, at)?
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
