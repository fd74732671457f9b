//! Per-rank programs and the plan.bin file.
