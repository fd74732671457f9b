//! `residencies`: parameters that only some programs need sleep in the host's memory while others run.
//!
//! Parameters of the same programs form a residency, if none of these programs is in another one already; the largest are
//! taken first. What remains, and whatever all programs need, always lies on the device.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use diag::{Diagnostic, Diagnostics};
use plan::{BufferKind, Life, Residency, ResidencyId};
use program::{Program, RankModule};
use serde::{Deserialize, Serialize};
use types::Name;

use crate::{Context, ProgramPass};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residencies {}

impl ProgramPass for Residencies {
    fn run(&self, module: &mut RankModule, _: &mut Context<'_>) -> Result<(), Diagnostics> {
        let mut groups: Vec<(Vec<usize>, Vec<usize>)> = groups(module).into_iter().collect();
        let bytes = |members: &[usize]| -> u64 {
            let rank = module.rank_programs().next();
            members.iter().filter_map(|m| rank?.buffers.get(*m)).map(|b| b.bytes).fold(0, u64::saturating_add)
        };
        groups.sort_by_key(|(programs, members)| (Reverse(bytes(members)), programs.clone()));
        let mut taken = vec![false; module.programs.len()];
        groups.retain(|(programs, _)| {
            let is_free = programs.iter().all(|p| !taken[*p]);
            programs.iter().for_each(|p| taken[*p] |= is_free);
            is_free
        });
        if groups.len() < 2 {
            return Err(Diagnostic::error(
                "no parameter can sleep in the host's memory: no two programs need different ones",
            )
            .help("leave out `--offload parameters`")
            .into());
        }
        groups.sort();
        for (id, (programs, members)) in groups.into_iter().enumerate() {
            let id = ResidencyId::new(id);
            let names: Vec<&str> = programs.iter().map(|p| module.programs[*p].name.as_str()).collect();
            module.residencies.push(Residency { name: Name::from(names.join("+")) });
            programs.iter().for_each(|p| module.programs[*p].residency = Some(id));
            for rank in module.rank_programs_mut() {
                members.iter().for_each(|m| rank.buffers[*m].life = Life::Resident(id));
            }
        }
        Ok(())
    }
}

/// The parameters on the device that some programs need and others do not, by these programs.
fn groups(module: &RankModule) -> BTreeMap<Vec<usize>, Vec<usize>> {
    let uses: Vec<Vec<bool>> = module.programs.iter().map(used).collect();
    let count = uses.iter().map(Vec::len).min().unwrap_or(0);
    let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for buffer in 0..count {
        let may = |p: &Program| p.ranks.iter().all(|r| r.buffers[buffer].kind == BufferKind::Parameter);
        let on_host = |p: &Program| p.ranks.iter().any(|r| r.buffers[buffer].on_host());
        let programs: Vec<usize> = (0..uses.len()).filter(|p| uses[*p][buffer]).collect();
        let some = !programs.is_empty() && programs.len() < uses.len();
        if some && module.programs.iter().all(|p| may(p) && !on_host(p)) {
            groups.entry(programs).or_default().push(buffer);
        }
    }
    groups
}

/// By persistent buffer: whether any rank touches it in this program.
fn used(program: &Program) -> Vec<bool> {
    let mut used = vec![false; program.ranks.first().map_or(0, |r| r.persistent)];
    for rank in &program.ranks {
        let touched = rank.instructions.iter().flat_map(|i| rank.touches(i)).map(|(slice, _)| slice.buffer);
        let homes = rank.updates.iter().map(|update| update.home);
        for id in touched.chain(homes) {
            if let Some(used) = used.get_mut(id.index()) {
                *used = true;
            }
        }
    }
    used
}
