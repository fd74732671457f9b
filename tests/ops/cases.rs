//! Every operator with operands of several shapes; sizes vary with a seed, and 1 is among them.

#[path = "cases/attention.rs"]
mod attention;

use ir::ops::*;
use ir::{Array, Op};
use types::{DType, Dim, Distribution, Key, Name, TensorType, fill, philox4x32_10};

pub struct Case {
    pub op: Op,
    pub operands: Vec<Operand>,
    /// Floating operands that the gradient rule leaves out by contract.
    pub constant: Vec<usize>,
}

#[derive(Clone)]
pub struct Operand {
    pub ty: TensorType,
    pub values: Values,
}

#[derive(Clone, Copy)]
pub enum Values {
    Normal,
    /// Uniform.
    Within(f64, f64),
    /// Whole numbers below.
    Below(usize),
    /// Whole numbers from the first to the second.
    Between(i64, i64),
    /// The same, or now and then the second number.
    BelowOr(usize, i64),
    /// Like `Normal`, but at least this far from 0.
    Away(f64),
}

impl Case {
    pub fn types(&self) -> Vec<&TensorType> {
        self.operands.iter().map(|o| &o.ty).collect()
    }

    pub fn results(&self) -> Vec<TensorType> {
        let results = self.op.infer(&self.types());
        results.unwrap_or_else(|e| panic!("{} {}: {e}", self.op.name(), self.op.attributes())).to_vec()
    }

    pub fn draw(&self, seed: u64) -> Vec<Array> {
        let draw = |(i, o): (usize, &Operand)| random(o, &format!("{}.{i}", self.op.name()), seed);
        self.operands.iter().enumerate().map(draw).collect()
    }

    /// For messages.
    pub fn text(&self) -> String {
        let types: Vec<String> = self.operands.iter().map(|o| o.ty.to_string()).collect();
        format!("{} {} ({})", self.op.name(), self.op.attributes(), types.join(", "))
    }
}

pub fn random(operand: &Operand, name: &str, seed: u64) -> Array {
    let mut data = vec![0f32; operand.ty.elements()];
    let unit = Distribution::Uniform { lo: 0.0, hi: 1.0 };
    let normal = Distribution::Normal { mean: 0.0, std: 1.0 };
    let distribution = if matches!(operand.values, Values::Normal | Values::Away(_)) { normal } else { unit };
    fill(distribution, Key::new(seed, name), 0, 0, &mut data);
    let value = |x: f64| match operand.values {
        Values::Normal => x,
        Values::Within(lo, hi) => lo + (hi - lo) * x,
        Values::Below(n) => (x * n as f64).floor().min(n as f64 - 1.0),
        Values::Between(low, high) => low as f64 + (x * (high - low + 1) as f64).floor().min((high - low) as f64),
        Values::BelowOr(n, other) => {
            if x < 0.3 {
                other as f64
            } else {
                ((x - 0.3) / 0.7 * n as f64).floor().min(n as f64 - 1.0)
            }
        }
        Values::Away(least) => x + least * x.signum(),
    };
    let round = |x: f32| operand.ty.dtype.round(value(f64::from(x)));
    Array::new(operand.ty.clone(), data.into_iter().map(round).collect())
}

pub fn ty(dtype: DType, dims: &[(&str, usize)]) -> TensorType {
    TensorType::new(dtype, dims.iter().map(|&(n, s)| Dim::new(n, s)))
}

/// All cases with the sizes that belong to `seed`; floating operands are `float`.
pub fn all(seed: u64, float: DType) -> Vec<Case> {
    let mut out = Cases { out: vec![], seed, count: 0, float };
    out.sources();
    out.elementwise();
    out.moves();
    out.contractions();
    out.composites();
    out.attentions();
    out.losses();
    out.between_ranks();
    out.orders();
    out.experts();
    out.out
}

struct Cases {
    out: Vec<Case>,
    seed: u64,
    count: u32,
    float: DType,
}

impl Cases {
    /// A size: 1, 2, 3 or 5.
    fn n(&mut self) -> usize {
        self.count += 1;
        let word = philox4x32_10([self.count, 0, 0, 0], [self.seed as u32, 77])[0];
        [1, 2, 3, 5][word as usize % 4]
    }

