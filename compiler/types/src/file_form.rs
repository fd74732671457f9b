//! Forms of parameters in files: one tensor for each index of an axis, a part of a larger tensor, axes in another order.

use serde::{Deserialize, Serialize};

use crate::{DType, Dim, Name, TensorType};

/// A form in which files may hold a parameter, beside one tensor of its name and shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileForm {
    /// `experts.{EXPERTS}.up_proj.weight`: what stands in braces is the index along `over`.
    pub name: Name,
    /// The axes of the file's tensor, major first. Axes of the parameter that are neither here nor `over` do not exist.
    pub axes: Vec<FileAxis>,
    /// The parameter's axis along which each index has a tensor of its own.
    pub over: Option<usize>,
    /// Whether the class saves the parameter in this form today.
    pub saved: bool,
}

/// An axis of a file's tensor: a whole axis of the parameter, beginning at `at` of `size` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAxis {
    /// Of the parameter.
    pub axis: usize,
    pub at: usize,
    pub size: usize,
}

impl FileForm {
    /// How many tensors hold a parameter of this type.
    pub fn count(&self, ty: &TensorType) -> usize {
        self.over.map_or(1, |axis| ty.dims.get(axis).map_or(1, |dim| dim.size))
    }

    /// The name of a tensor.
    pub fn tensor(&self, index: usize) -> String {
        match braces(&self.name) {
            Some((from, to)) => format!("{}{index}{}", &self.name[..from], &self.name[to..]),
            None => self.name.to_string(),
        }
    }

    /// The names of all tensors that hold a parameter of this type.
    pub fn tensors(&self, ty: &TensorType) -> impl Iterator<Item = String> {
        (0..self.count(ty)).map(|index| self.tensor(index))
    }

    /// The shape of each tensor.
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.size).collect()
    }

    /// The type of each tensor, with elements of `dtype`.
    pub fn ty(&self, of: &TensorType, dtype: DType) -> TensorType {
        let name = |axis: &FileAxis| of.dims.get(axis.axis).map_or_else(Name::default, |dim| dim.name.clone());
        TensorType::new(dtype, self.axes.iter().map(|axis| Dim::new(name(axis), axis.size)))
    }
}

/// The range of a name in which an index stands; `{}` is the index of a layer, and no such range.
pub fn braces(name: &str) -> Option<(usize, usize)> {
    let ranges = name.match_indices('{').filter_map(|(at, _)| Some((at, at + name[at..].find('}')? + 1)));
    ranges.into_iter().find(|(from, to)| to - from > 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_has_a_tensor() {
        let axes = vec![FileAxis { axis: 2, at: 0, size: 5 }, FileAxis { axis: 1, at: 3, size: 6 }];
        let name = "layers.7.experts.{EXPERTS}.up.weight".into();
        let form = FileForm { name, axes, over: Some(0), saved: false };
        let ty: TensorType = "f32[EXPERTS:2, FFN:3, DIM:5]".parse().expect("a type");
        let names: Vec<String> = form.tensors(&ty).collect();
        assert_eq!(names, ["layers.7.experts.0.up.weight", "layers.7.experts.1.up.weight"]);
        assert_eq!(form.ty(&ty, DType::BF16).to_string(), "bf16[DIM:5, FFN:6]");
        assert_eq!(braces("layers.{}.w"), None);
        assert_eq!(braces("layers.{}.{E}.w"), Some((10, 13)));
    }
}
