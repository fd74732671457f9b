//! Why a reshard is there, in words for `mmc explain`.

use ir::{PartialKind, Sharding};
use types::{Name, TensorType};

/// An operand that `by` takes in another way than it is held.
pub fn operand(held: &Sharding, want: &Sharding, ty: &TensorType, by: &str) -> Name {
    let changes = changes(held, want, ty);
    format!("{by} {changes}").into()
}

pub fn border(held: &Sharding, want: &Sharding, ty: &TensorType, function: &str) -> Name {
    format!("@{function} returns it so: {}", changes(held, want, ty)).into()
}

pub fn partial(held: &Sharding, by: &str) -> Name {
    let axes: Vec<&str> = held.partial.iter().map(|(axis, _)| axis.as_str()).collect();
    let what = match held.partial.first() {
        Some((_, PartialKind::Max)) => "a maximum",
        Some((_, PartialKind::Merge)) => "parts of a softmax",
        _ => "a sum",
    };
    format!("{by} leaves {what} over {}", axes.join(", ")).into()
}

fn changes(held: &Sharding, want: &Sharding, ty: &TensorType) -> String {
    let mut out = vec![];
    for (d, dim) in ty.dims.iter().enumerate() {
        let lost: Vec<&str> = held.axes(d).iter().filter(|a| !want.axes(d).contains(a)).map(Name::as_str).collect();
        let new: Vec<&str> = want.axes(d).iter().filter(|a| !held.axes(d).contains(a)).map(Name::as_str).collect();
        if !lost.is_empty() {
            out.push(format!("needs {} whole over {}", dim.name, lost.join(", ")));
        }
        if !new.is_empty() {
            out.push(format!("takes {} in parts over {}", dim.name, new.join(", ")));
        }
        if lost.is_empty() && new.is_empty() && held.axes(d) != want.axes(d) {
            out.push(format!("has {} in another order of ranks", dim.name));
        }
    }
    out.join(", ")
}
