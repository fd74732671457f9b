//! Communicators: how members find each other by the root's information, and the sockets between them.

use std::ffi::{CStr, c_char, c_void};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::{Code, PARAMETER, SUCCESS, TIMEOUT};

const ROOT_BYTES: usize = 4108;
const CONFIG_MAGIC: u32 = 0xf0f0_f0f0;
/// How long members wait for each other (`HCCL_CONNECT_TIMEOUT`).
const CONNECT: Duration = Duration::from_secs(120);

pub struct Communicator {
    pub rank: usize,
    /// By rank; none for this one.
    pub peers: Vec<Option<UnixStream>>,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclGetRootInfo(root: *mut [u8; ROOT_BYTES]) -> Code {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("hccl-emulator/{}/{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
    let mut bytes = [0; ROOT_BYTES];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the caller's pointer, by CANN's contract.
    unsafe { *root = bytes };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclCommInitRootInfo(
    ranks: u32,
    root: *const [u8; ROOT_BYTES],
    rank: u32,
    out: *mut *mut c_void,
) -> Code {
    // SAFETY: the caller's pointers, by CANN's contract.
    let name = CStr::from_bytes_until_nul(unsafe { &*root }).ok().and_then(|n| n.to_str().ok());
    let Some(name) = name.filter(|n| n.starts_with("hccl-emulator/") && rank < ranks) else { return PARAMETER };
    match connect(name, ranks as usize, rank as usize) {
        Ok(communicator) => {
            // SAFETY: the caller's pointer, by CANN's contract.
            unsafe { *out = Arc::into_raw(Arc::new(communicator)).cast_mut().cast() };
            SUCCESS
        }
        Err(_) => TIMEOUT,
    }
}

/// Sizes of `HcclCommConfig`, and the latest version of each: as in torch-npu 2.7.1 and 2.14.0, and in pyhccl 0.1.0.
const CONFIGS: [(usize, u32); 3] = [(312, 6), (2240, 10), (2248, 11)];

/// The beginning of `HcclCommConfig`, the same in all its versions.
#[repr(C)]
struct ConfigHead {
    size: usize,
    magic: u32,
    version: u32,
    reserved: u64,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclCommInitRootInfoConfig(
    ranks: u32,
    root: *const [u8; ROOT_BYTES],
    rank: u32,
    config: *const c_void,
    out: *mut *mut c_void,
) -> Code {
    // SAFETY: every version begins with this, by CANN's contract.
    let head = unsafe { &*config.cast::<ConfigHead>() };
    let known = |&(size, version): &(usize, u32)| head.size == size && (1..=version).contains(&head.version);
    if head.magic != CONFIG_MAGIC || !CONFIGS.iter().any(known) {
        return PARAMETER;
    }
    // SAFETY: the same contract.
    unsafe { HcclCommInitRootInfo(ranks, root, rank, out) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclCommDestroy(communicator: *mut c_void) -> Code {
    // SAFETY: made by an init, and not destroyed before.
    drop(unsafe { Arc::from_raw(communicator.cast::<Communicator>()) });
    SUCCESS
}

/// Another owner of a communicator that a caller holds.
pub unsafe fn held(communicator: *mut c_void) -> Arc<Communicator> {
    let communicator = communicator.cast::<Communicator>().cast_const();
    // SAFETY: the caller's own count is alive, by CANN's contract.
    unsafe {
        Arc::increment_strong_count(communicator);
        Arc::from_raw(communicator)
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclGetRankSize(communicator: *mut c_void, out: *mut u32) -> Code {
    // SAFETY: the caller's pointers, by CANN's contract.
    unsafe { *out = held(communicator).peers.len() as u32 };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn HcclGetRankId(communicator: *mut c_void, out: *mut u32) -> Code {
    // SAFETY: the caller's pointers, by CANN's contract.
    unsafe { *out = held(communicator).rank as u32 };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn HcclGetErrorString(code: Code) -> *const c_char {
    let text = match code {
        SUCCESS => c"no error",
        PARAMETER => c"parameter error",
        TIMEOUT => c"timeout",
        _ => c"unknown error",
    };
    text.as_ptr()
}

/// Each member listens under its own name, connects to those before it, and lets those behind it in.
fn connect(name: &str, ranks: usize, rank: usize) -> std::io::Result<Communicator> {
    let end = Instant::now() + CONNECT;
    let address = |rank: usize| SocketAddr::from_abstract_name(format!("{name}/{rank}"));
    let listener = UnixListener::bind_addr(&address(rank)?)?;
    let mut peers: Vec<Option<UnixStream>> = (0..ranks).map(|_| None).collect();
    for (other, peer) in peers.iter_mut().enumerate().take(rank) {
        let address = address(other)?;
        let mut stream = patient(end, || UnixStream::connect_addr(&address))?;
        stream.write_all(&(rank as u32).to_le_bytes())?;
        *peer = Some(stream);
    }
    listener.set_nonblocking(true)?;
    for _ in rank + 1..ranks {
        let (mut stream, _) = patient(end, || listener.accept())?;
        stream.set_nonblocking(false)?;
        let mut who = [0; 4];
        stream.read_exact(&mut who)?;
        let peer = peers.get_mut(u32::from_le_bytes(who) as usize);
        *peer.ok_or(ErrorKind::InvalidData)? = Some(stream);
    }
    Ok(Communicator { rank, peers })
}

/// Tries again until somebody is there.
fn patient<T>(end: Instant, mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match attempt() {
            Err(e)
                if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::WouldBlock | ErrorKind::NotFound) =>
            {
                if Instant::now() > end {
                    return Err(e);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}
