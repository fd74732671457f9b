//! Tests that every rule fires on its example, and that all operators of a class then compute the same numbers on every
//! rank of a mesh.

mod ranks;

use std::collections::HashMap;

use egg::Id;
use ir::{Array, Function, Inst, Module, Op, Type};
use types::{Distribution, Key, Mesh, TensorType};

use self::ranks::Values;
use super::rules::{self, Rule};
use super::saturate::Saturation;
use super::term::Term;
use crate::{Context, Pipeline};

/// The mesh of all examples: two axes, of unequal sizes.
fn mesh() -> Mesh {
    Mesh::new([("x", 2), ("y", 3)]).expect("a mesh")
}

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

/// Other numbers on each rank.
fn inputs(module: &Module, seed: u64) -> Vec<Values> {
    let tensor = |i: usize, ty: &Type| {
        let ty = ty.tensor().expect("tensors alone");
        (0..mesh().world() as u64).map(|rank| sample(seed + 10 * i as u64 + 1000 * rank, ty)).collect()
    };
    only(module).param_types().enumerate().map(|(i, ty)| tensor(i, ty)).collect()
}

/// What `term` computes from the values of its children.
fn evaluate(
    saturation: &Saturation,
    term: &Term,
    ty: &Type,
    values: &HashMap<Id, Values>,
    inputs: &[Values],
) -> Option<Values> {
    match &term.kind.inst {
        Inst::Param(i) => Some(inputs[*i].clone()),
        Inst::Op(op) => {
            let args: Option<Vec<&Values>> =
                term.children.iter().map(|c| values.get(&saturation.graph.find(*c))).collect();
            Some(ranks::eval(&mesh(), op, &args?, ty.tensor()?))
        }
        _ => None,
    }
}

/// How far two results of a rule may be apart, in units of the largest number and of the type's precision: not at all,
/// or as far as a few roundings of sums in another order.
#[derive(Clone, Copy)]
enum Agreement {
    Exact,
    Reordered,
}

impl Agreement {
    fn of(self, found: &Values, want: &Values) -> bool {
        let pairs = || found.iter().zip(want);
        match self {
            Self::Exact => found == want,
            Self::Reordered => pairs().all(|(f, w)| {
                let unit = if w.ty.dtype.bytes() < 4 { 1.0 / 128.0 } else { 1e-6 };
                let size = w.data.iter().chain(&f.data).fold(1.0, |m: f64, x| m.max(x.abs()));
                f.ty == w.ty && f.data.iter().zip(&w.data).all(|(a, b)| (a - b).abs() <= 4.0 * unit * size)
            }),
        }
    }
}

/// All operators of every class agree on these inputs.
fn agree(saturation: &Saturation, inputs: &[Values], agreement: Agreement, what: &str) {
    let graph = &saturation.graph;
    let mut values: HashMap<Id, Values> = HashMap::new();
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
            let same = agreement.of(&value, &values[&class.id]);
            assert!(same, "{what}: `{name}` differs in a class of {:?}", class.nodes);
        }
    }
}

/// The only function of an example.
fn only(module: &Module) -> &Function {
    &module.functions[ir::Id::new(0)]
}

fn parse(rule: &Rule, text: &str) -> Module {
    let module = ir::parse(&format!("module \"{}\"\n{text}", rule.name)).expect(rule.name);
    ir::verify(&module).unwrap_or_else(|e| panic!("{}: {e:?}", rule.name));
    module
}

fn check(rule: &Rule, text: &str, agreement: Agreement) {
    let module = parse(rule, text);
    let function = only(&module);
    let mut alone = Saturation::of(function);
    let fired = alone.run(std::iter::once(rule));
    assert!(fired.contains_key(rule.name), "`{}` ({}) does not fire on its example", rule.name, rule.law);
    let mut all = Saturation::of(function);
    all.run(rules::all());
    for seed in 0..6 {
        let inputs = inputs(&module, seed);
        agree(&alone, &inputs, agreement, rule.name);
        agree(&all, &inputs, agreement, rule.name);
    }
}

fn tables() -> impl Iterator<Item = (&'static Rule, Agreement)> {
    rules::exact().map(|r| (r, Agreement::Exact)).chain(rules::between_ranks().map(|r| (r, Agreement::Reordered)))
}

#[test]
fn every_rule_fires_and_keeps_the_numbers() {
    for (rule, agreement) in tables() {
        check(rule, rule.example, agreement);
        let half = rule.example.replace("f32", "bf16");
        let reads_back = ir::parse(&format!("module \"half\"\n{half}")).is_ok_and(|m| ir::verify(&m).is_ok());
        if reads_back && rule.example.contains("f32") && !rule.example.contains("bf16") {
            check(rule, &half, agreement);
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

/// The results on all ranks.
fn run(module: &Module, inputs: &[Values]) -> Vec<Values> {
    let function = only(module);
    let mut values: Vec<Option<Values>> = vec![None; function.nodes.len()];
    for (id, node) in function.nodes.iter() {
        let args: Option<Vec<&Values>> = node.args.iter().map(|a| values[a.index()].as_ref()).collect();
        let args = args.expect("operands come before their users");
        values[id.index()] = match &node.inst {
            Inst::Param(i) => Some(inputs[*i].clone()),
            Inst::Op(op) => Some(ranks::eval(&mesh(), op, &args, node.ty.tensor().expect("a tensor"))),
            inst => panic!("{inst:?} in an example"),
        };
    }
    function.results.iter().map(|r| values[r.index()].clone().expect("a result")).collect()
}

#[test]
fn simplified_functions_compute_the_same() {
    for (rule, agreement) in tables() {
        let before = parse(rule, rule.example);
        let mut after = before.clone();
        let mut cx = Context::default();
        let pipeline = Pipeline::parse("simplify").expect("a pipeline");
        pipeline.run(&mut after, &mut cx, |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", rule.name));
        for seed in 0..4 {
            let inputs = inputs(&before, seed);
            let (found, want) = (run(&after, &inputs), run(&before, &inputs));
            assert!(found.iter().zip(&want).all(|(f, w)| agreement.of(f, w)), "{}", rule.name);
        }
    }
}
