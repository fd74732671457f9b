//! `attention`: softmax(scale q k^T) v for each head, and the log of each row's sum of exponentials (Dao et al., 2022).

mod view;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType};

use super::elementwise::{FUNCTION, QUOTIENT, arity, wide};
pub(super) use self::view::View;
use super::{AttentionBiasGrad, AttentionGrad, Exp, Log, Max, Min, Softmax, Visibility};
use crate::array::{dot, for_each_index, strides_in};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, NodeIds, PartContext, PartOf, Semantics, Types, Vjp};
use crate::{Array, Builder, Factors, Mismatch, NodeId};

/// Operands q, k, v; results out, with the dims of q, and lse, with the dims of q except `head`, in f32 (f64 for f64).
///
/// q has the dims `q_len`, `heads` and `head`, k and v have `kv_len`, `kv_heads` and `head`; all other dims are batch
/// dims of all three. `kv_len` may be the same name as `q_len`, and `kv_heads` as `heads`. With fewer kv heads than
/// heads, head h reads kv head h / (heads / kv_heads). Causal: query i sees key j if j <= i + (keys - queries).
///
/// With `bias`, the name that its dim along the keys has, the next operand is added to the scaled scores; it has that dim and
/// any others of the scores, or some of them, and is a float of any width. A query whose scores are all -inf sees no key.
///
/// Further operands number queries and keys, where `visibility` says so: [`Visibility`] says who sees whom by them.
///
/// Without those, two more operands, both i64, are for parts of a longer attention: `reach`, for which query i sees key j if
/// j <= i + reach (without effect if not causal), and the number of keys that are there; no query sees those beyond.
/// A query that sees no key has 0 as its result, and -inf as its log-sum-exp.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attention {
    pub q_len: Name,
    pub kv_len: Name,
    pub heads: Name,
    pub kv_heads: Name,
    pub head: Name,
    pub causal: bool,
    pub scale: f64,
    #[serde(default, skip_serializing_if = "Visibility::is_plain")]
    pub visibility: Visibility,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Name>,
}

by_bits!(Attention { q_len, kv_len, heads, kv_heads, head, causal, visibility, bias; scale });

