//! Known names in messages: the one that was meant, and all of them.

/// The known name that someone may have meant.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    types::nearest(name, known).first().copied()
}

/// `a, b and c`, each quoted.
pub fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{n}`")).collect();
    match names.as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_as_sentences() {
        let check = |names: &[&str], expect: &str| assert_eq!(listed(names.iter().copied()), expect);
        check(&["a", "b", "c"], "`a`, `b` and `c`");
        check(&["a"], "`a`");
        check(&[], "none");
    }
}
