//! Devices and contexts, of which there is nothing but the number.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::error::{Error, code};
use crate::{Code, INVALID_PARAM, REPEAT_INITIALIZE};

const DEVICES: u32 = 16;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

#[unsafe(no_mangle)]
pub extern "C" fn aclInit(_config: *const c_char) -> Code {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, SeqCst) { REPEAT_INITIALIZE } else { crate::SUCCESS }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtGetDeviceCount(out: *mut u32) -> Code {
    // SAFETY: the caller's pointer is valid, by CANN's contract.
    unsafe { *out = DEVICES };
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtCreateContext(out: *mut *mut c_void, device: i32) -> Code {
    if !(0..DEVICES as i32).contains(&device) {
        return code(Err((INVALID_PARAM, format!("there is no device {device}"))));
    }
    let context = Box::into_raw(Box::new(device));
    CURRENT.set(context as usize);
    // SAFETY: the caller's pointer is valid, by CANN's contract.
    unsafe { *out = context.cast() };
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtDestroyContext(context: *mut c_void) -> Code {
    // SAFETY: made by `aclrtCreateContext`, and not destroyed before.
    drop(unsafe { Box::from_raw(context.cast::<i32>()) });
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn aclrtSetCurrentContext(context: *mut c_void) -> Code {
    CURRENT.set(context as usize);
    crate::SUCCESS
}

/// Most calls need a context on their thread.
pub fn entered() -> Result<(), Error> {
    if CURRENT.get() == 0 {
        return Err((107_002, "EE1001: the thread has no context".into()));
    }
    Ok(())
}
