//! Evaluates .mm files and records their tensor operations as a graph.
