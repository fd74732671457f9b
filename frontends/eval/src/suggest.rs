//! The nearest of some known names to a misspelt one.

/// The known name that is fewest edits away, if that is few enough to be a slip.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // A name of one letter is near to every other.
    let limit = match name.chars().count() {
        0 | 1 => 0,
        n => n.max(3) / 3,
    };
    known
        .into_iter()
        .map(|k| (distance(name, k), k))
        .filter(|(d, k)| *d <= limit || k.eq_ignore_ascii_case(name))
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
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

/// Levenshtein's distance, a swap of neighbours counting once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = vec![];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut d = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                d = d.min(before[j - 1] + 1);
            }
            row.push(d);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        assert_eq!(nearest("LYAERS", ["HEADS", "LAYERS", "FFN"]), Some("LAYERS"));
        assert_eq!(nearest("heads", ["HEADS"]), Some("HEADS"));
        assert_eq!(nearest("sliu", ["gelu_tanh", "silu"]), Some("silu"));
        assert_eq!(nearest("quark", ["HEADS", "LAYERS"]), None);
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
