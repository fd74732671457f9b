//! What a published `config.json` says of a model, beside what the model was compiled with.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Name, NamePattern};

/// The figures that the config of one class holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// `Qwen3ForCausalLM`: what the config calls itself, in `architectures` or in `_class_name`.
    pub class: Name,
    pub figures: Vec<Figure>,
    /// Tensors that the class passes over in files of weights.
    pub ignored_weights: Vec<NamePattern>,
    /// Of a class that has the model as a part: what its files write in place of the beginning of names.
    pub renames: Vec<Rename>,
    /// Tensors of the class's other parts. They are no weights of the model, and stay in the files that it is saved in.
    pub other_weights: Vec<NamePattern>,
}

/// A beginning of names in the model, and those that files have for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    pub model: Name,
    /// The first is what the class saves today.
    pub files: Vec<Name>,
}

/// One figure: where a config has it, and what the model was compiled with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// As [`fact_at`] takes them; the first one that the config has counts.
    pub keys: Vec<Name>,
    /// What the class takes where the config has none of the keys.
    pub default: Option<Fact>,
    /// What the values under the keys stand for; empty where they are the figure itself.
    pub cases: Vec<Case>,
    pub value: Fact,
    /// The dim or constant that `--set` changes, where there is one.
    pub setting: Option<Name>,
}

/// What some values of a config stand for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Any value that no earlier case has, if empty.
    pub said: Vec<Fact>,
    /// The first is the figure unless it is set; a config does not tell it from the others.
    pub values: Vec<Fact>,
}

impl Case {
    /// The first of the cases that a value falls under.
    pub fn of<'c>(cases: &'c [Case], said: &Fact) -> Option<&'c Case> {
        cases.iter().find(|case| case.said.is_empty() || case.said.iter().any(|fact| fact.equals(said)))
    }

    /// The values that the cases name, as a sentence has them.
    pub fn known(cases: &[Case]) -> String {
        let names: Vec<String> = cases.iter().flat_map(|case| &case.said).map(|fact| format!("`{fact}`")).collect();
        match names.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
            names => names.concat(),
        }
    }
}

impl Figure {
    /// Whether a config that says so means what the model was compiled with.
    pub fn accepts(&self, said: &Fact) -> bool {
        match self.cases.as_slice() {
            [] => said.equals(&self.value),
            cases => Case::of(cases, said).is_some_and(|case| case.values.iter().any(|v| v.equals(&self.value))),
        }
    }
}

impl Config {
    /// Whether the model is one part of the class: its files have names of their own, and tensors of other parts.
    pub fn has_parts(&self) -> bool {
        !self.renames.is_empty() || !self.other_weights.is_empty()
    }
}

impl Rename {
    /// What the class saves a tensor as, by the longest beginning that is renamed.
    pub fn saved(renames: &[Rename], name: &str) -> Option<String> {
        Self::all(renames, name).next()
    }

    /// The model's name of a tensor that the class saves under `name`.
    pub fn of_saved(renames: &[Rename], name: &str) -> String {
        let fitting = renames.iter().filter_map(|r| Some((r, r.files.first()?)));
        let longest = fitting.filter(|(_, file)| name.starts_with(file.as_str())).max_by_key(|(_, file)| file.len());
        longest.map_or_else(|| name.into(), |(rename, file)| format!("{}{}", rename.model, &name[file.len()..]))
    }

    /// The names that files may have for a tensor of the model, the one that the class saves first.
    pub fn all<'n>(renames: &'n [Rename], name: &'n str) -> impl Iterator<Item = String> {
        let fitting = renames.iter().filter_map(move |r| Some((r, name.strip_prefix(r.model.as_str())?)));
        let longest = fitting.max_by_key(|(rename, _)| rename.model.len());
        longest.into_iter().flat_map(|(rename, rest)| rename.files.iter().map(move |file| format!("{file}{rest}")))
    }
}

/// A value that a config may hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(Name),
    List(Vec<Fact>),
}

impl Fact {
    /// The value that a config's JSON holds; none for null, where the class takes its own value.
    pub fn of_json(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(v) => Fact::Bool(*v),
            Value::Number(v) => v.as_i64().map_or_else(|| Fact::Number(v.as_f64().unwrap_or(f64::NAN)), Fact::Integer),
            Value::String(v) => Fact::Text(v.as_str().into()),
            Value::Array(items) => {
                Fact::List(items.iter().map(|v| Self::of_json(v).unwrap_or(Fact::Text("null".into()))).collect())
            }
            Value::Object(_) => Fact::Text("an object".into()),
        })
    }

    /// Whether they mean the same: 1 is 1.0.
    pub fn equals(&self, other: &Fact) -> bool {
        let number = |fact: &Fact| match fact {
            Fact::Integer(v) => Some(*v as f64),
            Fact::Number(v) => Some(*v),
            _ => None,
        };
        match (self, other) {
            (Fact::List(a), Fact::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (a, b) => a == b || number(a).is_some_and(|a| number(b) == Some(a)),
        }
    }
}

