//! Kernels of the IR, compiled and run, against the interpreter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod load;

use half::{bf16, f16};
use ir::{Array, Builder, Function, Interpreter, NodeId, Op, Precision, Value, ops};
use load::{Loaded, Numbers, cpus, load};
use target_cpu::lower::Lowering;
use types::{DType, Dim, Name, TensorType};

fn ty(text: &str) -> TensorType {
    text.parse().unwrap()
}

fn names(text: &str) -> Vec<Name> {
    text.split_whitespace().map(Name::from).collect()
}

/// An array's bytes as a buffer holds them.
fn pack(array: &Array) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &x in &array.data {
        match array.ty.dtype {
            DType::F64 => bytes.extend(x.to_le_bytes()),
            DType::Work | DType::F32 => bytes.extend((x as f32).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f64(x).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f64(x).to_le_bytes()),
            DType::I64 => bytes.extend((x as i64).to_le_bytes()),
            DType::I32 => bytes.extend((x as i32).to_le_bytes()),
            DType::Bool => bytes.push(u8::from(x != 0.0)),
        }
    }
    bytes
}

fn unpack(ty: &TensorType, bytes: &[u8]) -> Vec<f64> {
    let size = ty.dtype.bytes();
    bytes
        .chunks(size)
        .take(ty.elements())
        .map(|b| match ty.dtype {
            DType::F64 => f64::from_le_bytes(b.try_into().unwrap()),
            DType::Work | DType::F32 => f64::from(f32::from_le_bytes(b.try_into().unwrap())),
            DType::BF16 => bf16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            DType::F16 => f16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            DType::I64 => i64::from_le_bytes(b.try_into().unwrap()) as f64,
            DType::I32 => f64::from(i32::from_le_bytes(b.try_into().unwrap())),
            DType::Bool => f64::from(b[0]),
        })
        .collect()
}

fn random(ty: &TensorType, seed: u64, high: f64) -> Array {
    let mut numbers = Numbers(seed);
    let data = (0..ty.elements())
        .map(|_| {
            let x = f64::from(numbers.next());
            let x = if ty.dtype.is_float() { x * 2.0 } else { ((x + 1.0) * 0.5 * high).floor() };
            ty.dtype.round(x)
        })
        .collect();
    Array::new(ty.clone(), data)
}

fn close(got: f64, want: f64, dtype: DType, loose: f64) -> bool {
    let relative = match dtype {
        DType::BF16 => 1.6e-2,
        DType::F16 => 2e-3,
        DType::F32 => 4e-6 * loose,
        _ => 0.0,
    };
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= relative * (1.0 + want.abs())
}

fn compile(function: &Function, cpu: &target_cpu::cpu::Cpu) -> (Loaded, u64, u64) {
    let lowering = Lowering::new(function, cpu).unwrap();
    let needs = lowering.needs();
    let module = lowering.module("kernel", cpu).unwrap();
    if let Ok(path) = std::env::var("DUMP_KERNEL") {
        std::fs::write(path, &module.text).unwrap();
    }
    (load(cpu, &[module]), needs.workspace, needs.parts)
}

/// Builds a kernel over parameters, and compares it with the interpreter on random operands, in parts.
fn check(name: &str, params: &[&str], build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>) {
    check_near(name, params, 1.0, build);
}

fn check_near(name: &str, params: &[&str], loose: f64, build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>) {
    let arrays = params.iter().enumerate().map(|(i, text)| random(&ty(text), 7 + i as u64, 6.0)).collect();
    check_arrays(name, params, arrays, loose, build);
}

