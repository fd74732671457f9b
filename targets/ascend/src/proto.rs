//! The messages of CANN's `ge_ir.proto` (package `ge.proto`) that an `.air` file is made of, tagged by hand.
//!
//! Fields that mmc neither writes nor reads are left out. `tests/schema.rs` compares what is here with the
//! schema inside the `torch-npu` wheel.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// An `.air` file is one of these, serialised, and nothing else.
#[derive(Clone, PartialEq, Message)]
pub struct ModelDef {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(string, tag = "3")]
    pub custom_version: String,
    /// The first is the root.
    #[prost(message, repeated, tag = "7")]
    pub graph: Vec<GraphDef>,
    #[prost(btree_map = "string, message", tag = "11")]
    pub attr: BTreeMap<String, AttrDef>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GraphDef {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub op: Vec<OpDef>,
    #[prost(btree_map = "string, message", tag = "11")]
    pub attr: BTreeMap<String, AttrDef>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OpDef {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub r#type: String,
    /// `node:output` for each input in order; empty for an optional input that is not fed.
    #[prost(string, repeated, tag = "5")]
    pub input: Vec<String>,
    #[prost(btree_map = "string, message", tag = "10")]
    pub attr: BTreeMap<String, AttrDef>,
    #[prost(message, repeated, tag = "33")]
    pub input_desc: Vec<TensorDescriptor>,
    #[prost(message, repeated, tag = "34")]
    pub output_desc: Vec<TensorDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorDescriptor {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(enumeration = "DataType", tag = "2")]
    pub dtype: i32,
    #[prost(message, optional, tag = "3")]
    pub shape: Option<ShapeDef>,
    #[prost(string, tag = "4")]
    pub layout: String,
    #[prost(btree_map = "string, message", tag = "5")]
    pub attr: BTreeMap<String, AttrDef>,
    #[prost(string, tag = "14")]
    pub device_type: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ShapeDef {
    #[prost(int64, repeated, tag = "1")]
    pub dim: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorDef {
    #[prost(message, optional, tag = "1")]
    pub desc: Option<TensorDescriptor>,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct AttrDef {
    #[prost(oneof = "Attribute", tags = "1, 2, 3, 4, 5, 12")]
    pub value: Option<Attribute>,
}

#[derive(Clone, PartialEq, Oneof)]
pub enum Attribute {
    #[prost(message, tag = "1")]
    List(ListValue),
    #[prost(bytes, tag = "2")]
    Text(Vec<u8>),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(float, tag = "4")]
    Float(f32),
    #[prost(bool, tag = "5")]
    Bool(bool),
    #[prost(message, tag = "12")]
    Tensor(TensorDef),
}

#[derive(Clone, PartialEq, Message)]
pub struct ListValue {
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub s: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "3")]
    pub i: Vec<i64>,
    /// 1 for strings, 2 for integers.
    #[prost(int32, tag = "20")]
    pub val_type: i32,
}

/// Numbers of the protobuf enum, which are not those of the C++ enum `ge::DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum DataType {
    Undefined = 0,
    Float = 1,
    Float16 = 2,
    Int8 = 3,
    Uint8 = 4,
    Int32 = 7,
    Int64 = 8,
    Bool = 11,
    Double = 12,
    Bf16 = 27,
}

impl From<Attribute> for AttrDef {
    fn from(value: Attribute) -> Self {
        Self { value: Some(value) }
    }
}

impl ListValue {
    pub fn ints(values: impl IntoIterator<Item = i64>) -> Attribute {
        Attribute::List(ListValue { i: values.into_iter().collect(), val_type: 2, ..Self::default() })
    }

    pub fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Attribute {
        let s = values.into_iter().map(|text| text.as_bytes().to_vec()).collect();
        Attribute::List(ListValue { s, val_type: 1, ..Self::default() })
    }
}
