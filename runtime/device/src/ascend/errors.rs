//! What AscendCL's error codes mean: those that its functions for devices, memory, streams and models give.

use super::abi::Code;

pub struct Known {
    pub code: Code,
    /// As the headers call it.
    pub name: &'static str,
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        pub const KNOWN: &[Known] = &[$(Known { code: $code, name: stringify!($name), meaning: $meaning }),*];
    };
}

codes! {
    ACL_ERROR_INVALID_PARAM = 100_000, "an argument is not valid";
    ACL_ERROR_UNINITIALIZE = 100_001, "AscendCL is not initialised";
    ACL_ERROR_INVALID_FILE = 100_003, "the model's file is not valid";
    ACL_ERROR_PARSE_FILE = 100_006, "the model's file cannot be parsed";
    ACL_ERROR_INVALID_MODEL_ID = 100_011, "no model has that number";
    ACL_ERROR_DESERIALIZE_MODEL = 100_012, "the model does not decode: atc of another release may have made it";
    ACL_ERROR_PARSE_MODEL = 100_013, "the model cannot be parsed";
    ACL_ERROR_READ_MODEL_FAILURE = 100_014, "the model cannot be read";
    ACL_ERROR_MODEL_SIZE_INVALID = 100_015, "the model's size is not valid";
    ACL_ERROR_MODEL_INPUT_NOT_MATCH = 100_017, "the inputs do not fit the model";
    ACL_ERROR_MODEL_OUTPUT_NOT_MATCH = 100_018, "the outputs do not fit the model";
    ACL_ERROR_OP_NOT_FOUND = 100_024, "an operator is not there: CANN's operator package may be missing";
    ACL_ERROR_UNSUPPORTED_DATA_TYPE = 100_026, "an element type is not supported";
    ACL_ERROR_BAD_ALLOC = 200_000, "memory cannot be allocated";
    ACL_ERROR_INVALID_DEVICE = 200_002, "there is no such device";
    ACL_ERROR_MEMORY_ADDRESS_UNALIGNED = 200_003, "an address is not aligned";
    ACL_ERROR_INVALID_RESOURCE_HANDLE = 200_005, "a handle is not valid";
    ACL_ERROR_FEATURE_UNSUPPORTED = 200_006, "this device or release cannot do it";
    ACL_ERROR_STORAGE_OVER_LIMIT = 300_000, "a limit of storage is passed";
    ACL_ERROR_INTERNAL_ERROR = 500_000, "an error inside AscendCL";
    ACL_ERROR_FAILURE = 500_001, "an error inside CANN";
    ACL_ERROR_GE_FAILURE = 500_002, "an error inside GE";
    ACL_ERROR_RT_FAILURE = 500_003, "an error inside the runtime";
    ACL_ERROR_DRV_FAILURE = 500_004, "an error inside the driver";
    ACL_ERROR_RT_PARAM_INVALID = 107_000, "an argument is not valid";
    ACL_ERROR_RT_INVALID_DEVICEID = 107_001, "there is no such device";
    ACL_ERROR_RT_CONTEXT_NULL = 107_002, "the thread has no context";
    ACL_ERROR_RT_STREAM_CONTEXT = 107_003, "the stream is of another context";
    ACL_ERROR_RT_MODEL_CONTEXT = 107_004, "the model is of another context";
    ACL_ERROR_RT_INVALID_HANDLE = 107_017, "a handle is not valid";
    ACL_ERROR_RT_WAIT_TIMEOUT = 107_019, "waiting took too long";
    ACL_ERROR_RT_TASK_TIMEOUT = 107_020, "a task took too long";
    ACL_ERROR_RT_FEATURE_NOT_SUPPORT = 207_000, "this device or release cannot do it";
    ACL_ERROR_RT_MEMORY_ALLOCATION = 207_001, "the device is out of memory";
    ACL_ERROR_RT_NO_DEVICE = 207_004, "there is no device";
    ACL_ERROR_RT_RESOURCE_ALLOC_FAIL = 207_005, "a resource of the device cannot be allocated";
    ACL_ERROR_RT_NO_PERMISSION = 207_006, "the user may not use the device";
    ACL_ERROR_RT_NO_EVENT_RESOURCE = 207_007, "the device has no more events";
    ACL_ERROR_RT_NO_STREAM_RESOURCE = 207_008, "the device has no more streams";
    ACL_ERROR_RT_NO_MODEL_RESOURCE = 207_010, "the device has no more models";
    ACL_ERROR_RT_DEVICE_OOM = 207_018, "the device is out of memory";
    ACL_ERROR_RT_INTERNAL_ERROR = 507_000, "an error inside the runtime";
    ACL_ERROR_RT_TS_ERROR = 507_001, "an error of the task scheduler";
    ACL_ERROR_RT_STREAM_TASK_FULL = 507_002, "the stream is full";
    ACL_ERROR_RT_SOC_VERSION = 507_008, "it was compiled for another processor";
    ACL_ERROR_RT_LOST_HEARTBEAT = 507_010, "the device no longer answers";
    ACL_ERROR_RT_MODEL_EXECUTE = 507_011, "the model failed";
    ACL_ERROR_RT_AICORE_TIMEOUT = 507_014, "an operator took too long on an AI core";
    ACL_ERROR_RT_AICORE_EXCEPTION = 507_015, "an operator failed on an AI core";
    ACL_ERROR_RT_AICORE_TRAP_EXCEPTION = 507_016, "an operator trapped on an AI core";
    ACL_ERROR_RT_AICPU_TIMEOUT = 507_017, "an operator took too long on an AI CPU";
    ACL_ERROR_RT_AICPU_EXCEPTION = 507_018, "an operator failed on an AI CPU";
    ACL_ERROR_RT_VECTOR_CORE_TIMEOUT = 507_034, "an operator took too long on a vector core";
    ACL_ERROR_RT_VECTOR_CORE_EXCEPTION = 507_035, "an operator failed on a vector core";
    ACL_ERROR_RT_STREAM_SYNC_TIMEOUT = 507_046, "the stream took too long";
    ACL_ERROR_RT_FFTS_PLUS_TIMEOUT = 507_048, "a task took too long";
    ACL_ERROR_RT_FFTS_PLUS_EXCEPTION = 507_049, "a task failed";
    ACL_ERROR_RT_DEVICE_MEM_ERROR = 507_053, "the device's memory failed";
    ACL_ERROR_RT_HBM_MULTI_BIT_ECC_ERROR = 507_054, "the device's memory lost bits";
    ACL_ERROR_RT_LINK_ERROR = 507_056, "a link between devices failed";
    ACL_ERROR_RT_SUSPECT_REMOTE_ERROR = 507_057, "another device seems to have failed";
    ACL_ERROR_RT_DRV_INTERNAL_ERROR = 507_899, "an error inside the driver";
    ACL_ERROR_RT_AICPU_INTERNAL_ERROR = 507_900, "an error inside the AI CPU";
}

/// ` (NAME: what it means)`, or nothing for a code that is not known.
pub fn meaning(code: Code) -> String {
    let known = KNOWN.iter().find(|known| known.code == code);
    known.map_or_else(String::new, |known| format!(" ({}: {})", known.name, known.meaning))
}
