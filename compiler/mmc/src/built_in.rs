//! The published models, for those who have the compiler but not its source tree.

use diag::{Diagnostics, SourceId, Sources};
use eval::Offer;

/// Names of files, and their texts.
const MODELS: &[(&str, &str)] =
    &[("wan2.2.mm", include_str!("../../../models/wan2.2.mm")), ("qwen3.mm", include_str!("../../../models/qwen3.mm"))];

pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

pub fn text(name: &str) -> Option<&'static str> {
    MODELS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
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
    fn no_two_models_claim_one_class() {
        let offers = offers(&mut Sources::default()).expect("they parse");
        let mut classes: Vec<_> = offers.iter().flat_map(|(_, _, offer)| offer.classes.clone()).collect();
        let all = classes.len();
        classes.sort();
        classes.dedup();
        assert!(all > 0 && classes.len() == all, "{classes:?}");
    }
}
