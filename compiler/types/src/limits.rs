//! The most that anything may be, each limit with its reason. Beyond them nothing is computed, so that no later product
//! of sizes overflows and no absurd size takes the machine's memory.

use crate::{Name, TensorType};

/// Elements of one tensor of a model. The logits of a thousand samples of a million tokens over a vocabulary of 2^18 are
/// that many; eight bytes of each stay far inside 64 bits.
pub const MAX_ELEMENTS: usize = 1 << 48;

/// Elements of one tensor of a graph: passes pad what does not divide, and gather what is padded.
pub const MAX_PADDED_ELEMENTS: usize = MAX_ELEMENTS << 2;

/// Ranks of a mesh. The largest clusters have some hundred thousand devices.
pub const MAX_RANKS: usize = 1 << 20;

/// Floating-point operations of one operator on all ranks: nine seconds of a thousand devices at a PFLOP/s each.
pub const MAX_FLOP: u64 = 1 << 63;

/// Tensors of one stack, and calls of one repeated call. Each is written out in the plan.
pub const MAX_STACK: usize = 1 << 20;

/// Why a tensor type is refused, whatever computes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("`{ty}` has no elements: {dim} is 0")]
    Empty { ty: Box<TensorType>, dim: Name },
    #[error("`{ty}` has more than 2^{} elements", most.ilog2())]
    TooLarge { ty: Box<TensorType>, most: usize },
}

impl TensorType {
    /// That each axis has an element at least and the tensor `most` elements at most.
    pub fn check_size(&self, most: usize) -> Result<(), SizeError> {
        if let Some(dim) = self.dims.iter().find(|d| d.size == 0) {
            return Err(SizeError::Empty { ty: Box::new(self.clone()), dim: dim.name.clone() });
        }
        if self.elements() > most {
            return Err(SizeError::TooLarge { ty: Box::new(self.clone()), most });
        }
        Ok(())
    }
}

/// `a * b * ...`, or the largest number there is: to be compared with a limit.
pub fn saturating_product(factors: impl IntoIterator<Item = u64>) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_held_to_the_limits() {
        let check =
            |text: &str| text.parse::<TensorType>().expect(text).check_size(MAX_ELEMENTS).map_err(|e| e.to_string());
        assert_eq!(check("f32[]"), Ok(()));
        assert_eq!(check("f32[A:16777216, B:16777216]"), Ok(()));
        assert_eq!(check("f32[A:3, N:0]"), Err("`f32[A:3, N:0]` has no elements: N is 0".into()));
        // The product is 0, and each factor alone is too large.
        assert!(check("f32[A:18446744073709551615, B:18446744073709551615, N:0]").is_err());
        let wrapped = check("f32[A:4294967296, B:4294967296]");
        assert_eq!(wrapped, Err("`f32[A:4294967296, B:4294967296]` has more than 2^48 elements".into()));
    }
}
