//! The operators, by name, and how each reads its attributes and operands.

mod activation;
mod adamw;
mod attention;
mod movement;
mod norm;
mod product;
mod rotary;
mod sort;

use activation::{erf, gelu, silu, slope, swiglu, swiglu_grad};
use adamw::adamw;
use attention::{attention, attention_grad};
use movement::{concat, reduce};
use norm::{layer_norm, layer_norm_grad, rms_norm, rms_norm_grad, softmax, softmax_grad};
use product::product;
use rotary::rotary;
use sort::{cumsum, sort};

use crate::Tensor;
use crate::proto::{Attribute, OpDef};
use crate::tensor::unravel;

/// Each output's elements, not yet rounded.
pub(crate) fn node(op: &OpDef, args: &[Option<&Tensor>]) -> Vec<Vec<f64>> {
    let a: Vec<&Tensor> = args.iter().copied().flatten().collect();
    let map = |f: fn(f64) -> f64| zip(op, &a, |v| f(v[0]));
    let pair = |f: fn(f64, f64) -> f64| zip(op, &a, |v| f(v[0], v[1]));
    let is = |b: bool| f64::from(u8::from(b));
    match op.r#type.as_str() {
        "Add" => pair(|x, y| x + y),
        "Sub" => pair(|x, y| x - y),
        "Mul" => pair(|x, y| x * y),
        "RealDiv" => pair(|x, y| x / y),
        "FloorDiv" => pair(|x, y| (x / y).floor()),
        "FloorMod" => pair(|x, y| x - y * (x / y).floor()),
        "Maximum" => pair(f64::max),
        "Minimum" => pair(f64::min),
        "Less" => zip(op, &a, |v| is(v[0] < v[1])),
        "LessEqual" => zip(op, &a, |v| is(v[0] <= v[1])),
        "Equal" => zip(op, &a, |v| is(v[0] == v[1])),
        "Greater" => zip(op, &a, |v| is(v[0] > v[1])),
        "GreaterEqual" => zip(op, &a, |v| is(v[0] >= v[1])),
        "NotEqual" => zip(op, &a, |v| is(v[0] != v[1])),
        "LogicalOr" => zip(op, &a, |v| is(v[0] + v[1] > 0.0)),
        "SelectV2" => zip(op, &a, |v| if v[0] != 0.0 { v[1] } else { v[2] }),
        "Neg" => map(|x| -x),
        "Abs" => map(f64::abs),
        "Exp" => map(f64::exp),
        "Expm1" => map(f64::exp_m1),
        "Log" => map(f64::ln),
        "Log1p" => map(f64::ln_1p),
        "Floor" => map(f64::floor),
        "Rint" => map(f64::round_ties_even),
        "Sqrt" => map(f64::sqrt),
        "Rsqrt" => map(|x| 1.0 / x.sqrt()),
        "Tanh" => map(f64::tanh),
        "Sin" => map(f64::sin),
        "Cos" => map(f64::cos),
        "Sigmoid" => map(|x| 1.0 / (1.0 + (-x).exp())),
        "Erf" => map(erf),
        "Cast" | "BroadcastTo" => zip(op, &a[..1], |v| v[0]),
        "Reshape" => vec![a[0].data.clone()],
        "GeluV2" => zip(op, &a, |v| gelu(text(op, "approximate"), v[0])),
        "GeluGradV2" => zip(op, &a, |v| v[0] * slope(|x| gelu(text(op, "approximate"), x), v[1])),
        "Swish" => map(silu),
        "SwishGrad" => zip(op, &a, |v| v[0] * slope(silu, v[1])),
        "SwiGlu" => swiglu(a[0]),
        "SwiGluGrad" => swiglu_grad(a[0], a[1]),
        "Transpose" => {
            let order = a[1].ints();
            each(op, |index| {
                let mut from = vec![0; index.len()];
                order.iter().zip(index).for_each(|(&d, &i)| from[d as usize] = i);
                a[0].at(&from)
            })
        }
        "Slice" => {
            let offsets = a[1].ints();
            each(op, |index| a[0].at(&index.iter().zip(&offsets).map(|(i, o)| i + *o as usize).collect::<Vec<_>>()))
        }
        "ConcatV2" => concat(op, &a),
        "PadV3" => {
            let pads = a[1].ints();
            each(op, |index| {
                let from: Option<Vec<usize>> = (index.iter().enumerate())
                    .map(|(d, &i)| i.checked_sub(pads[2 * d] as usize).filter(|i| *i < a[0].shape[d]))
                    .collect();
                from.map_or(a[2].data[0], |from| a[0].at(&from))
            })
        }
        "GatherV2" => {
            let (axis, batch) = (a[2].data[0] as usize, int(op, "batch_dims") as usize);
            let rank = a[1].shape.len() - batch;
            each(op, |index| {
                let id = a[1].at(&[&index[..batch], &index[axis..axis + rank]].concat()) as usize;
                a[0].at(&[&index[..axis], &[id], &index[axis + rank..]].concat())
            })
        }
        "GatherElements" => {
            let dim = int(op, "dim") as usize;
            each(op, |index| {
                let mut from = index.to_vec();
                from[dim] = a[1].at(index) as usize;
                a[0].at(&from)
            })
        }
        "OneHot" => each(op, |index| {
            let (class, row) = index.split_last().expect("a class");
            if a[0].at(row) == *class as f64 { a[2].data[0] } else { a[3].data[0] }
        }),
        "Range" => each(op, |index| a[0].data[0] + index[0] as f64 * a[2].data[0]),
        "Fill" => each(op, |_| a[1].data[0]),
        "ReduceSum" => reduce(op, a[0], &a[1].ints(), 0.0, |x, y| x + y),
        "ReduceMax" => reduce(op, a[0], &a[1].ints(), f64::NEG_INFINITY, f64::max),
        "Cumsum" => cumsum(op, &a),
        "Sort" => sort(op, a[0]),
        "UnsortedSegmentSum" => {
            let row = a[0].data.len() / a[1].data.len().max(1);
            let mut out = vec![0.0; out_shape(op).iter().product()];
            for (i, &id) in a[1].data.iter().enumerate() {
                (0..row).for_each(|c| out[id as usize * row + c] += a[0].data[i * row + c]);
            }
            vec![out]
        }
        "MatMulV3" => product(a[0], a[1], flag(op, "transpose_x1"), flag(op, "transpose_x2")),
        "BatchMatMulV3" => product(a[0], a[1], flag(op, "adj_x1"), flag(op, "adj_x2")),
        "SoftmaxV2" => softmax(a[0], ints(op, "axes")[0], |e, sum| e / sum),
        "LogSoftmaxV2" => softmax(a[0], ints(op, "axes")[0], |e, sum| e.ln() - sum.ln()),
        "SoftmaxGrad" => softmax_grad(a[0], a[1], ints(op, "axes")[0]),
        "RmsNorm" => rms_norm(op, &a),
        "RmsNormGrad" => rms_norm_grad(&a),
        "LayerNormV4" => layer_norm(op, a[0], args.get(2).copied().flatten(), args.get(3).copied().flatten()),
        "LayerNormGradV3" => layer_norm_grad(&a),
        "RotaryPositionEmbedding" => rotary(op, &a),
        "FlashAttentionScore" => attention(op, args),
        "FlashAttentionScoreGrad" => attention_grad(op, args),
        "ApplyAdamW" => adamw(&a),
        other => panic!("{other} has no meaning here"),
    }
}

