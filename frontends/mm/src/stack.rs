//! Stacks: equal modules, or equal pieces of a tensor, folded over. A fold is traced once and called for each.

use crate::{Module, Size};

/// Equal modules, one after the other. Their parameters are named by number: `blocks.0`, `blocks.1` ...
#[derive(Clone, Copy, Debug)]
pub struct Stack<M>(M);

impl<M> Module for Stack<M> {}

impl<M> Stack<M> {
    /// Carries a value, or several, through all modules.
    pub fn fold<A>(&self, first: A, body: impl FnOnce(A, &M) -> A) -> A {
        body(first, &self.0)
    }

    /// Carries a value through all, and collects what each turn gives beside it.
    pub fn scan<A, O>(&self, first: A, body: impl FnOnce(A, &M) -> (A, O)) -> (A, Stack<O>) {
        let (last, out) = body(first, &self.0);
        (last, Stack(out))
    }

    /// Pairs of elements.
    pub fn zip<'s, U>(&'s self, other: &'s Stack<U>) -> Stack<(&'s M, &'s U)> {
        Stack((&self.0, &other.0))
    }

    /// The backward of a fold over it computes the body again instead of keeping its values.
    #[must_use]
    pub fn recompute(&self) -> &Self {
        self
    }
}

impl<A, B> Stack<(A, B)> {
    /// The stack of the first of each pair, and that of the second.
    pub fn unzip(self) -> (Stack<A>, Stack<B>) {
        (Stack(self.0.0), Stack(self.0.1))
    }
}

/// Positions of modules: a range or a list, each greater than the one before.
pub trait Positions {}

impl Positions for std::ops::Range<i64> {}
impl Positions for std::ops::RangeInclusive<i64> {}
impl<const N: usize> Positions for [i64; N] {}
impl Positions for &[i64] {}

/// A module for each position, by which the checkpoint counts: `layers.3`, `layers.4` ... They may be of several kinds,
/// such as every fourth with another attention: each kind is traced once where the kinds follow a pattern.
pub fn stack_at<M>(_positions: impl Positions, make: impl FnOnce(i64) -> M) -> Stack<M> {
    Stack(make(0))
}

/// This many of the modules that `make` makes.
pub fn stack<M>(_count: Size, make: impl FnOnce() -> M) -> Stack<M> {
    Stack(make())
}

/// Equal pieces of a tensor, or of several tensors at once.
#[derive(Clone, Copy, Debug)]
pub struct Chunks<T>(T);

impl<T> Chunks<T> {
    pub(crate) fn of(whole: T) -> Self {
        Chunks(whole)
    }

    /// Pairs of pieces.
    pub fn zip<U>(self, other: Chunks<U>) -> Chunks<(T, U)> {
        Chunks((self.0, other.0))
    }

    /// The backward of a fold over it computes the body again instead of keeping its values.
    #[must_use]
    pub fn recompute(self) -> Self {
        self
    }

    /// Carries a value, or several, through all pieces.
    pub fn fold<A>(self, first: A, body: impl FnOnce(A, T) -> A) -> A {
        body(first, self.0)
    }
}
