//! `--metrics`: one line of JSON a step.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use data::{Stream, Wait, WholeFile};
use plan::Program;
use runtime_core::Run;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

pub struct Metrics {
    path: PathBuf,
    out: BufWriter<Stream>,
    /// Whether lines say which program ran.
    several: bool,
}

impl Metrics {
    /// Of a run of `several` programs or one. A resumed run adds to the file, so that it tells the whole story.
    pub fn open(path: &Path, several: bool, resumed: bool, wait: &Wait) -> Result<Self, Failure> {
        let open = || {
            if let WholeFile::Through(path) = WholeFile::at(path)? {
                return Stream::open(&path, wait);
            }
            let file = File::options().create(true).read(resumed).append(true).open(path)?;
            file.set_len(if resumed { whole_lines(&file)? } else { 0 })?;
            Ok(file.into())
        };
        let out = open().map_err(|e| Failure::file(path, &e))?;
        Ok(Self { path: path.into(), out: BufWriter::new(out), several })
    }

    /// Adds step number `step` (from 1) with the numbers it gave; `skipped` if nothing was updated, since one of them is
    /// not finite.
    pub fn step(
        &mut self,
        step: u64,
        numbers: &[(String, f32)],
        skipped: bool,
        program: &Program,
        run: Run,
    ) -> Result<(), Failure> {
        let seconds = (run.time + run.fed).as_secs_f64();
        let mut line = Map::new();
        line.insert("step".into(), json!(step));
        if self.several {
            line.insert("program".into(), json!(program.name));
        }
        // Not-a-number has no form in JSON and becomes null.
        line.extend(numbers.iter().map(|(name, value)| (name.clone(), json!(value))));
        if skipped {
            line.insert("skipped".into(), json!(true));
        }
        line.insert("seconds".into(), json!(seconds));
        line.insert("feed_seconds".into(), json!(run.fed.as_secs_f64()));
        line.insert("tokens_per_second".into(), json!(program.tokens as f64 / seconds));
        line.insert("gflops".into(), json!(program.flops as f64 / seconds / 1e9));
        // A line is flushed at once: whoever follows the file sees each step as it ends.
        let written = writeln!(self.out, "{}", Value::Object(line)).and_then(|()| self.out.flush());
        written.map_err(|e| Failure::file(&self.path, &e))
    }
}

/// The bytes of a file up to its last line, if a run was killed while it wrote that.
fn whole_lines(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
