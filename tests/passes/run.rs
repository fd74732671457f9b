//! Reading a case, running a pipeline on it, and running its programs with the interpreter.

use diag::{Diagnostics, SourceId, Sources};
use ir::{Array, Interpreter, Module, Precision, Program, Type, Value};
use passes::{Context, Form, Pipeline};
use types::{Distribution, Key};

/// The module that `text` is; panics show where it is none.
pub fn parse(text: &str) -> Module {
    match ir::parse(text) {
        Ok(module) => module,
        Err(e) => {
            let line = text[..e.at.start.min(text.len())].matches('\n').count() + 1;
            panic!("line {line}: {}", e.message)
        }
    }
}

/// The module after a pipeline, and what the passes had to say.
pub fn run(text: &str, pipeline: &str) -> Result<(Module, Context<'static>), Diagnostics> {
    let mut module = parse(text);
    let mut cx = Context::default();
    Pipeline::parse(pipeline).expect(pipeline).run(&mut module, &mut cx, |_, _| {})?;
    Ok((module, cx))
}

/// The same of a pipeline that may go on to programs.
pub fn run_on(text: &str, pipeline: &str) -> Result<(Form, Context<'static>), Diagnostics> {
    let mut form = Form::Graph(parse(text));
    let mut cx = Context::default();
    Pipeline::parse(pipeline).expect(pipeline).run_on(&mut form, &mut cx, |_, _| {})?;
    Ok((form, cx))
}

pub fn rendered(diagnostics: &Diagnostics) -> String {
    let mut sources = Sources::default();
    let _: SourceId = sources.add("case.mm", "");
    diag::render(diagnostics, &sources, false)
}

/// Results of a program on `inputs`.
pub fn interpret(module: &Module, program: &Program, inputs: &[Value], precision: Precision) -> Vec<Value> {
    Interpreter::new(module, precision).call(program.function, inputs)
}

/// Numbers for an input of type `ty` that depend on `name` alone: normal ones, or 0 to 3 for integers.
pub fn sample(name: &str, ty: &Type) -> Value {
    let tensor = |i: usize, of: &types::TensorType| {
        let mut out = vec![0.0f32; of.elements()];
        let key = Key::new(7, &format!("{name}/{i}"));
        let (float, normal) = (of.dtype.is_float(), Distribution::Normal { mean: 0.0, std: 1.0 });
        types::fill(if float { normal } else { Distribution::Uniform { lo: 0.0, hi: 4.0 } }, key, 0, 0, &mut out);
        let data = out.iter().map(|&x| if float { f64::from(x) } else { f64::from(x).floor() });
        Array::new(of.clone(), data.collect())
    };
    match ty {
        Type::Tensor(of) => Value::Tensor(tensor(0, of)),
        Type::Stack { count, of } => Value::Stack((0..*count).map(|i| tensor(i, of)).collect()),
        Type::Tuple(items) => Value::Tuple(items.iter().map(|t| sample(name, t)).collect()),
    }
}

/// All elements of a value, in order.
pub fn elements(value: &Value) -> Vec<f64> {
    match value {
        Value::Tensor(a) => a.data.clone(),
        Value::Stack(items) => items.iter().flat_map(|a| a.data.iter().copied()).collect(),
        Value::Tuple(items) => items.iter().flat_map(elements).collect(),
    }
}

/// The `index`-th element, to change it.
pub fn element(value: &mut Value, index: usize) -> &mut f64 {
    match value {
        Value::Tensor(a) => &mut a.data[index],
        Value::Stack(items) => {
            let size = items[0].data.len();
            &mut items[index / size].data[index % size]
        }
        Value::Tuple(_) => panic!("inputs are no tuples"),
    }
}
