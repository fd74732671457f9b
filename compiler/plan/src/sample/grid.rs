//! The sample on four ranks, fsdp 2 by tp 2: batch and weights are cut, and every collective has its lane.
//!
//! Each rank holds one of four rows of `w`, cut over tp and then fsdp. It gathers the two rows of its tp position over
//! fsdp, and then solves what the sample on one rank solves, for its half of the batch. The losses of the four ranks are
//! summed, and so are the gradients over fsdp, each rank keeping its row. So the whole is linear regression with
//! `x: f32[B:8, IN:3]`, `w: f32[OUT:4, IN:3]` and loss `sum((x w' - noise)^2) / 8`. Besides, `p` goes one step on around
//! tp, and `dp` one step back.

use types::{Cut, Distribution, Init, Name};

use super::{at, buffer, close, emit, header, kernels, launch, program, ty};
use crate::{
    Body, Buffer, BufferId, BufferKind, Class, Collect, CollectKind, Emit, EmitId, EventId, Feed, FeedId, Instruction,
    LaneId, LaneKind, Layout, Life, Manifest, Op, Parameter, ParameterId, Place, Plan, Ranks, Reduce, ReduceKind,
    Slice, Source, State, StateInit, When,
};

const W: BufferId = BufferId(0);
const MOMENT: BufferId = BufferId(1);
const STEP: BufferId = BufferId(2);
const AT: BufferId = BufferId(3);
const X: BufferId = BufferId(4);
const Y: BufferId = BufferId(5);
const WIDE: BufferId = BufferId(6);
const P: BufferId = BufferId(7);
const LOSS: BufferId = BufferId(8);
const DP: BufferId = BufferId(9);
const ONWARD: BufferId = BufferId(10);
const BACK: BufferId = BufferId(11);
const TOTAL: BufferId = BufferId(12);
const DW: BufferId = BufferId(13);
const ROW: BufferId = BufferId(14);

const COMPUTE: LaneId = LaneId(0);
const COPY: LaneId = LaneId(1);
const FSDP: LaneId = LaneId(2);
const TP: LaneId = LaneId(3);
const ALL: LaneId = LaneId(4);

const SUM: Reduce = Reduce { kind: ReduceKind::Sum, dtype: types::DType::F32 };

/// The plan, with one class for its four ranks.
pub fn grid() -> Plan {
    let persistent = vec![
        buffer("w", BufferKind::Parameter, 0, "f32[OUT:1, IN:3]", Life::Persistent),
        buffer("exp_avg/w", BufferKind::Optimizer, 64, "f32[OUT:1, IN:3]", Life::Persistent),
        buffer("step", BufferKind::State, 128, "i64[]", Life::Persistent),
        buffer("coordinate/tp", BufferKind::State, 192, "i64[]", Life::Persistent),
    ];
    let class = Class { name: "all".into(), ranks: Ranks::all(), persistent };
    let programs = vec![
        program("train", feeds(), trained(), body(&class, train(), 7)),
        program("forward", vec![feeds().swap_remove(0)], vec![given("out")], body(&class, forward(), 1)),
    ];
    Plan {
        header: header("grid.mm", [1, 1, 2, 1, 2]),
        kernels: kernels(),
        classes: vec![class],
        residencies: vec![],
        programs,
        manifest: manifest(),
        places: (1..=4)
            .map(|line| Place { file: "grid.mm".into(), line, column: 9, chain: Name::new("grid") })
            .collect(),
        object: Vec::new(),
    }
}

/// One list of axes a dim.
fn cut(axes: &[&[&str]]) -> Layout {
    let cut = |axes: &&[&str]| Cut { axes: axes.iter().map(|a| Name::new(a)).collect() };
    Layout { cuts: axes.iter().map(cut).collect() }
}

fn rows() -> Layout {
    cut(&[&["tp", "fsdp"], &[]])
}

fn out() -> Layout {
    cut(&[&["fsdp"], &["tp"]])
}

