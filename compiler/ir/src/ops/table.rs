//! `table`: numbers known at compile time, at most 1 MiB of them.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType};

use super::constant::Number;
use super::elementwise::{arity, distinct};
use crate::factors::FactorKind;
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    pub dims: Vec<Dim>,
    pub dtype: DType,
    #[serde(with = "numbers")]
    pub data: Vec<f64>,
}

impl Table {
    pub const MAX_BYTES: usize = 1 << 20;
}

by_bits!(Table { dims, dtype; data });

impl Semantics for Table {
    const NAME: &'static str = "table";
    const CLASS: Class = Class::Source;
    const TEXT: TextForm = TextForm { first: "data", told: &[("dims", Told::Dims), ("dtype", Told::Dtype)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().map(|dim| &mut dim.name).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 0, Self::NAME)?;
        let ty = distinct(TensorType::new(self.dtype, self.dims.iter().cloned()))?;
        if self.data.len() != ty.elements() {
            return Err(Mismatch::new(format!("{} numbers for `{ty}`", self.data.len())));
        }
        if let Some(at) = self.data.iter().position(|x| x.is_nan()) {
            return Err(Mismatch::new(format!("element {at} of a table `{ty}` is not a number")));
        }
        if ty.bytes() > Self::MAX_BYTES {
            return Err(Mismatch::new(format!("`{ty}` has {} bytes, a table at most {}", ty.bytes(), Self::MAX_BYTES))
                .help("compute it from smaller tables, or feed it"));
        }
        Ok(smallvec![ty])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let names: Vec<&Name> = self.dims.iter().map(|d| &d.name).collect();
        Factors::by_name(args, results).mark(&names, FactorKind::Whole)
    }

    fn flops(&self, _: &[&TensorType], _: &[TensorType]) -> u64 {
        0
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        cx.none()
    }

    fn eval(&self, _: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        smallvec![Array::new(results[0].clone(), self.data.clone())]
    }
}

mod numbers {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Number;

    pub fn serialize<S: Serializer>(values: &[f64], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(|&v| Number::from(v)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
        Vec::<Number>::deserialize(d)?.into_iter().map(|n| n.value()).collect()
    }
}
