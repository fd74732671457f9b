//! The pipeline schedules, by the words of the table in `passes`.

macro_rules! schedules {
    ($($name:literal, $word:ident, $file:ident;)*) => {
        /// Each word, with the schedule's name.
        const SCHEDULES: &[(&str, &str)] = &[$((stringify!($word), $name)),*];
    };
}

include!("../../../../passes/src/stages/table.rs");

/// The name of the schedule that a word stands for.
pub fn schedule(word: &str) -> Option<&'static str> {
    SCHEDULES.iter().find(|(known, _)| *known == word).map(|(_, name)| *name)
}

pub fn words() -> impl Iterator<Item = &'static str> {
    SCHEDULES.iter().map(|(word, _)| *word)
}
