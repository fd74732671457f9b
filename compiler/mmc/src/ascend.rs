//! `mmc export` and `mmc pack`: segments of an Ascend plan out, and compiled in again.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use diag::{Diagnostic, Diagnostics};
use plan::Plan;
use target::Target;
use target_ascend::AscendTarget;
use target_ascend::export::{self, ExportError, Host, HostError};
use target_ascend::pack::{self, Demand, PackError, Packed};

use crate::Done;
use crate::args::{Export, Pack};
use crate::input;
use crate::output::{apart, tell, write};
use crate::plan_file::{self, Read, verify};
use report::quantity::bytes;

pub fn export(args: &Export) -> Done {
    let Read { plan, hash } = plan_file::read(&args.plan)?;
    let hosts = hosts(args.hosts.as_deref())?;
    let files = export::files(&plan, &hash, &hosts).map_err(|e| refused(&args.plan, &e))?;
    let inputs = [("the plan", Some(&*args.plan)), ("the list of hosts", args.hosts.as_deref().map(Path::new))];
    files.iter().try_for_each(|file| apart(&args.output.join(&file.path), &inputs))?;
    let mut segments = 0;
    let mut largest = 0;
    for file in &files {
        let path = args.output.join(&file.path);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| {
            Diagnostic::error(format!("cannot make the folder {}: {e}", folder.display()))
                .help("choose another folder with -o")
        })?;
        write(&path, &file.bytes)?;
        if file.path.ends_with(".air") {
            segments += 1;
            largest = largest.max(file.bytes.len() as u64);
        }
    }
    tell(&format!(
        "{segments} segments, the largest {}, in {}
  compile.sh       compiles them with atc, where CANN is installed, into om/
  manifest.json    segments, groups, buffers and order
  rank_table.json  to fill in: `hccn_tool -i DEVICE -ip -g` on each host prints the addresses\n",
        bytes(largest),
        args.output.display()
    ));
    Ok(Diagnostics::default())
}

fn refused(path: &Path, error: &ExportError) -> Diagnostic {
    let help = match error {
        ExportError::Target(_) | ExportError::Archive(_) => {
            "compile the model with `--target ascend-910b3`, or another Ascend"
        }
        ExportError::Packed(_) => "export the plan that `mmc compile` wrote",
        ExportError::Hosts(_) => "name the hosts as in `--hosts node-0=10.0.0.1,node-1=10.0.0.2`",
        ExportError::Graph { .. } | ExportError::Json(_) => {
            return Diagnostic::internal(format!("{}: {error}", path.display()));
        }
    };
    Diagnostic::error(format!("{}: {error}", path.display())).help(help)
}

/// Hosts as they are given, or one a line in a file of that name.
fn hosts(text: Option<&str>) -> Result<Vec<Host>, Diagnostics> {
    let Some(text) = text else { return Ok(vec![]) };
    let listed = match input::text(Path::new(text), input::MOST_TEXT) {
        Err(e) if e.kind() == ErrorKind::FileTooLarge => {
            return Err(Diagnostic::error(format!("--hosts {text}: {e}")).into());
        }
        listed => listed.unwrap_or_else(|_| text.replace(',', "\n")),
    };
    let lines = listed.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| line.parse().map_err(|e: HostError| Diagnostic::error(e.to_string()).into())).collect()
}

