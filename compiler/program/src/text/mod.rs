//! The text form of a module of programs, and the reader of it.
//!
//! ```text
//! ranks of [tp:2] align 64
//! kernel k0 "scale" args rw flops 4 elementwise 4 bytes 32
//! program "train"
//!   rank 0
//!     buffer b0 parameter "w" f32[A:4] persistent
//!     buffer b1 activation "scale" f32[A:4]
//!     turn block
//!       k0(b0 -> b1)
//! ```

mod cursor;
mod operations;
mod parse;
mod print;
mod ranks;

pub use diag::ParseError;
pub use parse::parse;
