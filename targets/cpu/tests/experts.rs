//! Kernels of products by expert and of their weights' gradient, compiled and run, against the interpreter.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod load;

use check::{check_sets, op, random, ty};
use ir::{Array, ops};
use load::Numbers;
use types::{Name, TensorType};

/// One shape: the spec of a product, and the size of each letter.
struct Shape<'a> {
    spec: &'a str,
    sizes: &'a [(char, usize)],
}

impl Shape<'_> {
    fn size(&self, letter: char) -> usize {
        self.sizes.iter().find(|(own, _)| *own == letter).unwrap().1
    }

    /// The types of rows, numbers, matrices and products.
    fn types(&self, dtype: &str, number: &str) -> [String; 4] {
        let (operands, out) = self.spec.split_once("->").unwrap();
        let letters: Vec<&str> = operands.split(',').chain([out]).collect();
        let text = |dtype: &str, letters: &str| {
            let dims: Vec<String> =
                letters.chars().map(|c| format!("{}:{}", c.to_ascii_uppercase(), self.size(c))).collect();
            format!("{dtype}[{}]", dims.join(", "))
        };
        [text(dtype, letters[0]), text(number, letters[1]), text(dtype, letters[2]), text(dtype, letters[3])]
    }

    fn names(ty: &str) -> Vec<Name> {
        let ty: TensorType = ty.parse().unwrap();
        ty.dims.iter().map(|d| d.name.clone()).collect()
    }

    /// Products and gradient on numbers of each kind.
    fn check(&self, dtype: &str, number: &str, seed: u64) {
        let [x, ids, w, y] = self.types(dtype, number);
        let experts = self.size('e');
        let sets: Vec<Array> = numbers(&ty(&ids), experts, seed);
        let with = |third: &str| -> Vec<Vec<Array>> {
            let operands =
                |ids: &Array| vec![random(&ty(&x), seed, 1.0), ids.clone(), random(&ty(third), seed + 1, 1.0)];
            sets.iter().map(operands).collect()
        };
        // Sums of terms that cancel.
        let loose = if self.size('d').max(self.size('t')) > 500 { 32.0 } else { 8.0 };
        check_sets(&format!("{} of {x}, {ids}, {w}", self.spec), &[&x, &ids, &w], &with(&w), loose, |b, p| {
            let dims = Self::names(&y);
            vec![op(b, ops::GroupedMatmul { spec: self.spec.into(), dims, among: None }, p)]
        });
        let letters: Vec<&str> = self.spec.split([',', '-', '>']).filter(|s| !s.is_empty()).collect();
        let (rows, products, weight) = (letters[0], letters[letters.len() - 1], letters[letters.len() - 2]);
        let numbers = if letters.len() == 4 { letters[1] } else { "" };
        let spec = format!("{rows},{numbers},{products}->{weight}");
        check_sets(&format!("{spec} of {x}, {ids}, {y}"), &[&x, &ids, &y], &with(&y), loose, |b, p| {
            vec![op(b, ops::GroupedMatmulWeight { spec, dims: Self::names(&w), experts, among: None }, p)]
        });
    }
}

/// Random ones, some of which name no expert; all of one expert; none of any; of far apart experts only; out of range.
fn numbers(ty: &TensorType, experts: usize, seed: u64) -> Vec<Array> {
    let mut random = Numbers(seed);
    let mut draw = |below: usize| ((f64::from(random.next()) + 1.0) * 0.5 * below as f64).floor();
    let fill = |mut next: Box<dyn FnMut() -> f64 + '_>| {
        let data = (0..ty.elements()).map(|_| next()).collect();
        Array::new(ty.clone(), data)
    };
    let any = fill(Box::new(|| draw(experts + 1) - 1.0));
    let ends = fill(Box::new(|| draw(2) * (experts as f64 - 1.0)));
    let far = [-1.0, experts as f64, -9.0, f64::from(i32::MAX), f64::from(i32::MIN), 0.0];
    let odd = fill(Box::new(|| far[draw(far.len()) as usize % far.len()]));
    let one = |n: f64| fill(Box::new(move || n));
    vec![any, one(experts as f64 - 1.0), one(0.0), one(-1.0), ends, odd]
}

#[test]
fn products_by_expert() {
    for dtype in ["f32", "bf16", "f16"] {
        for (t, k, d, f, e) in
            [(1, 1, 1, 1, 1), (5, 2, 3, 4, 3), (37, 3, 20, 33, 5), (70, 2, 64, 48, 4), (9, 4, 17, 70, 40)]
        {
            let sizes = [('t', t), ('k', k), ('d', d), ('f', f), ('e', e)];
            for spec in ["td,tk,edf->tkf", "tkd,tk,efd->tkf"] {
                Shape { spec, sizes: &sizes }.check(dtype, "i64", 3);
            }
        }
    }
}

#[test]
fn dims_in_any_order() {
    let sizes = [('t', 13), ('k', 3), ('g', 2), ('d', 21), ('f', 19), ('e', 6)];
    for spec in [
        "gtd,gtk,edf->gtkf",
        "gtkd,gtk,def->gtkf",
        "dt,kgt,fde->tfkg",
        "td,kt,dfe->ktf",
        "tdk,gtk,efd->gtkf",
        "td,t,edf->ft",
        "d,k,edf->kf",
        "d,,edf->f",
    ] {
        for dtype in ["f32", "bf16"] {
            Shape { spec, sizes: &sizes }.check(dtype, "i32", 5);
        }
    }
}

#[test]
fn sizes_from_1_to_70() {
    let mut random = Numbers(11);
    let mut size = |most: usize| 1 + ((f64::from(random.next()) + 1.0) * 0.5 * most as f64) as usize % most;
    for seed in 0..24 {
        let sizes = [('t', size(70)), ('k', size(4)), ('d', size(70)), ('f', size(70)), ('e', size(20))];
        let spec = ["td,tk,edf->tkf", "tkd,tk,edf->tkf", "td,tk,efd->tkf", "tkd,tk,efd->tkf"][seed as usize % 4];
        Shape { spec, sizes: &sizes }.check(["f32", "bf16"][seed as usize / 4 % 2], "i64", seed);
    }
}

/// Sums that are longer than a block.
#[test]
fn long_sums() {
    let sizes = [('t', 700), ('k', 2), ('d', 1100), ('f', 40), ('e', 3)];
    for dtype in ["f32", "bf16"] {
        Shape { spec: "td,tk,edf->tkf", sizes: &sizes }.check(dtype, "i64", 7);
    }
}
