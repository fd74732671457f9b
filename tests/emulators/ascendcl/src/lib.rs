//! An emulator of libascendcl: the symbols that mmrun uses, on the host.
//!
//! Memory of the device is at addresses that the host cannot touch, streams are threads with a queue, and models are GE
//! graphs that `emulator-ge` evaluates. `EMULATOR_FAIL=NAME:N` lets the N-th call of a function fail, or with the name
//! `model` the N-th model while it runs.
#![allow(unsafe_code, non_snake_case, reason = "the functions of a C interface, under their own names")]
#![allow(clippy::missing_safety_doc, reason = "their contracts are CANN's")]

mod device;
mod error;
mod memory;
mod model;
mod stream;

/// `aclError`.
type Code = i32;

const SUCCESS: Code = 0;
const INVALID_PARAM: Code = 100_000;
const REPEAT_INITIALIZE: Code = 100_002;
const BAD_ALLOC: Code = 200_000;
const STREAM_SYNC_TIMEOUT: Code = 507_046;
const INNER: Code = 507_015;
