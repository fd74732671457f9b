//! Constant tables: read-only data of the module.

use ir::{Function, Inst, NodeId, Op};
use types::DType;

use super::LowerError;
use super::apply::stored;
use crate::emit::{Emitter, Val};

/// Tables that a live node reads.
fn tables(function: &Function) -> Vec<(NodeId, &ir::ops::Table)> {
    let live = function.live();
    let nodes = function.nodes.iter().filter(|(id, _)| live[id.index()]);
    nodes
        .filter_map(|(id, node)| match &node.inst {
            Inst::Op(Op::Table(table)) => Some((id, table)),
            _ => None,
        })
        .collect()
}

/// Writes the tables of `function` as globals.
pub fn declare(e: &mut Emitter, function: &Function) -> Result<(), LowerError> {
    for (id, table) in tables(function) {
        let mut bytes = Vec::new();
        for &value in &table.data {
            let value = table.dtype.round(value);
            match table.dtype {
                DType::F64 => bytes.extend(value.to_le_bytes()),
                DType::Work | DType::F32 => bytes.extend((value as f32).to_le_bytes()),
                DType::BF16 => bytes.extend(half::bf16::from_f64(value).to_le_bytes()),
                DType::F16 => bytes.extend(half::f16::from_f64(value).to_le_bytes()),
                DType::I64 => bytes.extend((value as i64).to_le_bytes()),
                DType::I32 => bytes.extend((value as i32).to_le_bytes()),
                DType::Bool => bytes.push(u8::from(value != 0.0)),
            }
        }
        if bytes.is_empty() {
            return Err(LowerError::new("an empty table"));
        }
        e.global(&name(id), stored(table.dtype).as_int(), &bytes);
    }
    Ok(())
}

/// The address of each table.
pub fn addresses(e: &mut Emitter, function: &Function) -> Vec<(NodeId, Val)> {
    tables(function).into_iter().map(|(id, _)| (id, e.global_address(&name(id)))).collect()
}

fn name(id: NodeId) -> String {
    format!("table{}", id.index())
}
