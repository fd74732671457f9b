//! The collectives of a program as a table: equal ones together, with what they send and why they are there.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plan::{Body, Op, Place, Plan};

/// Collectives that differ in nothing but their tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reshard {
    pub kind: &'static str,
    /// The mesh axes that span the group.
    pub group: Vec<String>,
    pub why: String,
    pub place: String,
    /// Instructions.
    pub count: u64,
    /// Bytes that each rank sends in one of them.
    pub bytes_each: u64,
    /// Bytes that each rank sends in all of them.
    pub bytes: u64,
}

/// Largest first.
pub fn reshards(plan: &Plan, body: &Body) -> Vec<Reshard> {
    let mut rows: BTreeMap<_, u64> = BTreeMap::new();
    for instruction in &body.instructions {
        let Op::Collect(collect) = &instruction.op else { continue };
        let group: Vec<String> = collect.group.iter().map(ToString::to_string).collect();
        let place = plan.places.get(instruction.place.index()).map(place).unwrap_or_default();
        let bytes = plan::sent(&plan.header.mesh, collect);
        *rows.entry((collect.kind.name(), group, collect.why.to_string(), place, bytes)).or_default() += 1;
    }
    let row = |((kind, group, why, place, bytes_each), count): ((_, _, _, _, u64), u64)| Reshard {
        kind,
        group,
        why,
        place,
        count,
        bytes_each,
        bytes: bytes_each.saturating_mul(count),
    };
    let mut rows: Vec<Reshard> = rows.into_iter().map(row).collect();
    rows.sort_by_key(|r| Reverse(r.bytes));
    rows
}

/// `models/wan2.2.mm:134:16 < 182:45 < 297:29`: the operator's place, then its callers, each file named once.
pub fn place(place: &Place) -> String {
    let mut text = match place.line {
        0 => String::new(),
        _ => format!("{}:{}:{}", place.file, place.line, place.column),
    };
    let mut file = place.file.as_str();
    for (i, link) in place.chain.split(" < ").enumerate() {
        let site = link.rsplitn(3, ':').collect::<Vec<_>>();
        let [column, line, of] = site[..] else {
            // Words instead of a place; the first are the operator, which is known where its place is.
            let known = place.line > 0 && i == 0;
            let words = if known { link.split_once(" in ").map_or("", |(_, function)| function) } else { link };
            push(&mut text, words);
            continue;
        };
        push(&mut text, &if of == file { format!("{line}:{column}") } else { link.to_owned() });
        file = of;
    }
    text
}

fn push(text: &mut String, link: &str) {
    if !text.is_empty() && !link.is_empty() {
        text.push_str(" < ");
    }
    text.push_str(link);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_name_each_file_once() {
        let check = |line, chain: &str, want: &str| {
            let of = Place { file: "a.mm".into(), line, column: 4, chain: chain.into() };
            assert_eq!(place(&of), want);
        };
        check(3, "k1_matmul < a.mm:5:6 < b.mm:7:8 < b.mm:9:1", "a.mm:3:4 < 5:6 < b.mm:7:8 < 9:1");
        check(3, "matmul in Linear.forward < train", "a.mm:3:4 < Linear.forward < train");
        check(3, "", "a.mm:3:4");
        check(0, "k2_add", "k2_add");
    }
}
