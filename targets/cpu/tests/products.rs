//! Random products with what follows them, against the interpreter: every size from 1 to 70, sizes about the borders of
//! tiles and blocks, all orders of dims.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod load;

use check::{check_near, names, op};
use ir::{Builder, NodeId, ops};
use load::Numbers;
use types::DType;

/// What runs on the accumulators.
const EPILOGUES: [&str; 4] = ["", "bias, gelu", "gate, residual", "cast"];

/// Sizes of batch, rows, columns and depth.
type Sizes = [usize; 4];

struct Dice(Numbers);

impl Dice {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let unit = f64::from(self.0.next()) * 0.5 + 0.5;
        from[((unit * from.len() as f64) as usize).min(from.len() - 1)]
    }

    fn size(&mut self) -> usize {
        match self.pick(&[0, 0, 1]) {
            0 => self.pick(&(1..=70).collect::<Vec<_>>()),
            _ => self.pick(&[5, 6, 7, 12, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]),
        }
    }

    /// The letters in any order.
    fn order(&mut self, letters: &str) -> String {
        let mut rest: Vec<char> = letters.chars().collect();
        let mut order = String::new();
        while !rest.is_empty() {
            let place = self.pick(&(0..rest.len()).collect::<Vec<_>>());
            order.push(rest.remove(place));
        }
        order
    }
}

fn check(dice: &mut Dice, [b, m, n, k]: Sizes) {
    let size = |letter| match letter {
        'b' => b,
        'm' => m,
        'n' => n,
        _ => k,
    };
    let batch = if b > 1 { "b" } else { "" };
    let [lhs, rhs, out] = ["mk", "kn", "mn"].map(|letters| dice.order(&format!("{batch}{letters}")));
    let dtype = dice.pick(&["f32", "bf16"]);
    let epilogue = dice.pick(&EPILOGUES);
    let ty = |letters: &str| {
        let dims: Vec<String> =
            letters.chars().map(|letter| format!("{}:{}", letter.to_ascii_uppercase(), size(letter))).collect();
        format!("{dtype}[{}]", dims.join(", "))
    };
    let upper: Vec<String> = out.chars().map(|letter| letter.to_ascii_uppercase().to_string()).collect();
    let matmul = ops::Matmul { spec: format!("{lhs},{rhs}->{out}"), dims: names(&upper.join(" ")), dtype: None };
    let name = format!("{} of {} by {}, {epilogue}", matmul.spec, ty(&lhs), ty(&rhs));
    let params = [ty(&lhs), ty(&rhs), ty("n"), ty(&out)];
    let used = match epilogue {
        "bias, gelu" => 3,
        "gate, residual" => 4,
        _ => 2,
    };
    let params: Vec<&str> = params.iter().take(used).map(String::as_str).collect();
    // Sums of more numbers are larger, and so is what rounding leaves of them.
    let loose = (k as f64).sqrt().max(4.0);
    check_near(&name, &params, loose, |b, p| {
        let product = op(b, matmul, &p[..2]);
        vec![after(b, epilogue, product, &p[2..])]
    });
}

fn after(b: &mut Builder, epilogue: &str, product: NodeId, p: &[NodeId]) -> NodeId {
    match epilogue {
        "bias, gelu" => {
            let sum = b.add(product, p[0]);
            op(b, ops::GeluTanh {}, &[sum])
        }
        "gate, residual" => {
            let gated = b.mul(product, p[0]);
            b.add(gated, p[1])
        }
        "cast" => b.cast(product, DType::F32),
        _ => product,
    }
}

#[test]
fn every_small_size() {
    let mut dice = Dice(Numbers(11));
    for size in 1..=70 {
        let mut sizes = [dice.pick(&[1, 1, 1, 3]), dice.size(), dice.size(), dice.size()];
        sizes[dice.pick(&[1, 2, 3])] = size;
        check(&mut dice, sizes);
    }
}

/// Depths about the ends of blocks, with rows and columns that fill more than one block.
#[test]
fn borders_of_blocks() {
    let mut dice = Dice(Numbers(12));
    for k in [511, 513, 1023, 1025, 2047, 2048, 2049, 4097] {
        let (m, n) = (dice.pick(&[1, 7, 47, 48, 49, 97]), dice.pick(&[1, 33, 127, 129, 200]));
        check(&mut dice, [1, m, n, k]);
    }
    check(&mut dice, [1, 400, 700, 600]);
}
