//! The names under which a file has the tensors of a model: with a prefix or without, and buffers that are no weights.

use rustc_hash::FxHashSet;

/// Parts at the start of names that may be a prefix.
const DEEPEST: usize = 4;

/// What stands before all names of a file, and what stands there in the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    pub file: String,
    pub model: String,
}

impl Prefix {
    /// The prefix under which most of the parameters are found; none unless one finds more than no prefix does, and half of
    /// all. A parameter has several names, of which any counts.
    pub fn find(names: &[&str], parameters: &[Vec<&str>]) -> Self {
        let have: FxHashSet<&str> = names.iter().copied().collect();
        let expected: Vec<&str> = parameters.iter().flatten().copied().collect();
        let mut best = (Prefix::default().found(&have, parameters), Prefix::default());
        if best.0 == parameters.len() {
            return best.1;
        }
        for file in common(names) {
            for model in common(&expected) {
                let prefix = Prefix { file: file.clone(), model };
                let found = prefix.found(&have, parameters);
                if found > best.0 && 2 * found >= parameters.len() {
                    best = (found, prefix);
                }
            }
        }
        best.1
    }

    /// How many of the parameters are among the names.
    pub fn count(&self, names: &[&str], parameters: &[Vec<&str>]) -> usize {
        self.found(&names.iter().copied().collect(), parameters)
    }

    fn found(&self, have: &FxHashSet<&str>, parameters: &[Vec<&str>]) -> usize {
        let found = |name: &&str| have.contains(name) || self.in_file(name).is_some_and(|n| have.contains(&*n));
        parameters.iter().filter(|names| names.iter().any(found)).count()
    }

    /// The name in the file of what the model calls `name`.
    fn in_file(&self, name: &str) -> Option<String> {
        Some(format!("{}{}", self.file, name.strip_prefix(&*self.model)?))
    }

    /// The model's name of what the file calls `name`.
    pub fn in_model(&self, name: &str) -> Option<String> {
        Some(format!("{}{}", self.model, name.strip_prefix(&*self.file)?))
    }
}

/// Prefixes that at least half of the names share, the empty one first.
fn common(names: &[&str]) -> Vec<String> {
    let mut prefixes = vec![String::new()];
    for _ in 0..DEEPEST {
        let last = &prefixes[prefixes.len() - 1];
        let mut counts: std::collections::BTreeMap<&str, usize> = Default::default();
        for name in names.iter().filter(|n| n.starts_with(&**last)) {
            if let Some(at) = name[last.len()..].find('.') {
                *counts.entry(&name[..last.len() + at + 1]).or_default() += 1;
            }
        }
        match counts.into_iter().max_by_key(|(_, n)| *n).filter(|(_, n)| 2 * n >= names.len()) {
            Some((prefix, _)) => prefixes.push(prefix.to_string()),
            None => break,
        }
    }
    prefixes
}

/// The buffer that a tensor is by its name: what a model computes anew and releases store all the same.
pub fn buffer(name: &str) -> Option<&'static str> {
    const BUFFERS: [&str; 9] = [
        "rotary_emb.inv_freq",
        "rotary_emb.original_inv_freq",
        "rotary_pos_emb.inv_freq",
        "rotary_emb.cos_cached",
        "rotary_emb.sin_cached",
        "attn.masked_bias",
        "attention.masked_bias",
        "position_ids",
        "num_batches_tracked",
    ];
    let ends = |buffer: &&&str| name.strip_suffix(**buffer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    BUFFERS.iter().find(ends).copied()
}

/// Whether a name says that its tensor is the average of another over a training.
pub fn is_average(name: &str) -> bool {
    const WORDS: [&str; 6] = ["ema", "model_ema", "ema_model", "module_ema", "ema_params", "shadow_params"];
    name.split('.').any(|part| WORDS.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_all_names_is_found() {
        let model = ["model.embed.weight", "model.layers.0.q.weight", "model.layers.1.q.weight", "model.norm.weight"];
        let check = |names: &[&str], file: &str, expect_model: &str| {
            let parameters: Vec<Vec<&str>> = model.iter().map(|n| vec![*n]).collect();
            let found = Prefix::find(names, &parameters);
            assert_eq!((found.file.as_str(), found.model.as_str()), (file, expect_model), "{names:?}");
        };
        let with = |prefix: &str| model.map(|n| format!("{prefix}{n}"));
        let without = model.map(|n| n.strip_prefix("model.").expect("has it"));
        check(&model, "", "");
        for prefix in ["module.", "_orig_mod.", "model.diffusion_model.", "a.b.c."] {
            let names = with(prefix);
            check(&names.each_ref().map(String::as_str), prefix, "");
        }
        check(&without, "", "model.");
        let other = without.map(|n| format!("transformer.{n}"));
        check(&other.each_ref().map(String::as_str), "transformer.", "model.");
        // One that is missing is missing, and strangers keep their names.
        let names = with("module.");
        check(&[&names[0], &names[1], &names[2], "vae.w"], "module.", "");
        check(&["a.w", "b.w"], "", "");
        check(&[], "", "");
    }

    #[test]
    fn buffers_are_known_by_the_end_of_their_names() {
        assert_eq!(buffer("model.layers.3.self_attn.rotary_emb.inv_freq"), Some("rotary_emb.inv_freq"));
        assert_eq!(buffer("position_ids"), Some("position_ids"));
        assert_eq!(buffer("my_position_ids"), None);
        assert_eq!(buffer("model.norm.weight"), None);
    }
}