    fn of(&self, dims: &[(&str, usize)]) -> Operand {
        self.with(dims, Values::Normal)
    }

    fn with(&self, dims: &[(&str, usize)], values: Values) -> Operand {
        Operand { ty: ty(self.float, dims), values }
    }

    fn ids(&self, dims: &[(&str, usize)], below: usize) -> Operand {
        Operand { ty: ty(DType::I64, dims), values: Values::Below(below) }
    }

    fn add(&mut self, op: impl Into<Op>, operands: Vec<Operand>) -> &mut Case {
        self.out.push(Case { op: op.into(), operands, constant: vec![] });
        self.out.last_mut().unwrap()
    }

    fn sources(&mut self) {
        let (n, float) = (self.n(), self.float);
        self.add(Constant { value: 0.1, dtype: float }, vec![]);
        self.add(Constant { value: f64::NEG_INFINITY, dtype: float }, vec![]);
        self.add(Iota { dim: Dim::new("A", n), dtype: DType::I64 }, vec![]);
        let data = (0..2 * n).map(|i| 1.0 / (i as f64 + 3.0)).collect();
        self.add(Table { dims: vec![Dim::new("A", 2), Dim::new("B", n)], dtype: float, data }, vec![]);
    }

    fn elementwise(&mut self) {
        let (a, b, c) = (self.n(), self.n(), self.n());
        let unary: [(Op, Values); 18] = [
            (Neg {}.into(), Values::Normal),
            (Abs {}.into(), Values::Away(0.1)),
            (Exp {}.into(), Values::Normal),
            (Expm1 {}.into(), Values::Normal),
            (Log {}.into(), Values::Within(0.2, 3.0)),
            (Log1p {}.into(), Values::Within(-0.5, 3.0)),
            (Sqrt {}.into(), Values::Within(0.2, 3.0)),
            (Rsqrt {}.into(), Values::Within(0.2, 3.0)),
            (Tanh {}.into(), Values::Normal),
            (Sin {}.into(), Values::Within(-4.0, 4.0)),
            (Cos {}.into(), Values::Within(-4.0, 4.0)),
            (Sigmoid {}.into(), Values::Within(-6.0, 6.0)),
            (Erf {}.into(), Values::Within(-2.0, 2.0)),
            (GeluTanh {}.into(), Values::Within(-4.0, 4.0)),
            (Silu {}.into(), Values::Within(-6.0, 6.0)),
            (Cast { to: DType::BF16 }.into(), Values::Normal),
            (Cast { to: DType::F32 }.into(), Values::Normal),
            (Cast { to: DType::I64 }.into(), Values::Within(-9.0, 9.0)),
        ];
        for (op, values) in unary {
            let x = self.with(&[("A", a), ("B", b)], values);
            self.add(op, vec![x]);
        }
        for op in [Op::from(Floor {}), Round {}.into()] {
            let x = self.with(&[("A", a), ("B", b)], Values::Within(-4.0, 4.0));
            self.add(op, vec![x]).constant = vec![0];
        }
        let binary: [Op; 7] = [
            Add {}.into(),
            Sub {}.into(),
            Mul {}.into(),
            Div {}.into(),
            Max {}.into(),
            Min {}.into(),
            Compare { kind: Comparison::LessEqual }.into(),
        ];
        let abc: &[(&str, usize)] = &[("A", a), ("B", b), ("C", c)];
        // The same dims, a row, outer dims around a missing one, a scalar, dims of either side alone, a longer right side.
        let forms: [[&[(&str, usize)]; 2]; 6] = [
            [abc, abc],
            [abc, &[("C", c)]],
            [&[("A", a), ("C", c)], abc],
            [abc, &[]],
            [&[("A", a), ("B", b)], &[("B", b), ("C", c)]],
            [&[("B", b)], abc],
        ];
        for op in binary {
            for [x, y] in forms {
                let (x, y) = (self.of(x), self.with(y, Values::Away(0.3)));
                self.add(op.clone(), vec![x, y]);
            }
        }
        for op in [Op::from(Div {}), FloorDiv {}.into(), Remainder {}.into()] {
            for dtype in [DType::I64, DType::I32] {
                for [x, y] in forms {
                    let whole = |dims, most: i64| Operand { ty: ty(dtype, dims), values: Values::Between(-most, most) };
                    self.add(op.clone(), vec![whole(x, 9), whole(y, 3)]);
                }
            }
        }
        for dims in [abc, &[("B", b)], &[]] {
            let condition = Operand { ty: ty(DType::Bool, dims), values: Values::Below(2) };
            let (x, y) = (self.of(&[("A", a), ("C", c)]), self.of(abc));
            self.add(Select {}, vec![condition, x, y]);
        }
        let x = self.with(abc, Values::Within(-4.0, 4.0));
        self.add(Swiglu {}, vec![x.clone(), x.clone()]);
        self.add(SiluGrad {}, vec![x.clone(), x.clone()]);
        self.add(GeluTanhGrad {}, vec![x.clone(), x.clone()]);
        self.add(SwigluGrad {}, vec![x.clone(), x.clone(), x]);
    }

