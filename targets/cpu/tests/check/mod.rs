//! Kernels of the IR, compiled and run, against the interpreter.
#![allow(dead_code, reason = "each test file uses a part")]

use half::{bf16, f16};
use ir::{Array, Builder, Function, Interpreter, NodeId, Op, Precision, Value};
use target_cpu::lower::Lowering;
use types::{DType, Name, TensorType};

use crate::load::{self, Loaded, Numbers, cpus, load};

pub fn ty(text: &str) -> TensorType {
    text.parse().unwrap()
}

pub fn names(text: &str) -> Vec<Name> {
    text.split_whitespace().map(Name::from).collect()
}

/// An array's bytes as a buffer holds them.
pub fn pack(array: &Array) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &x in &array.data {
        match array.ty.dtype {
            DType::F64 => bytes.extend(x.to_le_bytes()),
            DType::Work | DType::F32 => bytes.extend((x as f32).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f64(x).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f64(x).to_le_bytes()),
            DType::I64 => bytes.extend((x as i64).to_le_bytes()),
            DType::I32 => bytes.extend((x as i32).to_le_bytes()),
            DType::Bool => bytes.push(u8::from(x != 0.0)),
        }
    }
    bytes
}

fn unpack(ty: &TensorType, bytes: &[u8]) -> Vec<f64> {
    let size = ty.dtype.bytes();
    bytes
        .chunks(size)
        .take(ty.elements())
        .map(|b| match ty.dtype {
            DType::F64 => f64::from_le_bytes(b.try_into().unwrap()),
            DType::Work | DType::F32 => f64::from(f32::from_le_bytes(b.try_into().unwrap())),
            DType::BF16 => bf16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            DType::F16 => f16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            DType::I64 => i64::from_le_bytes(b.try_into().unwrap()) as f64,
            DType::I32 => f64::from(i32::from_le_bytes(b.try_into().unwrap())),
            DType::Bool => f64::from(b[0]),
        })
        .collect()
}

pub fn random(ty: &TensorType, seed: u64, high: f64) -> Array {
    let mut numbers = Numbers(seed);
    let data = (0..ty.elements())
        .map(|_| {
            let x = f64::from(numbers.next());
            let x = if ty.dtype.is_float() { x * 2.0 } else { ((x + 1.0) * 0.5 * high).floor() };
            ty.dtype.round(x)
        })
        .collect();
    Array::new(ty.clone(), data)
}

fn close(got: f64, want: f64, dtype: DType, loose: f64) -> bool {
    let relative = match dtype {
        DType::BF16 => 1.6e-2,
        DType::F16 => 2e-3,
        DType::F32 => 4e-6 * loose,
        _ => 0.0,
    };
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= relative * (1.0 + want.abs())
}

fn compile(function: &Function, cpu: &target_cpu::cpu::Cpu) -> (Loaded, u64, u64) {
    let lowering = Lowering::new(function, cpu).unwrap();
    let needs = lowering.needs();
    let module = lowering.module("kernel", cpu).unwrap();
    if let Ok(path) = std::env::var("DUMP_KERNEL") {
        std::fs::write(path, &module.text).unwrap();
    }
    (load(cpu, &[module]), needs.workspace, needs.parts)
}

/// Builds a kernel over parameters, and compares it with the interpreter on random operands, in parts.
pub fn check(name: &str, params: &[&str], build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>) {
    check_near(name, params, 1.0, build);
}

pub fn check_near(name: &str, params: &[&str], loose: f64, build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>) {
    let arrays = params.iter().enumerate().map(|(i, text)| random(&ty(text), 7 + i as u64, 6.0)).collect();
    check_arrays(name, params, arrays, loose, build);
}

pub fn check_arrays(
    name: &str,
    params: &[&str],
    arrays: Vec<Array>,
    loose: f64,
    build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>,
) {
    check_sets(name, params, &[arrays], loose, build);
}

