//! The steps of a run, one after another, until the last one or until something ends them early.

use std::time::{Duration, Instant};

use data::{DataError, Feeds};
use runtime_core::Run;

use crate::cli::Args;
use crate::failure::Failure;
use crate::finite::{self, Finite};
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::results::Results;
use crate::save::{Saver, Written};
use crate::signals::Signals;
use crate::trace_file::Trace;
use crate::values::Start;
use crate::world::World;

/// A run between two steps, and all that goes on beside the steps.
pub struct Steps<'a> {
    pub args: &'a Args,
    pub world: World,
    pub results: Results,
    /// By program.
    pub feeds: Vec<Feeds>,
    /// Samples of a step.
    pub batch: u64,
    pub start: Start,
    /// The number of steps behind the run.
    pub step: u64,
    pub saver: Option<Saver<'a>>,
    pub metrics: Option<Metrics>,
    pub trace: Option<Trace<'a>>,
    pub progress: Progress,
    pub signals: Signals,
    pub begin: Instant,
    /// What failed beside the steps and did not end the run.
    pub faults: Vec<Fault>,
    pub finite: Finite,
    /// Whether a number that is not finite was told.
    pub strange: bool,
}

/// What was asked for and was not done, while the run went on.
pub struct Fault {
    pub failure: Failure,
    /// The step that was not saved, if it is that.
    unsaved: Option<u64>,
}

/// How the steps ended.
pub enum Ending {
    /// After the last one, or when the time was over.
    Whole,
    /// A signal asked for it, between two steps.
    Signal(i32),
    /// The next step cannot be run; the state is that of the last.
    Between(Failure),
    /// In the middle of a step: there is no state to save.
    Within(Failure),
}

/// What a process says before each step. The largest among all processes counts.
enum Word {
    Go,
    Over,
    Signal(i32),
    Fail(Failure),
}

