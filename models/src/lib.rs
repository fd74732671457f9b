//! The published models in the .mm language, shown to rustc.
