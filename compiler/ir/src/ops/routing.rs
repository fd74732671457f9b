//! Products by expert: rows, the expert that each is sent to, and a matrix of each expert; which letters are which dims.
//!
//! One spec serves the product and its gradients: `td,tk,edf->tkf` sends row t of x to the experts that ids[t, k] number.

use smallvec::{SmallVec, smallvec};
use types::{Dim, Indices, Name, TensorType, saturating_product};

use super::Select;
use super::elementwise::arity;
use super::gather::{inside, integers};
use crate::array::{dot, for_each_index};
use crate::factors::{Factor, FactorKind};
use crate::op::PartContext;
use crate::{Array, Factors, Mismatch, NodeId};

/// The letters of the rows, of the experts' numbers, of the experts' matrices and of the products.
pub struct Routing<'a> {
    pub rows: &'a [u8],
    pub ids: &'a [u8],
    pub weight: &'a [u8],
    pub products: &'a [u8],
    /// The weight's dim of experts, the one that is summed in a product, and the one that a product has.
    pub expert: u8,
    pub from: u8,
    pub to: u8,
}

/// Which operands an operator has, in order; the third tensor is its result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Of rows and weight.
    Products,
    /// Of rows and products.
    Weight,
}

impl<'a> Routing<'a> {
    /// The letters of a spec `rows,ids,operand->result`; `None` if they are no products by expert.
    pub fn of(spec: &'a str, asks: Asks) -> Option<Self> {
        let (operands, out) = spec.split_once("->")?;
        let all: SmallVec<[&[u8]; 4]> = operands.split(',').chain([out]).map(str::as_bytes).collect();
        let &[rows, ids, third, out] = all.as_slice() else { return None };
        let (weight, products) = if asks == Asks::Products { (third, out) } else { (out, third) };
        let plain = all.iter().all(|s| s.iter().all(u8::is_ascii_lowercase));
        let once = all.iter().all(|s| s.iter().enumerate().all(|(i, c)| !s[..i].contains(c)));
        let only = |fits: &dyn Fn(u8) -> bool| -> Option<u8> {
            let mut found = weight.iter().copied().filter(|&c| fits(c));
            found.next().filter(|_| found.next().is_none())
        };
        let expert = only(&|c| !rows.contains(&c) && !products.contains(&c))?;
        let from = only(&|c| rows.contains(&c))?;
        let to = only(&|c| products.contains(&c))?;
        let routed = weight.len() == 3 && weight.iter().all(|c| !ids.contains(c));
        let of_rows = rows.iter().all(|c| *c == from || ids.contains(c));
        let of_products = products.len() == ids.len() + 1 && ids.iter().all(|c| products.contains(c));
        (plain && once && routed && of_rows && of_products).then_some(Self {
            rows,
            ids,
            weight,
            products,
            expert,
            from,
            to,
        })
    }

    pub fn checked(spec: &'a str, asks: Asks, name: &str) -> Result<Self, Mismatch> {
        let (example, third) = match asks {
            Asks::Products => {
                ("td,tk,edf->tkf", "the weight has the experts, a dim of the rows and one of the products")
            }
            Asks::Weight => ("td,tk,tkf->edf", "the result has the experts, a dim of the rows and one of the products"),
        };
        Self::of(spec, asks).ok_or_else(|| {
            Mismatch::new(format!("`{spec}` is no `{name}`"))
                .help(format!("write it like `{example}`: rows have dims of the ids and one more, {third}"))
        })
    }

    /// That operands fit their letters and each other; gives the size of each letter.
    pub fn sizes(&self, args: &[&TensorType], asks: Asks, name: &str) -> Result<Vec<(u8, usize)>, Mismatch> {
        arity(args, 3, name)?;
        integers(args[1], 1, name)?;
        let third = if asks == Asks::Products { self.weight } else { self.products };
        let mut sizes: Vec<(u8, usize)> = vec![];
        for (i, letters) in [self.rows, self.ids, third].into_iter().enumerate() {
            if letters.len() != args[i].rank() {
                let spec = String::from_utf8_lossy(letters);
                return Err(Mismatch::new(format!("`{spec}` of `{name}` does not fit `{}`", args[i])).of([i]));
            }
            for (&c, dim) in letters.iter().zip(&args[i].dims) {
                match sizes.iter().find(|(known, _)| *known == c) {
                    Some(&(_, size)) if size != dim.size => {
                        return Err(Mismatch::new(format!("{dim} of operand {i} meets {size} elements of another"))
                            .of([0, i])
                            .help("dims that are one letter must have one size"));
                    }
                    Some(_) => {}
                    None => sizes.push((c, dim.size)),
                }
            }
        }
        if args[0].dtype != args[2].dtype || !args[0].dtype.is_float() {
            return Err(Mismatch::new(format!("`{name}` of {} and {}", args[0].dtype, args[2].dtype))
                .of([0, 2])
                .help("cast one of them: both are floats of one type"));
        }
        Ok(sizes)
    }

