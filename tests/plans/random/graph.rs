//! Random graphs, operator by operator, over sizes that mostly do not divide.

use ir::ops::*;
use ir::{Builder, Module, NodeId, Op};
use types::{DType, Dim, Distribution, Name, TensorType};

use plan_tests::tape::Tape;

/// Tensors stay small: the interpreter runs everything twice.
const MOST_ELEMENTS: usize = 500;

/// Samples, tokens, heads, their size, model, hidden, other tokens, vocabulary, key heads, two more, and experts.
const NAMES: [&str; 12] = ["B", "L", "H", "E", "D", "F", "M", "V", "G", "N", "K", "X"];

pub const NORMAL: Distribution = Distribution::Normal { mean: 0.0, std: 0.6 };

/// A function under construction. Its inputs are f32; everything else is of type `float`.
pub struct Graph<'t, 'n> {
    pub tape: &'t mut Tape<'n>,
    pub module: &'t mut Module,
    pub b: Builder,
    pub float: DType,
    pub sizes: Vec<usize>,
    /// What to begin the function's parameters with, by parameter.
    pub inputs: Vec<Distribution>,
    pub values: Vec<NodeId>,
}

/// A size for each name: small, and any.
pub fn sizes(tape: &mut Tape<'_>) -> Vec<usize> {
    let size = |name: &&str| match *name {
        "B" => [2, 1, 3, 4][tape.below(4)],
        "H" => [4, 2, 6, 3, 8][tape.below(5)],
        "E" => [2, 4][tape.below(2)],
        _ => 2 + tape.below(8),
    };
    let mut sizes: Vec<usize> = NAMES.iter().map(size).collect();
    // Heads fall into groups that share keys.
    let heads = sizes[2];
    sizes[8] = tape.pick(&(1..=heads).filter(|g| heads.is_multiple_of(*g)).collect::<Vec<_>>());
    sizes
}

impl Graph<'_, '_> {
    pub fn dim(&self, name: &str) -> Dim {
        let at = NAMES.iter().position(|n| *n == name).unwrap_or(0);
        Dim::new(NAMES[at], self.sizes[at])
    }

    /// Another parameter of the function, as `float`.
    pub fn input(&mut self, dims: &[Dim], begin: Distribution) -> NodeId {
        let raw = self.b.param(TensorType::new(DType::F32, dims.iter().cloned()));
        self.inputs.push(begin);
        self.b.cast(raw, self.float)
    }

    fn indices(&mut self, dims: &[Dim], below: usize) -> NodeId {
        let x = self.input(dims, Distribution::Uniform { lo: 0.0, hi: below as f64 });
        self.b.cast(x, DType::I64)
    }

    fn pick(&mut self) -> NodeId {
        let recent = self.values.len().saturating_sub(4);
        if self.tape.one_in(3) { self.tape.pick(&self.values) } else { self.tape.pick(&self.values[recent..]) }
    }

    fn a_dim(&mut self, x: NodeId) -> Option<Dim> {
        let dims = self.b.ty(x).dims.to_vec();
        (!dims.is_empty()).then(|| self.tape.pick(&dims))
    }

    /// A dim that `x` does not have.
    fn a_new_dim(&mut self, x: NodeId) -> Dim {
        let free: Vec<&str> = NAMES.into_iter().filter(|n| self.b.ty(x).position(n).is_none()).collect();
        let name = self.tape.pick(&free);
        self.dim(name)
    }

    /// The operator, if it fits and its results are small.
    pub fn op(&mut self, op: impl Into<Op>, args: &[NodeId]) -> Option<NodeId> {
        let op = op.into();
        let types: Option<Vec<&TensorType>> = args.iter().map(|&a| self.b.function.ty(a).tensor()).collect();
        let results = op.infer(&types?).ok()?;
        let small = results.iter().all(|r| r.elements() <= MOST_ELEMENTS && r.rank() <= 5);
        if small { self.b.try_op(op, args).ok() } else { None }
    }

