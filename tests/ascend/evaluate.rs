//! The meaning of a GE graph: every operator of the table on f64, each output rounded to its declared type.
//!
//! Written from CANN's formulas, not from our lowerings. What CANN leaves open is NaN here, so that relying on it shows.

use std::collections::HashMap;

use half::bf16;
use target_ascend::dtype::DataType;
use target_ascend::proto::{Attribute, ModelDef, OpDef, TensorDescriptor};

#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

/// The outputs of the graph on its inputs.
pub fn run(model: &ModelDef, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut values: HashMap<String, Tensor> = HashMap::new();
    for op in &model.graph[0].op {
        let args: Vec<Option<Tensor>> = op.input.iter().map(|edge| values.get(edge).cloned()).collect();
        let outputs = match op.r#type.as_str() {
            "NetOutput" => return args.into_iter().flatten().collect(),
            "Data" => vec![inputs[int(op, "index") as usize].data.clone()],
            "Const" => vec![constant(op)],
            _ => node(op, &args),
        };
        for (i, (desc, data)) in op.output_desc.iter().zip(outputs).enumerate() {
            values.insert(format!("{}:{i}", op.name), declared(op, desc, data));
        }
    }
    panic!("no NetOutput");
}

fn declared(op: &OpDef, desc: &TensorDescriptor, data: Vec<f64>) -> Tensor {
    let dtype = DataType::try_from(desc.dtype).expect("an element type");
    let shape: Vec<usize> = desc.shape.iter().flat_map(|s| &s.dim).map(|&d| d as usize).collect();
    assert_eq!(shape.iter().product::<usize>(), data.len(), "{} of {}", desc.name, op.name);
    let data = data.into_iter().map(|v| round(dtype, v)).collect();
    Tensor { shape, data }
}

fn round(dtype: DataType, v: f64) -> f64 {
    match dtype {
        DataType::Float => f64::from(v as f32),
        DataType::Bf16 => bf16::from_f32(v as f32).to_f64(),
        DataType::Int64 | DataType::Int32 => v.trunc(),
        DataType::Bool => f64::from(u8::from(v != 0.0)),
        _ => v,
    }
}

