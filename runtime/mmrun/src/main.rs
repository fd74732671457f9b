//! `mmrun`: runs a compiled plan.

mod agreement;
mod apart;
mod backend;
mod check;
mod cli;
mod failure;
mod finite;
mod launch;
mod metrics;
mod places;
mod probe;
mod progress;
mod range;
mod rank_threads;
mod results;
mod run;
mod save;
mod setup;
mod signals;
mod steps;
mod trace_file;
mod values;
mod world;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

fn main() -> ExitCode {
    let start = Instant::now();
    signals::spare_large_files();
    let args = match cli::Args::try_parse() {
        Ok(args) => args,
        Err(told) => return explained(&told),
    };
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
            .with_writer(std::io::stderr)
            // What it would tell of a closed standard error, it would tell there.
            .log_internal_errors(false)
            .init();
    }
    let result = if args.check { check::check(&args).map(|()| 0) } else { run::run(&args, start) };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            progress::note(&failure.to_string());
            std::thread::sleep(failure.linger);
            ExitCode::FAILURE
        }
    }
}

/// Prints the help or the version that was asked for, or what is wrong with the command line.
fn explained(told: &clap::Error) -> ExitCode {
    match told.print() {
        Err(e) if e.kind() != ErrorKind::BrokenPipe && !told.use_stderr() => ExitCode::FAILURE,
        _ => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(1)),
    }
}
