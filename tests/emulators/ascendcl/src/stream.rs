//! Streams, threads that work off a queue, and the events between them.

use std::ffi::c_void;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, code};
use crate::{Code, INVALID_PARAM, STREAM_SYNC_TIMEOUT};

type Work = Box<dyn FnOnce() -> Result<(), Error> + Send>;

pub struct Stream {
    queue: Sender<(bool, Work)>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    counts: Mutex<Counts>,
    change: Condvar,
}

#[derive(Default)]
struct Counts {
    submitted: u64,
    done: u64,
    /// After it, the stream runs nothing but events.
    error: Option<Error>,
}

#[derive(Default)]
pub struct Event {
    /// How often it was recorded, by those who submit, and how often a stream came by.
    counts: Mutex<(u64, u64)>,
    change: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn put(stream: *mut Stream, always: bool, work: Work) -> Result<(), Error> {
    // SAFETY: null, or a stream that was not destroyed, by CANN's contract.
    let stream = unsafe { stream.as_ref() }.ok_or((INVALID_PARAM, "there is no stream".to_owned()))?;
    lock(&stream.state.counts).submitted += 1;
    stream.queue.send((always, work)).map_err(|_| (INVALID_PARAM, "the stream is gone".to_owned()))
}

/// Queues work that an earlier error of the stream skips.
pub fn submit(stream: *mut Stream, work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    put(stream, false, Box::new(work))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtCreateStream(out: *mut *mut c_void) -> Code {
    let (queue, tasks) = channel::<(bool, Work)>();
    let state = Arc::new(State::default());
    let mine = state.clone();
    let run = move || {
        for (always, work) in tasks {
            let broken = lock(&mine.counts).error.is_some();
            let result = if broken && !always { Ok(()) } else { work() };
            let mut counts = lock(&mine.counts);
            counts.done += 1;
            counts.error = counts.error.take().or(result.err());
            mine.change.notify_all();
        }
    };
    if let Err(e) = std::thread::Builder::new().name("stream".into()).spawn(run) {
        return code(Err((INVALID_PARAM, e.to_string())));
    }
    // SAFETY: the caller's pointer is valid, by CANN's contract.
    unsafe { *out = Box::into_raw(Box::new(Stream { queue, state })).cast() };
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtDestroyStream(stream: *mut c_void) -> Code {
    // SAFETY: made by `aclrtCreateStream`, and nobody uses it any more, by CANN's contract.
    drop(unsafe { Box::from_raw(stream.cast::<Stream>()) });
    crate::SUCCESS
}

/// Waits for what was submitted so far, for at most so many milliseconds, or for ever below zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtSynchronizeStreamWithTimeout(stream: *mut c_void, timeout: i32) -> Code {
    // SAFETY: null, or a stream that was not destroyed, by CANN's contract.
    let Some(stream) = (unsafe { stream.cast::<Stream>().as_ref() }) else { return crate::SUCCESS };
    let end = u64::try_from(timeout).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut counts = lock(&stream.state.counts);
    let target = counts.submitted;
    while counts.done < target {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        counts = match left {
            Some(Duration::ZERO) => return code(Err((STREAM_SYNC_TIMEOUT, "the stream is not done yet".into()))),
            Some(left) => stream.state.change.wait_timeout(counts, left).unwrap_or_else(PoisonError::into_inner).0,
            None => stream.state.change.wait(counts).unwrap_or_else(PoisonError::into_inner),
        };
    }
    code(counts.error.clone().map_or(Ok(()), Err))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtCreateEventExWithFlag(out: *mut *mut c_void, _flag: u32) -> Code {
    // SAFETY: the caller's pointer is valid, by CANN's contract.
    unsafe { *out = Arc::into_raw(Arc::new(Event::default())).cast_mut().cast() };
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtDestroyEvent(event: *mut c_void) -> Code {
    // SAFETY: made by `aclrtCreateEventExWithFlag`, and not destroyed before.
    drop(unsafe { Arc::from_raw(event.cast::<Event>()) });
    crate::SUCCESS
}

/// Another owner of an event that a caller holds.
unsafe fn event(event: *mut c_void) -> Arc<Event> {
    let event = event.cast::<Event>().cast_const();
    // SAFETY: the caller's own count is alive, by CANN's contract.
    unsafe {
        Arc::increment_strong_count(event);
        Arc::from_raw(event)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtRecordEvent(handle: *mut c_void, stream: *mut c_void) -> Code {
    // SAFETY: an event of the caller's.
    let event = unsafe { event(handle) };
    let number = {
        let mut counts = lock(&event.counts);
        counts.0 += 1;
        counts.0
    };
    let work = move || {
        lock(&event.counts).1 = number;
        event.change.notify_all();
        Ok(())
    };
    code(put(stream.cast(), true, Box::new(work)))
}

/// The stream goes on when the record that was submitted last has passed; one that was never recorded holds nobody.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtStreamWaitEvent(stream: *mut c_void, handle: *mut c_void) -> Code {
    // SAFETY: an event of the caller's.
    let event = unsafe { event(handle) };
    let number = lock(&event.counts).0;
    let work = move || {
        let mut counts = lock(&event.counts);
        while counts.1 < number {
            counts = event.change.wait(counts).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    };
    code(put(stream.cast(), true, Box::new(work)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtQueryEventStatus(handle: *mut c_void, out: *mut i32) -> Code {
    // SAFETY: an event and a pointer of the caller's.
    let event = unsafe { event(handle) };
    let counts = lock(&event.counts);
    unsafe { *out = i32::from(counts.1 >= counts.0) };
    crate::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn aclrtLaunchHostFunc(
    stream: *mut c_void,
    function: unsafe extern "C" fn(*mut c_void),
    argument: *mut c_void,
) -> Code {
    let argument = argument as usize;
    let work = move || {
        // SAFETY: the function is made for this argument, by CANN's contract.
        unsafe { function(argument as *mut c_void) };
        Ok(())
    };
    code(put(stream.cast(), true, Box::new(work)))
}
