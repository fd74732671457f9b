//! Plans, meshes and ranks in words.

use plan::{Class, Plan, Program};
use types::{Mesh, Runs};

/// The axes in the words of the command line, with the sub-axes that `--cp` falls into.
pub const AXES: [&str; 5] = ["pp", "dp", "fsdp", "cp", "tp"];

/// `wan2.2.mm t2v-a14b, train, bf16 for cpu x86-64-v4`.
pub fn title(plan: &Plan) -> String {
    let h = &plan.header;
    let preset = if h.preset.is_empty() { String::new() } else { format!(" {}", h.preset) };
    let device = if h.device.is_empty() { String::new() } else { format!(" {}", h.device) };
    format!("{}{preset}, {}, {} for {}{device}", h.model, h.task, h.dtype, h.target)
}

/// What a feed or an emit is called among those of all programs: `x`, or `encode/x` where there are several programs.
pub fn of_program(plan: &Plan, program: &Program, name: &str) -> String {
    if plan.programs.len() == 1 { name.to_owned() } else { format!("{}/{name}", program.name) }
}

/// When a program runs, where the user has no say in it.
pub fn runs(program: &Program) -> String {
    match program.runs {
        Runs::Asked => String::new(),
        Runs::Times(times) => format!(", {times} times"),
        Runs::OnDemand => ", on demand".into(),
        Runs::Prepare => ", prepares values".into(),
    }
}

/// Every axis of the command line with its size, sub-axes multiplied; then the sub-axes, and axes of other names.
pub fn axes(mesh: &Mesh) -> Vec<(String, usize)> {
    let whole = AXES.map(|name| (name.to_owned(), mesh.group(&mesh.parts(name))));
    let rest = mesh.axes.iter().filter(|a| !AXES.contains(&a.name.as_str()));
    whole.into_iter().chain(rest.map(|a| (a.name.to_string(), a.size))).collect()
}

/// `fsdp 2 x cp 4 (cp.ring 2 x cp.ulysses 2) x tp 4 = 32 ranks`, axes of size 1 left out.
pub fn mesh(mesh: &Mesh) -> String {
    if mesh.world() == 1 {
        return "1 rank".into();
    }
    let axes = axes(mesh).into_iter().filter(|(name, size)| *size > 1 && !name.contains('.'));
    let text: Vec<String> = axes
        .map(|(name, size)| {
            let dotted = mesh.parts(&name).into_iter().filter(|part| part.contains('.') && mesh.size(part) > 1);
            let parts: Vec<String> = dotted.map(|part| format!("{part} {}", mesh.size(&part))).collect();
            if parts.is_empty() { format!("{name} {size}") } else { format!("{name} {size} ({})", parts.join(" x ")) }
        })
        .collect();
    format!("{} = {} ranks", text.join(" x "), mesh.world())
}

/// The ranks of a class, ascending.
pub fn ranks(plan: &Plan, class: &Class) -> Vec<usize> {
    let mesh = &plan.header.mesh;
    (0..mesh.world()).filter(|&rank| class.ranks.contain(mesh, &mesh.coordinates(rank))).collect()
}

/// `rank 3`, `ranks 0-7, 16-23`; many ranges end in an ellipsis.
pub fn ranges(ranks: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = vec![];
    for &rank in ranks {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => ranges.push((rank, rank)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .take(4)
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let more = if ranges.len() > shown.len() { ", ..." } else { "" };
    format!("{} {}{more}", if ranks.len() == 1 { "rank" } else { "ranks" }, shown.join(", "))
}
