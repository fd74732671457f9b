//! Kernel providers: the CPU's shared object, loaded and checked.
