//! `mmc models`: what is built in, and how it is used.

use std::fmt::Write;

use diag::{Diagnostic, Diagnostics, Sources};
use eval::Offer;

use crate::args::Models;
use crate::output::print;
use crate::{Done, built_in};

pub fn models(args: &Models, sources: &mut Sources) -> Done {
    let offers = built_in::offers(sources)?;
    let text = match &args.name {
        None => {
            let mut out = String::new();
            for (name, _, offer) in &offers {
                let _ = writeln!(out, "{name}");
                describe(&mut out, offer);
            }
            out.push_str(
                "\n`mmc models NAME` shows its commands; `mmc check DIR` takes the folder of a published checkpoint.\n",
            );
            let layers: Vec<&str> = built_in::layers().collect();
            let _ = writeln!(out, "Models are made of {}; `--source` prints one.", layers.join(", "));
            out
        }
        Some(asked) if args.source && built_in::used(asked).is_some() => {
            built_in::used(asked).unwrap_or_default().to_owned()
        }
        Some(asked) => {
            let is_asked = |name: &str, offer: &Offer| {
                name == asked || name.strip_suffix(".mm") == Some(asked) || offer.classes.contains(asked)
            };
            let Some((name, file, offer)) = offers.iter().find(|(name, _, offer)| is_asked(name, offer)) else {
                let names = || offers.iter().map(|(name, _, _)| *name);
                let classes = offers.iter().flat_map(|(_, _, offer)| offer.classes.iter().map(String::as_str));
                let mut error = Diagnostic::error(format!("there is no built-in model {asked}"));
                if let Some(near) = types::nearest(asked, names().chain(classes)).first() {
                    error = error.help(format!("did you mean {near}?"));
                }
                return Err(error.help(format!("there are {}", names().collect::<Vec<_>>().join(", "))).into());
            };
            if args.source {
                sources.text(*file).to_string()
            } else {
                let mut out = format!("{name}\n");
                describe(&mut out, offer);
                commands(&mut out, name, offer);
                out
            }
        }
    };
    print(&text)?;
    Ok(Diagnostics::default())
}

fn describe(out: &mut String, offer: &Offer) {
    for (what, names) in [("classes", &offer.classes), ("presets", &offer.presets), ("tasks", &offer.tasks)] {
        if !names.is_empty() {
            let _ = writeln!(out, "  {what:<8} {}", names.join(", "));
        }
    }
}

fn commands(out: &mut String, name: &str, offer: &Offer) {
    let preset = offer.presets.first().map_or(String::new(), |preset| format!(" --preset {preset}"));
    let _ = writeln!(out, "\nfrom a published folder, or with a preset:");
    let _ = writeln!(out, "  mmc compile DIR -o plan.bin");
    let _ = writeln!(out, "  mmc compile {name}{preset} -o plan.bin");
    let _ = writeln!(out, "  mmrun plan.bin --weights DIR --data DATA --save CHECKPOINTS");
    for task in offer.tasks.iter().filter(|task| *task != "train") {
        let _ = writeln!(out, "  mmc compile DIR --task {task} -o {task}.bin");
    }
    let _ = writeln!(out, "its source, to start from:");
    let _ = writeln!(out, "  mmc models {name} --source > my_model.mm");
}
