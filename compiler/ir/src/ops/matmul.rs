//! `matmul`: products of two tensors summed over shared dims, written as einsum does: `blk,ok->blo`.

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, Name, TensorType, saturating_product};

use super::elementwise::arity;
use crate::array::{dot, for_each_index};
use crate::factors::{Factor, FactorKind};
use crate::op::{Class, Semantics, TextForm, Told, Types, Vjp};
use crate::{Array, Factors, Mismatch, NodeId};

/// Each letter is one factor. A letter of both operands and of the result is a batch dim, of both operands alone a
/// summed one. Sums are kept in f32 (f64 for f64 operands) and rounded once to the result's type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Matmul {
    pub spec: String,
    /// Names of the result's dims.
    pub dims: Vec<Name>,
    /// Element type of the result, if not the operands'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<DType>,
}

/// The letters of both operands and of the result.
pub struct Letters<'a> {
    pub lhs: &'a [u8],
    pub rhs: &'a [u8],
    pub out: &'a [u8],
}

impl Matmul {
    /// `None` if the spec has not the form `letters,letters->letters`.
    pub fn letters(&self) -> Option<Letters<'_>> {
        let (operands, out) = self.spec.split_once("->")?;
        let (lhs, rhs) = operands.split_once(',')?;
        let all = [lhs, rhs, out];
        let plain = all.iter().all(|s| s.bytes().all(|c| c.is_ascii_lowercase()));
        let once = all.iter().all(|s| s.bytes().enumerate().all(|(i, c)| !s.as_bytes()[..i].contains(&c)));
        (plain && once).then_some(Letters { lhs: lhs.as_bytes(), rhs: rhs.as_bytes(), out: out.as_bytes() })
    }

    fn checked(&self) -> Result<Letters<'_>, Mismatch> {
        self.letters().ok_or_else(|| {
            Mismatch::new(format!("`{}` is no matmul", self.spec))
                .help("write it like `blk,ok->blo`, each letter once in a tensor")
        })
    }
}

impl Semantics for Matmul {
    const NAME: &'static str = "matmul";
    const CLASS: Class = Class::Contract;
    const TEXT: TextForm = TextForm { first: "spec", told: &[("dims", Told::Names)] };

    fn dims(&mut self) -> SmallVec<[&mut Name; 4]> {
        self.dims.iter_mut().collect()
    }

    fn infer(&self, args: &[&TensorType]) -> Result<Types, Mismatch> {
        arity(args, 2, Self::NAME)?;
        let l = self.checked()?;
        for (i, letters) in [l.lhs, l.rhs].into_iter().enumerate() {
            if letters.len() != args[i].rank() {
                return Err(Mismatch::new(format!("`{}` does not fit `{}`", self.spec, args[i])).of([i]));
            }
        }
        if args[0].dtype != args[1].dtype {
            return Err(Mismatch::new(format!("`matmul` of {} and {}", args[0].dtype, args[1].dtype))
                .of([0, 1])
                .help("cast one of them"));
        }
        if l.out.len() != self.dims.len() {
            return Err(Mismatch::new(format!("`{}` has {} result dims, {} are named", self.spec, l.out.len(), self.dims.len())));
        }
        for (i, c) in l.lhs.iter().enumerate() {
            if let Some(j) = l.rhs.iter().position(|r| r == c) {
                let (a, b) = (&args[0].dims[i], &args[1].dims[j]);
                if a.size != b.size {
                    return Err(Mismatch::new(format!("{a} on the left meets {b} on the right"))
                        .of([0, 1])
                        .help("dims that are multiplied together must have one size"));
                }
            } else if !l.out.contains(c) {
                return Err(Mismatch::new(format!("`{}` sums a dim that only one operand has", self.spec)).of([0]));
            }
        }
        if l.rhs.iter().any(|c| !l.lhs.contains(c) && !l.out.contains(c)) {
            return Err(Mismatch::new(format!("`{}` sums a dim that only one operand has", self.spec)).of([1]));
        }
        let mut ty = TensorType::scalar(self.dtype.unwrap_or(args[0].dtype));
        for (c, name) in l.out.iter().zip(&self.dims) {
            let size = (l.lhs.iter().position(|x| x == c).map(|i| args[0].dims[i].size))
                .or_else(|| l.rhs.iter().position(|x| x == c).map(|i| args[1].dims[i].size))
                .ok_or_else(|| Mismatch::new(format!("`{}`: a result letter that no operand has", self.spec)))?;
            if ty.position(name).is_some() {
                return Err(Mismatch::new(format!("dim {name} twice in the result of `matmul`"))
                    .of([0, 1])
                    .help("name square weights like `[DIM.out, DIM.in]`"));
            }
            ty.dims.push(Dim { name: name.clone(), size });
        }
        Ok(smallvec![ty])
    }

