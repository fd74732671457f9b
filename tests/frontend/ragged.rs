//! Mistakes with ragged axes and their owners are told at their places.

use crate::{evaluate, options};

const NET: &str = include_str!("../ragged/pictures.mm");

/// What is written instead of what, and what is said of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("PATCHES = rows(IMAGES, product(grid)),", "", "nobody owns the rows of `PATCHES`"),
    ("rows(IMAGES, product(grid))", "samples(product(grid))", "`grid`, which has not one row for each of `B`"),
    (
        "rows(IMAGES, product(grid))",
        "rows(IMAGES, sum(input_ids))",
        "`input_ids`, which has not one row for each of `IMAGES`",
    ),
    ("rows(IMAGES, product(grid))", "rows(IMAGES, product(pixels))", "`pixels`, which is f32[PATCHES:40, C:6]"),
    ("rows(IMAGES, product(grid))", "rows(IMAGES, product(other))", "`other`, which `train` does not read"),
    ("rows(IMAGES, product(grid))", "rows(B, 4)", "`B` is no ragged axis"),
    ("rows(IMAGES, product(grid))", "rows(PATCHES, 4)", "belong to each other in a circle"),
    ("rows(IMAGES, product(grid))", "columns(IMAGES)", "this does not say whose rows they are"),
    ("rows(IMAGES, product(grid))", "rows(IMAGES, 1.5)", "a count of rows is a whole number"),
    (
        "rows(IMAGES, product(grid)),",
        "rows(IMAGES, product(grid)), PATCHES = samples(1),",
        "`PATCHES` is given an owner twice",
    ),
    ("rows(IMAGES, product(grid)),", "rows(IMAGES, product(grid)), S = samples(1),", "`S` is no ragged axis"),
    ("pixels: Tensor![PATCHES, C]", "pixels: Tensor![C, PATCHES]", "`PATCHES` is not the first of `pixels`"),
    ("losses.sum() /", "pixels.mean() + losses.sum() /", "a mean over `PATCHES` counts rows that are not there"),
    ("IMAGES: ragged", "IMAGES: rugged", "expected `free` or `ragged`"),
];

#[test]
fn mistakes_with_ragged_axes() {
    for (right, wrong, said) in MISTAKES {
        let text = NET.replace(right, wrong);
        assert!(text != NET, "the model has no `{right}`");
        let error = evaluate("pictures.mm", &text, &options("train", None, &[])).map(|_| ()).expect_err(wrong);
        assert!(error.contains(said), "{wrong}: {error}");
    }
}
