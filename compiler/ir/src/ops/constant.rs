//! `constant`: one number, broadcast wherever it is used.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Semantics, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    #[serde(with = "number")]
    pub value: f64,
    pub dtype: DType,
}

impl Semantics for Constant {
    const NAME: &'static str = "constant";
    const CLASS: Class = Class::Source;

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 0, Self::NAME)?;
        Ok(smallvec![TensorType::scalar(self.dtype)])
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, _: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::scalar(results[0].clone(), self.value)]
    }
}

/// JSON has no infinities: they are written as the strings "inf" and "-inf".
mod number {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { s.serialize_f64(*value) } else { s.serialize_str(&value.to_string()) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Number {
            Finite(f64),
            Text(String),
        }
        match Number::deserialize(d)? {
            Number::Finite(v) => Ok(v),
            Number::Text(t) => t.parse().map_err(D::Error::custom),
        }
    }
}