    fn factors(&self, args: &[&TensorType], results: &[TensorType]) -> Factors {
        let Some(l) = self.letters() else { return Factors::default() };
        let mut out = Factors::default();
        let mut seen: Vec<u8> = vec![];
        let mut index = |letters: &[u8], ty: &TensorType, out: &mut Factors| -> Vec<SmallVec<[usize; 2]>> {
            let dims = letters.iter().zip(&ty.dims);
            dims.map(|(c, dim)| {
                let at = seen.iter().position(|s| s == c).unwrap_or_else(|| {
                    let kind = if l.out.contains(c) { FactorKind::Parallel } else { FactorKind::Sum };
                    out.factors.push(Factor { name: dim.name.clone(), size: dim.size, kind });
                    seen.push(*c);
                    seen.len() - 1
                });
                smallvec![at]
            })
            .collect()
        };
        let result = index(l.out, &results[0], &mut out);
        let lhs = index(l.lhs, args[0], &mut out);
        let rhs = index(l.rhs, args[1], &mut out);
        (out.results, out.args) = (vec![result], vec![lhs, rhs]);
        out
    }

    fn flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        let factors = self.factors(args, results);
        saturating_product([2].into_iter().chain(factors.factors.iter().map(|f| f.size as u64)))
    }

    fn matmul_flops(&self, args: &[&TensorType], results: &[TensorType]) -> u64 {
        self.flops(args, results)
    }

    fn vjp(&self, cx: &mut Vjp<'_>) -> SmallVec<[Option<NodeId>; 4]> {
        let Some(l) = self.letters() else { return cx.none() };
        let text = |letters: &[u8]| String::from_utf8_lossy(letters).into_owned();
        let (lhs, rhs, out) = (text(l.lhs), text(l.rhs), text(l.out));
        let (a, b) = (cx.args[0], cx.args[1]);
        let operand = cx.b.ty(a).dtype;
        let g = cx.cotangent();
        let g = cx.b.cast(g, operand);
        let mut gradient = |spec: String, first: NodeId, second: NodeId, of: usize| {
            let names = cx.b.ty(cx.args[of]).dims.iter().map(|d| d.name.clone()).collect();
            cx.wanted[of].then(|| cx.b.op(Matmul { spec, dims: names, dtype: None }, &[first, second]))
        };
        smallvec![
            gradient(format!("{out},{rhs}->{lhs}"), g, b, 0),
            // The cotangent stands first here too, so that a weight [out, in] is (tokens x out)^T (tokens x in).
            gradient(format!("{out},{lhs}->{rhs}"), g, a, 1),
        ]
    }

    fn eval(&self, args: &[&Array], results: &[TensorType]) -> SmallVec<[Array; 2]> {
        let mut out = Array::zeros(results[0].clone());
        let Some(l) = self.letters() else { return smallvec![out] };
        // The result's letters first, then the summed ones: each result element is one run of the inner loop.
        let mut space: Vec<(u8, usize)> = l.out.iter().copied().zip(results[0].sizes()).collect();
        space.extend(l.lhs.iter().copied().zip(args[0].ty.sizes()).filter(|(c, _)| !l.out.contains(c)));
        let strides = |letters: &[u8], ty: &TensorType| -> Vec<usize> {
            let own = ty.strides();
            space.iter().map(|(c, _)| letters.iter().position(|x| x == c).map_or(0, |p| own[p])).collect()
        };
        let (a, b, c) = (strides(l.lhs, &args[0].ty), strides(l.rhs, &args[1].ty), strides(l.out, &results[0]));
        let sizes: Vec<usize> = space.iter().map(|s| s.1).collect();
        // The last dim is a plain loop: an order of magnitude faster than counting it as an index.
        let outer = sizes.len().saturating_sub(1);
        let (n, step) = sizes.last().map_or((1, [0; 3]), |&n| (n, [a[outer], b[outer], c[outer]]));
        for_each_index(&sizes[..outer], |i| {
            let (i, j, k) = (dot(i, &a), dot(i, &b), dot(i, &c));
            for x in 0..n {
                out.data[k + x * step[2]] += args[0].data[i + x * step[0]] * args[1].data[j + x * step[1]];
            }
        });
        smallvec![out]
    }
}
