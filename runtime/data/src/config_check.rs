//! The config.json beside weights: what it says of figures that no tensor's shape shows must be what the plan was
//! compiled with.

use std::path::Path;

use serde_json::Value;
use types::{Config, Fact, Figure};

use crate::data_file::DataFile;
use crate::{DataError, Problem, foreign};

/// Configs are short texts.
const LONGEST: usize = 16 << 20;

/// Compares a config with those that the model declares; gives what is to be told of it.
pub fn check(path: &Path, known: &[Config]) -> Result<Option<String>, DataError> {
    if known.is_empty() {
        return Ok(None);
    }
    let text = DataFile::whole(path, LONGEST)?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| {
        let identity = foreign::identity(&text[..text.len().min(foreign::HEAD)]);
        let identity = identity.filter(|_| !text.trim_ascii_start().starts_with(b"{"));
        DataError::format(path, format!("no config: {}", identity.unwrap_or_else(|| e.to_string())))
    })?;
    let classes: Vec<&str> = match (&value["architectures"], &value["_class_name"]) {
        (Value::Array(names), _) => names.iter().filter_map(Value::as_str).collect(),
        (_, Value::String(name)) => vec![name.as_str()],
        _ => vec![],
    };
    let class = known.iter().find(|c| classes.iter().any(|name| *name == &*c.class));
    // Of a class that the model does not know, what its config says counts, and what it leaves out means nothing.
    let there = |c: &&Config| c.figures.iter().filter(|f| found(&value, f).is_some()).count();
    let Some(config) = class.or_else(|| known.iter().rev().max_by_key(there)) else { return Ok(None) };
    let (mut problems, mut settings, mut computed) = (Vec::new(), Vec::new(), false);
    for figure in &config.figures {
        let (key, said, default) = match (found(&value, figure), &figure.default) {
            (Some((key, fact)), _) => (key, fact, false),
            (None, Some(default)) if class.is_some() => (figure.keys[0].as_str(), default.clone(), true),
            _ => continue,
        };
        if said.equals(&figure.value) {
            continue;
        }
        let said_there =
            if default { format!("not there, which means {said} for {}", config.class) } else { said.to_string() };
        let have = match &figure.setting {
            Some(setting) => format!("{setting} = {}", figure.value),
            None => figure.value.to_string(),
        };
        match &figure.setting {
            Some(setting) => settings.push(format!("--set {setting}={said}")),
            None => computed = true,
        }
        problems.push(Problem::Figure { key: key.into(), config: said_there, plan: have });
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
    if computed {
        help.push("the model has no setting for what is named without one: these weights need another model".into());
    }
    Err(DataError::Mismatch {
        what: format!("{} contradicts the plan", path.display()),
        problems,
        help: Some(help.join("; ")),
    })
}

/// The first key of a figure that the config has, with its value.
fn found<'f>(config: &Value, figure: &'f Figure) -> Option<(&'f str, Fact)> {
    figure.keys.iter().find_map(|key| {
        let value = key.split('.').try_fold(config, |value, part| value.get(part))?;
        Some((key.as_str(), fact(value)?))
    })
}

/// Nothing for null: the class then takes its own value.
fn fact(value: &Value) -> Option<Fact> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(v) => Fact::Bool(*v),
        Value::Number(v) => v.as_i64().map_or_else(|| Fact::Number(v.as_f64().unwrap_or(f64::NAN)), Fact::Integer),
        Value::String(v) => Fact::Text(v.as_str().into()),
        Value::Array(items) => Fact::List(items.iter().map(|v| fact(v).unwrap_or(Fact::Text("null".into()))).collect()),
        Value::Object(_) => Fact::Text("an object".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(keys: &[&str], default: Option<Fact>, value: Fact, setting: Option<&str>) -> Figure {
        let keys = keys.iter().map(|k| (*k).into()).collect();
        Figure { keys, default, value, setting: setting.map(Into::into) }
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
    fn a_class_that_is_not_known_is_compared_by_its_keys() {
        check(r#"{"architectures": ["Other"], "heads": 4}"#, Ok(Some("is of Other")));
        check(r#"{"architectures": ["Other"], "rope_theta": 5}"#, Err(&["rope_theta is 5"]));
        check(r#"{"heads": 4}"#, Ok(None));
        check("[]", Ok(None));
        check("{", Err(&["no config"]));
    }
}
