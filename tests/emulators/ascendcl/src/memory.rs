//! Device memory: an address range that the host may not touch stands for bytes elsewhere.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, code};
use crate::stream::{self, Stream};
use crate::{BAD_ALLOC, Code, INVALID_PARAM};

/// By the address that was given out: length, and where the bytes are.
static RANGES: Mutex<BTreeMap<usize, (usize, usize)>> = Mutex::new(BTreeMap::new());

/// Memory of the host that was given out: by its address, how much.
static PINNED: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

const HOST_TO_DEVICE: i32 = 1;
const DEVICE_TO_HOST: i32 = 2;
const DEVICE_TO_DEVICE: i32 = 3;

/// Where the bytes at a device address are.
pub fn host(address: usize, bytes: usize) -> Result<*mut u8, Error> {
    let ranges = RANGES.lock().unwrap_or_else(PoisonError::into_inner);
    let found = ranges.range(..=address).next_back();
    match found {
        Some((&base, &(length, at))) if address + bytes <= base + length => Ok((at + (address - base)) as *mut u8),
        _ => Err((INVALID_PARAM, format!("{bytes} bytes at {address:#x} are not device memory"))),
    }
}

fn map(bytes: usize, access: i32) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh range, wherever there is room.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at as usize)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtMalloc(out: *mut *mut c_void, size: usize, _policy: i32) -> Code {
    let maps = (map(size, libc::PROT_NONE), map(size, libc::PROT_READ | libc::PROT_WRITE));
    let (Some(address), Some(at)) = maps else {
        return code(Err((BAD_ALLOC, format!("EE1002: {size} bytes of device memory are not there"))));
    };
    RANGES.lock().unwrap_or_else(PoisonError::into_inner).insert(address, (size, at));
    // A device does not give zeros, and NaN is seen.
    // SAFETY: just mapped; and the caller's pointer is valid, by CANN's contract.
    unsafe {
        std::ptr::write_bytes(at as *mut u8, 0xFF, size);
        *out = address as *mut c_void;
    }
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtFree(pointer: *mut c_void) -> Code {
    let range = RANGES.lock().unwrap_or_else(PoisonError::into_inner).remove(&(pointer as usize));
    let Some((size, at)) = range else {
        return code(Err((INVALID_PARAM, format!("{pointer:p} was not allocated"))));
    };
    // SAFETY: both ranges were mapped with this length.
    unsafe {
        libc::munmap(pointer, size);
        libc::munmap(at as *mut c_void, size);
    }
    crate::SUCCESS
}

/// The two ends of a copy as host addresses.
fn ends(to: usize, from: usize, count: usize, kind: i32) -> Result<(usize, usize), Error> {
    let device = |address| host(address, count).map(|p| p as usize);
    match kind {
        HOST_TO_DEVICE => Ok((device(to)?, from)),
        DEVICE_TO_HOST => Ok((to, device(from)?)),
        DEVICE_TO_DEVICE => Ok((device(to)?, device(from)?)),
        other => Err((INVALID_PARAM, format!("there is no kind of copy {other}"))),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtMemcpy(
    to: *mut c_void,
    most: usize,
    from: *const c_void,
    count: usize,
    kind: i32,
) -> Code {
    if count > most {
        return code(Err((INVALID_PARAM, format!("{count} bytes into {most}"))));
    }
    code(ends(to as usize, from as usize, count, kind).map(|(to, from)| {
        // SAFETY: device memory of that length, or the caller's, which is valid by CANN's contract.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, count) }
    }))
}

fn is_pinned(address: usize, bytes: usize) -> bool {
    let pinned = PINNED.lock().unwrap_or_else(PoisonError::into_inner);
    pinned.range(..=address).next_back().is_some_and(|(base, length)| address + bytes <= base + length)
}

/// Bytes of the host's memory are taken at once, unless it is pinned: then when the stream comes by.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtMemcpyAsync(
    to: *mut c_void,
    most: usize,
    from: *const c_void,
    count: usize,
    kind: i32,
    stream: *mut c_void,
) -> Code {
    if count > most {
        return code(Err((INVALID_PARAM, format!("{count} bytes into {most}"))));
    }
    let submit = |(to, from): (usize, usize)| {
        // SAFETY: the caller's memory is valid, by CANN's contract.
        let taken = (kind == HOST_TO_DEVICE && !is_pinned(from, count))
            .then(|| unsafe { std::slice::from_raw_parts(from as *const u8, count) }.to_vec());
        stream::submit(stream.cast::<Stream>(), move || {
            let from = taken.as_ref().map_or(from as *const u8, Vec::as_ptr);
            // SAFETY: valid until the stream has passed, by CANN's contract.
            unsafe { std::ptr::copy(from, to as *mut u8, count) };
            Ok(())
        })
    };
    code(ends(to as usize, from as usize, count, kind).and_then(submit))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtMallocHost(out: *mut *mut c_void, size: usize) -> Code {
    // SAFETY: the caller's pointer is valid, by CANN's contract.
    let at = unsafe {
        *out = libc::calloc(1, size);
        *out as usize
    };
    PINNED.lock().unwrap_or_else(PoisonError::into_inner).insert(at, size);
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtFreeHost(pointer: *mut c_void) -> Code {
    PINNED.lock().unwrap_or_else(PoisonError::into_inner).remove(&(pointer as usize));
    // SAFETY: made by `aclrtMallocHost`.
    unsafe { libc::free(pointer) };
    crate::SUCCESS
}

/// For the emulator of libhccl: where the bytes of a device address are; null if it is none.
#[unsafe(no_mangle)]
pub extern "C" fn emulatorHostAddress(address: *mut c_void, bytes: usize) -> *mut c_void {
    host(address as usize, bytes).map_or(std::ptr::null_mut(), |at| at.cast())
}
