//! The cut of a chain of blocks into stages whose slowest is as fast as can be.

/// Where each stage but the first begins, for costs of blocks in their order. There are as many stages as asked for, each
/// of one block at least; `None` if there are too few blocks.
///
/// Dynamic programming over prefixes: the best cut of `n` blocks into `s` stages ends with one stage after the best cut of
/// a shorter prefix. Of equal cuts, the one with shorter last stages is taken.
pub fn balance(costs: &[f64], stages: usize) -> Option<Vec<usize>> {
    if stages == 0 || costs.len() < stages {
        return None;
    }
    let mut sums = vec![0.0];
    sums.extend(costs.iter().scan(0.0, |sum, cost| {
        *sum += cost;
        Some(*sum)
    }));
    // By number of stages and of blocks: the cost of the slowest stage, and where the last one begins.
    let mut best: Vec<Vec<(f64, usize)>> = vec![sums.iter().map(|sum| (*sum, 0)).collect()];
    for stage in 1..stages {
        let before = &best[stage - 1];
        let cut = |end: usize| {
            let cuts = (stage..end).map(|begin| (f64::max(before[begin].0, sums[end] - sums[begin]), begin));
            cuts.reduce(|a, b| if b.0 <= a.0 { b } else { a }).unwrap_or((f64::INFINITY, 0))
        };
        let row = (0..=costs.len()).map(cut).collect();
        best.push(row);
    }
    let mut begins = vec![];
    let mut end = costs.len();
    for stage in (1..stages).rev() {
        end = best[stage][end].1;
        begins.push(end);
    }
    begins.reverse();
    Some(begins)
}
