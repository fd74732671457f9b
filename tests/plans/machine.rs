//! Runs one module twice, as a graph and as a plan, and compares every value that leaves a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use diag::Sources;
use ir::{Array, Input, Inst, Interpreter, Module, Output, Precision, Type, Value};
use passes::{Context, Gradients, Pipeline};
use plan::{EmitId, FeedId, Header, KERNEL_ABI, Plan};
use runtime_core::{Argument, Executor, FeedError, FeedSource, Feeder, Interpreted, Options};
use target::{NoTarget, Target};
use types::{DType, Init, Key, Mesh, Name, TensorType};

#[derive(Clone, Copy, PartialEq)]
pub enum Kernels {
    Interpreted,
    Cpu,
}

const SEED: u64 = 3;
const STEPS: u64 = 3;

/// `tolerance` is relative to the largest number of each tensor; 0 asks for the same bits.
pub fn check(text: &str, passes: &str, kernels: Kernels, tolerance: f64) {
    let mut module = ir::parse(text).expect("the model parses");
    let pipeline = Pipeline::parse(passes).expect("the pipeline parses");
    pipeline.run(&mut module, &mut Context::default(), |_, _| {}).expect("the passes run");
    let expected = interpret(&module);
    for gradients in [Gradients::Streamed, Gradients::Resident] {
        for (threads, poison) in [(1, false), (2, false), (1, true)] {
            let found = run(module.clone(), kernels, gradients, threads, poison);
            compare(&found, &expected, tolerance);
        }
    }
}

type Values = BTreeMap<String, Vec<f64>>;

fn compare(found: &Values, expected: &Values, tolerance: f64) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, want) in expected {
        let largest = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        let worst = found[name]
            .iter()
            .zip(want)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) });
        assert!(worst <= tolerance * largest, "{name} is off by {worst:.3e} of {largest:.3e}");
    }
}

/// What leaves each step, and the parameters and state at the end, by name.
fn interpret(module: &Module) -> Values {
    let program = &module.programs[0];
    let function = &module.functions[program.function];
    let mut persistent: BTreeMap<Name, Value> = BTreeMap::new();
    for (name, p) in &module.parameters {
        persistent.insert(name.clone(), initial(name, &p.ty, p.record.init));
    }
    for (name, s) in &module.states {
        persistent.insert(name.clone(), initial(name, &s.ty, s.init));
    }
    let mut out = Values::new();
    for step in 0..STEPS {
        let args: Vec<Value> = program
            .inputs
            .iter()
            .zip(function.param_types())
            .map(|(input, ty)| match input {
                Input::Parameter(name) | Input::State(name) => persistent[name].clone(),
                Input::Feed(feed) => {
                    let ty = ty.tensor().expect("a feed is a tensor");
                    let mut data = vec![0.0f32; ty.elements()];
                    types::fill(feed.draw.expect("a draw"), Key::new(SEED, &feed.name), step, 0, &mut data);
                    Array::new(ty.clone(), data.into_iter().map(f64::from).collect()).into()
                }
            })
            .collect();
        let results = Interpreter::new(module, Precision::Declared).call(program.function, &args);
        for (output, value) in program.outputs.iter().zip(results) {
            match output {
                Output::Parameter(name) | Output::State(name) => {
                    persistent.insert(name.clone(), value);
                }
                Output::Gradient(name) => save(&mut out, &format!("step {step} grad/{name}"), &value),
                Output::Loss(name) | Output::Emit(name) => save(&mut out, &format!("step {step} {name}"), &value),
            }
        }
    }
    for (name, value) in &persistent {
        save(&mut out, name, value);
    }
    out
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
        Value::Tuple(_) => panic!("a program's result is a tuple"),
    }
}

fn initial(family: &str, ty: &Type, init: Init) -> Value {
    let tensor = |name: &str, ty: &TensorType| {
        let mut data = vec![0.0f32; ty.elements()];
        init.fill(SEED, name, 0, &mut data);
        Array::new(ty.clone(), data.into_iter().map(f64::from).collect())
    };
    match ty {
        Type::Tensor(ty) => tensor(family, ty).into(),
        Type::Stack { count, of } => {
            Value::Stack((0..*count).map(|i| tensor(&ir::indexed_name(family, i), of)).collect())
        }
        Type::Tuple(_) => panic!("a parameter is a tuple"),
    }
}

struct Draws(Arc<Plan>);

impl FeedSource for Draws {
    fn fill(&mut self, feed: FeedId, step: u64, to: &mut [u8]) -> Result<(), FeedError> {
        let feed = &self.0.manifest.feeds[feed.index()];
        let plan::Source::Draw(distribution) = feed.source else { return Err("only draws here".into()) };
        let mut data = vec![0.0f32; feed.ty.elements()];
        types::fill(distribution, Key::new(SEED, &feed.name), step, 0, &mut data);
        encode(&feed.ty, &data.into_iter().map(f64::from).collect::<Vec<_>>(), to);
        Ok(())
    }
}