    fn moves(&mut self) {
        let (a, b, c) = (self.n(), self.n(), self.n() + 1);
        let x = self.of(&[("A", a), ("B", b), ("C", c)]);
        let dim = Dim::new;
        self.add(Reshape { dims: vec![dim("A", a), dim("D", b * c)] }, vec![x.clone()]);
        self.add(Reshape { dims: vec![dim("D", a * b), dim("C", c), dim("ONE", 1)] }, vec![x.clone()]);
        let y = self.of(&[("A", a), ("D", b * c * 2)]);
        self.add(Reshape { dims: vec![dim("A", a), dim("B", b), dim("C", c), dim("E", 2)] }, vec![y]);
        self.add(Transpose { order: vec!["C".into(), "A".into(), "B".into()] }, vec![x.clone()]);
        self.add(Transpose { order: vec!["B".into(), "A".into(), "C".into()] }, vec![x.clone()]);
        let dims = vec![dim("Z", 2), dim("A", a), dim("B", b), dim("Y", 3), dim("C", c)];
        self.add(Broadcast { dims }, vec![x.clone()]);
        self.add(Slice { dim: "C".into(), start: 1, size: c - 1 }, vec![x.clone()]);
        self.add(Slice { dim: "A".into(), start: 0, size: a }, vec![x.clone()]);
        self.add(Slice { dim: "C".into(), start: c / 2, size: 1 }, vec![x.clone()]);
        self.add(Pad { dim: "B".into(), before: 2, after: 1, value: 0.5 }, vec![x.clone()]);
        self.add(Pad { dim: "A".into(), before: 0, after: 3, value: f64::NEG_INFINITY }, vec![x.clone()]);
        let (y, z) = (self.of(&[("A", a), ("B", b + 2), ("C", c)]), self.of(&[("A", a), ("B", 1), ("C", c)]));
        self.add(Concat { dim: "B".into() }, vec![x.clone(), y, z]);
        self.add(Concat { dim: "A".into() }, vec![x.clone()]);
        let ids = self.ids(&[("S", 3), ("T", b)], c);
        self.add(Gather { dim: "C".into() }, vec![x.clone(), ids]);
        let ids = self.ids(&[("S", 4)], a);
        self.add(Gather { dim: "A".into() }, vec![x.clone(), ids]);
        // A permutation keeps the dim's name; a single id takes the dim away.
        let (ids, one) = (self.ids(&[("B", 4)], b), self.ids(&[], b));
        self.add(Gather { dim: "B".into() }, vec![x.clone(), ids]);
        self.add(Gather { dim: "B".into() }, vec![x.clone(), one.clone()]);
        let ids = self.ids(&[("B", b), ("C", c)], 4);
        let scatter = |dim: Dim, batch: &[&str]| ScatterAdd { dim, batch: batch.iter().map(|&n| n.into()).collect() };
        self.add(scatter(dim("V", 4), &[]), vec![x.clone(), ids]);
        let ids = self.ids(&[("A", a)], 2);
        self.add(scatter(dim("A", 2), &[]), vec![x.clone(), ids]);
        self.add(scatter(dim("V", b), &[]), vec![x.clone(), one]);
        // Tables and ids of their own at each index of the dims that both have.
        for (of, dims) in [("C", [("A", a), ("S", 3)]), ("C", [("B", b), ("A", a)]), ("A", [("S", 2), ("C", c)])] {
            let below = if of == "C" { c } else { a };
            let ids = self.ids(&dims, below);
            self.add(Gather { dim: of.into() }, vec![x.clone(), ids]);
        }
        let ids = self.ids(&[("C", c), ("B", b), ("A", a)], b);
        self.add(Gather { dim: "B".into() }, vec![x.clone(), ids]);
        let ids = self.ids(&[("B", b), ("A", a)], 4);
        self.add(scatter(dim("V", 4), &["A"]), vec![x.clone(), ids.clone()]);
        self.add(scatter(dim("V", 4), &["A", "B"]), vec![x.clone(), ids]);
        let ids = self.ids(&[("C", c), ("A", a)], 2);
        self.add(scatter(dim("V", 2), &["A"]), vec![x.clone(), ids]);
        // Rows in place of others; some ids are outside.
        let outside = |dims: &[(&str, usize)], size: usize| Operand {
            ty: ty(DType::I64, dims),
            values: Values::Between(-2, size as i64 + 1),
        };
        for (along, ids, rows) in [
            ("B", vec![("S", 1)], vec![("A", a), ("S", 1), ("C", c)]),
            ("B", vec![("A", a), ("S", 1)], vec![("A", a), ("S", 1), ("C", c)]),
            ("C", vec![("S", 1), ("T", 1)], vec![("A", a), ("B", b), ("S", 1), ("T", 1)]),
            ("A", vec![], vec![("B", b), ("C", c)]),
        ] {
            let operands = vec![x.clone(), outside(&ids, x.ty.size_of(along).unwrap()), self.of(&rows)];
            self.add(Write { dim: along.into() }, operands);
        }
        // Of equal ids the last stays, and all others would have no gradient.
        let whole = |dims: &[(&str, usize)]| Operand { ty: ty(DType::I64, dims), values: Values::Between(-9, 9) };
        for (ids, rows) in [
            (vec![("S", 3)], vec![("A", a), ("S", 3), ("C", c)]),
            (vec![("T", 2), ("A", a), ("S", 2)], vec![("A", a), ("T", 2), ("S", 2), ("C", c)]),
        ] {
            let operands = vec![whole(&[("A", a), ("B", b), ("C", c)]), outside(&ids, b), whole(&rows)];
            self.add(Write { dim: "B".into() }, operands);
        }
    }

