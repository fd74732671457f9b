//! The text form of modules: what is printed reads back to the same module.

mod attributes;
mod parse;
mod print;

pub use diag::ParseError;
pub use parse::parse;
