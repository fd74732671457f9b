//! A rank's NPU: context, memory, the streams of its lanes, and the events between them.
#![allow(unsafe_code, reason = "calls of CANN's C interface, with addresses on the device")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plan::{Plan, Space};
use runtime_core::{Call, Device, DeviceError, Place, Submit, Unfinished};

use super::abi::{
    ERROR_STREAM_SYNC_TIMEOUT, EVENT_STATUS_COMPLETE, EVENT_SYNC, MEM_MALLOC_HUGE_FIRST, MEMCPY_DEVICE_TO_DEVICE,
    MEMCPY_DEVICE_TO_HOST, MEMCPY_HOST_TO_DEVICE, Pointer,
};
use super::model::{Model, Segments};
use super::{Cann, CannError};

/// How often a thread that waits for a stream looks how the others are.
const GLANCE: Duration = Duration::from_millis(200);

pub struct AscendDevice {
    cann: Arc<Cann>,
    context: Pointer,
    memory: Pointer,
    bytes: u64,
    /// By lane.
    streams: Vec<Pointer>,
    events: Vec<Pointer>,
    segments: Arc<Segments>,
    /// By kernel, lane and working memory: a model never runs on two streams.
    models: Mutex<BTreeMap<(usize, usize, usize), Arc<Model>>>,
    /// Host memory that the device reads feeds from, by where they go.
    pinned: Mutex<BTreeMap<(u64, usize), usize>>,
    /// The arena in the host's memory, and its length.
    host: Mutex<Option<(usize, u64)>>,
    /// By lane, in the order in which it submits them.
    collectives: Vec<Mutex<Vec<Arc<Mark>>>>,
    patience: Duration,
    /// A run failed: what it holds stays until the process ends.
    lost: AtomicBool,
}

// SAFETY: handles and addresses of CANN's, which it takes from any thread that has entered the context.
unsafe impl Send for AscendDevice {}
unsafe impl Sync for AscendDevice {}

/// Shows whether a collective that was submitted is done.
pub(super) struct Mark {
    id: u32,
    event: Pointer,
    submitted: AtomicBool,
}

// SAFETY: as for the device.
unsafe impl Send for Mark {}
unsafe impl Sync for Mark {}

impl AscendDevice {
    /// The memory and streams of `rank`, on the device that ranks take in turn.
    pub fn new(
        cann: Arc<Cann>,
        plan: &Plan,
        rank: usize,
        segments: Arc<Segments>,
        patience: Duration,
    ) -> Result<Self, CannError> {
        let class = plan.class_of(rank).map_or(0, plan::ClassId::index);
        let bodies = || plan.programs.iter().filter_map(|p| p.bodies.get(class));
        let bytes = bodies().map(|b| b.arena_bytes).max().unwrap_or(0).max(1);
        let lanes = bodies().map(|b| b.lanes.len()).max().unwrap_or(0).max(1);
        let events = bodies().map(|b| b.events as usize).max().unwrap_or(0);
        let mut count = 0;
        // SAFETY: the pointers are ours.
        cann.acl("aclrtGetDeviceCount", unsafe { (cann.acl.aclrtGetDeviceCount)(&mut count) })?;
        if count == 0 {
            return Err(CannError::NoDevice);
        }
        let null = std::ptr::null_mut();
        let mut device = Self {
            cann: cann.clone(),
            context: null,
            memory: null,
            bytes,
            streams: vec![null; lanes],
            events: vec![null; events],
            segments,
            models: Mutex::default(),
            pinned: Mutex::default(),
            host: Mutex::default(),
            collectives: (0..lanes).map(|_| Mutex::default()).collect(),
            patience,
            lost: AtomicBool::new(false),
        };
        let (acl, number) = (&cann.acl, (rank % count as usize) as i32);
        // SAFETY: CANN makes what is asked for, and the pointers are ours.
        unsafe {
            cann.acl("aclrtCreateContext", (acl.aclrtCreateContext)(&mut device.context, number))?;
            cann.acl("aclrtSetCurrentContext", (acl.aclrtSetCurrentContext)(device.context))?;
            let policy = MEM_MALLOC_HUGE_FIRST;
            cann.acl("aclrtMalloc", (acl.aclrtMalloc)(&mut device.memory, bytes as usize, policy))?;
            for stream in &mut device.streams {
                cann.acl("aclrtCreateStream", (acl.aclrtCreateStream)(stream))?;
            }
            for event in &mut device.events {
                cann.acl("aclrtCreateEventExWithFlag", (acl.aclrtCreateEventExWithFlag)(event, EVENT_SYNC))?;
            }
        }
        Ok(device)
    }

