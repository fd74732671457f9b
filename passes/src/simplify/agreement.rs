//! Tests that every rule fires on its example, and that all operators of a class then compute the same numbers.

use std::collections::HashMap;

use egg::Id;
use ir::{Array, Function, Inst, Interpreter, Module, Op, Precision, Type, Value};
use types::{Distribution, Key, TensorType};

use super::rules::{self, Rule};
use super::saturate::Saturation;
use super::term::Term;
use crate::{Context, Pipeline};

fn sample(seed: u64, ty: &TensorType) -> Array {
    let mut out = vec![0.0; ty.elements()];
    let (lo, hi) = (-100.0, 100.0);
    let distribution = if ty.dtype.is_float() {
        Distribution::Normal { mean: 0.0, std: 2.0 }
    } else {
        Distribution::Uniform { lo, hi }
    };
    types::fill(distribution, Key::new(seed, "example"), 0, 0, &mut out);
    // A zero and a large number among them.
    if let [first, .., last] = out.as_mut_slice() {
        (*first, *last) = if seed.is_multiple_of(2) { (0.0, 1e6) } else { (*first, *last) };
    }
    Array::new(ty.clone(), out.into_iter().map(|x| ty.dtype.round(f64::from(x))).collect())
}

fn inputs(module: &Module, seed: u64) -> Vec<Value> {
    let params = only(module).param_types().enumerate();
    params.map(|(i, ty)| Value::Tensor(sample(seed + 10 * i as u64, ty.tensor().expect("tensors alone")))).collect()
}

/// What `term` computes from the values of its children.
fn evaluate(
    saturation: &Saturation,
    term: &Term,
    ty: &Type,
    values: &HashMap<Id, Array>,
    inputs: &[Value],
) -> Option<Array> {
    match &term.kind.inst {
        Inst::Param(i) => Some(inputs[*i].tensor().clone()),
        Inst::Op(op) => {
            let args: Option<Vec<&Array>> =
                term.children.iter().map(|c| values.get(&saturation.graph.find(*c))).collect();
            let ty = ty.tensor()?;
            let mut result = op.eval(&args?, std::slice::from_ref(ty)).into_iter().next()?;
            result.data.iter_mut().for_each(|v| *v = ty.dtype.round(*v));
            Some(result)
        }
        _ => None,
    }
}

/// All operators of every class agree on these inputs.
fn agree(saturation: &Saturation, inputs: &[Value], what: &str) {
    let graph = &saturation.graph;
    let mut values: HashMap<Id, Array> = HashMap::new();
    loop {
        let known = values.len();
        for class in graph.classes() {
            if !values.contains_key(&class.id) {
                let value = class.nodes.iter().find_map(|t| evaluate(saturation, t, &class.data.ty, &values, inputs));
                values.extend(value.map(|v| (class.id, v)));
            }
        }
        if values.len() == known {
            break;
        }
    }
    for class in graph.classes() {
        for term in &class.nodes {
            let value = evaluate(saturation, term, &class.data.ty, &values, inputs).expect("all classes have values");
            let name = term.as_op().map_or("param", Op::name);
            assert_eq!(value, values[&class.id], "{what}: `{name}` differs in a class of {:?}", class.nodes);
        }
    }
}

/// The only function of an example.
fn only(module: &Module) -> &Function {
    &module.functions[ir::Id::new(0)]
}

fn check(rule: &Rule, text: &str) {
    let module = ir::parse(&format!("module \"{}\"\n{text}", rule.name)).expect(rule.name);
    ir::verify(&module).unwrap_or_else(|e| panic!("{}: {e:?}", rule.name));
    let function = only(&module);
    let mut alone = Saturation::of(function);
    let fired = alone.run(std::iter::once(rule));
    assert!(fired.contains_key(rule.name), "`{}` ({}) does not fire on its example", rule.name, rule.law);
    let mut all = Saturation::of(function);
    all.run(rules::all());
    for seed in 0..6 {
        let inputs = inputs(&module, seed);
        agree(&alone, &inputs, rule.name);
        agree(&all, &inputs, rule.name);
    }
}

#[test]
fn every_rule_fires_and_keeps_the_numbers() {
    for rule in rules::all() {
        check(rule, rule.example);
        let half = rule.example.replace("f32", "bf16");
        let reads_back = ir::parse(&format!("module \"half\"\n{half}")).is_ok_and(|m| ir::verify(&m).is_ok());
        if reads_back && rule.example.contains("f32") && !rule.example.contains("bf16") {
            check(rule, &half);
        }
    }
}

#[test]
fn names_are_distinct() {
    let mut names: Vec<&str> = rules::all().map(|r| r.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn simplified_functions_compute_the_same() {
    for rule in rules::all() {
        let before = ir::parse(&format!("module \"{}\"\n{}", rule.name, rule.example)).expect(rule.name);
        let mut after = before.clone();
        let mut cx = Context::default();
        let pipeline = Pipeline::parse("simplify").expect("a pipeline");
        pipeline.run(&mut after, &mut cx, |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", rule.name));
        for seed in 0..4 {
            let inputs = inputs(&before, seed);
            let run = |m: &Module| Interpreter::new(m, Precision::Declared).run(only(m), &inputs);
            assert_eq!(run(&before), run(&after), "{}", rule.name);
        }
    }
}
