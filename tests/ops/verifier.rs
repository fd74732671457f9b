//! The verifier accepts a sound module and rejects each way of breaking it.

use ir::ops::{Add, Exp};
use ir::{Call, Id, Input, Inst, Module, NodeId, Output, Type, verify};
use types::DType;

use crate::cases::{self, ty};
use crate::text::module;

/// Breaks the sound module and looks for the message.
fn rejects(expected: &str, damage: impl Fn(&mut Module)) {
    let mut broken = module();
    verify(&broken).unwrap_or_else(|v| panic!("{}", v[0]));
    damage(&mut broken);
    match verify(&broken) {
        Ok(()) => panic!("accepted, though `{expected}` was expected"),
        Err(found) => {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(found.iter().any(|m| m.contains(expected)), "`{expected}` is not among {found:#?}");
        }
    }
}

fn node(module: &mut Module, function: usize, find: impl Fn(&Inst) -> bool) -> (Id<ir::Function>, NodeId) {
    let id = Id::new(function);
    let node = module.functions[id].nodes.iter().find(|(_, n)| find(&n.inst)).map(|(n, _)| n);
    (id, node.expect("the module has such a node"))
}

/// Changes the first node of function `function` that `find` accepts.
fn edit(module: &mut Module, function: usize, find: impl Fn(&Inst) -> bool, change: impl Fn(&mut ir::Node)) {
    let (f, n) = node(module, function, find);
    change(&mut module.functions[f].nodes[n]);
}

fn is_call(inst: &Inst) -> bool {
    matches!(inst, Inst::Call(_))
}

fn is_op(inst: &Inst) -> bool {
    matches!(inst, Inst::Op(_))
}

fn call(change: impl Fn(&mut Call)) -> impl Fn(&mut ir::Node) {
    move |node| match &mut node.inst {
        Inst::Call(call) => change(call),
        other => panic!("{other:?} is no call"),
    }
}

#[test]
fn broken_functions_are_rejected() {
    rejects("a second function is called @kernel.1", |m| m.functions[Id::new(0)].name = "kernel.1".into());
    rejects("calls in @deep.256 nest more than 256 deep", |m| {
        let mut callee = Id::new(0);
        for depth in 0..=ir::MAX_CALLS {
            let types: Vec<Type> = m.functions[callee].param_types().cloned().collect();
            let mut b = ir::Builder::new(format!("deep.{depth}"));
            let args: Vec<NodeId> = types.into_iter().map(|ty| b.param(ty)).collect();
            let all = b.call(Call::once(callee), &m.functions[callee], &args);
            let results = b.results(all).to_vec();
            let mut function = b.finish().expect("a function");
            function.results = results;
            callee = m.functions.add(function);
        }
    });
    rejects("no spaces", |m| m.functions[Id::new(0)].name = "a b".into());
    rejects("listed as parameter 1", |m| m.functions[Id::new(0)].params[1] = NodeId::new(0));
    rejects("listed as parameter 0", |m| m.functions[Id::new(0)].params[0] = NodeId::new(99));
    rejects("is not parameter 1", |m| {
        m.functions[Id::new(0)].params.pop();
    });
    rejects("returns %99", |m| m.functions[Id::new(1)].results[0] = NodeId::new(99));
    rejects("calls @kernel.1, which is broken", |m| m.functions[Id::new(1)].results[0] = NodeId::new(99));
    rejects("reads %2, which is not computed before it", |m| edit(m, 0, is_op, |n| n.args[0] = NodeId::new(2)));
    rejects("a tuple crosses", |m| {
        let (f, n) = node(m, 2, is_call);
        m.functions[f].results[0] = n;
    });
}

