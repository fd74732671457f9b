//! A kernel's operators as nodes of a GE graph: one `match` over the whole set, one file for each family.

mod activation;
mod adamw;
mod attention;
mod cx;
mod decompose;
mod elementwise;
mod loss;
mod movement;
mod norm;
mod product;
mod reduce;
mod rope;
mod sort;
mod source;

use ir::{Function, Inst, Op as Ir, Type};
use plan::operators::Row;

use self::cx::Cx;
use crate::dtype::{DataType, Ty};
use crate::graph::{Finished, Tensor};
use crate::proto::ModelDef;
use crate::report::{Origin, rows};
use crate::table::Op;
use crate::{encode, memory};

/// A segment: what goes into its `.air` file, and what is known about it.
pub struct Segment {
    pub model: ModelDef,
    pub rows: Vec<Row>,
    /// Bytes that GE is likely to allocate inside.
    pub workspace: u64,
}

/// Parameters become the graph's inputs and results its outputs, in order.
pub fn segment(name: &str, kernel: &Function) -> Result<Segment, String> {
    let (function, origins) = decompose::expand(kernel)?;
    let mut cx = Cx::new(&function);
    let mut values: Vec<Vec<Tensor>> = vec![vec![]; function.nodes.len()];
    for &p in &function.params {
        values[p.index()] = vec![cx.g.data(of(function.ty(p))?)];
    }
    for (id, node) in function.nodes.iter() {
        cx.g.origin = origins.of[id.index()];
        let args = || node.args.iter().map(|a| values[a.index()].clone());
        values[id.index()] = match &node.inst {
            Inst::Param(_) => continue,
            Inst::Get(i) => args().flatten().skip(*i).take(1).collect(),
            Inst::Op(op) => {
                cx.enter(
                    id,
                    args().map(|a| a.first().copied().ok_or("an operand is no tensor")).collect::<Result<_, _>>()?,
                );
                lower(&mut cx, op)
            }
            inst => return Err(format!("{inst:?} stands inside a kernel")),
        };
        expect(&mut cx, &node.ty, &values[id.index()])?;
    }
    let results: Vec<Tensor> = function.results.iter().filter_map(|r| values[r.index()].first().copied()).collect();
    let Finished { nodes, made } = cx.g.finish()?;
    let names: Vec<String> = origins.list.iter().map(Origin::label).collect();
    let live = encode::live(&nodes, &results);
    Ok(Segment {
        model: encode::model(name, &nodes, &results, &names),
        rows: rows(&origins.list, made.iter().filter(|(_, n)| live[*n]).map(|&(origin, n)| (origin, nodes[n].op))),
        workspace: memory::estimate(&nodes, &results, &live),
    })
}

fn of(ty: &Type) -> Result<Ty, String> {
    let ty = ty.tensor().ok_or("a kernel's parameter is no tensor")?;
    let dtype = DataType::of(ty.dtype).ok_or_else(|| format!("`{ty}` has no element type that CANN knows"))?;
    Ok(Ty::new(dtype, ty.sizes().iter().map(|&s| s as i64).collect::<Vec<_>>()))
}

/// That what was made has the types that the kernel says.
fn expect(cx: &mut Cx<'_>, ty: &Type, made: &[Tensor]) -> Result<(), String> {
    let wanted: Vec<Ty> = match ty {
        Type::Tuple(items) => items.iter().map(of).collect::<Result<_, _>>()?,
        one => vec![of(one)?],
    };
    let made: Vec<Ty> = made.iter().map(|&t| cx.g.ty(t).clone()).collect();
    if made != wanted {
        let texts = |types: &[Ty]| types.iter().map(Ty::to_string).collect::<Vec<_>>().join(", ");
        let name = cx.name();
        cx.g.fail(format!("`{name}` gives {}, not {}", texts(&made), texts(&wanted)));
    }
    Ok(())
}

