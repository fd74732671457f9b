//! Models: loaded from `.om` files, bound to datasets, evaluated on a stream.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use emulator_ge::proto::{ModelDef, TensorDescriptor};
use emulator_ge::{Tensor, om};

use crate::device::entered;
use crate::error::{Error, code, counted};
use crate::memory::host;
use crate::stream::{self, Stream};
use crate::{Code, INNER, INVALID_PARAM};

struct Loaded {
    model: ModelDef,
    inputs: Vec<TensorDescriptor>,
    outputs: Vec<TensorDescriptor>,
    /// Working memory on the device.
    work: (usize, usize),
    /// The first stream that ran it: a model has one working memory, and two streams would share it.
    stream: Mutex<usize>,
}

static MODELS: Mutex<BTreeMap<u32, Arc<Loaded>>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy)]
pub struct Buffer {
    address: usize,
    bytes: usize,
}

type Dataset = Vec<Buffer>;

fn invalid(text: impl Into<String>) -> Error {
    (INVALID_PARAM, text.into())
}

fn find(id: u32) -> Result<Arc<Loaded>, Error> {
    let models = MODELS.lock().unwrap_or_else(PoisonError::into_inner);
    models.get(&id).cloned().ok_or_else(|| invalid(format!("there is no model {id}")))
}

