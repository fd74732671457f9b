//! A plan's segments as CANN compiled them, each loaded once for each stream that runs it.
#![allow(unsafe_code, reason = "calls of CANN's C interface")]

use std::ffi::c_void;
use std::sync::Arc;

use plan::{Archive, ArchiveError, BlobKind, Kernel};
use runtime_core::{Call, DeviceError, Submit};

use super::abi::{MEM_MALLOC_HUGE_FIRST, Pointer};
use super::{Cann, CannError};

/// The files, by kernel; all ranks of a process share them.
pub struct Segments(Vec<Segment>);

pub(super) struct Segment {
    name: String,
    om: Vec<u8>,
    /// Whether launches bring working memory as their last argument.
    works: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SegmentsError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("CANN has not compiled the plan's {0} segments yet")]
    NotCompiled(usize),
    #[error("the plan lacks the compiled segment `{0}`")]
    Missing(String),
}

impl Segments {
    /// Out of a plan's object.
    pub fn open(kernels: &[Kernel], object: &[u8]) -> Result<Self, SegmentsError> {
        if kernels.is_empty() {
            return Ok(Self(vec![]));
        }
        let archive = Archive::from_bytes(object)?;
        if !archive.blobs.iter().any(|b| b.kind == BlobKind::Om) {
            return Err(SegmentsError::NotCompiled(kernels.len()));
        }
        let segment = |kernel: &Kernel| {
            let blob = archive.blob(BlobKind::Om, &kernel.symbol);
            let om = blob.ok_or_else(|| SegmentsError::Missing(kernel.symbol.to_string()))?.bytes.clone();
            Ok(Segment { name: kernel.symbol.to_string(), om, works: kernel.workspace > 0 })
        };
        Ok(Self(kernels.iter().map(segment).collect::<Result<_, SegmentsError>>()?))
    }

    pub(super) fn get(&self, kernel: usize) -> Option<&Segment> {
        self.0.get(kernel)
    }
}