fn check_arrays(
    name: &str,
    params: &[&str],
    arrays: Vec<Array>,
    loose: f64,
    build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>,
) {
    let mut b = Builder::new("kernel");
    let nodes: Vec<NodeId> = params.iter().map(|text| b.param(ty(text))).collect();
    let results = build(&mut b, &nodes);
    let mut function = b.finish().unwrap_or_else(|error| panic!("{name}: {error}"));
    function.results = results;

    let module = ir::Module::default();
    let interpreter = Interpreter::new(&module, Precision::Declared);
    let values: Vec<Value> = arrays.iter().cloned().map(Value::Tensor).collect();
    let wanted = interpreter.run(&function, &values);

    for cpu in cpus() {
        let (loaded, workspace, parts) = compile(&function, &cpu);
        let mut first: Option<Vec<Vec<u8>>> = None;
        for parts in [1, 3, parts.min(100) as u32] {
            let inputs: Vec<Vec<u8>> = arrays.iter().map(pack).collect();
            let outputs: Vec<Vec<u8>> =
                function.result_types().map(|ty| vec![0xff; ty.tensor().unwrap().bytes() + 64]).collect();
            let scratch = vec![0xffu8; workspace as usize];
            let mut args: Vec<*mut u8> = inputs.iter().chain(&outputs).map(|bytes| load::ptr(bytes)).collect();
            args.push(load::ptr(&scratch));
            loaded.call("kernel", &args, parts);
            for ((output, result), want) in outputs.iter().zip(function.result_types()).zip(&wanted) {
                let ty = result.tensor().unwrap();
                let got = unpack(ty, output);
                for (i, (&got, &want)) in got.iter().zip(&want.tensor().data).enumerate() {
                    assert!(
                        close(got, want, ty.dtype, loose),
                        "{name} on {}: {ty} [{i}] = {got}, not {want}",
                        cpu.name
                    );
                }
                assert!(output[ty.bytes()..].iter().all(|&byte| byte == 0xff), "{name}: wrote past the end of {ty}");
            }
            assert_eq!(*first.get_or_insert_with(|| outputs.clone()), outputs, "{name}: parts change bits");
        }
    }
}

fn op(b: &mut Builder, op: impl Into<Op>, args: &[NodeId]) -> NodeId {
    b.op(op, args)
}

#[test]
fn elementwise() {
    for dtype in ["f32", "bf16", "f16"] {
        for shape in ["[A:5]", "[A:3, B:7]", "[A:2, B:3, C:100]", "[]", "[A:3000]"] {
            let x = format!("{dtype}{shape}");
            check(&x, &[&x, &x, &x], |b, p| {
                let sum = b.add(p[0], p[1]);
                let t = op(b, ops::Tanh {}, &[sum]);
                let y = b.mul(t, p[2]);
                let y = b.offset(y, 0.5);
                vec![y, sum]
            });
        }
    }
    check("broadcast by name", &["f32[A:3, B:20]", "f32[B:20]", "f32[A:3]", "f32[]"], |b, p| {
        let x = b.mul(p[0], p[1]);
        let x = b.add(x, p[2]);
        vec![b.div(x, p[3])]
    });
}

#[test]
fn every_unary() {
    let all: Vec<(&str, Op)> = vec![
        ("neg", ops::Neg {}.into()),
        ("abs", ops::Abs {}.into()),
        ("exp", ops::Exp {}.into()),
        ("expm1", ops::Expm1 {}.into()),
        ("sigmoid", ops::Sigmoid {}.into()),
        ("erf", ops::Erf {}.into()),
        ("sin", ops::Sin {}.into()),
        ("cos", ops::Cos {}.into()),
        ("tanh", ops::Tanh {}.into()),
        ("silu", ops::Silu {}.into()),
        ("gelu", ops::GeluTanh {}.into()),
    ];
    for (name, unary) in all {
        check(name, &["f32[A:3, B:37]"], |b, p| vec![b.op(unary, p)]);
    }
    check("roots and logs", &["f32[A:3, B:37]"], |b, p| {
        let x = b.mul(p[0], p[0]);
        let x = b.offset(x, 0.1);
        vec![op(b, ops::Sqrt {}, &[x]), op(b, ops::Rsqrt {}, &[x]), op(b, ops::Log {}, &[x])]
    });
}

