//! Pipeline schedules: their drawings, their bubbles against the closed forms of the papers, and what is no schedule.

use std::collections::BTreeSet;

use passes::{Grid, Invalid, StageSchedule, Timeline, Unit, UnitKind};
use proptest::prelude::*;

/// On the ideal machine a forward takes 1, and the gradients of inputs and of weights 1 each.
fn length(schedule: StageSchedule) -> impl Fn(&Unit) -> u64 {
    let split = schedule.kinds().contains(&UnitKind::Weights);
    move |unit| if unit.kind == UnitKind::Backward && !split { 2 } else { 1 }
}

fn ideal(schedule: StageSchedule, grid: Grid) -> Timeline {
    let orders = schedule.orders(&grid).unwrap_or_else(|e| panic!("{grid:?}: {e:?}"));
    let timeline = Timeline::play(grid, schedule.kinds(), &orders, length(schedule));
    timeline.unwrap_or_else(|e| panic!("{} on {grid:?}: {e}", schedule.name()))
}

/// Every schedule on every grid that it takes, up to 8 ranks and 32 micro-batches.
fn all() -> impl Iterator<Item = (StageSchedule, Grid)> {
    let grids = (1..=8).flat_map(|ranks| (1..=32).map(move |microbatches| (ranks, microbatches)));
    grids.flat_map(|(ranks, microbatches)| {
        StageSchedule::ALL.into_iter().flat_map(move |schedule| {
            let chunks = if schedule == StageSchedule::Interleaved { 2..=4 } else { 1..=1 };
            let takes = schedule != StageSchedule::Interleaved || microbatches % ranks == 0;
            chunks.filter(move |_| takes).map(move |chunks| (schedule, Grid { ranks, chunks, microbatches }))
        })
    })
}

/// The most micro-batches, over all stages of a rank, that are forward and whose backward is not done.
fn held(timeline: &Timeline, last: UnitKind) -> Vec<usize> {
    let of = |spans: &Vec<passes::Span>| {
        let (mut now, mut most) = (0, 0);
        for span in spans {
            match span.unit.kind {
                UnitKind::Forward => now += 1,
                kind if kind == last => now -= 1,
                _ => {}
            }
            most = most.max(now);
        }
        most
    };
    timeline.ranks.iter().map(of).collect()
}

#[test]
fn four_ranks_with_eight_microbatches() {
    for schedule in StageSchedule::ALL {
        let chunks = if schedule == StageSchedule::Interleaved { 2 } else { 1 };
        let timeline = ideal(schedule, Grid { ranks: 4, chunks, microbatches: 8 });
        let drawing = format!("{timeline}bubble {:.4}", timeline.bubble());
        insta::assert_snapshot!(format!("schedule {}", schedule.name()), drawing);
    }
}

#[test]
fn bubbles_have_their_closed_forms() {
    for (schedule, grid) in all() {
        let timeline = ideal(schedule, grid);
        let (p, v, m) = (grid.ranks as u64, grid.chunks as u64, grid.microbatches as u64);
        // The bubble over the whole is (p - 1) / (work + p - 1), with what a rank does counted in bubbles of one rank.
        let work = match schedule {
            StageSchedule::Gpipe | StageSchedule::OneFOneB => m,
            StageSchedule::Interleaved => v * m,
            StageSchedule::ZbH1 => 3 * m,
        };
        // Gradients of weights fill two thirds of 1f1b's bubble only if there are as many as it is long. With fewer the
        // step is what no order can shorten: all forwards and backwards of the last stage, the way there and back, and
        // the first stage's last gradient of weights.
        let short = schedule == StageSchedule::ZbH1 && m < p;
        let bubble = if short { 2 * (m + p) - 1 - 3 * m } else { p - 1 };
        let (idle, whole) = (timeline.idle(), p * timeline.length());
        assert_eq!(idle * (work + bubble), bubble * whole, "{} on {grid:?}\n{timeline}", schedule.name());
    }
}

#[test]
fn a_rank_holds_no_more_than_its_schedule_promises() {
    for (schedule, grid) in all().filter(|(s, _)| *s != StageSchedule::Interleaved) {
        let Grid { ranks, microbatches, .. } = grid;
        let last = *schedule.kinds().last().expect("a schedule has kinds");
        let promised = |rank: usize| match schedule {
            StageSchedule::Gpipe => microbatches,
            StageSchedule::OneFOneB => microbatches.min(ranks - rank),
            _ => microbatches.min(ranks),
        };
        let promised: Vec<usize> = (0..ranks).map(promised).collect();
        assert_eq!(held(&ideal(schedule, grid), last), promised, "{} on {grid:?}", schedule.name());
    }
}

#[test]
fn zb_h1_leaves_a_third_of_the_bubble_of_1f1b() {
    for (schedule, grid) in all().filter(|(s, _)| *s == StageSchedule::ZbH1) {
        let (zero, plain) = (ideal(schedule, grid), ideal(StageSchedule::OneFOneB, grid));
        assert!(zero.length() <= plain.length(), "{grid:?}\n{zero}\n{plain}");
        if grid.microbatches >= grid.ranks {
            assert_eq!(3 * zero.idle(), plain.idle(), "{grid:?}\n{zero}\n{plain}");
        }
    }
}

