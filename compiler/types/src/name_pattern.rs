//! Patterns of names: the regular expressions by which classes say which tensors of a file they pass over.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Name;

/// `^`, `$`, `.`, `\.`, `\d`, characters that stand for themselves, and `*`, `+` or `?` behind one of these. As in Python's
/// `re.search`, it may begin anywhere unless `^` holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamePattern(Name);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Atom {
    Any,
    Digit,
    Is(char),
}

impl NamePattern {
    pub fn new(text: &str) -> Result<Self, String> {
        parse(text).map(|_| Self(text.into()))
    }

    pub fn matches(&self, name: &str) -> bool {
        let Ok(Parsed { atoms, begins, ends }) = parse(&self.0) else { return false };
        let name: Vec<char> = name.chars().collect();
        let starts = if begins { 0..=0 } else { 0..=name.len() };
        starts.into_iter().any(|at| found(&atoms, ends, &name[at..]))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

struct Parsed {
    /// Each with the fewest and the most times that it stands there.
    atoms: Vec<(Atom, usize, usize)>,
    begins: bool,
    ends: bool,
}

fn parse(text: &str) -> Result<Parsed, String> {
    let (begins, rest) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
    let (ends, rest) = match rest.strip_suffix('$').filter(|rest| !rest.ends_with('\\')) {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (mut atoms, mut chars) = (vec![], rest.chars().peekable());
    while let Some(c) = chars.next() {
        let atom = match c {
            '.' => Atom::Any,
            '\\' => match chars.next() {
                Some('d') => Atom::Digit,
                Some(c) if !c.is_alphanumeric() => Atom::Is(c),
                Some(c) => return Err(format!("`\\{c}` is not read here; `\\d` and `\\.` are")),
                None => return Err("it ends with `\\`".into()),
            },
            c if "[]()|^${}*+?".contains(c) => return Err(format!("`{c}` is not read here; write it as `\\{c}`")),
            c => Atom::Is(c),
        };
        let (least, most) = match chars.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            _ => (1, 1),
        };
        if (least, most) != (1, 1) {
            chars.next();
        }
        atoms.push((atom, least, most));
    }
    Ok(Parsed { atoms, begins, ends })
}

/// Whether the atoms stand at the beginning of a name. Which of them may come next is kept for every place at once, so that
/// the time is that of their product.
fn found(atoms: &[(Atom, usize, usize)], ends: bool, name: &[char]) -> bool {
    // Places in the name that the atoms so far lead to.
    let mut at = vec![false; name.len() + 1];
    at[0] = true;
    for (atom, least, most) in atoms {
        let is = |c: char| match atom {
            Atom::Any => true,
            Atom::Digit => c.is_ascii_digit(),
            Atom::Is(other) => c == *other,
        };
        let mut next = vec![false; name.len() + 1];
        let mut again = vec![false; name.len() + 1];
        for i in 0..=name.len() {
            next[i] |= *least == 0 && at[i];
            if i < name.len() && is(name[i]) && (at[i] || *most > 1 && again[i]) {
                next[i + 1] = true;
                again[i + 1] = true;
            }
        }
        at = next;
    }
    if ends { at[name.len()] } else { at.contains(&true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against Python's `re.search`.
    #[test]
    fn patterns_match_as_regular_expressions_do() {
        for (pattern, name, expect) in [
            (r"^mtp\.", "mtp.layers.0.w", true),
            (r"^mtp\.", "model.mtp.w", false),
            (r"^mtp\.", "mtpx.w", false),
            (r"^mtp.*", "mtpx.w", true),
            (r"model\.layers\.61\.", "model.layers.61.w", true),
            (r"model\.layers\.61\.", "model.layers.610.w", false),
            (r"layers\.\d+\.extra$", "model.layers.12.extra", true),
            (r"layers\.\d+\.extra$", "model.layers..extra", false),
            (r"layers\.\d+\.extra$", "model.layers.1.extra.w", false),
            (r"inv_freq", "a.rotary.inv_freq", true),
            (r"^a*b?c+$", "aaacc", true),
            (r"^a*b?c+$", "bbc", false),
            (r"^a*a*a*a*$", "aaaaaaaaab", false),
            ("", "x", true),
        ] {
            assert_eq!(NamePattern::new(pattern).expect(pattern).matches(name), expect, "{pattern} {name}");
        }
        for wrong in [r"(a|b)", r"[0-9]", r"\w", "a\\", "*a"] {
            assert!(NamePattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
