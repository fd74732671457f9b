//! The type of a node: a tensor, a stack of equal tensors (one for each call of a repeated function), or a tuple.

use std::fmt;

use types::TensorType;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    Tensor(TensorType),
    /// `count` tensors of one type, held apart; only repeated calls, `chunk` and `unchunk` look inside.
    Stack {
        count: usize,
        of: TensorType,
    },
    /// Results of a function or of an operator with several; read with `get`.
    Tuple(Vec<Type>),
}

impl Type {
    pub fn tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(ty) => Some(ty),
            _ => None,
        }
    }

    /// The tensor type itself, or that of a stack's element.
    pub fn element(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(ty) | Type::Stack { of: ty, .. } => Some(ty),
            Type::Tuple(_) => None,
        }
    }

    /// Number of tensors: 1, or a stack's count.
    pub fn count(&self) -> usize {
        match self {
            Type::Stack { count, .. } => *count,
            _ => 1,
        }
    }

    /// The items of a tuple; anything else is its only one.
    pub fn items(&self) -> &[Type] {
        match self {
            Type::Tuple(items) => items,
            one => std::slice::from_ref(one),
        }
    }

    /// The tensors among the items: the results of an operator.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorType> {
        self.items().iter().filter_map(Type::tensor)
    }

    /// The same kind of type around another tensor type.
    pub fn map(&self, f: &impl Fn(&TensorType) -> TensorType) -> Type {
        match self {
            Type::Tensor(ty) => Type::Tensor(f(ty)),
            Type::Stack { count, of } => Type::Stack { count: *count, of: f(of) },
            Type::Tuple(items) => Type::Tuple(items.iter().map(|t| t.map(f)).collect()),
        }
    }
}

impl From<TensorType> for Type {
    fn from(ty: TensorType) -> Self {
        Type::Tensor(ty)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(ty) => write!(f, "{ty}"),
            Type::Stack { count, of } => write!(f, "{count} x {of}"),
            Type::Tuple(items) => {
                f.write_str("(")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
        }
    }
}
