//! Near misses: names that someone may have meant.

/// At most three of `names`, those nearest to `wanted`, if they are near at all.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let limit = wanted.len().div_ceil(3).min(wanted.len() / 2);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            // A prefix too many or too few is the commonest miss of all.
            let nested = name.ends_with(wanted) || wanted.ends_with(name);
            let distance = if nested && !name.is_empty() { 1 } else { distance(wanted, name, limit) };
            (distance <= limit).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    let best = near.first().map_or(0, |(d, _)| *d);
    near.into_iter().take_while(|(d, _)| *d <= best + 1).take(3).map(|(_, n)| n.to_string()).collect()
}

/// Insertions, removals and changes that lead from `a` to `b`; `limit + 1` as soon as it is clear that there are more than `limit`.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|d| *d > limit) {
            return limit + 1;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let names = ["blocks.0.attn1.to_q.weight", "blocks.1.attn1.to_q.weight", "model.head.weight", "x"];
        assert_eq!(nearest("blocks.0.attn1.to_k.weight", names)[0], "blocks.0.attn1.to_q.weight");
        assert_eq!(nearest("head.weight", names), ["model.head.weight"]);
        assert!(nearest("time_embedder.linear_1.bias", names).is_empty());
        assert_eq!(distance("kitten", "sitting", 9), 3);
    }
}
