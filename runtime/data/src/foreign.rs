//! What a file is that was taken for another: told from its first bytes, with the way out.

use crate::DataError;
use crate::data_file::DataFile;

/// Bytes that are looked at.
pub const HEAD: usize = 1024;

/// Why a file is not what it should be: what it is instead, where that is known, or else the reader's own reason.
pub fn refused(file: &DataFile, wanted: &str, reason: impl std::fmt::Display) -> DataError {
    let head = file.head(0, HEAD);
    DataError::format(file.path(), format!("no {wanted}: {}", identity(&head).unwrap_or_else(|| reason.to_string())))
}

/// Why a text that should be JSON does not read: what it is instead, or the place where the JSON is wrong.
pub fn no_json(text: &[u8], error: &serde_json::Error) -> String {
    let start = text.trim_ascii_start();
    let is_json = |start: &[u8]| start.starts_with(b"{") || start.starts_with(b"[");
    if without_bom(start) != start && is_json(without_bom(start).trim_ascii_start()) {
        return "it begins with a byte order mark, which JSON does not have; save it as UTF-8 without one".into();
    }
    let identity = identity(&text[..text.len().min(HEAD)]).filter(|_| !is_json(start));
    identity.unwrap_or_else(|| error.to_string())
}

/// What the bytes are the beginning of, if it is something that is often found in the place of tensors.
pub fn identity(head: &[u8]) -> Option<String> {
    if head.is_empty() {
        return Some("the file is empty".into());
    }
    // The header of a safetensors file may begin like anything, but its ninth byte opens an object.
    if head.get(4..9).is_some_and(|b| b == [0, 0, 0, 0, b'{']) {
        return None;
    }
    let text = without_bom(head.trim_ascii_start()).to_ascii_lowercase();
    let has = |what: &[u8]| head.windows(what.len()).any(|w| w == what);
    let lfs = text.starts_with(b"version https://git-lfs");
    Some(match head {
        _ if lfs => {
            let size = String::from_utf8_lossy(head);
            let size = size.lines().find_map(|l| l.strip_prefix("size ")).and_then(|s| s.trim().parse::<u64>().ok());
            let size = size.map(|s| format!(" of {s} bytes")).unwrap_or_default();
            format!("it is a Git LFS pointer to a file{size} that was not fetched; run `git lfs pull`")
        }
        [b'P', b'K', 3, 4, ..] if has(b"data.pkl") || has(b"/version") || has(b"byteorder") => {
            format!("it is {PICKLE}")
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "it is a zip archive; unpack it".into(),
        [0x80, 2..=5, ..] => format!("it is {PICKLE}"),
        [b'G', b'G', b'U', b'F', ..] => "it is a GGUF file; take the safetensors files it was made of".into(),
        [b'l' | b't' | b'f', b'm' | b'j', b'g', b'g', ..] => {
            "it is a GGML file; take the safetensors files it was made of".into()
        }
        [0x89, b'H', b'D', b'F', ..] => "it is an HDF5 file".into(),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "it is a NumPy file".into(),
        [b'P', b'A', b'R', b'1', ..] => "it is a Parquet file".into(),
        [0x1f, 0x8b, ..] => "it is compressed by gzip; unpack it with `gzip -d`".into(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed by zstd; unpack it with `zstd -d`".into(),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "it is compressed by xz; unpack it with `xz -d`".into(),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "it is compressed by bzip2; unpack it with `bzip2 -d`".into(),
        _ if is_tar(head) => "it is a tar archive; its name must end with .tar".into(),
        _ if text.starts_with(b"<") => {
            "it is an HTML or XML page, as a server answers that wants a login or has no such file; download it again"
                .into()
        }
        _ if text.starts_with(b"{") || text.starts_with(b"[") => {
            let index = if has(b"weight_map") { " (an index's name ends with .safetensors.index.json)" } else { "" };
            format!("it is a JSON text{index}")
        }
        _ if head.iter().all(|b| *b == 0) => "it holds zeros alone, as a download that was broken off leaves".into(),
        _ if head.iter().all(|b| (b' '..=b'~').contains(b) || b"\t\r\n".contains(b)) => "it is a text".into(),
        _ => return None,
    })
}

/// Whether the bytes have the mark of a tar's first header.
pub fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

const PICKLE: &str = "a PyTorch pickle, which may run code when it is read; save it again with \
                      `safetensors.torch.save_file(torch.load(F, weights_only=True), ..)`";

/// Without the mark that some editors put before a text.
fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_for_what_they_are() {
        let check = |head: &[u8], expect: &str| {
            let found = identity(head).unwrap_or_default();
            assert!(found.contains(expect) && found.is_empty() == expect.is_empty(), "{head:?}: {found}");
        };
        check(b"", "empty");
        check(b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1503300328\n", "1503300328 bytes");
        check(b"PK\x03\x04....archive/data.pkl....", "PyTorch pickle");
        check(b"PK\x03\x04....word/document.xml", "zip");
        check(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "PyTorch pickle");
        check(b"\x80\x02\0\0\0\0\0\0{\"a\":1}", "");
        check(b"GGUF\x03\0\0\0", "GGUF");
        check(b"  <!DOCTYPE html><html>", "HTML");
        check(b"\xef\xbb\xbf<html>", "HTML");
        check(b"{\"error\":\"Invalid username or password.\"}", "JSON");
        check(b"{\"metadata\":{},\"weight_map\":{}}", "index");
        check(b"\x1f\x8b\x08\0", "gzip");
        check(b"Entry not found\n", "a text");
        check(&[0; 600], "zeros");
        check(&[1, 2, 3, 200], "");
    }
}