    /// One more value, most of the time.
    pub fn grow(&mut self) {
        let new = match self.tape.below(38) {
            0 | 1 => self.linear(),
            2 => self.unary(),
            3 | 4 => self.binary(),
            5 => self.product(),
            6 | 26 => self.norm(),
            7 => self.sum(),
            8 | 9 => self.maximum(),
            10 => self.gather(),
            11 => self.rotate(),
            12 | 13 => self.merge_or_split(),
            14 => self.transpose(),
            15 => self.broadcast(),
            16 => self.slice_or_pad(),
            17 => self.concat(),
            18 => self.select(),
            19..=21 | 27 | 28 => self.attention(),
            22 => self.cross_entropy(),
            23 => self.rounded(),
            24 => self.swiglu(),
            25 => self.table(),
            31 => self.running_sum(),
            32 => self.largest(),
            33 => self.reordered(),
            34..=36 => self.experts(),
            37 => self.written(),
            _ => self.linear(),
        };
        self.values.extend(new);
    }

    fn unary(&mut self) -> Option<NodeId> {
        let mut x = self.pick();
        let ops: [Op; 12] = [
            Tanh {}.into(),
            Sin {}.into(),
            Cos {}.into(),
            Sigmoid {}.into(),
            Silu {}.into(),
            GeluTanh {}.into(),
            Erf {}.into(),
            Neg {}.into(),
            Exp {}.into(),
            Expm1 {}.into(),
            Sqrt {}.into(),
            Log {}.into(),
        ];
        let at = self.tape.below(ops.len());
        if at >= 8 {
            x = self.op(Tanh {}, &[x])?;
        }
        if at >= 10 {
            x = self.b.offset(x, 1.5);
        }
        self.op(ops[at].clone(), &[x])
    }

    fn binary(&mut self) -> Option<NodeId> {
        let (x, mut y) = (self.pick(), self.pick());
        let ops: [Op; 6] = [Add {}.into(), Mul {}.into(), Sub {}.into(), Max {}.into(), Min {}.into(), Div {}.into()];
        let at = self.tape.below(ops.len());
        if at == 5 {
            y = self.op(Tanh {}, &[y])?;
            y = self.b.offset(y, 2.0);
        }
        self.op(ops[at].clone(), &[x, y])
    }

    /// A matmul of both over the dims `sum`.
    fn matmul(&mut self, x: NodeId, y: NodeId, sum: &[Name]) -> Option<NodeId> {
        let mut all: Vec<Name> = vec![];
        for dim in self.b.ty(x).dims.iter().chain(&self.b.ty(y).dims) {
            if !all.contains(&dim.name) {
                all.push(dim.name.clone());
            }
        }
        let mut dims: Vec<Name> = all.iter().filter(|n| !sum.contains(n)).cloned().collect();
        if self.tape.one_in(4) {
            self.tape.shuffle(&mut dims);
        }
        let letters = |names: &[Name]| -> String {
            names.iter().filter_map(|n| all.iter().position(|a| a == n)).map(|i| (b'a' + i as u8) as char).collect()
        };
        let of = |id: NodeId| self.b.ty(id).dims.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
        let spec = format!("{},{}->{}", letters(&of(x)), letters(&of(y)), letters(&dims));
        self.op(Matmul { spec, dims, dtype: None }, &[x, y])
    }

    /// By a weight.
    fn linear(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let from = self.a_dim(x)?;
        let to = self.a_new_dim(x);
        let w = self.input(&[to, from.clone()], NORMAL);
        self.matmul(x, w, &[from.name])
    }

    /// Of two values, summed over some dims that they share.
    fn product(&mut self) -> Option<NodeId> {
        let (x, y) = (self.pick(), self.pick());
        let shared = self.b.ty(x).dims.iter().filter(|d| self.b.ty(y).position(&d.name).is_some());
        let shared: Vec<Name> = shared.map(|d| d.name.clone()).collect();
        let sum: Vec<Name> = shared.into_iter().filter(|_| !self.tape.one_in(2)).collect();
        self.matmul(x, y, &sum)
    }

