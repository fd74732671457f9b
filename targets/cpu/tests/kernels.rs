//! Kernels of the IR, compiled and run, against the interpreter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod load;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use check::{check, check_arrays, check_near, names, op, random, ty};
use ir::{Builder, NodeId, Op, ops};
use target::Target;
use target_cpu::cache::Cache;
use types::{DType, Dim, Name};

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
        ("floor", ops::Floor {}.into()),
        ("round", ops::Round {}.into()),
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
        vec![
            op(b, ops::Sqrt {}, &[x]),
            op(b, ops::Rsqrt {}, &[x]),
            op(b, ops::Log {}, &[x]),
            op(b, ops::Log1p {}, &[x]),
        ]
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
            vec![op(b, ops::ScatterAdd { dim: Dim::new("V", 7), batch: vec![] }, &[x, p[1]])]
        });
    }
}

#[test]
fn gathers_with_tables_of_their_own() {
    for dtype in ["f32", "bf16", "i64"] {
        for (table, ids, dim) in [
            ("[B:3, V:6, D:20]", "[B:3, L:5]", "V"),
            ("[B:3, L:5, V:6]", "[B:3, L:5, K:2]", "V"),
            ("[V:6, B:3, D:20]", "[L:5, B:3]", "V"),
            ("[B:3, V:6, D:20]", "[D:20, B:3]", "V"),
            ("[B:3, V:6, D:20]", "[V:21, B:3]", "V"),
        ] {
            let (table, ids) = (format!("{dtype}{table}"), format!("i64{ids}"));
            check(&format!("{table} by {ids}"), &[&table, &ids], |b, p| {
                vec![op(b, ops::Gather { dim: dim.into() }, p)]
            });
        }
    }
    for dtype in ["f32", "bf16"] {
        for (updates, ids, batch) in [
            ("[B:9, K:3]", "[B:9, K:3]", "B"),
            ("[B:9, K:3, D:20]", "[K:3, B:9]", "B"),
            ("[A:2, B:5, K:3, D:20]", "[B:5, K:3]", "B"),
            ("[B:3, A:2, D:37]", "[A:2, B:3]", "A B"),
        ] {
            let (updates, ids) = (format!("{dtype}{updates}"), format!("i64{ids}"));
            check(&format!("{updates} by {ids}"), &[&updates, &ids], |b, p| {
                vec![op(b, ops::ScatterAdd { dim: Dim::new("V", 7), batch: names(batch) }, p)]
            });
        }
    }
}

#[test]
fn sums_along_a_dim() {
    for dtype in ["f32", "bf16", "f16", "f64", "i64", "i32"] {
        for (shape, dim) in [("[A:7]", "A"), ("[A:5, B:37]", "B"), ("[A:5, B:37]", "A"), ("[A:3, B:9, C:21]", "B")] {
            for reverse in [false, true] {
                let x = format!("{dtype}{shape}");
                check(&format!("sums of {x} along {dim}"), &[&x], |b, p| {
                    vec![op(b, ops::Cumsum { dim: dim.into(), reverse }, p)]
                });
            }
        }
    }
}

/// Numbers of which some are equal, with zeros of both signs, infinities and NaN where they are floats.
fn odd(text: &str) -> Vec<ir::Array> {
    let mut x = random(&ty(text), 3, 9.0);
    if x.ty.dtype.is_float() {
        for (i, x) in x.data.iter_mut().enumerate() {
            *x = [(*x * 3.0).round(), -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, *x][(i * 7 / 3) % 6];
        }
    } else {
        x.data.iter_mut().for_each(|x| *x -= 4.0);
    }
    vec![x]
}