/// The value under a key: a path with dots, or the quotient `path / path` of two whole numbers where it is one.
pub fn fact_at(key: &str, get: impl Fn(&str) -> Option<Fact>) -> Option<Fact> {
    let Some((over, under)) = key.split_once(" / ") else { return get(key) };
    match (get(over)?, get(under)?) {
        (Fact::Integer(a), Fact::Integer(b)) if b != 0 && a % b == 0 => Some(Fact::Integer(a / b)),
        _ => None,
    }
}

/// As `--set` takes it.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Bool(v) => write!(f, "{v}"),
            Fact::Integer(v) => write!(f, "{v}"),
            // Rust writes 1e-6 as 0.000001.
            Fact::Number(v) if *v != 0.0 && v.abs() < 1e-4 => write!(f, "{v:e}"),
            Fact::Number(v) => write!(f, "{v}"),
            Fact::Text(v) => f.write_str(v),
            Fact::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_of_keys_are_whole_numbers() {
        let get = |key: &str| match key {
            "dim" => Some(Fact::Integer(96)),
            "a.heads" => Some(Fact::Integer(4)),
            "odd" => Some(Fact::Integer(5)),
            "none" => Some(Fact::Integer(0)),
            _ => None,
        };
        let found = ["dim", "dim / a.heads", "dim / odd", "dim / none", "dim / other"].map(|key| fact_at(key, get));
        assert_eq!(found, [Some(Fact::Integer(96)), Some(Fact::Integer(24)), None, None, None]);
    }

    #[test]
    fn a_value_that_stands_for_another_is_looked_up() {
        let text = |t: &str| Fact::Text(t.into());
        let case = |said: &[&str], values: &[i64]| Case {
            said: said.iter().map(|t| text(t)).collect(),
            values: values.iter().map(|v| Fact::Integer(*v)).collect(),
        };
        let cases = vec![case(&["i2v"], &[1280, 0]), case(&["t2v", "ti2v"], &[0])];
        assert_eq!(Case::known(&cases), "`i2v`, `t2v` and `ti2v`");
        let figure = |value| Figure {
            keys: vec!["model_type".into()],
            default: None,
            cases: cases.clone(),
            value: Fact::Integer(value),
            setting: None,
        };
        let accepted = |value| ["i2v", "ti2v", "s2v"].map(|said| figure(value).accepts(&text(said)));
        assert_eq!((accepted(1280), accepted(0)), ([true, false, false], [true, true, false]));
        assert!(Case::of(&[case(&[], &[0])], &text("other")).is_some(), "any value");
    }

    #[test]
    fn the_longest_beginning_is_renamed() {
        let rename = |model: &str, files: &[&str]| Rename {
            model: model.into(),
            files: files.iter().map(|file| (*file).into()).collect(),
        };
        let renames =
            [rename("", &["thinker."]), rename("model.", &["model.language_model.", "language_model.model."])];
        let all = |name| Rename::all(&renames, name).collect::<Vec<_>>();
        assert_eq!(all("lm_head.weight"), ["thinker.lm_head.weight"]);
        assert_eq!(all("model.norm.weight"), ["model.language_model.norm.weight", "language_model.model.norm.weight"]);
        assert_eq!(Rename::saved(&renames[1..], "lm_head.weight"), None);
        assert_eq!(Rename::of_saved(&renames, "thinker.lm_head.weight"), "lm_head.weight");
        assert_eq!(Rename::of_saved(&renames, "model.language_model.norm.weight"), "model.norm.weight");
    }

    #[test]
    fn numbers_are_compared_by_value_and_read_as_set_takes_them() {
        assert!(Fact::Integer(1_000_000).equals(&Fact::Number(1e6)));
        assert!(!Fact::Integer(1).equals(&Fact::Bool(true)));
        assert!(Fact::List(vec![Fact::Integer(1)]).equals(&Fact::List(vec![Fact::Number(1.0)])));
        assert!(!Fact::List(vec![]).equals(&Fact::List(vec![Fact::Integer(1)])));
        let shown = [Fact::Number(1e-6), Fact::Number(5e6), Fact::List(vec![Fact::Integer(1), Fact::Bool(false)])];
        assert_eq!(shown.map(|f| f.to_string()), ["1e-6", "5000000", "[1, false]"]);
    }
}
