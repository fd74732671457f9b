//! A hub's cache of a model, `models--ORG--NAME`: `refs` name a revision, `snapshots` hold the files of each.

/// Why no snapshot of a cache is the one that is meant; without the folder's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnclearSnapshot {
    pub what: String,
    pub help: String,
}

/// The snapshot that the cache's main reference names, or its only one. `reference` is the text of `refs/main`, where there is
/// one; names of snapshots are sorted.
pub fn hub_snapshot<'n>(reference: Option<&str>, snapshots: &'n [String]) -> Result<&'n str, UnclearSnapshot> {
    let named = reference.and_then(|name| snapshots.iter().find(|snapshot| *snapshot == name.trim()));
    match (named, snapshots) {
        (Some(named), _) => Ok(named),
        (None, [one]) => Ok(one),
        (None, []) => Err(UnclearSnapshot {
            what: "is a hub's cache without a snapshot".into(),
            help: "download the model again".into(),
        }),
        (None, several) => Err(UnclearSnapshot {
            what: format!("is a hub's cache with {} snapshots, and refs/main names none", several.len()),
            help: format!("give the folder of one of them, below snapshots: {}", several.join(", ")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_reference_names_the_snapshot() {
        let names = ["a".to_string(), "b".to_string()];
        assert_eq!(hub_snapshot(None, &names[..1]), Ok("a"));
        assert_eq!(hub_snapshot(Some("b\n"), &names), Ok("b"));
        assert_eq!(hub_snapshot(Some("c"), &names[1..]), Ok("b"));
        let error = hub_snapshot(Some("c"), &names).expect_err("two");
        assert!(error.what.contains("2 snapshots") && error.help.ends_with("a, b"), "{error:?}");
        assert!(hub_snapshot(None, &[]).is_err());
    }
}
