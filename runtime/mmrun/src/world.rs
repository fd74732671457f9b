//! The ranks of a run that are in this process: an executor and a feeder each, in threads, all in the same step.

use std::sync::Arc;

use data::{Feeds, Pieces, Share, Together, owners};
use plan::{Body, BufferId, ClassId, EmitId, Layout, Op, Plan, State, StateInit};
use runtime_core::{ExecError, Executor, Feeder, HostFeeds, Run};
use types::{Runs, TensorType};

use crate::failure::Failure;
use crate::progress::note;
use crate::rank_threads::RankThreads;

pub struct World {
    plan: Arc<Plan>,
    /// All of the plan's, or one if each is a process of its own.
    ranks: Vec<Rank>,
    together: Together,
    /// None for a world of one rank, which runs on the thread of the caller.
    rank_threads: Option<RankThreads>,
}

pub struct Rank {
    pub executor: Executor,
    feeding: Feeding,
}

/// Where the feeds of the next run come from.
enum Feeding {
    Nowhere,
    /// A thread that is ahead.
    Feeder(Feeder),
    /// Filled before the call, which is of this step.
    InPlace {
        feeds: HostFeeds,
        source: Box<Feeds>,
        step: u64,
    },
}

impl Rank {
    /// Runs a program once, with the next of its feeds.
    pub fn step(&mut self, program: usize) -> Result<Run, ExecError> {
        match &mut self.feeding {
            Feeding::Feeder(feeder) => self.executor.run(program, feeder),
            Feeding::InPlace { feeds, step, .. } => {
                *step += 1;
                self.executor.call(program, feeds, *step - 1)
            }
            Feeding::Nowhere => Ok(Run::default()),
        }
    }
}

impl World {
    /// The executors of this process's ranks, in order.
    pub fn new(plan: Arc<Plan>, executors: Vec<Executor>, together: Together) -> Result<Self, Failure> {
        let rank_threads = if executors.len() > 1 { Some(RankThreads::new(executors.len())?) } else { None };
        let ranks = executors.into_iter().map(|executor| Rank { executor, feeding: Feeding::Nowhere }).collect();
        Ok(Self { plan, ranks, together, rank_threads })
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// This process among those of the run.
    pub fn together(&self) -> &Together {
        &self.together
    }

    /// One plain line about the run, from one process.
    pub fn note(&self, text: &str) {
        if self.together.is_first() {
            note(text);
        }
    }

    pub fn executors(&self) -> impl ExactSizeIterator<Item = &Executor> {
        self.ranks.iter().map(|r| &r.executor)
    }

    pub fn executors_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Executor> {
        self.ranks.iter_mut().map(|r| &mut r.executor)
    }

    /// Whether any rank takes a feed in a program.
    pub fn takes(&self, program: usize, feed: usize) -> bool {
        let ops = self.plan.programs[program].bodies.iter().flat_map(|b| &b.instructions).map(|i| &i.op);
        ops.into_iter().any(|op| matches!(op, Op::Feed { feed: f, .. } if f.index() == feed))
    }

    /// What any rank gives in a program, in the order of the program.
    pub fn emits(&self, program: usize) -> Vec<EmitId> {
        let mut emits = Vec::new();
        for emit in self.plan.programs[program].bodies.iter().flat_map(given) {
            if !emits.contains(&emit) {
                emits.push(emit);
            }
        }
        emits
    }

    /// Gives each rank its share of `feeds` for `program`, from step `first` on and for at most `steps` steps.
    pub fn feed(&mut self, program: usize, feeds: &Feeds, first: u64, steps: Option<u64>) -> Result<(), Failure> {
        let mesh = &self.plan.header.mesh;
        for rank in &mut self.ranks {
            let feeds = feeds.at(mesh, &mesh.coordinates(rank.executor.rank()));
            rank.feeding = match self.plan.programs[program].runs {
                Runs::OnDemand => {
                    let in_place = HostFeeds::new(&rank.executor, program);
                    Feeding::InPlace { feeds: in_place, source: feeds.into(), step: first }
                }
                _ => Feeding::Feeder(Feeder::new(&rank.executor, program, feeds, first, steps)?),
            };
        }
        Ok(())
    }

    /// Waits until every rank of this process has the feeds of the next step; until then, none of them begins it.
    pub fn ready(&mut self, program: usize) -> Result<(), Failure> {
        let feeds = &self.plan.programs[program].feeds;
        let fed = |rank: &mut Rank| match &mut rank.feeding {
            Feeding::Nowhere => Ok(()),
            Feeding::Feeder(feeder) => rank.executor.ready(program, feeder),
            Feeding::InPlace { feeds: to, source, step } => to.fill(&mut **source, *step).map_err(|(feed, error)| {
                ExecError::Feed { feed: feeds[feed.index()].name.clone(), step: *step, error }
            }),
        };
        let failed = |rank: &mut Rank| fed(rank).err().map(|error| (rank.executor.rank(), error));
        let mut errors: Vec<_> = self.ranks.iter_mut().filter_map(failed).collect();
        match errors.len() {
            0 => Ok(()),
            1 if self.ranks.len() == 1 => Err(errors.remove(0).1.into()),
            _ => Err(Failure::of_ranks(errors)),
        }
    }

    /// Runs a program once on all ranks; gives the times of the slowest. After a failure there are no more steps.
    pub fn step(&mut self, program: usize) -> Result<Run, Failure> {
        let Some(rank_threads) = &self.rank_threads else {
            return self.ranks.iter_mut().try_fold(Run::default(), |_, rank| Ok(rank.step(program)?));
        };
        let (ranks, run) = rank_threads.step(std::mem::take(&mut self.ranks), program)?;
        self.ranks = ranks;
        Ok(run)
    }

    /// The shares of an emit that make it whole, and the ranks that give them in `program`.
    pub fn sources(&self, program: usize, emit: EmitId) -> Vec<(usize, Share)> {
        let bodies = &self.plan.programs[program].bodies;
        let gives: Vec<bool> = bodies.iter().map(|body| given(body).any(|e| e == emit)).collect();
        let holders = self.holders(|class| gives[class.index()]);
        let emit = &self.plan.programs[program].emits[emit.index()];
        owners(&self.plan.header.mesh, &emit.ty, &emit.layout, holders)
    }

    pub fn parameters(&self) -> Result<Vec<Pieces<'_>>, Failure> {
        let parameters = self.plan.manifest.parameters.iter();
        parameters.map(|p| self.value(&p.name, &p.ty, &p.layout, |class| p.buffer(class))).collect()
    }

