//! The launch trace: a Chrome trace file that Perfetto opens, a process for each rank, and a track for each of its lanes.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use plan::Plan;
use serde::Serialize;

use crate::Executor;

/// When one instruction ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub index: u32,
    pub begin: Instant,
    pub end: Instant,
}

/// Writes the events of one run after another.
pub struct TraceWriter<W: Write> {
    out: W,
    /// When the trace begins.
    start: Instant,
    left: usize,
    first: bool,
    dropped: bool,
}

#[derive(Serialize)]
struct Event<'a> {
    name: &'a str,
    ph: &'static str,
    pid: usize,
    tid: usize,
    /// Microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    args: Args<'a>,
}

#[derive(Default, Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instruction: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<&'a str>,
}

impl<W: Write> TraceWriter<W> {
    /// A trace of these ranks, of at most `most` events: viewers do not open what is much larger than a million.
    pub fn new(out: W, plan: &Plan, ranks: impl IntoIterator<Item = usize>, most: usize) -> io::Result<Self> {
        let mut writer = Self { out, start: Instant::now(), left: most, first: true, dropped: false };
        let track = |name: &'static str, of: &str, pid, tid| {
            let args = Args { name: Some(of), ..Args::default() };
            serde_json::to_vec(&Event { name, ph: "M", pid, tid, ts: None, dur: None, args })
        };
        for rank in ranks {
            writer.line(&track("process_name", &format!("{} rank {rank}", plan.header.model), rank, 0)?)?;
            let bodies = plan.programs.iter().filter_map(|p| p.bodies.get(plan.class_of(rank)?.index()));
            let lanes = bodies.map(|b| &b.lanes).max_by_key(|l| l.len());
            for (tid, lane) in lanes.into_iter().flatten().enumerate() {
                writer.line(&track("thread_name", &lane.to_string(), rank, tid)?)?;
            }
        }
        Ok(writer)
    }

    /// Adds the executor's last run of `program`, which was step `step`; true while there is room for more.
    pub fn add(&mut self, executor: &Executor, program: usize, step: u64) -> io::Result<bool> {
        let plan = executor.plan().clone();
        let Some(scope) = plan.scope(program, executor.class()) else { return Ok(true) };
        let mut events = Vec::new();
        executor.take_marks(|lane, mark| events.push((lane, *mark)));
        if events.len() > self.left {
            self.dropped = true;
            return Ok(false);
        }
        self.left -= events.len();
        for (lane, mark) in events {
            let instruction = &scope.body.instructions[mark.index as usize];
            let name = scope.title(&instruction.op);
            let place = plan.places[instruction.place.index()].to_string();
            let micros = |d: Duration| d.as_nanos() as f64 / 1000.0;
            let args = Args {
                name: None,
                program: Some(&scope.program.name),
                step: Some(step),
                instruction: Some(mark.index),
                place: Some(&place),
            };
            let ts = Some(micros(mark.begin.saturating_duration_since(self.start)));
            let dur = Some(micros(mark.end - mark.begin));
            self.line(&serde_json::to_vec(&Event {
                name: &name,
                ph: "X",
                pid: executor.rank(),
                tid: lane,
                ts,
                dur,
                args,
            })?)?;
        }
        Ok(true)
    }

    /// Adds what the writer of other ranks wrote, which was not finished.
    pub fn append(&mut self, events: &[u8]) -> io::Result<()> {
        match events.strip_prefix(b"[\n") {
            Some(events) => self.line(events),
            None => Ok(()),
        }
    }

    fn line(&mut self, event: &[u8]) -> io::Result<()> {
        self.out.write_all(if std::mem::take(&mut self.first) { b"[\n" } else { b",\n" })?;
        self.out.write_all(event)
    }

    /// Closes the file; true if steps were left out because it was full.
    pub fn finish(mut self) -> io::Result<bool> {
        self.out.write_all(if self.first { b"[]\n" } else { b"\n]\n" })?;
        self.out.flush()?;
        Ok(self.dropped)
    }
}
