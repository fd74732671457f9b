//! An emulator of `atc`, CANN's offline compiler: takes the arguments that mmc's exports write, and gives `.om` files that
//! the emulator of libascendcl runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    match compile(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("atc (emulator): {error}");
            ExitCode::FAILURE
        }
    }
}

fn compile(args: Vec<String>) -> Result<(), String> {
    let option = |name: &str| {
        let found = args.iter().find_map(|a| a.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("--{name} is missing"))
    };
    // A graph of GE's own, and types as they stand: other modes would turn f32 and bf16 into f16.
    for (name, want) in [("framework", "1"), ("precision_mode_v2", "origin")] {
        if option(name)? != want {
            return Err(format!("--{name} must be {want}"));
        }
    }
    option("soc_version")?;
    let (model, output) = (option("model")?, option("output")?);
    let air = std::fs::read(model).map_err(|e| format!("{model}: {e}"))?;
    let om = emulator_ge::om::write(&air).map_err(|e| format!("{model}: {e}"))?;
    let path = format!("{output}.om");
    std::fs::write(&path, om).map_err(|e| format!("{path}: {e}"))
}
