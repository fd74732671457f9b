//! The vocabulary of .mm files as rustc sees it.
