//! The loss of language models, chunk by chunk, so that the logits of a whole batch never exist.
use mm::prelude::*;

dims! {
    B, S, HIDDEN, VOCAB,
    // A chunk has every CHUNKS-th token of each sample: samples and tokens can still be cut over the ranks. 1,024 of them
    // hide reading the vocabulary.
    CHUNKS = (B * S).div_ceil(1024).at_least(2),
    PART = S.div_ceil(CHUNKS), PADDED = CHUNKS * PART,
}

/// The label that does not count.
pub const IGNORED: i64 = -100;

/// What each position predicts: the label of the next one.
pub fn next(labels: Tensor![B, S; i64]) -> Tensor![B, S; i64] {
    labels.pad(S, 0, 1, IGNORED).slice(S, 1..)
}

/// The mean loss over the positions whose `next` label counts; `logits` is the head over a chunk.
pub fn loss(x: Tensor![B, S, HIDDEN], next: Tensor![B, S; i64], logits: impl Fn(Tensor) -> Tensor) -> Tensor![; f32] {
    let (loss, count) = total(x, next, logits);
    loss / count
}

/// How many positions count.
pub fn count(next: Tensor![B, S; i64]) -> Tensor![; f32] {
    next.ne(IGNORED).cast(f32).sum()
}

/// The sum of the losses, and how many there are.
pub fn total(
    x: Tensor![B, S, HIDDEN],
    next: Tensor![B, S; i64],
    logits: impl Fn(Tensor) -> Tensor,
) -> (Tensor, Tensor) {
    let more = PADDED - S;
    let x = x.pad(S, 0, more, 0).split(S, [PART, CHUNKS]);
    let next = next.pad(S, 0, more, IGNORED).split(S, [PART, CHUNKS]);
    let x = x.transpose([CHUNKS, B, PART, HIDDEN]).chunks(CHUNKS, CHUNKS);
    let chunks = x.zip(next.transpose([CHUNKS, B, PART]).chunks(CHUNKS, CHUNKS)).recompute();
    let none = constant(0.0, f32);
    chunks.fold((none, none), |(loss, count), (x, next)| {
        let losses = cross_entropy(logits(x), next, VOCAB, IGNORED);
        (loss + losses.sum(), count + next.ne(IGNORED).cast(f32).sum())
    })
}
