//! A small hand-made plan for tests: linear regression with momentum, one training and one forward program.
//!
//! Its kernels are `predict`, `loss`, `grad`, `momentum` and `count`; whoever runs the plan supplies them.

use types::{Cut, DType, Distribution, Init, Mesh, Name, TensorType};

use crate::{
    Access, Affine, Body, Buffer, BufferId, BufferKind, Class, Emit, EmitId, EventId, Feed, FeedId, Header,
    Instruction, KERNEL_ABI, Kernel, KernelId, LaneId, LaneKind, Launch, Layout, Life, Manifest, Op, Parameter, Place,
    PlaceId, Plan, Program, Ranks, Slice, Source, State, StateInit, When,
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

fn ty(text: &str) -> TensorType {
    text.parse().unwrap_or_else(|_| TensorType::scalar(DType::F32))
}

fn plan(lanes: Vec<LaneKind>) -> Plan {
    let kernel = |symbol: &str, args: &[Access], scalars, max_parts| Kernel {
        symbol: symbol.into(),
        args: args.to_vec(),
        in_place: vec![],
        scalars,
        max_parts,
        flops: 48,
        bytes: 128,
        workspace: 0,
    };
    let (r, w, x) = (Access::Read, Access::Write, Access::ReadWrite);
    let kernels = vec![
        kernel("predict", &[r, r, w], 1, 4),
        kernel("loss", &[r, r, w, w], 0, 1),
        kernel("grad", &[r, r, w], 0, 2),
        kernel("momentum", &[r, r, x, x], 0, 1),
        kernel("count", &[x], 0, 1),
    ];
    let persistent = vec![
        buffer("w", BufferKind::Parameter, 0, "f32[OUT:2, IN:3]", Life::Persistent),
        buffer("exp_avg/w", BufferKind::Optimizer, 64, "f32[OUT:2, IN:3]", Life::Persistent),
        buffer("step", BufferKind::State, 128, "i64[]", Life::Persistent),
    ];
    let class = Class { name: "all".into(), ranks: Ranks::all(), persistent };
    let one = |id| vec![Some(id)];
    let manifest = Manifest {
        feeds: vec![
            Feed { name: "x".into(), ty: ty("f32[B:4, IN:3]"), layout: Layout::whole(), source: Source::Data },
            Feed {
                name: "noise".into(),
                ty: ty("f32[B:4, OUT:2]"),
                layout: Layout { cuts: vec![Cut::default(), Cut::default()] },
                source: Source::Draw(Distribution::Normal { mean: 0.0, std: 1.0 }),
            },
        ],
        parameters: vec![Parameter {
            name: "w".into(),
            aliases: vec!["weight".into()],
            ty: ty("f32[OUT:2, IN:3]"),
            layout: Layout::whole(),
            init: Init::Random(Distribution::Normal { mean: 0.0, std: 0.5 }),
            trainable: true,
            buffers: one(W),
        }],
        states: vec![
            State {
                name: "exp_avg/w".into(),
                ty: ty("f32[OUT:2, IN:3]"),
                layout: Layout::whole(),
                init: StateInit::Value(Init::Zeros),
                buffers: one(MOMENT),
            },
            State {
                name: "step".into(),
                ty: ty("i64[]"),
                layout: Layout::whole(),
                init: StateInit::Value(Init::Zeros),
                buffers: one(STEP),
            },
        ],
        emits: vec![
            emit("loss", "f32[]", When::Always),
            emit("grad/w", "f32[OUT:2, IN:3]", When::OnRequest("grads".into())),
            emit("out", "f32[B:4, OUT:2]", When::Always),
        ],
    };
    let copy = LaneId::new(lanes.len() - 1);
    let programs = vec![
        Program { name: "train".into(), times: 0, bodies: vec![body(&class, lanes.clone(), train(copy))] },
        Program { name: "forward".into(), times: 0, bodies: vec![body(&class, lanes, forward())] },
    ];
    Plan {
        header: Header {
            model: "line.mm".into(),
            preset: "tiny".into(),
            task: "train".into(),
            target: "cpu".into(),
            cpu: "any".into(),
            features: vec![],
            dtype: DType::F32,
            seed: 7,
            compiler: "0.1.0".into(),
            mesh: mesh(),
            tokens_per_step: 4,
            flops_per_step: 192,
            kernel_abi: KERNEL_ABI,
        },
        kernels,
        classes: vec![class],
        programs,
        manifest,
        places: (1..=4)
            .map(|line| Place { file: "line.mm".into(), line, column: 9, chain: Name::new("line") })
            .collect(),
        object: Vec::new(),
    }
}

fn mesh() -> Mesh {
    let axis = |name: &str| types::Axis { name: name.into(), size: 1 };
    Mesh { axes: ["pp", "dp", "fsdp", "cp", "tp"].map(axis).into() }
}

fn emit(name: &str, of: &str, when: When) -> Emit {
    Emit { name: name.into(), ty: ty(of), layout: Layout::whole(), when }
}

fn buffer(name: &str, kind: BufferKind, offset: u64, of: &str, life: Life) -> Buffer {
    let of = ty(of);
    Buffer { name: name.into(), kind, offset, bytes: of.bytes() as u64, ty: Some(of), life }
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

/// Fills in sizes and lives.
fn body(class: &Class, lanes: Vec<LaneKind>, instructions: Vec<Instruction>) -> Body {
    let mut body = Body { buffers: buffers(), lanes, instructions, events: 1, arena_bytes: 512 };
    let sizes: Vec<u64> = body.all_buffers(class).map(|(_, b)| b.bytes).collect();
    for (index, instruction) in body.instructions.iter_mut().enumerate() {
        let slices: Vec<&mut Slice> = match &mut instruction.op {
            Op::Launch(launch) => launch.args.iter_mut().collect(),
            Op::Feed { to: slice, .. } | Op::Emit { from: slice, .. } => vec![slice],
            _ => vec![],
        };
        for slice in slices {
            slice.bytes = sizes[slice.buffer.index()];
            let own = slice.buffer.index().checked_sub(class.persistent.len());
            if let Some(Life::Span { first, last }) = own.and_then(|i| body.buffers.get_mut(i)).map(|b| &mut b.life) {
                (*first, *last) = ((*first).min(index as u32), (*last).max(index as u32));
            }
        }
    }
    // Buffers that only the other program uses live for an instant.
    for buffer in body.buffers.iter_mut().filter(|b| matches!(b.life, Life::Span { first: u32::MAX, .. })) {
        buffer.life = Life::Span { first: 0, last: 0 };
        (buffer.bytes, buffer.ty) = (0, None);
    }
    body
}

fn at(lane: LaneId, place: u32, op: Op) -> Instruction {
    Instruction { lane, place: PlaceId(place), op }
}

fn launch(kernel: u32, args: &[BufferId], scalars: &[i64]) -> Op {
    let args = args.iter().map(|b| Slice::whole(*b, 0)).collect();
    Op::Launch(Launch { kernel: KernelId(kernel), args, scalars: scalars.iter().map(|s| Affine::from(*s)).collect() })
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
        at(compute, 1, Op::Emit { emit: EmitId(2), from: Slice::whole(P, 0) }),
    ]
}
