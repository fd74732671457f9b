//! Errors: the text of the last one on each thread, and those that are made to happen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::Mutex;

use crate::{Code, INNER};

/// A code and its text.
pub type Error = (Code, String);

thread_local! {
    static RECENT: RefCell<CString> = RefCell::default();
}

/// The code of a result; its text is kept for `aclGetRecentErrMsg`.
pub fn code(result: Result<(), Error>) -> Code {
    let Err((code, text)) = result else { return crate::SUCCESS };
    RECENT.set(CString::new(text).unwrap_or_default());
    code
}

/// Counts a call; fails if it is the one that `EMULATOR_FAIL` names.
pub fn counted(name: &str) -> Result<(), Error> {
    static CALLS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
    let Ok(wish) = std::env::var("EMULATOR_FAIL") else { return Ok(()) };
    let Some((_, number)) = wish.split_once(':').filter(|(n, _)| *n == name) else { return Ok(()) };
    let mut calls = CALLS.lock().expect("nobody panics with it");
    let count = calls.entry(name.into()).or_default();
    *count += 1;
    match number.parse() {
        Ok(n) if *count == n => Err((INNER, format!("EZ9999: {name} fails on purpose, at call {n}"))),
        _ => Ok(()),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn aclGetRecentErrMsg() -> *const c_char {
    RECENT.with_borrow(|text| if text.is_empty() { std::ptr::null() } else { text.as_ptr() })
}