#[test]
fn truth_values_and_casts() {
    use ops::Comparison::{Equal, GreaterEqual, Less, NotEqual};
    check("select", &["f32[A:3, B:37]", "f32[A:3, B:37]", "i32[B:37]", "i64[A:3]"], |b, p| {
        let less = op(b, ops::Compare { kind: Less }, &[p[0], p[1]]);
        let picked = op(b, ops::Select {}, &[less, p[0], p[1]]);
        let three = b.constant(3.0, DType::I32);
        let same = op(b, ops::Compare { kind: Equal }, &[p[2], three]);
        let other = op(b, ops::Compare { kind: NotEqual }, &[p[2], three]);
        let at_least = op(b, ops::Compare { kind: GreaterEqual }, &[p[2], three]);
        let as_float = b.cast(same, DType::F32);
        let sum = b.add(picked, as_float);
        let long = b.cast(p[2], DType::I64);
        let long = b.add(long, p[3]);
        let max = op(b, ops::Max {}, &[p[0], p[1]]);
        let min = op(b, ops::Min {}, &[p[0], p[1]]);
        let int = b.cast(p[0], DType::I32);
        let narrow = b.cast(p[0], DType::BF16);
        vec![less, sum, other, at_least, long, max, min, int, narrow]
    });
}

#[test]
fn movement() {
    check("transpose", &["f32[A:3, B:20, C:5]"], |b, p| vec![op(b, ops::Transpose { order: names("C A B") }, p)]);
    check("transpose of bf16", &["bf16[A:3, B:20, C:5]"], |b, p| {
        vec![op(b, ops::Transpose { order: names("B C A") }, p)]
    });
    check("slice, then arithmetic", &["f32[A:3, B:40]"], |b, p| {
        let x = op(b, ops::Slice { dim: "B".into(), start: 3, size: 21 }, p);
        vec![b.mul(x, x)]
    });
    check("slice of rows", &["f32[A:9, B:40]"], |b, p| {
        vec![op(b, ops::Slice { dim: "A".into(), start: 4, size: 3 }, p)]
    });
    for dim in ["A", "B"] {
        let (x, y) =
            if dim == "A" { ("f32[A:3, B:21]", "f32[A:2, B:21]") } else { ("f32[A:3, B:21]", "f32[A:3, B:5]") };
        check("concat", &[x, y, x], |b, p| vec![op(b, ops::Concat { dim: dim.into() }, p)]);
        check("pad", &[x], |b, p| vec![op(b, ops::Pad { dim: dim.into(), before: 2, after: 5, value: 1.5 }, p)]);
    }
    check("reshape", &["f32[A:6, B:20]"], |b, p| {
        let x = b.mul(p[0], p[0]);
        let x = b.reshape(x, &ty("f32[A:2, C:3, D:5, E:4]"));
        vec![b.add(x, x)]
    });
    check("reshape in whole vectors", &["f32[A:6, B:128]", "f32[E:64]"], |b, p| {
        let x = b.reshape(p[0], &ty("f32[A:6, D:2, E:64]"));
        let x = b.mul(x, p[1]);
        vec![b.reshape(x, &ty("f32[A:6, B:128]"))]
    });
    check("broadcast", &["f32[B:20]"], |b, p| {
        vec![op(b, ops::Broadcast { dims: ty("f32[A:3, B:20, C:7]").dims.to_vec() }, p)]
    });
    check("iota", &["f32[A:3, B:20]"], |b, p| {
        let i = op(b, ops::Iota { dim: Dim::new("B", 20), dtype: DType::F32 }, &[]);
        let j = op(b, ops::Iota { dim: Dim::new("A", 3), dtype: DType::F32 }, &[]);
        let x = b.mul(p[0], i);
        vec![b.add(x, j)]
    });
    check("table", &["f32[A:3, B:20]"], |b, p| {
        let data = (0..20).map(f64::from).collect();
        let t = op(b, ops::Table { dims: vec![Dim::new("B", 20)], dtype: DType::F32, data }, &[]);
        vec![b.mul(p[0], t)]
    });
}

