//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use plan::Program;
use runtime_core::Run;

/// One plain line about the run, in one piece since other processes write to the same place. Nobody may be there to read
/// it, which is no reason to end.
pub fn note(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

pub struct Progress {
    bar: Option<ProgressBar>,
    /// Of several processes, one speaks.
    speaks: bool,
    /// Of all steps.
    tokens: f64,
    flops: f64,
    /// The number of the last step, if it is known.
    last: Option<u64>,
    printed: Option<Instant>,
    steps: u64,
    first: u64,
    total: Duration,
}

impl Progress {
    /// For steps after number `first`, at most `steps` of them.
    pub fn new(speaks: bool, first: u64, steps: Option<u64>) -> Self {
        let bar = (speaks && std::io::stderr().is_terminal()).then(|| {
            let bar = steps.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let style = if steps.is_some() {
                "{bar:24} {pos}/{len} {msg} [{elapsed}<{eta}]"
            } else {
                "{spinner} {pos} {msg} [{elapsed}]"
            };
            // The template is fixed; a faulty one would show as the default style.
            bar.with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            bar,
            speaks,
            tokens: 0.0,
            flops: 0.0,
            last: steps.map(|n| first + n),
            printed: None,
            steps: 0,
            first,
            total: Duration::ZERO,
        }
    }

    /// Step number `step` (from 1) is done.
    pub fn step(&mut self, step: u64, number: Option<&(String, f32)>, program: &Program, run: Run) {
        let (tokens, flops) = (program.tokens as f64, program.flops as f64);
        self.steps += 1;
        self.tokens += tokens;
        self.flops += flops;
        self.total += run.time + run.fed;
        let seconds = (run.time + run.fed).as_secs_f64();
        let number = number.map(|(name, value)| format!("{name} {value:.6}  ")).unwrap_or_default();
        let message = format!("{number}{}  {}", duration(seconds), rates(tokens, flops, seconds));
        if let Some(bar) = &self.bar {
            bar.set_message(message);
            bar.inc(1);
            return;
        }
        // A line a second at most, so that logs stay readable; the first and the last step always.
        let due = self.printed.is_none_or(|at| at.elapsed() >= Duration::from_secs(1));
        if self.speaks && (due || self.last == Some(step) || self.last.is_some_and(|l| l - self.first <= 20)) {
            let of = self.last.map(|l| format!("/{l}")).unwrap_or_default();
            note(&format!("step {step}{of}  {message}"));
            self.printed = Some(Instant::now());
        }
    }

    /// Closes the display with a line about the whole run.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
        if self.steps > 1 && self.speaks {
            let mean = self.total.as_secs_f64() / self.steps as f64;
            note(&format!(
                "{} steps, {} each on average, {}",
                self.steps,
                duration(mean),
                rates(self.tokens, self.flops, self.total.as_secs_f64())
            ));
        }
    }

    /// Prints a line without tearing the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}

fn rates(tokens: f64, flops: f64, seconds: f64) -> String {
    let mut text = String::new();
    if tokens > 0.0 {
        text += &format!("{} tokens/s  ", count(tokens / seconds));
    }
    if flops > 0.0 {
        text += &format!("{:.1} GFLOP/s", flops / seconds / 1e9);
    }
    text.trim_end().to_string()
}

/// A bar on a terminal while many things are looked at before a run.
pub struct Counting(Option<ProgressBar>);

impl Counting {
    pub fn new(speaks: bool) -> Self {
        let bar = (speaks && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {msg} [{elapsed}<{eta}]");
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self(bar)
    }

    pub fn at(&self, what: &str, done: usize, of: usize) {
        if let Some(bar) = &self.0 {
            bar.set_length(of as u64);
            bar.set_message(format!("{what} checked"));
            bar.set_position(done as u64);
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.2} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// `1 step`, `2 steps`
pub fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `1.24 M`
pub fn count(n: f64) -> String {
    match n {
        n if n < 1e3 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1} k", n / 1e3),
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2} G", n / 1e9),
    }
}

/// `1.5 GiB`
pub fn bytes(n: u64) -> String {
    match n as f64 {
        b if b < 1024.0 => format!("{n} B"),
        b if b < 1048576.0 => format!("{:.1} KiB", b / 1024.0),
        b if b < 1073741824.0 => format!("{:.1} MiB", b / 1048576.0),
        b => format!("{:.2} GiB", b / 1073741824.0),
    }
}