fn constant(op: &OpDef) -> Vec<f64> {
    let Some(Attribute::Tensor(tensor)) = op.attr["value"].value.as_ref() else { panic!("{} has no value", op.name) };
    let dtype = DataType::try_from(tensor.desc.as_ref().expect("a type").dtype).expect("an element type");
    let bytes = |n: usize| tensor.data.chunks_exact(n);
    match dtype {
        DataType::Float => bytes(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        DataType::Int64 => bytes(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
        DataType::Int32 => bytes(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        DataType::Bool | DataType::Uint8 => tensor.data.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("a constant of {}", other.text()),
    }
}

fn value<'a>(op: &'a OpDef, name: &str) -> &'a Attribute {
    op.attr[name].value.as_ref().expect("a value")
}

fn int(op: &OpDef, name: &str) -> i64 {
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

fn ints(op: &OpDef, name: &str) -> Vec<i64> {
    match value(op, name) {
        Attribute::List(list) => list.i.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

impl Tensor {
    fn index(&self, i: usize) -> Vec<usize> {
        unravel(&self.shape, i)
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.data[ravel(&self.shape, index)]
    }

    /// The element that broadcasts to `index` of a tensor of a higher rank.
    fn spread(&self, index: &[usize]) -> f64 {
        let own = &index[index.len() - self.shape.len()..];
        let own: Vec<usize> = own.iter().zip(&self.shape).map(|(&i, &s)| if s == 1 { 0 } else { i }).collect();
        self.at(&own)
    }

    /// How far its elements lie apart along the dims of a tensor of rank `rank` to which it broadcasts.
    fn strides_in(&self, rank: usize) -> Vec<usize> {
        let mut strides = vec![0; rank];
        let mut step = 1;
        for (d, &size) in self.shape.iter().enumerate().rev() {
            strides[rank - self.shape.len() + d] = if size == 1 { 0 } else { step };
            step *= size;
        }
        strides
    }

    fn ints(&self) -> Vec<i64> {
        self.data.iter().map(|&v| v as i64).collect()
    }

    /// Rows along the last dim.
    fn rows(&self) -> std::slice::Chunks<'_, f64> {
        self.data.chunks(*self.shape.last().expect("a dim"))
    }
}

fn unravel(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (d, &size) in shape.iter().enumerate().rev() {
        index[d] = i % size;
        i /= size;
    }
    index
}

fn ravel(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |at, (&size, &i)| at * size + i)
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

fn node(op: &OpDef, args: &[Option<Tensor>]) -> Vec<Vec<f64>> {
    let a: Vec<&Tensor> = args.iter().flatten().collect();
    let map = |f: fn(f64) -> f64| zip(op, &a, |v| f(v[0]));
    let pair = |f: fn(f64, f64) -> f64| zip(op, &a, |v| f(v[0], v[1]));
    let is = |b: bool| f64::from(u8::from(b));
    let gelu = |x: f64| 0.5 * x * (1.0 + (0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x)).tanh());
    match op.r#type.as_str() {
        "Add" => pair(|x, y| x + y),
        "Sub" => pair(|x, y| x - y),
        "Mul" => pair(|x, y| x * y),
        "RealDiv" => pair(|x, y| x / y),
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
        "Sqrt" => map(f64::sqrt),
        "Rsqrt" => map(|x| 1.0 / x.sqrt()),
        "Tanh" => map(f64::tanh),
        "Sin" => map(f64::sin),
        "Cos" => map(f64::cos),
        "Sigmoid" => map(|x| 1.0 / (1.0 + (-x).exp())),
        "Erf" => map(erf),
        "Cast" | "BroadcastTo" => zip(op, &a[..1], |v| v[0]),
        "Reshape" => vec![a[0].data.clone()],
        "GeluV2" => zip(op, &a, |v| gelu(v[0])),
        "GeluGradV2" => zip(op, &a, |v| v[0] * slope(gelu, v[1])),
        "Swish" => map(|x| x / (1.0 + (-x).exp())),
        "SwishGrad" => zip(op, &a, |v| v[0] * slope(|x| x / (1.0 + (-x).exp()), v[1])),
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
            let axis = a[2].data[0] as usize;
            let rank = a[1].shape.len();
            each(op, |index| {
                let id = a[1].at(&index[axis..axis + rank]) as usize;
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
        "UnsortedSegmentSum" => {
            let row = a[0].data.len() / a[1].data.len().max(1);
            let mut out = vec![0.0; out_shape(op).iter().product()];
            for (i, &id) in a[1].data.iter().enumerate() {
                (0..row).for_each(|c| out[id as usize * row + c] += a[0].data[i * row + c]);
            }
            vec![out]
        }
        "MatMulV3" => product(op, a[0], a[1], flag(op, "transpose_x1"), flag(op, "transpose_x2")),
        "BatchMatMulV3" => product(op, a[0], a[1], flag(op, "adj_x1"), flag(op, "adj_x2")),
        "SoftmaxV2" => softmax(a[0], ints(op, "axes")[0], |e, sum| e / sum),
        "LogSoftmaxV2" => softmax(a[0], ints(op, "axes")[0], |e, sum| e.ln() - sum.ln()),
        "SoftmaxGrad" => softmax_grad(a[0], a[1], ints(op, "axes")[0]),
        "RmsNorm" => {
            let rstd: Vec<f64> =
                a[0].rows().map(|r| 1.0 / (mean(r, |v| v * v) + float(op, "epsilon")).sqrt()).collect();
            let n = a[0].shape[a[0].shape.len() - 1];
            let y = (0..a[0].data.len()).map(|i| a[0].data[i] * rstd[i / n] * a[1].data[i % n]);
            vec![y.collect(), rstd]
        }
        "RmsNormGrad" => rms_norm_grad(&a),
        "LayerNormV4" => {
            let eps = float(op, "epsilon");
            let means: Vec<f64> = a[0].rows().map(|r| mean(r, |v| v)).collect();
            let rstd: Vec<f64> =
                a[0].rows().zip(&means).map(|(r, m)| 1.0 / (mean(r, |v| (v - m) * (v - m)) + eps).sqrt()).collect();
            let n = a[0].shape[a[0].shape.len() - 1];
            let y = (0..a[0].data.len()).map(|i| (a[0].data[i] - means[i / n]) * rstd[i / n]);
            vec![y.collect(), means, rstd]
        }
        "LayerNormGradV3" => layer_norm_grad(&a),
        "RotaryPositionEmbedding" => rotary(op, &a),
        "FlashAttentionScore" => attention(op, args),
        "FlashAttentionScoreGrad" => attention_grad(op, args),
        "ApplyAdamW" => adamw(&a),
        other => panic!("{other} has no meaning here"),
    }
}

/// The slope of a smooth function, by a fourth-order difference.
fn slope(f: impl Fn(f64) -> f64, x: f64) -> f64 {
    let h = 1e-3;
    (8.0 * (f(x + h) - f(x - h)) - (f(x + 2.0 * h) - f(x - 2.0 * h))) / (12.0 * h)
}

/// The integral of its density, by Simpson's rule.
fn erf(x: f64) -> f64 {
    let n = 200;
    let h = x / f64::from(n);
    let weight = |i: i32| {
        if i == 0 || i == n {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    let sum: f64 = (0..=n).map(|i| weight(i) * (-(f64::from(i) * h).powi(2)).exp()).sum();
    std::f64::consts::FRAC_2_SQRT_PI * h / 3.0 * sum
}

fn mean(row: &[f64], f: impl Fn(f64) -> f64) -> f64 {
    row.iter().map(|&v| f(v)).sum::<f64>() / row.len() as f64
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn swiglu(x: &Tensor) -> Vec<Vec<f64>> {
    let rows = x.rows().flat_map(|row| {
        let (gate, up) = row.split_at(row.len() / 2);
        gate.iter().zip(up).map(|(g, u)| silu(*g) * u).collect::<Vec<_>>()
    });
    vec![rows.collect()]
}

fn swiglu_grad(dy: &Tensor, x: &Tensor) -> Vec<Vec<f64>> {
    let rows = x.rows().zip(dy.rows()).flat_map(|(row, dy)| {
        let (gate, up) = row.split_at(row.len() / 2);
        let dgate = (0..dy.len()).map(|i| dy[i] * up[i] * slope(silu, gate[i]));
        let dup = (0..dy.len()).map(|i| dy[i] * silu(gate[i]));
        dgate.chain(dup).collect::<Vec<_>>()
    });
    vec![rows.collect()]
}

fn concat(op: &OpDef, a: &[&Tensor]) -> Vec<Vec<f64>> {
    let (axis, parts) = a.split_last().expect("an axis");
    let axis = axis.data[0] as usize;
    each(op, |index| {
        let mut index = index.to_vec();
        for part in parts {
            if index[axis] < part.shape[axis] {
                return part.at(&index);
            }
            index[axis] -= part.shape[axis];
        }
        f64::NAN
    })
}

fn reduce(op: &OpDef, x: &Tensor, axes: &[i64], start: f64, f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    let shape = out_shape(op);
    let mut out = vec![start; shape.iter().product()];
    for (i, &v) in x.data.iter().enumerate() {
        let index = x.index(i);
        let kept: Vec<usize> = (0..index.len()).filter(|d| !axes.contains(&(*d as i64))).map(|d| index[d]).collect();
        let at = ravel(&shape, &kept);
        out[at] = f(out[at], v);
    }
    vec![out]
}

fn product(op: &OpDef, a: &Tensor, b: &Tensor, turn_a: bool, turn_b: bool) -> Vec<Vec<f64>> {
    let rank = a.shape.len();
    let k = if turn_a { a.shape[rank - 2] } else { a.shape[rank - 1] };
    let order = |turn: bool, i: usize, j: usize| if turn { [j, i] } else { [i, j] };
    each(op, |index| {
        let (batch, [m, n]) = (&index[..rank - 2], [index[rank - 2], index[rank - 1]]);
        let term = |l| a.at(&[batch, &order(turn_a, m, l)].concat()) * b.at(&[batch, &order(turn_b, l, n)].concat());
        (0..k).map(term).sum()
    })
}

/// For each element, its row along `axis` as positions in the data.
fn along(x: &Tensor, axis: i64, i: usize) -> Vec<usize> {
    let axis = if axis < 0 { x.shape.len() - 1 } else { axis as usize };
    let mut index = x.index(i);
    (0..x.shape[axis])
        .map(|k| {
            index[axis] = k;
            ravel(&x.shape, &index)
        })
        .collect()
}

fn softmax(x: &Tensor, axis: i64, f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    let value = |i: usize| {
        let row = along(x, axis, i);
        let top = row.iter().map(|&j| x.data[j]).fold(f64::NEG_INFINITY, f64::max);
        f((x.data[i] - top).exp(), row.iter().map(|&j| (x.data[j] - top).exp()).sum())
    };
    vec![(0..x.data.len()).map(value).collect()]
}

fn softmax_grad(y: &Tensor, g: &Tensor, axis: i64) -> Vec<Vec<f64>> {
    let value = |i: usize| {
        let dot: f64 = along(y, axis, i).iter().map(|&j| y.data[j] * g.data[j]).sum();
        y.data[i] * (g.data[i] - dot)
    };
    vec![(0..y.data.len()).map(value).collect()]
}

/// Inputs dy, x, rstd, gamma.
fn rms_norm_grad(a: &[&Tensor]) -> Vec<Vec<f64>> {
    let (dy, x, rstd, gamma) = (a[0], a[1], a[2], a[3]);
    let n = gamma.data.len();
    let (mut dx, mut dgamma) = (vec![], vec![0.0; n]);
    for (r, (dy, x)) in dy.rows().zip(x.rows()).enumerate() {
        let s = rstd.data[r];
        let dot = (0..n).map(|i| dy[i] * gamma.data[i] * x[i] * s).sum::<f64>() / n as f64;
        dx.extend((0..n).map(|i| s * (dy[i] * gamma.data[i] - x[i] * s * dot)));
        (0..n).for_each(|i| dgamma[i] += dy[i] * x[i] * s);
    }
    vec![dx, dgamma]
}

/// Inputs dy, x, rstd, mean, gamma.
fn layer_norm_grad(a: &[&Tensor]) -> Vec<Vec<f64>> {
    let (dy, x, rstd, means, gamma) = (a[0], a[1], a[2], a[3], a[4]);
    let n = gamma.data.len();
    let (mut dx, mut dgamma, mut dbeta) = (vec![], vec![0.0; n], vec![0.0; n]);
    for (r, (dy, x)) in dy.rows().zip(x.rows()).enumerate() {
        let s = rstd.data[r];
        let hat: Vec<f64> = x.iter().map(|v| (v - means.data[r]) * s).collect();
        let g: Vec<f64> = (0..n).map(|i| dy[i] * gamma.data[i]).collect();
        let (flat, dot) = (mean(&g, |v| v), (0..n).map(|i| g[i] * hat[i]).sum::<f64>() / n as f64);
        dx.extend((0..n).map(|i| s * (g[i] - flat - hat[i] * dot)));
        (0..n).for_each(|i| dgamma[i] += dy[i] * hat[i]);
        (0..n).for_each(|i| dbeta[i] += dy[i]);
    }
    vec![dx, dgamma, dbeta]
}

/// x cos + rotated(x) sin, with (-second, first) for each pair.
fn rotary(op: &OpDef, a: &[&Tensor]) -> Vec<Vec<f64>> {
    let half = a[0].shape[3] / 2;
    each(op, |index| {
        let d = index[3];
        let (other, sign) = match int(op, "mode") {
            0 if d < half => (d + half, -1.0),
            0 => (d - half, 1.0),
            1 if d % 2 == 0 => (d + 1, -1.0),
            1 => (d - 1, 1.0),
            mode => panic!("mode {mode}"),
        };
        let rotated = sign * a[0].at(&[index[0], index[1], index[2], other]);
        a[0].at(index) * a[1].spread(index) + rotated * a[2].spread(index)
    })
}

/// Whether query i sees key j, for a mask of that sparse mode.
fn seen(op: &OpDef, mask: Option<&Tensor>, i: usize, j: usize, queries: usize, keys: usize) -> bool {
    match (int(op, "sparse_mode"), mask) {
        (0, None) => true,
        (1, Some(mask)) => mask.at(&[i, j]) == 0.0,
        // The triangle itself, read at its corner.
        (3, Some(mask)) => {
            assert_eq!((mask.at(&[0, 1]), mask.at(&[1, 0]), mask.at(&[1, 1])), (1.0, 0.0, 0.0));
            j + queries <= i + keys
        }
        (mode, _) => panic!("sparse mode {mode}"),
    }
}

/// Scaled products of a row of queries with the keys that it sees, as (key, score).
fn scores(op: &OpDef, args: &[Option<Tensor>], mask: usize, [b, n, i]: [usize; 3]) -> Vec<(usize, f64)> {
    let (q, k) = (args[0].as_ref().expect("q"), args[1].as_ref().expect("k"));
    let kv = n / (q.shape[2] / k.shape[2]);
    let dot = |j| (0..q.shape[3]).map(|d| q.at(&[b, i, n, d]) * k.at(&[b, j, kv, d])).sum::<f64>();
    let visible = (0..k.shape[1]).filter(|&j| seen(op, args[mask].as_ref(), i, j, q.shape[1], k.shape[1]));
    visible.map(|j| (j, float(op, "scale_value") * dot(j))).collect()
}

fn attention(op: &OpDef, args: &[Option<Tensor>]) -> Vec<Vec<f64>> {
    let (q, k, v) = (args[0].as_ref().expect("q"), args[1].as_ref().expect("k"), args[2].as_ref().expect("v"));
    let [batch, queries, heads, width] = <[usize; 4]>::try_from(q.shape.as_slice()).expect("BSND");
    let mut out = vec![0.0; q.data.len()];
    let (mut max, mut sum) = (vec![], vec![]);
    for at in (0..batch * heads * queries).map(|i| unravel(&[batch, heads, queries], i)) {
        let row = scores(op, args, 6, [at[0], at[1], at[2]]);
        // What a row that sees nothing gives is not said.
        let top = row.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
        let total = if row.is_empty() { f64::NAN } else { row.iter().map(|s| (s.1 - top).exp()).sum::<f64>() };
        max.extend([top; 8]);
        sum.extend([total; 8]);
        let kv = at[1] / (heads / k.shape[2]);
        for d in 0..width {
            let weighed: f64 = row.iter().map(|&(j, s)| (s - top).exp() / total * v.at(&[at[0], j, kv, d])).sum();
            out[ravel(&q.shape, &[at[0], at[2], at[1], d])] = if row.is_empty() { f64::NAN } else { weighed };
        }
    }
    vec![max, sum, vec![], out]
}

fn attention_grad(op: &OpDef, args: &[Option<Tensor>]) -> Vec<Vec<f64>> {
    let arg = |i: usize| args[i].as_ref().expect("an input");
    let (q, k, v, dy, max, sum, out) = (arg(0), arg(1), arg(2), arg(3), arg(8), arg(9), arg(11));
    let [batch, queries, heads, width] = <[usize; 4]>::try_from(q.shape.as_slice()).expect("BSND");
    let scale = float(op, "scale_value");
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|t| vec![0.0; t.data.len()]);
    for at in (0..batch * heads * queries).map(|i| unravel(&[batch, heads, queries], i)) {
        let [b, n, i] = [at[0], at[1], at[2]];
        let kv = n / (heads / k.shape[2]);
        let own = |d: usize| ravel(&q.shape, &[b, i, n, d]);
        let total: f64 = (0..width).map(|d| dy.data[own(d)] * out.data[own(d)]).sum();
        for (j, s) in scores(op, args, 7, [b, n, i]) {
            let p = (s - max.at(&[b, n, i, 0])).exp() / sum.at(&[b, n, i, 0]);
            let key = |d: usize| ravel(&k.shape, &[b, j, kv, d]);
            let dp: f64 = (0..width).map(|d| dy.data[own(d)] * v.data[key(d)]).sum();
            let ds = scale * p * (dp - total);
            for d in 0..width {
                dq[own(d)] += ds * k.data[key(d)];
                dk[key(d)] += ds * q.data[own(d)];
                dv[key(d)] += p * dy.data[own(d)];
            }
        }
    }
    vec![dq, dk, dv, vec![]]
}

/// Inputs var, m, v, beta1_power, beta2_power, lr, weight_decay, beta1, beta2, epsilon, grad.
fn adamw(a: &[&Tensor]) -> Vec<Vec<f64>> {
    let one = |i: usize| a[i].data[0];
    let (lr, decay, beta1, beta2, eps) = (one(5), one(6), one(7), one(8), one(9));
    let (power1, power2) = (one(3) * beta1, one(4) * beta2);
    let zip = |x: &[f64], f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        x.iter().zip(&a[10].data).map(|(&x, &g)| f(x, g)).collect()
    };
    let m = zip(&a[1].data, &|m, g| beta1 * m + (1.0 - beta1) * g);
    let v = zip(&a[2].data, &|v, g| beta2 * v + (1.0 - beta2) * g * g);
    let step = |i: usize| {
        let root = (v[i] / (1.0 - power2)).sqrt() + eps;
        a[0].data[i] - lr * decay * a[0].data[i] - lr / root * m[i] / (1.0 - power1)
    };
    vec![(0..m.len()).map(step).collect(), m.clone(), v.clone()]
}