#[test]
fn transposes() {
    for dtype in ["f32", "bf16", "i64", "bool"] {
        for (a, b, c) in [(3, 5, 7), (2, 32, 48), (1, 37, 50), (33, 3, 20)] {
            let x = format!("{dtype}[A:{a}, B:{b}, C:{c}]");
            for order in ["A C B", "B A C", "B C A", "C A B", "C B A"] {
                check(&format!("{order} of {x}"), &[&x], |b, p| vec![op(b, ops::Transpose { order: names(order) }, p)]);
            }
        }
    }
}

#[test]
fn gathers() {
    check("gather of rows", &["f32[V:6, D:20]", "i64[B:2, L:5]"], |b, p| {
        let x = op(b, ops::Gather { dim: "V".into() }, p);
        vec![b.add(x, x)]
    });
    check("gather along lanes", &["bf16[D:3, V:6]", "i32[L:21]"], |b, p| {
        vec![op(b, ops::Gather { dim: "V".into() }, p)]
    });
    for dtype in ["f32", "bf16"] {
        check("scatter_add", &[&format!("{dtype}[B:4, L:9, D:20]"), "i64[B:4, L:9]"], |b, p| {
            let x = b.add(p[0], p[0]);
            vec![op(b, ops::ScatterAdd { dim: Dim::new("V", 7) }, &[x, p[1]])]
        });
    }
}

#[test]
fn reductions() {
    for dtype in ["f32", "bf16"] {
        for shape in ["[A:3, B:5, C:7]", "[A:3, B:5, C:200]", "[A:150, B:2, C:33]", "[A:3, B:1, C:2500]"] {
            let x = format!("{dtype}{shape}");
            for dims in ["A", "B", "C", "A B", "B C", "A C", "A B C"] {
                check_near(&format!("sum of {x} over {dims}"), &[&x], 8.0, |b, p| {
                    let y = b.mul(p[0], p[0]);
                    vec![b.reduce_sum(y, &names(dims))]
                });
                check(&format!("max of {x} over {dims}"), &[&x], |b, p| {
                    vec![op(b, ops::ReduceMax { dims: names(dims) }, p)]
                });
            }
        }
    }
    check("sum and what it is read by", &["f32[A:30, B:70]"], |b, p| {
        let total = b.reduce_sum(p[0], &names("B"));
        let mean = b.scale(total, 1.0 / 70.0);
        let centred = b.sub(p[0], mean);
        vec![centred, mean]
    });
    check("softmax by hand over a middle dim", &["f32[A:3, B:17, C:20]"], |b, p| {
        let max = op(b, ops::ReduceMax { dims: names("B") }, p);
        let x = b.sub(p[0], max);
        let e = op(b, ops::Exp {}, &[x]);
        let sum = b.reduce_sum(e, &names("B"));
        vec![b.div(e, sum)]
    });
}

