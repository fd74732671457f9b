//! Every composite equals its expansion.

use ir::ops::Attention;
use ir::{Builder, Class, Function, Interpreter, Module, NodeId, Precision, Semantics, Type, Value, verify};
use types::DType;

use crate::cases::{self, Case};

/// The expansion as a function of the operands, checked by the verifier; `None` if there is none.
pub fn expansion(case: &Case) -> Option<Function> {
    let mut b = Builder::new("expansion");
    let args: Vec<NodeId> = case.operands.iter().map(|o| b.param(o.ty.clone())).collect();
    let results = case.op.expand(&mut b, &args)?;
    let mut function = b.finish().unwrap_or_else(|e| panic!("{}: {e}", case.text()));
    function.results = results.to_vec();
    let mut module = Module::default();
    let types: Vec<Type> = case.results().into_iter().map(Type::Tensor).collect();
    assert!(function.result_types().eq(&types), "{}: the expansion has other types", case.text());
    module.functions.add(function.clone());
    verify(&module).unwrap_or_else(|v| panic!("{}: {}", case.text(), v[0]));
    Some(function)
}

#[test]
fn composites_equal_their_expansions() {
    let module = Module::default();
    for seed in 0..8 {
        for case in cases::all(seed, DType::F32) {
            let Some(function) = expansion(&case) else {
                // A row that sees no key would be 0 / 0.
                let windowed = case.op.name() == Attention::NAME && case.operands.len() > 3;
                let none = windowed || case.op.class() != Class::Composite;
                assert!(none, "`{}` has no expansion", case.op.name());
                continue;
            };
            let args = case.draw(seed);
            let whole = case.op.eval(&args.iter().collect::<Vec<_>>(), &case.results());
            let args: Vec<Value> = args.into_iter().map(Value::from).collect();
            let parts = Interpreter::new(&module, Precision::Exact).run(&function, &args);
            for (i, (a, b)) in whole.iter().zip(&parts).enumerate() {
                let size = a.data.iter().filter(|x| x.is_finite()).fold(1.0, |m: f64, x| m.max(x.abs()));
                for (at, (x, y)) in a.data.iter().zip(&b.tensor().data).enumerate() {
                    let same = x == y || (x - y).abs() <= 1e-12 * size;
                    assert!(same, "{}: result {i}, element {at}: {x}, expanded {y}", case.text());
                }
            }
        }
    }
}