/// Nothing is read from text here: each size is one that a pass could make.
#[test]
fn sizes_beyond_the_limits_are_rejected() {
    let sized = |size: usize| Type::Tensor(ty(DType::F32, &[("B", 4), ("DIM", size)]));
    rejects("has no elements: DIM is 0", |m| edit(m, 0, is_op, |n| n.ty = sized(0)));
    rejects("more than 2^50 elements", |m| edit(m, 0, is_op, |n| n.ty = sized(1 << 60)));
    let one = || ty(DType::F32, &[("B", 4)]);
    let stack = |m: &mut Module, count: usize| {
        m.states.insert(
            "many".into(),
            ir::State { ty: Type::Stack { count, of: one() }, init: types::Init::Zeros, of: None },
        );
    };
    rejects("`many`: a stack of `f32[B:4]` has nothing in it", |m| stack(m, 0));
    rejects("`many`: a stack of `f32[B:4]` has 4294967295 in it, at most 1048576", |m| stack(m, 4_294_967_295));
    rejects("`none`: `f32[N:0]` has no elements: N is 0", |m| {
        let ty = Type::Tensor(ty(DType::F32, &[("N", 0)]));
        m.states.insert("none".into(), ir::State { ty, init: types::Init::Zeros, of: None });
    });
    rejects("the state `lost` belongs to `nothing`, and there is no such parameter", |m| {
        let of = Some((ir::Holds::Moment, "nothing".into()));
        m.states.insert("lost".into(), ir::State { ty: Type::Tensor(one()), init: types::Init::Zeros, of });
    });
    let text = "fn @f(%0: f32[A:33554432, K:33554432], %1: f32[K:33554432, C:33554432]) {
      %2 = matmul(%0, %1) {\"spec\":\"ak,kc->ac\",\"dims\":[\"A\",\"C\"]} : f32[A:33554432, C:33554432] return %2 }";
    let found = verify(&ir::parse(text).expect("a module")).expect_err("2^76 FLOP");
    assert_eq!(found[0].message, "in @f: `matmul` takes more than 2^63 FLOP");
}

/// The innermost function that is too long is named, with the node that makes it so.
#[test]
fn what_is_too_long_to_be_written_out_is_found() {
    let module = |inner: usize, outer: usize| {
        let text = format!(
            "fn @one(%0: f32[A:2]) {{ %1 = exp(%0) : f32[A:2] %2 = exp(%1) : f32[A:2] return %2 }}
             fn @some(%0: f32[A:2]) {{ %1 = call @one x {inner} carry 1 share 0(%0) : f32[A:2] return %1 }}
             fn @all(%0: f32[A:2]) {{ %1 = call @some x {outer} carry 1 share 0(%0) : f32[A:2] return %1 }}"
        );
        ir::parse(&text).expect("a module")
    };
    assert_eq!(ir::check_extent(&module(1000, 1000)), Ok(()));
    let found = ir::check_extent(&module(1000, 1_000_000)).expect_err("2e9 operators");
    assert_eq!((found.function, found.times, found.total), (Id::new(2), 1_000_000, 2_000_000_000));
    let most = "2000000000 operators when all repetitions are written out, at most 2097152";
    assert_eq!(found.to_string(), most);
    let found = ir::check_extent(&module(10_000_000, 1)).expect_err("2e7 operators");
    assert_eq!((found.function, found.total), (Id::new(1), 20_000_000));
    // 2^128 does not wrap.
    let found = ir::check_extent(&module(usize::MAX, usize::MAX)).expect_err("too many");
    assert_eq!(found.function, Id::new(1));
    let text = "fn @f(%0: f32[A:2]) { %1 = broadcast(%0) {\"dims\":[{\"name\":\"A\",\"size\":2},{\"name\":\"C\",\"size\":562949953421312}]}
      : f32[A:2, C:562949953421312] %2 = reduce_sum(%1) {\"dims\":[\"C\"]} : f32[A:2] return %2 }
      fn @g(%0: f32[A:2]) { %1 = call @f x 1000000 carry 1 share 0(%0) : f32[A:2] return %1 }";
    let found = ir::check_extent(&ir::parse(text).expect("a module")).expect_err("2^72 bytes");
    assert_eq!(found.what, ir::Measure::Bytes);
}

#[test]
fn wrong_types_are_rejected() {
    let narrow = Type::Tensor(ty(DType::F32, &[("B", 4)]));
    rejects("is declared `f32[B:4]` but is", |m| edit(m, 0, is_op, |n| n.ty = narrow.clone()));
    rejects("is declared `bf16[B:4, DIM:3]`", |m| {
        edit(m, 0, is_op, |n| n.ty = Type::Tensor(ty(DType::BF16, &[("B", 4), ("DIM", 3)])));
    });
    rejects("is declared `f32[B:4, DIM2:3]`", |m| {
        edit(m, 0, is_op, |n| n.ty = Type::Tensor(ty(DType::F32, &[("B", 4), ("DIM2", 3)])));
    });
    rejects("takes 2 operands, here are 1", |m| {
        edit(m, 0, is_op, |n| {
            n.args.pop();
        });
    });
    rejects("`exp` takes 1 operand, here are 2", |m| edit(m, 0, is_op, |n| n.inst = Inst::Op(Exp {}.into())));
    rejects("`add` takes tensors only", |m| {
        edit(
            m,
            2,
            |i| matches!(i, Inst::Op(_)),
            |n| {
                n.inst = Inst::Op(Add {}.into());
                n.args = [NodeId::new(0), NodeId::new(0)].into_iter().collect();
            },
        );
    });
    rejects("reads past the end", |m| edit(m, 2, |i| matches!(i, Inst::Get(1)), |n| n.inst = Inst::Get(7)));
    rejects("does not fall into 3 chunks", |m| {
        edit(m, 2, |i| matches!(i, Inst::Chunk { .. }), |n| n.inst = Inst::Chunk { count: 3 });
    });
    rejects("wrong kind", |m| {
        edit(m, 2, |i| matches!(i, Inst::Chunk { .. }), |n| n.inst = Inst::Unchunk);
    });
    rejects("has dim A twice", |m| {
        let twice = Type::Tensor(ty(DType::F32, &[("A", 4), ("A", 3)]));
        edit(m, 0, |i| matches!(i, Inst::Param(0)), |n| n.ty = twice.clone());
    });
    rejects("a dim called \"A:B\"", |m| {
        let odd = Type::Tensor(ty(DType::F32, &[("A:B", 4), ("DIM", 3)]));
        edit(m, 0, |i| matches!(i, Inst::Param(0)), |n| n.ty = odd.clone());
    });
}

#[test]
fn wrong_calls_are_rejected() {
    rejects("does not stand before it", |m| edit(m, 2, is_call, call(|c| c.callee = Id::new(2))));
    rejects("expected a stack of 5", |m| edit(m, 2, is_call, call(|c| c.times = Some(5))));
    rejects("cannot carry 9 values", |m| edit(m, 2, is_call, call(|c| c.carried = 9)));
    rejects("cannot carry 1 values", |m| edit(m, 2, is_call, call(|c| c.shared = usize::MAX)));
    rejects("carries", |m| {
        m.functions[Id::new(0)].results.swap(0, 1);
    });
    rejects("takes 2 operands, here are 1", |m| {
        edit(m, 2, is_call, |n| {
            n.args.pop();
        });
    });
    // One item of the results, and its place in them.
    rejects("is declared", |m| {
        edit(m, 2, is_call, |n| {
            let Type::Tuple(items) = &mut n.ty else { panic!("two results") };
            items[1] = items[1].map(&|t| t.with_dtype(DType::BF16));
        });
    });
    rejects("is declared", |m| {
        edit(m, 2, is_call, |n| {
            let Type::Tuple(items) = &mut n.ty else { panic!("two results") };
            items.pop();
        });
    });
    rejects("is declared", |m| {
        let (f, _) = node(m, 2, is_call);
        let last = m.functions[f].nodes.iter().rfind(|(_, n)| is_call(&n.inst)).map(|(id, _)| id);
        m.functions[f].nodes[last.expect("calls")].ty = Type::Tensor(ty(DType::F32, &[("DIM", 4)]));
    });
}

#[test]
fn wrong_programs_are_rejected() {
    rejects("there is no parameter `w`", |m| m.programs[0].inputs[0] = Input::Parameter("w".into()));
    rejects("there is no state `w`", |m| m.programs[0].outputs[1] = Output::State("w".into()));
    rejects("do not match the function's signature", |m| {
        m.programs[0].inputs.pop();
    });
    rejects("the program uses", |m| m.programs[0].inputs.swap(0, 1));
    rejects("is written twice", |m| m.programs[0].outputs[3] = Output::Parameter("blocks.{}.w".into()));
    rejects("not one floating number", |m| m.programs[0].outputs[4] = Output::Loss("other".into()));
    rejects("its function does not exist", |m| m.programs[0].function = Id::new(9));
    rejects("a second program is called train", |m| {
        let again = m.programs[0].clone();
        m.programs.push(again);
    });
}

/// Any one operand of any operator in another element type, or with another dim, is refused or changes the result.
#[test]
fn operators_look_at_every_operand() {
    for seed in 0..4 {
        for case in cases::all(seed, DType::F32) {
            let results = case.results();
            for i in 0..case.operands.len() {
                for damage in 0..2 {
                    let mut types: Vec<_> = case.types().into_iter().cloned().collect();
                    match damage {
                        0 => types[i].dtype = if types[i].dtype == DType::Bool { DType::F32 } else { DType::Bool },
                        _ => types[i].dims.push(types::Dim::new("EXTRA", 2)),
                    }
                    let found = case.op.infer(&types.iter().collect::<Vec<_>>());
                    let cast = case.op.name() == "cast" && damage == 0;
                    let unnoticed = found.is_ok_and(|r| r.as_slice() == results);
                    assert!(cast || !unnoticed, "{}: operand {i} as `{}` goes unnoticed", case.text(), types[i]);
                }
            }
        }
    }
}
