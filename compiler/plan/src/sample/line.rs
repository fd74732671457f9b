//! The sample on one rank, with its feeds on the compute lane or on a lane of their own.

use types::{Cut, Distribution, Init, Name};

use super::{at, buffer, close, emit, header, kernels, launch, program, ty};
use crate::{
    Body, Buffer, BufferId, BufferKind, Class, Emit, EmitId, EventId, Feed, FeedId, Instruction, LaneId, LaneKind,
    Layout, Life, Manifest, Op, Parameter, ParameterId, Place, Plan, Ranks, Slice, Source, State, StateInit, When,
};

const W: BufferId = BufferId(0);
const MOMENT: BufferId = BufferId(1);
const STEP: BufferId = BufferId(2);
const X: BufferId = BufferId(3);
const Y: BufferId = BufferId(4);
const P: BufferId = BufferId(5);
const LOSS: BufferId = BufferId(6);
const DP: BufferId = BufferId(7);
const DW: BufferId = BufferId(8);

/// The plan with its feeds on the compute lane.
pub fn line() -> Plan {
    plan(vec![LaneKind::Compute])
}

/// The same with its feeds on a copy lane of their own, and an event between the two.
pub fn two_lanes() -> Plan {
    plan(vec![LaneKind::Compute, LaneKind::Copy])
}

fn plan(lanes: Vec<LaneKind>) -> Plan {
    let persistent = vec![
        buffer("w", BufferKind::Parameter, 0, "f32[OUT:2, IN:3]", Life::Persistent),
        buffer("exp_avg/w", BufferKind::Optimizer, 64, "f32[OUT:2, IN:3]", Life::Persistent),
        buffer("step", BufferKind::State, 128, "i64[]", Life::Persistent),
    ];
    let class = Class { name: "all".into(), ranks: Ranks::all(), persistent };
    let one = |id| vec![Some(id)];
    let manifest = Manifest {
        parameters: vec![Parameter {
            name: "w".into(),
            aliases: vec!["weight".into()],
            ty: ty("f32[OUT:2, IN:3]"),
            layout: Layout::whole(),
            init: Init::Random(Distribution::Normal { mean: 0.0, std: 0.5 }),
            trainable: true,
            forms: vec![],
            buffers: one(W),
        }],
        states: vec![
            State {
                name: "exp_avg/w".into(),
                of: Some(ParameterId(0)),
                ty: ty("f32[OUT:2, IN:3]"),
                layout: Layout::whole(),
                init: StateInit::Value(Init::Zeros),
                buffers: one(MOMENT),
            },
            State {
                name: "step".into(),
                of: None,
                ty: ty("i64[]"),
                layout: Layout::whole(),
                init: StateInit::Value(Init::Zeros),
                buffers: one(STEP),
            },
        ],
        ragged: vec![],
    };
    let copy = LaneId::new(lanes.len() - 1);
    let programs = vec![
        program("train", feeds(), trained(), body(&class, lanes.clone(), train(copy))),
        program("forward", vec![feeds().swap_remove(0)], vec![given()], body(&class, lanes, forward())),
    ];
    Plan {
        header: header("line.mm", [1; 5]),
        kernels: kernels(),
        classes: vec![class],
        residencies: vec![],
        programs,
        manifest,
        places: (1..=4)
            .map(|line| Place { file: "line.mm".into(), line, column: 9, chain: Name::new("line") })
            .collect(),
        object: Vec::new(),
    }
}

fn feeds() -> Vec<Feed> {
    vec![
        Feed {
            name: "x".into(),
            aliases: vec![],
            ty: ty("f32[B:4, IN:3]"),
            layout: Layout::whole(),
            source: Source::Data,
        },
        Feed {
            name: "noise".into(),
            aliases: vec![],
            ty: ty("f32[B:4, OUT:2]"),
            layout: Layout { cuts: vec![Cut::default(), Cut::default()] },
            source: Source::Draw(Distribution::Normal { mean: 0.0, std: 1.0 }),
        },
    ]
}

fn trained() -> Vec<Emit> {
    vec![
        emit("loss", "f32[]", Layout::whole(), When::Always),
        emit("grad/w", "f32[OUT:2, IN:3]", Layout::whole(), When::OnRequest("grads".into())),
    ]
}

fn given() -> Emit {
    emit("out", "f32[B:4, OUT:2]", Layout::whole(), When::Always)
}

/// Buffers as both programs name them; `dw` takes over the bytes of `p`.
fn buffers() -> Vec<Buffer> {
    let never = Life::Span { first: u32::MAX, last: 0 };
    vec![
        buffer("x", BufferKind::Feed, 192, "f32[B:4, IN:3]", never),
        buffer("noise", BufferKind::Feed, 256, "f32[B:4, OUT:2]", never),
        buffer("p", BufferKind::Activation, 320, "f32[B:4, OUT:2]", never),
        buffer("loss", BufferKind::Activation, 384, "f32[]", never),
        buffer("dp", BufferKind::Activation, 448, "f32[B:4, OUT:2]", never),
        buffer("dw", BufferKind::Gradient, 320, "f32[OUT:2, IN:3]", never),
    ]
}

fn body(class: &Class, lanes: Vec<LaneKind>, instructions: Vec<Instruction>) -> Body {
    close(
        class,
        Body {
            buffers: buffers(),
            lanes,
            instructions,
            events: 1,
            arena_bytes: 512,
            host_bytes: 0,
            units: vec![],
            kept: vec![],
        },
    )
}

fn train(copy: LaneId) -> Vec<Instruction> {
    let compute = LaneId(0);
    let feed = |feed, buffer| Op::Feed { feed: FeedId(feed), to: Slice::whole(buffer, 0) };
    let emit = |emit, buffer| Op::Emit { emit: EmitId(emit), from: Slice::whole(buffer, 0) };
    vec![
        at(copy, 0, feed(0, X)),
        at(copy, 0, feed(1, Y)),
        at(copy, 0, Op::Record { event: EventId(0) }),
        at(compute, 0, Op::Wait { event: EventId(0) }),
        at(compute, 1, launch(0, &[X, W, P], &[3])),
        at(compute, 1, launch(1, &[P, Y, LOSS, DP], &[])),
        at(compute, 1, emit(0, LOSS)),
        at(compute, 2, launch(2, &[DP, X, DW], &[])),
        at(compute, 2, emit(1, DW)),
        at(compute, 3, launch(3, &[DW, STEP, MOMENT, W], &[])),
        at(compute, 3, launch(4, &[STEP], &[])),
    ]
}

fn forward() -> Vec<Instruction> {
    let compute = LaneId(0);
    vec![
        at(compute, 0, Op::Feed { feed: FeedId(0), to: Slice::whole(X, 0) }),
        at(compute, 1, launch(0, &[X, W, P], &[3])),
        at(compute, 1, Op::Emit { emit: EmitId(0), from: Slice::whole(P, 0) }),
    ]
}
