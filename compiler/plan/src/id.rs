//! Ids: indices into the plan's lists, one type per list, printed as the plan's drawing writes them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// # Panics
            /// If there are more than `u32::MAX` of them, which no plan has.
            pub fn new(index: usize) -> Self {
                Self(u32::try_from(index).expect("fewer than 2^32 entries"))
            }

            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

ids! {
    KernelId "k",
    /// Persistent buffers of the class first, then the body's own: see [`crate::Body`].
    BufferId "b",
    EventId "e",
    LaneId "lane",
    PlaceId "p",
    /// Of the feeds of one program, as emits are of its emits.
    FeedId "feed",
    EmitId "emit",
    ClassId "class",
    /// Of the parameters of the manifest.
    ParameterId "parameter",
    ResidencyId "residency",
}
