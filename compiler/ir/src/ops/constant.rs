//! `constant`: one number, broadcast wherever it is used.

use serde::de::Error;
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, TensorType};

use super::elementwise::arity;
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Constant {
    #[serde(with = "number")]
    pub value: f64,
    pub dtype: DType,
}

by_bits!(Constant { dtype; value });

impl Semantics for Constant {
    const NAME: &'static str = "constant";
    const CLASS: Class = Class::Source;
    const TEXT: TextForm = TextForm { first: "value", told: &[("dtype", Told::Dtype)] };

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 0, Self::NAME)?;
        if self.value.is_nan() {
            return Err(Mismatch::new("a constant that is not a number"));
        }
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

/// A number in JSON, which has no infinities: they are written as the strings "inf" and "-inf".
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Number {
    Finite(f64),
    Text(String),
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        if value.is_finite() { Number::Finite(value) } else { Number::Text(value.to_string()) }
    }
}

impl Number {
    pub fn value<E: Error>(self) -> Result<f64, E> {
        match self {
            Number::Finite(v) => Ok(v),
            Number::Text(t) => t.parse().map_err(E::custom),
        }
    }
}

pub(super) mod number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Number;

    pub fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        Number::from(*value).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        Number::deserialize(d)?.value()
    }
}
