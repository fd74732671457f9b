//! Writes of rows into a table, against the interpreter: the table changes where it lies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod load;

use check::{interpret, kernel, random, ty};
use ir::{Array, ops};
use target_cpu::lower::Lowering;

fn bytes(x: &Array) -> Vec<u8> {
    check::pack(x)
}

#[test]
fn rows_are_written_in_place() {
    for dtype in ["f32", "bf16", "i64"] {
        for (table, ids, rows, dim) in [
            ("A:3, V:7, C:5", "S:4", "A:3, S:4, C:5", "V"),
            ("V:70, C:33", "S:2, T:3", "S:2, T:3, C:33", "V"),
            ("B:2, V:6, C:40", "B:2, S:3", "B:2, S:3, C:40", "V"),
            ("B:2, V:9", "S:5", "B:2, S:5", "V"),
            ("V:4, C:3", "", "C:3", "V"),
        ] {
            let texts = [format!("{dtype}[{table}]"), format!("i64[{ids}]"), format!("{dtype}[{rows}]")];
            let params: Vec<&str> = texts.iter().map(String::as_str).collect();
            let function = kernel(&params, |b, p| vec![b.op(ops::Write { dim: dim.into() }, p)]);
            let mut set: Vec<Array> =
                texts.iter().enumerate().map(|(i, t)| random(&ty(t), 3 + i as u64, 90.0)).collect();
            let size = set[0].ty.size_of(dim).unwrap();
            // All different, and some that write nothing.
            for (i, id) in set[1].data.iter_mut().enumerate() {
                *id = if i % 3 == 2 { -1.0 - i as f64 } else { ((i * 5 + 1) % size) as f64 };
            }
            let want = interpret(&function, &set);
            for cpu in load::cpus() {
                let lowering = Lowering::new(&function, &cpu).unwrap();
                assert_eq!(lowering.overwrites().map(|(pair, _)| pair), Some((0, 0)));
                let loaded = load::load(&cpu, &[lowering.module("kernel", &cpu).unwrap()]);
                for parts in [1, 3] {
                    let buffers: Vec<Vec<u8>> = set.iter().map(bytes).collect();
                    let args: Vec<*mut u8> = buffers.iter().map(|bytes| load::ptr(bytes)).collect();
                    loaded.call("kernel", &args, parts);
                    assert_eq!(buffers[0], bytes(&want[0]), "{texts:?} in {parts} parts");
                }
            }
        }
    }
}