    pub(super) fn cann(&self) -> &Arc<Cann> {
        &self.cann
    }

    pub(super) fn stream(&self, lane: usize) -> Pointer {
        self.streams.get(lane).copied().unwrap_or(std::ptr::null_mut())
    }

    /// A mark behind a collective of a lane.
    pub(super) fn mark(&self, lane: usize, id: u32) -> Result<Arc<Mark>, CannError> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is ours.
        let code = unsafe { (self.cann.acl.aclrtCreateEventExWithFlag)(&mut event, EVENT_SYNC) };
        self.cann.acl("aclrtCreateEventExWithFlag", code)?;
        let mark = Arc::new(Mark { id, event, submitted: AtomicBool::new(false) });
        if let Some(marks) = self.collectives.get(lane) {
            lock(marks).push(mark.clone());
        }
        Ok(mark)
    }

    pub(super) fn set(&self, lane: usize, mark: &Mark) -> Result<(), CannError> {
        // SAFETY: event and stream are the device's.
        let code = unsafe { (self.cann.acl.aclrtRecordEvent)(mark.event, self.stream(lane)) };
        mark.submitted.store(true, SeqCst);
        self.cann.acl("aclrtRecordEvent", code)
    }

    /// For each lane, the first collective that was submitted and is not done.
    fn unfinished(&self) -> Vec<Option<u32>> {
        let done = |mark: &&Arc<Mark>| {
            let mut status = EVENT_STATUS_COMPLETE;
            // SAFETY: the event is the device's, and the pointer ours.
            unsafe { (self.cann.acl.aclrtQueryEventStatus)(mark.event, &mut status) };
            status == EVENT_STATUS_COMPLETE
        };
        let first = |marks: &Mutex<Vec<Arc<Mark>>>| {
            lock(marks).iter().filter(|m| m.submitted.load(SeqCst)).find(|m| !done(m)).map(|m| m.id)
        };
        self.collectives.iter().map(first).collect()
    }

    fn at(&self, offset: u64, bytes: usize) -> Result<Pointer, CannError> {
        if offset.checked_add(bytes as u64).is_none_or(|end| end > self.bytes) {
            return Err(CannError::Outside { offset, bytes });
        }
        Ok(self.memory.wrapping_byte_add(offset as usize))
    }

    fn place(&self, place: Place, bytes: usize) -> Result<Pointer, CannError> {
        let Place { space: Space::Host, offset } = place else { return self.at(place.offset, bytes) };
        let host =
            lock(&self.host).filter(|(_, room)| offset.checked_add(bytes as u64).is_some_and(|end| end <= *room));
        let (base, _) = host.ok_or(CannError::Outside { offset, bytes })?;
        Ok((base + offset as usize) as Pointer)
    }

    /// # Safety
    /// Both ends have these bytes, and until the lane's stream has passed nothing conflicts with the copy.
    pub(super) unsafe fn copy_on(
        &self,
        lane: usize,
        to: Pointer,
        from: Pointer,
        bytes: usize,
        kind: i32,
    ) -> Result<(), CannError> {
        let stream = self.stream(lane);
        // SAFETY: says the caller.
        let code = unsafe { (self.cann.acl.aclrtMemcpyAsync)(to, bytes, from, bytes, kind, stream) };
        self.cann.acl("aclrtMemcpyAsync", code)
    }

    /// Host memory for a feed, the same in every step.
    fn pinned(&self, to: u64, bytes: usize) -> Result<Pointer, CannError> {
        let mut pinned = lock(&self.pinned);
        if let Some(at) = pinned.get(&(to, bytes)) {
            return Ok(*at as Pointer);
        }
        let mut at = std::ptr::null_mut();
        // SAFETY: the pointer is ours.
        self.cann.acl("aclrtMallocHost", unsafe { (self.cann.acl.aclrtMallocHost)(&mut at, bytes) })?;
        pinned.insert((to, bytes), at as usize);
        Ok(at)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device for AscendDevice {
    fn base(&self) -> *mut u8 {
        self.memory.cast()
    }

    fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context is alive.
        let code = unsafe { (self.cann.acl.aclrtSetCurrentContext)(self.context) };
        Ok(self.cann.acl("aclrtSetCurrentContext", code)?)
    }

    fn prepare(&self, lane: usize, call: &Call<'_>) -> Result<Box<dyn Submit>, DeviceError> {
        let kernel = call.kernel.index();
        let Some(segment) = self.segments.get(kernel) else {
            return Err(DeviceError(format!("the plan has no segment {kernel}")));
        };
        let work = call.args.last().map_or(0, |at| *at as usize);
        let mut models = lock(&self.models);
        let model = match models.get(&(kernel, lane, work)) {
            Some(model) => model.clone(),
            None => {
                let model = Arc::new(segment.load(&self.cann, call)?);
                models.insert((kernel, lane, work), model.clone());
                model
            }
        };
        Ok(Box::new(segment.bind(&model, call, self.stream(lane))?))
    }

    fn record(&self, lane: usize, event: usize) -> Result<(), DeviceError> {
        // SAFETY: event and stream are ours.
        let code = unsafe { (self.cann.acl.aclrtRecordEvent)(self.events[event], self.stream(lane)) };
        Ok(self.cann.acl("aclrtRecordEvent", code)?)
    }

    fn wait(&self, lane: usize, event: usize) -> Result<(), DeviceError> {
        // SAFETY: event and stream are ours.
        let code = unsafe { (self.cann.acl.aclrtStreamWaitEvent)(self.stream(lane), self.events[event]) };
        Ok(self.cann.acl("aclrtStreamWaitEvent", code)?)
    }

    fn host(&self, bytes: u64) -> Result<*mut u8, DeviceError> {
        let mut at = std::ptr::null_mut();
        // SAFETY: the pointer is ours.
        let code = unsafe { (self.cann.acl.aclrtMallocHost)(&mut at, bytes as usize) };
        self.cann.acl("aclrtMallocHost", code)?;
        // SAFETY: just allocated with this length.
        unsafe { std::ptr::write_bytes(at.cast::<u8>(), 0, bytes as usize) };
        *lock(&self.host) = Some((at as usize, bytes));
        Ok(at.cast())
    }

    unsafe fn copy(&self, lane: usize, from: Place, to: Place, bytes: u64) -> Result<(), DeviceError> {
        let bytes = bytes as usize;
        let kind = match (from.space, to.space) {
            (Space::Device, Space::Device) => MEMCPY_DEVICE_TO_DEVICE,
            (Space::Host, Space::Device) => MEMCPY_HOST_TO_DEVICE,
            (Space::Device, Space::Host) => MEMCPY_DEVICE_TO_HOST,
            (Space::Host, Space::Host) => return Err(DeviceError("a copy from the host to the host".into())),
        };
        let (from, to) = (self.place(from, bytes)?, self.place(to, bytes)?);
        // SAFETY: both are inside their memories; the rest says the caller.
        Ok(unsafe { self.copy_on(lane, to, from, bytes, kind) }?)
    }

    unsafe fn feed(&self, lane: usize, from: &[u8], to: u64) -> Result<(), DeviceError> {
        let (target, pinned) = (self.at(to, from.len())?, self.pinned(to, from.len())?);
        // SAFETY: the host memory has this length, and the step before, which read it, is over.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), pinned.cast(), from.len()) };
        // SAFETY: nobody else has the host memory; the rest says the caller.
        Ok(unsafe { self.copy_on(lane, target, pinned, from.len(), MEMCPY_HOST_TO_DEVICE) }?)
    }

    fn finish(&self, lane: usize, over: &dyn Fn() -> bool) -> Result<(), Unfinished> {
        let (mut stuck, mut since) = (vec![], Instant::now());
        loop {
            let glance = GLANCE.min(self.patience).as_millis() as i32;
            // SAFETY: the stream is ours.
            let code = unsafe { (self.cann.acl.aclrtSynchronizeStreamWithTimeout)(self.stream(lane), glance) };
            if code != ERROR_STREAM_SYNC_TIMEOUT {
                let checked = self.cann.acl("aclrtSynchronizeStreamWithTimeout", code);
                let failed = |error: CannError| Unfinished::Failed { collective: None, error: error.into() };
                return checked.map_err(failed);
            }
            if over() {
                return Err(Unfinished::Over);
            }
            // Those of other lanes, too, for which this one may wait.
            let unfinished = self.unfinished();
            let collective = unfinished.iter().copied().flatten().next();
            if unfinished != stuck || collective.is_none() {
                (stuck, since) = (unfinished, Instant::now());
            } else if since.elapsed() >= self.patience {
                let why = format!("the device has waited {} s for other ranks in it", since.elapsed().as_secs());
                return Err(Unfinished::Failed { collective, error: DeviceError(why) });
            }
        }
    }

    fn abandon(&self) {
        self.lost.store(true, SeqCst);
    }

    fn read(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        let (at, bytes) = (self.at(from, to.len())?, to.len());
        // SAFETY: inside the memory, and no stream is busy with it, says the caller.
        let code =
            unsafe { (self.cann.acl.aclrtMemcpy)(to.as_mut_ptr().cast(), bytes, at, bytes, MEMCPY_DEVICE_TO_HOST) };
        Ok(self.cann.acl("aclrtMemcpy", code)?)
    }

    fn write(&self, from: &[u8], to: u64) -> Result<(), DeviceError> {
        let (at, bytes) = (self.at(to, from.len())?, from.len());
        // SAFETY: inside the memory, and no stream is busy, says the caller.
        let code =
            unsafe { (self.cann.acl.aclrtMemcpy)(at, bytes, from.as_ptr().cast(), bytes, MEMCPY_HOST_TO_DEVICE) };
        Ok(self.cann.acl("aclrtMemcpy", code)?)
    }
}