fn feeds() -> Vec<Feed> {
    vec![
        Feed {
            name: "x".into(),
            aliases: vec![],
            ty: ty("f32[B:8, IN:3]"),
            layout: cut(&[&["fsdp"], &[]]),
            source: Source::Data,
        },
        Feed {
            name: "noise".into(),
            aliases: vec![],
            ty: ty("f32[B:8, OUT:4]"),
            layout: out(),
            source: Source::Draw(Distribution::Normal { mean: 0.0, std: 1.0 }),
        },
    ]
}

fn trained() -> Vec<Emit> {
    vec![
        emit("loss", "f32[]", Layout::whole(), When::Always),
        emit("grad/w", "f32[OUT:4, IN:3]", rows(), When::OnRequest("grads".into())),
        given("onward"),
        given("back"),
    ]
}

fn given(name: &str) -> Emit {
    emit(name, "f32[B:8, OUT:4]", out(), When::Always)
}

fn manifest() -> Manifest {
    let state = |name: &str, of: &str, layout, init, buffer| State {
        name: name.into(),
        of: name.starts_with("exp_avg/").then_some(ParameterId(0)),
        ty: ty(of),
        layout,
        init,
        buffers: vec![Some(buffer)],
    };
    let zeros = || StateInit::Value(Init::Zeros);
    Manifest {
        parameters: vec![Parameter {
            name: "w".into(),
            aliases: vec!["weight".into()],
            ty: ty("f32[OUT:4, IN:3]"),
            layout: rows(),
            init: Init::Random(Distribution::Normal { mean: 0.0, std: 0.5 }),
            trainable: true,
            forms: vec![],
            buffers: vec![Some(W)],
        }],
        states: vec![
            state("exp_avg/w", "f32[OUT:4, IN:3]", rows(), zeros(), MOMENT),
            state("step", "i64[]", Layout::whole(), zeros(), STEP),
            state("coordinate/tp", "i64[]", Layout::whole(), StateInit::Coordinate("tp".into()), AT),
        ],
        ragged: vec![],
    }
}

/// Buffers as both programs name them.
fn buffers() -> Vec<Buffer> {
    let never = Life::Span { first: u32::MAX, last: 0 };
    [
        ("x", BufferKind::Feed, "f32[B:4, IN:3]"),
        ("noise", BufferKind::Feed, "f32[B:4, OUT:2]"),
        ("w over fsdp", BufferKind::Activation, "f32[OUT:2, IN:3]"),
        ("p", BufferKind::Activation, "f32[B:4, OUT:2]"),
        ("loss", BufferKind::Activation, "f32[]"),
        ("dp", BufferKind::Activation, "f32[B:4, OUT:2]"),
        ("p onward", BufferKind::Activation, "f32[B:4, OUT:2]"),
        ("dp back", BufferKind::Activation, "f32[B:4, OUT:2]"),
        ("loss over all", BufferKind::Activation, "f32[]"),
        ("dw", BufferKind::Activation, "f32[OUT:2, IN:3]"),
        ("grad/w", BufferKind::Gradient, "f32[OUT:1, IN:3]"),
    ]
    .into_iter()
    .zip(4..)
    .map(|((name, kind, of), i)| buffer(name, kind, 64 * i, of, never))
    .collect()
}

/// What a lane of collectives reads lives until compute waits for that lane.
fn body(class: &Class, instructions: Vec<Instruction>, events: u32) -> Body {
    let lanes = vec![LaneKind::Compute, LaneKind::Copy, LaneKind::Comm(0), LaneKind::Comm(1), LaneKind::Comm(2)];
    let mut body = close(
        class,
        Body {
            buffers: buffers(),
            lanes,
            instructions,
            events,
            arena_bytes: 960,
            host_bytes: 0,
            units: vec![],
            kept: vec![],
        },
    );
    let mut done = vec![None; events as usize];
    let mut collect = None;
    for (index, instruction) in body.instructions.iter().enumerate() {
        match &instruction.op {
            Op::Collect(c) => collect = Some(c),
            Op::Record { event } if instruction.lane != COMPUTE => done[event.index()] = collect.take(),
            Op::Wait { event } if instruction.lane == COMPUTE => {
                for slice in done[event.index()].iter().flat_map(|c| &c.from) {
                    let own = slice.buffer.index().checked_sub(class.persistent.len());
                    let own = own.and_then(|i| body.buffers.get_mut(i));
                    if let Some(Life::Span { last, .. }) = own.map(|b| &mut b.life) {
                        *last = (*last).max(index as u32);
                    }
                }
            }
            _ => {}
        }
    }
    body
}