impl Semantics for Attention {
    const NAME: &'static str = "attention";
    const CLASS: Class = Class::Composite;

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        let own = [&mut self.q_len, &mut self.kv_len, &mut self.heads, &mut self.kv_heads, &mut self.head];
        own.into_iter().chain(&mut self.bias).collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        let windowed = self.parts_or_ids(args, 3, Self::NAME)?;
        self.check(args[0], args[1], args[2], windowed)?;
        Ok(smallvec![args[0].clone(), self.rows(args[0])])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let parts = Parts::new(self, args[0], args[1], [FactorKind::Parallel, FactorKind::Merge, FactorKind::Parallel]);
        let rest = (3..args.len()).map(|i| self.factors_of_operand(&parts, args[i], i - 3)).collect();
        Factors {
            args: [vec![parts.of_q(args[0]), parts.of_kv(args[1]), parts.of_kv(args[2])], rest].concat(),
            results: results.iter().map(|r| parts.of_q(r)).collect(),
            factors: parts.factors,
        }
    }

    fn flops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        self.multiplied(args[0], args[1]).saturating_mul(4)
    }

    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results)
    }

    /// Each score is scaled, compared, set off, made a weight, summed and cast; each result is scaled again and divided.
    fn vector_ops(&self, args: &[&TensorType], _: &[TensorType]) -> u64 {
        let scores = self.scores(args[0], args[1]).saturating_mul(FUNCTION + 5);
        scores.saturating_add((args[0].elements() as u64).saturating_mul(QUOTIENT + 1))
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let (Some(dout), None) = (cx.cotangents[0], cx.cotangents[1]) else {
            cx.b.fail(Mismatch::new("the log-sum-exp of `attention` cannot be differentiated"));
            return cx.none();
        };
        let (a, r) = (cx.args, cx.results);
        let operands = [&[a[0], a[1], a[2], r[0], r[1], dout], &a[3..]].concat();
        let all = cx.b.op(AttentionGrad::of(self), &operands);
        let mut all: Vec<Option<NodeId>> = cx.b.results(all).into_iter().map(Some).collect();
        if let Some(key) = self.bias.clone().filter(|_| cx.wanted[3]) {
            let of_scores = cx.b.op(AttentionBiasGrad::of(self, key), &operands);
            let dtype = cx.b.ty(a[3]).dtype;
            let d = cx.sum_to(of_scores, 3);
            all.push(Some(cx.b.cast(d, dtype)));
        }
        all.resize(a.len(), None);
        all.into()
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let (q, k, v) = (args[0], args[1], args[2]);
        let (mut out, mut lse) = (Array::zeros(results[0].clone()), Array::zeros(results[1].clone()));
        let mut p = vec![];
        self.each_row(&q.ty, &k.ty, &args[3..], |row| {
            p.clear();
            p.extend(row.seen.iter().enumerate().map(|(i, &j)| self.scale * row.product(q, k, j) + row.added(i)));
            if self.bias.is_some() && p.iter().all(|s| *s == f64::NEG_INFINITY) {
                lse.data[row.index] = f64::NEG_INFINITY;
                return;
            }
            let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = p.iter().map(|s| libm::exp(s - max)).sum();
            lse.data[row.index] = max + libm::log(sum);
            for (&j, s) in row.seen.iter().zip(&p) {
                let weight = libm::exp(s - max) / sum;
                for c in 0..row.width {
                    out.data[row.q(c)] += weight * v.data[row.kv(j, c)];
                }
            }
        });
        smallvec![out, lse]
    }

    fn expand(&self, b: &mut Builder, args: &[NodeId]) -> Option<NodeIds> {
        let ty = b.ty(args[0]).clone();
        let (bias, rest) = args[3..].split_at(self.biases());
        let view = View::new(self, b, args[0], args[1])?;
        let (q, k, v) = (view.q(b, args[0]), view.kv(b, args[1]), view.kv(b, args[2]));
        let scores = view.scores(b, q, k);
        let scores = b.scale(scores, self.scale);
        let scores = bias.iter().fold(scores, |scores, &bias| view.add_bias(b, scores, bias));
        let scores = view.mask(b, scores, rest, f64::NEG_INFINITY);
        let all_see = rest.is_empty() && bias.is_empty() && self.visibility.is_plain();
        let (e, sum, max) = match all_see {
            true => Softmax::parts(b, scores, &view.key.name),
            false => view.parts_or_none(b, scores),
        };
        let whole = match all_see {
            true => sum,
            // A row that sees a key has a sum of at least 1; one that sees none stays 0.
            false => {
                let some = b.constant(1e-30, b.ty(sum).dtype);
                b.op(Max {}, &[sum, some])
            }
        };
        let weights = b.div(e, whole);
        let out = view.weigh(b, weights, v);
        let out = b.reshape(out, &ty);
        let log = b.op(Log {}, &[sum]);
        let lse = b.add(log, max);
        let lse = b.reshape(lse, &self.rows(&ty));
        Some(smallvec![b.cast(out, ty.dtype), lse])
    }

    fn partition(&self, cx: &mut PartContext<'_>) -> Option<NodeIds> {
        let own = cx.args[3..].iter().take(self.biases()).copied().next();
        let part = self.bias_part(cx, own);
        let bias = part.or(own);
        let (op, operands) = self.part(cx, cx.args, [3, 3 + self.biases()], bias, part.is_some())?;
        let all = cx.b.op(op, &operands);
        Some(cx.b.results(all))
    }

    /// Each part counts as e^lse; where neither sees a key, so does their union.
    fn merge(&self, b: &mut Builder, one: &[NodeId], other: &[NodeId]) -> Option<NodeIds> {
        let top = b.op(Max {}, &[one[1], other[1]]);
        let least = b.constant(-1e30, b.ty(top).dtype);
        let top = b.op(Max {}, &[top, least]);
        let mut weight = |part: &[NodeId]| {
            let below = b.sub(part[1], top);
            b.op(Exp {}, &[below])
        };
        let weights = [weight(one), weight(other)];
        let sum = b.add(weights[0], weights[1]);
        let some = b.constant(1e-30, b.ty(sum).dtype);
        let some = b.op(Max {}, &[sum, some]);
        let terms = [(one, weights[0]), (other, weights[1])].map(|(part, weight)| {
            let share = b.div(weight, some);
            let out = b.cast(part[0], wide(b.ty(part[0]).dtype));
            b.mul(out, share)
        });
        let log = b.op(Log {}, &[sum]);
        Some(smallvec![b.add(terms[0], terms[1]), b.add(log, top)])
    }
}

