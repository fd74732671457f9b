//! The published models and the layers that models share, for those who have the compiler but not its source tree.

use diag::{Diagnostics, SourceId, Sources};
use eval::Offer;

/// Names of files, and their texts.
const MODELS: &[(&str, &str)] = &[
    ("wan2.2.mm", include_str!("../../../models/wan2.2.mm")),
    ("qwen3.mm", include_str!("../../../models/qwen3.mm")),
    ("qwen3_moe.mm", include_str!("../../../models/qwen3_moe.mm")),
];

macro_rules! layers {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("layers/", $name, ".mm"), include_str!(concat!("../../../models/layers/", $name, ".mm")))),*]
    };
}

/// What models and each other use, by the path that a `use` makes.
const LAYERS: &[(&str, &str)] = layers!(
    "conditions",
    "dit",
    "flow",
    "gated_mlp",
    "grid_rope",
    "moe",
    "mrope",
    "next_token",
    "relative_bias",
    "rope",
    "rotary",
    "text_decoder",
    "video_patches",
    "vision_rope",
);

pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

pub fn text(name: &str) -> Option<&'static str> {
    MODELS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

/// Files of layers, by the paths that a `use` makes.
pub fn layers() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|(name, _)| *name)
}

/// A model, or a file of layers such as `layers/rope.mm`.
pub fn used(name: &str) -> Option<&'static str> {
    let layers = || LAYERS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text);
    text(name).or_else(layers)
}

/// What each model offers.
pub fn offers(sources: &mut Sources) -> Result<Vec<(&'static str, SourceId, Offer)>, Diagnostics> {
    let mut found = vec![];
    for (name, text) in MODELS {
        let file = sources.add(*name, *text);
        found.push((*name, file, eval::offer(sources, file)?));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_layers_are_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/layers");
        let entries = std::fs::read_dir(folder).expect("the layers").map(|entry| entry.expect("a file").file_name());
        let mut names: Vec<String> = entries.map(|name| format!("layers/{}", name.to_string_lossy())).collect();
        names.sort();
        assert_eq!(layers().collect::<Vec<_>>(), names);
    }

    #[test]
    fn no_two_models_claim_one_class() {
        let offers = offers(&mut Sources::default()).expect("they parse");
        let mut classes: Vec<_> = offers.iter().flat_map(|(_, _, offer)| offer.classes.clone()).collect();
        let all = classes.len();
        classes.sort();
        classes.dedup();
        assert!(all > 0 && classes.len() == all, "{classes:?}");
    }
}
