//! The file of `--trace`. Other processes keep their events until rank 0 adds them at the end.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::rc::Rc;

use data::{Stream, Wait, WholeFile};
use runtime_core::{Executor, TraceWriter};

use crate::failure::Failure;
use crate::world::World;

/// Viewers of traces do not open many more.
const MOST_EVENTS: usize = 1_000_000;

pub struct Trace<'a> {
    path: &'a Path,
    /// None after it failed.
    writer: Option<TraceWriter<Box<dyn Write>>>,
    kept: Shared,
}

impl<'a> Trace<'a> {
    pub fn open(path: &'a Path, world: &World, wait: &Wait) -> Result<Self, Failure> {
        let kept = Shared::default();
        let open = || match WholeFile::at(path)? {
            WholeFile::Through(path) => Stream::open(&path, wait),
            WholeFile::Regular(path) => File::create(path).map(Stream::from),
        };
        let make = || -> io::Result<_> {
            let out: Box<dyn Write> = match world.together().is_first() {
                true => Box::new(BufWriter::new(open()?)),
                false => Box::new(kept.clone()),
            };
            let most = MOST_EVENTS / world.together().count();
            TraceWriter::new(out, world.plan(), world.executors().map(Executor::rank), most)
        };
        let writer = make().map_err(|e| Failure::file(path, &e))?;
        Ok(Self { path, writer: Some(writer), kept })
    }

    /// Adds a step. After an error nothing more is written.
    pub fn add(&mut self, world: &World, program: usize, step: u64) -> Result<(), Failure> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        for executor in world.executors() {
            writer.add(executor, program, step).map_err(|e| Failure::file(self.path, &e))?;
        }
        self.writer = Some(writer);
        Ok(())
    }

    /// Closes the file; all processes come to it, whether theirs has failed or not.
    pub fn close(self, world: &World) -> Result<(), Failure> {
        let events = self.kept.take();
        let mut all = world.together().collect("give their events for the trace", events)?;
        let Some(mut writer) = self.writer.filter(|_| world.together().is_first()) else { return Ok(()) };
        let file = |e| Failure::file(self.path, &e);
        // Those of the first are in the file.
        all.remove(0);
        all.iter().try_for_each(|events| writer.append(events)).map_err(file)?;
        if writer.finish().map_err(file)? {
            world.note(&format!("the trace holds the first {MOST_EVENTS} events only: more do not open well"));
        }
        world.note(&format!("wrote {}: open it at ui.perfetto.dev", self.path.display()));
        Ok(())
    }
}

/// Bytes that are written in one place and taken in another.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Shared {
    fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
