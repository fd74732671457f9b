//! `mmc`, the compiler's command line: the only part of the compiler that reads files, prints, or looks at the environment.

mod args;
#[cfg(feature = "ascend")]
mod ascend;
#[cfg(feature = "cpu")]
mod cache;
#[cfg(feature = "cpu")]
mod calibrate;
mod changes;
mod compile;
mod diff;
mod dot;
mod explain;
mod fit;
mod inspect;
mod machines;
mod mesh;
mod model;
mod plan_file;
mod targets;
mod timeline;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use diag::{Diagnostics, Sources};

use crate::args::{Cli, Command};

/// A compilation makes many small things that live briefly, on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::from_env("MMC_LOG");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut sources = Sources::default();
    let done = match &cli.command {
        Command::Compile(args) => compile::compile(args, &mut sources),
        Command::Check(args) => inspect::check(args, &mut sources),
        Command::Ir(args) => inspect::ir(args, &mut sources),
        Command::Manifest(args) => inspect::manifest(args, &mut sources),
        Command::Opt(args) => inspect::opt(args, &mut sources),
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
    };
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

/// What every command ends with: warnings, or errors.
type Done = Result<Diagnostics, Diagnostics>;

fn show(diagnostics: &Diagnostics, sources: &Sources) {
    if !diagnostics.0.is_empty() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", diag::render(diagnostics, sources, colour));
    }
}

/// Prints to standard output; a reader that went away (`mmc ir | head`) is no error.
fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
