//! Near misses: the names that someone may have meant.

/// At most three of `names`, those fewest edits away from `wanted` first, if they are near enough to be a slip.
pub fn nearest<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let letters: Vec<char> = wanted.chars().collect();
    // A name of one letter is near to every other.
    let limit = match letters.len() {
        0 | 1 => 0,
        n => n.max(3) / 3,
    };
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            // One prefix too many or too few is the commonest miss of all, and another case the next.
            let close = nested(wanted, name) || nested(name, wanted) || name.eq_ignore_ascii_case(wanted);
            let distance = if close { 1 } else { distance(&letters, name, limit)? };
            Some((distance, name))
        })
        .collect();
    near.sort_unstable();
    let best = near.first().map_or(0, |(d, _)| *d);
    near.into_iter().take_while(|(d, _)| *d <= best + 1).take(3).map(|(_, name)| name).collect()
}

/// Whether `outer` is `inner` after some more levels: `model.head.weight` of `head.weight`.
fn nested(outer: &str, inner: &str) -> bool {
    outer.strip_suffix(inner).is_some_and(|prefix| !inner.is_empty() && prefix.ends_with('.'))
}

/// Insertions, removals, changes and swaps of neighbours that lead from `a` to `b`, if they are at most `limit`.
fn distance(a: &[char], b: &str, limit: usize) -> Option<usize> {
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
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
        // A swap reaches back two rows.
        if last.iter().chain(&before).all(|d| *d > limit) {
            return None;
        }
    }
    Some(last[b.len()]).filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        assert_eq!(nearest("LYAERS", ["HEADS", "LAYERS", "FFN"]), ["LAYERS"]);
        assert_eq!(nearest("heads", ["HEADS"]), ["HEADS"]);
        assert_eq!(nearest("sliu", ["gelu_tanh", "silu"]), ["silu"]);
        assert!(nearest("quark", ["HEADS", "LAYERS"]).is_empty());
        assert!(nearest("x", ["y", "max"]).is_empty());
    }

    #[test]
    fn checkpoints_names_are_near_by_their_ends() {
        let names = ["blocks.0.attn1.to_q.weight", "blocks.1.attn1.to_q.weight", "model.head.weight", "x"];
        assert_eq!(nearest("blocks.0.attn1.to_k.weight", names)[0], "blocks.0.attn1.to_q.weight");
        assert_eq!(nearest("head.weight", names), ["model.head.weight"]);
        assert!(nearest("time_embedder.linear_1.bias", names).is_empty());
    }

    #[test]
    fn edits_are_counted() {
        let count = |a: &str, b| distance(&a.chars().collect::<Vec<_>>(), b, 9);
        assert_eq!(count("kitten", "sitting"), Some(3));
        assert_eq!(count("ab", "ba"), Some(1));
        assert_eq!(count("", "abc"), Some(3));
    }
}
