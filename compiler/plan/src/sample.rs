//! Small hand-made plans for tests: linear regression with momentum, one training and one forward program.
//!
//! Their kernels are `predict`, `loss`, `grad`, `momentum` and `count`; whoever runs a plan supplies them.

mod grid;
mod line;
mod mutations;
mod several;

use types::{Config, DType, Fact, Figure, Mesh, Runs, TensorType};

pub use self::grid::grid;
pub use self::line::{line, two_lanes};
pub use self::mutations::{mutations, split};
pub use self::several::several;
use crate::{
    Access, Affine, Body, Buffer, BufferId, BufferKind, Class, Emit, Feed, Header, Instruction, KERNEL_ABI, Kernel,
    KernelId, LaneId, Launch, Layout, Life, Op, Origin, ParameterId, PlaceId, Program, Slice, Space, When,
};

fn ty(text: &str) -> TensorType {
    text.parse().unwrap_or_else(|_| TensorType::scalar(DType::F32))
}

fn header(model: &str, sizes: [usize; 5]) -> Header {
    let axes = ["pp", "dp", "fsdp", "cp", "tp"].into_iter().zip(sizes);
    let axes = axes.map(|(name, size)| types::Axis { name: name.into(), size }).collect();
    Header {
        model: model.into(),
        preset: "tiny".into(),
        task: "train".into(),
        target: "cpu".into(),
        device: "any".into(),
        features: vec![],
        dtype: DType::F32,
        seed: 7,
        compiler: "0.1.0".into(),
        mesh: Mesh { axes },
        schedule_end: 0,
        kernel_abi: KERNEL_ABI,
        configs: vec![config()],
    }
}

fn config() -> Config {
    let figure = |key: &str, value, setting: Option<&str>| Figure {
        keys: vec![key.into()],
        default: None,
        cases: vec![],
        value,
        setting: setting.map(Into::into),
    };
    let (rate, kind) = (Fact::Number(0.5), Fact::Text("linear".into()));
    Config {
        class: "Regression".into(),
        figures: vec![figure("rate", rate, Some("RATE")), figure("kind", kind, None)],
        ignored_weights: vec![],
        renames: vec![],
        other_weights: vec![],
    }
}

fn kernels() -> Vec<Kernel> {
    let kernel = |symbol: &str, args: &[Access], scalars, max_parts| Kernel {
        symbol: symbol.into(),
        args: args.to_vec(),
        in_place: vec![],
        scalars,
        max_parts,
        flops: 48,
        products: 32,
        elementwise: 20,
        bytes: 128,
        workspace: 0,
    };
    let (r, w, x) = (Access::Read, Access::Write, Access::ReadWrite);
    vec![
        kernel("predict", &[r, r, w], 1, 4),
        kernel("loss", &[r, r, w, w], 0, 1),
        kernel("grad", &[r, r, w], 0, 2),
        kernel("momentum", &[r, r, x, x], 0, 1),
        kernel("count", &[x], 0, 1),
    ]
}

/// A program that runs as often as the user asks.
fn program(name: &str, feeds: Vec<Feed>, emits: Vec<Emit>, body: Body) -> Program {
    let (runs, residency) = (Runs::Asked, None);
    Program { name: name.into(), runs, residency, tokens: 4, flops: 192, feeds, emits, bodies: vec![body] }
}

fn emit(name: &str, of: &str, layout: Layout, when: When) -> Emit {
    let parameter = name.starts_with("grad/").then_some(ParameterId(0));
    Emit { name: name.into(), of: parameter, ty: ty(of), layout, when }
}

fn buffer(name: &str, kind: BufferKind, offset: u64, of: &str, life: Life) -> Buffer {
    let of = ty(of);
    Buffer {
        name: name.into(),
        kind,
        space: Space::Device,
        offset,
        bytes: of.bytes() as u64,
        ty: Some(of.into()),
        life,
    }
}

fn at(lane: LaneId, place: u32, op: Op) -> Instruction {
    Instruction { lane, place: PlaceId(place), origin: Origin::default(), op }
}

fn launch(kernel: u32, args: &[BufferId], scalars: &[i64]) -> Op {
    let args = args.iter().map(|b| Slice::whole(*b, 0)).collect();
    Op::Launch(Launch { kernel: KernelId(kernel), args, scalars: scalars.iter().map(|s| Affine::from(*s)).collect() })
}

/// Fills in the sizes of slices and the lives of buffers.
fn close(class: &Class, mut body: Body) -> Body {
    let sizes: Vec<u64> = body.all_buffers(class).map(|(_, b)| b.bytes).collect();
    for (index, instruction) in body.instructions.iter_mut().enumerate() {
        let slices: Vec<&mut Slice> = match &mut instruction.op {
            Op::Launch(launch) => launch.args.iter_mut().collect(),
            Op::Collect(collect) => collect.from.iter_mut().chain(&mut collect.to).collect(),
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