/// The same for several sets of operands; the kernel is compiled once.
pub fn check_sets(
    name: &str,
    params: &[&str],
    sets: &[Vec<Array>],
    loose: f64,
    build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>,
) {
    let function = kernel(params, build);
    for cpu in cpus() {
        let compiled = compile(&function, &cpu);
        for arrays in sets {
            compare(&format!("{name} on {} with {} lanes", cpu.name, cpu.lanes), &function, &compiled, arrays, loose);
        }
    }
}

/// The bytes of a kernel's results, on each CPU.
pub fn results(function: &Function, arrays: &[Array]) -> Vec<Vec<Vec<u8>>> {
    let on = |cpu: &target_cpu::cpu::Cpu| {
        let (loaded, workspace, most) = compile(function, cpu);
        let inputs: Vec<Vec<u8>> = arrays.iter().map(pack).collect();
        let outputs: Vec<Vec<u8>> = function.result_types().map(|ty| vec![0; ty.tensor().unwrap().bytes()]).collect();
        let scratch = vec![0xffu8; workspace as usize];
        let mut args: Vec<*mut u8> = inputs.iter().chain(&outputs).map(|bytes| load::ptr(bytes)).collect();
        args.push(load::ptr(&scratch));
        loaded.call("kernel", &args, most.min(4) as u32);
        outputs
    };
    cpus().iter().map(on).collect()
}

/// A function of these parameters.
pub fn kernel(params: &[&str], build: impl FnOnce(&mut Builder, &[NodeId]) -> Vec<NodeId>) -> Function {
    let mut b = Builder::new("kernel");
    let nodes: Vec<NodeId> = params.iter().map(|text| b.param(ty(text))).collect();
    let results = build(&mut b, &nodes);
    let mut function = b.finish().unwrap_or_else(|error| panic!("{params:?}: {error}"));
    function.results = results;
    function
}

/// What the interpreter makes of a function.
pub fn interpret(function: &Function, arrays: &[Array]) -> Vec<Array> {
    let module = ir::Module::default();
    let interpreter = Interpreter::new(&module, Precision::Declared);
    let values: Vec<Value> = arrays.iter().cloned().map(Value::Tensor).collect();
    interpreter.run(function, &values).into_iter().map(|value| value.tensor().clone()).collect()
}

fn compare(name: &str, function: &Function, compiled: &(Loaded, u64, u64), arrays: &[Array], loose: f64) {
    let (loaded, workspace, most) = compiled;
    let wanted = interpret(function, arrays);
    let mut first: Option<Vec<Vec<u8>>> = None;
    for parts in [1, 3, (*most).min(100) as u32] {
        let inputs: Vec<Vec<u8>> = arrays.iter().map(pack).collect();
        let outputs: Vec<Vec<u8>> =
            function.result_types().map(|ty| vec![0xff; ty.tensor().unwrap().bytes() + 64]).collect();
        let scratch = vec![0xffu8; *workspace as usize];
        let mut args: Vec<*mut u8> = inputs.iter().chain(&outputs).map(|bytes| load::ptr(bytes)).collect();
        args.push(load::ptr(&scratch));
        loaded.call("kernel", &args, parts);
        for ((output, result), want) in outputs.iter().zip(function.result_types()).zip(&wanted) {
            let ty = result.tensor().unwrap();
            let got = unpack(ty, output);
            for (i, (&got, &want)) in got.iter().zip(&want.data).enumerate() {
                assert!(close(got, want, ty.dtype, loose), "{name}: {ty} [{i}] = {got}, not {want}");
            }
            assert!(output[ty.bytes()..].iter().all(|&byte| byte == 0xff), "{name}: wrote past the end of {ty}");
        }
        assert_eq!(*first.get_or_insert_with(|| outputs.clone()), outputs, "{name}: parts change bits");
    }
}

pub fn op(b: &mut Builder, op: impl Into<Op>, args: &[NodeId]) -> NodeId {
    b.op(op, args)
}
