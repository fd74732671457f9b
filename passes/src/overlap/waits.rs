//! Where compute waits: a function played on two lanes, with work that nobody waits for put into the gaps.

use cost::Lane;
use ir::{Class, Function, Inst};

use super::is_exchange;
use super::times::Times;

/// By node: the seconds in which compute does nothing until that collective is done.
///
/// What leads to no collective fills the waits behind it, and at the beginning of the next turn of the same function those
/// that are left of the turn before. `ahead` says what was done before.
pub fn exposed(function: &Function, ahead: &[bool], times: &mut Times<'_>) -> Vec<f64> {
    let live = function.live();
    let mut leads = vec![false; function.nodes.len()];
    for (id, node) in function.nodes.iter().rev() {
        let i = id.index();
        if live[i] && !ahead[i] && (leads[i] || is_exchange(function, id)) {
            node.args.iter().for_each(|arg| leads[arg.index()] = true);
        }
    }
    let mut exposed = vec![0.0; function.nodes.len()];
    let mut spare = 0.0;
    for turn in 0..2 {
        let mut play = Play::new(function);
        play.spare = spare;
        for (id, node) in function.nodes.iter().filter(|(id, _)| live[id.index()] && !ahead[id.index()]) {
            let seconds = times.node(function, id);
            let i = id.index();
            let (ready, by) = play.ready(&node.args);
            if is_exchange(function, id) {
                play.exchange(i, ready, seconds);
            } else if matches!(&node.inst, Inst::Op(op) if op.class() != Class::View && op.class() != Class::Source) {
                if !leads[i] && ready <= play.compute.free {
                    play.spare += seconds;
                    play.done[i] = (play.compute.free, None);
                    continue;
                }
                let waits = play.run(i, ready, seconds);
                if let Some(by) = by.filter(|_| waits > 0.0 && turn == 1) {
                    exposed[by] += waits;
                }
            } else {
                play.done[i] = (ready, by);
            }
        }
        spare = play.spare;
    }
    exposed
}

struct Play {
    compute: Lane,
    /// One lane stands for those of all groups.
    exchanges: Lane,
    /// Seconds of work that may be done at any time.
    spare: f64,
    /// By node: when it is done, and the collective that it then comes from.
    done: Vec<(f64, Option<usize>)>,
}

impl Play {
    fn new(function: &Function) -> Self {
        Self {
            compute: Lane::default(),
            exchanges: Lane::default(),
            spare: 0.0,
            done: vec![(0.0, None); function.nodes.len()],
        }
    }

    fn ready(&self, args: &[ir::NodeId]) -> (f64, Option<usize>) {
        let all = args.iter().map(|arg| self.done[arg.index()]);
        all.fold((0.0, None), |last, next| if next.0 > last.0 { next } else { last })
    }

    fn exchange(&mut self, i: usize, ready: f64, seconds: f64) {
        self.done[i] = (self.exchanges.run(ready, seconds).end, Some(i));
    }

    /// The seconds of waiting.
    fn run(&mut self, i: usize, ready: f64, seconds: f64) -> f64 {
        let run = self.compute.run(ready, seconds);
        let filled = run.waited.min(self.spare);
        self.spare -= filled;
        self.done[i] = (run.end, None);
        run.waited - filled
    }
}
