//! What two kernels have in common that are one: instructions, types and results, whatever their dims are called.

use ir::{Function, Inst, NodeId, Type};
use smallvec::SmallVec;
use types::Name;

/// A kernel whose dims are named in the order in which they occur.
#[derive(PartialEq, Eq, Hash)]
pub struct Identity {
    nodes: Vec<(Inst, SmallVec<[NodeId; 4]>, Type)>,
    results: Vec<NodeId>,
}

impl Identity {
    pub fn of(kernel: &Function) -> Self {
        let mut names = Names::default();
        let node = |node: &ir::Node| {
            let (mut inst, mut ty) = (node.inst.clone(), node.ty.clone());
            if let Inst::Op(op) = &mut inst {
                op.dims().into_iter().for_each(|name| names.number(name));
            }
            names.number_dims(&mut ty);
            (inst, node.args.clone(), ty)
        };
        Self { nodes: kernel.nodes.iter().map(|(_, n)| n).map(node).collect(), results: kernel.results.clone() }
    }
}

/// The names of dims so far, and what takes their place.
#[derive(Default)]
struct Names(Vec<(Name, Name)>);

impl Names {
    fn number(&mut self, name: &mut Name) {
        let known = self.0.iter().find(|(old, _)| old == name).map(|(_, new)| new.clone());
        *name = known.unwrap_or_else(|| {
            let new = Name::from(format!("d{}", self.0.len()));
            self.0.push((name.clone(), new.clone()));
            new
        });
    }

    fn number_dims(&mut self, ty: &mut Type) {
        match ty {
            Type::Tensor(of) | Type::Stack { of, .. } => of.dims.iter_mut().for_each(|dim| self.number(&mut dim.name)),
            Type::Tuple(items) => items.iter_mut().for_each(|item| self.number_dims(item)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ir::{Builder, ops};
    use types::TensorType;

    use super::*;

    fn kernel(make: impl FnOnce(&mut Builder) -> NodeId) -> Identity {
        let mut b = Builder::new("kernel");
        let result = make(&mut b);
        let mut kernel = b.finish().expect("a function");
        kernel.results = vec![result];
        Identity::of(&kernel)
    }

    fn sum(ty: &str, dim: &str) -> Identity {
        kernel(|b| {
            let x = b.param(ty.parse::<TensorType>().expect("a type"));
            b.reduce_sum(x, &[dim.into()])
        })
    }

    #[test]
    fn kernels_are_one_whatever_their_dims_are_called() {
        assert!(sum("f32[A:2, B:3]", "A") == sum("f32[C:2, D:3]", "C"));
        assert!(sum("f32[A:2, B:3]", "A") == sum("f32[B:2, A:3]", "B"));
        assert!(sum("f32[A:2, B:2]", "A") != sum("f32[A:2, B:2]", "B"));
    }

    #[test]
    fn kernels_that_differ_in_an_attribute_stay_two() {
        // It looks like a dim, and is none.
        let rank = |axis: &str| kernel(|b| b.op(ops::Coordinate { axis: axis.into() }, &[]));
        assert!(rank("TP") == rank("TP"));
        assert!(rank("TP") != rank("DP"));
        let constant = |value| kernel(|b| b.constant(value, types::DType::F32));
        assert!(constant(0.0) != constant(-0.0));
        assert!(constant(f64::INFINITY) == constant(f64::INFINITY));
    }
}
