//! Several programs on one rank: one prepares a value, and two take turns on the device with a parameter each.
//!
//! `fold` makes `twice w` of `w`. `high` and `low` have a feed `x` and an emit `out` each, of types of their own; their
//! parameters share bytes of the arena. Their kernels are `predict` and `double`.

use types::{Count, DType, Init, Name, Owner, Ragged, Runs};

use super::{at, buffer, close, emit, header, kernels, launch, ty};
use crate::{
    Access, Body, Buffer, BufferId, BufferKind, Class, EmitId, Feed, FeedId, Instruction, LaneId, LaneKind, Layout,
    Life, Manifest, Op, Parameter, Place, Plan, Program, Ranks, Residency, ResidencyId, Slice, Source, State,
    StateInit, When,
};

const W: BufferId = BufferId(0);
const TWICE: BufferId = BufferId(1);
const HIGH: BufferId = BufferId(2);
const LOW: BufferId = BufferId(3);
const X: BufferId = BufferId(4);
const Y: BufferId = BufferId(5);
const Z: BufferId = BufferId(6);

const PREDICT: u32 = 0;
const DOUBLE: u32 = 5;

pub fn several() -> Plan {
    let (high, low) = (ResidencyId(0), ResidencyId(1));
    let persistent = vec![
        buffer("w", BufferKind::Parameter, 0, "f32[OUT:2, IN:3]", Life::Persistent),
        buffer("twice w", BufferKind::Parameter, 64, "f32[OUT:2, IN:3]", Life::Persistent),
        buffer("high", BufferKind::Parameter, 128, "f32[OUT:2, IN:3]", Life::Resident(high)),
        buffer("low", BufferKind::Parameter, 128, "f32[OUT:2, IN:9]", Life::Resident(low)),
    ];
    let class = Class { name: "all".into(), ranks: Ranks::all(), persistent };
    let parameter = |name: &str, of: &str, buffer| Parameter {
        name: name.into(),
        aliases: vec![],
        ty: ty(of),
        layout: Layout::whole(),
        init: Init::Ones,
        trainable: true,
        forms: vec![],
        buffers: vec![Some(buffer)],
    };
    let twice = State {
        name: "twice w".into(),
        of: None,
        ty: ty("f32[OUT:2, IN:3]"),
        layout: Layout::whole(),
        init: StateInit::Prepared,
        buffers: vec![Some(TWICE)],
    };
    let manifest = Manifest {
        parameters: vec![
            parameter("w", "f32[OUT:2, IN:3]", W),
            parameter("high", "f32[OUT:2, IN:3]", HIGH),
            parameter("low", "f32[OUT:2, IN:9]", LOW),
        ],
        states: vec![twice],
        ragged: ragged(),
    };
    let mut kernels = kernels();
    let double =
        crate::Kernel { symbol: "double".into(), args: vec![Access::Read, Access::Write], ..kernels[2].clone() };
    kernels.push(double);
    let fold = vec![at(LaneId(0), 1, launch(DOUBLE, &[W, TWICE], &[]))];
    let body = |buffers, instructions| body(&class, buffers, instructions);
    let programs = vec![
        Program {
            name: "fold".into(),
            runs: Runs::Prepare,
            residency: None,
            tokens: 0,
            flops: 48,
            feeds: vec![],
            emits: vec![],
            bodies: vec![body(vec![], fold)],
        },
        Program {
            name: "high".into(),
            runs: Runs::Times(2),
            residency: Some(high),
            tokens: 4,
            flops: 96,
            feeds: vec![feed("f32[B:4, IN:3]")],
            emits: vec![given("out", "f32[B:4, OUT:2]"), given("folded", "f32[B:4, OUT:2]")],
            bodies: vec![body(own(4, 3), run(HIGH, true))],
        },
        Program {
            name: "low".into(),
            runs: Runs::OnDemand,
            residency: Some(low),
            tokens: 2,
            flops: 1 << 70,
            feeds: vec![feed("f32[B:2, IN:9]")],
            emits: vec![given("out", "f32[B:2, OUT:2]")],
            bodies: vec![body(own(2, 9), run(LOW, false))],
        },
    ];
    Plan {
        header: crate::Header { task: "sample".into(), dtype: DType::F32, ..header("several.mm", [1; 5]) },
        kernels,
        classes: vec![class],
        residencies: vec![Residency { name: "high".into() }, Residency { name: "low".into() }],
        programs,
        manifest,
        places: (1..=2)
            .map(|line| Place { file: "several.mm".into(), line, column: 9, chain: Name::new("several") })
            .collect(),
        object: Vec::new(),
    }
}

fn feed(of: &str) -> Feed {
    Feed { name: "x".into(), aliases: vec![], ty: ty(of), layout: Layout::whole(), source: Source::Data }
}

fn given(name: &str, of: &str) -> crate::Emit {
    emit(name, of, Layout::whole(), When::Always)
}

/// Above the region that the residencies share.
fn own(b: usize, wide: usize) -> Vec<Buffer> {
    let never = Life::Span { first: u32::MAX, last: 0 };
    vec![
        buffer("x", BufferKind::Feed, 256, &format!("f32[B:{b}, IN:{wide}]"), never),
        buffer("y", BufferKind::Activation, 384, &format!("f32[B:{b}, OUT:2]"), never),
        buffer("z", BufferKind::Activation, 448, &format!("f32[B:{b}, OUT:2]"), never),
    ]
}

fn body(class: &Class, buffers: Vec<Buffer>, instructions: Vec<Instruction>) -> Body {
    let body = Body {
        buffers,
        lanes: vec![LaneKind::Compute],
        instructions,
        events: 0,
        arena_bytes: 512,
        host_bytes: 0,
        units: vec![],
        kept: vec![],
    };
    close(class, body)
}

fn run(weight: BufferId, folded: bool) -> Vec<Instruction> {
    let compute = LaneId(0);
    let mut out = vec![
        at(compute, 0, Op::Feed { feed: FeedId(0), to: Slice::whole(X, 0) }),
        at(compute, 1, launch(PREDICT, &[X, weight, Y], &[1])),
        at(compute, 1, Op::Emit { emit: EmitId(0), from: Slice::whole(Y, 0) }),
    ];
    if folded {
        out.push(at(compute, 1, launch(PREDICT, &[X, TWICE, Z], &[1])));
        out.push(at(compute, 1, Op::Emit { emit: EmitId(1), from: Slice::whole(Z, 0) }));
    }
    out
}

/// Axes that no feed of the programs has: pictures of samples, and their patches.
fn ragged() -> Vec<Ragged> {
    let two = |a, b| Box::new([a, b]);
    let patches = || Count::Product("grid".into());
    let count = Count::Div(two(patches(), Count::Number(4)));
    vec![
        Ragged {
            axis: "IMAGES".into(),
            capacity: 2,
            owner: Owner::Tokens { input: "input_ids".into(), token: 9, count },
        },
        Ragged { axis: "PATCHES".into(), capacity: 64, owner: Owner::Rows { of: "IMAGES".into(), count: patches() } },
    ]
}
