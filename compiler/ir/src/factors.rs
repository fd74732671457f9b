//! Factors: the loop indices of an operator, and which dims of its operands and results each one runs over.
//!
//! After the factor rules of Shardy (OpShardingRuleAttr) and nnScaler's annotations. Sharding and cost follow from them.

use smallvec::{SmallVec, smallvec};
use types::{Name, TensorType};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FactorKind {
    /// Cut freely: every result has it, or does not depend on which part it is.
    Parallel,
    /// Cutting it leaves partial sums in the results that lack it; a result that has it is cut.
    Sum,
    /// Cutting it leaves partial maxima.
    Max,
    /// Cutting it leaves parts of a softmax, which [`crate::Semantics::merge`] joins; sums, where some of the results
    /// have it. Parts may go around a ring of ranks.
    Merge,
    /// Must be whole on every rank.
    Whole,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    pub name: Name,
    pub size: usize,
    pub kind: FactorKind,
}

/// For each operand and result, for each dim, its factors, major first (several where a dim is split or merged;
/// none where the dim is private to that tensor and must be whole).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Factors {
    pub factors: Vec<Factor>,
    pub args: Vec<Vec<SmallVec<[usize; 2]>>>,
    pub results: Vec<Vec<SmallVec<[usize; 2]>>>,
}

impl Factors {
    /// Dims of one name are one factor; a factor that no result has is summed.
    pub fn by_name(args: &[&TensorType], results: &[TensorType]) -> Self {
        Self::by_name_except("", args, results)
    }

    /// The same, but dims called `private` belong to no factor: they are whole, and of another size in each tensor.
    pub fn by_name_except(private: &str, args: &[&TensorType], results: &[TensorType]) -> Self {
        let mut out = Self::default();
        out.results = results.iter().map(|ty| out.dims(ty, private)).collect();
        let kept = out.factors.len();
        out.args = args.iter().map(|ty| out.dims(ty, private)).collect();
        for factor in &mut out.factors[kept..] {
            factor.kind = FactorKind::Sum;
        }
        out
    }

    fn dims(&mut self, ty: &TensorType, private: &str) -> Vec<SmallVec<[usize; 2]>> {
        ty.dims
            .iter()
            .map(|dim| {
                if dim.name == *private {
                    return SmallVec::new();
                }
                let at = self.factors.iter().position(|f| f.name == dim.name).unwrap_or_else(|| {
                    self.factors.push(Factor { name: dim.name.clone(), size: dim.size, kind: FactorKind::Parallel });
                    self.factors.len() - 1
                });
                smallvec![at]
            })
            .collect()
    }

    /// The same with the factors of these names marked.
    #[must_use]
    pub fn mark(mut self, names: &[&Name], kind: FactorKind) -> Self {
        for factor in self.factors.iter_mut().filter(|f| names.contains(&&f.name)) {
            factor.kind = kind;
        }
        self
    }
}
