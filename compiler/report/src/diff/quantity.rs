//! A figure of both plans, and the table of those that differ.

use std::fmt::Write;

use crate::quantity::{bytes, count, flops, milliseconds};

pub struct Row {
    what: String,
    /// Both as numbers, for the change, and as people read them.
    values: [f64; 2],
    texts: [String; 2],
}

impl Row {
    pub fn bytes(what: impl Into<String>, a: u64, b: u64) -> Self {
        let exact = a != b && bytes(a) == bytes(b);
        Self::new(what, [a, b].map(|n| (n as f64, if exact { format!("{n} B") } else { bytes(n) })))
    }

    pub fn flops(what: impl Into<String>, a: u128, b: u128) -> Self {
        Self::new(what, [a, b].map(|n| (n as f64, flops(n))))
    }

    pub fn count(what: impl Into<String>, a: u64, b: u64) -> Self {
        Self::new(what, [a, b].map(|n| (n as f64, if n < 100_000 { n.to_string() } else { count(n) })))
    }

    pub fn seconds(what: impl Into<String>, a: f64, b: f64) -> Self {
        Self::new(what, [a, b].map(|s| (s, milliseconds(s))))
    }

    fn new(what: impl Into<String>, [a, b]: [(f64, String); 2]) -> Self {
        Self { what: what.into(), values: [a.0, b.0], texts: [a.1, b.1] }
    }

    fn differs(&self) -> bool {
        self.values[0] != self.values[1]
    }

    /// `+12.5 %`, `x 8.0`; empty where one side is nothing.
    fn change(&self) -> String {
        let [a, b] = self.values;
        match b / a {
            _ if a == 0.0 || b == 0.0 => String::new(),
            ratio if ratio >= 2.0 => format!("x {ratio:.1}"),
            ratio if (ratio - 1.0).abs() < 5e-4 => "~ 0 %".into(),
            ratio => format!("{:+.1} %", (ratio - 1.0) * 100.0),
        }
    }
}

/// Rows that differ.
pub fn table(out: &mut String, rows: &[Row]) {
    if rows.iter().any(Row::differs) {
        let _ = writeln!(out, "  {:>12}  {:>12} {:>10}", "A", "B", "change");
        for row in rows.iter().filter(|row| row.differs()) {
            let [a, b] = &row.texts;
            let _ = writeln!(out, "  {a:>12}  {b:>12} {:>10}  {}", row.change(), row.what);
        }
        if rows.iter().any(|row| !row.differs()) {
            let _ = writeln!(out, "  the other figures of `mmc explain` are the same");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_ratios_or_per_cent() {
        let check = |a, b, want: &str| assert_eq!(Row::bytes("", a, b).change(), want);
        check(100, 150, "+50.0 %");
        check(100, 800, "x 8.0");
        check(800, 100, "-87.5 %");
        check(100_000, 100_001, "~ 0 %");
        check(0, 100, "");
        check(100, 0, "");
    }
}