/// True if the two operands of a part follow the first `count`, which must be there.
fn window(args: &[&TensorType], count: usize, name: &str) -> Result<bool, Mismatch> {
    if args.len() != count + 2 {
        arity(args, count, name)?;
        return Ok(false);
    }
    match args.iter().skip(count).position(|t| **t != TensorType::scalar(DType::I64)) {
        Some(i) => Err(Mismatch::new(format!("operand {} of `{name}` is `{}`, not one i64", count + i, args[count + i]))
            .of([count + i])),
        None => Ok(true),
    }
}

impl Attention {
    /// That the operands from the one numbered `first` on are those of a part, or say who sees whom; whether there are any.
    pub(super) fn parts_or_ids(&self, args: &[&TensorType], first: usize, name: &str) -> Result<bool, Mismatch> {
        self.check_bias(args, first, name)?;
        let first = first + self.biases();
        if self.visibility.is_plain() {
            return window(args, first, name);
        }
        if args.len() < first {
            arity(args, first, name)?;
        }
        self.check_visibility(args, first, name)?;
        Ok(true)
    }

    /// Factors of the operand that follows so many others after the fixed ones.
    pub(super) fn factors_of_operand(
        &self,
        parts: &Parts<'_>,
        ty: &TensorType,
        after: usize,
    ) -> Vec<SmallVec<[usize; 2]>> {
        let Some(after) = after.checked_sub(self.biases()) else { return self.factors_of_bias(parts, ty) };
        match (self.visibility.is_plain(), after.is_multiple_of(2)) {
            (true, _) => vec![],
            (false, true) => parts.of_q(ty),
            (false, false) => parts.of_kv(ty),
        }
    }

    /// The attention of one rank's parts and its operands: those of `args` before the bias, which is the first of `at`, the
    /// bias, and who sees whom, from the second of `at` on. `None` where it is what it was, unless the bias is `cut`.
    pub(super) fn part(
        &self,
        cx: &mut PartContext<'_>,
        args: &[NodeId],
        [fixed, first]: [usize; 2],
        bias: Option<NodeId>,
        cut: bool,
    ) -> Option<(Self, Vec<NodeId>)> {
        let mut operands: Vec<NodeId> = args[..fixed].iter().copied().chain(bias).collect();
        let mut op = self.clone();
        if self.visibility.is_plain() {
            match self.window(cx, args.get(first..first + 2)) {
                Some(window) => operands.extend(window),
                None if cut => operands.extend(&args[first..]),
                None => return None,
            }
        } else {
            match self.visible_part(cx, args, first, Parts::cuts(cx), Parts::sizes(cx)) {
                Some((visibility, kv, rest)) => {
                    op.visibility = visibility;
                    operands[1..3].copy_from_slice(&kv);
                    operands.extend(rest);
                }
                None if cut => operands.extend(&args[first..]),
                None => return None,
            }
        }
        Some((op, operands))
    }

