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
}

/// One figure: where a config has it, and what the model was compiled with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// As [`fact_at`] takes them; the first one that the config has counts.
    pub keys: Vec<Name>,
    /// What the class takes where the config has none of the keys.
    pub default: Option<Fact>,
    pub value: Fact,
    /// The dim or constant that `--set` changes, where there is one.
    pub setting: Option<Name>,
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
    fn numbers_are_compared_by_value_and_read_as_set_takes_them() {
        assert!(Fact::Integer(1_000_000).equals(&Fact::Number(1e6)));
        assert!(!Fact::Integer(1).equals(&Fact::Bool(true)));
        assert!(Fact::List(vec![Fact::Integer(1)]).equals(&Fact::List(vec![Fact::Number(1.0)])));
        assert!(!Fact::List(vec![]).equals(&Fact::List(vec![Fact::Integer(1)])));
        let shown = [Fact::Number(1e-6), Fact::Number(5e6), Fact::List(vec![Fact::Integer(1), Fact::Bool(false)])];
        assert_eq!(shown.map(|f| f.to_string()), ["1e-6", "5000000", "[1, false]"]);
    }
}