fn lower(cx: &mut Cx<'_>, op: &Ir) -> Vec<Tensor> {
    match op {
        Ir::Constant(op) => source::constant(cx, op),
        Ir::Iota(op) => source::iota(cx, op),
        Ir::Table(op) => source::table(cx, op),
        Ir::Add(_) => elementwise::combine(cx, Op::Add),
        Ir::Sub(_) => elementwise::combine(cx, Op::Sub),
        Ir::Mul(_) => elementwise::combine(cx, Op::Mul),
        Ir::Div(_) => elementwise::divide(cx, Op::RealDiv),
        Ir::FloorDiv(_) => elementwise::divide(cx, Op::FloorDiv),
        Ir::Remainder(_) => elementwise::divide(cx, Op::FloorMod),
        Ir::Max(_) => elementwise::combine(cx, Op::Maximum),
        Ir::Min(_) => elementwise::combine(cx, Op::Minimum),
        Ir::Compare(op) => elementwise::compare(cx, op),
        Ir::Select(_) => elementwise::combine(cx, Op::SelectV2),
        Ir::Neg(_) => elementwise::map(cx, Op::Neg),
        Ir::Abs(_) => elementwise::map(cx, Op::Abs),
        Ir::Exp(_) => elementwise::map(cx, Op::Exp),
        Ir::Expm1(_) => elementwise::map(cx, Op::Expm1),
        Ir::Log(_) => elementwise::map(cx, Op::Log),
        Ir::Log1p(_) => elementwise::map(cx, Op::Log1p),
        Ir::Floor(_) => elementwise::map(cx, Op::Floor),
        Ir::Round(_) => elementwise::map(cx, Op::Rint),
        Ir::Sqrt(_) => elementwise::map(cx, Op::Sqrt),
        Ir::Rsqrt(_) => elementwise::map(cx, Op::Rsqrt),
        Ir::Tanh(_) => elementwise::map(cx, Op::Tanh),
        Ir::Sin(_) => elementwise::map(cx, Op::Sin),
        Ir::Cos(_) => elementwise::map(cx, Op::Cos),
        Ir::Sigmoid(_) => elementwise::map(cx, Op::Sigmoid),
        Ir::Erf(_) => elementwise::map(cx, Op::Erf),
        Ir::Cast(op) => elementwise::cast(cx, op),
        Ir::GeluTanh(_) => activation::gelu(cx),
        Ir::GeluTanhGrad(_) => activation::gelu_grad(cx),
        Ir::Silu(_) => activation::silu(cx),
        Ir::SiluGrad(_) => activation::silu_grad(cx),
        Ir::Swiglu(_) => activation::swiglu(cx),
        Ir::SwigluGrad(_) => activation::swiglu_grad(cx),
        Ir::Reshape(_) => movement::reshape(cx),
        Ir::Transpose(op) => movement::transpose(cx, op),
        Ir::Broadcast(_) => movement::broadcast(cx),
        Ir::Slice(op) => movement::slice(cx, op),
        Ir::Concat(op) => movement::concat(cx, op),
        Ir::Pad(op) => movement::pad(cx, op),
        Ir::Gather(op) => movement::gather(cx, op),
        Ir::Window(op) => movement::window(cx, op),
        Ir::ScatterAdd(op) => reduce::scatter_add(cx, op),
        Ir::ReduceSum(op) => reduce::reduce(cx, Op::ReduceSum, &op.dims),
        Ir::ReduceMax(op) => reduce::reduce(cx, Op::ReduceMax, &op.dims),
        Ir::Cumsum(op) => reduce::cumsum(cx, op),
        Ir::Argsort(op) => sort::argsort(cx, op),
        Ir::Matmul(op) => product::matmul(cx, op),
        Ir::RmsNorm(op) => norm::rms_norm(cx, op),
        Ir::RmsNormGrad(op) => norm::rms_norm_grad(cx, op),
        Ir::LayerNorm(op) => norm::layer_norm(cx, op),
        Ir::LayerNormGrad(op) => norm::layer_norm_grad(cx, op),
        Ir::Softmax(op) => norm::softmax(cx, op),
        Ir::SoftmaxGrad(op) => norm::softmax_grad(cx, op),
        Ir::Rope(op) => rope::rope(cx, op),
        Ir::Attention(op) => attention::attention(cx, op),
        Ir::AttentionGrad(op) => attention::attention_grad(cx, op),
        Ir::CrossEntropy(op) => loss::cross_entropy(cx, op),
        Ir::CrossEntropyGrad(op) => loss::cross_entropy_grad(cx, op),
        Ir::Adamw(op) => adamw::adamw(cx, op),
        Ir::TopK(_) | Ir::GroupedMatmul(_) | Ir::GroupedMatmulWeight(_) | Ir::AttentionBiasGrad(_) | Ir::Write(_) => {
            cx.g.fail(format!("`{}` is lowered in parts", op.name()));
            vec![]
        }
        Ir::Reshard(_)
        | Ir::Coordinate(_)
        | Ir::AllReduce(_)
        | Ir::AllGather(_)
        | Ir::ReduceScatter(_)
        | Ir::AllToAll(_)
        | Ir::Permute(_) => {
            cx.g.fail(format!("`{}` stands inside a segment, and is for the runtime", op.name()));
            vec![]
        }
    }
}
