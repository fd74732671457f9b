//! Pipeline schedules: their drawings, their bubbles against the closed forms of the papers, and what is no schedule.

use std::collections::BTreeSet;
use std::path::Path;

use cost::{Invalid, Timeline, Unit, UnitSpan};
use passes::{Grid, SCHEDULES, StageSchedule};
use plan::UnitKind;
use proptest::prelude::*;

fn ideal(schedule: &StageSchedule, grid: Grid) -> Timeline {
    schedule.ideal(&grid).unwrap_or_else(|e| panic!("{} on {grid:?}: {e:?}", schedule.name))
}

/// Every schedule on every grid that it takes, up to 8 ranks with 4 stages each and 32 micro-batches.
fn all() -> impl Iterator<Item = (&'static StageSchedule, Grid)> {
    let sizes = (1..=8).flat_map(|ranks| (1..=32).map(move |microbatches| (ranks, microbatches)));
    let grids = sizes.flat_map(|(ranks, microbatches)| (1..=4).map(move |chunks| Grid { ranks, chunks, microbatches }));
    let taken = grids.flat_map(|grid| SCHEDULES.iter().map(move |schedule| (schedule, grid)));
    taken.filter(|(schedule, grid)| schedule.check(grid).is_ok())
}

/// Stages on each rank of four: the fewest that the schedule takes.
fn grid_of_four(schedule: &StageSchedule) -> Grid {
    Grid { ranks: 4, chunks: *schedule.rules.chunks.start(), microbatches: 8 }
}

/// The most micro-batches, over all stages of a rank, that are forward and whose backward is not done.
fn held(timeline: &Timeline) -> Vec<usize> {
    let last = timeline.layout.kinds.last().copied();
    let of = |spans: &Vec<UnitSpan>| {
        let (mut now, mut most) = (0, 0);
        for span in spans {
            match span.unit.kind {
                UnitKind::Forward => now += 1,
                kind if Some(kind) == last => now -= 1,
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
    for schedule in SCHEDULES {
        let timeline = ideal(schedule, grid_of_four(schedule));
        let drawing = format!("{timeline}bubble {:.4}", timeline.bubble());
        insta::assert_snapshot!(format!("schedule {}", schedule.name), drawing);
    }
}

/// What each schedule's file says of its steps, which are all played here.
#[test]
fn steps_and_memory_have_their_closed_forms() {
    let mut seen = BTreeSet::new();
    for (schedule, grid) in all() {
        let timeline = ideal(schedule, grid);
        let rules = &schedule.rules;
        assert_eq!(timeline.length(), (rules.length)(&grid) as f64, "{} on {grid:?}\n{timeline}", schedule.name);
        let promised: Vec<usize> = (0..grid.ranks).map(|rank| (rules.held)(&grid, rank)).collect();
        assert_eq!(held(&timeline), promised, "{} on {grid:?}\n{timeline}", schedule.name);
        seen.insert(schedule.name);
    }
    assert_eq!(seen.len(), SCHEDULES.len(), "a schedule that takes none of the grids");
}

#[test]
fn zero_bubble_schedules_are_no_slower_than_1f1b() {
    for (schedule, grid) in all().filter(|(schedule, _)| schedule.splits_backwards()) {
        let Grid { ranks, chunks, microbatches } = grid;
        let plain = ideal(StageSchedule::of_chunks(1), Grid { chunks: 1, ..grid });
        let zero = ideal(schedule, grid);
        // A stage is a part of 1f1b's: of as many as there are on a rank.
        let [zero_idle, zero_length] = [zero.idle(), zero.length()].map(|time| time / chunks as f64);
        assert!(zero_length <= plain.length(), "{} on {grid:?}\n{zero}\n{plain}", schedule.name);
        if microbatches >= 2 * ranks {
            assert!(3.0 * zero_idle <= plain.idle(), "{} on {grid:?}\n{zero}\n{plain}", schedule.name);
        }
    }
}

#[test]
fn orders_that_are_no_schedule_are_refused() {
    let (schedule, grid) = (StageSchedule::of_chunks(1), Grid { ranks: 2, chunks: 1, microbatches: 2 });
    let orders = schedule.orders(&grid).expect("1f1b takes every grid");
    let refused = |orders: &[Vec<Unit>]| match Timeline::play(schedule.layout(&grid), orders, |_| 1.0) {
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
    let none = Timeline::play(schedule.layout(&grid), &[], |_| 1.0);
    assert!(matches!(none, Err(Invalid::Units { rank: 0 })));
}

#[test]
fn grids_that_a_schedule_does_not_take() {
    let grid = |ranks, chunks, microbatches| Grid { ranks, chunks, microbatches };
    let wished = [
        ("interleaved", grid(4, 2, 6)),
        ("interleaved", grid(4, 1, 8)),
        ("1f1b", grid(4, 2, 8)),
        ("gpipe", grid(4, 1, 0)),
        ("zb-v", grid(4, 1, 8)),
        ("zb-v", grid(4, 3, 8)),
    ];
    let refused = wished.map(|(name, grid)| match StageSchedule::named(name).expect("a schedule").orders(&grid) {
        Ok(_) => format!("{name} takes {grid:?}"),
        Err(errors) => diag::render(&errors, &diag::Sources::default(), false),
    });
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn the_command_lines_page_lists_every_schedule() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let names: Vec<&str> = SCHEDULES.iter().map(|schedule| schedule.name).collect();
    let listed = format!("`--schedule {}`", names.join("|"));
    assert!(page.contains(&listed), "docs/cli.md does not say {listed}");
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

/// A grid that the schedule takes: with micro-batches in whole rounds if it must be.
fn any_grid() -> impl Strategy<Value = (&'static StageSchedule, Grid)> {
    let schedule = prop::sample::select(SCHEDULES.iter().collect::<Vec<_>>());
    (schedule, 1..=8_usize, 1..=4_usize, 1..=12_usize).prop_map(|(schedule, ranks, chunks, microbatches)| {
        let chunks = chunks.clamp(*schedule.rules.chunks.start(), *schedule.rules.chunks.end());
        let grid = Grid { ranks, chunks, microbatches };
        let rounds = Grid { microbatches: ranks * microbatches.div_ceil(4), ..grid };
        (schedule, if schedule.check(&grid).is_ok() { grid } else { rounds })
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
        let length = |u: &Unit| delays[(u.stage * 31 + u.microbatch * 7 + u.kind as usize) % delays.len()] as f64;
        let played = Timeline::play(schedule.layout(&grid), &orders, length);
        let timeline = played.unwrap_or_else(|e| panic!("{} on {grid:?}: {e}", schedule.name));
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
