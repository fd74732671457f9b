//! `--optim KEY=VALUE,...`: each value is checked against what its key allows, before it becomes an option of a pass.

use diag::{Diagnostic, Diagnostics};

enum Allowed {
    /// A number that f32 can hold, for which the condition holds.
    Number(fn(f64) -> bool),
    Whole,
    OneOf(&'static [&'static str]),
}

use Allowed::{Number, OneOf, Whole};

/// Keys, what they allow, and how a message says it.
const KEYS: [(&str, Allowed, &str); 11] = [
    ("kind", OneOf(&["adamw", "sgd"]), "adamw or sgd"),
    ("lr", Number(|x| x >= 0.0), "a number of 0 or more that f32 can hold"),
    ("beta1", Number(|x| x > 0.0 && x < 1.0), "a number between 0 and 1, both excluded"),
    ("beta2", Number(|x| x > 0.0 && x < 1.0), "a number between 0 and 1, both excluded"),
    ("eps", Number(|x| x >= 0.0), "a number of 0 or more that f32 can hold"),
    ("weight_decay", Number(|x| x >= 0.0), "a number of 0 or more that f32 can hold"),
    (
        "clip",
        Number(|x| x >= 0.0),
        "the largest norm of all gradients, a number of 0 or more that f32 can hold, where 0 is none",
    ),
    ("schedule", OneOf(&["constant", "cosine"]), "constant or cosine"),
    ("warmup", Whole, "a whole number of steps"),
    ("total", Whole, "a whole number of steps"),
    ("working", OneOf(&["true", "false"]), "true or false"),
];

/// The options of the pass `optimizer`, in the pipeline's spelling.
pub fn checked(text: &str) -> Result<String, Diagnostics> {
    let mut found = Diagnostics::default();
    let mut options: Vec<(&str, String)> = vec![];
    for piece in text.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
        let (key, value) = piece.split_once('=').map_or((piece, ""), |(key, value)| (key.trim(), value.trim()));
        let Some((key, allowed, said)) = KEYS.iter().find(|(name, ..)| *name == key) else {
            found.push(unknown(piece, key));
            continue;
        };
        if options.iter().any(|(name, _)| name == key) {
            found.push(Diagnostic::error(format!("--optim {text}: `{key}` is given twice")).help("drop one of them"));
            continue;
        }
        match spelled(allowed, value) {
            Some(value) => options.push((key, value)),
            None => {
                let wrong = if value.is_empty() { "has no value".into() } else { format!("cannot be {value}") };
                let error = Diagnostic::error(format!("--optim {piece}: `{key}` {wrong}"));
                found.push(error.help(format!("give {said}: `--optim {key}=..`")));
            }
        }
    }
    let whole = |key: &str| options.iter().find(|(name, _)| *name == key).and_then(|(_, v)| v.parse::<u64>().ok());
    let (warmup, total) = (whole("warmup").unwrap_or(0), whole("total").unwrap_or(0));
    if options.iter().any(|(key, value)| *key == "schedule" && value == "cosine") && total <= warmup {
        let message = format!("--optim {text}: the cosine ends at step {total} (`total`), and `warmup` takes {warmup}");
        found.push(
            Diagnostic::error(message).help("give the number of steps of the run as `total`, more than `warmup`"),
        );
    }
    if found.has_errors() {
        return Err(found);
    }
    Ok(options.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
}

/// The value as a pipeline spells it, if it is allowed.
fn spelled(allowed: &Allowed, value: &str) -> Option<String> {
    match allowed {
        Number(holds) => {
            let x = value.parse::<f64>().ok()?;
            ((x as f32).is_finite() && holds(x)).then(|| format!("{x:?}"))
        }
        Whole => value.parse::<u64>().ok().map(|n| n.to_string()),
        OneOf(words) => words.contains(&value).then(|| value.to_owned()),
    }
}

fn unknown(piece: &str, key: &str) -> Diagnostic {
    let all = KEYS.map(|(name, ..)| name);
    let listed = format!("the keys are {}", all.join(", "));
    let near = types::nearest(key, all).first().map(|near| format!("did you mean `{near}`? "));
    Diagnostic::error(format!("--optim {piece}: there is no key `{key}`")).help(near.unwrap_or_default() + &listed)
}
