//! The config.json beside weights: what it says of figures that no tensor's shape shows must be what the plan was
//! compiled with.

use std::path::Path;

use serde_json::Value;
use types::{Case, Config, Fact, Figure, Quantisation, fact_at};

use crate::data_file::DataFile;
use crate::{DataError, Problem, foreign};

/// Configs are short texts.
pub const LONGEST: usize = 16 << 20;

/// Compares a config with those that the model declares; gives what is to be told of it.
pub fn check(path: &Path, known: &[Config]) -> Result<Option<String>, DataError> {
    if known.is_empty() {
        return Ok(None);
    }
    let text = DataFile::whole(path, LONGEST)?;
    let refuse = |what: String| DataError::format(path, format!("no config: {what}"));
    let value: Value = serde_json::from_slice(&text).map_err(|e| refuse(foreign::no_json(&text, &e)))?;
    if !value.is_object() {
        return Err(refuse(format!("it is {}, and a JSON object is needed", kind(&value))));
    }
    let classes: Vec<&str> = match (&value["architectures"], &value["_class_name"]) {
        (Value::Array(names), _) => names.iter().filter_map(Value::as_str).collect(),
        (_, Value::String(name)) => vec![name.as_str()],
        _ => vec![],
    };
    let class = known.iter().find(|c| classes.iter().any(|name| *name == &*c.class));
    // Of a class that the model does not know, what its config says counts, and what it leaves out means nothing.
    let there = |c: &&Config| c.figures.iter().filter(|f| !found(&value, f).is_empty()).count();
    let Some(config) = class.or_else(|| known.iter().rev().max_by_key(there)) else { return Ok(None) };
    let (mut problems, mut settings, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let (mut computed, mut unclear, mut wrong_kind) = (false, false, false);
    // What a pipeline's index says is not the weights' to contradict.
    let own = |figure: &&Figure| {
        !figure.keys.iter().all(|key| ["model_index.", "scheduler."].iter().any(|of| key.starts_with(of)))
    };
    for figure in config.figures.iter().filter(own) {
        let mut said = found(&value, figure);
        // A quotient, and a key that another figure has first, are only the last resort of this one.
        let last_resort = |key: &str| {
            key.contains(" / ") || config.figures.iter().any(|f| f.keys.first().is_some_and(|k| **k == *key))
        };
        let mut first = true;
        said.retain(|(key, _)| std::mem::take(&mut first) || !last_resort(key));
        let plan = match &figure.setting {
            Some(setting) => format!("{setting} = {}", figure.value),
            None => figure.value.to_string(),
        };
        let facts: Vec<Fact> = said.iter().filter_map(|(_, value)| Fact::of_json(value)).collect();
        let alike = |a: &Fact, b: &Fact| {
            let case = |fact| Case::of(&figure.cases, fact);
            a.equals(b) || case(a).is_some_and(|of| case(b) == Some(of))
        };
        if facts.iter().any(|f| !alike(f, &facts[0])) {
            unclear = true;
            let each = said.iter().zip(&facts).map(|((key, value), fact)| match value {
                Value::String(_) if wants_number(figure) => format!("{key} is {value}"),
                _ => format!("{key} is {fact}"),
            });
            problems.push(Problem::Figures { each: each.collect::<Vec<_>>().join(", "), plan });
            continue;
        }
        let (key, fact, told) = match (said.first(), facts.into_iter().next(), &figure.default) {
            (Some((key, value)), Some(fact), _) if wants_number(figure) && !is_number(&fact) => {
                wrong_kind = true;
                let told = match value {
                    Value::String(_) => format!("the string {value}, where a number is needed"),
                    _ => format!("{}, where a number is needed", kind(value)),
                };
                problems.push(Problem::Figure { key: key.to_string(), config: told, plan });
                continue;
            }
            (Some((key, _)), Some(fact), _) => (*key, fact.clone(), fact.to_string()),
            (None, _, Some(default)) if class.is_some() => {
                let told = format!("not there, which means {default} for {}", config.class);
                (figure.keys[0].as_str(), default.clone(), told)
            }
            _ => continue,
        };
        if figure.accepts(&fact) {
            continue;
        }
        let case = Case::of(&figure.cases, &fact);
        match (&figure.setting, figure.cases.is_empty(), case.and_then(|case| case.values.first())) {
            (Some(setting), true, _) => settings.push(format!("--set {setting}={fact}")),
            (Some(setting), _, Some(value)) => settings.push(format!("--set {setting}={value}")),
            (Some(_), _, None) => unknown.push(format!("{key} takes {}", Case::known(&figure.cases))),
            (None, ..) => computed = true,
        }
        problems.push(Problem::Figure { key: key.into(), config: told, plan });
    }
    if problems.is_empty() {
        let names = classes.join(", ");
        return Ok((class.is_none() && !classes.is_empty()).then(|| {
            format!(
                "{} is of {names}, which the model does not declare: only the keys it has were compared",
                path.display()
            )
        }));
    }
    let mut help = Vec::new();
    if !settings.is_empty() {
        help.push(format!("compile the plan with the preset of these weights, or with {}", settings.join(" ")));
    }
    help.extend(unknown.into_iter().map(|known| format!("{known}: these weights need another model")));
    if computed {
        help.push("the model has no setting for what is named without one: these weights need another model".into());
    }
    if unclear {
        help.push("keys of one figure contradict each other: take out of the config what is not true".into());
    }
    if wrong_kind {
        help.push("write numbers in the config as JSON numbers, without quotes".into());
    }
    Err(DataError::Mismatch {
        what: format!("{} contradicts the plan", path.display()),
        problems,
        help: Some(help.join("; ")),
    })
}

/// What a config says of quantised weights; what is no config is told of when it is compared.
pub fn quantisation(path: &Path) -> Result<Option<Quantisation>, DataError> {
    if !path.exists() {
        return Ok(None);
    }
    let text = DataFile::whole(path, LONGEST)?;
    Ok(serde_json::from_slice::<Value>(&text).ok().and_then(|config| Quantisation::of(&config)))
}

/// The keys of a figure that the config has, with their values.
fn found<'f>(config: &Value, figure: &'f Figure) -> Vec<(&'f str, Value)> {
    let at = |key: &str| key.split('.').try_fold(config, |value, part| value.get(part)).filter(|v| !v.is_null());
    let value = |key: &str| match key.contains(" / ") {
        true => match fact_at(key, |key| at(key).and_then(Fact::of_json)) {
            Some(Fact::Integer(v)) => Some(v.into()),
            _ => None,
        },
        false => at(key).cloned(),
    };
    figure.keys.iter().filter_map(|key| Some((key.as_str(), value(key)?))).collect()
}

