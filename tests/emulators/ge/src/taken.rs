//! What kernels of a 910B ask of a node beyond its formula, from CANN's operator definitions and shape rules.

use crate::proto::{DataType, OpDef, TensorDescriptor};

/// # Panics
/// If CANN would not place the node, or would give it other shapes.
pub fn check(op: &OpDef) {
    let (inputs, outputs) = (&op.input_desc, &op.output_desc);
    // Nodes of tests may be without descriptors of inputs.
    let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return };
    let (name, given) = (&op.name, outputs.first());
    let same = given.is_some_and(|y| y.dtype == first.dtype);
    match op.r#type.as_str() {
        "MatMulV3" => assert!(same, "{name}: a product of another type than its factors"),
        "BatchMatMulV3" => assert!(same || is(given, DataType::Float), "{name}: a product of a third type"),
        "RotaryPositionEmbedding" => assert_eq!(inputs.len(), 3, "{name}: inputs"),
        "LayerNormV4" => {
            assert!(is(inputs.get(1), DataType::Int32), "{name}: the normalised shape is i32");
            assert!(outputs[1..].iter().all(|y| is(Some(y), DataType::Float)), "{name}: mean and rstd are f32");
        }
        "ConcatV2" => assert!(last.sizes().is_empty(), "{name}: the dim to join along is a scalar"),
        "FlashAttentionScore" => assert_eq!(outputs[2].sizes(), [0; 4], "{name}: softmax_out"),
        _ => {}
    }
}

fn is(desc: Option<&TensorDescriptor>, dtype: DataType) -> bool {
    desc.is_some_and(|desc| desc.dtype == dtype as i32)
}
