//! A smoke test of the link.
#[test]
fn link() { let _ = melior::Context::new(); }
