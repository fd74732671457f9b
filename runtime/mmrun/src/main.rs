//! `mmrun`: runs a compiled plan.

mod agreement;
mod check;
mod cli;
mod crew;
mod failure;
mod finite;
mod launch;
mod metrics;
mod progress;
mod results;
mod run;
mod save;
mod setup;
mod values;
mod world;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

fn main() -> ExitCode {
    let start = Instant::now();
    let args = cli::Args::parse();
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
            .with_writer(std::io::stderr)
            .init();
    }
    let result = if args.check { check::check(&args) } else { run::run(&args, start) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // In one piece, since other processes write to the same place.
            let _ = std::io::stderr().write_all(format!("{failure}\n").as_bytes());
            std::thread::sleep(failure.linger);
            ExitCode::FAILURE
        }
    }
}
