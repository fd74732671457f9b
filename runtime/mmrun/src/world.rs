//! The ranks of a run: an executor and a feeder each, in threads of this process, all in the same step.

use std::sync::Arc;

use data::{Feeds, Pieces, Share, owners};
use plan::{BufferId, EmitId, Layout, Plan, State, StateInit};
use runtime_core::{ExecError, Executor, Feeder, Run};
use types::TensorType;

use crate::crew::Crew;
use crate::failure::Failure;

pub struct World {
    plan: Arc<Plan>,
    ranks: Vec<Rank>,
    /// None for a world of one rank, which runs on the thread of the caller.
    crew: Option<Crew>,
}

pub struct Rank {
    pub executor: Executor,
    feeder: Option<Feeder>,
}

impl Rank {
    /// Runs a program once, with the next of its feeds.
    pub fn step(&mut self, program: usize) -> Result<Run, ExecError> {
        match &mut self.feeder {
            Some(feeder) => self.executor.run(program, feeder),
            None => Ok(Run::default()),
        }
    }
}

impl World {
    /// The executors of all ranks, in order.
    pub fn new(plan: Arc<Plan>, executors: Vec<Executor>) -> Result<Self, Failure> {
        let crew = if executors.len() > 1 { Some(Crew::new(executors.len())?) } else { None };
        let ranks = executors.into_iter().map(|executor| Rank { executor, feeder: None }).collect();
        Ok(Self { plan, ranks, crew })
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub fn executors(&self) -> impl ExactSizeIterator<Item = &Executor> {
        self.ranks.iter().map(|r| &r.executor)
    }

    pub fn executors_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Executor> {
        self.ranks.iter_mut().map(|r| &mut r.executor)
    }

    /// Whether any rank takes a feed in a program.
    pub fn takes(&self, program: usize, feed: usize) -> bool {
        self.executors().any(|e| e.feeds(program).iter().any(|(f, _)| *f == feed))
    }

    /// What any rank gives in a program, in the order of the program.
    pub fn emits(&self, program: usize) -> Vec<EmitId> {
        let mut emits = Vec::new();
        for (emit, _) in self.executors().flat_map(|e| e.emits(program)) {
            let id = EmitId::new(*emit);
            if !emits.contains(&id) {
                emits.push(id);
            }
        }
        emits
    }

    /// Gives each rank its share of `feeds` for `program`, from step `first` on and for at most `steps` steps.
    pub fn feed(&mut self, program: usize, feeds: &Feeds, first: u64, steps: Option<u64>) -> Result<(), Failure> {
        let mesh = &self.plan.header.mesh;
        for (number, rank) in self.ranks.iter_mut().enumerate() {
            let feeds = feeds.at(mesh, &mesh.coordinates(number));
            rank.feeder = Some(Feeder::new(&rank.executor, program, feeds, first, steps)?);
        }
        Ok(())
    }

    /// Runs a program once on all ranks; gives the times of the slowest. After a failure there are no more steps.
    pub fn step(&mut self, program: usize) -> Result<Run, Failure> {
        let Some(crew) = &self.crew else {
            return self.ranks.iter_mut().try_fold(Run::default(), |_, rank| Ok(rank.step(program)?));
        };
        let (ranks, run) = crew.step(std::mem::take(&mut self.ranks), program)?;
        self.ranks = ranks;
        Ok(run)
    }

    /// The shares of an emit that make it whole, and the ranks that give them in `program`.
    pub fn sources(&self, program: usize, emit: EmitId) -> Vec<(usize, Share)> {
        let gives = |e: &Executor| e.emits(program).iter().any(|(i, _)| *i == emit.index());
        let holders = self.executors().enumerate().filter(|(_, e)| gives(e)).map(|(number, _)| number);
        let emit = &self.plan.manifest.emits[emit.index()];
        owners(&self.plan.header.mesh, &emit.ty, &emit.layout, holders)
    }

    pub fn parameters(&self) -> Vec<Pieces<'_>> {
        let parameters = self.plan.manifest.parameters.iter();
        parameters.map(|p| self.value(&p.name, &p.ty, &p.layout, |e| p.buffer(e.class()))).collect()
    }

    /// State that goes from run to run.
    pub fn states(&self) -> Vec<Pieces<'_>> {
        let states = self.plan.manifest.states.iter().filter(|s| is_lasting(s));
        states.map(|s| self.value(&s.name, &s.ty, &s.layout, |e| s.buffer(e.class()))).collect()
    }

    fn value<'w>(
        &'w self,
        name: &'w str,
        ty: &'w TensorType,
        layout: &Layout,
        buffer: impl Fn(&Executor) -> Option<BufferId>,
    ) -> Pieces<'w> {
        let held: Vec<Option<&[u8]>> = self.executors().map(|e| e.read(buffer(e)?)).collect();
        let holders = (0..held.len()).filter(|rank| held[*rank].is_some());
        let owners = owners(&self.plan.header.mesh, ty, layout, holders);
        Pieces { name, ty, pieces: owners.into_iter().filter_map(|(rank, share)| Some((share, held[rank]?))).collect() }
    }
}

/// Whether checkpoints hold a state: a rank's coordinates belong to the mesh and not to the run.
pub fn is_lasting(state: &State) -> bool {
    !matches!(state.init, StateInit::Coordinate(_))
}
