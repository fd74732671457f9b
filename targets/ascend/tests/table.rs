//! The operator table against what REG_OP says in the `torch-npu` wheel, and in hicann's headers where the wheel is silent.

use std::collections::BTreeMap;

use target_ascend::dtype::{DataType, Types};
use target_ascend::table::{Op, Port, Presence, Preset};

const WHEEL: &str = include_str!("wheel/reg_op.tsv");
const HEADERS: &str = include_str!("wheel/headers.tsv");

/// Inputs, outputs and attributes of each operator, as the extracts write them.
fn declarations() -> BTreeMap<&'static str, [&'static str; 3]> {
    let rows = WHEEL.lines().chain(HEADERS.lines());
    rows.map(|row| {
        let mut cells = row.split('\t');
        let name = cells.next().expect("a name");
        (name, [0; 3].map(|_| cells.next().unwrap_or("")))
    })
    .collect()
}

fn entries(cell: &str) -> Vec<&str> {
    cell.split("; ").filter(|e| !e.is_empty()).collect()
}

/// `x?` and its types; the types that we do not know are not compared, and neither are types that the wheel leaves open.
fn port(entry: &str) -> (String, Option<Vec<&'static str>>) {
    let (name, types) = entry.split_once(':').expect("types");
    let open = !types.is_empty() && !types.contains("DT_");
    let own = DataType::KNOWN.into_iter().filter(|t| types.split(',').any(|other| other == t.text()));
    (name.into(), (!open).then(|| own.map(DataType::text).collect()))
}

fn shown(port: &Port) -> String {
    match port.presence {
        Presence::Required => port.name.into(),
        Presence::Optional => format!("{}?", port.name),
        Presence::Dynamic => format!("{}*", port.name),
    }
}

fn check_ports(op: Op, what: &str, ours: &[Port], theirs: &str) {
    let theirs: Vec<_> = entries(theirs).into_iter().map(port).collect();
    let names: Vec<&str> = theirs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(ours.iter().map(shown).collect::<Vec<_>>(), names, "{what} of {}", op.name());
    for (own, (name, types)) in ours.iter().zip(&theirs) {
        if let Some(types) = types {
            assert_eq!(&texts(own.types), types, "types of {} {name}", op.name());
        }
    }
}

fn texts(types: Types) -> Vec<&'static str> {
    types.texts()
}

fn attribute(preset: Preset) -> String {
    match preset {
        Preset::Int(i) => format!("Int={i}"),
        Preset::Float(f) => format!("Float={f}"),
        Preset::Bool(b) => format!("Bool={b}"),
        Preset::Text(t) => format!("String=\"{t}\""),
        Preset::Ints(v) => format!("ListInt={v:?}"),
        Preset::RequiredInt => "Int!".into(),
        Preset::RequiredText => "String!".into(),
        Preset::RequiredTensor => "Tensor=Tensor()".into(),
    }
}

/// `Float=1e-6` and `Float=0.000001` are one, and so are `Int=0x1` and `Int=1`.
fn normal(text: &str) -> String {
    let Some((kind, value)) = text.split_once('=') else { return text.into() };
    match kind {
        "Float" => format!("Float={}", value.parse::<f32>().expect("a number")),
        "Int" => match value.strip_prefix("0x") {
            Some(hex) => format!("Int={}", i64::from_str_radix(hex, 16).expect("a number")),
            None => text.into(),
        },
        "ListInt" => format!("ListInt=[{}]", value.trim_matches(['{', '}'])),
        _ => text.into(),
    }
}

#[test]
fn every_operator_is_as_declared() {
    let declared = declarations();
    for &op in Op::ALL {
        let Some([inputs, outputs, attributes]) = declared.get(op.name()) else {
            assert_eq!(op, Op::NetOutput, "{} is declared nowhere", op.name());
            continue;
        };
        check_ports(op, "inputs", op.spec().inputs, inputs);
        check_ports(op, "outputs", op.spec().outputs, outputs);
        let ours: Vec<String> =
            op.spec().attributes.iter().map(|a| format!("{}:{}", a.name, attribute(a.preset))).collect();
        let theirs: Vec<String> = entries(attributes)
            .into_iter()
            .map(|entry| entry.split_once(':').map_or(entry.into(), |(name, rest)| format!("{name}:{}", normal(rest))))
            .collect();
        assert_eq!(ours, theirs, "attributes of {}", op.name());
    }
}

#[test]
fn the_wheel_declares_all_but_two() {
    let own: Vec<&str> = HEADERS.lines().filter_map(|row| row.split('\t').next()).collect();
    assert_eq!(own, ["MatMulV3", "BatchMatMulV3"]);
    assert_eq!(WHEEL.lines().count() + own.len() + 1, Op::ALL.len());
}
