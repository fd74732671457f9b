//! The columns are whole: every port of the operator in order, as many types in each, and the combinations that matter.

use target_ascend::check::column;
use target_ascend::columns::{Rows, of};
use target_ascend::dtype::{DataType, Ty};
use target_ascend::table::{Op, Port};

fn check_rows(op: Op, rows: Rows, ports: &[Port], width: usize) {
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ports.iter().map(|p| p.name).collect::<Vec<_>>(), "{}", op.name());
    for (name, types) in rows {
        assert!([1, width].contains(&types.len()), "{} of {name} has {} types, not {width}", op.name(), types.len());
    }
}

#[test]
fn every_port_is_in_every_column() {
    for &op in Op::ALL {
        for block in of(op) {
            check_rows(op, block.inputs, op.spec().inputs, block.width());
            check_rows(op, block.outputs, op.spec().outputs, block.width());
        }
    }
    assert_eq!(Op::ALL.iter().filter(|op| !of(**op).is_empty()).count(), 26);
}

fn takes(op: Op, inputs: &[DataType], outputs: &[DataType]) -> bool {
    let inputs: Vec<Option<Ty>> = inputs.iter().map(|&dtype| Some(Ty::new(dtype, []))).collect();
    let outputs: Vec<Ty> = outputs.iter().map(|&dtype| Ty::new(dtype, [])).collect();
    column(op, &inputs, &outputs).is_ok()
}

#[test]
fn products() {
    use DataType::{Bf16, Float, Float16};
    for (op, narrow, wide) in [(Op::MatMulV3, true, false), (Op::BatchMatMulV3, true, true)] {
        assert!(takes(op, &[Float, Float], &[Float]));
        for half in [Bf16, Float16] {
            assert_eq!(takes(op, &[half, half], &[half]), narrow);
            assert_eq!(takes(op, &[half, half], &[Float]), wide, "{op:?} of {half:?}");
            assert!(!takes(op, &[half, Float], &[Float]));
        }
        assert!(!takes(op, &[Bf16, Bf16], &[Float16]));
    }
}

#[test]
fn norms_and_attention() {
    use DataType::{Bf16, Bool, Float, Float16, Int32, Int64};
    assert!(takes(Op::LayerNormV4, &[Float, Int32], &[Float, Float, Float]));
    assert!(!takes(Op::LayerNormV4, &[Float, Int64], &[Float, Float, Float]));
    assert!(takes(Op::LayerNormGradV3, &[Bf16, Bf16, Float, Float, Bf16], &[Bf16, Bf16, Bf16]));
    assert!(!takes(Op::LayerNormGradV3, &[Bf16, Bf16, Bf16, Bf16, Bf16], &[Bf16, Bf16, Bf16]));
    assert!(takes(Op::RmsNorm, &[Bf16, Float], &[Bf16, Float]));
    assert!(!takes(Op::RmsNorm, &[Float, Bf16], &[Float, Float]));
    assert!(!takes(Op::RotaryPositionEmbedding, &[Bf16, Float, Float], &[Bf16]));
    assert!(takes(Op::SelectV2, &[Bool, Bf16, Bf16], &[Bf16]));
    assert!(!takes(Op::SelectV2, &[Bool, Bf16, Float], &[Float]));
    assert!(!takes(Op::FlashAttentionScore, &[Bf16, Bf16, Float16], &[Float, Float, Bf16, Bf16]));
    assert!(!takes(Op::FlashAttentionScore, &[Bf16; 3], &[Bf16, Bf16, Bf16, Bf16]));
}