#[test]
fn orders() {
    for dtype in ["f32", "bf16", "f16", "f64", "i64", "i32"] {
        for (shape, dim) in
            [("[A:1]", "A"), ("[A:200]", "A"), ("[A:5, B:37]", "B"), ("[A:64, B:3]", "A"), ("[A:3, B:9, C:5]", "B")]
        {
            let x = format!("{dtype}{shape}");
            for descending in [false, true] {
                check_arrays(&format!("order of {x} along {dim}"), &[&x], odd(&x), 1.0, |b, p| {
                    vec![op(b, ops::Argsort { dim: dim.into(), descending }, p)]
                });
            }
            let size = ty(&x).size_of(dim).unwrap();
            for first in [1, size.div_ceil(3), size] {
                check_arrays(&format!("the first {first} of {x} along {dim}"), &[&x], odd(&x), 1.0, |b, p| {
                    let both = op(b, ops::TopK { dim: dim.into(), to: Dim::new("K", first) }, p);
                    b.results(both).to_vec()
                });
            }
        }
    }
    check("indices alone", &["f32[A:5, B:37]"], |b, p| {
        let both = op(b, ops::TopK { dim: "B".into(), to: Dim::new("K", 3) }, p);
        let ids = b.results(both)[1];
        vec![b.reshape(ids, &ty("i64[A:5, K:3, ONE:1]"))]
    });
}

/// Whatever the divisor is, the process goes on.
#[test]
fn whole_numbers_divide() {
    for (dtype, least) in [("i64", -9_007_199_254_740_991.0), ("i32", f64::from(i32::MIN))] {
        let x = format!("{dtype}[A:9, B:9]");
        let numbers = [7.0, -7.0, 0.0, 1.0, -1.0, least, 12.0, -3.0, 2.0];
        let array = |turned: bool| {
            let at = |i: usize| numbers[if turned { i / 9 } else { i % 9 }];
            ir::Array::new(ty(&x), (0..81).map(at).collect())
        };
        check_arrays("quotients", &[&x, &x], vec![array(false), array(true)], 1.0, |b, p| {
            vec![op(b, ops::Div {}, p), op(b, ops::FloorDiv {}, p), op(b, ops::Remainder {}, p)]
        });
        check_arrays("quotients by numbers", &[&x], vec![array(false)], 1.0, |b, p| {
            let by = [0.0, -1.0, 1.0, 3.0, -4.0].map(|by| b.constant(by, ty(&x).dtype));
            let quotients = by.map(|by| op(b, ops::FloorDiv {}, &[p[0], by]));
            let rests = by.map(|by| op(b, ops::Remainder {}, &[p[0], by]));
            [quotients, rests].concat()
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

#[test]
fn compiling_twice_gives_the_same_bytes() {
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

/// Objects in memory, and how often one was found.
#[derive(Default)]
struct Kept {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    found: AtomicUsize,
}

impl Cache for &'static Kept {
    fn read(&self, key: &str) -> Option<Vec<u8>> {
        let object = self.objects.lock().unwrap().get(key).cloned();
        self.found.fetch_add(usize::from(object.is_some()), Ordering::Relaxed);
        object
    }

    fn write(&self, key: &str, object: &[u8]) -> std::io::Result<()> {
        self.objects.lock().unwrap().insert(key.to_owned(), object.to_vec());
        Ok(())
    }
}

#[test]
fn a_cache_has_what_was_compiled_for_the_same_processor() {
    let kept: &'static Kept = Box::leak(Box::default());
    let softmax = check::kernel(&["f32[L:4, D:64]"], |b, p| vec![op(b, ops::Softmax { dim: "D".into() }, p)]);
    let shorter = check::kernel(&["f32[L:4, D:63]"], |b, p| vec![op(b, ops::Softmax { dim: "D".into() }, p)]);
    let make = |cpu: &str, kernel: &ir::Function, cached: bool| {
        let cpu = target_cpu::Cpu::parse(cpu).unwrap();
        let mut target = target_cpu::CpuTarget::new(cpu, "ld.lld-22".into(), 2);
        target.cache = cached.then(|| Box::new(kept) as Box<dyn Cache>);
        target.emit(&[("k0", kernel), ("k1", &softmax)]).unwrap()
    };
    let counts = || (kept.objects.lock().unwrap().len(), kept.found.load(Ordering::Relaxed));
    let plain = make("x86-64-v3", &softmax, false);
    assert_eq!(make("x86-64-v3", &softmax, true), plain);
    assert_eq!(counts(), (2, 0));
    assert_eq!(make("x86-64-v3", &softmax, true), plain);
    assert_eq!(counts(), (2, 2));
    make("x86-64-v4", &softmax, true);
    assert_eq!(counts(), (4, 2));
    // Another kernel under a known name.
    make("x86-64-v3", &shorter, true);
    assert_eq!(counts(), (5, 3));
}
