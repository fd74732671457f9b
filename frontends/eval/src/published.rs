//! What a published checkpoint's config says, against the file's `config!`.

use diag::{Diagnostic, PlaceId, Span};
use types::{Case, Config, Fact, Figure, Name};

use crate::config::{Arm, ClassConfig, Entry, Published, SCHEDULER, Wanted};
use crate::evaluator::{Evaluator, Scope};
use crate::instance::InstanceId;
use crate::macros::dotted;
use crate::numbers::{choices, type_name};
use crate::span::span_of;
use crate::stop::{Eval, Stop};
use crate::suggest::{listed, nearest};
use crate::value::Value;

/// The scheduler's config, in a pipeline's folder.
const SCHEDULER_FILE: &str = "scheduler/scheduler_config.json";

/// A constant that a task samples with.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub name: Name,
    pub value: Fact,
    /// A flag, a key of the folder, a preset, or the model's file.
    pub origin: String,
}

/// What went wrong with a published config.
fn told(published: &Published, key: &str, said: &Fact, what: &str) -> Diagnostic {
    Diagnostic::error(format!("{}: `{key}` is {said}, and {what}", published.path))
}

/// A value of a config that the model has no meaning for.
fn unknown(published: &Published, key: &str, said: &Fact, known: &str) -> Diagnostic {
    told(published, key, said, "this model does not know it")
        .help(format!("it knows {known}; these weights need another model: `mmc models` lists those that are built in"))
}

impl<'a> Evaluator<'a> {
    /// The classes that the main file declares.
    pub fn classes(&self) -> impl Iterator<Item = String> {
        self.file(InstanceId::MODEL).configs.iter().map(|c| c.class.value())
    }

    /// The given config, and what the file declares of its class.
    fn published(&self) -> Option<(&'a Published, &'a ClassConfig)> {
        let (file, published) = (self.file(InstanceId::MODEL), self.options.published.as_ref()?);
        let there = |c: &&ClassConfig| c.entries.iter().filter(|e| e.value(&published.facts, c).is_some()).count();
        let class = match &published.class {
            Some(class) => file.configs.iter().find(|c| c.class.value() == **class),
            None => file.configs.iter().rev().max_by_key(there),
        }?;
        Some((published, class))
    }

