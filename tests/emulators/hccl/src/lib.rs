//! An emulator of libhccl: the symbols that mmrun uses, and two that other callers ask for.
//!
//! The members of a communicator, threads or processes of one machine, are joined by Unix sockets, one for each pair.
//! A collective runs on its stream, or at once where there is none. What a peer does not send is waited for, for ever.
#![allow(unsafe_code, non_snake_case, reason = "the functions of a C interface, under their own names")]
#![allow(clippy::missing_safety_doc, reason = "their contracts are CANN's")]

mod collective;
mod communicator;
mod dtype;
mod stream;

/// `HcclResult`.
type Code = i32;

const SUCCESS: Code = 0;
const PARAMETER: Code = 1;
const TIMEOUT: Code = 9;
