//! Values as trees: walks over the tensors and parameters at their leaves.

use std::fmt::Write;
use std::rc::Rc;

use crate::value::{Leaf, StructKind, Value};

/// The same value with every tensor and parameter leaf replaced. What a closure captured stays as it is.
pub fn map_leaves<'a, E>(value: &Value<'a>, f: &mut impl FnMut(&Leaf) -> Result<Leaf, E>) -> Result<Value<'a>, E> {
    let mut list = |items: &[Value<'a>]| items.iter().map(|v| map_leaves(v, f)).collect::<Result<Rc<[_]>, E>>();
    Ok(match value {
        Value::Tensor(leaf) => Value::Tensor(f(leaf)?),
        Value::Param(p) => {
            let mut p = p.clone();
            p.leaf = f(&p.leaf)?;
            Value::Param(p)
        }
        Value::Tuple(items) => Value::Tuple(list(items)?),
        Value::Array(items) => Value::Array(list(items)?),
        Value::Option(Some(inner)) => Value::some(map_leaves(inner, f)?),
        Value::Struct(s) => {
            let mut fields = Vec::with_capacity(s.fields.len());
            for (name, v) in &s.fields {
                fields.push((name.clone(), map_leaves(v, f)?));
            }
            Value::Struct(Rc::new(s.with_fields(fields)))
        }
        Value::Stack(s) => Value::Stack(Rc::new(s.map(|slot| map_leaves(&slot.item, f))?)),
        other => other.clone(),
    })
}

/// All leaves, in the order of [`map_leaves`].
pub fn leaves(value: &Value<'_>) -> Vec<Leaf> {
    let mut out = vec![];
    let _ = map_leaves::<()>(value, &mut |leaf| {
        out.push(leaf.clone());
        Ok(leaf.clone())
    });
    out
}

/// What the graph of a function depends on: types of tensors, and static values. False if a closure is in it, which
/// has no text.
pub fn fingerprint(value: &Value<'_>, out: &mut String) -> bool {
    written(value, false, out)
}

/// What modules of one family have in common: their graph, and all that is declared of their parameters. False if a closure
/// is in it.
pub fn structure(value: &Value<'_>, out: &mut String) -> bool {
    written(value, true, out)
}

fn written(value: &Value<'_>, declared: bool, out: &mut String) -> bool {
    let fingerprint = |value: &Value<'_>, out: &mut String| written(value, declared, out);
    let mut list = |open: &str, items: &[Value<'_>]| {
        out.push_str(open);
        let all = items.iter().all(|v| fingerprint(v, out));
        out.push(')');
        all
    };
    match value {
        Value::Tensor(leaf) => write!(out, "tensor {};", leaf.ty).is_ok(),
        Value::Param(p) => {
            let spec = Some((p.spec.init, p.spec.trainable, &p.spec.tied)).filter(|_| declared);
            write!(out, "param {} {:?} {spec:?};", p.leaf.ty, p.keep).is_ok()
        }
        Value::Tuple(items) => list("(", items),
        Value::Array(items) => list("[(", items),
        Value::Option(None) => write!(out, "none;").is_ok(),
        Value::Option(Some(inner)) => {
            out.push_str("some ");
            fingerprint(inner, out)
        }
        Value::Struct(s) => {
            out.push_str(s.kind.name());
            if let StructKind::User { instance, .. } = s.kind {
                let _ = write!(out, " of {}", instance.index());
            }
            if let Some(renamed) = s.renamed.as_ref().filter(|_| declared) {
                let _ = write!(out, " as {renamed}");
            }
            out.push('{');
            let all = s.fields.iter().all(|(_, v)| fingerprint(v, out));
            out.push('}');
            all
        }
        Value::Stack(s) => {
            let _ = write!(out, "stack {} ", s.recompute);
            s.runs.iter().all(|run| {
                let _ = write!(out, "{} of {}: ", run.times, run.slots.len());
                run.slots.iter().all(|slot| fingerprint(&slot.item, out))
            })
        }
        Value::Range(_) | Value::Closure(_) | Value::Function(_) | Value::Draw(_) | Value::Plan | Value::Run => false,
        other => write!(out, "{};", other.describe()).is_ok(),
    }
}
