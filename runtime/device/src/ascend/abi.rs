//! The C interface of AscendCL and HCCL, as far as it is called here: types, constants, and the two tables of functions.
//!
//! Figures and signatures are those of the headers inside the `torch-npu` 2.14.0 wheel: `tests/headers/asserts.cc` says in
//! C++ what is declared here, and `make oracle` compiles it against them.
#![allow(unsafe_code, non_snake_case, reason = "functions of C, under their own names")]

use std::ffi::{c_char, c_void};

pub type Pointer = *mut c_void;

/// `aclError` and `HcclResult`; zero is success.
pub type Code = i32;

pub const SUCCESS: Code = 0;
pub const MEM_MALLOC_HUGE_FIRST: i32 = 0;
pub const MEMCPY_HOST_TO_DEVICE: i32 = 1;
pub const MEMCPY_DEVICE_TO_HOST: i32 = 2;
pub const MEMCPY_DEVICE_TO_DEVICE: i32 = 3;
/// An event that orders streams and keeps no time.
pub const EVENT_SYNC: u32 = 1;
pub const EVENT_STATUS_COMPLETE: i32 = 1;
pub const ERROR_REPEAT_INITIALIZE: Code = 100_002;
pub const ERROR_STREAM_SYNC_TIMEOUT: Code = 507_046;

pub const HCCL_INT32: i32 = 2;
pub const HCCL_FP16: i32 = 3;
pub const HCCL_FP32: i32 = 4;
pub const HCCL_INT64: i32 = 5;
pub const HCCL_UINT8: i32 = 7;
pub const HCCL_FP64: i32 = 10;
pub const HCCL_BFP16: i32 = 11;
pub const HCCL_SUM: i32 = 0;
pub const HCCL_MAX: i32 = 2;
pub const HCCL_SEND: i32 = 0;
pub const HCCL_RECV: i32 = 1;

/// Names the first member of a communicator to the others.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RootInfo {
    pub internal: [u8; 4108],
}

/// One message of `HcclBatchSendRecv`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SendRecvItem {
    pub kind: i32,
    pub buffer: Pointer,
    pub count: u64,
    pub dtype: i32,
    pub remote: u32,
}

/// `HcclCommConfig` as far as its sixth version goes, in the 312 bytes that every release reads: what came later is
/// told by a larger `size`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CommConfig {
    pub size: usize,
    pub magic: u32,
    pub version: u32,
    pub reserved: u64,
    pub buffer_size: u32,
    pub deterministic: u32,
    pub name: [u8; 128],
    pub udi: [u8; 128],
    pub expansion_mode: u32,
    pub traffic_class: u32,
    pub service_level: u32,
    pub world_rank: u32,
    pub job: u64,
}

pub const CONFIG_MAGIC: u32 = 0xf0f0_f0f0;
/// The version that knows names of communicators, which are the last that is said here.
pub const CONFIG_VERSION: u32 = 2;
/// For the figures that a configuration leaves to the environment.
pub const CONFIG_NOT_SET: u32 = 0xffff_ffff;

/// A type as C spells it.
pub trait Spelled {
    fn spelled() -> String;
}

macro_rules! spelled {
    ($($ty:ty = $word:literal),* $(,)?) => {
        $(impl Spelled for $ty { fn spelled() -> String { $word.into() } })*
    };
}

spelled! {
    i32 = "int32_t",
    u32 = "uint32_t",
    u64 = "uint64_t",
    usize = "size_t",
    c_char = "char",
    c_void = "void",
    RootInfo = "HcclRootInfo",
    CommConfig = "HcclCommConfig",
    SendRecvItem = "HcclSendRecvItem",
}

impl<T: Spelled> Spelled for *mut T {
    fn spelled() -> String {
        format!("{} *", T::spelled())
    }
}

impl<T: Spelled> Spelled for *const T {
    fn spelled() -> String {
        format!("{} const *", T::spelled())
    }
}

