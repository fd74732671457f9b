//! A random program: operators and calls over feeds and parameters, what it emits, and maybe a loss.

use ir::ops::{ReduceSum, Tanh};
use ir::{Builder, Call, Feed, Function, Input, Inst, Module, NodeId, Output, Parameter, ParameterInfo, Program, Type};
use types::{DType, Distribution, Init, Name};

use crate::graph::{Graph, NORMAL, sizes};
use plan_tests::tape::Tape;

pub struct Made {
    pub module: Module,
    pub trains: bool,
    pub float: DType,
}

/// What the function's inputs are, by parameter of the function.
enum Source {
    Feed,
    Parameter,
    /// One tensor for each call of a function.
    Family,
}

pub fn program(tape: &mut Tape<'_>) -> Made {
    // Most cases are in f64, where nothing but a mistake makes a difference.
    let float = if tape.one_in(4) { DType::F32 } else { DType::F64 };
    let trains = tape.one_in(2);
    let mut module = Module { name: "random".into(), ..Module::default() };
    let sizes = sizes(tape);
    let b = Builder::new("main");
    let mut g = Graph { tape, module: &mut module, b, float, sizes, inputs: vec![], values: vec![] };
    let x = g.input(&[g.dim("B"), g.dim("L"), g.dim("D")], NORMAL);
    g.values.push(x);
    let mut families: Vec<usize> = vec![];
    for _ in 0..g.tape.below(11) {
        if g.tape.one_in(5) {
            call(&mut g, &mut families);
        } else {
            g.grow();
        }
    }
    let kept = g.values.len().saturating_sub(1 + g.tape.below(3));
    let last: Vec<NodeId> = g.values[kept..].to_vec();
    let mut results = last.clone();
    let mut outputs: Vec<Output> = (0..last.len()).map(|i| Output::Emit(format!("out{i}").into())).collect();
    if trains {
        results.push(loss(&mut g, &last));
        outputs.push(Output::Loss("loss".into()));
    }
    let (mut function, inputs) = (g.b.function, g.inputs);
    function.results = results;
    let sources: Vec<Source> = (0..inputs.len())
        .map(|i| match inputs[i] {
            _ if families.contains(&i) => Source::Family,
            Distribution::Uniform { .. } => Source::Feed,
            _ if i == 0 && trains => Source::Parameter,
            _ if i == 0 || tape.one_in(3) => Source::Feed,
            _ => Source::Parameter,
        })
        .collect();
    let inputs = sources.iter().zip(inputs).enumerate().map(|(i, (source, begin))| {
        let ty = function.ty(function.params[i]).clone();
        named(&mut module, i, source, begin, ty)
    });
    let inputs = inputs.collect();
    let function = module.functions.add(function);
    module.programs.push(Program {
        name: "main".into(),
        runs: types::Runs::Asked,
        function,
        inputs,
        outputs,
        logical: vec![],
    });
    Made { module, trains, float }
}

fn named(module: &mut Module, i: usize, source: &Source, begin: Distribution, ty: Type) -> Input {
    let name: Name = match source {
        Source::Feed => {
            return Input::Feed(Feed {
                name: format!("x{i}").into(),
                aliases: vec![],
                draw: Some(begin),
                indices: None,
            });
        }
        Source::Parameter => format!("w{i}").into(),
        Source::Family => format!("w{i}.{{}}").into(),
    };
    let record = ParameterInfo {
        init: Init::Random(begin),
        trainable: i % 7 != 6,
        aliases: vec![],
        stored: None,
        tied: vec![],
        forms: vec![],
    };
    module.parameters.insert(name.clone(), Parameter { ty, record });
    Input::Parameter(name)
}

/// A sum of smooth functions of the values.
fn loss(g: &mut Graph<'_, '_>, values: &[NodeId]) -> NodeId {
    let mut loss = g.b.constant(0.0, g.float);
    for &v in values {
        let x = g.b.op(Tanh {}, &[v]);
        let y = g.b.mul(x, x);
        let y = g.b.add(x, y);
        let dims = g.b.ty(y).dims.iter().map(|d| d.name.clone()).collect();
        let sum = g.b.op(ReduceSum { dims }, &[y]);
        loss = g.b.add(loss, sum);
    }
    loss
}

