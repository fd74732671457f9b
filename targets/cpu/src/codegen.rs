//! From the text of MLIR modules to object code, several modules at a time.
//!
//! Each module has its own contexts, so threads share nothing. MLIR translates straight into inkwell's LLVM context.
#![expect(unsafe_code, reason = "MLIR's C API hands a module over to LLVM as a raw pointer")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::module::Linkage;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple};
use melior::pass::{PassManager, conversion, transform};

use crate::cache::{self, Cache};
use crate::cpu::Cpu;
use crate::emit::Module;
use crate::error::Error;

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// What lies between a module and its object, for the key under which a cache keeps it: this file itself.
pub const PIPELINE: &str = include_str!("codegen.rs");

/// Kernels are vectorised by hand: these passes only clean up, and cost a small part of what `O2` does.
const PASSES: &str = "function(sroa,early-cse,loop-mssa(licm),simplifycfg)";

/// Compiles each module to an object file, in the order given, on up to `threads` threads; what `cache` has is not
/// compiled again.
pub fn compile(
    modules: &[Module],
    cpu: &Cpu,
    threads: usize,
    cache: Option<&dyn Cache>,
) -> Result<Vec<Vec<u8>>, Error> {
    Target::initialize_x86(&InitializationConfig::default());
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, modules.len().max(1)) {
            scope.spawn(|| {
                let Ok(sender) = sender.lock().map(|sender| sender.clone()) else { return };
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(module) = modules.get(index) else { return };
                    // The receiver outlives the scope.
                    let _ = sender.send((index, compile_one(module, cpu, cache)));
                }
            });
        }
    });
    drop(sender);
    let mut objects: Vec<Option<Vec<u8>>> = vec![None; modules.len()];
    for (index, object) in receiver {
        objects[index] = Some(object?);
    }
    objects.into_iter().map(|object| object.ok_or(Error::Thread)).collect()
}

/// The assembly of one module, for people.
pub fn assembly(module: &Module, cpu: &Cpu) -> Result<String, Error> {
    Target::initialize_x86(&InitializationConfig::default());
    let bytes = generate(module, cpu, FileType::Assembly)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn compile_one(module: &Module, cpu: &Cpu, cache: Option<&dyn Cache>) -> Result<Vec<u8>, Error> {
    let Some(cache) = cache else { return generate(module, cpu, FileType::Object) };
    let key = cache::key(module, cpu);
    if let Some(object) = cache.read(&key) {
        return Ok(object);
    }
    let object = generate(module, cpu, FileType::Object)?;
    cache.write(&key, &object).map_err(Error::Cache)?;
    Ok(object)
}

fn generate(module: &Module, cpu: &Cpu, file: FileType) -> Result<Vec<u8>, Error> {
    let llvm = inkwell::context::Context::create();
    let translated = translate(module, &llvm)?;
    let failed = |stage: &'static str, message: String| Error::Llvm { module: module.name.clone(), stage, message };

    let triple = TargetTriple::create(TRIPLE);
    let target = Target::from_triple(&triple).map_err(|error| failed("choosing the target", error.to_string()))?;
    let machine = target
        .create_target_machine(
            &triple,
            &cpu.name,
            &cpu.features,
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Default,
        )
        .ok_or_else(|| failed("choosing the target", format!("LLVM has no machine `{}`", cpu.name)))?;
    translated.set_triple(&triple);
    translated.set_data_layout(&machine.get_target_data().get_data_layout());

    let width = (cpu.lanes * 32).to_string();
    let attributes = [
        ("target-cpu", cpu.name.as_str()),
        ("target-features", cpu.features.as_str()),
        ("prefer-vector-width", &width),
        ("min-legal-vector-width", &width),
    ];
    for function in translated.get_functions().filter(|function| function.count_basic_blocks() > 0) {
        for (key, value) in attributes {
            function.add_attribute(AttributeLoc::Function, llvm.create_string_attribute(key, value));
        }
        let name = function.get_name().to_string_lossy().into_owned();
        if !module.public.contains(&name) {
            function.set_linkage(Linkage::Internal);
        }
    }
    translated.verify().map_err(|error| failed("verifying", error.to_string()))?;
    translated
        .run_passes(PASSES, &machine, PassBuilderOptions::create())
        .map_err(|error| failed("optimising", error.to_string()))?;
    let buffer = write(&machine, &translated, file).map_err(|message| failed("generating code", message))?;
    Ok(buffer)
}

fn write(machine: &TargetMachine, module: &inkwell::module::Module<'_>, file: FileType) -> Result<Vec<u8>, String> {
    let buffer = machine.write_to_memory_buffer(module, file).map_err(|error| error.to_string())?;
    Ok(buffer.as_slice().to_vec())
}

/// Parses and lowers `module` with MLIR, then translates it into `llvm`.
fn translate<'a>(module: &Module, llvm: &'a inkwell::context::Context) -> Result<inkwell::module::Module<'a>, Error> {
    let registry = melior::dialect::DialectRegistry::new();
    melior::utility::register_all_dialects(&registry);
    let context = melior::Context::new_with_registry(&registry, false);
    melior::utility::register_all_llvm_translations(&context);
    let messages = std::sync::Arc::new(Mutex::new(Vec::new()));
    let sink = std::sync::Arc::clone(&messages);
    context.attach_diagnostic_handler(move |diagnostic| {
        if let Ok(mut messages) = sink.lock() {
            messages.push(format!("{}: {diagnostic}", diagnostic.location()));
        }
        true
    });
    let failed = || {
        let messages = messages.lock().map(|messages| messages.join("; ")).unwrap_or_default();
        Error::Mlir { module: module.name.clone(), message: messages }
    };

    let mut mlir = melior::ir::Module::parse(&context, &module.text).ok_or_else(failed)?;
    let manager = PassManager::new(&context);
    manager.add_pass(transform::create_cse());
    manager.add_pass(conversion::create_scf_to_control_flow());
    manager.add_pass(conversion::create_vector_to_llvm());
    manager.add_pass(conversion::create_arith_to_llvm());
    manager.add_pass(conversion::create_control_flow_to_llvm());
    manager.add_pass(conversion::create_func_to_llvm());
    manager.add_pass(conversion::create_reconcile_unrealized_casts());
    manager.run(&mut mlir).map_err(|_| failed())?;

    let operation = mlir.as_operation().to_raw();
    // SAFETY: the operation and the context are alive, and both libraries are of one LLVM; the module that comes back
    // belongs to `llvm`, and nothing else owns it.
    unsafe {
        let raw = mlir_sys::mlirTranslateModuleToLLVMIR(operation, llvm.raw().cast());
        if raw.is_null() {
            return Err(failed());
        }
        Ok(inkwell::module::Module::new(raw.cast()))
    }
}
