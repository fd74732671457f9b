//! Diagnostics about a node of the graph: they point into the model wherever the node's place is known.

use diag::{Diagnostic, Diagnostics, PlaceId};
use ir::{Function, Measure, Mismatch, Module, TooLong, Violation};

/// `diagnostic` with a label at `place` and one at each call that led there.
pub fn at(module: &Module, place: PlaceId, mut diagnostic: Diagnostic) -> Diagnostic {
    for (i, span) in module.places.chain(place).enumerate() {
        diagnostic = diagnostic.at(span, if i == 0 { "" } else { "called from here" });
    }
    diagnostic
}

/// A function that `pass` built and whose nodes do not fit together.
pub fn unfit(pass: &str, function: &Function, mismatch: &Mismatch) -> Diagnostics {
    Diagnostic::internal(format!("{pass} built a wrong @{}: {mismatch}", function.name)).into()
}

/// A program that is too long to be written out.
pub fn too_long(module: &Module, found: &TooLong) -> Diagnostic {
    let node = module.functions.get(found.function).and_then(|f| f.nodes.get(found.node));
    let error = Diagnostic::error(format!("a step is too long: {found}"));
    let error = at(module, node.map_or(PlaceId::NONE, |n| n.place), error);
    let error = match found.times {
        1 => error,
        times => error.note(format!("the largest part of them is repeated {times} times")),
    };
    error.help(match found.what {
        Measure::Operators => "take fewer layers, chunks or micro-batches",
        Measure::Bytes => "make dims smaller, or take fewer layers, chunks or micro-batches",
    })
}

/// What the verifier found after `step`.
pub fn violations(module: &Module, step: &str, found: Vec<Violation>) -> Diagnostics {
    let one = |v: Violation| {
        let node = v.function.and_then(|f| module.functions.get(f)).zip(v.node).and_then(|(f, n)| f.nodes.get(n));
        let place = node.map_or(PlaceId::NONE, |n| n.place);
        at(module, place, Diagnostic::internal(format!("{step}: {v}")))
    };
    Diagnostics(found.into_iter().map(one).collect())
}