pub fn pack(args: &Pack) -> Done {
    let Read { mut plan, .. } = plan_file::read(&args.plan)?;
    let soc = export::soc_of(&plan).map_err(|e| refused(&args.plan, &e))?;
    // atc adds the host's name where a model brings code for the host.
    let ends = [".om", "_linux_aarch64.om", "_linux_x86_64.om"];
    let used = RefCell::new(Vec::<PathBuf>::new());
    let unread = RefCell::new(None);
    let compiled = |symbol: &str| {
        let mut paths = ends.iter().map(|end| args.om.join(format!("{symbol}{end}")));
        let path = paths.find(|path| path.symlink_metadata().is_ok())?;
        let bytes = match path.is_file() {
            true => input::bytes(&path, input::MOST_CODE).map_err(|e| e.to_string()),
            false => Err("it is no regular file".into()),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(what) => {
                unread.borrow_mut().get_or_insert(format!("cannot read {}: {what}", path.display()));
                return None;
            }
        };
        used.borrow_mut().push(path);
        Some(bytes)
    };
    let packed = pack::pack(&mut plan, compiled);
    let output = args.output.as_deref().unwrap_or(&args.plan);
    let used = used.into_inner();
    used.iter().try_for_each(|path| apart(output, &[("a segment", Some(path))]))?;
    if let Some(what) = unread.take() {
        return Err(Diagnostic::error(what).help("compile that segment again, or mend the file").into());
    }
    let packed = packed.map_err(|e| unpacked(&args.om, &e))?;
    passes::allocate_plan(&mut plan, AscendTarget { soc }.alignment());
    verify(&plan)?;
    let demands = pack::demands(&plan, &packed.weights, soc);
    if let Some((demand, class)) = demands.iter().zip(&plan.classes).find(|(d, _)| !d.fits()) {
        return Err(too_much(&plan, &class.name, demand).into());
    }
    let (file, hash) = plan.to_bytes().map_err(|e| Diagnostic::error(e.to_string()))?;
    write(output, &file)?;
    tell(&said(&packed, &demands));
    let (size, hash) = (bytes(file.len() as u64), hash.to_string());
    tell(&format!("  file        {} ({size}, plan {})\n", output.display(), &hash[..12]));
    Ok(Diagnostics::default())
}

/// A warning for a plan that is larger than the device; what segments really need is known when they are compiled. Whether
/// the plan would be smaller in bf16 is known.
pub fn too_large(plan: &Plan, is_narrower: bool) -> Option<Diagnostic> {
    let soc = export::soc_of(plan).ok()?;
    let demand = pack::demands(plan, &[], soc).into_iter().find(|d| !d.fits())?;
    let (needs, has) = (bytes(demand.total()), bytes(demand.device));
    let said = format!("a rank needs {needs}, as far as is known before atc has run, and an {} has {has}", soc.version);
    let narrow = if is_narrower { "compute in bf16: --dtype bf16; or " } else { "" };
    Some(Diagnostic::warning(said).help(format!("{narrow}cut more: --tp, --cp, --fsdp, or a smaller --batch")))
}

fn unpacked(folder: &Path, error: &PackError) -> Diagnostic {
    let help = match error {
        PackError::Missing(_) => "run compile.sh, which `mmc export` wrote, where CANN is installed",
        PackError::Om { .. } => "compile that segment again with the command that manifest.json names",
        PackError::Again => "pack the plan that `mmc compile` wrote",
        PackError::Archive(_) => "compile the model again with `mmc compile`",
    };
    Diagnostic::error(format!("{}: {error}", folder.display())).help(help)
}

fn too_much(plan: &Plan, class: &str, demand: &Demand) -> Diagnostic {
    Diagnostic::error(format!(
        "the ranks of class `{class}` need {}, and an {} has {}",
        bytes(demand.total()),
        plan.header.device,
        bytes(demand.device)
    ))
    .note(parts(demand))
    .help("cut more: --tp, --cp, --fsdp, or a smaller --batch; nothing was written")
}

fn parts(demand: &Demand) -> String {
    format!(
        "{} arena, workspace included + {} constants of segments + {} of HCCL's buffers",
        bytes(demand.arena),
        bytes(demand.weights),
        bytes(demand.communicators)
    )
}

fn said(packed: &Packed, demands: &[Demand]) -> String {
    let mut out = format!(
        "{} segments packed\n  workspace   {} shared by all, where {} were estimated\n",
        packed.segments,
        bytes(packed.workspace),
        bytes(packed.estimate)
    );
    for demand in demands {
        out += &format!("  memory      {} of {}: {}\n", bytes(demand.total()), bytes(demand.device), parts(demand));
    }
    out
}