    fn norm(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dim = self.a_dim(x)?.name;
        match self.tape.below(3) {
            0 => self.op(RmsNorm { dim, eps: 1e-3 }, &[x]),
            1 => self.op(LayerNorm { dim, eps: 1e-3 }, &[x]),
            _ => self.op(Softmax { dim }, &[x]),
        }
    }

    fn some_dims(&mut self, x: NodeId) -> Option<Vec<Name>> {
        let mut dims = vec![self.a_dim(x)?.name];
        let other = self.a_dim(x)?.name;
        if !dims.contains(&other) {
            dims.push(other);
        }
        Some(dims)
    }

    fn sum(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dims = self.some_dims(x)?;
        self.op(ReduceSum { dims }, &[x])
    }

    fn maximum(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dims = self.some_dims(x)?;
        self.op(ReduceMax { dims }, &[x])
    }

    fn running_sum(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dim = self.a_dim(x)?.name;
        let reverse = self.tape.one_in(2);
        self.op(Cumsum { dim, reverse }, &[x])
    }

    /// The largest elements along a dim, apart from each other: rounding must not choose between equal ones.
    fn largest(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dim = self.a_dim(x)?;
        let data = (0..dim.size).map(|i| 0.7 / (i as f64 + 1.3)).collect();
        let apart = self.op(Table { dims: vec![dim.clone()], dtype: self.float, data }, &[])?;
        let x = self.op(Sin {}, &[x])?;
        let x = self.op(Add {}, &[x, apart])?;
        let size = 1 + self.tape.below(dim.size);
        let both = self.op(TopK { dim: dim.name.clone(), to: Dim { name: dim.name, size } }, &[x])?;
        Some(self.b.results(both)[0])
    }

    /// A value in the order of numbers, which each index of some of its dims has of its own.
    fn reordered(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dim = self.a_dim(x)?;
        let mut dims = self.b.ty(x).dims.to_vec();
        dims.retain(|d| *d == dim || self.tape.one_in(2));
        let numbers = self.indices(&dims, 5);
        let bound = self.b.constant(self.tape.below(4) as f64, DType::I64);
        let whole: Op = if self.tape.one_in(2) { FloorDiv {}.into() } else { Remainder {}.into() };
        let numbers = self.op(whole, &[numbers, bound])?;
        let descending = self.tape.one_in(2);
        let order = self.op(Argsort { dim: dim.name.clone(), descending }, &[numbers])?;
        self.op(Gather { dim: dim.name }, &[x, order])
    }

    /// Rows by the matrices of experts, all of one, or of any; some numbers name none.
    fn experts(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let (from, to, experts) = (self.a_dim(x)?, self.a_new_dim(x), self.dim("X"));
        let mut numbers: Vec<Dim> = self.b.ty(x).dims.iter().filter(|d| **d != from).cloned().collect();
        let several = self.a_new_dim(x);
        if several != to && self.tape.one_in(2) {
            numbers.push(several);
        }
        let mut matrix = vec![experts.clone(), to.clone(), from.clone()];
        self.tape.shuffle(&mut matrix);
        if numbers.iter().any(|d| matrix.contains(d)) || to == experts || from == experts {
            return None;
        }
        let below = if self.tape.one_in(4) { 2 } else { experts.size + 1 };
        let ids = self.indices(&numbers, below);
        let one = self.b.constant(1.0, DType::I64);
        let ids = self.op(Sub {}, &[ids, one])?;
        let w = self.input(&matrix, NORMAL);
        let mut dims: Vec<Name> = numbers.iter().chain([&to]).map(|d| d.name.clone()).collect();
        if self.tape.one_in(4) {
            self.tape.shuffle(&mut dims);
        }
        let all: Vec<Name> = numbers.iter().chain(&matrix).map(|d| d.name.clone()).collect();
        let letters = |names: &mut dyn Iterator<Item = &Name>| -> String {
            names.filter_map(|n| all.iter().position(|a| a == n)).map(|i| (b'a' + i as u8) as char).collect()
        };
        let of = |id: NodeId| letters(&mut self.b.ty(id).dims.iter().map(|d| &d.name));
        let spec = format!("{},{},{}->{}", of(x), of(ids), of(w), letters(&mut dims.iter()));
        self.op(GroupedMatmul { spec, dims, among: None }, &[x, ids, w])
    }

