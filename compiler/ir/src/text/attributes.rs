//! Attributes as text writes them: one stands alone, the others are an object, and what the result's type says is left
//! out. Text that says all of it is read as well.

use serde_json::{Map, Value};
use types::TensorType;

use crate::op::Told;
use crate::{Op, Type};

/// ` "bd,fd->bf" {"dtype":"f32"}`, or nothing.
pub(super) fn print(op: &Op, result: &Type) -> String {
    let Value::Object(mut attributes) = op.attributes() else { unreachable!("attributes are an object") };
    let form = Op::text_form(op.name()).expect("an operator has its name");
    if let Some(result) = first_tensor(result) {
        for &(name, told) in form.told {
            if attributes.get(name) == told_by(told, result).as_ref() {
                attributes.shift_remove(name);
            }
        }
    }
    let alone = attributes.shift_remove(form.first).map(|value| format!(" {value}")).unwrap_or_default();
    let others = if attributes.is_empty() { String::new() } else { format!(" {}", Value::Object(attributes)) };
    alone + &others
}

/// The operator called `name`, of the value that stood alone, the other attributes and its result.
///
/// Errors: there is no such operator, an attribute is missing, unknown or of another type.
pub(super) fn read(name: &str, alone: Option<Value>, others: Map<String, Value>, result: &Type) -> Result<Op, String> {
    let form = Op::text_form(name).ok_or_else(|| format!("there is no operator `{name}`"))?;
    let mut attributes = Map::new();
    if let Some(value) = alone {
        if form.first.is_empty() {
            return Err(format!("`{name}` has no attribute that stands alone; write {{\"name\":{value}}}"));
        }
        attributes.insert(form.first.into(), value);
    }
    for (name, value) in others {
        if attributes.insert(name.clone(), value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    if let Some(result) = first_tensor(result) {
        for &(name, told) in form.told {
            if !attributes.contains_key(name)
                && let Some(value) = told_by(told, result)
            {
                attributes.insert(name.into(), value);
            }
        }
    }
    Op::from_attributes(name, Value::Object(attributes))
}

fn first_tensor(ty: &Type) -> Option<&TensorType> {
    match ty {
        Type::Tuple(items) => items.first().and_then(Type::element),
        one => one.element(),
    }
}

fn told_by(told: Told, result: &TensorType) -> Option<Value> {
    let value = match (told, &result.dims[..]) {
        (Told::Names, dims) => serde_json::to_value(dims.iter().map(|dim| &dim.name).collect::<Vec<_>>()),
        (Told::Dims, dims) => serde_json::to_value(dims),
        (Told::Dim, [dim]) => serde_json::to_value(dim),
        (Told::Dim, _) => return None,
        (Told::Dtype, _) => serde_json::to_value(result.dtype),
    };
    value.ok()
}
