//! Types of an operator's outputs from its inputs: what CANN's own shape rules say, for the operators of the table.
//!
//! The graph builder fills descriptors with it, and the checker holds files against it.

use crate::dtype::{DataType, Ty};
use crate::table::Op;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Int(i64),
    Float(f32),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
}

/// What the rules see of a node.
pub struct Site<'a> {
    pub op: Op,
    /// `None` for an optional input that is not fed.
    pub inputs: &'a [Option<Ty>],
    /// Values of inputs that are constants of integers.
    pub constants: &'a [Option<Vec<i64>>],
    pub attributes: &'a [(&'static str, Value)],
    /// Element type that the node declares for its first output; only products have a choice.
    pub declared: Option<DataType>,
}

type Answer = Result<Vec<Ty>, String>;

pub fn infer(site: &Site<'_>) -> Answer {
    match site.op {
        Op::Data | Op::Const => Err("its type is declared, not inferred".into()),
        Op::NetOutput => Ok(vec![]),
        Op::Add | Op::Sub | Op::Mul | Op::RealDiv | Op::FloorDiv | Op::FloorMod | Op::Maximum | Op::Minimum => {
            site.binary(None)
        }
        Op::Less | Op::LessEqual | Op::Equal | Op::Greater | Op::GreaterEqual | Op::NotEqual | Op::LogicalOr => {
            site.binary(Some(DataType::Bool))
        }
        Op::SelectV2 => site.select(),
        Op::Neg
        | Op::Abs
        | Op::Exp
        | Op::Expm1
        | Op::Log
        | Op::Log1p
        | Op::Floor
        | Op::Rint
        | Op::Sqrt
        | Op::Rsqrt
        | Op::Tanh
        | Op::Sin
        | Op::Cos => site.like(0),
        Op::Sigmoid | Op::Erf | Op::GeluV2 | Op::Swish | Op::SoftmaxV2 | Op::LogSoftmaxV2 => site.like(0),
        Op::GeluGradV2 | Op::SoftmaxGrad | Op::SwishGrad => site.all_like(0),
        Op::Cast => site.cast(),
        Op::SwiGlu => site.swiglu(),
        Op::SwiGluGrad => site.swiglu_grad(),
        Op::Reshape => site.reshape(),
        Op::Transpose => site.transpose(),
        Op::BroadcastTo => site.broadcast(),
        Op::Slice => site.slice(),
        Op::ConcatV2 => site.concat(),
        Op::PadV3 => site.pad(),
        Op::GatherV2 => site.gather(),
        Op::GatherElements => Ok(vec![Ty::new(site.ty(0)?.dtype, site.ty(1)?.shape.clone())]),
        Op::OneHot => site.one_hot(),
        Op::Range => site.range(),
        Op::Fill => Ok(vec![Ty::new(site.ty(1)?.dtype, site.ints(0)?)]),
        Op::ReduceSum | Op::ReduceMax => site.reduce(),
        Op::Cumsum => site.cumsum(),
        Op::Sort => site.sort(),
        Op::UnsortedSegmentSum => site.segment_sum(),
        Op::MatMulV3 => site.product("transpose_x1", "transpose_x2", 2),
        Op::BatchMatMulV3 => site.product("adj_x1", "adj_x2", 3),
        Op::RmsNorm => site.rms_norm(),
        Op::RmsNormGrad => site.rms_norm_grad(),
        Op::LayerNormV4 => site.layer_norm(),
        Op::LayerNormGradV3 => site.layer_norm_grad(),
        Op::RotaryPositionEmbedding => site.rotary(),
        Op::FlashAttentionScore => site.attention(),
        Op::FlashAttentionScoreGrad => site.attention_grad(),
        Op::ApplyAdamW => site.adamw(),
    }
}

