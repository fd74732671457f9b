//! The config.json of a saved model: that of the folder the model was read from, or one of the plan's figures.

use std::path::Path;

use serde_json::{Map, Value, json};
use types::{Config, DType, Fact, Figure};

use crate::DataError;
use crate::config_check::LONGEST;
use crate::data_file::DataFile;

/// A library with `save_pretrained` and `from_pretrained`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    Transformers,
    Diffusers,
}

impl Library {
    /// The name of its files of weights.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Transformers => "model",
            Self::Diffusers => "diffusion_pytorch_model",
        }
    }

    /// The `max_shard_size` of `save_pretrained` in transformers 5.24 and in diffusers 0.42.
    pub fn largest_file(self) -> usize {
        match self {
            Self::Transformers => 50_000_000_000,
            Self::Diffusers => 10_000_000_000,
        }
    }
}

/// The config of a folder, as it is to lie beside weights of the type `dtype`. None if the folder has none and the model
/// declares no class.
pub fn of_folder(folder: &Path, declared: &[Config], dtype: DType) -> Result<Option<(Vec<u8>, Library)>, DataError> {
    let path = folder.join("config.json");
    if !path.exists() {
        return Ok(of_plan(declared, dtype));
    }
    let text = DataFile::whole(&path, LONGEST)?;
    let value = serde_json::from_slice(&text).map_err(|e| DataError::format(&path, format!("no config: {e}")))?;
    let Value::Object(mut config) = value else {
        return Err(DataError::format(&path, "no config: it is no JSON object"));
    };
    let class = class_name(&config);
    // The tensors have the names of the first class: another one's config would not find them. Of a class that has the model
    // as a part they get those.
    let has_parts = |class: &str| declared.iter().any(|c| c.class == *class && c.has_parts());
    if class.is_some_and(|class| !has_parts(class)) && declared.first().is_some_and(|c| class != Some(&c.class)) {
        return Ok(of_plan(declared, dtype));
    }
    let diffusers = config.contains_key("_class_name") && !config.contains_key("architectures");
    let library = if diffusers { Library::Diffusers } else { Library::Transformers };
    let before = config.clone();
    // The weights are multiplied out.
    config.remove("quantization_config");
    set_dtype(&mut config, dtype);
    if !diffusers && !["dtype", "torch_dtype"].iter().any(|key| config.contains_key(*key)) {
        config.insert("dtype".into(), name(dtype).into());
    }
    Ok(Some((if config == before { text } else { pretty(config) }, library)))
}

/// What the model declares of the class that a folder's config names.
pub fn class_of<'c>(folder: &Path, declared: &'c [Config]) -> Result<Option<&'c Config>, DataError> {
    let path = folder.join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = DataFile::whole(&path, LONGEST)?;
    let config = serde_json::from_slice(&text).map_err(|e| DataError::format(&path, format!("no config: {e}")))?;
    Ok(class_name(&config).and_then(|class| declared.iter().find(|c| c.class == *class)))
}

fn class_name(config: &Map<String, Value>) -> Option<&str> {
    match (config.get("architectures"), config.get("_class_name")) {
        (Some(Value::Array(names)), _) => names.first().and_then(Value::as_str),
        (_, Some(Value::String(name))) => Some(name.as_str()),
        _ => None,
    }
}

/// The figures of the first class that the model declares, where its config has them.
pub fn of_plan(declared: &[Config], dtype: DType) -> Option<(Vec<u8>, Library)> {
    let class = declared.first()?;
    let mut config = Map::new();
    // Each config of transformers says its type of model; none of diffusers does.
    let transformers = class.figures.iter().any(|f| f.keys.iter().any(|key| key == "model_type"));
    if transformers {
        config.insert("architectures".into(), json!([class.class]));
        config.insert("dtype".into(), name(dtype).into());
    } else {
        config.insert("_class_name".into(), json!(class.class));
    }
    class.figures.iter().for_each(|figure| set(&mut config, figure, &class.figures));
    let library = if transformers { Library::Transformers } else { Library::Diffusers };
    Some((pretty(config), library))
}

/// Enters a figure under the first of its keys that is a path in this file.
fn set(config: &mut Map<String, Value>, figure: &Figure, figures: &[Figure]) {
    // A size of 0 that the class has where the key is missing stands for nothing at all.
    if figure.cases.is_empty() && figure.value == Fact::Integer(0) && figure.default == Some(Fact::Integer(0)) {
        return;
    }
    let Some(key) = own_key(figure) else { return };
    // In a table such as rope's, a number is there only where its kind asks for it.
    let is_default = figure.default.as_ref().is_some_and(|default| default.equals(&figure.value));
    if key.contains('.') && is_default && !matches!(figure.value, Fact::Text(_)) {
        return;
    }
    let Some(said) = said(figure, key, figures) else { return };
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut at = config;
    for part in parts {
        let inner = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(inner) = inner else { return };
        at = inner;
    }
    at.insert(last.into(), json_of(&said));
}

/// The first of a figure's keys that is a path in the config itself.
fn own_key(figure: &Figure) -> Option<&str> {
    let elsewhere = |key: &str| ["model_index.", "scheduler."].iter().any(|of| key.starts_with(of));
    figure.keys.iter().map(|key| key.as_str()).find(|key| !key.contains(" / ") && !elsewhere(key))
}

