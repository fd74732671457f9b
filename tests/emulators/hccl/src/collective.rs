//! Collectives: each an exchange of messages between the members, and what is made of what came.

use std::ffi::c_void;
use std::io::{Read, Write};
use std::sync::Arc;

use crate::communicator::{Communicator, held};
use crate::dtype;
use crate::stream::{Memory, submit};
use crate::{Code, PARAMETER, SUCCESS};

impl Communicator {
    /// Sends and receives at the same time; gives what came. Messages between two members keep their order, and one to
    /// oneself is taken in its order, too. Whoever is cut off waits for ever, as on a device.
    fn exchange(&self, sends: &[(usize, &[u8])], receives: &[(usize, usize)]) -> Vec<Vec<u8>> {
        let mut own = sends.iter().filter(|(to, _)| *to == self.rank).map(|(_, bytes)| bytes.to_vec());
        std::thread::scope(|scope| {
            for (to, peer) in self.peers.iter().enumerate() {
                let Some(mut peer) = peer.as_ref() else { continue };
                let own: Vec<&[u8]> = sends.iter().filter(|(other, _)| *other == to).map(|(_, bytes)| *bytes).collect();
                if !own.is_empty() {
                    scope.spawn(move || {
                        let send = |bytes: &[u8]| {
                            peer.write_all(&(bytes.len() as u64).to_le_bytes())?;
                            peer.write_all(bytes)
                        };
                        if own.into_iter().try_for_each(send).is_err() {
                            forever();
                        }
                    });
                }
            }
            let receive = |&(from, bytes): &(usize, usize)| match &self.peers[from] {
                None => own.next().unwrap_or_else(|| forever()),
                Some(peer) => read(peer, bytes),
            };
            receives.iter().map(receive).collect()
        })
    }

    fn ranks(&self) -> usize {
        self.peers.len()
    }
}