    /// Rows of a table, or of a value.
    fn gather(&mut self) -> Option<NodeId> {
        let (rows, width) = (self.dim("V"), self.dim("D"));
        if self.tape.one_in(3) {
            let x = self.pick();
            let dim = self.a_dim(x)?;
            let ids = self.a_new_dim(x);
            let ids = self.indices(&[ids], dim.size);
            return self.op(Gather { dim: dim.name }, &[x, ids]);
        }
        let table = self.input(&[rows.clone(), width], NORMAL);
        let ids = self.indices(&[self.dim("B"), self.dim("L")], rows.size);
        self.op(Gather { dim: rows.name }, &[table, ids])
    }

    fn rotate(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let even: Vec<Dim> = self.b.ty(x).dims.iter().filter(|d| d.size.is_multiple_of(2)).cloned().collect();
        let dim = if even.is_empty() { return None } else { self.tape.pick(&even) };
        self.rope(x, &dim)
    }

    fn rope(&mut self, x: NodeId, dim: &Dim) -> Option<NodeId> {
        let rest: Vec<Dim> = self.b.ty(x).dims.iter().filter(|d| *d != dim).cloned().collect();
        let mut dims: Vec<Dim> = rest.into_iter().filter(|_| self.tape.one_in(2)).collect();
        dims.push(Dim::new("PAIRS", dim.size / 2));
        let raw = self.b.param(TensorType::new(DType::F32, dims));
        self.inputs.push(Distribution::Uniform { lo: -3.0, hi: 3.0 });
        let wide = if self.float == DType::F64 { DType::F64 } else { DType::F32 };
        let angle = self.b.cast(raw, wide);
        let (cos, sin) = (self.op(Cos {}, &[angle])?, self.op(Sin {}, &[angle])?);
        let form = self.tape.pick(&[RopeForm::Interleaved, RopeForm::Half]);
        self.op(Rope { dim: dim.name.clone(), form }, &[x, cos, sin])
    }

    /// Two neighbouring dims as one, or one as two.
    fn merge_or_split(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let mut dims = self.b.ty(x).dims.to_vec();
        let at = self.tape.below(dims.len());
        if dims.len() > 1 && self.tape.one_in(2) {
            let at = at.min(dims.len() - 2);
            let minor = dims.remove(at + 1);
            dims[at] = Dim::new(format!("{}{}", dims[at].name, minor.name), dims[at].size * minor.size);
        } else {
            let whole = dims.get(at)?.clone();
            let major = (2..whole.size).find(|n| whole.size.is_multiple_of(*n))?;
            dims[at] = Dim::new(format!("{}a", whole.name), major);
            dims.insert(at + 1, Dim::new(format!("{}b", whole.name), whole.size / major));
        }
        self.op(Reshape { dims }, &[x])
    }

    fn transpose(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let mut order: Vec<Name> = self.b.ty(x).dims.iter().map(|d| d.name.clone()).collect();
        self.tape.shuffle(&mut order);
        self.op(Transpose { order }, &[x])
    }

    fn broadcast(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let mut dims = self.b.ty(x).dims.to_vec();
        let new = self.a_new_dim(x);
        dims.insert(self.tape.below(dims.len() + 1), new);
        self.op(Broadcast { dims }, &[x])
    }