/// Whether its keys hold the number itself.
fn wants_number(figure: &Figure) -> bool {
    figure.cases.is_empty() && is_number(&figure.value)
}

fn is_number(fact: &Fact) -> bool {
    matches!(fact, Fact::Integer(_) | Fact::Number(_))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(keys: &[&str], default: Option<Fact>, value: Fact, setting: Option<&str>) -> Figure {
        let keys = keys.iter().map(|k| (*k).into()).collect();
        Figure { keys, default, cases: vec![], value, setting: setting.map(Into::into) }
    }

    fn check(text: &str, expect: Result<Option<&str>, &[&str]>) {
        let known = Config {
            class: "Net".into(),
            figures: vec![
                figure(
                    &["rope_parameters.rope_theta", "rope_theta"],
                    Some(Fact::Number(1e4)),
                    Fact::Number(1e6),
                    Some("THETA"),
                ),
                figure(
                    &["rope_parameters.rope_type", "rope_scaling.type"],
                    Some(Fact::Text("default".into())),
                    Fact::Text("default".into()),
                    None,
                ),
                figure(&["heads"], None, Fact::Integer(4), Some("HEADS")),
            ],
            ignored_weights: vec![],
            renames: vec![],
            other_weights: vec![],
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).expect("written");
        match (super::check(&path, &[known]), expect) {
            (Ok(told), Ok(expect)) => match expect {
                None => assert_eq!(told, None, "{text}"),
                Some(part) => assert!(told.as_ref().is_some_and(|t| t.contains(part)), "{text}: {told:?}"),
            },
            (Err(error), Err(parts)) => {
                let all = format!("{error} help: {}", error.help().unwrap_or_default());
                parts.iter().for_each(|part| assert!(all.contains(part), "{text}: {all}"));
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn both_forms_are_read_and_contradictions_have_both_numbers() {
        check(r#"{"architectures": ["Net"], "rope_theta": 1000000, "rope_scaling": null, "heads": 4}"#, Ok(None));
        check(
            r#"{"architectures": ["Net"], "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}"#,
            Ok(None),
        );
        check(
            r#"{"architectures": ["Net"], "rope_parameters": {"rope_theta": 5000000.0}}"#,
            Err(&["rope_parameters.rope_theta is 5000000", "compiled with THETA = 1000000", "--set THETA=5000000"]),
        );
        check(
            r#"{"_class_name": "Net", "heads": 8}"#,
            Err(&["rope_parameters.rope_theta is not there, which means 10000 for Net", "heads is 8", "HEADS = 4"]),
        );
        check(
            r#"{"_class_name": "Net", "rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}}"#,
            Err(&["rope_scaling.type is yarn", "compiled with default", "need another model"]),
        );
    }

    #[test]
    fn keys_of_one_figure_must_not_contradict_each_other() {
        check(
            r#"{"heads": 4, "rope_parameters": {"rope_theta": 1e6}, "rope_theta": 5e5}"#,
            Err(&[
                "rope_parameters.rope_theta is 1000000, rope_theta is 500000, and the plan was compiled with THETA = 1000000",
                "take out of the config",
            ]),
        );
        check(
            r#"{"rope_parameters": {"rope_theta": 5e5}, "rope_theta": 1e6}"#,
            Err(&["rope_parameters.rope_theta is 500000, rope_theta is 1000000"]),
        );
        check(
            r#"{"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "yarn"}}"#,
            Err(&["rope_parameters.rope_type is default, rope_scaling.type is yarn, and the plan"]),
        );
        check(
            r#"{"rope_parameters": {"rope_theta": 1e6}, "rope_theta": "1e6"}"#,
            Err(&["rope_parameters.rope_theta is 1000000, rope_theta is \"1e6\""]),
        );
        check(r#"{"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1000000}"#, Ok(None));
        check(r#"{"rope_parameters": {"rope_theta": 1e6}, "rope_theta": null}"#, Ok(None));
    }

    #[test]
    fn values_that_stand_for_a_figure_are_looked_up() {
        let case = |said: &str, values: &[i64]| Case {
            said: vec![Fact::Text(said.into())],
            values: values.iter().map(|v| Fact::Integer(*v)).collect(),
        };
        let of = |value: i64| Config {
            class: "Net".into(),
            figures: vec![Figure {
                cases: vec![case("i2v", &[1280, 0]), case("t2v", &[0])],
                ..figure(&["model_type", "kind"], Some(Fact::Text("t2v".into())), Fact::Integer(value), Some("IMAGE"))
            }],
            ignored_weights: vec![],
            renames: vec![],
            other_weights: vec![],
        };
        let told = |value, text: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("config.json");
            std::fs::write(&path, text).expect("written");
            match super::check(&path, &[of(value)]) {
                Ok(_) => String::new(),
                Err(error) => format!("{error} help: {}", error.help().unwrap_or_default()),
            }
        };
        assert_eq!(told(1280, r#"{"_class_name": "Net", "model_type": "i2v"}"#), "");
        assert_eq!(told(0, r#"{"_class_name": "Net", "model_type": "i2v", "kind": "i2v"}"#), "");
        assert_eq!(told(0, r#"{"_class_name": "Net"}"#), "");
        for (text, parts) in [
            (
                r#"{"_class_name": "Net", "model_type": "t2v"}"#,
                ["model_type is t2v, and the plan was compiled with IMAGE = 1280", "--set IMAGE=0"],
            ),
            (r#"{"_class_name": "Net"}"#, ["model_type is not there, which means t2v for Net", "--set IMAGE=0"]),
            (
                r#"{"_class_name": "Net", "model_type": "s2v"}"#,
                ["model_type is s2v", "model_type takes `i2v` and `t2v`: these weights need another model"],
            ),
            (
                r#"{"_class_name": "Net", "model_type": "i2v", "kind": "t2v"}"#,
                ["model_type is i2v, kind is t2v", "contradict each other"],
            ),
        ] {
            let told = told(1280, text);
            parts.iter().for_each(|part| assert!(told.contains(part), "{text}: {told}"));
        }
    }

    #[test]
    fn a_quotient_counts_where_no_other_key_is_there() {
        let width = figure(&["head_dim", "width / heads"], None, Fact::Integer(16), Some("HEAD"));
        let known = Config {
            class: "Net".into(),
            figures: vec![width],
            ignored_weights: vec![],
            renames: vec![],
            other_weights: vec![],
        };
        let told = |text: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("config.json");
            std::fs::write(&path, text).expect("written");
            super::check(&path, std::slice::from_ref(&known)).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(told(r#"{"_class_name": "Net", "head_dim": 16, "width": 24, "heads": 6}"#), "");
        assert_eq!(told(r#"{"_class_name": "Net", "width": 96, "heads": 6}"#), "");
        let quotient = told(r#"{"_class_name": "Net", "head_dim": null, "width": 24, "heads": 6}"#);
        assert!(quotient.contains("width / heads is 4"), "{quotient}");
    }

    #[test]
    fn a_value_that_is_no_number_is_called_so() {
        for (value, told) in [("\"4\"", "the string \"4\""), ("[4]", "a list"), ("{}", "an object")] {
            let text = format!(r#"{{"heads": {value}}}"#);
            check(&text, Err(&[&format!("heads is {told}, where a number is needed"), "as JSON numbers"]));
        }
    }

    #[test]
    fn a_class_that_is_not_known_is_compared_by_its_keys() {
        check(r#"{"architectures": ["Other"], "heads": 4}"#, Ok(Some("is of Other")));
        check(r#"{"architectures": ["Other"], "rope_theta": 5}"#, Err(&["rope_theta is 5"]));
        check(r#"{"heads": 4}"#, Ok(None));
        check("[]", Err(&["no config: it is a list, and a JSON object is needed"]));
        check("3", Err(&["no config: it is a number"]));
        check("null", Err(&["no config: it is null"]));
        check("\u{feff}{}", Err(&["no config: it begins with a byte order mark"]));
        check(&"[".repeat(100_000), Err(&["no config: recursion limit exceeded at line 1"]));
        check("{", Err(&["no config"]));
    }
}