#[test]
fn composites() {
    for dtype in ["f32", "bf16"] {
        for width in [20, 64, 100] {
            let x = format!("{dtype}[B:2, L:5, D:{width}]");
            let dim: Name = "D".into();
            check_near("rms_norm", &[&x], 2.0, |b, p| vec![op(b, ops::RmsNorm { dim: dim.clone(), eps: 1e-6 }, p)]);
            check_near("rms_norm_grad", &[&x, &x], 4.0, |b, p| {
                vec![op(b, ops::RmsNormGrad { dim: dim.clone(), eps: 1e-6 }, p)]
            });
            check_near("layer_norm", &[&x], 2.0, |b, p| vec![op(b, ops::LayerNorm { dim: dim.clone(), eps: 1e-6 }, p)]);
            check_near("layer_norm_grad", &[&x, &x], 4.0, |b, p| {
                vec![op(b, ops::LayerNormGrad { dim: dim.clone(), eps: 1e-6 }, p)]
            });
            check("softmax", &[&x], |b, p| vec![op(b, ops::Softmax { dim: dim.clone() }, p)]);
            check("softmax_grad", &[&x, &x], |b, p| vec![op(b, ops::SoftmaxGrad { dim: dim.clone() }, p)]);
            for form in [ops::RopeForm::Interleaved, ops::RopeForm::Half] {
                let table = format!("f32[L:5, J:{}]", width / 2);
                check("rope", &[&x, &table, &table], |b, p| vec![op(b, ops::Rope { dim: dim.clone(), form }, p)]);
            }
        }
        let p = format!("{dtype}[A:7, B:9]");
        check("adamw", &[&p, "f32[A:7, B:9]", "f32[A:7, B:9]", &p, "f32[]", "f32[]", "f32[]"], |b, p| {
            let positive: Vec<NodeId> = [p[2], p[5], p[6]]
                .iter()
                .map(|&x| {
                    let square = b.mul(x, x);
                    b.offset(square, 0.1)
                })
                .collect();
            let all = op(
                b,
                ops::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 },
                &[p[0], p[1], positive[0], p[3], p[4], positive[1], positive[2]],
            );
            b.results(all).to_vec()
        });
    }
    check("cross_entropy", &["f32[L:5, V:6]", "i64[L:5]"], |b, p| {
        vec![op(b, ops::CrossEntropy { dim: "V".into(), ignore: 3 }, p)]
    });
}

#[test]
fn products() {
    for dtype in ["f32", "bf16"] {
        let (x, w) = (format!("{dtype}[B:2, L:9, D:40]"), format!("{dtype}[O:35, D:40]"));
        let (bias, y) = (format!("{dtype}[O:35]"), format!("{dtype}[B:2, L:9, O:35]"));
        let linear = ops::Matmul { spec: "blk,ok->blo".into(), dims: names("B L O"), dtype: None };
        check("linear", &[&x, &w], |b, p| vec![op(b, linear.clone(), p)]);
        check("linear, bias, gelu, residual", &[&x, &w, &bias, &y], |b, p| {
            let z = op(b, linear.clone(), &p[..2]);
            let z = b.add(z, p[2]);
            let g = op(b, ops::GeluTanh {}, &[z]);
            vec![b.add(g, p[3]), z]
        });
        let gradient = ops::Matmul { spec: "blo,blk->ok".into(), dims: names("O D"), dtype: Some(DType::F32) };
        check_near("weight gradient", &[&y, &x], 4.0, |b, p| vec![op(b, gradient.clone(), p)]);
        let heads = ops::Matmul { spec: "bld,ehd->bhle".into(), dims: names("B H L E"), dtype: None };
        check("to heads", &[&format!("{dtype}[B:2, L:9, D:5]"), &format!("{dtype}[E:7, H:3, D:5]")], |b, p| {
            vec![op(b, heads.clone(), p)]
        });
        let viewed = ops::Matmul { spec: "bm,nm->bn".into(), dims: names("B O"), dtype: None };
        check_near("of a view", &[&x, &format!("{dtype}[O:35, D:360]")], 8.0, |b, p| {
            let x = b.reshape(p[0], &ty(&format!("{dtype}[B:2, M:360]")));
            vec![op(b, viewed.clone(), &[x, p[1]])]
        });
    }
}

struct Case {
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    causal: bool,
    heads_first: bool,
}

