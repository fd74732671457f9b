//! The pipeline schedules, by the words of the table in `passes`.

use crate::Schedule;

macro_rules! schedules {
    ($($name:literal, $word:ident, $file:ident;)*) => {
        $(#[doc = concat!("The schedule `", $name, "`.")]
        pub const $word: Schedule = Schedule;)*
    };
}

include!("../../../passes/src/stages/table.rs");
