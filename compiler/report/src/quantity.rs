//! Quantities as people read them: bytes, counts, operations, durations.

use std::time::Duration;

/// `3.2 GiB`.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// `14.3 G`, powers of a thousand.
pub fn count(n: impl Into<u128>) -> String {
    let n = n.into();
    let units = ["", "k", "M", "G", "T", "P"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { n.to_string() } else { format!("{value:.1} {}", units[unit]) }
}

/// `14.3 GFLOP`.
pub fn flops(n: impl Into<u128>) -> String {
    let n = n.into();
    let count = count(n);
    format!("{count}{}FLOP", if n < 1000 { " " } else { "" })
}

pub fn seconds(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 1.0 { format!("{:.0} ms", s * 1e3) } else { format!("{s:.1} s") }
}

/// `12.3 ms`.
pub fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}
