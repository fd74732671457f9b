//! T5's relative positions: a learned number for each head and bucket of distances, added to scores of attention.
use mm::prelude::*;

dims! {
    S, T = S, HEADS, BUCKETS = 32,
    // Buckets of one direction: one for each short distance, then one for each step of a geometric series.
    SIDE = BUCKETS / DIRECTIONS, NEAR = SIDE / 2, FAR = SIDE - NEAR,
}

/// 1 where queries see no later keys.
pub const DIRECTIONS: i64 = 2;

/// The distance from which on all are alike.
pub const FARTHEST: f64 = 128.0;

/// The numbers of a learned table, [BUCKETS, HEADS].
pub fn table() -> Embedding {
    embedding(BUCKETS, HEADS)
}

/// What is added to the scores of a sequence with itself, of queries S and keys T.
pub fn of_tokens(table: &Embedding) -> Tensor![HEADS, S, T] {
    table.forward(bucket(iota(T, i64) - iota(S, i64)).transpose([S, T])).transpose([HEADS, S, T])
}

/// The bucket of each distance, which is the position of a key less that of the query; an i64.
pub fn bucket(distance: Tensor) -> Tensor {
    let size = if DIRECTIONS == 2 { distance.max(-distance) } else { -distance.min(0) };
    // The series is compared with whole numbers, of which some are on it.
    let steps = powers(FARTHEST / NEAR.f64(), (iota(FAR, f32) + 1.0) / FAR.f64()) * NEAR.f64() - 0.001;
    let passed = size.cast(f32).ge(steps).cast(i64).sum_over([FAR]);
    let bucket = (size.min(NEAR) + passed).min(SIDE - 1);
    if DIRECTIONS == 2 { bucket + distance.gt(0).cast(i64) * SIDE } else { bucket }
}