/// How a call hands values over.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Once,
    Carried,
    Chunks,
}

/// A call of a new function: once, several times with a carried value, or for each chunk of a value.
fn call(g: &mut Graph<'_, '_>, families: &mut Vec<usize>) {
    let x = g.tape.pick(&g.values);
    let ty = g.b.ty(x).clone();
    let Some(first) = ty.dims.first() else { return };
    let chunks = (2..=first.size).find(|n| first.size.is_multiple_of(*n));
    let form = g.tape.pick(&[Form::Carried, Form::Chunks, Form::Once]);
    let (count, own) = match (form, chunks) {
        (Form::Chunks, Some(count)) => (count, g.b.chunk(x, count)),
        (Form::Chunks, None) => return,
        _ => (2 + g.tape.below(2), x),
    };
    let Some(element) = g.b.function.ty(own).element().cloned() else { return };

    let name = g.module.fresh_name("body");
    let mut body = Graph {
        tape: &mut *g.tape,
        module: &mut *g.module,
        b: Builder::new(name),
        float: g.float,
        sizes: g.sizes.clone(),
        inputs: vec![],
        values: vec![],
    };
    let start = body.b.param(element.clone());
    body.values.push(start);
    for _ in 0..1 + body.tape.below(4) {
        body.grow();
    }
    let last = body.values[body.values.len() - 1];
    let extra = body.tape.pick(&body.values);
    let mut results = vec![last];
    if form == Form::Carried {
        // The carried value keeps its type: it takes in what fits.
        let fits = body.b.ty(last).dims.iter().all(|d| element.size_of(&d.name).is_none_or(|s| s == d.size));
        let like = if fits { body.b.sum_to(last, &element) } else { start };
        let like = body.b.op(Tanh {}, &[like]);
        results = vec![body.b.add(start, like)];
        if body.b.ty(extra).rank() > 0 && body.tape.one_in(2) {
            results.push(extra);
        }
    } else if form == Form::Chunks && body.b.ty(last).rank() == 0 {
        results = vec![start];
    }
    let shared: Vec<bool> = body
        .inputs
        .iter()
        .map(|begin| form == Form::Once || matches!(begin, Distribution::Uniform { .. }) || body.tape.one_in(3))
        .collect();
    let recompute = body.tape.one_in(3);
    let (begins, mut function) = (body.inputs, body.b.function);
    (function.results, function.recompute) = (results, recompute);

    // Carried values first, then what all calls share, then what each has of its own.
    let (mut args, mut order) = (vec![], vec![]);
    let given: Vec<NodeId> = function.params[1..].to_vec();
    let of = |wanted: bool| (0..given.len()).filter(|&i| shared[i] == wanted).collect::<Vec<_>>();
    if form != Form::Chunks {
        (args, order) = (vec![own], vec![start]);
    }
    for i in of(true) {
        let Some(ty) = function.ty(given[i]).tensor().cloned() else { return };
        args.push(g.b.param(ty));
        g.inputs.push(begins[i]);
        order.push(given[i]);
    }
    let shared = of(true).len();
    if form == Form::Chunks {
        args.push(own);
        order.push(start);
    }
    for i in of(false) {
        let Some(of) = function.ty(given[i]).tensor().cloned() else { return };
        families.push(g.inputs.len());
        args.push(g.b.param(Type::Stack { count, of }));
        g.inputs.push(begins[i]);
        order.push(given[i]);
    }
    reorder(&mut function, order);
    let callee = g.module.functions.add(function);
    let call = Call {
        callee,
        times: (form != Form::Once).then_some(count),
        carried: usize::from(form == Form::Carried),
        shared: if form == Form::Once { 0 } else { shared },
        reverse: form == Form::Carried && g.tape.one_in(2),
    };
    let function = g.module.functions[callee].clone();
    let called = g.b.call(call, &function, &args);
    for result in g.b.results(called) {
        let value = if g.b.function.ty(result).tensor().is_some() { result } else { g.b.unchunk(result) };
        g.values.push(value);
    }
}

fn reorder(function: &mut Function, order: Vec<NodeId>) {
    for (i, &param) in order.iter().enumerate() {
        function.nodes[param].inst = Inst::Param(i);
    }
    function.params = order;
}
