//! Spans, diagnostics and their rendering.