    /// That the file declares the class of the given config.
    pub fn check_class(&self) -> Result<(), Diagnostic> {
        let Some(published) = &self.options.published else { return Ok(()) };
        if let Some((published, class)) = self.published() {
            return self.check_part(published, class);
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

    /// That the given config has the part that is the model's.
    fn check_part(&self, published: &Published, class: &ClassConfig) -> Result<(), Diagnostic> {
        let Some(part) = &class.part else { return Ok(()) };
        let below = |key: &str, part: &str| key.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
        if published.facts.keys().any(|key| below(key, part)) {
            return Ok(());
        }
        let mut parts: Vec<&str> = published.facts.keys().filter_map(|key| Some(key.split_once('.')?.0)).collect();
        parts.dedup();
        let there = if parts.is_empty() { "no parts".into() } else { listed(parts) };
        Err(Diagnostic::error(format!("{}: there is no `{part}`, and the model is that part of it", published.path))
            .at(span_of(self.source(InstanceId::MODEL), &class.class), "the class")
            .note(format!("it has {there}"))
            .help("a config of the part itself names the part's own class"))
    }

    /// What the given config says of a dim or a constant.
    pub fn published_value(&mut self, name: &str) -> Eval<'a, Option<Value<'a>>> {
        let Some((published, class)) = self.published() else { return Ok(None) };
        let named = |entry: &&Entry| matches!(&entry.wanted, Wanted::Named(path) if dotted(path) == name);
        let Some(entry) = class.entries.iter().find(named) else { return Ok(None) };
        let (key, said) = match (entry.value(&published.facts, class), &entry.default) {
            (Some((key, said)), _) => (key, said),
            (None, Some(default)) => (&entry.keys[0], default.clone()),
            (None, None) => return Ok(None),
        };
        let Wanted::Named(path) = &entry.wanted else { return Ok(None) };
        let at = span_of(self.source(InstanceId::MODEL), path);
        if !entry.cases.is_empty() {
            return self.case(entry, key, &said).map(Some);
        }
        let declared = self.instances.named(name).and_then(|(of, name)| self.file(of).constants.get(&name));
        let constant = declared.and_then(|c| type_name(&c.ty));
        let wrong = match (constant.as_deref(), said) {
            (None | Some("i64"), Fact::Integer(v)) => return Ok(Some(Value::Int(v))),
            (Some("f64"), Fact::Integer(v)) => return Ok(Some(Value::Float(v as f64))),
            (Some("f64"), Fact::Number(v)) => return Ok(Some(Value::Float(v))),
            (Some("bool"), Fact::Bool(v)) => return Ok(Some(Value::Bool(v))),
            (Some("str"), Fact::Text(v)) => {
                let choices = declared.map_or(vec![], |c| choices(&c.expr));
                if choices.is_empty() || choices.iter().any(|choice| **choice == *v) {
                    return Ok(Some(Value::Str(v.as_str().into())));
                }
                let known = listed(choices.iter().map(String::as_str));
                return Err(unknown(published, key, &Fact::Text(v), &known).at(at, "read here").into());
            }
            (Some("[i64]"), Fact::List(items)) if items.iter().all(|item| matches!(item, Fact::Integer(_))) => {
                let number = |item: &Fact| if let Fact::Integer(v) = item { Some(Value::Int(*v)) } else { None };
                return Ok(Some(Value::array(items.iter().filter_map(number))));
            }
            (kind, said) => {
                let wants = match kind {
                    Some("[i64]") => "a list of whole numbers",
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
            let figure = self.figure(entry)?;
            let at = span_of(self.source(InstanceId::MODEL), e);
            match (entry.value(&published.facts, class), &entry.default) {
                (Some((key, said)), _) if !figure.accepts(&said) => {
                    let what = format!("this model computes {}", figure.value);
                    return Err(told(published, key, &said, &what)
                        .at(at, "what the model computes")
                        .help("these weights need another model: `mmc models` lists those that are built in")
                        .into());
                }
                (None, Some(default)) if !figure.accepts(default) => {
                    let (path, key, computed) = (&published.path, &entry.keys[0], &figure.value);
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

    /// What a task that samples does not follow of the pipeline's scheduler.
    pub fn check_scheduler(&self) -> Option<Diagnostic> {
        let (published, class) = self.published()?;
        let samples = self.runs.len() > 1 || self.runs.iter().any(|(_, times)| *times > 1);
        let Some(Fact::Text(name)) = published.facts.get(SCHEDULER).filter(|_| samples) else { return None };
        let at = span_of(self.source(InstanceId::MODEL), &class.class);
        if !class.knows_scheduler(&published.facts) {
            let warning = Diagnostic::warning(format!(
                "{SCHEDULER_FILE} is of {name}, which the model does not know: its settings are not read"
            ));
            let known = listed(class.schedulers.iter().map(Name::as_str));
            return Some(
                warning.at(at, "the class").help(format!("it knows {known}; --set gives the model's own settings")),
            );
        }
        let read = |key: &str| class.entries.iter().flat_map(|e| &e.keys).any(|k| **k == *key);
        let keys = published.facts.keys().filter(|key| !read(key)).filter_map(|key| key.strip_prefix("scheduler."));
        let unread: Vec<&str> = keys.filter(|key| !key.starts_with('_')).collect();
        if unread.is_empty() {
            return None;
        }
        Some(
            Diagnostic::warning(format!("{SCHEDULER_FILE}: the model takes its own steps, not those of {name}"))
                .at(at, "the class")
                .note(format!("not followed are {}", listed(unread))),
        )
    }

    /// The settings of a task that samples, each with where it comes from.
    pub fn settings(&mut self) -> Eval<'a, Vec<Setting>> {
        let samples = self.runs.len() > 1 || self.runs.iter().any(|(_, times)| *times > 1);
        let file = self.file(InstanceId::MODEL);
        let public = file.constants.values().filter(|c| samples && matches!(c.vis, syn::Visibility::Public(_)));
        let mut settings = vec![];
        for declared in public {
            let (name, at) = (declared.ident.to_string(), span_of(file.source, &declared.ident));
            let value = self.constant(InstanceId::MODEL, declared, at)?;
            let Some(value) = fact(&value) else { continue };
            let origin = self.origin(&name);
            settings.push(Setting { name: name.into(), value, origin });
        }
        Ok(settings)
    }

    /// Where the value of a constant of the model comes from, as a message calls it.
    fn origin(&self, name: &str) -> String {
        if self.options.set.iter().any(|(set, _)| set == name) {
            return "--set".into();
        }
        let named = |entry: &&Entry| matches!(&entry.wanted, Wanted::Named(path) if dotted(path) == name);
        let file = self.file(InstanceId::MODEL);
        if let Some((published, class)) = self.published()
            && let Some(entry) = class.entries.iter().find(named)
        {
            return match (entry.value(&published.facts, class), &entry.default) {
                (Some((key, _)), _) => match key.split_once('.') {
                    Some(("scheduler", key)) => format!("{SCHEDULER_FILE}, {key}"),
                    Some(("model_index", key)) => format!("model_index.json, {key}"),
                    _ => format!("config.json, {key}"),
                },
                (None, Some(_)) => format!("{}, where the folder says nothing", class.class.value()),
                (None, None) => file.path.clone(),
            };
        }
        let preset = self.preset.and_then(|i| file.presets.get(i));
        match preset.filter(|preset| preset.values.iter().any(|(path, _)| dotted(path) == name)) {
            Some(preset) => format!("the preset {}", preset.name),
            None => file.path.clone(),
        }
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
            configs.push(Config {
                class,
                figures,
                ignored_weights: declared.ignored_weights.clone(),
                renames: declared.renames.clone(),
                other_weights: declared.other_weights.clone(),
            });
        }
        Ok(configs)
    }

    /// What a value of the config stands for: the first value of the arm that it falls under.
    fn case(&mut self, entry: &'a Entry, key: &str, said: &Fact) -> Eval<'a, Value<'a>> {
        let is_of = |arm: &&Arm| arm.said.is_empty() || arm.said.iter().any(|fact| fact.equals(said));
        if let Some(e) = entry.cases.iter().find(is_of).and_then(|arm| arm.values.first()) {
            return self.expr(&mut Scope::new(InstanceId::MODEL, PlaceId::NONE), e);
        }
        let known = {
            let known: Vec<String> = entry.cases.iter().flat_map(|arm| &arm.said).map(Fact::to_string).collect();
            listed(known.iter().map(String::as_str))
        };
        let Some((published, _)) = self.published() else { return Err(Diagnostic::error("no config").into()) };
        let error = unknown(published, key, said, &known);
        Err(match &entry.wanted {
            Wanted::Named(path) => error.at(span_of(self.source(InstanceId::MODEL), path), "read here"),
            Wanted::Equal(e) => error.at(span_of(self.source(InstanceId::MODEL), e), "read here"),
        }
        .into())
    }

    fn figure(&mut self, entry: &'a Entry) -> Eval<'a, Figure> {
        let (keys, default) = (entry.keys.clone(), entry.default.clone());
        let mut cases = vec![];
        for arm in &entry.cases {
            let values = arm.values.iter().map(|e| {
                let value = self.expr(&mut Scope::new(InstanceId::MODEL, PlaceId::NONE), e)?;
                self.fact(&value, span_of(self.source(InstanceId::MODEL), e))
            });
            cases.push(Case { said: arm.said.clone(), values: values.collect::<Result<_, Stop<'a>>>()? });
        }
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
        Ok(Figure { keys, default, cases, value: self.fact(&value, at)?, setting })
    }

    /// A value as configs have it.
    fn fact(&self, value: &Value<'a>, at: Span) -> Eval<'a, Fact> {
        fact(value).ok_or_else(|| {
            Diagnostic::error(format!("{} is not what a config can hold", value.describe()))
                .at(at, "expected a number, a text, `true`, `false` or a list of these")
                .into()
        })
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
