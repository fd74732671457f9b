//! Broadcasting by name: how elementwise operators combine the dims of their operands.

use smallvec::{SmallVec, smallvec};
use types::{DType, Dim, TensorType};

use crate::Mismatch;
use crate::op::Types;

/// What an exponential, or another function that is computed as a polynomial, takes on one element, in additions.
pub const FUNCTION: u64 = 8;
/// What a division or a square root takes.
pub const QUOTIENT: u64 = 4;

/// The dims of all operands together, in an order that agrees with each.
///
/// A dim that the operands so far lack goes before the next dim they share, or at the end.
pub fn union(args: &[&TensorType]) -> Result<SmallVec<[Dim; 4]>, Mismatch> {
    // The operand with most dims sets the order; with equal counts the first does.
    let mut order: Vec<usize> = (0..args.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(args[i].rank()));
    let mut out: SmallVec<[Dim; 4]> = SmallVec::new();
    for &i in &order {
        let mut at = 0;
        for (k, dim) in args[i].dims.iter().enumerate() {
            match out.iter().position(|d| d.name == dim.name) {
                Some(p) if out[p].size != dim.size => {
                    return Err(Mismatch::new(format!(
                        "dim {} is {} in `{}` and {} in `{}`",
                        dim.name, out[p].size, args[order[0]], dim.size, args[i]
                    ))
                    .of([order[0], i])
                    .help("make both sizes equal, or rename one of the dims"));
                }
                Some(p) if p < at => return Err(disordered(args, order[0], i)),
                Some(p) => at = p + 1,
                None => {
                    let next = args[i].dims[k + 1..]
                        .iter()
                        .find_map(|d| out.iter().position(|o| o.name == d.name))
                        .unwrap_or(out.len());
                    if next < at {
                        return Err(disordered(args, order[0], i));
                    }
                    out.insert(next, dim.clone());
                    at = next + 1;
                }
            }
        }
    }
    Ok(out)
}

fn disordered(args: &[&TensorType], a: usize, b: usize) -> Mismatch {
    Mismatch::new(format!("`{}` and `{}` have their dims in different orders", args[a], args[b]))
        .of([a, b])
        .help("transpose one of them")
}

/// All operands of one element type, which is the result's too.
pub fn same_dtype(args: &[&TensorType], name: &str) -> Result<Types, Mismatch> {
    if let Some(i) = args.iter().position(|a| a.dtype != args[0].dtype) {
        return Err(Mismatch::new(format!("`{name}` of {} and {}", args[0].dtype, args[i].dtype))
            .of([0, i])
            .help("cast one of them"));
    }
    Ok(smallvec![TensorType { dtype: args[0].dtype, dims: union(args)? }])
}

/// One floating operand, whose type the result has.
pub fn unary_float(args: &[&TensorType], name: &str) -> Result<Types, Mismatch> {
    alike_float(args, 1, name)
}

/// `count` floating operands of one type, which is the result's too.
pub fn alike_float(args: &[&TensorType], count: usize, name: &str) -> Result<Types, Mismatch> {
    arity(args, count, name)?;
    if let Some(i) = args.iter().position(|a| a != &args[0]) {
        return Err(Mismatch::new(format!("`{name}` of `{}` and `{}`", args[0], args[i]))
            .of([0, i])
            .help("its operands must be of one type"));
    }
    if !args[0].dtype.is_float() {
        return Err(Mismatch::new(format!("`{name}` of {}", args[0].dtype)).of([0]).help("cast it to a float first"));
    }
    Ok(smallvec![args[0].clone()])
}

/// The type in which a formula of several steps is computed before its result rounds once.
pub fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// That no dim stands twice in a result.
pub fn distinct(ty: TensorType) -> Result<TensorType, Mismatch> {
    match (1..ty.rank()).find(|&i| ty.dims[..i].iter().any(|d| d.name == ty.dims[i].name)) {
        Some(i) => Err(Mismatch::new(format!("dim {} twice in `{ty}`", ty.dims[i].name)).help("rename one of them")),
        None => Ok(ty),
    }
}

/// That there are `count` operands.
pub fn arity(args: &[&TensorType], count: usize, name: &str) -> Result<(), Mismatch> {
    if args.len() == count {
        return Ok(());
    }
    Err(Mismatch::new(format!("`{name}` takes {count} operand{}, here are {}", plural(count), args.len())))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
