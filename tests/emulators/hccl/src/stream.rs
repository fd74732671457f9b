//! Work on streams of the emulator of libascendcl, and its memory.

use std::ffi::c_void;
use std::sync::OnceLock;

use libloading::Library;

use crate::{Code, PARAMETER, SUCCESS};

type Function = unsafe extern "C" fn(*mut c_void);
type LaunchHostFunc = unsafe extern "C" fn(*mut c_void, Function, *mut c_void) -> i32;
type HostAddress = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;

struct Device {
    launch: LaunchHostFunc,
    address: HostAddress,
}

/// None where only host memory is used.
fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || {
        // SAFETY: the emulator of libascendcl has no initialisers.
        let library = unsafe { Library::new("libascendcl.so") }.ok()?;
        // SAFETY: the types are those of the emulator, and the library is never closed.
        let device = unsafe {
            Device {
                launch: *library.get::<LaunchHostFunc>(b"aclrtLaunchHostFunc").ok()?,
                address: *library.get::<HostAddress>(b"emulatorHostAddress").ok()?,
            }
        };
        std::mem::forget(library);
        Some(device)
    };
    DEVICE.get_or_init(open).as_ref()
}

/// Memory that a caller names: of the device, or of the host.
#[derive(Clone, Copy)]
pub struct Memory {
    at: *mut u8,
    pub bytes: usize,
}

// SAFETY: an address; the caller keeps the memory valid and to itself until the stream has passed, by CANN's contract.
unsafe impl Send for Memory {}

impl Memory {
    pub fn new(address: *const c_void, bytes: usize) -> Self {
        // SAFETY: any address may be asked for.
        let mapped = device().map(|d| unsafe { (d.address)(address.cast_mut(), bytes) }).filter(|at| !at.is_null());
        Self { at: mapped.unwrap_or(address.cast_mut()).cast(), bytes }
    }

    pub fn read<'a>(self) -> &'a [u8] {
        // SAFETY: valid, and nobody writes it until the stream has passed, by CANN's contract.
        unsafe { std::slice::from_raw_parts(self.at, self.bytes) }
    }

    pub fn write(self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.bytes, "inside the memory");
        // SAFETY: valid, and nobody else touches it until the stream has passed; sources may lie in the same place.
        unsafe { std::ptr::copy(bytes.as_ptr(), self.at.add(at), bytes.len()) };
    }
}

type Work = Box<dyn FnOnce() + Send>;

unsafe extern "C" fn run(work: *mut c_void) {
    // SAFETY: made by `submit`, and run once.
    (unsafe { Box::from_raw(work.cast::<Work>()) })();
}

/// Runs work on a stream, or at once where there is none.
pub fn submit(stream: *mut c_void, work: impl FnOnce() + Send + 'static) -> Code {
    if stream.is_null() {
        work();
        return SUCCESS;
    }
    let Some(device) = device() else { return PARAMETER };
    let work: Work = Box::new(work);
    // SAFETY: `run` takes what is given to it here.
    match unsafe { (device.launch)(stream, run, Box::into_raw(Box::new(work)).cast()) } {
        0 => SUCCESS,
        _ => PARAMETER,
    }
}
