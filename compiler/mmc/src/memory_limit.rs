//! Whether a plan fits the memory that it is given, by how much it does not, and what holds the most of it.

use std::collections::BTreeMap;

use cost::Machine;
use diag::Diagnostic;
use passes::{Budget, Need, Options};
use plan::{Body, BufferKind, Life, Op, Plan, Scope};
use report::quantity::bytes;

/// Memory of one rank: sixteen times the largest servers', so that it can be asked what a model would need on one.
const MAX_RANK_BYTES: u64 = 64 << 40;

const ANY_MACHINE: &str = "any machine";

/// Holders that a message names.
const NAMED: usize = 8;

/// What a device may hold.
#[derive(Clone, Debug)]
pub struct Limit {
    pub budget: Budget,
    /// Who has it: `--memory` or a machine.
    pub whose: String,
    /// A plan that needs more is refused. Where nobody asked, it is told: `mmc pack` refuses it with the real sizes of segments.
    pub binds: bool,
}

impl Limit {
    /// What no machine has.
    pub fn of_any_machine() -> Self {
        let budget = Budget { bytes: MAX_RANK_BYTES, communicator: 0 };
        Self { budget, whose: ANY_MACHINE.into(), binds: true }
    }

    /// What is asked for, or what the machine's devices have.
    pub fn of(options: &Options, machine: Option<&Machine>) -> Option<Self> {
        let communicator = machine.map_or(0, Machine::communicator_bytes);
        if let Some(bytes) = options.memory {
            return Some(Self { budget: Budget { bytes, communicator }, whose: "--memory".into(), binds: true });
        }
        let machine = machine?;
        let ranks =
            if machine.server.shared { options.mesh.axes().iter().map(|(_, n)| u64::from(*n)).product() } else { 1 };
        let bytes = machine.memory_bytes() / ranks;
        Some(Self { budget: Budget { bytes, communicator }, whose: machine.name.clone(), binds: false })
    }
}

/// A plan that needs more than there is.
pub struct Excess {
    pub limit: Limit,
    need: Need,
}

impl Excess {
    pub fn of(plan: &Plan, limit: &Limit) -> Option<Self> {
        let need = limit.budget.largest(plan).filter(|need| need.bytes > limit.budget.bytes)?;
        Some(Self { limit: limit.clone(), need })
    }

    pub const fn is_refused(&self) -> bool {
        self.limit.binds
    }

    /// By how much it is too large, and the largest holders at the peak.
    pub fn diagnostic(&self, plan: &Plan) -> Diagnostic {
        let Need { program, class, bytes: need } = self.need;
        let body = &plan.programs[program].bodies[class];
        let (class, program) = (&plan.classes[class], &plan.programs[program]);
        let who = match plan.classes.len() {
            1 => format!("`{}`", program.name),
            _ => format!("`{}` on ranks of `{}`", program.name, class.name),
        };
        let most = self.limit.budget.bytes;
        let communicators = need - body.arena_bytes;
        let over = bytes(need - most);
        let (need, limit) = (bytes(need), bytes(most));
        let has = match self.limit.whose.as_str() {
            "--memory" => format!("--memory gives {limit}"),
            ANY_MACHINE => format!("no machine has more than {limit} for a rank"),
            machine => format!("{machine} has {limit}"),
        };
        let mut said = Diagnostic::error(format!("{who} needs {need} and {has}: {over} too much"));
        let mut holders = holders(Scope { plan, program, class, body });
        let rest = holders.split_off(holders.len().min(NAMED));
        let mut text = String::from("at the peak it holds");
        for holder in &holders {
            text.push_str(&format!("\n{:>10}  {}", bytes(holder.bytes), holder.what));
        }
        if communicators > 0 {
            text.push_str(&format!("\n{:>10}  buffers of communicators", bytes(communicators)));
        }
        if !rest.is_empty() {
            let sum = rest.iter().map(|h| h.bytes).sum();
            text.push_str(&format!("\n{:>10}  in {} other places", bytes(sum), rest.len()));
        }
        said.notes.push(text);
        said
    }
}

/// What holds memory, and how much of it.
pub struct Holder {
    pub what: String,
    pub bytes: u64,
}

/// What lives on the device when most does, the largest first: other buffers by the place in the model that makes them.
pub fn holders(scope: Scope<'_>) -> Vec<Holder> {
    let Scope { plan, class, body, .. } = scope;
    let at = fullest(body);
    let mut held: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    let mut add = |what: String, bytes: u64| {
        let entry = held.entry(what).or_default();
        *entry = (entry.0 + bytes, entry.1 + 1);
    };
    for buffer in scope.present().filter(|buffer| !buffer.on_host()) {
        add(kind(buffer.kind).to_owned(), buffer.bytes);
    }
    let mut makers: Vec<Option<usize>> = vec![None; body.buffers.len()];
    for (i, instruction) in body.instructions.iter().enumerate() {
        for (slice, access) in instruction.op.touches(|k| plan.accesses(k)) {
            let own = slice.buffer.index().checked_sub(class.persistent.len());
            if let Some(maker) = own.filter(|_| access.writes()).and_then(|own| makers.get_mut(own)) {
                maker.get_or_insert(i);
            }
        }
    }
    for (buffer, maker) in body.buffers.iter().zip(makers) {
        if buffer.on_host() || !buffer.lives_at(at) {
            continue;
        }
        let place = maker.and_then(|i| {
            let instruction = &body.instructions[i];
            let name = match &instruction.op {
                Op::Launch(launch) => plan.kernels.get(launch.kernel.index())?.symbol.to_string(),
                Op::Collect(collect) => collect.kind.name().to_owned(),
                _ => buffer.name.to_string(),
            };
            let place = plan.places.get(instruction.place.index()).filter(|p| !p.file.is_empty())?;
            Some(format!("{name} at {}:{}:{}", place.file, place.line, place.column))
        });
        add(place.unwrap_or_else(|| format!("{} {}", kind(buffer.kind), buffer.name)), buffer.bytes);
    }
    let named = held.into_iter().map(|(what, (bytes, count))| {
        let what = if count > 1 { format!("{what} ({count} tensors)") } else { what };
        Holder { what, bytes }
    });
    let mut holders: Vec<Holder> = named.filter(|h| h.bytes > 0).collect();
    holders.sort_by_key(|h| std::cmp::Reverse(h.bytes));
    holders
}

const fn kind(kind: BufferKind) -> &'static str {
    match kind {
        BufferKind::Parameter => "parameters",
        BufferKind::Optimizer => "the optimiser's state",
        BufferKind::State => "other state",
        BufferKind::Gradient => "gradient",
        BufferKind::Activation => "activation",
        BufferKind::Feed => "feed",
        BufferKind::Workspace => "workspace",
        BufferKind::Comm => "received",
    }
}

/// The first instruction at which the most lives.
fn fullest(body: &Body) -> usize {
    let mut change = vec![0i128; body.instructions.len() + 1];
    for buffer in body.buffers.iter().filter(|buffer| !buffer.on_host()) {
        if let Life::Span { first, last } = buffer.life {
            change[first as usize] += i128::from(buffer.bytes);
            change[last as usize + 1] -= i128::from(buffer.bytes);
        }
    }
    let (mut now, mut most) = (0, (0, 0));
    for (i, change) in change.iter().enumerate() {
        now += change;
        if now > most.0 {
            most = (now, i);
        }
    }
    most.1
}
