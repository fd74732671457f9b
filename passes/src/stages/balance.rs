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

#[cfg(test)]
mod tests {
    use super::*;

    /// The slowest stage of a cut.
    fn slowest(costs: &[f64], begins: &[usize]) -> f64 {
        let ends = begins.iter().copied().chain([costs.len()]);
        let begins = [0].into_iter().chain(begins.iter().copied());
        begins.zip(ends).map(|(begin, end)| costs[begin..end].iter().sum()).fold(0.0, f64::max)
    }

    /// Every cut of `blocks` blocks into `stages` stages.
    fn cuts(blocks: usize, stages: usize) -> Vec<Vec<usize>> {
        if stages == 1 {
            return vec![vec![]];
        }
        let last = |begin: usize| {
            cuts(begin, stages - 1).into_iter().map(move |mut cut| {
                cut.push(begin);
                cut
            })
        };
        (stages - 1..blocks).flat_map(last).collect()
    }

    #[test]
    fn no_cut_is_better() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from((state >> 33) as u32 % 16)
        };
        for blocks in 1..=9 {
            for stages in 1..=blocks {
                let costs: Vec<f64> = (0..blocks).map(|_| random()).collect();
                let begins = balance(&costs, stages).expect("enough blocks");
                let all = cuts(blocks, stages);
                assert!(all.contains(&begins), "{costs:?}: {begins:?}");
                let best = all.iter().map(|cut| slowest(&costs, cut)).fold(f64::INFINITY, f64::min);
                assert_eq!(slowest(&costs, &begins), best, "{costs:?}: {begins:?}");
            }
        }
    }

    #[test]
    fn a_stage_is_one_block_at_least() {
        assert_eq!(balance(&[1.0, 1.0], 3), None);
        assert_eq!(balance(&[9.0, 0.0, 0.0], 3), Some(vec![1, 2]));
    }
}
