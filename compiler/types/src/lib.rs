//! Element types, named dims, shapes, regions, meshes and counter-based random numbers.