    /// The window's two operands for a part, within the one that the whole may have as its last two operands (`given`);
    /// `None` where neither needs one.
    pub(super) fn window(&self, cx: &mut PartContext<'_>, given: Option<&[NodeId]>) -> Option<[NodeId; 2]> {
        let (queries, keys) = (cx.cuts[Parts::QUERY], cx.cuts[Parts::KEY]);
        let short = keys.and_then(|k| k.length);
        let uneven = self.q_len == self.kv_len && queries.is_some() != keys.is_some();
        let moved = queries.is_some() || keys.is_some();
        if given.is_none() && short.is_none() && !uneven && !(self.causal && moved) {
            return None;
        }
        let size = |f: usize| cx.factors.factors[f].size as f64;
        let ahead = size(Parts::KEY) - size(Parts::QUERY);
        let present = cx.b.ty(cx.args[1]).size_of(&self.kv_len).unwrap_or(0);
        let mut reach = given.map_or_else(|| cx.b.constant(ahead, DType::I64), |g| g[0]);
        if let Some(part) = queries {
            reach = cx.b.add(reach, part.start);
        }
        if let Some(part) = keys {
            reach = cx.b.sub(reach, part.start);
        }
        let mut length = short.unwrap_or_else(|| cx.b.constant(present as f64, DType::I64));
        if let Some(given) = given {
            let rest = keys.map_or(given[1], |part| cx.b.sub(given[1], part.start));
            length = cx.b.op(Min {}, &[length, rest]);
        }
        Some([reach, length])
    }

    pub(super) fn check(&self, q: &TensorType, k: &TensorType, v: &TensorType, windowed: bool) -> Result<(), Mismatch> {
        let size = |ty: &TensorType, i: usize, name: &Name| {
            ty.size_of(name).ok_or_else(|| Mismatch::new(format!("`{ty}` has no dim {name}")).of([i]))
        };
        let batch = |ty: &TensorType, own: [&Name; 3]| {
            let mut dims: Vec<Dim> = ty.dims.iter().filter(|d| !own.contains(&&d.name)).cloned().collect();
            dims.sort_by(|a, b| a.name.cmp(&b.name));
            dims
        };
        if !(self.scale as f32).is_finite() {
            return Err(Mismatch::new(format!("`attention` with a scale of {:?}", self.scale)).help("give a finite one"));
        }
        if !q.dtype.is_float() || q.dtype != k.dtype || k != v {
            return Err(Mismatch::new(format!("`attention` of `{q}` to `{k}` and `{v}`"))
                .of([0, 1, 2])
                .help("keys and values are of one type, and all three of one floating element type"));
        }
        let (queries, heads, width) = (size(q, 0, &self.q_len)?, size(q, 0, &self.heads)?, size(q, 0, &self.head)?);
        let (keys, kv_heads) = (size(k, 1, &self.kv_len)?, size(k, 1, &self.kv_heads)?);
        let (q_own, kv_own) = ([&self.q_len, &self.heads, &self.head], [&self.kv_len, &self.kv_heads, &self.head]);
        let (in_q, in_kv) = (batch(q, q_own), batch(k, kv_own));
        let distinct = in_q.len() + 3 == q.rank() && in_kv.len() + 3 == k.rank();
        if !distinct || size(k, 1, &self.head)? != width || in_q != in_kv {
            return Err(Mismatch::new(format!("the dims of `{q}` and `{k}` do not fit"))
                .of([0, 1])
                .help("but for lengths and numbers of heads, both have the same dims"));
        }
        if kv_heads == 0 || heads % kv_heads != 0 || (self.heads == self.kv_heads && heads != kv_heads) {
            return Err(Mismatch::new(format!("{heads} heads cannot share {kv_heads} heads of keys")).of([0, 1]));
        }
        if !windowed && ((self.causal && keys < queries) || (self.q_len == self.kv_len && keys != queries)) {
            return Err(Mismatch::new(format!("{queries} queries of length {} with {keys} keys", self.q_len)).of([0, 1]));
        }
        Ok(())
    }

    /// The type of the log-sum-exp: one number for each row of scores.
    pub(super) fn rows(&self, q: &TensorType) -> TensorType {
        q.without(std::slice::from_ref(&self.head)).with_dtype(wide(q.dtype))
    }