fn collect(id: u32, kind: CollectKind, group: &[&str], tensors: &[(BufferId, BufferId)], why: &str) -> Op {
    let collect = Collect {
        id,
        kind,
        group: group.iter().map(|a| Name::new(a)).collect(),
        from: tensors.iter().map(|(from, _)| Slice::whole(*from, 0)).collect(),
        to: tensors.iter().map(|(_, to)| Slice::whole(*to, 0)).collect(),
        why: why.into(),
    };
    Op::Collect(collect.into())
}

fn gather(id: u32) -> Op {
    collect(id, CollectKind::AllGather, &["fsdp"], &[(W, WIDE)], "predict needs w whole over fsdp")
}

const fn record(event: u32) -> Op {
    Op::Record { event: EventId(event) }
}

const fn wait(event: u32) -> Op {
    Op::Wait { event: EventId(event) }
}

fn train() -> Vec<Instruction> {
    let feed = |feed, buffer| Op::Feed { feed: FeedId(feed), to: Slice::whole(buffer, 0) };
    let emit = |emit, buffer| Op::Emit { emit: EmitId(emit), from: Slice::whole(buffer, 0) };
    let shift = CollectKind::Permute { shifts: vec![1, -1] };
    let scatter = collect(3, CollectKind::ReduceScatter(SUM), &["fsdp"], &[(DW, ROW)], "grad sums over fsdp");
    let reduce = collect(2, CollectKind::AllReduce(SUM), &["fsdp", "tp"], &[(LOSS, TOTAL)], "loss sums over all");
    vec![
        at(COPY, 0, feed(0, X)),
        at(COPY, 0, feed(1, Y)),
        at(COPY, 0, record(0)),
        at(FSDP, 1, gather(0)),
        at(FSDP, 1, record(1)),
        at(COMPUTE, 0, wait(0)),
        at(COMPUTE, 1, wait(1)),
        at(COMPUTE, 1, launch(0, &[X, WIDE, P], &[3])),
        at(COMPUTE, 1, launch(1, &[P, Y, LOSS, DP], &[])),
        at(COMPUTE, 1, record(2)),
        at(TP, 1, wait(2)),
        at(TP, 1, collect(1, shift, &["tp"], &[(P, ONWARD), (DP, BACK)], "neighbours exchange p and dp")),
        at(TP, 1, record(3)),
        at(ALL, 1, wait(2)),
        at(ALL, 1, reduce),
        at(ALL, 1, record(4)),
        at(COMPUTE, 2, launch(2, &[DP, X, DW], &[])),
        at(COMPUTE, 2, record(5)),
        at(FSDP, 2, wait(5)),
        at(FSDP, 2, scatter),
        at(FSDP, 2, record(6)),
        at(COMPUTE, 1, wait(4)),
        at(COMPUTE, 1, emit(0, TOTAL)),
        at(COMPUTE, 1, wait(3)),
        at(COMPUTE, 1, emit(2, ONWARD)),
        at(COMPUTE, 1, emit(3, BACK)),
        at(COMPUTE, 2, wait(6)),
        at(COMPUTE, 2, emit(1, ROW)),
        at(COMPUTE, 3, launch(3, &[ROW, STEP, MOMENT, W], &[])),
        at(COMPUTE, 3, launch(4, &[STEP], &[])),
    ]
}

fn forward() -> Vec<Instruction> {
    vec![
        at(COMPUTE, 0, Op::Feed { feed: FeedId(0), to: Slice::whole(X, 0) }),
        at(FSDP, 1, gather(4)),
        at(FSDP, 1, record(0)),
        at(COMPUTE, 1, wait(0)),
        at(COMPUTE, 1, launch(0, &[X, WIDE, P], &[3])),
        at(COMPUTE, 1, Op::Emit { emit: EmitId(0), from: Slice::whole(P, 0) }),
    ]
}