    /// Along a dim of each place, of floats and of whole numbers, some of which are equal.
    fn orders(&mut self) {
        let (a, b, c) = (self.n(), self.n(), self.n() + 2);
        let dims = [("A", a), ("C", c), ("B", b)];
        let x = self.of(&dims);
        let few = |dtype| Operand { ty: ty(dtype, &dims), values: Values::Between(-2, 2) };
        for x in [x.clone(), few(DType::I64), few(DType::I32)] {
            for (dim, down) in [("C", false), ("A", true), ("B", true)] {
                self.add(Cumsum { dim: dim.into(), reverse: down }, vec![x.clone()]);
                self.add(Argsort { dim: dim.into(), descending: down }, vec![x.clone()]);
            }
            self.add(TopK { dim: "C".into(), to: Dim::new("K", 2) }, vec![x.clone()]);
            self.add(TopK { dim: "C".into(), to: Dim::new("C", c - 1) }, vec![x.clone()]);
            self.add(TopK { dim: "A".into(), to: Dim::new("K", a) }, vec![x.clone()]);
        }
        let equal = few(self.float);
        self.add(Argsort { dim: "C".into(), descending: true }, vec![equal.clone()]);
        self.add(Argsort { dim: "B".into(), descending: false }, vec![equal]);
    }