    /// Multiplications in q k^T; half of them if causal.
    pub(super) fn multiplied(&self, q: &TensorType, k: &TensorType) -> u64 {
        let all = (q.elements() as u64).saturating_mul(k.size_of(&self.kv_len).unwrap_or(1) as u64);
        let all = if self.causal { all / 2 } else { all };
        match self.reach() {
            [Some(left), Some(right)] if left + right >= 0 => {
                all.min((q.elements() as u64).saturating_mul((left + right) as u64 + 1))
            }
            _ => all,
        }
    }

    /// Pairs of a query and a key, in all heads.
    pub(super) fn scores(&self, q: &TensorType, k: &TensorType) -> u64 {
        self.multiplied(q, k) / q.size_of(&self.head).unwrap_or(1).max(1) as u64
    }

    /// `rest`: the bias, then reach and number of keys, or the operands of the visibility.
    pub(super) fn each_row(&self, q: &TensorType, kv: &TensorType, rest: &[&Array], mut f: impl FnMut(&Row)) {
        let rows = self.rows(q);
        let (bias, rest) = rest.split_at(self.biases());
        let bias = self.bias_of(bias.first().copied(), &rows);
        let stride = |ty: &TensorType, name: &Name| ty.position(name).map_or(0, |p| ty.strides()[p]);
        let q_strides = strides_in(q, &rows);
        let kv_strides: Vec<usize> = (rows.dims.iter())
            .map(|d| if d.name == self.q_len || d.name == self.heads { 0 } else { stride(kv, &d.name) })
            .collect();
        let at = |name: &Name| rows.position(name).unwrap_or(0);
        let (query, head) = (at(&self.q_len), at(&self.heads));
        let (queries, keys) = (q.size_of(&self.q_len).unwrap_or(0), kv.size_of(&self.kv_len).unwrap_or(0));
        let group = q.size_of(&self.heads).unwrap_or(1) / kv.size_of(&self.kv_heads).unwrap_or(1).max(1);
        let ids = (!self.visibility.is_plain()).then(|| self.seen_by_ids(q, kv, rest));
        let (reach, there) = match rest {
            [reach, there] if ids.is_none() => (reach.data[0], (there.data[0].max(0.0) as usize).min(keys)),
            _ => (keys as f64 - queries as f64, keys),
        };
        let mut row = Row {
            index: 0,
            seen: (0..there).collect(),
            bias: vec![],
            width: q.size_of(&self.head).unwrap_or(0),
            start: [0; 2],
            step: [stride(q, &self.head), stride(kv, &self.head), stride(kv, &self.kv_len)],
        };
        for_each_index(&rows.sizes(), |index| {
            row.start[0] = dot(index, &q_strides);
            row.start[1] = dot(index, &kv_strides) + index[head] / group.max(1) * stride(kv, &self.kv_heads);
            if let Some(ids) = &ids {
                ids.row(index, &mut row.seen);
            } else if self.causal {
                let keys = ((index[query] as f64 + 1.0 + reach).max(0.0) as usize).min(there);
                row.seen.clear();
                row.seen.extend(0..keys);
            }
            if let Some(bias) = &bias {
                bias.row(index, &row.seen, &mut row.bias);
            }
            f(&row);
            row.index += 1;
        });
    }
}

/// One query of one head: where its numbers lie in tensors laid out as q, as k, and as the log-sum-exp.
pub(super) struct Row {
    pub index: usize,
    /// The keys that it sees.
    pub seen: Vec<usize>,
    /// What is added to the score of each of them; empty where nothing is.
    bias: Vec<f64>,
    pub width: usize,
    start: [usize; 2],
    step: [usize; 3],
}

impl Row {
    pub fn q(&self, c: usize) -> usize {
        self.start[0] + c * self.step[0]
    }

    pub fn kv(&self, key: usize, c: usize) -> usize {
        self.start[1] + key * self.step[2] + c * self.step[1]
    }

