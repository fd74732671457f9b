//! Our hand-tagged messages against the real schema, which comes from the `torch-npu` wheel.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use target_ascend::dtype::DataType;
use target_ascend::proto::{
    AttrDef, Attribute, GraphDef, ListValue, ModelDef, OpDef, ShapeDef, TensorDef, TensorDescriptor,
};

fn pool() -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    pool.decode_file_descriptor_proto(&include_bytes!("wheel/ge_ir.desc")[..]).expect("the schema decodes");
    pool
}

fn map(name: &str, value: Attribute) -> std::collections::BTreeMap<String, AttrDef> {
    [(name.to_owned(), value.into())].into_iter().collect()
}

/// Every field of every message is set.
fn full() -> ModelDef {
    let desc = TensorDescriptor {
        name: "y".into(),
        dtype: DataType::Bf16 as i32,
        shape: Some(ShapeDef { dim: vec![2, 3] }),
        layout: "ND".into(),
        attr: map("a", Attribute::Int(-1)),
        device_type: "NPU".into(),
    };
    let tensor = TensorDef { desc: Some(desc.clone()), data: vec![1, 2, 3] };
    let mut attr = map("list_s", ListValue::texts(["p", "q"]));
    attr.extend(map("list_i", ListValue::ints([4, -5])));
    attr.extend(map("s", Attribute::Text(b"text".to_vec())));
    attr.extend(map("f", Attribute::Float(1.5)));
    attr.extend(map("b", Attribute::Bool(true)));
    attr.extend(map("t", Attribute::Tensor(tensor)));
    let op = OpDef {
        name: "n".into(),
        r#type: "Add".into(),
        input: vec!["m:0".into()],
        attr,
        input_desc: vec![desc.clone()],
        output_desc: vec![desc],
    };
    let graph = GraphDef {
        name: "g".into(),
        input: vec!["m:0".into()],
        output: vec!["n:0".into()],
        op: vec![op],
        attr: map("a", Attribute::Int(2)),
    };
    ModelDef {
        name: "model".into(),
        version: 3,
        custom_version: "c".into(),
        graph: vec![graph],
        attr: map("a", Attribute::Int(9)),
    }
}

/// `name=value` for every field that is set, the real names, in the order of the schema.
fn show(message: &DynamicMessage, path: &str, out: &mut Vec<String>) {
    assert_eq!(message.unknown_fields().count(), 0, "{path} has fields that the schema lacks");
    for (field, value) in message.fields() {
        show_value(value, &format!("{path}.{}", field.name()), out);
    }
}

fn show_value(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Message(m) => show(m, path, out),
        Value::List(items) => items.iter().enumerate().for_each(|(i, v)| show_value(v, &format!("{path}[{i}]"), out)),
        Value::Map(entries) => {
            let mut keys: Vec<_> = entries.iter().collect();
            keys.sort_by_key(|(k, _)| format!("{k:?}"));
            keys.iter().for_each(|(k, v)| show_value(v, &format!("{path}[{}]", k.as_str().unwrap_or("")), out));
        }
        value => out.push(format!("{path}={value:?}")),
    }
}

#[test]
fn the_real_schema_reads_what_we_write() {
    let descriptor = pool().get_message_by_name("ge.proto.ModelDef").expect("ModelDef");
    let read = DynamicMessage::decode(descriptor, full().encode_to_vec().as_slice()).expect("it decodes");
    let mut fields = vec![];
    show(&read, "model", &mut fields);
    let have = |field: &str| assert!(fields.iter().any(|f| f == field), "{field} is not among {fields:#?}");
    for field in [
        "model.name=String(\"model\")",
        "model.version=U32(3)",
        "model.custom_version=String(\"c\")",
        "model.attr[a].i=I64(9)",
        "model.graph[0].name=String(\"g\")",
        "model.graph[0].input[0]=String(\"m:0\")",
        "model.graph[0].output[0]=String(\"n:0\")",
        "model.graph[0].attr[a].i=I64(2)",
        "model.graph[0].op[0].name=String(\"n\")",
        "model.graph[0].op[0].type=String(\"Add\")",
        "model.graph[0].op[0].input[0]=String(\"m:0\")",
        "model.graph[0].op[0].attr[s].s=Bytes(b\"text\")",
        "model.graph[0].op[0].attr[f].f=F32(1.5)",
        "model.graph[0].op[0].attr[b].b=Bool(true)",
        "model.graph[0].op[0].attr[list_s].list.s[1]=Bytes(b\"q\")",
        "model.graph[0].op[0].attr[list_s].list.val_type=EnumNumber(1)",
        "model.graph[0].op[0].attr[list_i].list.i[1]=I64(-5)",
        "model.graph[0].op[0].attr[list_i].list.val_type=EnumNumber(2)",
        "model.graph[0].op[0].attr[t].t.data=Bytes(b\"\\x01\\x02\\x03\")",
        "model.graph[0].op[0].attr[t].t.desc.layout=String(\"ND\")",
        "model.graph[0].op[0].input_desc[0].dtype=EnumNumber(27)",
        "model.graph[0].op[0].output_desc[0].name=String(\"y\")",
        "model.graph[0].op[0].output_desc[0].shape.dim[1]=I64(3)",
        "model.graph[0].op[0].output_desc[0].layout=String(\"ND\")",
        "model.graph[0].op[0].output_desc[0].device_type=String(\"NPU\")",
        "model.graph[0].op[0].output_desc[0].attr[a].i=I64(-1)",
    ] {
        have(field);
    }
    // Written again by the real schema, it is ours again.
    assert_eq!(ModelDef::decode(read.encode_to_vec().as_slice()).expect("it decodes"), full());
}

#[test]
fn element_types_have_the_real_numbers() {
    let types = pool().get_enum_by_name("ge.proto.DataType").expect("DataType");
    for dtype in DataType::KNOWN.into_iter().chain([DataType::Undefined]) {
        let value = types.get_value_by_name(dtype.text()).expect("a type of the schema");
        assert_eq!(value.number(), dtype as i32, "{}", dtype.text());
    }
}