#[test]
fn orders_that_are_no_schedule_are_refused() {
    let (schedule, grid) = (StageSchedule::OneFOneB, Grid { ranks: 2, chunks: 1, microbatches: 2 });
    let orders = schedule.orders(&grid).expect("1f1b takes every grid");
    let refused = |orders: &[Vec<Unit>]| match Timeline::play(grid, schedule.kinds(), orders, |_| 1) {
        Ok(timeline) => format!("accepted\n{timeline}"),
        Err(error) => error.to_string(),
    };
    let mut seen = BTreeSet::new();
    let mut missing = orders.clone();
    missing[1].pop();
    seen.insert(refused(&missing));
    let mut twice = orders.clone();
    twice[0].push(orders[0][0]);
    seen.insert(refused(&twice));
    seen.insert(refused(&[orders.clone(), vec![vec![]]].concat()));
    let mut backward_first = orders.clone();
    backward_first[0].reverse();
    seen.insert(refused(&backward_first));
    insta::assert_snapshot!(seen.into_iter().collect::<Vec<_>>().join("\n"));
    assert!(matches!(Timeline::play(grid, schedule.kinds(), &[], |_| 1), Err(Invalid::Units { rank: 0 })));
}

#[test]
fn grids_that_a_schedule_does_not_take() {
    let grid = |ranks, chunks, microbatches| Grid { ranks, chunks, microbatches };
    let wished = [
        (StageSchedule::Interleaved, grid(4, 2, 6)),
        (StageSchedule::Interleaved, grid(4, 1, 8)),
        (StageSchedule::OneFOneB, grid(4, 2, 8)),
        (StageSchedule::Gpipe, grid(4, 1, 0)),
    ];
    let refused = wished.map(|(schedule, grid)| match schedule.orders(&grid) {
        Ok(_) => format!("{} takes {grid:?}", schedule.name()),
        Err(errors) => diag::render(&errors, &diag::Sources::default(), false),
    });
    insta::assert_snapshot!(refused.join("\n"));
}

/// The slowest stage of the best of all cuts.
fn best(costs: &[u32], stages: usize) -> u32 {
    if stages == 1 {
        return costs.iter().sum();
    }
    let firsts = 1..=costs.len() + 1 - stages;
    let cuts = firsts.map(|n| costs[..n].iter().sum::<u32>().max(best(&costs[n..], stages - 1)));
    cuts.min().unwrap_or(u32::MAX)
}

fn any_grid() -> impl Strategy<Value = (StageSchedule, Grid)> {
    let schedule = prop::sample::select(StageSchedule::ALL.to_vec());
    (schedule, 1..=8_usize, 2..=4_usize, 1..=12_usize).prop_map(|(schedule, ranks, chunks, n)| match schedule {
        StageSchedule::Interleaved => (schedule, Grid { ranks, chunks, microbatches: ranks * n.div_ceil(4) }),
        _ => (schedule, Grid { ranks, chunks: 1, microbatches: n }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_into_stages_is_better(costs in prop::collection::vec(0..100_u32, 1..12), stages in 1..6_usize) {
        let float: Vec<f64> = costs.iter().map(|&cost| f64::from(cost)).collect();
        let Some(begins) = passes::balance(&float, stages) else {
            prop_assert!(costs.len() < stages);
            return Ok(());
        };
        prop_assert_eq!(begins.len() + 1, stages);
        let edges: Vec<usize> = [0].into_iter().chain(begins).chain([costs.len()]).collect();
        prop_assert!(edges.is_sorted_by(|a, b| a < b), "a stage without a block: {:?}", edges);
        let slowest = edges.windows(2).map(|edge| costs[edge[0]..edge[1]].iter().sum::<u32>()).max();
        prop_assert_eq!(slowest, Some(best(&costs, stages)));
    }

    /// Whatever each unit takes, nobody waits for ever, and no unit begins before what it needs is there.
    #[test]
    fn orders_end_under_any_delays((schedule, grid) in any_grid(), delays in prop::collection::vec(1..100_u64, 97)) {
        let orders = schedule.orders(&grid).expect("a grid that the schedule takes");
        let length = |u: &Unit| delays[(u.stage * 31 + u.microbatch * 7 + u.kind as usize) % delays.len()];
        let played = Timeline::play(grid, schedule.kinds(), &orders, length);
        let timeline = played.unwrap_or_else(|e| panic!("{} on {grid:?}: {e}", schedule.name()));
        let spans = || timeline.ranks.iter().flatten();
        for span in spans() {
            let Unit { stage, microbatch, kind } = span.unit;
            let needs = match kind {
                UnitKind::Forward => stage.checked_sub(1).map(|before| (before, UnitKind::Forward)),
                UnitKind::Backward if stage + 1 < grid.stages() => Some((stage + 1, UnitKind::Backward)),
                UnitKind::Backward => Some((stage, UnitKind::Forward)),
                UnitKind::Weights => Some((stage, UnitKind::Backward)),
            };
            let Some((stage, kind)) = needs else { continue };
            let needed = spans().find(|s| s.unit == Unit { stage, microbatch, kind }).map(|s| s.end);
            prop_assert!(needed.is_some_and(|end| end <= span.start), "{:?} begins early", span.unit);
        }
    }
}
