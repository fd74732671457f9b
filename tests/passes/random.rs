//! Random functions: `simplify` keeps their numbers, and their gradients agree with finite differences.

use std::collections::BTreeSet;
use std::fmt::Write;

use ir::ops::*;
use ir::{Builder, Function, Interpreter, Module, NodeId, Op, Precision, Value};
use types::{DType, Dim, Key, Name, TensorType, philox4x32_10};

use crate::run;

/// A stream of small random numbers.
struct Dice(Key, u32);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Key::new(seed, "graph"), 0)
    }

    fn roll(&mut self, below: usize) -> usize {
        self.1 += 1;
        philox4x32_10([self.1, 0, 0, 0], self.0.0)[0] as usize % below
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// Any operator that may fit some of the operands; most will not, and are not added.
fn any_op(dice: &mut Dice, ty: &TensorType, smooth: bool) -> (Op, usize) {
    let names: Vec<Name> = ty.dims.iter().map(|d| d.name.clone()).collect();
    let dim = if names.is_empty() { Name::new("A") } else { dice.pick(&names).clone() };
    let size = ty.size_of(&dim).unwrap_or(1);
    let start = dice.roll(size);
    let mut shuffled = names.clone();
    if shuffled.len() > 1 {
        let (i, j) = (dice.roll(names.len()), dice.roll(names.len()));
        shuffled.swap(i, j);
    }
    let all: [Dim; 4] = [("A", 2), ("B", 3), ("C", 1), ("D", 2)].map(|(n, s)| Dim::new(n, s));
    let wider: Vec<Dim> = all.iter().filter(|d| names.contains(&d.name) || dice.roll(2) == 0).cloned().collect();
    let renamed: Vec<Dim> = {
        let mut dims = ty.dims.to_vec();
        if dice.roll(2) == 0 && dims.len() > 1 {
            let last = dims.remove(dims.len() - 1);
            let n = dims.len() - 1;
            dims[n].size *= last.size;
        }
        dims.iter_mut().for_each(|d| d.name = Name::from(format!("{}{}", d.name, ["", "'"][dice.roll(2)])));
        dims
    };
    let letters = "abcd".chars().take(ty.rank()).collect::<String>();
    let value = *dice.pick(&[1.0, 0.0, -1.0, 0.5, 2.0, -0.25, 0.3, 0.7]);
    match dice.roll(if smooth { 22 } else { 26 }) {
        0 | 1 => (Add {}.into(), 2),
        2 | 3 => (Mul {}.into(), 2),
        4 => (Sub {}.into(), 2),
        5 | 6 => (Neg {}.into(), 1),
        7 => (Sin {}.into(), 1),
        8 => (Tanh {}.into(), 1),
        9 => (Sigmoid {}.into(), 1),
        10 | 11 => (Constant { value, dtype: ty.dtype }.into(), 0),
        12 => (Reshape { dims: renamed }.into(), 1),
        13 => (Transpose { order: shuffled }.into(), 1),
        14 | 15 => (Broadcast { dims: wider }.into(), 1),
        16 => (ReduceSum { dims: vec![dim] }.into(), 1),
        17 => (Slice { dim, start, size: 1 + dice.roll(size - start) }.into(), 1),
        18 => (Pad { dim, before: dice.roll(2), after: dice.roll(2), value: 0.0 }.into(), 1),
        19 => (Concat { dim }.into(), 1 + dice.roll(2)),
        20 => {
            let out = letters.chars().rev().chain(['z']).collect::<String>();
            let dims = shuffled.iter().cloned().chain([Name::new("Z")]).take(out.len()).collect();
            (Matmul { spec: format!("{letters},yz->{out}"), dims, dtype: None }.into(), 2)
        }
        21 => (Matmul { spec: format!("{letters},{letters}->"), dims: vec![], dtype: None }.into(), 2),
        22 => (Max {}.into(), 2),
        23 => (Min {}.into(), 2),
        24 => (Cast { to: *dice.pick(&[DType::F32, DType::BF16]) }.into(), 1),
        _ => (Abs {}.into(), 1),
    }
}

/// A function over these parameters with up to `count` random operators.
fn grow(dice: &mut Dice, name: &str, params: &[&str], count: usize, smooth: bool) -> Builder {
    let mut b = Builder::new(name);
    for ty in params {
        b.param(ty.parse::<TensorType>().expect("a type"));
    }
    for _ in 0..count {
        let ids: Vec<NodeId> = b.function.nodes.ids().collect();
        let first = *dice.pick(&ids);
        let (op, arity) = any_op(dice, &b.ty(first).clone(), smooth);
        let args: Vec<NodeId> = (0..arity).map(|i| if i == 0 { first } else { *dice.pick(&ids) }).collect();
        let _ = b.try_op(op, &args);
        if b.function.nodes.iter().any(|(_, n)| n.ty.tensor().is_some_and(|t| t.elements() > 200)) {
            break;
        }
    }
    b
}

fn module_of(functions: Vec<Function>) -> Module {
    let mut module = Module { name: "random".into(), ..Module::default() };
    functions.into_iter().for_each(|f| {
        module.functions.add(f);
    });
    module
}

#[test]
fn simplify_keeps_the_numbers() {
    let (mut dropped, mut rules) = (0, BTreeSet::new());
    for seed in 0..400 {
        let mut dice = Dice::new(seed);
        let dtype = *dice.pick(&["f32", "bf16"]);
        let params = ["[A:2, B:3]", "[B:3]", "[A:2, C:1, D:2]"].map(|dims| format!("{dtype}{dims}"));
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        let mut b = grow(&mut dice, "f", &params, 60, false);
        let ids: Vec<NodeId> = b.function.nodes.ids().collect();
        b.function.results = ids.iter().rev().take(8).copied().collect();
        let before = module_of(vec![b.function]);
        let text = before.to_string();
        let (after, cx) =
            run::run(&text, "simplify").unwrap_or_else(|e| panic!("seed {seed}: {}\n{text}", run::rendered(&e)));
        rules.extend(cx.stats.passes[0].counts.keys().cloned());
        let size = |m: &Module| m.functions.iter().map(|(_, f)| f.live().iter().filter(|l| **l).count()).sum::<usize>();
        dropped += size(&before) - size(&after).min(size(&before));
        let function = before.functions.ids().next().expect("a function");
        let inputs: Vec<Value> = (before.functions[function].param_types().enumerate())
            .map(|(i, ty)| run::sample(&format!("{seed}/{i}"), ty))
            .map(|value| {
                Interpreter::new(&rounding(value.tensor().ty.clone()), Precision::Declared)
                    .call(function, &[value])
                    .remove(0)
            })
            .collect();
        let call = |m: &Module| Interpreter::new(m, Precision::Declared).call(function, &inputs);
        for (a, b) in call(&before).iter().zip(&call(&after)) {
            let (a, b) = (run::elements(a), run::elements(b));
            let same = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
            assert!(same, "seed {seed}: {a:?} became {b:?}\n{before}\n{after}");
        }
    }
    assert!(dropped > 1000, "only {dropped} nodes were dropped");
    assert!(rules.len() > 35, "only {rules:?} fired");
}

/// A function that rounds its operand to its own type.
fn rounding(ty: TensorType) -> Module {
    let mut b = Builder::new("round");
    let x = b.param(ty.clone());
    let x = b.op(Cast { to: DType::F64 }, &[x]);
    let x = b.op(Cast { to: ty.dtype }, &[x]);
    b.function.results.push(x);
    module_of(vec![b.function])
}

/// A stack of calls of a random body, differentiated by all it reads.
fn program(seed: u64) -> Option<String> {
    let mut dice = Dice::new(seed);
    let (carried, shared, own) = ("f32[A:2, B:3]", "f32[B:3]", "f32[A:2, B:3]");
    let mut b = grow(&mut dice, "body", &[carried, shared, own], 25, true);
    let of_type = |b: &Builder| {
        let fits = b.function.nodes.iter().filter(|(_, n)| n.ty.to_string() == carried);
        fits.map(|(id, _)| id).collect::<Vec<_>>()
    };
    let last = *of_type(&b).last()?;
    let last = b.op(Sin {}, &[last]);
    let ids: Vec<NodeId> = b.function.nodes.ids().filter(|&id| b.ty(id).rank() > 0).collect();
    let extra = *dice.pick(&ids);
    b.function.results = vec![last, extra];
    b.function.recompute = dice.roll(3) == 0;
    let extra_ty = b.ty(extra).clone();
    let mut joined = extra_ty.clone();
    joined.dims[0].size *= 3;
    let dims = |ty: &TensorType| ty.dims.iter().map(|d| format!("\"{}\"", d.name)).collect::<Vec<_>>().join(",");
    let reverse = if dice.roll(2) == 0 { " reverse" } else { "" };
    let mut text = module_of(vec![b.function]).to_string();
    for (name, ty) in [("x", carried), ("s", shared), ("w.{}", &format!("3 x {own}"))] {
        text = text.replacen('\n', &format!("\nparam {name:?} : {ty} {{\"init\":\"zeros\",\"trainable\":true}}\n"), 1);
    }
    let _ = writeln!(
        text,
        "fn @train(%0: {carried}, %1: {shared}, %2: 3 x {own}) {{
  %3 = call @body x3 carry 1 share 1{reverse}(%0, %1, %2) : ({carried}, 3 x {extra_ty})
  %4 = get 0(%3) : {carried}
  %5 = get 1(%3) : 3 x {extra_ty}
  %6 = unchunk(%5) : {joined}
  %7 = sin(%6) : {joined}
  %8 = reduce_sum(%7) {{\"dims\":[{}]}} : f32[]
  %9 = mul(%4, %4) : {carried}
  %10 = reduce_sum(%9) {{\"dims\":[\"A\",\"B\"]}} : f32[]
  %11 = add(%8, %10) : f32[]
  return %11
}}
program \"train\" = @train {{
  in {{\"parameter\":\"x\"}}
  in {{\"parameter\":\"s\"}}
  in {{\"parameter\":\"w.{{}}\"}}
  out {{\"loss\":\"loss\"}}
}}",
        dims(&joined),
    );
    Some(text)
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mut compared = 0;
    for text in (0..200).filter_map(program) {
        let before = run::parse(&text);
        let module = match run::run(&text, "autodiff | inline | simplify") {
            Ok((module, _)) => module,
            Err(e) if e.to_string().contains("depends on a trainable") => continue,
            Err(e) => panic!("{}\n{text}", run::rendered(&e)),
        };
        compared += crate::gradients::compare(&before, &module, &text);
    }
    assert!(compared > 2000, "{compared} slopes");
}