fn value<'a>(op: &'a OpDef, name: &str) -> &'a Attribute {
    op.attr[name].value.as_ref().expect("a value")
}

pub(crate) fn int(op: &OpDef, name: &str) -> i64 {
    match value(op, name) {
        Attribute::Int(i) => *i,
        other => panic!("{name} is {other:?}"),
    }
}

fn float(op: &OpDef, name: &str) -> f64 {
    match value(op, name) {
        Attribute::Float(f) => f64::from(*f),
        other => panic!("{name} is {other:?}"),
    }
}

fn flag(op: &OpDef, name: &str) -> bool {
    *value(op, name) == Attribute::Bool(true)
}

fn text<'a>(op: &'a OpDef, name: &str) -> &'a [u8] {
    match value(op, name) {
        Attribute::Text(text) => text,
        other => panic!("{name} is {other:?}"),
    }
}

fn ints(op: &OpDef, name: &str) -> Vec<i64> {
    match value(op, name) {
        Attribute::List(list) => list.i.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

fn out_shape(op: &OpDef) -> Vec<usize> {
    op.output_desc[0].shape.iter().flat_map(|s| &s.dim).map(|&d| d as usize).collect()
}

/// Each output element from the operands' elements that broadcast to it.
fn zip(op: &OpDef, args: &[&Tensor], f: impl Fn(&[f64]) -> f64) -> Vec<Vec<f64>> {
    let shape = out_shape(op);
    let strides: Vec<Vec<usize>> = args.iter().map(|a| a.strides_in(shape.len())).collect();
    let mut index = vec![0; shape.len()];
    let mut at = vec![0; args.len()];
    let mut operands = vec![0.0; args.len()];
    let value = |_| {
        for (operand, (arg, &at)) in operands.iter_mut().zip(args.iter().zip(&at)) {
            *operand = arg.data[at];
        }
        let value = f(&operands);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            at.iter_mut().zip(&strides).for_each(|(at, s)| *at += s[d]);
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
            at.iter_mut().zip(&strides).for_each(|(at, s)| *at -= s[d] * shape[d]);
        }
        value
    };
    vec![(0..shape.iter().product()).map(value).collect()]
}

fn each(op: &OpDef, mut f: impl FnMut(&[usize]) -> f64) -> Vec<Vec<f64>> {
    let shape = out_shape(op);
    vec![(0..shape.iter().product()).map(|i| f(&unravel(&shape, i))).collect()]
}