/// The sizes of two tensors broadcast against each other, aligned at their last dims.
pub fn broadcast(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let rank = a.len().max(b.len());
    let at = |s: &[i64], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Whether RotaryPositionEmbedding on a 910B turns `x` by angles of that shape: its limits are in hicann/ops-transformer,
/// posembedding/rotary_position_embedding/docs/aclnnRotaryPositionEmbedding.md. Mode 1 turns neighbours, mode 0 halves.
pub fn rotates(x: [i64; 4], cos: [i64; 4], mode: i64) -> bool {
    let [a, b, c, width] = x;
    let narrow = width == cos[3] && width % 2 == 0 && width < 896;
    // Angles that differ along the second dim alone: batch, length, heads.
    let plain = cos[0] == 1 && cos[2] == 1;
    // Angles of each batch and length, with the heads between the two.
    let between = cos[0] == a && cos[1] == 1 && cos[2] == c;
    // Elements of 32 bits: where halves fill blocks of 32 bytes, all heads of a length must find a place.
    let dense = width / 2 % 8 == 0 && a * b <= 8 * c;
    narrow
        && match mode {
            0 if plain => a < 1000 && c < 1000,
            0 => between && a < 1000 && b < 1000 && dense,
            1 => plain && a * c < 1000,
            _ => false,
        }
}

impl Site<'_> {
    fn ty(&self, i: usize) -> Result<&Ty, String> {
        self.inputs.get(i).and_then(Option::as_ref).ok_or_else(|| format!("input {i} is missing"))
    }

    /// The integers of a constant input.
    fn ints(&self, i: usize) -> Result<Vec<i64>, String> {
        self.constants.get(i).cloned().flatten().ok_or_else(|| format!("input {i} must be a constant"))
    }

    /// The one integer of a constant input without dims.
    fn number(&self, i: usize, name: &str) -> Result<i64, String> {
        match (self.ty(i)?.shape.as_slice(), self.ints(i)?.as_slice()) {
            ([], [one]) => Ok(*one),
            (shape, _) => Err(format!("`{name}` is one number without dims, not of {shape:?}")),
        }
    }

    fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    fn int(&self, name: &str) -> Result<i64, String> {
        match self.attribute(name) {
            Some(Value::Int(i)) => Ok(*i),
            _ => Err(format!("the attribute `{name}` is missing")),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.attribute(name) == Some(&Value::Bool(true))
    }

    fn same(&self, a: usize, b: usize) -> Result<(), String> {
        let (a, b) = (self.ty(a)?, self.ty(b)?);
        if a == b { Ok(()) } else { Err(format!("{a} and {b} must be equal")) }
    }

    fn one_dtype(&self, inputs: &[usize]) -> Result<DataType, String> {
        let first = self.ty(inputs[0])?.dtype;
        for &i in inputs {
            let other = self.ty(i)?;
            if other.dtype != first {
                return Err(format!("input {i} is {other}, not {}", first.text()));
            }
        }
        Ok(first)
    }

    fn like(&self, i: usize) -> Answer {
        Ok(vec![self.ty(i)?.clone()])
    }

    fn all_like(&self, i: usize) -> Answer {
        (0..self.inputs.len()).try_for_each(|j| self.same(i, j))?;
        self.like(i)
    }

    fn binary(&self, result: Option<DataType>) -> Answer {
        let dtype = self.one_dtype(&[0, 1])?;
        let (a, b) = (self.ty(0)?, self.ty(1)?);
        let shape = broadcast(&a.shape, &b.shape).ok_or_else(|| format!("{a} and {b} do not broadcast"))?;
        Ok(vec![Ty::new(result.unwrap_or(dtype), shape)])
    }

    fn select(&self) -> Answer {
        let dtype = self.one_dtype(&[1, 2])?;
        let (c, a, b) = (self.ty(0)?, self.ty(1)?, self.ty(2)?);
        let shape = broadcast(&a.shape, &b.shape).and_then(|s| broadcast(&s, &c.shape));
        Ok(vec![Ty::new(dtype, shape.ok_or_else(|| format!("{c}, {a} and {b} do not broadcast"))?)])
    }

    fn cast(&self) -> Answer {
        let to = self.int("dst_type")?;
        let dtype = DataType::KNOWN.into_iter().find(|t| t.in_attributes() == to);
        let dtype = dtype.ok_or_else(|| format!("`dst_type` {to} is no element type known here"))?;
        Ok(vec![Ty::new(dtype, self.ty(0)?.shape.clone())])
    }

    fn swiglu(&self) -> Answer {
        let mut ty = self.ty(0)?.clone();
        match ty.shape.last_mut() {
            Some(last) if *last % 2 == 0 && self.int("dim")? == -1 => *last /= 2,
            _ => return Err(format!("{ty} does not fall into halves along its last dim")),
        }
        Ok(vec![ty])
    }

    fn swiglu_grad(&self) -> Answer {
        let (grad, x) = (self.ty(0)?, self.ty(1)?);
        let halves = grad.shape.split_last().zip(x.shape.split_last());
        let fits = halves.is_some_and(|((g, gs), (x, xs))| 2 * g == *x && gs == xs) && grad.dtype == x.dtype;
        if fits { Ok(vec![x.clone()]) } else { Err(format!("{grad} is no gradient for {x}")) }
    }

    fn reshape(&self) -> Answer {
        let (x, to) = (self.ty(0)?, Ty::new(self.ty(0)?.dtype, self.ints(1)?));
        if x.elements() == to.elements() { Ok(vec![to]) } else { Err(format!("{x} does not become {to}")) }
    }

    fn transpose(&self) -> Answer {
        let (x, order) = (self.ty(0)?, self.ints(1)?);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x.shape.len() as i64) {
            return Err(format!("{order:?} is no order of the dims of {x}"));
        }
        Ok(vec![Ty::new(x.dtype, order.iter().map(|&i| x.shape[i as usize]).collect::<Vec<_>>())])
    }

    fn broadcast(&self) -> Answer {
        let (x, to) = (self.ty(0)?, self.ints(1)?);
        let fits = broadcast(&x.shape, &to).as_ref() == Some(&to);
        if fits { Ok(vec![Ty::new(x.dtype, to)]) } else { Err(format!("{x} does not broadcast to {to:?}")) }
    }

    fn slice(&self) -> Answer {
        let (x, offsets, sizes) = (self.ty(0)?, self.ints(1)?, self.ints(2)?);
        let inside = x.shape.len() == offsets.len()
            && x.shape.len() == sizes.len()
            && (0..x.shape.len()).all(|i| offsets[i] >= 0 && sizes[i] >= 0 && offsets[i] + sizes[i] <= x.shape[i]);
        if !inside {
            return Err(format!("{sizes:?} from {offsets:?} reaches past {x}"));
        }
        Ok(vec![Ty::new(x.dtype, sizes)])
    }

    fn concat(&self) -> Answer {
        let count = self.inputs.len().saturating_sub(1);
        if self.int("N")? != count as i64 || count == 0 {
            return Err(format!("`N` is not the number of tensors, {count}"));
        }
        let axis = self.number(count, "concat_dim")?;
        let mut out = self.ty(0)?.clone();
        let axis = usize::try_from(axis).ok().filter(|a| *a < out.shape.len()).ok_or("no such dim to join along")?;
        for i in 1..count {
            let mut other = self.ty(i)?.clone();
            let size = std::mem::replace(&mut other.shape[axis], self.ty(0)?.shape[axis]);
            if other != *self.ty(0)? {
                return Err(format!("{} and {} do not join", self.ty(0)?, self.ty(i)?));
            }
            out.shape[axis] += size;
        }
        Ok(vec![out])
    }

    fn pad(&self) -> Answer {
        let (mut ty, pads) = (self.ty(0)?.clone(), self.ints(1)?);
        if pads.len() != 2 * ty.shape.len() {
            return Err(format!("{} paddings for {ty}", pads.len()));
        }
        for (size, pad) in ty.shape.iter_mut().zip(pads.chunks_exact(2)) {
            *size += pad[0] + pad[1];
        }
        Ok(vec![ty])
    }

    fn gather(&self) -> Answer {
        let (x, ids) = (self.ty(0)?, self.ty(1)?);
        let axis = self.number(2, "axis")?;
        let axis = usize::try_from(axis).ok().filter(|a| *a < x.shape.len()).ok_or("no such dim to pick from")?;
        let batch = usize::try_from(self.int("batch_dims")?).ok().filter(|n| *n <= axis.min(ids.shape.len()));
        let batch = batch.filter(|n| ids.shape[..*n] == x.shape[..*n]).ok_or("batch dims that are not in both")?;
        let shape = [&x.shape[..axis], &ids.shape[batch..], &x.shape[axis + 1..]].concat();
        Ok(vec![Ty::new(x.dtype, shape)])
    }

    fn one_hot(&self) -> Answer {
        let [depth] = self.ints(1)?[..] else { return Err("`depth` is one number".into()) };
        if self.int("axis")? != -1 {
            return Err("only the last dim is known here".into());
        }
        let mut shape = self.ty(0)?.shape.clone();
        shape.push(depth);
        Ok(vec![Ty::new(self.one_dtype(&[2, 3])?, shape)])
    }

    fn range(&self) -> Answer {
        let dtype = self.one_dtype(&[0, 1, 2])?;
        let [start, limit, delta] =
            [self.ints(0)?, self.ints(1)?, self.ints(2)?].map(|v| v.first().copied().unwrap_or(0));
        if delta != 1 || limit < start {
            return Err("only rising steps of 1 are known here".into());
        }
        Ok(vec![Ty::new(dtype, [limit - start])])
    }

    fn reduce(&self) -> Answer {
        let (x, axes) = (self.ty(0)?, self.ints(1)?);
        if axes.iter().any(|a| *a < 0 || *a >= x.shape.len() as i64) {
            return Err(format!("{x} has not the dims {axes:?}"));
        }
        let keep = self.flag("keep_dims");
        let shape = x.shape.iter().enumerate().filter_map(|(i, &size)| match axes.contains(&(i as i64)) {
            true => keep.then_some(1),
            false => Some(size),
        });
        Ok(vec![Ty::new(x.dtype, shape.collect::<Vec<_>>())])
    }

    fn cumsum(&self) -> Answer {
        let (x, axis) = (self.ty(0)?, self.number(1, "axis")?);
        if axis < 0 || axis >= x.shape.len() as i64 {
            return Err(format!("{x} has no dim {axis}"));
        }
        self.like(0)
    }

    fn sort(&self) -> Answer {
        let x = self.ty(0)?;
        if x.shape.is_empty() || self.int("axis")? != -1 {
            return Err("only the last dim is known here".into());
        }
        Ok(vec![x.clone(), Ty::new(DataType::Int32, x.shape.clone())])
    }

    fn segment_sum(&self) -> Answer {
        let (x, ids) = (self.ty(0)?, self.ty(1)?);
        let [count] = self.ints(2)?[..] else { return Err("`num_segments` is one number".into()) };
        if !x.shape.starts_with(&ids.shape) {
            return Err(format!("{ids} does not name the rows of {x}"));
        }
        Ok(vec![Ty::new(x.dtype, [&[count], &x.shape[ids.shape.len()..]].concat())])
    }

    fn product(&self, first: &str, second: &str, rank: usize) -> Answer {
        let dtype = self.one_dtype(&[0, 1])?;
        let (a, b) = (self.ty(0)?, self.ty(1)?);
        let fail = || Err(format!("{a} and {b} are not multiplied together"));
        if a.shape.len() != rank || b.shape.len() != rank || a.shape[..rank - 2] != b.shape[..rank - 2] {
            return fail();
        }
        let sides = |shape: &[i64], swap: bool| match swap {
            true => (shape[rank - 1], shape[rank - 2]),
            false => (shape[rank - 2], shape[rank - 1]),
        };
        let ((m, k), (l, n)) = (sides(&a.shape, self.flag(first)), sides(&b.shape, self.flag(second)));
        if k != l {
            return fail();
        }
        let out = self.declared.unwrap_or(dtype);
        if out != dtype && out != DataType::Float {
            return Err(format!("a product of {} is not {}", dtype.text(), out.text()));
        }
        Ok(vec![Ty::new(out, [&a.shape[..rank - 2], &[m, n]].concat())])
    }

    /// The sizes of `x` with 1 for those that `gamma` has.
    fn rows(&self, x: usize, gamma: usize) -> Result<Vec<i64>, String> {
        let (x, gamma) = (self.ty(x)?, self.ty(gamma)?);
        if !x.shape.ends_with(&gamma.shape) || gamma.dtype != x.dtype {
            return Err(format!("{gamma} is no weight for {x}"));
        }
        let mut shape = x.shape.clone();
        let kept = shape.len() - gamma.shape.len();
        shape[kept..].fill(1);
        Ok(shape)
    }

    fn rms_norm(&self) -> Answer {
        Ok(vec![self.ty(0)?.clone(), Ty::new(DataType::Float, self.rows(0, 1)?)])
    }

    fn rms_norm_grad(&self) -> Answer {
        self.same(0, 1)?;
        let (rstd, rows) = (self.ty(2)?, self.rows(1, 3)?);
        if rstd.shape != rows {
            return Err(format!("`rstd` is {rstd}, not of {rows:?}"));
        }
        Ok(vec![self.ty(1)?.clone(), Ty::new(DataType::Float, self.ty(3)?.shape.clone())])
    }

    fn layer_norm(&self) -> Answer {
        let (x, own) = (self.ty(0)?, self.ints(1)?);
        if !x.shape.ends_with(&own) {
            return Err(format!("{own:?} are not the last dims of {x}"));
        }
        let mut rows = x.shape.clone();
        rows[x.shape.len() - own.len()..].fill(1);
        let rows = Ty::new(DataType::Float, rows);
        Ok(vec![x.clone(), rows.clone(), rows])
    }

    fn layer_norm_grad(&self) -> Answer {
        self.same(0, 1)?;
        self.same(2, 3)?;
        let (rstd, rows) = (self.ty(2)?, self.rows(1, 4)?);
        if rstd.shape != rows {
            return Err(format!("`rstd` is {rstd}, not of {rows:?}"));
        }
        let weight = Ty::new(DataType::Float, self.ty(4)?.shape.clone());
        Ok(vec![self.ty(1)?.clone(), weight.clone(), weight])
    }

    fn rotary(&self) -> Answer {
        self.one_dtype(&[0, 1, 2])?;
        self.same(1, 2)?;
        let (x, cos) = (self.ty(0)?, self.ty(1)?);
        let four = |ty: &Ty| <[i64; 4]>::try_from(ty.shape.as_slice()).ok();
        let fits = four(x).zip(four(cos)).is_some_and(|(x, cos)| {
            broadcast(&x, &cos).as_deref() == Some(&x) && self.int("mode").is_ok_and(|mode| rotates(x, cos, mode))
        });
        if fits { Ok(vec![x.clone()]) } else { Err(format!("{cos} holds no angles for {x}")) }
    }

    /// Sizes of queries [batch, length, heads, width] and of keys, under the layout BSND.
    fn heads(&self) -> Result<([i64; 4], [i64; 4]), String> {
        let (q, k) = (self.ty(0)?, self.ty(1)?);
        self.same(1, 2)?;
        let four = |ty: &Ty| <[i64; 4]>::try_from(ty.shape.as_slice()).map_err(|_| format!("{ty} has not four dims"));
        let (sizes, keys) = (four(q)?, four(k)?);
        let fits = sizes[0] == keys[0] && sizes[3] == keys[3] && keys[2] > 0 && sizes[2] % keys[2] == 0;
        if !fits || self.attribute("input_layout") != Some(&Value::Text("BSND".into())) {
            return Err(format!("queries {q} do not meet keys {k}"));
        }
        if self.int("head_num")? != sizes[2] {
            return Err(format!("`head_num` is not the number of heads, {}", sizes[2]));
        }
        let forward = self.op == Op::FlashAttentionScore;
        self.shift(if forward { 3 } else { 4 }, [sizes[0], sizes[2], sizes[1], keys[1]])?;
        self.mask(if forward { 6 } else { 7 }, [sizes[0], sizes[1], keys[1]])?;
        Ok((sizes, keys))
    }

    /// What is added to scores is there for each sample, or for all.
    fn shift(&self, input: usize, scores: [i64; 4]) -> Result<(), String> {
        let Some(have) = self.inputs.get(input).and_then(Option::as_ref) else { return Ok(()) };
        let [_, heads, queries, keys] = scores;
        match have.shape == scores || have.shape == [1, heads, queries, keys] {
            true => Ok(()),
            false => Err(format!("{have} cannot be added to scores of {scores:?}")),
        }
    }

    /// Sparse modes 2 and 3 take a triangle of 2048 x 2048 that stands for any length, mode 1 the mask itself, which may be
    /// one for each sample.
    fn mask(&self, input: usize, [batch, queries, keys]: [i64; 3]) -> Result<(), String> {
        let want = match self.int("sparse_mode")? {
            0 => None,
            1 => Some([queries, keys]),
            2 | 3 => Some([2048, 2048]),
            mode => return Err(format!("sparse mode {mode} is not known here")),
        };
        let have = self.inputs.get(input).and_then(Option::as_ref).map(|ty| ty.shape.clone());
        if self.int("sparse_mode")? == 1 && have.as_deref() == Some(&[batch, 1, queries, keys]) {
            return Ok(());
        }
        if have == want.map(Vec::from) { Ok(()) } else { Err(format!("the mask is {have:?}, not {want:?}")) }
    }

    fn attention(&self) -> Answer {
        let (q, k) = (self.ty(0)?, self.ty(1)?);
        if q.dtype != k.dtype {
            return Err(format!("queries {q} do not meet keys {k}"));
        }
        let ([b, s, n, _], _) = self.heads()?;
        let rows = Ty::new(DataType::Float, [b, n, s, 8]);
        // CANN gives softmax_out no elements, and four dims.
        Ok(vec![rows.clone(), rows, Ty::new(q.dtype, [0; 4]), q.clone()])
    }

    fn attention_grad(&self) -> Answer {
        let ([b, s, n, _], _) = self.heads()?;
        self.same(0, 3)?;
        self.same(0, 11)?;
        self.one_dtype(&[0, 1])?;
        let rows = Ty::new(DataType::Float, [b, n, s, 8]);
        if *self.ty(8)? != rows || *self.ty(9)? != rows {
            return Err(format!("the softmax's maximum and sum are not {rows}"));
        }
        let (q, k) = (self.ty(0)?, self.ty(1)?);
        Ok(vec![q.clone(), k.clone(), k.clone(), Ty::new(q.dtype, [0])])
    }

    fn adamw(&self) -> Answer {
        for i in [1, 2, 10] {
            self.same(0, i)?;
        }
        self.one_dtype(&[0, 3, 4, 5, 6, 7, 8, 9])?;
        for i in 3..10 {
            let scalar = self.ty(i)?;
            if scalar.shape != [1] {
                return Err(format!("input {i} is {scalar}, not one number"));
            }
        }
        Ok(vec![self.ty(0)?.clone(); 3])
    }
}