    /// What is added to the score of the i-th key that it sees.
    pub fn added(&self, i: usize) -> f64 {
        self.bias.get(i).copied().unwrap_or(0.0)
    }

    /// Of a row of `x`, laid out as q, with row `key` of `y`, laid out as k.
    pub fn product(&self, x: &Array, y: &Array, key: usize) -> f64 {
        (0..self.width).map(|c| x.data[self.q(c)] * y.data[self.kv(key, c)]).sum()
    }
}

/// Factors of attention and its gradient: heads are (kv heads, group), the width of a head is whole.
pub(super) struct Parts<'a> {
    of: &'a Attention,
    pub factors: Vec<Factor>,
    grouped: bool,
}

impl<'a> Parts<'a> {
    pub const QUERY: usize = 0;
    pub const KEY: usize = 1;
    const WIDTH: usize = 2;
    const HEADS: usize = 3;
    const GROUP: usize = 4;

    /// Which parts of the queries and the keys a rank has.
    pub fn cuts(cx: &PartContext<'_>) -> [Option<PartOf>; 2] {
        [cx.cuts[Self::QUERY], cx.cuts[Self::KEY]]
    }

    /// The numbers of queries and keys on all ranks.
    pub fn sizes(cx: &PartContext<'_>) -> [usize; 2] {
        [Self::QUERY, Self::KEY].map(|f| cx.factors.factors[f].size)
    }

    /// The kinds of queries, of keys, and of the heads of a group.
    pub fn new(
        of: &'a Attention,
        q: &TensorType,
        kv: &TensorType,
        [queries, keys, group]: [FactorKind; 3],
    ) -> Self {
        let size = |ty: &TensorType, name: &Name| ty.size_of(name).unwrap_or(1);
        let (heads, kv_heads) = (size(q, &of.heads), size(kv, &of.kv_heads));
        let factor = |name: &Name, size, kind| Factor { name: name.clone(), size, kind };
        let mut factors = vec![
            factor(&of.q_len, size(q, &of.q_len), queries),
            factor(&of.kv_len, size(kv, &of.kv_len), keys),
            factor(&of.head, size(q, &of.head), FactorKind::Whole),
            factor(&of.kv_heads, kv_heads, FactorKind::Parallel),
        ];
        let grouped = heads != kv_heads;
        if grouped {
            factors.push(factor(&Name::from(format!("{}.group", of.heads)), heads / kv_heads.max(1), group));
        }
        let batch = q.dims.iter().filter(|d| ![&of.q_len, &of.heads, &of.head].contains(&&d.name));
        factors.extend(batch.map(|d| factor(&d.name, d.size, FactorKind::Parallel)));
        Self { of, factors, grouped }
    }

    pub fn of_q(&self, ty: &TensorType) -> Vec<SmallVec<[usize; 2]>> {
        self.each(ty, &self.of.q_len, Self::QUERY, &self.of.heads, self.grouped)
    }

    pub fn of_kv(&self, ty: &TensorType) -> Vec<SmallVec<[usize; 2]>> {
        self.each(ty, &self.of.kv_len, Self::KEY, &self.of.kv_heads, false)
    }

    fn each(&self, ty: &TensorType, len: &Name, at: usize, heads: &Name, grouped: bool) -> Vec<SmallVec<[usize; 2]>> {
        let first = Self::GROUP + usize::from(self.grouped);
        let of = |name: &Name| -> SmallVec<[usize; 2]> {
            if name == len {
                smallvec![at]
            } else if *name == self.of.head {
                smallvec![Self::WIDTH]
            } else if name == heads {
                if grouped { smallvec![Self::HEADS, Self::GROUP] } else { smallvec![Self::HEADS] }
            } else {
                (first..self.factors.len()).find(|&i| self.factors[i].name == *name).into_iter().collect()
            }
        };
        ty.dims.iter().map(|d| of(&d.name)).collect()
    }
}
