//! Broadcasting by name: how elementwise operators combine the dims of their operands.

use smallvec::{SmallVec, smallvec};
use types::{Dim, TensorType};

use crate::Mismatch;
use crate::op::Types;

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
                Some(p) if p < at => {
                    return Err(Mismatch::new(format!(
                        "`{}` and `{}` have their dims in different orders",
                        args[order[0]], args[i]
                    ))
                    .of([order[0], i])
                    .help("transpose one of them"));
                }
                Some(p) => at = p + 1,
                None => {
                    let next = args[i].dims[k + 1..]
                        .iter()
                        .find_map(|d| out.iter().position(|o| o.name == d.name))
                        .unwrap_or(out.len());
                    out.insert(next, dim.clone());
                    at = next + 1;
                }
            }
        }
    }
    Ok(out)
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