    /// Rows with numbers of their own, or the same for several; dims in any order; numbers that name no expert.
    fn experts(&mut self) {
        let (t, k, d, f) = (self.n(), self.n(), self.n(), self.n());
        let e = self.n() + 1;
        let size = |c: char| match c {
            't' => ("T", t),
            'k' => ("K", k),
            'd' => ("D", d),
            'f' => ("F", f),
            'e' => ("E", e),
            _ => ("G", 2),
        };
        let dims = |letters: &str| letters.chars().map(size).collect::<Vec<_>>();
        let names = |letters: &str| letters.chars().map(|c| Name::from(size(c).0)).collect::<Vec<_>>();
        for (i, [x, ids, w, y]) in [
            ["td", "tk", "edf", "tkf"],
            ["tkd", "tk", "efd", "tkf"],
            ["gtd", "gtk", "def", "gtkf"],
            ["dt", "kgt", "fde", "tfkg"],
            ["td", "t", "edf", "ft"],
            ["d", "k", "edf", "kf"],
            ["d", "", "edf", "f"],
        ]
        .into_iter()
        .enumerate()
        {
            let number = if i % 2 == 0 { DType::I64 } else { DType::I32 };
            let numbers = Operand { ty: ty(number, &dims(ids)), values: Values::BelowOr(e, -1) };
            let [rows, matrices, products] = [x, w, y].map(|letters| self.of(&dims(letters)));
            let op = GroupedMatmul { spec: format!("{x},{ids},{w}->{y}"), dims: names(y), among: None };
            self.add(op, vec![rows.clone(), numbers.clone(), matrices]);
            let spec = format!("{x},{ids},{y}->{w}");
            let op = GroupedMatmulWeight { spec, dims: names(w), experts: e, among: None };
            self.add(op, vec![rows, numbers, products]);
        }
    }

    fn contractions(&mut self) {
        let (a, b, c, d) = (self.n(), self.n(), self.n(), self.n());
        let x = self.of(&[("A", a), ("B", b), ("C", c)]);
        for dims in [vec!["C"], vec!["A"], vec!["B", "A"], vec!["A", "B", "C"]] {
            let dims: Vec<Name> = dims.into_iter().map(Name::from).collect();
            self.add(ReduceSum { dims: dims.clone() }, vec![x.clone()]);
            self.add(ReduceMax { dims }, vec![x.clone()]);
        }
        let names = |n: &[&str]| n.iter().map(|&n| Name::from(n)).collect::<Vec<_>>();
        let matmul = |spec: &str, dims: &[&str]| Matmul { spec: spec.into(), dims: names(dims), dtype: None };
        let w = self.of(&[("O", d), ("I", c)]);
        self.add(matmul("abc,oc->abo", &["A", "B", "O"]), vec![x.clone(), w.clone()]);
        self.add(Matmul { dtype: Some(DType::F32), ..matmul("abc,oc->oab", &["O", "A", "B"]) }, vec![x.clone(), w]);
        let y = self.of(&[("A", a), ("C", c), ("E", d)]);
        self.add(matmul("abc,ace->abe", &["A", "B", "E"]), vec![x.clone(), y.clone()]);
        self.add(matmul("abc,ace->ebc", &["E", "B", "C"]), vec![x.clone(), y]);
        self.add(matmul("abc,abc->", &[]), vec![x.clone(), x.clone()]);
        let v = self.of(&[("V", d)]);
        self.add(matmul("abc,v->abcv", &["A", "B", "C", "V"]), vec![x, v]);
    }

    fn composites(&mut self) {
        let (a, b, c) = (self.n(), self.n() + 1, self.n());
        for dim in ["C", "B"] {
            let x = self.of(&[("A", a), ("B", b), ("C", c + 1)]);
            let (dim, eps) = (Name::from(dim), 1e-5);
            self.add(RmsNorm { dim: dim.clone(), eps }, vec![x.clone()]);
            self.add(RmsNormGrad { dim: dim.clone(), eps }, vec![x.clone(), x.clone()]);
            self.add(LayerNorm { dim: dim.clone(), eps }, vec![x.clone()]);
            self.add(LayerNormGrad { dim: dim.clone(), eps }, vec![x.clone(), x.clone()]);
            self.add(Softmax { dim: dim.clone() }, vec![x.clone()]);
            self.add(SoftmaxGrad { dim }, vec![x.clone(), x]);
        }
        // The dim normalised has one element.
        let x = self.of(&[("A", a), ("C", 1)]);
        self.add(RmsNorm { dim: "C".into(), eps: 0.1 }, vec![x.clone()]);
        self.add(LayerNorm { dim: "C".into(), eps: 0.1 }, vec![x.clone()]);
        self.add(Softmax { dim: "C".into() }, vec![x]);
        for form in [RopeForm::Interleaved, RopeForm::Half] {
            let x = self.of(&[("A", a), ("B", b), ("H", c), ("D", 2 * c)]);
            let table = |dims: &[(&str, usize)]| Operand {
                ty: ty(if self.float == DType::F64 { DType::F64 } else { DType::F32 }, dims),
                values: Values::Within(-1.0, 1.0),
            };
            let full = table(&[("A", a), ("B", b), ("P", c)]);
            let short = table(&[("B", b), ("D", c)]);
            let operands = [vec![x.clone(), full.clone(), full], vec![x.clone(), short.clone(), short]];
            for operands in operands {
                self.add(Rope { dim: "D".into(), form }, operands).constant = vec![1, 2];
            }
            // The rotated dim need not be the last.
            let x = self.of(&[("D", 2 * c), ("A", a)]);
            let table = Operand {
                ty: ty(if self.float == DType::F64 { DType::F64 } else { DType::F32 }, &[("A", a), ("P", c)]),
                values: Values::Within(-1.0, 1.0),
            };
            self.add(Rope { dim: "D".into(), form }, vec![x, table.clone(), table]).constant = vec![1, 2];
        }
    }

