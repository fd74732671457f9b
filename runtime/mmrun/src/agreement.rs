//! What all processes of a run must answer alike: with what they were started, and what they read.
//!
//! Processes that resume from different steps, or read different weights, would train one model of both. Processes of which
//! one is to save and the other is not would wait for each other.

use std::ffi::OsStr;
use std::path::Path;

use clap::CommandFactory;
use data::{DataError, Dataset, Inputs, Together, Weights, fingerprint, same_folder};
use plan::PlanHash;
use serde_json::json;

use crate::cli::Args;
use crate::failure::Failure;
use crate::progress::plural;

/// Options that may differ from process to process: they change no result, or are for one rank alone.
const FREE: [&str; 5] = ["threads", "fault", "meeting_fault", "jitter", "poison"];

/// What may lie elsewhere on each machine: that it is given counts here, and what is in it when it is read.
const READ: [&str; 5] = ["plan", "weights", "data", "inputs", "resume"];

/// One question, and what this process answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As in "ranks 0 and 1 were given different ..".
    question: String,
    /// What must be the same.
    answer: String,
    /// The same for people, with what may differ.
    text: String,
}

impl Answer {
    pub fn new(question: &str, answer: impl Into<String>, text: impl Into<String>) -> Self {
        Self { question: question.into(), answer: answer.into(), text: text.into() }
    }

    /// Of the files of `--data`.
    fn of_data(data: &Dataset, path: &Path) -> Result<Self, Failure> {
        let print = fingerprint::of_files(data.files())?;
        Ok(Self::files("--data", &plural(data.records(), "record"), path, &print))
    }

    /// Of the files of `--weights`.
    pub fn of_weights(weights: &Weights, path: &Path) -> Result<Self, Failure> {
        let print = fingerprint::of_files(weights.files())?;
        Ok(Self::files("--weights", &plural(weights.files().count(), "file"), path, &print))
    }

    /// Of the values of `--inputs`.
    fn of_inputs(inputs: &[Inputs], path: &Path) -> Self {
        let print = fingerprint::of_inputs(inputs);
        Self::new("--inputs", &print, format!("{} with the fingerprint {print}", path.display()))
    }

    fn files(question: &str, count: &str, path: &Path, print: &str) -> Self {
        let text = format!("{count} in {} with the fingerprint {print}", path.display());
        Self::new(question, format!("{count}, {print}"), text)
    }
}

/// The plan, the options of the command line, and the version of this program.
pub fn options(together: &Together, plan: PlanHash) -> Result<(), Failure> {
    ask(together, "load the plan", || {
        let mut answers = vec![Answer::new("plans", plan.to_string(), plan.to_string())];
        answers.extend(options_of(std::env::args_os())?);
        Ok(answers)
    })
}

/// What the feeds are read from.
pub fn feeds(together: &Together, args: &Args, inputs: &[Inputs], data: Option<&Dataset>) -> Result<(), Failure> {
    ask(together, "open the inputs and the data", || {
        let mut answers = Vec::new();
        answers.extend(args.inputs.iter().map(|path| Answer::of_inputs(inputs, path)));
        if let Some((path, data)) = args.data.as_deref().zip(data) {
            answers.push(Answer::of_data(data, path)?);
        }
        Ok(answers)
    })
}

/// Asks all processes; `what` says what they are waited for to do. All of them refuse what is not alike.
pub fn ask(together: &Together, what: &str, own: impl FnOnce() -> Result<Vec<Answer>, Failure>) -> Result<(), Failure> {
    if together.count() == 1 {
        return Ok(());
    }
    let told: Vec<_> = own()?.iter().map(|a| json!([a.question, a.answer, a.text])).collect();
    let all = together.meet(what, serde_json::Value::from(told).to_string().into_bytes())?;
    let all: Result<Vec<_>, _> = all.iter().map(|bytes| read(bytes)).collect();
    let all = all.map_err(|e| Failure::new(format!("another rank sent answers that cannot be read: {e}")))?;
    match differences(&all) {
        lines if lines.is_empty() => Ok(()),
        lines => Err(Failure::new(lines.join("\n  and "))
            .help("all ranks of a run take the same options, and read the same files")),
    }
}

fn read(bytes: &[u8]) -> serde_json::Result<Vec<Answer>> {
    let told: Vec<[String; 3]> = serde_json::from_slice(bytes)?;
    Ok(told.into_iter().map(|[question, answer, text]| Answer { question, answer, text }).collect())
}