/// What a config says that has this figure: itself, or what stands for it and for all others that are under the key.
fn said(figure: &Figure, key: &str, figures: &[Figure]) -> Option<Fact> {
    if figure.cases.is_empty() {
        return Some(figure.value.clone());
    }
    let under: Vec<&Figure> = figures.iter().filter(|f| own_key(f) == Some(key)).collect();
    let candidates = figure.default.iter().chain(figure.cases.iter().flat_map(|case| &case.said));
    candidates.into_iter().find(|said| under.iter().all(|f| f.accepts(said))).cloned()
}

fn json_of(fact: &Fact) -> Value {
    match fact {
        Fact::Bool(v) => json!(v),
        Fact::Integer(v) => json!(v),
        Fact::Number(v) => json!(v),
        Fact::Text(v) => json!(v.as_str()),
        Fact::List(items) => items.iter().map(json_of).collect(),
    }
}

/// Says the type of the weights wherever a config of transformers, or one inside it, says one.
fn set_dtype(config: &mut Map<String, Value>, dtype: DType) {
    for (key, value) in config {
        match value {
            Value::String(old) if ["dtype", "torch_dtype"].contains(&key.as_str()) => *old = name(dtype).into(),
            Value::Object(inner) if key.ends_with("_config") => set_dtype(inner, dtype),
            _ => {}
        }
    }
}

/// As PyTorch calls it.
fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "float64",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    }
}

fn pretty(config: Map<String, Value>) -> Vec<u8> {
    let mut text = format!("{:#}", Value::Object(config)).into_bytes();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use types::Case;

    use super::*;

    fn figure(keys: &[&str], default: Option<Fact>, value: Fact) -> Figure {
        Figure { keys: keys.iter().map(|k| (*k).into()).collect(), default, cases: vec![], value, setting: None }
    }

    fn config(class: &str, figures: Vec<Figure>) -> Config {
        Config { class: class.into(), figures, ignored_weights: vec![], renames: vec![], other_weights: vec![] }
    }

    fn standing(key: &str, cases: &[(&[&str], i64)], value: i64) -> Figure {
        let case = |(said, value): &(&[&str], i64)| Case {
            said: said.iter().map(|text| Fact::Text((*text).into())).collect(),
            values: vec![Fact::Integer(*value)],
        };
        let cases = cases.iter().map(case).collect();
        Figure { cases, ..figure(&[key], Some(Fact::Text("plain".into())), Fact::Integer(value)) }
    }

    fn declared() -> Vec<Config> {
        let figures = vec![
            figure(&["model_type"], None, Fact::Text("net".into())),
            figure(&["head_dim", "hidden_size / heads"], None, Fact::Integer(8)),
            figure(&["rope.theta", "theta"], Some(Fact::Number(1e4)), Fact::Number(1e6)),
            figure(&["rope.kind"], Some(Fact::Text("default".into())), Fact::Text("default".into())),
            figure(&["image_dim"], Some(Fact::Integer(0)), Fact::Integer(0)),
            standing("kind", &[(&["plain", "text"], 0), (&["image"], 1280)], 0),
            standing("kind", &[(&["plain", "image"], 0), (&["text"], 1)], 1),
            figure(&["model_index.expand"], Some(Fact::Bool(false)), Fact::Bool(true)),
        ];
        vec![config("Net", figures), config("OldNet", vec![])]
    }

    #[test]
    fn figures_lie_where_the_class_has_them() {
        let (text, library) = of_plan(&declared(), DType::BF16).expect("a class");
        assert_eq!(library, Library::Transformers);
        let found: Value = serde_json::from_slice(&text).expect("JSON");
        let expect = json!({
            "architectures": ["Net"], "dtype": "bfloat16", "model_type": "net", "head_dim": 8,
            "rope": { "theta": 1e6, "kind": "default" }, "kind": "text",
        });
        assert_eq!(found, expect);
        assert!(of_plan(&[], DType::F32).is_none());
    }

    #[test]
    fn a_folders_config_says_the_type_of_the_new_weights() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |text: &str, dtype| {
            std::fs::write(folder.path().join("config.json"), text).expect("written");
            let (text, library) = of_folder(folder.path(), &declared(), dtype).expect("read").expect("a config");
            (String::from_utf8(text).expect("text"), library)
        };
        let same = r#"{"architectures": ["Net"],"x": 1,   "torch_dtype": "float32"}"#;
        assert_eq!(of(same, DType::F32).0, same, "what need not change stays to the byte");
        let (text, library) = of(
            r#"{"architectures": ["Net"], "quantization_config": {"quant_method": "fp8"}, "text_config": {"dtype": "bfloat16"}}"#,
            DType::F32,
        );
        assert_eq!(library, Library::Transformers);
        assert!(
            !text.contains("quant") && !text.contains("bfloat16") && text.contains(r#""dtype": "float32""#),
            "{text}"
        );
        let (text, library) = of(r#"{"_class_name": "Net", "y": null}"#, DType::BF16);
        assert_eq!((text.as_str(), library), (r#"{"_class_name": "Net", "y": null}"#, Library::Diffusers));
        // Names of tensors are the first class's.
        let (text, _) = of(r#"{"_class_name": "OldNet", "dim": 3}"#, DType::F32);
        assert!(text.contains(r#""Net""#) && !text.contains("dim\": 3"), "{text}");
    }
}