fn read(mut peer: &std::os::unix::net::UnixStream, bytes: usize) -> Vec<u8> {
    let mut length = [0; 8];
    let mut out = vec![0; bytes];
    let whole = peer.read_exact(&mut length).and_then(|()| peer.read_exact(&mut out));
    // Members that do not mean the same never get on, on a device neither.
    if whole.is_err() || u64::from_le_bytes(length) != bytes as u64 {
        forever();
    }
    out
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Submits what a collective does, with its communicator and the bytes of `count` elements.
unsafe fn collective(
    handle: *mut c_void,
    stream: *mut c_void,
    (count, dtype): (u64, i32),
    work: impl FnOnce(Arc<Communicator>) + Send + 'static,
) -> Code {
    if handle.is_null() || dtype::bytes(dtype).and_then(|b| b.checked_mul(count as usize)).is_none() {
        return PARAMETER;
    }
    // SAFETY: the caller's communicator, by CANN's contract.
    let communicator = unsafe { held(handle) };
    submit(stream, move || work(communicator))
}

fn size(count: u64, dtype: i32) -> usize {
    dtype::bytes(dtype).unwrap_or(0) * count as usize
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclAllReduce(
    from: *mut c_void,
    to: *mut c_void,
    count: u64,
    dtype: i32,
    op: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    let bytes = size(count, dtype);
    let (from, to) = (Memory::new(from, bytes), Memory::new(to, bytes));
    let work = move |c: Arc<Communicator>| {
        let sends: Vec<_> = (0..c.ranks()).map(|peer| (peer, from.read())).collect();
        let receives: Vec<_> = (0..c.ranks()).map(|peer| (peer, bytes)).collect();
        let parts = c.exchange(&sends, &receives);
        to.write(0, &dtype::reduce(dtype, op, &parts).unwrap_or_else(|| forever()));
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclAllGather(
    from: *mut c_void,
    to: *mut c_void,
    count: u64,
    dtype: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    let bytes = size(count, dtype);
    let (from, start) = (Memory::new(from, bytes), to as usize);
    let work = move |c: Arc<Communicator>| {
        let to = Memory::new(start as *const c_void, bytes * c.ranks());
        let sends: Vec<_> = (0..c.ranks()).map(|peer| (peer, from.read())).collect();
        let receives: Vec<_> = (0..c.ranks()).map(|peer| (peer, bytes)).collect();
        c.exchange(&sends, &receives).iter().enumerate().for_each(|(i, part)| to.write(i * bytes, part));
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclReduceScatter(
    from: *mut c_void,
    to: *mut c_void,
    count: u64,
    dtype: i32,
    op: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    let bytes = size(count, dtype);
    let (start, to) = (from as usize, Memory::new(to, bytes));
    let work = move |c: Arc<Communicator>| {
        let from = Memory::new(start as *const c_void, bytes * c.ranks());
        let sends: Vec<_> = from.read().chunks(bytes.max(1)).enumerate().collect();
        let receives: Vec<_> = (0..c.ranks()).map(|peer| (peer, bytes)).collect();
        let parts = c.exchange(&sends, &receives);
        to.write(0, &dtype::reduce(dtype, op, &parts).unwrap_or_else(|| forever()));
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclAlltoAll(
    from: *const c_void,
    count: u64,
    dtype: i32,
    to: *const c_void,
    to_count: u64,
    to_dtype: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    if (count, dtype) != (to_count, to_dtype) {
        return PARAMETER;
    }
    let bytes = size(count, dtype);
    let (from, to) = (from as usize, to as usize);
    let work = move |c: Arc<Communicator>| {
        let [from, to] = [from, to].map(|at| Memory::new(at as *const c_void, bytes * c.ranks()));
        let sends: Vec<_> = from.read().chunks(bytes.max(1)).enumerate().collect();
        let receives: Vec<_> = (0..c.ranks()).map(|peer| (peer, bytes)).collect();
        c.exchange(&sends, &receives).iter().enumerate().for_each(|(i, part)| to.write(i * bytes, part));
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclBroadcast(
    buffer: *mut c_void,
    count: u64,
    dtype: i32,
    root: u32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    let bytes = size(count, dtype);
    let buffer = Memory::new(buffer, bytes);
    let work = move |c: Arc<Communicator>| {
        let root = root as usize;
        if c.rank == root {
            let sends: Vec<_> = (0..c.ranks()).filter(|p| *p != root).map(|peer| (peer, buffer.read())).collect();
            c.exchange(&sends, &[]);
        } else {
            c.exchange(&[], &[(root, bytes)]).iter().for_each(|part| buffer.write(0, part));
        }
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

/// A send is over when it was received.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclSend(
    buffer: *mut c_void,
    count: u64,
    dtype: i32,
    peer: u32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    let buffer = Memory::new(buffer, size(count, dtype));
    let work = move |c: Arc<Communicator>| {
        c.exchange(&[(peer as usize, buffer.read())], &[(peer as usize, 0)]);
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclRecv(
    buffer: *mut c_void,
    count: u64,
    dtype: i32,
    peer: u32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    let buffer = Memory::new(buffer, size(count, dtype));
    let work = move |c: Arc<Communicator>| {
        let peer = peer as usize;
        c.exchange(&[], &[(peer, buffer.bytes)]).iter().for_each(|part| buffer.write(0, part));
        c.exchange(&[(peer, &[])], &[]);
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (count, dtype), work) }
}

#[repr(C)]
pub struct SendRecvItem {
    kind: i32,
    buffer: *mut c_void,
    count: u64,
    dtype: i32,
    remote: u32,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclBatchSendRecv(
    items: *mut SendRecvItem,
    count: u32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> Code {
    // SAFETY: the caller's items, by CANN's contract.
    let items = unsafe { std::slice::from_raw_parts(items, count as usize) };
    if items.iter().any(|i| dtype::bytes(i.dtype).is_none() || !(0..=1).contains(&i.kind)) {
        return PARAMETER;
    }
    let read = |i: &SendRecvItem| (i.kind, i.remote as usize, Memory::new(i.buffer, size(i.count, i.dtype)));
    let all: Vec<(i32, usize, Memory)> = items.iter().map(read).collect();
    let work = move |c: Arc<Communicator>| {
        let of = |kind: i32| all.iter().filter(move |item| item.0 == kind);
        let sends: Vec<_> = of(0).map(|(_, peer, memory)| (*peer, memory.read())).collect();
        let receives: Vec<_> = of(1).map(|(_, peer, memory)| (*peer, memory.bytes)).collect();
        let parts = c.exchange(&sends, &receives);
        of(1).zip(parts).for_each(|((_, _, memory), part)| memory.write(0, &part));
    };
    // SAFETY: the caller's communicator, by CANN's contract.
    unsafe { collective(communicator, stream, (0, 4), work) }
}

const _: () = assert!(SUCCESS == 0 && size_of::<SendRecvItem>() == 32);