    fn slice_or_pad(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dim = self.a_dim(x)?;
        if self.tape.one_in(2) {
            let (before, after) = (self.tape.below(3), self.tape.below(3));
            return self.op(Pad { dim: dim.name, before, after, value: 0.25 }, &[x]);
        }
        let start = self.tape.below(dim.size);
        let size = 1 + self.tape.below(dim.size - start);
        self.op(Slice { dim: dim.name, start, size }, &[x])
    }

    fn concat(&mut self) -> Option<NodeId> {
        let (x, y) = (self.pick(), self.pick());
        let dim = self.a_dim(x)?.name;
        self.op(Concat { dim: dim.clone() }, &[x, y]).or_else(|| self.op(Concat { dim }, &[x, x]))
    }

    /// One value or another, by a logical index.
    fn select(&mut self) -> Option<NodeId> {
        let (x, y) = (self.pick(), self.pick());
        let dim = self.a_dim(x)?;
        let bound = self.tape.below(dim.size + 1);
        let index = self.op(Iota { dim, dtype: DType::I64 }, &[])?;
        let bound = self.b.constant(bound as f64, DType::I64);
        let there = self.op(Compare { kind: Comparison::Less }, &[index, bound])?;
        self.op(Select {}, &[there, x, y])
    }

    /// Tokens that attend to each other or to others, with heads that may share keys.
    fn attention(&mut self) -> Option<NodeId> {
        let (tokens, model) = (self.dim("L"), self.dim("D"));
        let mut x = self.pick();
        let fits = |ty: &TensorType| {
            ty.dims.contains(&tokens) && ty.dims.contains(&model) && ty.dims.iter().all(|d| !"HEGMF".contains(&*d.name))
        };
        if !fits(self.b.ty(x)) || self.b.ty(x).rank() > 3 {
            x = self.input(&[self.dim("B"), tokens.clone(), model.clone()], NORMAL);
        }
        let mut y = x;
        if self.tape.one_in(2) {
            let mut dims = self.b.ty(x).dims.to_vec();
            let at = dims.iter().position(|d| *d == tokens)?;
            dims[at] = self.dim("M");
            y = self.input(&dims, NORMAL);
        }
        let (heads, size) = (self.dim("H"), self.dim("E"));
        let shared = if self.tape.one_in(2) { self.dim("G") } else { heads.clone() };
        let project = |g: &mut Self, of: NodeId, heads: &Dim| {
            let w = g.input(&[heads.clone(), size.clone(), model.clone()], NORMAL);
            g.matmul(of, w, std::slice::from_ref(&model.name))
        };
        let (mut q, mut k) = (project(self, x, &heads)?, project(self, y, &shared)?);
        let v = project(self, y, &shared)?;
        // Keys and values are of one type.
        let order: Vec<Name> = self.b.ty(k).dims.iter().map(|d| d.name.clone()).collect();
        let v = self.op(Transpose { order }, &[v])?;
        if self.tape.one_in(3) {
            (q, k) = (self.rope(q, &size)?, self.rope(k, &size)?);
        }
        let kv_len = if y == x { tokens.name.clone() } else { Name::new("M") };
        let longer = self.b.ty(k).size_of(&kv_len) >= Some(tokens.size);
        let mut attention = Attention {
            q_len: tokens.name,
            kv_len,
            heads: heads.name,
            kv_heads: shared.name,
            head: size.name,
            causal: longer && self.tape.one_in(2),
            scale: 0.7,
            visibility: Visibility::default(),
            bias: None,
        };
        let mut args = vec![q, k, v];
        if self.tape.one_in(3) {
            self.biased(&mut attention, &mut args)?;
        }
        if self.tape.one_in(3) {
            self.numbered(&mut attention, &mut args)?;
        }
        let both = self.op(attention, &args)?;
        Some(self.b.results(both)[0])
    }

