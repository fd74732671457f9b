//! What is read of the messages of CANN's `ge_ir.proto`, tagged by hand after the schema in the `torch-npu` wheel.

use std::collections::HashMap;

use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub struct ModelDef {
    /// The first is the root.
    #[prost(message, repeated, tag = "7")]
    pub graph: Vec<GraphDef>,
    #[prost(map = "string, message", tag = "11")]
    pub attr: HashMap<String, AttrDef>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GraphDef {
    #[prost(message, repeated, tag = "6")]
    pub op: Vec<OpDef>,
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
    #[prost(map = "string, message", tag = "10")]
    pub attr: HashMap<String, AttrDef>,
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
    #[prost(int64, repeated, tag = "3")]
    pub i: Vec<i64>,
}

/// Numbers of the protobuf enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
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

impl TensorDescriptor {
    /// # Panics
    /// If the number is that of no type above.
    pub fn element(&self) -> DataType {
        DataType::try_from(self.dtype).unwrap_or_else(|_| panic!("`{}` has elements of type {}", self.name, self.dtype))
    }

    pub fn sizes(&self) -> Vec<usize> {
        self.shape.iter().flat_map(|s| &s.dim).map(|&d| usize::try_from(d).expect("a static shape")).collect()
    }

    pub fn bytes(&self) -> usize {
        self.sizes().iter().product::<usize>() * self.element().bytes()
    }
}