    /// Numbers that name no expert pick nothing; data may say so by -1 alone.
    pub fn indices(experts: usize) -> (usize, Indices) {
        (1, Indices { rows: experts as u64, ignored: Some(-1) })
    }

    /// One factor for each letter; those of `summed` leave partial sums where a result lacks them.
    pub fn factors(
        &self,
        (operands, out): ([&[u8]; 3], &[u8]),
        summed: &[u8],
        (args, result): (&[&TensorType], &TensorType),
    ) -> Factors {
        let mut factors = Factors::default();
        let mut seen: Vec<u8> = vec![];
        let mut index = |letters: &[u8], ty: &TensorType| -> Vec<SmallVec<[usize; 2]>> {
            let each = letters.iter().zip(&ty.dims);
            each.map(|(c, dim)| {
                let at = seen.iter().position(|s| s == c).unwrap_or_else(|| {
                    let kind = if summed.contains(c) { FactorKind::Sum } else { FactorKind::Parallel };
                    factors.factors.push(Factor { name: dim.name.clone(), size: dim.size, kind });
                    seen.push(*c);
                    seen.len() - 1
                });
                smallvec![at]
            })
            .collect()
        };
        let results = vec![index(out, result)];
        let args = operands.iter().zip(args).map(|(letters, ty)| index(letters, ty)).collect();
        (factors.results, factors.args) = (results, args);
        factors
    }

    /// The elements from one index to the next along letter `c` of a tensor; 0 where it lacks it.
    pub fn step(letters: &[u8], ty: &TensorType, c: u8) -> usize {
        letters.iter().position(|own| *own == c).map_or(0, |p| ty.strides()[p])
    }

    /// Calls `f` for each number that names an expert, in order, with the expert and where its row and its product begin.
    pub fn for_each(
        &self,
        ids: &Array,
        (rows, products): (&TensorType, &TensorType),
        experts: usize,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let along = |letters, ty| self.ids.iter().map(|&c| Self::step(letters, ty, c)).collect::<Vec<_>>();
        let (of_rows, of_products) = (along(self.rows, rows), along(self.products, products));
        let mut numbers = ids.data.iter();
        for_each_index(&ids.ty.sizes(), |index| {
            let id = numbers.next().copied().unwrap_or(-1.0);
            if id >= 0.0 && id < experts as f64 {
                f(id as usize, dot(index, &of_rows), dot(index, &of_products));
            }
        });
    }

    /// A tensor's type with its letters as names, which are distinct over all tensors of the operator.
    pub fn spelt(letters: &[u8], ty: &TensorType) -> TensorType {
        let dims = letters.iter().zip(&ty.dims).map(|(&c, d)| Dim { name: name(c), size: d.size });
        TensorType::new(ty.dtype, dims)
    }

    /// FLOP where numbers are spread over `among` experts, of which `experts` are here.
    pub fn flops(sizes: &[(u8, usize)], ids: &TensorType, routing: &Self, among: Option<usize>) -> u64 {
        let size = |c: u8| sizes.iter().find(|(known, _)| *known == c).map_or(1, |s| s.1 as u64);
        let all = saturating_product([2, ids.elements() as u64, size(routing.from), size(routing.to)]);
        match among {
            Some(among) if among > 0 => (u128::from(all) * u128::from(size(routing.expert)) / among as u128) as u64,
            _ => all,
        }
    }
}

/// The experts' numbers counted from the start of a part of the experts; -1 for those that are not in it.
pub fn own_ids(cx: &mut PartContext<'_>, ids: NodeId, factor: usize, experts: usize) -> Option<NodeId> {
    let part = cx.cuts[factor]?;
    let (ids, here) = inside(cx.b, ids, part, experts);
    let nowhere = cx.b.constant(-1.0, cx.b.ty(ids).dtype);
    Some(cx.b.op(Select {}, &[here, ids, nowhere]))
}

/// A letter as the name of a dim.
pub fn name(letter: u8) -> Name {
    char::from(letter).to_string().into()
}

pub fn names(letters: &[u8]) -> Vec<Name> {
    letters.iter().map(|&c| name(c)).collect()
}

/// Letters as a part of a spec.
pub fn text(letters: &[u8]) -> &str {
    std::str::from_utf8(letters).unwrap_or_default()
}