unsafe fn read(model: *const c_void, size: usize) -> Result<(ModelDef, usize, usize), Error> {
    // SAFETY: the caller's memory of that size, by CANN's contract.
    let bytes = unsafe { std::slice::from_raw_parts(model.cast::<u8>(), size) };
    let model = om::read(bytes).map_err(|e| (INVALID_PARAM, format!("EE1004: {e}")))?;
    let (work, weights) = om::sizes(&model).ok_or_else(|| invalid("the model does not say its sizes"))?;
    Ok((model, work, weights))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlQuerySizeFromMem(
    model: *const c_void,
    size: usize,
    work: *mut usize,
    weights: *mut usize,
) -> Code {
    // SAFETY: the caller's pointers are valid, by CANN's contract.
    code(unsafe { read(model, size) }.map(|(_, w, c)| unsafe { (*work, *weights) = (w, c) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlLoadFromMemWithMem(
    model: *const c_void,
    size: usize,
    id: *mut u32,
    work: *mut c_void,
    work_size: usize,
    weights: *mut c_void,
    weight_size: usize,
) -> Code {
    let load = || {
        entered()?;
        counted("aclmdlLoadFromMemWithMem")?;
        // SAFETY: the caller's memory, by CANN's contract.
        let (model, wants_work, wants_weights) = unsafe { read(model, size) }?;
        for (what, at, has, wants) in
            [("working", work, work_size, wants_work), ("constant", weights, weight_size, wants_weights)]
        {
            if has < wants {
                return Err(invalid(format!("{has} bytes of {what} memory for a model that needs {wants}")));
            }
            if wants > 0 {
                host(at as usize, has)?;
            }
        }
        let (inputs, outputs) = emulator_ge::interface(&model);
        let work = (work as usize, wants_work);
        let mut models = MODELS.lock().unwrap_or_else(PoisonError::into_inner);
        let next = models.last_key_value().map_or(1, |(id, _)| id + 1);
        models.insert(next, Arc::new(Loaded { model, inputs, outputs, work, stream: Mutex::default() }));
        // SAFETY: the caller's pointer, by CANN's contract.
        unsafe { *id = next };
        Ok(())
    };
    code(load())
}

#[unsafe(no_mangle)]
pub extern "C" fn aclmdlUnload(id: u32) -> Code {
    let gone = MODELS.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    code(gone.map(drop).ok_or_else(|| invalid(format!("there is no model {id}"))))
}

#[unsafe(no_mangle)]
pub extern "C" fn aclmdlCreateDesc() -> *mut c_void {
    Box::into_raw(Box::new(None::<Arc<Loaded>>)).cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlDestroyDesc(desc: *mut c_void) -> Code {
    // SAFETY: made by `aclmdlCreateDesc`.
    drop(unsafe { Box::from_raw(desc.cast::<Option<Arc<Loaded>>>()) });
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlGetDesc(desc: *mut c_void, id: u32) -> Code {
    // SAFETY: made by `aclmdlCreateDesc`.
    code(find(id).map(|model| unsafe { *desc.cast::<Option<Arc<Loaded>>>() = Some(model) }))
}

unsafe fn described<'a>(desc: *mut c_void) -> Option<&'a Arc<Loaded>> {
    // SAFETY: made by `aclmdlCreateDesc`.
    unsafe { &*desc.cast::<Option<Arc<Loaded>>>() }.as_ref()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlGetNumInputs(desc: *mut c_void) -> usize {
    // SAFETY: as for `described`.
    unsafe { described(desc) }.map_or(0, |m| m.inputs.len())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlGetNumOutputs(desc: *mut c_void) -> usize {
    // SAFETY: as for `described`.
    unsafe { described(desc) }.map_or(0, |m| m.outputs.len())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlGetInputSizeByIndex(desc: *mut c_void, index: usize) -> usize {
    // SAFETY: as for `described`.
    unsafe { described(desc) }.and_then(|m| m.inputs.get(index)).map_or(0, TensorDescriptor::bytes)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlGetOutputSizeByIndex(desc: *mut c_void, index: usize) -> usize {
    // SAFETY: as for `described`.
    unsafe { described(desc) }.and_then(|m| m.outputs.get(index)).map_or(0, TensorDescriptor::bytes)
}

#[unsafe(no_mangle)]
pub extern "C" fn aclmdlCreateDataset() -> *mut c_void {
    Box::into_raw(Box::new(Dataset::new())).cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlDestroyDataset(dataset: *const c_void) -> Code {
    // SAFETY: made by `aclmdlCreateDataset`.
    drop(unsafe { Box::from_raw(dataset.cast_mut().cast::<Dataset>()) });
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlAddDatasetBuffer(dataset: *mut c_void, buffer: *mut c_void) -> Code {
    // SAFETY: made by `aclmdlCreateDataset` and `aclCreateDataBuffer`.
    unsafe { (*dataset.cast::<Dataset>()).push(*buffer.cast::<Buffer>()) };
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn aclCreateDataBuffer(data: *mut c_void, size: usize) -> *mut c_void {
    Box::into_raw(Box::new(Buffer { address: data as usize, bytes: size })).cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclDestroyDataBuffer(buffer: *const c_void) -> Code {
    // SAFETY: made by `aclCreateDataBuffer`.
    drop(unsafe { Box::from_raw(buffer.cast_mut().cast::<Buffer>()) });
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclmdlExecuteAsync(
    id: u32,
    input: *const c_void,
    output: *mut c_void,
    stream: *mut c_void,
) -> Code {
    // SAFETY: made by `aclmdlCreateDataset`.
    let sets = unsafe { [&*input.cast::<Dataset>(), &*output.cast::<Dataset>().cast_const()] }.map(Clone::clone);
    let submit = || {
        entered()?;
        counted("aclmdlExecuteAsync")?;
        let model = find(id)?;
        let mut first = model.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if *first != 0 && *first != stream as usize {
            return Err(invalid(format!("model {id} runs on two streams")));
        }
        *first = stream as usize;
        drop(first);
        let [inputs, outputs] = sets;
        bound("input", &inputs, &model.inputs)?;
        bound("output", &outputs, &model.outputs)?;
        stream::submit(stream.cast::<Stream>(), move || execute(&model, &inputs, &outputs))
    };
    code(submit())
}

fn bound(what: &str, buffers: &[Buffer], wants: &[TensorDescriptor]) -> Result<(), Error> {
    if buffers.len() != wants.len() {
        return Err(invalid(format!("{} {what} buffers for a model of {}", buffers.len(), wants.len())));
    }
    for (i, (buffer, desc)) in buffers.iter().zip(wants).enumerate() {
        if buffer.bytes < desc.bytes() {
            return Err(invalid(format!("{what} {i} has {} bytes and wants {}", buffer.bytes, desc.bytes())));
        }
        host(buffer.address, buffer.bytes)?;
    }
    Ok(())
}

fn execute(model: &Loaded, inputs: &[Buffer], outputs: &[Buffer]) -> Result<(), Error> {
    counted("model")?;
    let bytes = |buffer: &Buffer, length: usize| host(buffer.address, length);
    let mut tensors = vec![];
    for (buffer, desc) in inputs.iter().zip(&model.inputs) {
        let at = bytes(buffer, desc.bytes())?;
        // SAFETY: device memory of that length, which nobody writes while the model runs: the plan orders them.
        let data = desc.element().decode(unsafe { std::slice::from_raw_parts(at, desc.bytes()) });
        tensors.push(Tensor { shape: desc.sizes(), data });
    }
    if model.work.1 > 0 {
        let at = host(model.work.0, model.work.1)?;
        // SAFETY: device memory; a model may leave anything there.
        unsafe { std::ptr::write_bytes(at, 0xFF, model.work.1) };
    }
    let results = catch_unwind(AssertUnwindSafe(|| emulator_ge::run(&model.model, &tensors)));
    let results = results.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
        (INNER, format!("EZ9999: {text}"))
    })?;
    for ((buffer, desc), tensor) in outputs.iter().zip(&model.outputs).zip(&results) {
        let at = bytes(buffer, desc.bytes())?;
        // SAFETY: device memory of that length, which nobody else touches while the model runs.
        desc.element().encode(&tensor.data, unsafe { std::slice::from_raw_parts_mut(at, desc.bytes()) });
    }
    Ok(())
}
