//! The language of .mm files: the published models against PyTorch, their graphs, and what mistakes look like.

mod goldens;
