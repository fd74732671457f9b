//! `mmc`, the compiler's command line: the only part of the compiler that reads files, prints, or looks at the environment.

mod args;
#[cfg(feature = "ascend")]
mod ascend;
mod build;
mod built_in;
#[cfg(feature = "cpu")]
mod cache;
#[cfg(feature = "cpu")]
mod calibrate;
mod changes;
mod compare;
mod compile;
mod diff;
mod directives;
mod dot;
mod explain;
mod folder;
mod input;
mod inspect;
mod machines;
mod memory_limit;
mod mesh;
mod model;
mod models;
mod optim;
mod output;
mod plan_file;
mod targets;
mod timeline;

use std::io::{ErrorKind, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use diag::{Diagnostics, Sources};

use crate::args::{Cli, Command};

/// A compilation makes many small things that live briefly, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return explained(&told),
    };
    let filter = tracing_subscriber::EnvFilter::from_env("MMC_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // What it would tell of a closed standard error, it would tell there.
        .log_internal_errors(false)
        .init();
    let mut sources = Sources::default();
    let agreed = match &mut cli.command {
        Command::Compile(args) => model::agree(&mut args.model),
        Command::Ir(args) => model::agree(&mut args.model),
        Command::Check(args) | Command::Manifest(args) => model::agree(args),
        _ => Ok(()),
    };
    let done = agreed.and_then(|()| run(&cli.command, &mut sources));
    match done {
        Ok(warnings) => {
            show(&warnings, &sources);
            ExitCode::SUCCESS
        }
        Err(errors) => {
            show(&errors, &sources);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, sources: &mut Sources) -> Done {
    match command {
        Command::Compile(args) => compile::compile(args, sources),
        Command::Models(args) => models::models(args, sources),
        Command::Check(args) => inspect::check(args, sources),
        Command::Ir(args) => inspect::ir(args, sources),
        Command::Manifest(args) => inspect::manifest(args, sources),
        Command::Opt(args) => inspect::opt(args, sources),
        Command::Explain(args) => explain::explain(args),
        #[cfg(feature = "cpu")]
        Command::Calibrate(args) => calibrate::calibrate(args),
        Command::Timeline(args) => timeline::timeline(args),
        #[cfg(feature = "ascend")]
        Command::Export(args) => ascend::export(args),
        #[cfg(feature = "ascend")]
        Command::Pack(args) => ascend::pack(args),
        Command::Dot(args) => dot::dot(args),
        Command::Diff(args) => diff::diff(args),
        Command::Compare(args) => compare::compare(args),
    }
}

/// What every command ends with: warnings, or errors.
type Done = Result<Diagnostics, Diagnostics>;

fn show(diagnostics: &Diagnostics, sources: &Sources) {
    if !diagnostics.0.is_empty() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        output::tell(&diag::render(diagnostics, sources, colour));
    }
}

/// Prints the help or the version that was asked for, or what is wrong with the command line.
fn explained(told: &clap::Error) -> ExitCode {
    match told.print() {
        Err(e) if e.kind() != ErrorKind::BrokenPipe && !told.use_stderr() => ExitCode::FAILURE,
        _ => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(1)),
    }
}
