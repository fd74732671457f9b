//! Loops found again in what was written out: runs of equal stretches in a sequence of keys.
//!
//! The longest run of equal neighbours is taken first and becomes one item, its inside is searched in the same way, and
//! so on until no neighbours are equal: 16 micro-batches of 40 blocks come out as a loop in a loop.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Shorter runs are coincidence.
const LEAST: usize = 4;
/// Distances that are tried in one search, the most frequent first.
const CANDIDATES: usize = 16;
/// How often even the rarest key of a stretch may occur in it: distances to that many earlier occurrences are counted.
const OCCURRENCES: usize = 4;

/// A stretch that is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    pub times: usize,
    /// For each turn, its tokens.
    pub turns: Vec<Vec<usize>>,
}

#[derive(Debug, Default)]
pub struct Folded {
    /// For each token, the one that stands for it: itself, or that of the first turn.
    pub first: Vec<usize>,
    /// Outer loops before those inside them; loops in other turns than the first are left out.
    pub loops: Vec<Loop>,
}

pub fn fold(keys: &[u32]) -> Folded {
    let next = keys.iter().max().map_or(0, |k| k + 1);
    let mut folder = Folder { first: (0..keys.len()).collect(), loops: vec![], names: HashMap::new(), next };
    let items = keys.iter().enumerate().map(|(i, &key)| Item { key, tokens: vec![i], loops: vec![] }).collect();
    let items = folder.contract(items);
    let mut kept: Vec<usize> = items.into_iter().flat_map(|item| item.loops).collect();
    kept.sort_by_key(|&l| (folder.loops[l].turns[0][0], usize::MAX - folder.loops[l].turns[0].len()));
    let loops = kept.into_iter().map(|l| folder.loops[l].clone()).collect();
    let first = (0..keys.len()).map(|t| folder.root(t)).collect();
    Folded { first, loops }
}

#[derive(Clone)]
struct Item {
    key: u32,
    tokens: Vec<usize>,
    loops: Vec<usize>,
}

struct Folder {
    /// Towards the token that stands for it: never larger than itself.
    first: Vec<usize>,
    loops: Vec<Loop>,
    /// Equal loops get equal keys.
    names: HashMap<(Vec<u32>, usize), u32>,
    next: u32,
}

impl Folder {
    fn root(&self, mut token: usize) -> usize {
        while self.first[token] != token {
            token = self.first[token];
        }
        token
    }

    fn contract(&mut self, mut items: Vec<Item>) -> Vec<Item> {
        while let Some((start, period, times)) = longest(&items) {
            let run: Vec<Item> = items[start..start + period * times].to_vec();
            let turns: Vec<Vec<usize>> =
                run.chunks(period).map(|turn| turn.iter().flat_map(|i| i.tokens.iter().copied()).collect()).collect();
            // Inside one turn there may be more; the others are equal to it.
            let inside = self.contract(run[..period].to_vec());
            for turn in &turns[1..] {
                for (&token, &first) in turn.iter().zip(&turns[0]) {
                    let (a, b) = (self.root(token), self.root(first));
                    self.first[a.max(b)] = a.min(b);
                }
            }
            let name = (run[..period].iter().map(|i| i.key).collect(), times);
            let key = *self.names.entry(name).or_insert_with(|| {
                self.next += 1;
                self.next - 1
            });
            let tokens = turns.concat();
            self.loops.push(Loop { times, turns });
            let own = self.loops.len() - 1;
            let loops = std::iter::once(own).chain(inside.into_iter().flat_map(|i| i.loops)).collect();
            items.splice(start..start + period * times, [Item { key, tokens, loops }]);
        }
        items
    }
}

/// Start, period and number of turns of the run of equal stretches that covers most.
fn longest(items: &[Item]) -> Option<(usize, usize, usize)> {
    let mut seen: HashMap<u32, VecDeque<usize>> = HashMap::new();
    let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        let seen = seen.entry(item.key).or_default();
        for before in &*seen {
            *votes.entry(at - before).or_default() += 1;
        }
        if seen.len() == OCCURRENCES {
            seen.pop_front();
        }
        seen.push_back(at);
    }
    let mut periods: Vec<(usize, usize)> = votes.into_iter().collect();
    periods.sort_by_key(|&(period, votes)| (usize::MAX - votes, period));
    let mut best: Option<(usize, (usize, usize, usize))> = None;
    for &(period, _) in periods.iter().take(CANDIDATES) {
        let mut equal = 0;
        for at in 0..items.len() - period {
            equal = if items[at].key == items[at + period].key { equal + 1 } else { 0 };
            let ends = at + 1 == items.len() - period || items[at + 1].key != items[at + 1 + period].key;
            if equal < period || !ends {
                continue;
            }
            let (start, times) = (at + 1 - equal, equal / period + 1);
            let covers: usize = items[start..start + period * times].iter().map(|i| i.tokens.len()).sum();
            if covers / times >= LEAST && best.is_none_or(|(most, _)| covers > most) {
                best = Some((covers, (start, period, times)));
            }
        }
    }
    best.map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters are keys; the loops as `start+period x times`.
    fn check(text: &str, want: &[&str]) {
        let keys: Vec<u32> = text.bytes().map(u32::from).collect();
        let folded = fold(&keys);
        let drawn = |l: &Loop| format!("{}+{} x {}", l.turns[0][0], l.turns[0].len(), l.times);
        let drawn: Vec<String> = folded.loops.iter().map(drawn).collect();
        assert_eq!(drawn, want, "{text}");
        for (token, &first) in folded.first.iter().enumerate() {
            assert!(first <= token && keys[first] == keys[token] && folded.first[first] == first);
        }
    }

    #[test]
    fn loops_are_found_again() {
        check("abcdefgh", &[]);
        check("xyabcdabcdabcdz", &["2+4 x 3"]);
        check("aabbaabb", &["0+4 x 2"]);
    }

    #[test]
    fn loops_are_found_inside_loops_and_beside_them() {
        check("sabcdabcdabcdtsabcdabcdabcdtsabcdabcdabcdt", &["0+14 x 3", "1+4 x 3"]);
        check("abcdabcdefgh_hgfehgfe", &["0+4 x 2", "13+4 x 2"]);
    }

    #[test]
    fn equal_loops_with_nothing_else_between_them_fold_again() {
        check("abcdabcdRabcdabcdRabcdabcdR", &["0+9 x 3", "0+4 x 2"]);
    }
}
