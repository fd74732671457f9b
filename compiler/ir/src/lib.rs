//! The graph: operators, functions, programs, text form, verifier and interpreter.