fn run(mut module: Module, kernels: Kernels, gradients: Gradients, threads: usize, poison: bool) -> Values {
    let target: Box<dyn Target> = match kernels {
        Kernels::Interpreted => Box::new(NoTarget),
        Kernels::Cpu => Box::new(machine_cpu()),
    };
    passes::group(&mut module, &*target).expect("groups fit");
    ir::verify(&module).expect("the grouped module is sound");
    let machine = target.machine();
    let header = Header {
        model: "m".into(),
        preset: "p".into(),
        task: "train".into(),
        target: target.name().into(),
        cpu: machine.cpu.into(),
        features: machine.features.into_iter().map(Name::from).collect(),
        dtype: DType::F32,
        seed: SEED,
        compiler: "test".into(),
        mesh: Mesh::new([("tp", 1)]).expect("a mesh"),
        tokens_per_step: 1,
        flops_per_step: 0,
        kernel_abi: KERNEL_ABI,
    };
    let mut plan = passes::schedule(&module, &Sources::default(), &*target, header, gradients).expect("schedules");
    passes::allocate(&mut plan, target.alignment());
    if let Err(violations) = plan::verify(&plan) {
        panic!("{}\n{plan}", violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    }
    let functions: Vec<(&str, &ir::Function)> = passes::kernels(&module).map(|(_, k)| (k.name.as_str(), k)).collect();
    plan.object = target.emit(&functions).expect("code");
    let plan = Arc::new(plan);
    let options = Options { threads, poison, ..Options::default() };
    let executor = match kernels {
        Kernels::Interpreted => Executor::new(plan.clone(), interpreted(&module, &plan), None, &options),
        Kernels::Cpu => {
            let code = device::CpuKernels::load(&plan.header, &plan.kernels, &plan.object).expect("the object loads");
            Executor::new(plan.clone(), code, None, &options)
        }
    };
    let mut executor = executor.expect("an executor");
    let whole = |buffers: &[Option<plan::BufferId>]| buffers[0].expect("a buffer");
    for p in &plan.manifest.parameters {
        fill(&mut executor, whole(&p.buffers), &p.ty, p.init, &p.name);
    }
    for s in &plan.manifest.states {
        let plan::StateInit::Value(init) = s.init else { panic!("plain values only") };
        fill(&mut executor, whole(&s.buffers), &s.ty, init, &s.name);
    }
    for e in 0..plan.manifest.emits.len() {
        executor.request(EmitId::new(e), true);
    }
    let mut feeder = Feeder::new(&executor, 0, Draws(plan.clone()), 0, Some(STEPS)).expect("a feeder");
    let mut out = Values::new();
    for step in 0..STEPS {
        executor.run(0, &mut feeder).expect("a step");
        for (e, emit) in plan.manifest.emits.iter().enumerate() {
            out.insert(format!("step {step} {}", emit.name), decode(&emit.ty, &executor.emitted(EmitId::new(e))));
        }
    }
    let all = plan.manifest.parameters.iter().map(|p| (&p.name, &p.ty, &p.buffers));
    for (name, ty, buffers) in all.chain(plan.manifest.states.iter().map(|s| (&s.name, &s.ty, &s.buffers))) {
        out.insert(name.to_string(), decode(ty, executor.read(whole(buffers)).expect("a persistent buffer")));
    }
    out
}

fn machine_cpu() -> target_cpu::CpuTarget {
    let cpu = target_cpu::cpu::Cpu::native().expect("an x86-64-v3 machine");
    target_cpu::CpuTarget { cpu, linker: "/usr/lib/llvm-22/bin/ld.lld".into(), threads: 2 }
}

fn fill(executor: &mut Executor, id: plan::BufferId, ty: &TensorType, init: Init, name: &str) {
    let mut data = vec![0.0f32; ty.elements()];
    init.fill(SEED, name, 0, &mut data);
    let to = executor.write(id).expect("a persistent buffer");
    encode(ty, &data.into_iter().map(f64::from).collect::<Vec<_>>(), to);
}

fn encode(ty: &TensorType, data: &[f64], to: &mut [u8]) {
    let n = ty.dtype.bytes();
    for (v, out) in data.iter().zip(to.chunks_exact_mut(n)) {
        match ty.dtype {
            DType::F32 => out.copy_from_slice(&(*v as f32).to_le_bytes()),
            DType::I64 => out.copy_from_slice(&(*v as i64).to_le_bytes()),
            DType::I32 => out.copy_from_slice(&(*v as i32).to_le_bytes()),
            DType::Bool => out[0] = u8::from(*v != 0.0),
            other => panic!("no {other} here"),
        }
    }
}

fn decode(ty: &TensorType, bytes: &[u8]) -> Vec<f64> {
    let n = ty.dtype.bytes();
    let value = |b: &[u8]| match ty.dtype {
        DType::F32 => f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::I64 => i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f64,
        DType::I32 => f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        DType::Bool => f64::from(b[0]),
        other => panic!("no {other} here"),
    };
    bytes.chunks_exact(n).take(ty.elements()).map(value).collect()
}

/// Kernels that run their own graph function through the interpreter.
fn interpreted(module: &Module, plan: &Plan) -> impl runtime_core::Kernels + use<> {
    let functions: Vec<ir::Function> = passes::kernels(module).map(|(_, k)| k.clone()).collect();
    assert!(functions.iter().all(|f| f.nodes.iter().all(|(_, n)| !matches!(n.inst, Inst::Call(_)))));
    let empty = Module::default();
    Interpreted::new(plan, move |kernel, args: &mut [Argument<'_>], _| {
        let function = &functions[kernel.index()];
        let tensors: Vec<TensorType> = function.param_types().map(|t| t.tensor().expect("a tensor").clone()).collect();
        let operands: Vec<Value> = tensors
            .iter()
            .zip(args.iter())
            .map(|(ty, bytes)| Array::new(ty.clone(), decode(ty, bytes.bytes())).into())
            .collect();
        let results = Interpreter::new(&empty, Precision::Declared).run(function, &operands);
        for (value, to) in results.iter().zip(&mut args[tensors.len()..]) {
            let array = value.tensor();
            encode(&array.ty, &array.data, to.bytes_mut().expect("a result is written"));
        }
    })
}
