//! Equality, order and hash of operators whose attributes include floats: floats are compared by their bits.

/// An attribute of floats.
pub trait Floats {
    /// Bits in the order of the numbers.
    fn bits(&self) -> impl Iterator<Item = u64> + Clone;
}

impl Floats for f64 {
    fn bits(&self) -> impl Iterator<Item = u64> + Clone {
        std::iter::once(ordered(*self))
    }
}

impl Floats for Vec<f64> {
    fn bits(&self) -> impl Iterator<Item = u64> + Clone {
        self.iter().map(|value| ordered(*value))
    }
}

const fn ordered(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// `by_bits!(Op { attributes; floats })`: what `derive` would say if floats had an order. All attributes must be listed.
macro_rules! by_bits {
    ($op:ident { $($plain:ident),* ; $($float:ident),* }) => {
        impl PartialEq for $op {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other) == std::cmp::Ordering::Equal
            }
        }

        impl Eq for $op {}

        impl PartialOrd for $op {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $op {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                use $crate::ops::identity::Floats;
                let Self { $($plain,)* $($float),* } = self;
                let order = std::cmp::Ordering::Equal;
                $(let order = order.then_with(|| $plain.cmp(&other.$plain));)*
                $(let order = order.then_with(|| $float.bits().cmp(other.$float.bits()));)*
                order
            }
        }

        impl std::hash::Hash for $op {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                use $crate::ops::identity::Floats;
                $(self.$plain.hash(state);)*
                $(self.$float.bits().for_each(|bits| bits.hash(state));)*
            }
        }
    };
}