    /// A bias with some of the dims of its scores.
    fn biased(&mut self, attention: &mut Attention, args: &mut Vec<NodeId>) -> Option<()> {
        let keys = self.b.ty(args[1]).size_of(&attention.kv_len)?;
        let key = Dim { name: Name::new("J"), size: keys };
        let own = self.b.ty(args[0]).dims.to_vec();
        let mut dims: Vec<Dim> = own.into_iter().filter(|d| d.name != attention.head && self.tape.one_in(2)).collect();
        let at = self.tape.below(dims.len() + 1);
        dims.insert(at, key.clone());
        args.push(self.input(&dims, NORMAL));
        attention.bias = Some(key.name);
        Some(())
    }

    /// Segments, positions and a window of its queries and keys, or some of these.
    fn numbered(&mut self, attention: &mut Attention, args: &mut Vec<NodeId>) -> Option<()> {
        let sides = [(args[0], attention.q_len.clone()), (args[1], attention.kv_len.clone())];
        let pair = |g: &mut Self, below: usize| -> Option<[NodeId; 2]> {
            let of = |g: &mut Self, (x, length): &(NodeId, Name)| {
                let dims = g.b.ty(*x).dims.to_vec();
                let batch = g.tape.one_in(2);
                let own = |d: &&Dim| d.name == *length || (batch && !"HEGMLK".contains(&*d.name));
                g.indices(&dims.iter().filter(own).cloned().collect::<Vec<_>>(), below)
            };
            Some([of(g, &sides[0]), of(g, &sides[1])])
        };
        if !self.tape.one_in(3) {
            attention.visibility.segments = true;
            args.extend(pair(self, 3)?);
        }
        if self.tape.one_in(2) {
            attention.visibility.positions = true;
            args.extend(pair(self, 6)?);
        }
        if self.tape.one_in(2) {
            attention.visibility.left = Some(self.tape.below(4) as u64);
        }
        if self.tape.one_in(3) {
            attention.visibility.right = Some(self.tape.below(3) as u64);
        }
        Some(())
    }

    fn cross_entropy(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let classes = self.a_dim(x)?;
        let rest: Vec<Dim> = self.b.ty(x).dims.iter().filter(|d| **d != classes).cloned().collect();
        let labels = self.indices(&rest, classes.size);
        let ignore = if self.tape.one_in(2) { 1 } else { -100 };
        let loss = self.op(CrossEntropy { dim: classes.name, ignore }, &[x, labels])?;
        Some(self.b.cast(loss, self.float))
    }

    /// Rows of a table in place of others.
    fn written(&mut self) -> Option<NodeId> {
        let table = self.pick();
        let along = self.a_dim(table)?;
        let dims = self.b.ty(table).dims.to_vec();
        let at = dims.iter().position(|d| *d == along)?;
        let picked = Dim { name: Name::new("J"), size: 2 };
        let batch = dims[..at].iter().filter(|_| self.tape.one_in(3)).cloned();
        let of_ids: Vec<Dim> = batch.chain([picked.clone()]).collect();
        let ids = self.indices(&of_ids, along.size);
        let mut of_rows = dims;
        of_rows[at] = picked;
        let rows = self.input(&of_rows, NORMAL);
        self.op(Write { dim: along.name }, &[table, ids, rows])
    }

    /// To a shorter type and back.
    fn rounded(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let short = if self.float == DType::F64 { DType::F32 } else { DType::BF16 };
        let x = self.op(Cast { to: short }, &[x])?;
        self.op(Cast { to: self.float }, &[x])
    }

    fn swiglu(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let y = self.op(Sin {}, &[x])?;
        self.op(Swiglu {}, &[x, y])
    }

    fn table(&mut self) -> Option<NodeId> {
        let x = self.pick();
        let dim = self.a_dim(x)?;
        let data = (0..dim.size).map(|i| 1.0 / (i as f64 + 1.5)).collect();
        let table = self.op(Table { dims: vec![dim], dtype: self.float, data }, &[])?;
        self.op(Mul {}, &[x, table])
    }
}
