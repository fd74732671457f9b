//! A lane: work that runs one piece after another. Whoever asks where work would wait plays lanes.

/// The clock of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lane {
    /// When it is free, in seconds or in any other unit.
    pub free: f64,
}

/// When a piece of work runs, and how long the lane stood still for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub begin: f64,
    pub end: f64,
    pub waited: f64,
}

impl Lane {
    /// Work that takes so long, and begins once the lane is free and its operands are `ready`.
    pub fn run(&mut self, ready: f64, length: f64) -> Run {
        let begin = self.free.max(ready);
        let run = Run { begin, end: begin + length, waited: begin - self.free };
        self.free = run.end;
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_begins_when_the_lane_is_free_and_its_operands_are_there() {
        let mut lane = Lane::default();
        assert_eq!(lane.run(0.0, 3.0), Run { begin: 0.0, end: 3.0, waited: 0.0 });
        assert_eq!(lane.run(2.0, 3.0), Run { begin: 3.0, end: 6.0, waited: 0.0 });
        assert_eq!(lane.run(8.0, 1.0), Run { begin: 8.0, end: 9.0, waited: 2.0 });
    }
}