/// A loaded segment, with its constants and its working memory.
pub(super) struct Model {
    cann: Arc<Cann>,
    id: u32,
    weights: Pointer,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

// SAFETY: a number and an address on the device; CANN takes them from any thread that has entered the context.
unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Segment {
    /// The working memory of a launch: its last argument, if it brings any.
    fn work(&self, call: &Call<'_>) -> (Pointer, usize) {
        let last = call.args.last().zip(call.bytes.last()).filter(|_| self.works);
        last.map_or((std::ptr::null_mut(), 0), |(at, bytes)| (at.cast(), *bytes as usize))
    }

    /// Loads the segment for launches that bring the same working memory.
    pub fn load(&self, cann: &Arc<Cann>, call: &Call<'_>) -> Result<Model, CannError> {
        let (acl, om) = (&cann.acl, self.om.as_ptr().cast::<c_void>());
        let (mut wants_work, mut wants_weights) = (0, 0);
        // SAFETY: the file is alive, and the sizes are ours.
        let code = unsafe { (acl.aclmdlQuerySizeFromMem)(om, self.om.len(), &mut wants_work, &mut wants_weights) };
        cann.acl("aclmdlQuerySizeFromMem", code)?;
        let (work, has_work) = self.work(call);
        if has_work < wants_work {
            return Err(self.odd(format!("it needs {wants_work} bytes of working memory and has {has_work}")));
        }
        let mut weights = std::ptr::null_mut();
        if wants_weights > 0 {
            // SAFETY: the pointer is ours.
            let code = unsafe { (acl.aclrtMalloc)(&mut weights, wants_weights, MEM_MALLOC_HUGE_FIRST) };
            cann.acl("aclrtMalloc", code)?;
        }
        let mut model = Model { cann: cann.clone(), id: 0, weights, inputs: vec![], outputs: vec![] };
        let (length, id) = (self.om.len(), &mut model.id);
        // SAFETY: both areas are on the device, of these sizes, and the model is unloaded before they go.
        let code = unsafe { (acl.aclmdlLoadFromMemWithMem)(om, length, id, work, has_work, weights, wants_weights) };
        cann.acl("aclmdlLoadFromMemWithMem", code)?;
        // SAFETY: the description is destroyed below, and nothing keeps it.
        unsafe {
            let desc = (acl.aclmdlCreateDesc)();
            let code = (acl.aclmdlGetDesc)(desc, model.id);
            model.inputs =
                (0..(acl.aclmdlGetNumInputs)(desc)).map(|i| (acl.aclmdlGetInputSizeByIndex)(desc, i)).collect();
            model.outputs =
                (0..(acl.aclmdlGetNumOutputs)(desc)).map(|i| (acl.aclmdlGetOutputSizeByIndex)(desc, i)).collect();
            (acl.aclmdlDestroyDesc)(desc);
            cann.acl("aclmdlGetDesc", code)?;
        }
        Ok(model)
    }

    /// Binds a launch's slices to the model's inputs and outputs.
    pub fn bind(&self, model: &Arc<Model>, call: &Call<'_>, stream: Pointer) -> Result<Launch, CannError> {
        let slices: Vec<(Pointer, usize)> =
            call.args.iter().zip(call.bytes).map(|(a, b)| (a.cast(), *b as usize)).collect();
        let (inputs, outputs) = (model.inputs.len(), model.outputs.len());
        let wants = inputs + outputs + usize::from(self.works);
        if slices.len() != wants || !call.scalars.is_empty() {
            return Err(self.odd(format!("it takes {wants} buffers, and the plan gives {}", slices.len())));
        }
        let sizes = model.inputs.iter().chain(&model.outputs);
        if let Some((i, (size, (_, bytes)))) = sizes.zip(&slices).enumerate().find(|(_, (size, s))| **size > s.1) {
            return Err(self.odd(format!("its buffer {i} has {size} bytes, and the plan gives {bytes}")));
        }
        let dataset = |slices: &[(Pointer, usize)]| Dataset::new(&model.cann, slices);
        let (input, output) = (dataset(&slices[..inputs])?, dataset(&slices[inputs..inputs + outputs])?);
        Ok(Launch { model: model.clone(), input, output, stream })
    }

    fn odd(&self, why: String) -> CannError {
        CannError::Segment { name: self.name.clone(), why }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: streams are idle when a device goes (see `AscendDevice`), and nobody else has the constants.
        unsafe {
            if self.id != 0 {
                (self.cann.acl.aclmdlUnload)(self.id);
            }
            if !self.weights.is_null() {
                (self.cann.acl.aclrtFree)(self.weights);
            }
        }
    }
}

/// Buffers in CANN's form.
struct Dataset {
    cann: Arc<Cann>,
    handle: Pointer,
    buffers: Vec<Pointer>,
}

impl Dataset {
    fn new(cann: &Arc<Cann>, slices: &[(Pointer, usize)]) -> Result<Self, CannError> {
        // SAFETY: CANN makes a set and buffers of its own, which hold addresses alone.
        let handle = unsafe { (cann.acl.aclmdlCreateDataset)() };
        let mut set = Self { cann: cann.clone(), handle, buffers: vec![] };
        for &(at, bytes) in slices {
            // SAFETY: as above.
            let buffer = unsafe { (cann.acl.aclCreateDataBuffer)(at, bytes) };
            set.buffers.push(buffer);
            // SAFETY: both were just made.
            cann.acl("aclmdlAddDatasetBuffer", unsafe { (cann.acl.aclmdlAddDatasetBuffer)(handle, buffer) })?;
        }
        Ok(set)
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        // SAFETY: they were made in `new`, and no launch is on its way when a device goes.
        unsafe {
            (self.cann.acl.aclmdlDestroyDataset)(self.handle);
            for buffer in &self.buffers {
                (self.cann.acl.aclDestroyDataBuffer)(*buffer);
            }
        }
    }
}

/// A launch with its arguments.
pub(super) struct Launch {
    model: Arc<Model>,
    input: Dataset,
    output: Dataset,
    stream: Pointer,
}

// SAFETY: handles of CANN's, which it takes from any thread that has entered the context; one lane's thread submits a launch.
unsafe impl Send for Launch {}
unsafe impl Sync for Launch {}

impl Submit for Launch {
    unsafe fn submit(&self) -> Result<(), DeviceError> {
        let cann = &self.model.cann;
        // SAFETY: the model is loaded, the sets fit it, and their buffers are free until the stream has passed, says the caller.
        let code =
            unsafe { (cann.acl.aclmdlExecuteAsync)(self.model.id, self.input.handle, self.output.handle, self.stream) };
        Ok(cann.acl("aclmdlExecuteAsync", code)?)
    }
}
