//! The first program of a module, run by the interpreter.

use std::collections::BTreeMap;

use ir::{Array, Input, Interpreter, Module, Output, Precision, Type, Value};
use types::{DType, Init, Key, Name, TensorType};

use crate::{SEED, Values, of_step};

/// Runs some steps from initial values and draws of [`SEED`].
pub fn interpret(module: &Module, precision: Precision, steps: u64) -> Result<Values, String> {
    let program = module.programs.first().ok_or("no program")?;
    let function = &module.functions[program.function];
    let mut persistent: BTreeMap<Name, Value> = BTreeMap::new();
    for (name, p) in &module.parameters {
        persistent.insert(name.clone(), initial(name, &p.ty, p.record.init)?);
    }
    for (name, s) in &module.states {
        let of = s.copy_of().and_then(|of| Some((of, module.parameters.get(of)?.record.init)));
        let (of, init) = of.unwrap_or((name, s.init));
        persistent.insert(name.clone(), initial(of, &s.ty, init)?);
    }
    let mut out = Values::new();
    for step in 0..steps {
        let mut args: Vec<Value> = vec![];
        for (input, ty) in program.inputs.iter().zip(function.param_types()) {
            args.push(match input {
                Input::Parameter(name) | Input::State(name) => persistent[name].clone(),
                Input::Feed(feed) => {
                    let part = ty.element().ok_or("a feed is a tensor, or one for each micro-batch")?;
                    let draw = feed.draw.ok_or("a feed is a draw here")?;
                    let mut data = vec![0.0f32; ty.count() * part.elements()];
                    types::fill(draw, Key::new(SEED, &feed.name), step, 0, &mut data);
                    let mut parts = data.chunks(part.elements()).map(|data| array(part, data));
                    match ty {
                        Type::Stack { .. } => Value::Stack(parts.collect()),
                        _ => parts.next().ok_or("a feed of nothing")?.into(),
                    }
                }
            });
        }
        let results = Interpreter::new(module, precision).call(program.function, &args);
        for (output, value) in program.outputs.iter().zip(results) {
            match output {
                Output::Parameter(name) | Output::State(name) => {
                    persistent.insert(name.clone(), value);
                }
                Output::Gradient(name) => save(&mut out, &of_step(step, &format!("grad/{name}")), &value),
                Output::Probe(path) => save(&mut out, &of_step(step, &format!("probe/{path}")), &value),
                Output::Loss(name) | Output::Emit(name) => save(&mut out, &of_step(step, name), &value),
            }
        }
    }
    for (name, value) in &persistent {
        save(&mut out, name, value);
    }
    Ok(out)
}

fn save(out: &mut Values, name: &str, value: &Value) {
    match value {
        Value::Tensor(a) => {
            out.insert(name.into(), a.data.clone());
        }
        Value::Stack(items) => {
            for (i, a) in items.iter().enumerate() {
                out.insert(ir::indexed_name(name, i), a.data.clone());
            }
        }
        Value::Tuple(items) => {
            for (i, item) in items.iter().enumerate() {
                save(out, &format!("{name}.{i}"), item);
            }
        }
    }
}

fn initial(family: &str, ty: &Type, init: Init) -> Result<Value, String> {
    let tensor = |name: &str, ty: &TensorType| {
        let mut data = vec![0.0f32; ty.elements()];
        init.fill(SEED, name, 0, &mut data);
        array(ty, &data)
    };
    Ok(match ty {
        Type::Tensor(ty) => tensor(family, ty).into(),
        Type::Stack { count, of } => {
            Value::Stack((0..*count).map(|i| tensor(&ir::indexed_name(family, i), of)).collect())
        }
        Type::Tuple(_) => return Err(format!("{family} is a tuple")),
    })
}

fn array(ty: &TensorType, data: &[f32]) -> Array {
    let round = |v: &f32| if ty.dtype == DType::F64 { f64::from(*v) } else { ty.dtype.round(f64::from(*v)) };
    Array::new(ty.clone(), data.iter().map(round).collect())
}