/// Declares a table of C functions and how to open it: each symbol in whichever library has it.
macro_rules! interface {
    ($(#[$doc:meta])* $table:ident { $($name:ident($($arg:ty),*) -> $out:ty;)* }) => {
        $(#[$doc])*
        pub struct $table {
            $(pub $name: unsafe extern "C" fn($($arg),*) -> $out,)*
        }

        impl $table {
            /// Looks every symbol up; gives the names of those that no library has.
            pub fn resolve(libraries: &[libloading::Library]) -> Result<Self, Vec<&'static str>> {
                let mut missing = vec![];
                $(
                    // SAFETY: the type is that of the headers, which a test compares; whoever keeps the table keeps the
                    // libraries.
                    let find = |l: &libloading::Library| unsafe {
                        let name = stringify!($name).as_bytes();
                        l.get::<unsafe extern "C" fn($($arg),*) -> $out>(name).ok().map(|f| *f)
                    };
                    let $name = libraries.iter().find_map(find);
                    if $name.is_none() {
                        missing.push(stringify!($name));
                    }
                )*
                match ($($name,)*) {
                    ($(Some($name),)*) => Ok(Self { $($name),* }),
                    _ => Err(missing),
                }
            }

            /// Name and type of each function, the type as C spells it.
            pub fn signatures() -> Vec<(&'static str, String)> {
                vec![$({
                    let arguments: Vec<String> = vec![$(<$arg as Spelled>::spelled()),*];
                    (stringify!($name), format!("{}({})", <$out as Spelled>::spelled(), arguments.join(", ")))
                },)*]
            }
        }
    };
}

interface! {
    /// AscendCL: devices, memory, streams, events and compiled models.
    Acl {
        aclInit(*const c_char) -> Code;
        aclGetRecentErrMsg() -> *const c_char;
        aclrtGetDeviceCount(*mut u32) -> Code;
        aclrtCreateContext(*mut Pointer, i32) -> Code;
        aclrtDestroyContext(Pointer) -> Code;
        aclrtSetCurrentContext(Pointer) -> Code;
        aclrtMalloc(*mut Pointer, usize, i32) -> Code;
        aclrtFree(Pointer) -> Code;
        aclrtMallocHost(*mut Pointer, usize) -> Code;
        aclrtFreeHost(Pointer) -> Code;
        aclrtMemcpy(Pointer, usize, *const c_void, usize, i32) -> Code;
        aclrtMemcpyAsync(Pointer, usize, *const c_void, usize, i32, Pointer) -> Code;
        aclrtCreateStream(*mut Pointer) -> Code;
        aclrtDestroyStream(Pointer) -> Code;
        aclrtSynchronizeStreamWithTimeout(Pointer, i32) -> Code;
        aclrtCreateEventExWithFlag(*mut Pointer, u32) -> Code;
        aclrtDestroyEvent(Pointer) -> Code;
        aclrtRecordEvent(Pointer, Pointer) -> Code;
        aclrtStreamWaitEvent(Pointer, Pointer) -> Code;
        aclrtQueryEventStatus(Pointer, *mut i32) -> Code;
        aclmdlLoadFromMemWithMem(*const c_void, usize, *mut u32, Pointer, usize, Pointer, usize) -> Code;
        aclmdlQuerySizeFromMem(*const c_void, usize, *mut usize, *mut usize) -> Code;
        aclmdlUnload(u32) -> Code;
        aclmdlCreateDesc() -> Pointer;
        aclmdlDestroyDesc(Pointer) -> Code;
        aclmdlGetDesc(Pointer, u32) -> Code;
        aclmdlGetNumInputs(Pointer) -> usize;
        aclmdlGetNumOutputs(Pointer) -> usize;
        aclmdlGetInputSizeByIndex(Pointer, usize) -> usize;
        aclmdlGetOutputSizeByIndex(Pointer, usize) -> usize;
        aclmdlCreateDataset() -> Pointer;
        aclmdlDestroyDataset(*const c_void) -> Code;
        aclmdlAddDatasetBuffer(Pointer, Pointer) -> Code;
        aclCreateDataBuffer(Pointer, usize) -> Pointer;
        aclDestroyDataBuffer(*const c_void) -> Code;
        aclmdlExecuteAsync(u32, *const c_void, Pointer, Pointer) -> Code;
    }
}

interface! {
    /// HCCL: communicators and collectives.
    Hccl {
        HcclGetRootInfo(*mut RootInfo) -> Code;
        HcclCommInitRootInfoConfig(u32, *const RootInfo, u32, *const CommConfig, *mut Pointer) -> Code;
        HcclCommDestroy(Pointer) -> Code;
        HcclGetErrorString(Code) -> *const c_char;
        HcclAllReduce(Pointer, Pointer, u64, i32, i32, Pointer, Pointer) -> Code;
        HcclAllGather(Pointer, Pointer, u64, i32, Pointer, Pointer) -> Code;
        HcclReduceScatter(Pointer, Pointer, u64, i32, i32, Pointer, Pointer) -> Code;
        HcclBroadcast(Pointer, u64, i32, u32, Pointer, Pointer) -> Code;
        HcclAlltoAll(*const c_void, u64, i32, *const c_void, u64, i32, Pointer, Pointer) -> Code;
        HcclBatchSendRecv(*mut SendRecvItem, u32, Pointer, Pointer) -> Code;
        HcclSend(Pointer, u64, i32, u32, Pointer, Pointer) -> Code;
        HcclRecv(Pointer, u64, i32, u32, Pointer, Pointer) -> Code;
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{align_of, offset_of, size_of};

    use super::*;

    fn size<S, F>(_: fn(&S) -> &F) -> usize {
        size_of::<F>()
    }

    /// Where a field lies and how large it is, in C's words.
    macro_rules! fields {
        ($ours:ident as $theirs:ident { $($own:ident = $name:ident),* $(,)? }) => {
            [$({
                let size = size(|s: &$ours| &s.$own);
                format!("FIELD({}, {}, {}, {size});", stringify!($theirs), stringify!($name), offset_of!($ours, $own))
            }),*]
        };
    }

    macro_rules! values {
        ($($name:ident = $value:expr),* $(,)?) => {
            [$(format!("static_assert({} == {:#x});", stringify!($name), $value)),*]
        };
    }

    /// What is declared above, as C++.
    fn declared() -> String {
        let mut lines = vec![
            "#include \"asserts.h\"".into(),
            format!("static_assert(sizeof(HcclRootInfo) == {});", size_of::<RootInfo>()),
            format!("static_assert(alignof(HcclRootInfo) == {});", align_of::<RootInfo>()),
            format!("static_assert(sizeof(HcclSendRecvItem) == {});", size_of::<SendRecvItem>()),
            format!("static_assert(alignof(HcclSendRecvItem) == {});", align_of::<SendRecvItem>()),
            format!("static_assert(alignof(HcclCommConfig) == {});", align_of::<CommConfig>()),
        ];
        lines.extend(fields!(SendRecvItem as HcclSendRecvItem {
            kind = sendRecvType,
            buffer = buf,
            count = count,
            dtype = dataType,
            remote = remoteRank,
        }));
        // What stands before the first of these, a macro of the headers says.
        lines.extend(values! { HCCL_COMM_CONFIG_INFO_BYTES = offset_of!(CommConfig, buffer_size) });
        lines.extend(fields!(CommConfig as HcclCommConfig {
            buffer_size = hcclBufferSize,
            deterministic = hcclDeterministic,
            name = hcclCommName,
            udi = hcclUdi,
            expansion_mode = hcclOpExpansionMode,
            traffic_class = hcclRdmaTrafficClass,
            service_level = hcclRdmaServiceLevel,
            world_rank = hcclWorldRankID,
            job = hcclJobID,
        }));
        // The first field of a later version.
        lines.push(format!(
            "static_assert(offsetof(HcclCommConfig, aclGraphZeroCopyEnable) == {});",
            size_of::<CommConfig>()
        ));
        lines.extend(values! {
            HCCL_COMM_CONFIG_MAGIC_WORD = CONFIG_MAGIC,
            HCCL_COMM_BUFFSIZE_CONFIG_NOT_SET = CONFIG_NOT_SET,
            HCCL_COMM_TRAFFIC_CLASS_CONFIG_NOT_SET = CONFIG_NOT_SET,
            HCCL_COMM_SERVICE_LEVEL_CONFIG_NOT_SET = CONFIG_NOT_SET,
            ACL_SUCCESS = SUCCESS,
            ACL_MEM_MALLOC_HUGE_FIRST = MEM_MALLOC_HUGE_FIRST,
            ACL_MEMCPY_HOST_TO_DEVICE = MEMCPY_HOST_TO_DEVICE,
            ACL_MEMCPY_DEVICE_TO_HOST = MEMCPY_DEVICE_TO_HOST,
            ACL_MEMCPY_DEVICE_TO_DEVICE = MEMCPY_DEVICE_TO_DEVICE,
            ACL_EVENT_SYNC = EVENT_SYNC,
            ACL_EVENT_RECORDED_STATUS_COMPLETE = EVENT_STATUS_COMPLETE,
            ACL_ERROR_REPEAT_INITIALIZE = ERROR_REPEAT_INITIALIZE,
            ACL_ERROR_RT_STREAM_SYNC_TIMEOUT = ERROR_STREAM_SYNC_TIMEOUT,
            HCCL_SUCCESS = SUCCESS,
            HCCL_DATA_TYPE_INT32 = HCCL_INT32,
            HCCL_DATA_TYPE_FP16 = HCCL_FP16,
            HCCL_DATA_TYPE_FP32 = HCCL_FP32,
            HCCL_DATA_TYPE_INT64 = HCCL_INT64,
            HCCL_DATA_TYPE_UINT8 = HCCL_UINT8,
            HCCL_DATA_TYPE_FP64 = HCCL_FP64,
            HCCL_DATA_TYPE_BFP16 = HCCL_BFP16,
            HCCL_REDUCE_SUM = HCCL_SUM,
            HCCL_REDUCE_MAX = HCCL_MAX,
            HCCL_SEND = HCCL_SEND,
            HCCL_RECV = HCCL_RECV,
        });
        let codes = super::super::errors::KNOWN.iter();
        lines.extend(codes.map(|known| format!("static_assert({} == {:#x});", known.name, known.code)));
        let functions = Acl::signatures().into_iter().chain(Hccl::signatures());
        lines.extend(functions.map(|(name, ty)| format!("FUNCTION({name}, {ty});")));
        lines.join("\n") + "\n"
    }

    /// With `UPDATE_ASSERTS` set, the file is written; `make oracle` compiles it against the real headers.
    #[test]
    fn the_asserts_say_what_is_declared() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/headers/asserts.cc");
        if std::env::var_os("UPDATE_ASSERTS").is_some() {
            std::fs::write(path, declared()).expect("writes");
        }
        let written = std::fs::read_to_string(path).expect("the asserts");
        for (ours, theirs) in declared().lines().zip(written.lines()) {
            assert_eq!(ours, theirs, "tests/headers/asserts.cc says other than the declarations");
        }
        assert_eq!(declared().lines().count(), written.lines().count());
    }
}
