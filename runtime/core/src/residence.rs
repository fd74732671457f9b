//! Residencies at run time: the host's copies of parameters that take turns in the arena.

use plan::{Buffer, ClassId, Life, Plan, ResidencyId};

/// Of one rank.
pub struct Residence {
    /// The residency whose buffers are in the arena.
    pub entered: Option<ResidencyId>,
    /// By persistent buffer: its bytes while it sleeps; empty for one that always lies in the arena.
    asleep: Vec<Vec<u8>>,
    /// By persistent buffer: whether a program writes it, so that the copy here is old once that has run.
    written: Vec<bool>,
}

impl Residence {
    /// All asleep, as zeros.
    pub fn new(plan: &Plan, class: ClassId) -> Self {
        let persistent = plan.classes.get(class.index()).map_or(&[][..], |c| &c.persistent);
        let asleep = persistent.iter().map(|b| match b.life {
            Life::Resident(_) => vec![0; b.bytes as usize],
            _ => vec![],
        });
        let mut written = vec![false; persistent.len()];
        let bodies = plan.programs.iter().filter(|p| p.residency.is_some()).filter_map(|p| p.bodies.get(class.index()));
        for (slice, access) in bodies.flat_map(|b| &b.instructions).flat_map(|i| i.op.slices(|k| plan.accesses(k))) {
            if let Some(written) = written.get_mut(slice.buffer.index()) {
                *written |= access.writes();
            }
        }
        Self { entered: None, asleep: asleep.collect(), written }
    }

    /// Where the newest bytes of a buffer are: here, or in the arena.
    pub fn is_asleep(&self, buffer: &Buffer) -> bool {
        !buffer.is_there(self.entered)
    }

    pub fn copy(&self, index: usize) -> &[u8] {
        &self.asleep[index]
    }

    pub fn copy_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.asleep[index]
    }

    /// The buffers of a residency, with whether programs write them.
    pub fn of<'p>(
        &'p self,
        persistent: &'p [Buffer],
        residency: ResidencyId,
    ) -> impl Iterator<Item = (usize, bool)> + 'p {
        let members = persistent.iter().enumerate().filter(move |(_, b)| b.life == Life::Resident(residency));
        members.map(|(index, _)| (index, self.written[index]))
    }
}