impl Drop for AscendDevice {
    fn drop(&mut self) {
        if self.lost.load(SeqCst) {
            // Streams may still be busy with all of this.
            std::mem::forget(std::mem::take(&mut *lock(&self.models)));
            return;
        }
        // SAFETY: all was made in `new` and `mark`, streams are idle, and launches and collectives, which use it, are gone.
        unsafe {
            let acl = &self.cann.acl;
            (acl.aclrtSetCurrentContext)(self.context);
            lock(&self.models).clear();
            for stream in self.streams.iter().filter(|s| !s.is_null()) {
                (acl.aclrtDestroyStream)(*stream);
            }
            let marks: Vec<Arc<Mark>> = self.collectives.iter().flat_map(|m| lock(m).clone()).collect();
            let events = self.events.iter().copied().chain(marks.iter().map(|m| m.event)).filter(|e| !e.is_null());
            for event in events {
                (acl.aclrtDestroyEvent)(event);
            }
            let host = lock(&self.host).map(|(at, _)| at);
            for at in lock(&self.pinned).values().chain(&host) {
                (acl.aclrtFreeHost)(*at as Pointer);
            }
            if !self.memory.is_null() {
                (acl.aclrtFree)(self.memory);
            }
            if !self.context.is_null() {
                (acl.aclrtDestroyContext)(self.context);
            }
        }
    }
}