impl Steps<'_> {
    /// Runs programs, each up to the step that is given.
    pub fn run(&mut self, runs: Vec<(usize, Option<u64>)>) -> Ending {
        let mut last = Duration::ZERO;
        for (program, end) in runs {
            if end.is_some_and(|end| end <= self.step) {
                continue;
            }
            let mut fed = self.feed(program, end);
            while end.is_none_or(|end| self.step < end) {
                let own = std::mem::replace(&mut fed, Ok(())).map_or_else(Word::Fail, |()| self.word(last));
                let before = Instant::now();
                let own = match own {
                    Word::Go => self.ready(program).map_or_else(Word::Fail, |()| Word::Go),
                    own => own,
                };
                let waited = before.elapsed();
                match self.agreed(own) {
                    Ok(Word::Go) => {}
                    Ok(Word::Over) => return Ending::Whole,
                    Ok(Word::Signal(signal)) => return Ending::Signal(signal),
                    Ok(Word::Fail(failure)) => return Ending::Between(failure),
                    Err(failure) => return Ending::Within(failure),
                }
                let done = self.world.step(program).and_then(|mut run| {
                    run.fed += waited;
                    last = run.time + run.fed;
                    self.after(program, run)
                });
                match done {
                    Ok(None) => {}
                    Ok(Some(failure)) => return Ending::Between(failure),
                    Err(failure) => return Ending::Within(failure),
                }
            }
        }
        Ending::Whole
    }

    fn feed(&mut self, program: usize, end: Option<u64>) -> Result<(), Failure> {
        let samples = self.start.samples + (self.step - self.start.step) * self.batch;
        let feeds = self.feeds[program].clone().starting(self.step, samples);
        self.world.feed(program, &feeds, self.step, end.map(|end| end - self.step))
    }

    /// Waits until the next step can be run by the ranks of this process.
    fn ready(&mut self, program: usize) -> Result<(), Failure> {
        self.world.ready(program)?;
        let strange = self.feeds[program].strange_records(self.step);
        self.finite.check_records(self.step + 1, &strange)?;
        strange.iter().for_each(|line| self.progress.note(&format!("warning: {line}")));
        Ok(())
    }

    /// What there is to say before the next step, after one that took as long as `last`.
    fn word(&self, last: Duration) -> Word {
        if let Some(signal) = self.signals.caught() {
            return Word::Signal(signal);
        }
        // Half of the next step over the time is as near as half of it under.
        let next = self.begin.elapsed().as_secs_f64() + 0.5 * last.as_secs_f64();
        let over = self.step > self.start.step && self.args.seconds.is_some_and(|seconds| next > seconds);
        if over { Word::Over } else { Word::Go }
    }

    /// What all processes do: they end together, after the same step.
    fn agreed(&self, own: Word) -> Result<Word, Failure> {
        let together = self.world.together();
        if together.count() == 1 {
            return Ok(own);
        }
        let said = match &own {
            Word::Go => vec![0],
            Word::Over => vec![1],
            Word::Signal(signal) => [&[2], signal.to_le_bytes().as_slice()].concat(),
            Word::Fail(failure) => [&[3], failure.message().as_bytes()].concat(),
        };
        let all = together.meet(&format!("begin step {}", self.step + 1), said)?;
        if let Word::Fail(own) = own {
            return Ok(Word::Fail(own));
        }
        // Of the ranks that say the same, the first.
        let words = all.iter().enumerate().rev().filter_map(|(rank, word)| Some((rank, word.split_first()?)));
        Ok(match words.max_by_key(|(_, (word, _))| **word) {
            Some((rank, (3, text))) => {
                Word::Fail(Failure::new(format!("rank {rank}: {}", String::from_utf8_lossy(text))))
            }
            Some((_, (2, signal))) => Word::Signal(<[u8; 4]>::try_from(signal).map_or(0, i32::from_le_bytes)),
            Some((_, (1, _))) => Word::Over,
            _ => Word::Go,
        })
    }

    /// What follows a step: why there is no next one, if its update was left out and that ends the run. Of errors, only
    /// those of the world end it; others are told, and count at its end.
    fn after(&mut self, program: usize, run: Run) -> Result<Option<Failure>, Failure> {
        self.step += 1;
        let step = self.step;
        let numbers = self.results.step(&mut self.world, program);
        let plan = self.world.plan().clone();
        let program_run = &plan.programs[program];
        let shown = numbers.iter().find(|(name, _)| name == "loss").or(numbers.first());
        self.progress.step(step, shown, program_run, run);
        let skipped = self.finite.left_out(&self.world)?;
        let odd = numbers.iter().find(|(_, v)| !v.is_finite() && !self.strange && !self.finite.looks());
        if let Some((name, value)) = odd {
            self.progress.note(&format!("warning: {name} is {value} at step {step}"));
            self.strange = true;
        }
        if let Some(metrics) = &mut self.metrics
            && let Err(failure) = metrics.step(step, &numbers, skipped, program_run, run)
        {
            self.metrics = None;
            self.fault(failure.context("no more metrics are written"));
        }
        if skipped {
            let first = self.start.samples + (step - 1 - self.start.step) * self.batch;
            let records = finite::records(self.args, &self.feeds[program], first, self.batch);
            match self.finite.tell(step, &numbers, &records) {
                Ok(line) if self.world.together().is_first() => self.progress.note(&line),
                Ok(_) => {}
                Err(failure) => {
                    // The state is still that of the step before.
                    self.step -= 1;
                    return Ok(Some(failure));
                }
            }
        }
        if let Some(trace) = &mut self.trace
            && let Err(failure) = trace.add(&self.world, program, step)
        {
            self.fault(failure.context("the trace ends here"));
        }
        self.save(step).map(|()| None)
    }

    /// Saves what is due, behind the next steps.
    fn save(&mut self, step: u64) -> Result<(), Failure> {
        let Some(saver) = &mut self.saver else { return Ok(()) };
        let due = saver.due(step);
        let before = saver.written(due);
        let now = if due { saver.save_behind(&self.world, step) } else { None };
        before.into_iter().chain(now).try_for_each(|written| self.told(written))
    }

    /// Tells how a save went. One that failed, as on a full disk, leaves the run whole.
    fn told(&mut self, written: Written) -> Result<(), Failure> {
        let (step, tried) = (written.step, self.faults.iter().position(|f| f.unsaved == Some(written.step)));
        match written.folder {
            Ok(folder) => {
                if self.world.together().is_first() {
                    self.progress.note(&format!("saved {}", folder.display()));
                }
                tried.into_iter().for_each(|at| drop(self.faults.remove(at)));
            }
            Err(error @ DataError::Peers(_)) => return Err(error.into()),
            // It is told already.
            Err(_) if tried.is_some() => {}
            Err(error) => {
                self.fault(Failure::from(error).context(&format!("step {step} was not saved")));
                self.faults.iter_mut().last().into_iter().for_each(|fault| fault.unsaved = Some(step));
            }
        }
        if let Some(error) = written.unremoved {
            self.fault(Failure::from(error).context("older checkpoints were not removed"));
        }
        Ok(())
    }

    /// Writes the checkpoint of the last step if there is a `whole` one, and waits for the one that is being written.
    pub fn save_last(&mut self, whole: bool) -> Result<(), Failure> {
        let Some(saver) = &mut self.saver else { return Ok(()) };
        let before = saver.written(true);
        let broken = before.as_ref().is_some_and(|w| matches!(w.folder, Err(DataError::Peers(_))));
        // A run that did not get over its beginning has nothing new to save.
        let ran = self.step > self.start.step || self.start.from.is_some();
        let now = if whole && ran && !broken { saver.finish(&self.world, self.step) } else { None };
        before.into_iter().chain(now).try_for_each(|written| self.told(written))
    }

    pub fn fault(&mut self, failure: Failure) {
        if self.world.together().is_first() {
            self.progress.note(&format!("warning: {}", failure.message()));
        }
        self.faults.push(Fault { failure, unsaved: None });
    }
}