    /// State that goes from run to run.
    pub fn states(&self) -> Result<Vec<Pieces<'_>>, Failure> {
        let states = self.plan.manifest.states.iter().filter(|s| is_lasting(s));
        states.map(|s| self.value(&s.name, &s.ty, &s.layout, |class| s.buffer(class))).collect()
    }

    /// The pieces in this process; those of replicas elsewhere are left to them.
    fn value<'w>(
        &'w self,
        name: &'w str,
        ty: &'w TensorType,
        layout: &Layout,
        buffer: impl Fn(ClassId) -> Option<BufferId>,
    ) -> Result<Pieces<'w>, Failure> {
        let holders = self.holders(|class| buffer(class).is_some());
        let owners = owners(&self.plan.header.mesh, ty, layout, holders);
        let mut pieces = vec![];
        for (rank, share) in owners {
            let executor = self.executors().find(|e| e.rank() == rank);
            let held = executor.and_then(|e| Some((e, buffer(e.class())?)));
            if let Some((executor, id)) = held
                && let Some(bytes) = executor.read(id)?
            {
                pieces.push((share, bytes));
            }
        }
        Ok(Pieces { name, ty, pieces })
    }

    /// The ranks of the plan whose class is one of these.
    fn holders(&self, of: impl Fn(ClassId) -> bool) -> impl Iterator<Item = usize> {
        (0..self.plan.header.world()).filter(move |rank| self.plan.class_of(*rank).is_some_and(&of))
    }
}

fn given(body: &Body) -> impl Iterator<Item = EmitId> {
    body.instructions.iter().filter_map(|i| if let Op::Emit { emit, .. } = i.op { Some(emit) } else { None })
}

/// Whether checkpoints hold a state: a rank's coordinates belong to the mesh and not to the run, and copies of parameters
/// follow from these.
pub fn is_lasting(state: &State) -> bool {
    matches!(state.init, StateInit::Value(_))
}
