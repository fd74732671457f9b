//! What expressions of a .mm file evaluate to.

use std::rc::Rc;

use diag::Span;
use ir::{Array, NodeId, Type};
use types::{DType, Dim, Distribution, FileForm, Init, Name, TensorType};

use crate::file::StructDeclaration;
use crate::instance::InstanceId;

#[derive(Clone)]
pub enum Value<'a> {
    Unit,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    DType(DType),
    /// A named axis and its size.
    Dim(Dim),
    Range(Rc<Range>),
    Tuple(Rc<[Value<'a>]>),
    Array(Rc<[Value<'a>]>),
    Option(Option<Rc<Value<'a>>>),
    Struct(Rc<Struct<'a>>),
    Tensor(Leaf),
    Param(Param),
    Stack(Rc<Stack<'a>>),
    Closure(Rc<Closure<'a>>),
    Function(Function<'a>),
    Init(Init),
    /// What `uniform` and `normal_like` make: a distribution and the dims of the draw.
    Draw(Rc<(Distribution, Vec<Dim>)>),
    Plan,
    /// What a task of several programs is written with.
    Run,
    Schedule(&'static str),
}

#[derive(Clone, PartialEq)]
pub struct Range {
    pub start: Option<Bound>,
    pub end: Option<Bound>,
    pub closed: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Bound {
    Int(i64),
    Float(f64),
}

pub struct Struct<'a> {
    pub kind: StructKind<'a>,
    /// In the order of the declaration.
    pub fields: Vec<(Name, Value<'a>)>,
    /// Replaces the name of the field that holds it in parameter names.
    pub renamed: Option<Name>,
    /// Of a module in a model: where it stands, `blocks.{}.attn1`.
    pub path: Name,
}

#[derive(Clone, Copy)]
pub enum StructKind<'a> {
    User {
        instance: InstanceId,
        declaration: &'a StructDeclaration,
    },
    /// A module of the vocabulary: `Linear` ...
    Vocabulary(&'static str),
}

impl StructKind<'_> {
    pub fn name(&self) -> &str {
        match self {
            StructKind::User { declaration, .. } => &declaration.name,
            StructKind::Vocabulary(name) => name,
        }
    }
}

impl<'a> Struct<'a> {
    /// The same module with other fields.
    pub fn with_fields(&self, fields: Vec<(Name, Value<'a>)>) -> Self {
        Self { kind: self.kind, fields, renamed: self.renamed.clone(), path: self.path.clone() }
    }

    pub fn field(&self, name: &str) -> Option<&Value<'a>> {
        self.fields.iter().find(|(n, _)| *n == *name).map(|(_, v)| v)
    }
}

/// A tensor, or a stack of them: its type and where it comes from.
#[derive(Clone)]
pub struct Leaf {
    pub ty: Type,
    pub source: Source,
}

impl Leaf {
    pub fn new(ty: TensorType, source: Source) -> Self {
        Self { ty: Type::Tensor(ty), source }
    }

    /// The tensor's type; the element's for a stack.
    pub fn tensor(&self) -> &TensorType {
        const SCALAR: &TensorType = &TensorType { dtype: DType::F32, dims: smallvec::SmallVec::new_const() };
        self.ty.element().unwrap_or(SCALAR)
    }
}

#[derive(Clone)]
pub enum Source {
    /// A node of an open frame.
    Node(u32, NodeId),
    /// What the frame's function gets as its n-th tensor argument; a parameter node once it is used.
    Arg(u32, usize),
    /// Known at compile time.
    Const(Rc<Array>),
    Parameter(Name),
    /// An input of the program, by number.
    Feed(usize),
    /// A parameter whose module is not part of the model yet.
    Unplaced,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Source::Node(f, a), Source::Node(g, b)) => f == g && a == b,
            (Source::Arg(f, a), Source::Arg(g, b)) => f == g && a == b,
            (Source::Const(a), Source::Const(b)) => Rc::ptr_eq(a, b),
            (Source::Parameter(a), Source::Parameter(b)) => a == b,
            (Source::Feed(a), Source::Feed(b)) => a == b,
            _ => false,
        }
    }
}

#[derive(Clone)]
pub struct Param {
    pub leaf: Leaf,
    /// Used in this type instead of the working type.
    pub keep: Option<DType>,
    pub spec: Rc<ParamSpec>,
}

/// What a parameter's declaration says beside its type.
#[derive(Clone)]
pub struct ParamSpec {
    pub init: Init,
    pub trainable: bool,
    pub tied: Vec<Name>,
    /// Names are beside the field that holds the parameter, or its module.
    pub forms: Vec<FileForm>,
    pub span: Span,
}

/// Modules or equal pieces of a tensor, one after the other.
#[derive(Clone)]
pub struct Stack<'a> {
    pub count: usize,
    /// One after the other; equal elements are one run.
    pub runs: Vec<Run<'a>>,
    /// The backward of a fold over it computes the body again.
    pub recompute: bool,
    /// The stack's field, for the name of a fold's function.
    pub name: Option<Name>,
}

/// Elements that are repeated in this order: one, or a period of several kinds.
#[derive(Clone)]
pub struct Run<'a> {
    pub times: usize,
    pub slots: Vec<Slot<'a>>,
}

/// An element of a period, and with it those that stand there when it is repeated: a family.
#[derive(Clone)]
pub struct Slot<'a> {
    /// One of them; its leaves have the type of the whole family.
    pub item: Value<'a>,
    /// Their numbers in the names of parameters.
    pub positions: Rc<[usize]>,
}

impl<'a> Stack<'a> {
    /// Equal elements; the leaves of `item` have the type of the whole stack.
    pub fn equal(count: usize, item: Value<'a>, recompute: bool, name: Option<Name>) -> Self {
        let slot = Slot { item, positions: (0..count).collect() };
        Stack { count, runs: vec![Run { times: count, slots: vec![slot] }], recompute, name }
    }

    /// The one element of a stack of equal ones.
    pub fn only(&self) -> Option<&Value<'a>> {
        match self.runs.as_slice() {
            [Run { slots, .. }] => match slots.as_slice() {
                [slot] => Some(&slot.item),
                _ => None,
            },
            _ => None,
        }
    }

    /// The same stack of other elements.
    pub fn map<E>(&self, mut f: impl FnMut(&Slot<'a>) -> Result<Value<'a>, E>) -> Result<Self, E> {
        let mut mapped = self.clone();
        for slot in mapped.runs.iter_mut().flat_map(|run| &mut run.slots) {
            slot.item = f(slot)?;
        }
        Ok(mapped)
    }
}

pub struct Closure<'a> {
    pub syntax: &'a syn::ExprClosure,
    pub instance: InstanceId,
    pub captured: Vec<(String, Value<'a>)>,
    pub self_type: Option<&'a StructDeclaration>,
}

#[derive(Clone, Copy)]
pub enum Function<'a> {
    Free { instance: InstanceId, syntax: &'a syn::ItemFn },
    Associated { instance: InstanceId, owner: &'a StructDeclaration, syntax: &'a syn::ImplItemFn },
    Vocabulary(&'static str),
}

impl<'a> Value<'a> {
    pub fn tuple(items: impl IntoIterator<Item = Value<'a>>) -> Self {
        Value::Tuple(items.into_iter().collect())
    }

    pub fn array(items: impl IntoIterator<Item = Value<'a>>) -> Self {
        Value::Array(items.into_iter().collect())
    }

    pub fn some(value: Value<'a>) -> Self {
        Value::Option(Some(Rc::new(value)))
    }

    pub fn vocabulary(kind: &'static str, fields: Vec<(&'static str, Value<'a>)>) -> Self {
        let fields = fields.into_iter().map(|(n, v)| (Name::new(n), v)).collect();
        Value::Struct(Rc::new(Struct {
            kind: StructKind::Vocabulary(kind),
            fields,
            renamed: None,
            path: Name::default(),
        }))
    }

    /// The value as messages call it.
    pub fn describe(&self) -> String {
        match self {
            Value::Unit => "nothing".into(),
            Value::Bool(v) => format!("`{v}`"),
            Value::Int(v) => format!("the number {v}"),
            Value::Float(v) => format!("the number {v:?}"),
            Value::Str(v) => format!("the text {v:?}"),
            Value::DType(v) => format!("the element type {v}"),
            Value::Dim(d) => format!("the dim {d}"),
            Value::Range(_) => "a range".into(),
            Value::Tuple(items) => format!("a tuple of {}", items.len()),
            Value::Array(items) => format!("an array of {}", items.len()),
            Value::Option(None) => "`None`".into(),
            Value::Option(Some(v)) => format!("`Some` of {}", v.describe()),
            Value::Struct(s) => format!("a `{}`", s.kind.name()),
            Value::Tensor(leaf) => format!("`{}`", leaf.ty),
            Value::Param(p) => format!("a parameter `{}`", p.leaf.ty),
            Value::Stack(s) => format!("a stack of {}", s.count),
            Value::Closure(_) => "a closure".into(),
            Value::Function(_) => "a function".into(),
            Value::Init(_) => "an initialiser".into(),
            Value::Draw(_) => "a distribution".into(),
            Value::Plan => "the plan".into(),
            Value::Run => "the run".into(),
            Value::Schedule(name) => format!("the schedule {name}"),
        }
    }
}

/// An operand and the expression it came from.
#[derive(Clone, Copy)]
pub struct Operand<'l> {
    pub leaf: &'l Leaf,
    pub span: Span,
}

/// A whole number: an integer, or the size of a dim.
pub fn whole(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(v) => Some(*v),
        Value::Dim(d) => Some(d.size as i64),
        _ => None,
    }
}

/// Any number.
pub fn real(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Float(v) => Some(*v),
        other => whole(other).map(|v| v as f64),
    }
}

/// Equality of compile-time values, as `==` and literal patterns see it.
pub fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::DType(a), Value::DType(b)) => a == b,
        (Value::Unit, Value::Unit) | (Value::Option(None), Value::Option(None)) => true,
        (Value::Option(Some(a)), Value::Option(Some(b))) => same(a, b),
        (Value::Tuple(a), Value::Tuple(b)) | (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same(a, b))
        }
        _ => match (real(a), real(b)) {
            (Some(a), Some(b)) => a == b,
            _ => false,
        },
    }
}
