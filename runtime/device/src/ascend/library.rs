//! CANN's libraries, opened at run time: what of them is missing, and where it was looked for.
#![allow(unsafe_code, reason = "loading libraries and reading their texts")]

use std::ffi::CStr;
use std::sync::Arc;

use libloading::Library;
use runtime_core::DeviceError;

use super::abi::{Acl, Code, ERROR_REPEAT_INITIALIZE, Hccl, SUCCESS};
use super::errors::meaning;

/// AscendCL and HCCL, initialised. The tables stay valid as long as the libraries are open, and these never close: CANN
/// keeps threads of its own.
pub struct Cann {
    pub acl: Acl,
    pub hccl: Option<Hccl>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum CannError {
    #[error(
        "CANN's {library} is not there: {why}; the loader looks along LD_LIBRARY_PATH, which CANN's set_env.sh sets"
    )]
    Library { library: &'static str, why: String },
    #[error("CANN's libraries ({libraries}) lack {}", .symbols.join(", "))]
    Symbols { libraries: String, symbols: Vec<&'static str> },
    #[error("{call} failed with code {code}{meaning}: {message}")]
    Call { call: &'static str, code: Code, meaning: String, message: String },
    #[error("CANN sees no NPU on this machine (ASCEND_RT_VISIBLE_DEVICES may hide them)")]
    NoDevice,
    #[error("segment `{name}` does not fit the plan: {why}")]
    Segment { name: String, why: String },
    #[error("{bytes} bytes at {offset} are outside the device's memory")]
    Outside { offset: u64, bytes: usize },
}

impl From<CannError> for DeviceError {
    fn from(error: CannError) -> Self {
        Self(error.to_string())
    }
}

impl Cann {
    /// Opens what a run needs, HCCL only where there are collectives.
    pub fn open(collectives: bool) -> Result<Arc<Self>, CannError> {
        let acl = resolve(&["libascendcl.so"], Acl::resolve)?;
        // Newer releases keep the communicators in a library of their own.
        let hccl = collectives.then(|| resolve(&["libhccl.so", "libhcomm.so"], Hccl::resolve)).transpose()?;
        let cann = Self { acl, hccl };
        // SAFETY: no configuration file, which the function allows.
        let code = unsafe { (cann.acl.aclInit)(std::ptr::null()) };
        if code != ERROR_REPEAT_INITIALIZE {
            cann.acl("aclInit", code)?;
        }
        Ok(Arc::new(cann))
    }

    /// Turns a code of AscendCL into what went wrong.
    pub fn acl(&self, call: &'static str, code: Code) -> Result<(), CannError> {
        match code {
            SUCCESS => Ok(()),
            _ => Err(CannError::Call { call, code, meaning: meaning(code), message: self.recent() }),
        }
    }

    /// The same for HCCL, which has a text for each code as well.
    pub fn hccl(&self, call: &'static str, code: Code) -> Result<(), CannError> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: any code may be asked for.
        let known = self.hccl.as_ref().map(|hccl| text(unsafe { (hccl.HcclGetErrorString)(code) }));
        let known = known.filter(|text| !text.is_empty());
        let meaning = known.map_or_else(String::new, |text| format!(" ({text})"));
        Err(CannError::Call { call, code, meaning, message: self.recent() })
    }

    fn recent(&self) -> String {
        // SAFETY: the function takes nothing.
        match text(unsafe { (self.acl.aclGetRecentErrMsg)() }) {
            message if message.is_empty() => "CANN says nothing more".into(),
            message => message,
        }
    }
}

fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: CANN's texts end with a zero and live until the thread's next call, and this copies at once.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().trim().into()
}

/// The loader's own words, which lie beneath the error.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The first library must be there; the others may be.
fn resolve<T>(
    names: &[&'static str],
    table: impl Fn(&[Library]) -> Result<T, Vec<&'static str>>,
) -> Result<T, CannError> {
    let mut libraries = vec![];
    for (i, &library) in names.iter().enumerate() {
        // SAFETY: CANN's own library, whose initialisers are made to be run by any process.
        match unsafe { Library::new(library) } {
            Ok(open) => libraries.push(open),
            Err(error) if i == 0 => return Err(CannError::Library { library, why: reason(&error) }),
            Err(_) => {}
        }
    }
    let table = table(&libraries).map_err(|symbols| CannError::Symbols { libraries: names.join(", "), symbols })?;
    libraries.into_iter().for_each(std::mem::forget);
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let error = resolve(&["libno-such-thing.so"], Acl::resolve).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(
            error.starts_with("CANN's libno-such-thing.so is not there: libno-such-thing.so: cannot open"),
            "{error}"
        );
        assert!(error.contains("set_env.sh"), "{error}");
    }

    #[test]
    fn missing_symbols_are_named() {
        let error = resolve(&["libc.so.6", "libno-such-thing.so"], Hccl::resolve).err().map(|e| e.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.starts_with("CANN's libraries (libc.so.6, libno-such-thing.so) lack HcclGetRootInfo, "),
            "{error}"
        );
        assert!(error.ends_with("HcclSend, HcclRecv"), "{error}");
    }
}
