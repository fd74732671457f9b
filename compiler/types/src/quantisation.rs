//! Quantised weights: what a config says of the form that its weights are in.

use serde_json::Value;

/// What `quantization_config` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantisation {
    /// FP8 with a scale for each block of rows and columns (`weight_scale_inv`).
    BlockFp8 { block: [usize; 2] },
    /// A form that is not read, by its name.
    Other(String),
}

impl Quantisation {
    /// None if the config says nothing of it, here or for its text model.
    pub fn of(config: &Value) -> Option<Self> {
        let said = [&config["quantization_config"], &config["text_config"]["quantization_config"]];
        let said = said.into_iter().find(|said| said.is_object())?;
        let word = |key: &str| said[key].as_str();
        let block =
            said["weight_block_size"].as_array().map(|sizes| sizes.iter().map(Value::as_u64).collect::<Vec<_>>());
        let method = word("quant_method").or(word("quant_algo"));
        Some(match (method, block.as_deref()) {
            (Some("fp8"), Some([Some(rows), Some(columns)])) if *rows > 0 && *columns > 0 => {
                Self::BlockFp8 { block: [*rows as usize, *columns as usize] }
            }
            (Some("fp8"), _) => Self::Other("fp8 without blocks".into()),
            (Some("bitsandbytes"), _) => {
                let bits = if said["load_in_8bit"] == true { "8" } else { "4" };
                Self::Other(format!("bitsandbytes in {bits} bits"))
            }
            (method, _) => {
                let bits = said["bits"].as_u64().map(|bits| format!(" in {bits} bits")).unwrap_or_default();
                let kind = word("quant_algo").or(word("format")).filter(|kind| Some(*kind) != method);
                let kind = kind.map(|kind| format!(" ({kind})")).unwrap_or_default();
                Self::Other(format!("{}{kind}{bits}", method.unwrap_or("a method that it does not name")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms_are_called_by_name() {
        let of = |said: Value| Quantisation::of(&json!({ "quantization_config": said }));
        assert_eq!(of(Value::Null), None);
        let block = [128, 64];
        assert_eq!(
            of(json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 64]})),
            Some(Quantisation::BlockFp8 { block })
        );
        for (said, name) in [
            (json!({"quant_method": "gptq", "bits": 4}), "gptq in 4 bits"),
            (json!({"quant_method": "awq", "bits": 4, "version": "gemm"}), "awq in 4 bits"),
            (json!({"quant_method": "bitsandbytes", "load_in_8bit": true}), "bitsandbytes in 8 bits"),
            (
                json!({"quant_method": "compressed-tensors", "format": "int-quantized"}),
                "compressed-tensors (int-quantized)",
            ),
            (json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}), "modelopt (NVFP4)"),
            (json!({"quant_method": "fp8", "weight_block_size": [0, 1]}), "fp8 without blocks"),
            (json!({"x": 1}), "a method that it does not name"),
        ] {
            assert_eq!(of(said), Some(Quantisation::Other(name.into())));
        }
        let inner = json!({"text_config": {"quantization_config": {"quant_method": "gptq"}}});
        assert_eq!(Quantisation::of(&inner), Some(Quantisation::Other("gptq".into())));
    }
}
