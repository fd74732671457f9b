//! The share of its rate that a kernel's products reach: one figure, or a curve over how much a kernel has to do.

use serde::Deserialize;

/// What a machine file says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "neither a share nor a list of points [gflop, share]")]
pub enum Efficiency {
    Share(f64),
    /// Points `[gflop, share]` of one kernel's products, in the order of their work. Between two the share is linear in the
    /// logarithm of the work; before the first and after the last it is theirs.
    Curve(Vec<[f64; 2]>),
}

/// What is wrong with a curve, after its name.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Crooked {
    #[error("has no point")]
    Empty,
    #[error("has the share {0}, which must be more than 0 and at most 1")]
    Share(f64),
    #[error("has a point at {0} GFLOP, which must be more than 0")]
    Work(f64),
    #[error("has the point at {1} GFLOP after the one at {0}: points stand in the order of their work")]
    Order(f64, f64),
}

impl Efficiency {
    /// The share that a kernel with products of `flop` reaches.
    pub fn of(&self, flop: f64) -> f64 {
        match self {
            Self::Share(share) => *share,
            Self::Curve(points) => interpolated(points, flop * 1e-9),
        }
    }

    pub fn check(&self) -> Result<(), Crooked> {
        let single;
        let points: &[[f64; 2]] = match self {
            Self::Share(share) => {
                single = [[1.0, *share]];
                &single
            }
            Self::Curve(points) => points,
        };
        if points.is_empty() {
            return Err(Crooked::Empty);
        }
        if let Some([_, share]) = points.iter().find(|[_, share]| !(*share > 0.0 && *share <= 1.0)) {
            return Err(Crooked::Share(*share));
        }
        if let Some([work, _]) = points.iter().find(|[work, _]| !(*work > 0.0 && work.is_finite())) {
            return Err(Crooked::Work(*work));
        }
        match points.windows(2).find(|pair| pair[0][0] >= pair[1][0]) {
            Some(pair) => Err(Crooked::Order(pair[0][0], pair[1][0])),
            None => Ok(()),
        }
    }
}

/// The second number of the points at a first one between them, linear in its logarithm; 1 if there are none.
pub fn interpolated(points: &[[f64; 2]], x: f64) -> f64 {
    let after = points.partition_point(|[at, _]| *at < x);
    match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
        (Some([a, low]), Some([b, high])) => low + (high - low) * (x / a).ln() / (b / a).ln(),
        (Some([_, value]), None) | (None, Some([_, value])) => *value,
        (None, None) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_linear_in_the_logarithm_and_flat_outside() {
        let curve = Efficiency::Curve(vec![[0.01, 0.2], [1.0, 0.6], [10.0, 0.8]]);
        let near = |gflop: f64, share: f64| assert!((curve.of(gflop * 1e9) - share).abs() < 1e-12, "{gflop}");
        for (gflop, share) in [(0.0, 0.2), (0.001, 0.2), (0.01, 0.2), (0.1, 0.4), (1.0, 0.6), (10.0, 0.8), (1e4, 0.8)] {
            near(gflop, share);
        }
        near(10_f64.sqrt(), 0.7);
        assert!((Efficiency::Share(0.55).of(3e9) - 0.55).abs() < 1e-12);
    }

    #[test]
    fn crooked_curves_are_refused() {
        let check = |points: &[[f64; 2]]| Efficiency::Curve(points.to_vec()).check();
        assert_eq!(check(&[[0.1, 0.5], [1.0, 0.4]]), Ok(()), "a share may fall");
        assert_eq!(check(&[]), Err(Crooked::Empty));
        assert_eq!(check(&[[0.1, 0.5], [1.0, 1.5]]), Err(Crooked::Share(1.5)));
        assert_eq!(check(&[[0.0, 0.5], [1.0, 0.5]]), Err(Crooked::Work(0.0)));
        assert_eq!(check(&[[1.0, 0.5], [1.0, 0.6]]), Err(Crooked::Order(1.0, 1.0)));
        assert_eq!(Efficiency::Share(0.0).check(), Err(Crooked::Share(0.0)));
    }
}
