//! Families: equal parameters of a stack's modules under one name, in which braces stand for their positions.
//!
//! `{}` are 0, 1, 2 ..; `{1,4..7,8..17:4}` are 1, 4, 5, 6, 8, 12 and 16.

/// The braces that stand for these positions, which rise.
pub fn family(positions: &[usize]) -> String {
    if positions.iter().enumerate().all(|(i, position)| i == *position) {
        return "{}".into();
    }
    let mut parts = vec![];
    let mut rest = positions;
    while let [first, tail @ ..] = rest {
        let step = tail.first().map_or(1, |second| second - first);
        let even = 1 + tail.iter().enumerate().take_while(|(i, position)| **position == first + (i + 1) * step).count();
        // Two numbers that are no neighbours are not a pattern yet.
        let taken = if even > 2 || (even == 2 && step == 1) { even } else { 1 };
        let end = first + (taken - 1) * step + 1;
        parts.push(match (taken, step) {
            (1, _) => first.to_string(),
            (_, 1) => format!("{first}..{end}"),
            _ => format!("{first}..{end}:{step}"),
        });
        rest = &rest[taken..];
    }
    format!("{{{}}}", parts.join(","))
}

/// The name of the `index`-th of a family: its position takes the place of the braces.
pub fn indexed_name(family: &str, index: usize) -> String {
    let Some((before, (inside, after))) =
        family.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return family.into();
    };
    format!("{before}{}{after}", position(inside, index))
}

fn position(inside: &str, index: usize) -> usize {
    let mut skipped = 0;
    for part in inside.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let number = |text: &str| text.parse::<usize>().unwrap_or(0);
        let (first, end) =
            range.split_once("..").map_or((number(range), number(range) + 1), |(a, b)| (number(a), number(b)));
        let step = number(step).max(1);
        let count = end.saturating_sub(first).div_ceil(step);
        if index - skipped < count {
            return first + (index - skipped) * step;
        }
        skipped += count;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_as_positions_do() {
        let check = |positions: &[usize], braces: &str| {
            let family = family(positions);
            assert_eq!(family, braces);
            let names: Vec<String> =
                (0..positions.len()).map(|i| indexed_name(&format!("layers.{family}.up"), i)).collect();
            let expect: Vec<String> = positions.iter().map(|p| format!("layers.{p}.up")).collect();
            assert_eq!(names, expect, "{braces}");
        };
        check(&[0, 1, 2], "{}");
        check(&[0], "{}");
        check(&[3], "{3}");
        check(&[1, 2], "{1..3}");
        check(&[3, 7, 11, 15], "{3..16:4}");
        check(&[0, 4], "{0,4}");
        check(&[0, 1, 2, 4, 8, 16], "{0..3,4,8,16}");
        check(&[1, 4, 5, 6, 8, 12, 16], "{1,4..7,8..17:4}");
        assert_eq!(indexed_name("norm.weight", 3), "norm.weight");
    }
}
