//! The typing of calls: operands fit by position, and a callee's dim names turn into the caller's.

use types::{Dim, Name, TensorType};

use crate::{Call, Function, Mismatch, Type};

impl Call {
    /// Which role the `index`-th operand plays.
    pub fn is_stacked(&self, index: usize) -> bool {
        self.times.is_some() && index >= self.carried + self.shared
    }

    /// The type of the call: a tuple of results, or the one result itself.
    pub fn infer(&self, callee: &Function, args: &[&Type]) -> Result<Type, Mismatch> {
        if args.len() != callee.params.len() {
            return Err(Mismatch::new(format!(
                "@{} takes {} operands, here are {}",
                callee.name,
                callee.params.len(),
                args.len()
            )));
        }
        let stacked = self.carried.saturating_add(self.shared);
        if self.times.is_some() && (stacked > args.len() || self.carried > callee.results.len()) {
            return Err(Mismatch::new(format!(
                "@{} cannot carry {} values and share {} with {} operands and {} results",
                callee.name,
                self.carried,
                self.shared,
                args.len(),
                callee.results.len()
            )));
        }
        let mut names = vec![];
        for (i, (param, arg)) in callee.param_types().zip(args).enumerate() {
            match (self.times, self.is_stacked(i), arg) {
                (Some(times), true, Type::Stack { count, of }) if *count == times => {
                    self.bind(callee, i, param, &Type::Tensor(of.clone()), &mut names)?;
                }
                (Some(times), true, _) => {
                    return Err(Mismatch::new(format!(
                        "operand {i} of the {times} calls of @{} is `{arg}`, expected a stack of {times}",
                        callee.name
                    ))
                    .of([i]));
                }
                _ => self.bind(callee, i, param, arg, &mut names)?,
            }
        }
        for (i, (param, result)) in callee.param_types().zip(callee.result_types()).take(self.carried).enumerate() {
            if self.times.is_some() && !same_sizes(param, result) {
                return Err(Mismatch::new(format!(
                    "@{} carries `{param}` in and `{result}` out as value {i}",
                    callee.name
                )));
            }
        }
        let mut results: Vec<Type> = vec![];
        for (i, result) in callee.result_types().enumerate() {
            let ty = if self.times.is_some() && i < self.carried { args[i].clone() } else { rename(result, &names) };
            results.push(match (self.times, ty) {
                (Some(count), Type::Tensor(of)) if i >= self.carried => Type::Stack { count, of },
                (Some(times), ty) if i >= self.carried => {
                    return Err(Mismatch::new(format!("{times} calls of @{} would stack `{ty}`", callee.name))
                        .help("only tensors make a stack"));
                }
                (_, ty) => ty,
            });
        }
        Ok(if results.len() == 1 { results.remove(0) } else { Type::Tuple(results) })
    }

    fn bind(
        &self,
        callee: &Function,
        index: usize,
        param: &Type,
        arg: &Type,
        names: &mut Vec<(Name, Name)>,
    ) -> Result<(), Mismatch> {
        if !same_sizes(param, arg) {
            return Err(Mismatch::new(format!("operand {index} of @{} is `{arg}`, expected `{param}`", callee.name))
                .of([index]));
        }
        if let (Some(p), Some(a)) = (param.element(), arg.element()) {
            for (theirs, ours) in p.dims.iter().zip(&a.dims) {
                if !names.iter().any(|(t, _)| *t == theirs.name) {
                    names.push((theirs.name.clone(), ours.name.clone()));
                }
            }
        }
        Ok(())
    }
}

/// Equal but for the names of dims.
pub fn same_sizes(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Tensor(a), Type::Tensor(b)) => a.dtype == b.dtype && a.sizes() == b.sizes(),
        (Type::Stack { count: m, of: a }, Type::Stack { count: n, of: b }) => {
            m == n && a.dtype == b.dtype && a.sizes() == b.sizes()
        }
        (Type::Tuple(a), Type::Tuple(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_sizes(a, b)),
        _ => false,
    }
}

fn rename(ty: &Type, names: &[(Name, Name)]) -> Type {
    ty.map(&|t: &TensorType| {
        let mut out = TensorType::scalar(t.dtype);
        for dim in &t.dims {
            let ours = names.iter().find(|(theirs, _)| *theirs == dim.name).map(|(_, ours)| ours.clone());
            let mut name = ours.unwrap_or_else(|| dim.name.clone());
            // Two of the callee's dims may be one name for the caller; the second then keeps its own, or a fresh one.
            if out.position(&name).is_some() {
                name = dim.name.clone();
            }
            while out.position(&name).is_some() {
                name = Name::from(format!("{name}_"));
            }
            out.dims.push(Dim { name, size: dim.size });
        }
        out
    })
}
