//! What is held over time: bytes by instruction, of which ranges change and the fullest moment is asked for.

/// A segment tree of sums and maxima.
pub struct Curve {
    leaves: usize,
    /// By node: what is added to all of its span, and the most within it, that included.
    added: Vec<i64>,
    most: Vec<i64>,
}

impl Curve {
    /// Nothing is held at any of these moments.
    pub fn new(moments: usize) -> Self {
        let leaves = moments.max(1).next_power_of_two();
        Self { leaves, added: vec![0; 2 * leaves], most: vec![0; 2 * leaves] }
    }

    /// Adds to all moments from the first to the last.
    pub fn add(&mut self, (first, last): (u32, u32), bytes: i64) {
        self.add_below(1, (0, self.leaves), (first as usize, last as usize + 1), bytes);
    }

    fn add_below(&mut self, node: usize, (begin, end): (usize, usize), (from, to): (usize, usize), bytes: i64) {
        if to <= begin || end <= from {
            return;
        }
        if from <= begin && end <= to {
            self.added[node] += bytes;
            self.most[node] += bytes;
            return;
        }
        let middle = begin.midpoint(end);
        self.add_below(2 * node, (begin, middle), (from, to), bytes);
        self.add_below(2 * node + 1, (middle, end), (from, to), bytes);
        self.most[node] = self.added[node] + self.most[2 * node].max(self.most[2 * node + 1]);
    }

    /// The most that is held, and the first moment at which it is.
    pub fn fullest(&self) -> (i64, u32) {
        let mut node = 1;
        while node < self.leaves {
            node *= 2;
            if self.most[node + 1] > self.most[node] {
                node += 1;
            }
        }
        (self.most[1], (node - self.leaves) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_moment_is_the_first_of_the_most() {
        let mut curve = Curve::new(11);
        curve.add((0, 10), 5);
        curve.add((3, 7), 4);
        curve.add((6, 9), 4);
        assert_eq!(curve.fullest(), (13, 6));
        curve.add((6, 6), -9);
        assert_eq!(curve.fullest(), (13, 7));
        curve.add((3, 7), -4);
        assert_eq!(curve.fullest(), (9, 7));
    }
}