/// One line for each question to which ranks have different answers: the first rank, and the first that differs.
fn differences(all: &[Vec<Answer>]) -> Vec<String> {
    let mut questions: Vec<&str> = Vec::new();
    for answer in all.iter().flatten() {
        if !questions.contains(&answer.question.as_str()) {
            questions.push(&answer.question);
        }
    }
    let of = |rank: usize, question: &str| all[rank].iter().find(|a| a.question == question);
    let text = |rank: usize, question: &str| of(rank, question).map_or("nothing", |a| &a.text).to_string();
    let line = |question: &&str| {
        let first = of(0, question).map(|a| &a.answer);
        let other = (1..all.len()).find(|rank| of(*rank, question).map(|a| &a.answer) != first)?;
        let (one, two) = (text(0, question), text(other, question));
        Some(format!("ranks 0 and {other} were given different {question}: {one} and {two}"))
    };
    questions.iter().filter_map(line).collect()
}

/// The options on the command line, with their defaults.
fn options_of<T: Into<std::ffi::OsString> + Clone>(line: impl IntoIterator<Item = T>) -> Result<Vec<Answer>, Failure> {
    let command = Args::command();
    let found = command.clone().try_get_matches_from(line).map_err(Failure::new)?;
    let mut answers = vec![Answer::new("versions of mmrun", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_VERSION"))];
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        let Some(values) = found.try_get_raw(id).ok().flatten().filter(|_| !FREE.contains(&id)) else { continue };
        let values: Vec<_> = values.map(OsStr::to_string_lossy).collect();
        let text = values.join(" ");
        let answer = if READ.contains(&id) { "given" } else { &text };
        let question = argument.get_long().map_or_else(|| format!("{id}s"), |long| format!("--{long}"));
        answers.push(Answer::new(&question, answer, text.clone()));
    }
    Ok(answers)
}

/// Proves that all processes write to the same folders.
pub fn folders(args: &Args, together: &Together) -> Result<(), DataError> {
    if let Some(folder) = &args.save {
        same_folder::prove(folder, together)?;
    }
    // A device, such as /dev/null, is written by one of them.
    let Some(outputs) = args.outputs.as_deref().filter(|path| !path.exists() || path.is_file()) else { return Ok(()) };
    let folder = outputs.parent().filter(|p| !p.as_os_str().is_empty());
    same_folder::prove(folder.unwrap_or(Path::new(".")), together)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Vec<Answer> {
        options_of(line.split_whitespace()).expect("options")
    }

    fn compare(first: &str, second: &str) -> Vec<String> {
        differences(&[options(first), options(first), options(second)])
    }

    #[test]
    fn options_are_compared_and_their_differences_named() {
        let line = "mmrun plan.bin --steps 3 --save a --save-every 2 --emit loss,grads";
        assert_eq!(compare(line, line), [""; 0]);
        assert_eq!(
            compare(line, "mmrun plan.bin --steps 4 --save a --emit loss,grads"),
            [
                "ranks 0 and 2 were given different --steps: 3 and 4",
                "ranks 0 and 2 were given different --save-every: 2 and nothing",
            ]
        );
        assert_eq!(
            compare("mmrun p", "mmrun p --timeout 5"),
            ["ranks 0 and 2 were given different --timeout: 60 and 5"]
        );
    }

    #[test]
    fn what_is_read_may_lie_elsewhere_and_threads_may_differ() {
        assert_eq!(compare("mmrun a/plan.bin --data a/d", "mmrun b/plan.bin --data b/d --threads 3"), [""; 0]);
        let different = compare("mmrun p --resume a", "mmrun p --weights a");
        assert_eq!(different.len(), 2, "{different:?}");
        assert!(different.iter().any(|d| d == "ranks 0 and 2 were given different --resume: a and nothing"));
    }

    #[test]
    fn the_options_that_are_treated_apart_exist() {
        let command = Args::command();
        let ids: Vec<_> = command.get_arguments().map(|a| a.get_id().as_str()).collect();
        for id in FREE.iter().chain(&READ) {
            assert!(ids.contains(id), "{id} is not one of {ids:?}");
        }
    }

    #[test]
    fn answers_travel_whole() {
        let own = options("mmrun p --save a --steps 2");
        let told: Vec<_> = own.iter().map(|a| json!([a.question, a.answer, a.text])).collect();
        assert_eq!(read(serde_json::Value::from(told).to_string().as_bytes()).expect("read"), own);
    }
}
