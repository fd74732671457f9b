//! A composite on bf16 computes in f32 and rounds once.

use ir::{Interpreter, Module, Precision, Value};
use types::DType;

use crate::cases;
use crate::expansions::expansion;

/// One unit in the last place of bf16.
fn ulp(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { 2f64.powi(x.abs().log2().floor() as i32 - 7) }
}

#[test]
fn expansions_in_bf16_round_once() {
    let module = Module::default();
    let interpreter = Interpreter::new(&module, Precision::Declared);
    let (mut equal, mut total) = (0, 0);
    for seed in 0..4 {
        for case in cases::all(seed, DType::BF16) {
            let Some(function) = expansion(&case) else { continue };
            let (args, results) = (case.draw(seed), case.results());
            let whole = case.op.eval(&args.iter().collect::<Vec<_>>(), &results);
            let args: Vec<Value> = args.into_iter().map(Value::from).collect();
            let parts = interpreter.run(&function, &args);
            for (a, b) in whole.iter().zip(&parts) {
                for (x, y) in a.data.iter().zip(&b.tensor().data) {
                    let x = a.ty.dtype.round(*x);
                    // What is left of a difference of large numbers is known to their precision only.
                    let step = if a.ty.dtype == DType::BF16 { ulp(x.abs().max(y.abs())) } else { 0.0 };
                    assert!(x == *y || (x - y).abs() <= step + 1e-5, "{}: {x}, expanded {y}", case.text());
                    equal += usize::from(x == *y || step == 0.0);
                    total += 1;
                }
            }
        }
    }
    assert!(equal * 100 >= total * 99, "only {equal} of {total} elements are equal to the bit");
}
