//! `.om` files as GE lays them out, as far as the emulators write and read them: a header, a table of partitions, and the model.

use prost::Message;

use crate::proto::{AttrDef, Attribute, ModelDef};

const HEADER: usize = 256;
const MARK: &[u8; 4] = b"IMOD";
/// Of the one partition, which is the model: how many, then kind, offset and length.
const TABLE: usize = 16;

/// Sizes of working memory and of constants, as the model's attributes say.
const WORK: &str = "memory_size";
const WEIGHTS: &str = "weight_size";

/// A file around a serialised graph.
pub fn write(air: &[u8]) -> Result<Vec<u8>, String> {
    let model = ModelDef::decode(air).map_err(|e| format!("it is no ModelDef: {e}"))?;
    let (weights, work) = crate::sizes(&model);
    let size = |bytes: usize| AttrDef { value: Some(Attribute::Int(bytes as i64)) };
    let added =
        ModelDef { attr: [(WORK.into(), size(work)), (WEIGHTS.into(), size(weights))].into(), ..ModelDef::default() };
    // Messages that follow each other are one message with the fields of both.
    let added = added.encode_to_vec();
    let length = u32::try_from(air.len() + added.len()).map_err(|_| "it is too large".to_owned())?;
    let mut out = vec![0; HEADER];
    out[..4].copy_from_slice(MARK);
    out.extend([1, 0, 0, length].iter().flat_map(|n: &u32| n.to_le_bytes()));
    out.extend_from_slice(air);
    out.extend(added);
    Ok(out)
}

/// The model in a file.
pub fn read(bytes: &[u8]) -> Result<ModelDef, String> {
    let rest = bytes.strip_prefix(MARK).and_then(|rest| rest.get(HEADER - MARK.len()..));
    let model = rest.and_then(|rest| rest.get(TABLE..)).ok_or("it is no .om file")?;
    ModelDef::decode(model).map_err(|e| format!("its model does not decode: {e}"))
}

/// Bytes of working memory and of constants.
pub fn sizes(model: &ModelDef) -> Option<(usize, usize)> {
    let size = |name| match model.attr.get(name)?.value.as_ref()? {
        Attribute::Int(n) => usize::try_from(*n).ok(),
        _ => None,
    };
    Some((size(WORK)?, size(WEIGHTS)?))
}
