//! Ragged axes: the runtime can tell whose the rows are.
//!
//! - no two ragged axes have one name, and each has room for a row;
//! - an axis whose rows belong to rows of another stands behind it, so that they never belong to each other in a circle;
//! - a feed with a ragged axis has room for as many rows as the axis;
//! - a program with such a feed has all feeds that tell whose the rows are, in whole numbers.

use types::{Owner, Ragged};

use crate::violation::{Findings, Rule};
use crate::{Plan, Program};

/// Operations within operations of a count.
const MOST_DEPTH: usize = 32;

pub fn axes(plan: &Plan, findings: &mut Findings) {
    let all = &plan.manifest.ragged;
    for (i, ragged) in all.iter().enumerate() {
        let Ragged { axis, capacity, owner } = ragged;
        if all[..i].iter().any(|other| other.axis == *axis) {
            findings.add(Rule::Structure, format!("two ragged axes are called `{axis}`"));
        }
        if *capacity == 0 {
            findings.add(Rule::Structure, format!("the ragged axis `{axis}` has no room for a row"));
        }
        if owner.count().depth() > MOST_DEPTH {
            findings.add(Rule::Structure, format!("the rows of `{axis}` are counted in more than {MOST_DEPTH} steps"));
        }
        if let Owner::Rows { of, .. } = owner
            && !all[..i].iter().any(|other| other.axis == *of)
        {
            findings.add(Rule::Structure, format!("rows of `{axis}` belong to `{of}`, which is no axis before it"));
        }
    }
}

pub fn feeds(plan: &Plan, program: &Program, findings: &mut Findings) {
    for feed in &program.feeds {
        let Some((ragged, _)) = plan.manifest.ragged_axis(feed) else { continue };
        if feed.ty.size_of(&ragged.axis) != Some(ragged.capacity) {
            let (name, ty) = (&feed.name, &feed.ty);
            findings.add(Rule::Structure, format!("feed `{name}` of {ty} has not {} rows of data", ragged.capacity));
        }
        let known = |name: &&types::Name| {
            program.feeds.iter().any(|f| f.name == **name && f.source.is_data() && !f.ty.dtype.is_float())
        };
        if let Some(missing) = ragged.owner.inputs().iter().find(|name| !known(name)) {
            let what =
                format!("rows of feed `{}` are told by `{missing}`, which is no feed of whole numbers", feed.name);
            findings.add(Rule::Structure, what);
        }
        if let Owner::Rows { of, .. } = &ragged.owner
            && !program.feeds.iter().any(|f| f.ty.position(of).is_some())
        {
            findings
                .add(Rule::Structure, format!("rows of feed `{}` belong to `{of}`, of which no feed is", feed.name));
        }
    }
}
