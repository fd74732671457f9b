//! Sets of classes with what they cost together, in which sets that differ little share nearly all.
//!
//! A trie over the numbers of classes: a set that is another with one class more is a path of new nodes, and the union of
//! two sets ends wherever both have the same node. So the sets of a whole chain take time and memory that hardly grow faster
//! than the chain, where lists of all that each value stands on would grow with its square.

use std::sync::Arc;

/// Numbers in a leaf, one bit each.
const LEAF: usize = 64;
/// Children of a node.
const FAN: usize = 16;

#[derive(Clone, Default)]
pub struct Below {
    root: Option<Arc<Node>>,
}

struct Node {
    cost: u64,
    kind: Kind,
}

enum Kind {
    Leaf(u64),
    Inner([Option<Arc<Node>>; FAN]),
}

/// What each class costs by itself, by number.
type Costs<'a> = &'a dyn Fn(usize) -> u64;

impl Below {
    pub fn cost(&self) -> u64 {
        cost(&self.root)
    }

    pub fn contains(&self, number: usize, numbers: usize) -> bool {
        let (mut node, mut first, mut span) = (&self.root, 0, span(numbers));
        loop {
            match node.as_deref() {
                None => return false,
                Some(Node { kind: Kind::Leaf(bits), .. }) => return bits >> (number - first) & 1 == 1,
                Some(Node { kind: Kind::Inner(children), .. }) => {
                    span /= FAN;
                    let child = (number - first) / span;
                    first += child * span;
                    node = &children[child];
                }
            }
        }
    }

    /// The set with one more of `numbers` that there are.
    pub fn with(&self, number: usize, numbers: usize, costs: Costs<'_>) -> Self {
        Self { root: Some(with(&self.root, 0, span(numbers), number, costs)) }
    }

    pub fn union(&self, other: &Self, costs: Costs<'_>) -> Self {
        Self { root: union(&self.root, &other.root, 0, costs) }
    }
}

/// Numbers under the root of a trie for so many: a leaf's, times the fan on each level.
fn span(numbers: usize) -> usize {
    let mut span = LEAF;
    while span < numbers {
        span *= FAN;
    }
    span
}

fn cost(node: &Option<Arc<Node>>) -> u64 {
    node.as_ref().map_or(0, |node| node.cost)
}

fn leaf(bits: u64, first: usize, costs: Costs<'_>) -> Arc<Node> {
    let (mut cost, mut left) = (0u64, bits);
    while left != 0 {
        cost = cost.saturating_add(costs(first + left.trailing_zeros() as usize));
        left &= left - 1;
    }
    Arc::new(Node { cost, kind: Kind::Leaf(bits) })
}

fn inner(children: [Option<Arc<Node>>; FAN]) -> Arc<Node> {
    let cost = children.iter().map(cost).fold(0u64, u64::saturating_add);
    Arc::new(Node { cost, kind: Kind::Inner(children) })
}

fn with(node: &Option<Arc<Node>>, first: usize, span: usize, number: usize, costs: Costs<'_>) -> Arc<Node> {
    if span == LEAF {
        let bits = match node.as_deref() {
            Some(Node { kind: Kind::Leaf(bits), .. }) => *bits,
            _ => 0,
        };
        return leaf(bits | 1 << (number - first), first, costs);
    }
    let mut children = match node.as_deref() {
        Some(Node { kind: Kind::Inner(children), .. }) => children.clone(),
        _ => Default::default(),
    };
    let span = span / FAN;
    let child = (number - first) / span;
    children[child] = Some(with(&children[child], first + child * span, span, number, costs));
    inner(children)
}

fn union(a: &Option<Arc<Node>>, b: &Option<Arc<Node>>, first: usize, costs: Costs<'_>) -> Option<Arc<Node>> {
    let (Some(x), Some(y)) = (a, b) else { return a.clone().or_else(|| b.clone()) };
    if Arc::ptr_eq(x, y) {
        return a.clone();
    }
    match (&x.kind, &y.kind) {
        (Kind::Leaf(p), Kind::Leaf(q)) => match p | q {
            bits if bits == *p => a.clone(),
            bits if bits == *q => b.clone(),
            bits => Some(leaf(bits, first, costs)),
        },
        (Kind::Inner(p), Kind::Inner(q)) => {
            let span = width(p).max(width(q));
            let children: [_; FAN] = std::array::from_fn(|i| union(&p[i], &q[i], first + i * span, costs));
            let same = |of: &[Option<Arc<Node>>; FAN]| {
                children.iter().zip(of).all(|(a, b)| match (a, b) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (a, b) => a.is_none() && b.is_none(),
                })
            };
            match (same(p), same(q)) {
                (true, _) => a.clone(),
                (_, true) => b.clone(),
                _ => Some(inner(children)),
            }
        }
        // Both are of one depth.
        _ => a.clone(),
    }
}

/// Numbers under each of these children; one of them at least is there.
fn width(children: &[Option<Arc<Node>>; FAN]) -> usize {
    match children.iter().flatten().next().map(|child| &child.kind) {
        Some(Kind::Inner(children)) => FAN * width(children),
        _ => LEAF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_their_costs_are_those_of_lists() {
        let (numbers, costs) = (5000, |number: usize| number as u64 % 7 + 1);
        let random = |seed: usize, i: usize| (seed * 7919 + i * i * 31 + i * 104_729) % numbers;
        for seed in 0..20 {
            let lists = [0, 1].map(|side| (0..100).map(|i| random(2 * seed + side, i)).collect::<Vec<_>>());
            let sets = [0, 1].map(|side: usize| {
                lists[side].iter().fold(Below::default(), |set, number| set.with(*number, numbers, &costs))
            });
            let mut both: Vec<usize> = lists.concat();
            both.sort_unstable();
            both.dedup();
            let union = sets[0].union(&sets[1], &costs);
            assert_eq!(union.cost(), both.iter().map(|number| costs(*number)).sum::<u64>());
            assert!((0..numbers).all(|number| union.contains(number, numbers) == both.binary_search(&number).is_ok()));
            // Nothing new is made of a set and a part of it.
            let again = union.union(&sets[0], &costs);
            assert!(Arc::ptr_eq(again.root.as_ref().expect("a set"), union.root.as_ref().expect("a set")));
        }
    }
}