fn attention_case(dtype: &str, case: &Case) {
    let Case { queries, keys, heads, kv_heads, head, causal, heads_first } = *case;
    let shape = |length: &str, l: usize, name: &str, h: usize| match heads_first {
        false => format!("{dtype}[B:2, {length}:{l}, {name}:{h}, D:{head}]"),
        true => format!("{dtype}[B:2, {name}:{h}, {length}:{l}, D:{head}]"),
    };
    let (q, kv) = (shape("L", queries, "H", heads), shape("S", keys, "G", kv_heads));
    let forward = ops::Attention {
        q_len: "L".into(),
        kv_len: "S".into(),
        heads: "H".into(),
        kv_heads: "G".into(),
        head: "D".into(),
        causal,
        scale: 0.3,
    };
    let name = format!("attention of {q} to {kv}, causal: {causal}");
    check_near(&name, &[&q, &kv, &kv], 4.0, |b, p| {
        let both = op(b, forward.clone(), p);
        b.results(both).to_vec()
    });
    // The gradient's kernel reads what the forward kernel made.
    let backward = ops::AttentionGrad {
        q_len: "L".into(),
        kv_len: "S".into(),
        heads: "H".into(),
        kv_heads: "G".into(),
        head: "D".into(),
        causal,
        scale: 0.3,
    };
    let mut b = Builder::new("forward");
    let params: Vec<NodeId> = [&q, &kv, &kv].iter().map(|text| b.param(ty(text))).collect();
    let both = b.op(forward, &params);
    let results = b.results(both).to_vec();
    let mut function = b.finish().unwrap();
    function.results = results;
    let module = ir::Module::default();
    let interpreter = Interpreter::new(&module, Precision::Declared);
    let arrays: Vec<Array> =
        [&q, &kv, &kv].iter().enumerate().map(|(i, text)| random(&ty(text), 3 + i as u64, 1.0)).collect();
    let values: Vec<Value> = arrays.iter().cloned().map(Value::Tensor).collect();
    let made = interpreter.run(&function, &values);
    let mut all = arrays;
    all.extend(made.iter().map(|value| value.tensor().clone()));
    all.push(random(&ty(&q), 11, 1.0));
    let texts: Vec<String> = all.iter().map(|array| array.ty.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    check_arrays(&format!("gradient of {name}"), &texts, all, 30.0, |b, p| {
        let all = op(b, backward, p);
        b.results(all).to_vec()
    });
}

#[test]
fn attention() {
    let case = |queries, keys, heads, kv_heads, head, causal, heads_first| Case {
        queries,
        keys,
        heads,
        kv_heads,
        head,
        causal,
        heads_first,
    };
    for dtype in ["f32", "bf16"] {
        for causal in [false, true] {
            attention_case(dtype, &case(5, 5, 2, 2, 8, causal, false));
            attention_case(dtype, &case(37, 70, 2, 1, 20, causal, false));
            attention_case(dtype, &case(1, 33, 4, 2, 16, causal, true));
            attention_case(dtype, &case(130, 131, 2, 2, 33, causal, true));
        }
    }
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    use target::Target;
    let mut b = Builder::new("kernel");
    let params = [b.param(ty("f32[L:40, D:64]")), b.param(ty("f32[O:48, D:64]"))];
    let linear = ops::Matmul { spec: "lk,ok->lo".into(), dims: names("L O"), dtype: None };
    let y = op(&mut b, linear, &params);
    let y = op(&mut b, ops::Softmax { dim: "O".into() }, &[y]);
    let mut function = b.finish().unwrap();
    function.results = vec![y];
    // A product and a softmax are two kernels.
    let groups = target_cpu::group::group(&function);
    assert_eq!(groups.len(), 2, "{groups:?}");
    let mut b = Builder::new("kernel");
    let x = b.param(ty("f32[L:40, D:64]"));
    let y = op(&mut b, ops::Softmax { dim: "D".into() }, &[x]);
    let mut softmax = b.finish().unwrap();
    softmax.results = vec![y];
    let cpu = target_cpu::Cpu::native().unwrap();
    let kernels = [("k0_softmax", &softmax), ("k1_softmax", &softmax), ("k2_softmax", &softmax)];
    let make = |threads| target_cpu::CpuTarget::new(cpu.clone(), "ld.lld-22".into(), threads).emit(&kernels).unwrap();
    assert_eq!(make(1), make(3));
}
