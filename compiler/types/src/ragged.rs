//! Ragged axes: axes of inputs on which a sample has any number of rows, and whose rows they are.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::Name;

/// The axis of data groups, which comes first wherever it is. A data group is a micro-batch of one replica.
pub const GROUPS: &str = "B.groups";

/// The axis of size 1 of a number that, over the micro-batches of a step, is the mean of theirs.
pub const MICROBATCHES: &str = "B.microbatches";

/// An axis that holds the rows of a data group's samples one after another, and zeros behind them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ragged {
    pub axis: Name,
    /// Rows of a data group at most.
    pub capacity: usize,
    pub owner: Owner,
}

/// Whose the rows are, which lie in the order of their owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// Each sample has `count` rows.
    Samples { count: Count },
    /// Each sample has the rows that take up its elements of `input` that equal `token`; a row takes `count` of them.
    Tokens { input: Name, token: i64, count: Count },
    /// Each row of the axis `of` has `count` rows.
    Rows { of: Name, count: Count },
}

/// A whole number that follows from one row of inputs. Quotients are rounded down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    Number(i64),
    /// The product of the row of this input.
    Product(Name),
    /// The sum of the row of this input.
    Sum(Name),
    Add(Box<[Count; 2]>),
    Sub(Box<[Count; 2]>),
    Mul(Box<[Count; 2]>),
    Div(Box<[Count; 2]>),
}

impl Owner {
    pub const fn count(&self) -> &Count {
        match self {
            Self::Samples { count } | Self::Tokens { count, .. } | Self::Rows { count, .. } => count,
        }
    }

    /// The inputs that must be known to tell whose the rows are.
    pub fn inputs(&self) -> Vec<&Name> {
        let mut names = vec![];
        if let Self::Tokens { input, .. } = self {
            names.push(input);
        }
        self.count().collect(&mut names);
        names
    }
}

impl Count {
    /// The number for one row, where `row` has the elements of an input's. None if it is out of range or divides by zero.
    pub fn of<'r>(&self, row: &impl Fn(&Name) -> &'r [i64]) -> Option<i64> {
        let both = |two: &[Self; 2], f: fn(i64, i64) -> Option<i64>| f(two[0].of(row)?, two[1].of(row)?);
        match self {
            Self::Number(n) => Some(*n),
            Self::Product(input) => row(input).iter().try_fold(1i64, |n, x| n.checked_mul(*x)),
            Self::Sum(input) => row(input).iter().try_fold(0i64, |n, x| n.checked_add(*x)),
            Self::Add(two) => both(two, i64::checked_add),
            Self::Sub(two) => both(two, i64::checked_sub),
            Self::Mul(two) => both(two, i64::checked_mul),
            Self::Div(two) => both(two, |a, b| (b != 0).then(|| a.checked_div_euclid(b)).flatten()),
        }
    }

    /// Operations within operations.
    pub fn depth(&self) -> usize {
        match self {
            Self::Number(_) | Self::Product(_) | Self::Sum(_) => 1,
            Self::Add(two) | Self::Sub(two) | Self::Mul(two) | Self::Div(two) => {
                1 + two.iter().map(Self::depth).max().unwrap_or(0)
            }
        }
    }

    fn collect<'a>(&'a self, names: &mut Vec<&'a Name>) {
        match self {
            Self::Number(_) => {}
            Self::Product(input) | Self::Sum(input) => names.push(input),
            Self::Add(two) | Self::Sub(two) | Self::Mul(two) | Self::Div(two) => {
                two.iter().for_each(|count| count.collect(names));
            }
        }
    }
}

/// As it is written in a model: `tokens(input_ids, 9, product(grid) / 4)`.
impl Display for Owner {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Samples { count } => write!(f, "samples({count})"),
            Self::Tokens { input, token, count } => write!(f, "tokens({input}, {token}, {count})"),
            Self::Rows { of, count } => write!(f, "rows({of}, {count})"),
        }
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sum = |f: &mut Formatter<'_>, two: &[Self; 2], sign: &str| write!(f, "({} {sign} {})", two[0], two[1]);
        let product = |f: &mut Formatter<'_>, two: &[Self; 2], sign: &str| match two[1] {
            Self::Mul(_) | Self::Div(_) => write!(f, "{} {sign} ({})", two[0], two[1]),
            _ => write!(f, "{} {sign} {}", two[0], two[1]),
        };
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Product(input) => write!(f, "product({input})"),
            Self::Sum(input) => write!(f, "sum({input})"),
            Self::Add(two) => sum(f, two, "+"),
            Self::Sub(two) => sum(f, two, "-"),
            Self::Mul(two) => product(f, two, "*"),
            Self::Div(two) => product(f, two, "/"),
        }
    }
}
