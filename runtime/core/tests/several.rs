//! Several programs on one rank: residencies take turns in the arena, prepared values follow their parameters, and the host
//! decides what runs next.

mod line;

use line::Ramp;
use plan::{BufferId, EmitId, FeedId, Instruction, LaneId, Op, Plan, Slice, Verified, sample};
use runtime_core::{Argument, Executor, Feeder, HostFeeds, Interpreted, Options};

const W: BufferId = BufferId(0);
const TWICE: BufferId = BufferId(1);
const HIGH: BufferId = BufferId(2);
const LOW: BufferId = BufferId(3);
const DOUBLE: u32 = 5;

fn kernels(k: plan::KernelId, args: &mut [Argument<'_>], _: &[i64]) {
    let values = match k.0 {
        DOUBLE => floats(args[0].bytes()).iter().map(|v| v * 2.0).collect(),
        _ => product(&floats(args[0].bytes()), &floats(args[1].bytes())),
    };
    let result = args.last_mut().and_then(Argument::bytes_mut).expect("written");
    result.copy_from_slice(bytemuck::cast_slice(&values));
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().expect("four bytes"))).collect()
}

fn executor(plan: Plan) -> Executor {
    let kernels = Interpreted::new(&plan, kernels);
    let emits: Vec<usize> = plan.programs.iter().map(|p| p.emits.len()).collect();
    let plan = Verified::new(plan).expect("a plan that is right");
    let options = Options { poison: true, ..Options::default() };
    let mut executor = Executor::new(&plan, kernels, None, &options).expect("an executor");
    for (program, count) in emits.into_iter().enumerate() {
        (0..count).for_each(|e| executor.request(program, EmitId::new(e), true));
    }
    for (id, first, count) in [(W, 1.0, 6), (HIGH, 10.0, 6), (LOW, 100.0, 18)] {
        set(&mut executor, id, &(0..count).map(|i| first + i as f32).collect::<Vec<f32>>());
    }
    executor
}

fn set(executor: &mut Executor, id: BufferId, values: &[f32]) {
    executor.write(id).expect("memory").expect("a buffer").copy_from_slice(bytemuck::cast_slice(values));
}

fn get(executor: &Executor, id: BufferId) -> Vec<f32> {
    floats(executor.read(id).expect("memory").expect("a buffer"))
}

fn ramp(first: f32, count: usize) -> Vec<f32> {
    (0..count).map(|i| first + i as f32).collect()
}

/// `y = x W'` for two rows of `w`.
fn product(x: &[f32], w: &[f32]) -> Vec<f32> {
    let wide = w.len() / 2;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    x.chunks_exact(wide).flat_map(|row| w.chunks_exact(wide).map(move |w| dot(row, w))).collect()
}

/// Runs `low` once with these inputs.
fn low(executor: &mut Executor, x: &[f32]) -> Vec<f32> {
    let mut feeds = HostFeeds::new(executor, 2);
    feeds.get(FeedId(0)).expect("a feed").copy_from_slice(bytemuck::cast_slice(x));
    assert!(feeds.get(FeedId(1)).is_none());
    executor.call(2, &feeds, 0).expect("a call");
    floats(&executor.emitted(2, EmitId(0)))
}

#[test]
fn residencies_take_turns_and_the_host_decides() {
    let mut executor = executor(sample::several());
    let x = ramp(-3.0, 18);
    assert_eq!(low(&mut executor, &x), product(&x, &ramp(100.0, 18)));
    let mut feeder = Feeder::new(&executor, 1, Ramp::default(), 0, None).expect("a feeder");
    for step in 0..3 {
        executor.run(1, &mut feeder).expect("a run");
        let x = line::values(FeedId(0), step, 12);
        assert_eq!(floats(&executor.emitted(1, EmitId(0))), product(&x, &ramp(10.0, 6)));
        // A value that is prepared before the first run.
        let twice: Vec<f32> = ramp(1.0, 6).iter().map(|w| w * 2.0).collect();
        assert_eq!(floats(&executor.emitted(1, EmitId(1))), product(&x, &twice));
        let x = ramp(step as f32, 18);
        assert_eq!(low(&mut executor, &x), product(&x, &ramp(100.0, 18)));
    }
    // What sleeps and what is there are read alike.
    assert_eq!((get(&executor, HIGH), get(&executor, LOW)), (ramp(10.0, 6), ramp(100.0, 18)));
    set(&mut executor, LOW, &ramp(5.0, 18));
    assert_eq!(low(&mut executor, &x), product(&x, &ramp(5.0, 18)));
}

#[test]
fn prepared_values_follow_what_the_host_and_programs_write() {
    let mut executor = executor(sample::several());
    executor.prepare().expect("prepared");
    assert_eq!(get(&executor, TWICE), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    set(&mut executor, W, &ramp(7.0, 6));
    low(&mut executor, &ramp(0.0, 18));
    assert_eq!(get(&executor, TWICE), [14.0, 16.0, 18.0, 20.0, 22.0, 24.0]);

    // `high` makes its parameter the new `w`, and doubles it itself: what it writes stays when it goes to sleep.
    let mut plan = sample::several();
    let body = &mut plan.programs[1].bodies[0];
    let mut last = body.instructions[1].clone();
    let Op::Launch(launch) = &mut last.op else { panic!("a launch") };
    launch.kernel = plan::KernelId(DOUBLE);
    launch.scalars.clear();
    launch.args = vec![Slice::whole(W, 24), Slice::whole(HIGH, 24)];
    let copy = Op::Copy { from: Slice::whole(HIGH, 24), to: Slice::whole(W, 24) };
    body.instructions.push(Instruction { lane: LaneId(0), op: copy, ..last.clone() });
    body.instructions.push(last);
    let mut executor = self::executor(plan);
    let mut feeder = Feeder::new(&executor, 1, Ramp::default(), 0, None).expect("a feeder");
    executor.run(1, &mut feeder).expect("a run");
    let doubled = |of: &[f32]| of.iter().map(|v| v * 2.0).collect::<Vec<f32>>();
    assert_eq!(get(&executor, W), ramp(10.0, 6));
    assert_eq!(get(&executor, HIGH), doubled(&ramp(10.0, 6)));
    // Old until the next run, which begins with it.
    assert_eq!(get(&executor, TWICE), doubled(&ramp(1.0, 6)));
    low(&mut executor, &ramp(0.0, 18));
    assert_eq!(get(&executor, TWICE), doubled(&ramp(10.0, 6)));
    assert_eq!(get(&executor, HIGH), doubled(&ramp(10.0, 6)));
}
