//! Times of kernels out of a trace that `mmrun --trace` wrote.

use std::collections::BTreeMap;

use serde_json::Value;

/// Seconds of each kernel in a step, over all its runs: the median of the steps after the first.
#[derive(Clone, Debug)]
pub struct Measured {
    seconds: BTreeMap<String, f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("cannot be read as a trace: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has no launches")]
    Empty,
}

impl Measured {
    /// Of the text of a trace.
    pub fn parse(text: &[u8]) -> Result<Measured, TraceError> {
        let events: Vec<Value> = serde_json::from_slice(text)?;
        let measured = Measured::of(&events);
        if measured.seconds.is_empty() { Err(TraceError::Empty) } else { Ok(measured) }
    }

    /// Of the events of rank 0.
    fn of(events: &[Value]) -> Measured {
        let mut sums: BTreeMap<&str, BTreeMap<u64, f64>> = BTreeMap::new();
        for event in events.iter().filter(|event| event["ph"] == "X" && event["pid"] == 0) {
            let step = event["args"]["step"].as_u64();
            if let (Some(name), Some(step), Some(micros)) = (event["name"].as_str(), step, event["dur"].as_f64()) {
                *sums.entry(name).or_default().entry(step).or_default() += micros * 1e-6;
            }
        }
        let median = |steps: BTreeMap<u64, f64>| {
            // The first step also maps memory.
            let skipped = usize::from(steps.len() > 1);
            let mut times: Vec<f64> = steps.into_values().skip(skipped).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        Measured { seconds: sums.into_iter().map(|(name, steps)| (name.to_owned(), median(steps))).collect() }
    }

    pub fn seconds(&self, kernel: &str) -> Option<f64> {
        self.seconds.get(kernel).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_step_are_summed_and_steps_after_the_first_give_the_median() {
        let event = |name: &str, step: u64, micros: f64| serde_json::json!({"name": name, "ph": "X", "pid": 0, "tid": 0, "ts": 0.0, "dur": micros, "args": {"step": step}});
        let events = [(1, 900.0), (2, 10.0), (2, 20.0), (3, 50.0), (4, 31.0)]
            .map(|(step, micros)| event("k0_add", step, micros));
        let measured = Measured::of(&events);
        assert!((measured.seconds("k0_add").unwrap_or_default() - 31e-6).abs() < 1e-12);
        assert_eq!(measured.seconds("k1_mul"), None);
    }
}