    fn between_ranks(&mut self) {
        let (a, b, c) = (self.n(), self.n(), self.n() + 1);
        let x = self.of(&[("A", a), ("B", b), ("C", c)]);
        for (dim, size, part) in [("C", c, c / 2 + 1), ("A", a, 1), ("B", b, b + 2)] {
            let start = self.ids(&[], size + 1);
            self.add(Window { dim: dim.into(), size: part }, vec![x.clone(), start]);
        }
        let (axes, why) = (|| vec![Name::from("dp"), Name::from("tp")], Name::default);
        self.add(Reshard { why: "matmul needs C whole".into() }, vec![x.clone()]);
        self.add(Coordinate { axis: "tp".into() }, vec![]);
        for max in [false, true] {
            self.add(AllReduce { axes: axes(), max, ranks: 4, why: why() }, vec![x.clone()]);
        }
        self.add(AllGather { axes: axes(), dim: Dim::new("RANKS", 4), why: why() }, vec![x.clone()]);
        self.add(ReduceScatter { axes: axes(), why: why() }, vec![x.clone()]);
        self.add(AllToAll { axes: axes(), why: why() }, vec![x.clone()]);
        self.add(Permute { axes: axes(), shift: -1, why: why() }, vec![x.clone()]);
        let y = self.of(&[("B", b)]);
        self.add(Permute { axes: axes(), shift: 1, why: why() }, vec![x, y]);
    }

    fn losses(&mut self) {
        let (a, b, v) = (self.n(), self.n() + 1, self.n() + 2);
        let wide = if self.float == DType::F64 { DType::F64 } else { DType::F32 };
        for dims in [[("A", a), ("B", b), ("V", v)], [("A", a), ("V", v), ("B", b)]] {
            let logits = self.of(&dims);
            let rows = logits.ty.without(&["V".into()]);
            let labels = Operand { ty: rows.with_dtype(DType::I64), values: Values::BelowOr(v, -100) };
            let g = Operand { ty: rows.with_dtype(wide), values: Values::Normal };
            self.add(CrossEntropy { dim: "V".into(), ignore: -100 }, vec![logits.clone(), labels.clone()]);
            self.add(CrossEntropyGrad { dim: "V".into(), ignore: -100 }, vec![logits, labels, g]);
        }
        let x = self.of(&[("A", a), ("B", b)]);
        let second = self.with(&[("A", a), ("B", b)], Values::Within(0.1, 2.0));
        let scalar = |lo: f64, hi: f64| Operand { ty: ty(wide, &[]), values: Values::Within(lo, hi) };
        let operands = vec![x.clone(), x.clone(), second, x, scalar(1e-3, 0.1), scalar(0.1, 1.0), scalar(0.1, 1.0)];
        let adamw = Adamw { beta1: 0.8, beta2: 0.9, eps: 1e-3, weight_decay: 0.1 };
        self.add(adamw.clone(), operands.clone());
        self.add(adamw, operands.into_iter().chain([scalar(0.0, 9.0)]).collect());
    }
}

#[test]
fn every_operator_has_a_case() {
    let cases = all(0, DType::F32);
    for name in Op::NAMES {
        assert!(cases.iter().any(|c| c.op.name() == *name), "`{name}` has no case");
    }
}

fn own(ty: &TensorType, name: &str) -> Option<Dim> {
    ty.dims.iter().find(|d| d.name == *name).cloned()
}
