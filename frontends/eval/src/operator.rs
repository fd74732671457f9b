//! Operators: arithmetic and comparison of numbers, dims and tensors.

use std::rc::Rc;

use diag::{Diagnostic, Span};
use ir::{Op, ops};
use syn::{BinOp, UnOp};
use types::DType;

use crate::ends;
use crate::evaluator::{Evaluator, Scope};
use crate::stop::{Eval, Stop};
use crate::tables;
use crate::trace::Site;
use crate::value::{Leaf, Operand, Source, Value, real, same, whole};

#[derive(Clone, Copy, PartialEq)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

impl<'a> Evaluator<'a> {
    pub fn unary(&mut self, scope: &mut Scope<'a>, unary: &'a syn::ExprUnary) -> Eval<'a, Value<'a>> {
        let value = self.expr(scope, &unary.expr)?;
        let span = ends::of_unary(self.source(scope.instance), unary);
        match (unary.op, value) {
            (UnOp::Neg(_), Value::Int(v)) => v.checked_neg().map(Value::Int).ok_or_else(|| overflow(span)),
            (UnOp::Neg(_), Value::Float(v)) => Ok(Value::Float(-v)),
            (UnOp::Neg(_), value @ (Value::Tensor(_) | Value::Param(_))) => {
                let site = self.site(scope, span);
                let leaf = self.leaf(value, span, site)?;
                Ok(Value::Tensor(self.trace.op(ops::Neg {}, &[Operand { leaf: &leaf, span }], site)?))
            }
            (UnOp::Not(_), Value::Bool(v)) => Ok(Value::Bool(!v)),
            (UnOp::Not(_), Value::Tensor(leaf)) => {
                let site = self.site(scope, span);
                Ok(Value::Tensor(self.not(&leaf, span, site)?))
            }
            (_, other) => Err(Diagnostic::error(format!("this operator does not apply to {}", other.describe()))
                .at(span, "")
                .into()),
        }
    }

    fn not(&mut self, leaf: &Leaf, span: Span, site: Site) -> Eval<'a, Leaf> {
        if leaf.tensor().dtype != DType::Bool {
            return Err(Diagnostic::error(format!("`!` of a tensor of {}", leaf.tensor().dtype))
                .at(span, format!("this is `{}`", leaf.ty))
                .help("it turns truth values about: compare with `.lt(..)`, `.eq(..)` or their kin first")
                .into());
        }
        let [no, yes] = [0, 1].map(|value| number_like(&Value::Int(value), DType::Bool, span));
        let (no, yes) = (no?, yes?);
        let operands = [leaf, &no, &yes].map(|leaf| Operand { leaf, span });
        Ok(self.trace.op(ops::Select {}, &operands, site)?)
    }

    pub fn binary(&mut self, scope: &mut Scope<'a>, binary: &'a syn::ExprBinary) -> Eval<'a, Value<'a>> {
        let source = self.source(scope.instance);
        let span = ends::of_binary(source, binary);
        if let BinOp::And(_) | BinOp::Or(_) = binary.op {
            let left = self.condition(scope, &binary.left)?;
            let decided = left == matches!(binary.op, BinOp::Or(_));
            return Ok(Value::Bool(if decided { left } else { self.condition(scope, &binary.right)? }));
        }
        let left = self.expr(scope, &binary.left)?;
        let right = self.expr(scope, &binary.right)?;
        let (at_left, at_right) = (ends::of_expr(source, &binary.left), ends::of_expr(source, &binary.right));
        let arithmetic = match binary.op {
            BinOp::Add(_) | BinOp::AddAssign(_) => Arithmetic::Add,
            BinOp::Sub(_) | BinOp::SubAssign(_) => Arithmetic::Sub,
            BinOp::Mul(_) | BinOp::MulAssign(_) => Arithmetic::Mul,
            BinOp::Div(_) | BinOp::DivAssign(_) => Arithmetic::Div,
            BinOp::Rem(_) | BinOp::RemAssign(_) => Arithmetic::Rem,
            op => return compare(op, &left, &right, span),
        };
        let site = self.site(scope, span);
        let value = self.arithmetic(arithmetic, (left, at_left), (right, at_right), site)?;
        let assigns = matches!(
            binary.op,
            BinOp::AddAssign(_) | BinOp::SubAssign(_) | BinOp::MulAssign(_) | BinOp::DivAssign(_) | BinOp::RemAssign(_)
        );
        if !assigns {
            return Ok(value);
        }
        self.assign(scope, &binary.left, value)?;
        Ok(Value::Unit)
    }

    pub fn arithmetic(
        &mut self,
        op: Arithmetic,
        (left, at_left): (Value<'a>, Span),
        (right, at_right): (Value<'a>, Span),
        site: Site,
    ) -> Eval<'a, Value<'a>> {
        if let (Some(a), Some(b)) = (whole(&left), whole(&right)) {
            return integers(op, a, b, site.span).map(Value::Int);
        }
        if let (Some(a), Some(b)) = (real(&left), real(&right)) {
            let value = match op {
                Arithmetic::Add => a + b,
                Arithmetic::Sub => a - b,
                Arithmetic::Mul => a * b,
                Arithmetic::Div => a / b,
                Arithmetic::Rem => a % b,
            };
            if !value.is_finite() {
                return Err(Diagnostic::error(format!("this is {value}")).at(site.span, "").into());
            }
            return Ok(Value::Float(value));
        }
        let op: Op = match op {
            Arithmetic::Add => ops::Add {}.into(),
            Arithmetic::Sub => ops::Sub {}.into(),
            Arithmetic::Mul => ops::Mul {}.into(),
            Arithmetic::Div => ops::Div {}.into(),
            Arithmetic::Rem => {
                return Err(Diagnostic::error("`%` applies to compile-time numbers")
                    .at(site.span, "a tensor stands here")
                    .help("write `a.remainder(b)`, which has the sign of `b`")
                    .into());
            }
        };
        let (left, right) = self.promote((left, at_left), (right, at_right), site)?;
        let operands = [Operand { leaf: &left, span: at_left }, Operand { leaf: &right, span: at_right }];
        Ok(Value::Tensor(self.trace.op(op, &operands, site)?))
    }

    /// Two operands of one element type: a number takes the tensor's, and the working type meets f32 in f32.
    pub fn promote(
        &mut self,
        (left, at_left): (Value<'a>, Span),
        (right, at_right): (Value<'a>, Span),
        site: Site,
    ) -> Eval<'a, (Leaf, Leaf)> {
        let (left, right) = match (real(&left), real(&right)) {
            (Some(_), _) => {
                let right = self.leaf(right, at_right, site)?;
                (number_like(&left, right.tensor().dtype, at_left)?, right)
            }
            (_, Some(_)) => {
                let left = self.leaf(left, at_left, site)?;
                let right = number_like(&right, left.tensor().dtype, at_right)?;
                (left, right)
            }
            _ => (self.leaf(left, at_left, site)?, self.leaf(right, at_right, site)?),
        };
        Ok(match (left.tensor().dtype, right.tensor().dtype) {
            (DType::Work, DType::F32) => (self.cast_leaf(&left, DType::F32, at_left, site)?, right),
            (DType::F32, DType::Work) => {
                let right = self.cast_leaf(&right, DType::F32, at_right, site)?;
                (left, right)
            }
            _ => (left, right),
        })
    }

    pub fn cast_leaf(&mut self, leaf: &Leaf, to: DType, span: Span, site: Site) -> Eval<'a, Leaf> {
        if leaf.tensor().dtype == to {
            return Ok(leaf.clone());
        }
        Ok(self.trace.op(ops::Cast { to }, &[Operand { leaf, span }], site)?)
    }

    /// A tensor to compute with: a parameter comes in the working type, unless it is kept in another.
    pub fn leaf(&mut self, value: Value<'a>, span: Span, site: Site) -> Eval<'a, Leaf> {
        match value {
            Value::Tensor(leaf) => Ok(leaf),
            Value::Param(param) => self.cast_leaf(&param.leaf, param.keep.unwrap_or(DType::Work), span, site),
            other => {
                Err(Diagnostic::error(format!("expected a tensor, found {}", other.describe())).at(span, "").into())
            }
        }
    }
}

pub fn number_like<'a>(value: &Value<'_>, dtype: DType, span: Span) -> Eval<'a, Leaf> {
    let number = match value {
        Value::Float(v) if !dtype.is_float() => {
            return Err(Diagnostic::error(format!("the number {v:?} beside a tensor of {dtype}"))
                .at(span, "")
                .help("cast the tensor to a float first")
                .into());
        }
        other => real(other).ok_or_else(|| Diagnostic::error("expected a number").at(span, ""))?,
    };
    let array = tables::scalar(number, dtype);
    Ok(Leaf::new(array.ty.clone(), Source::Const(Rc::new(array))))
}

fn integers<'a>(op: Arithmetic, a: i64, b: i64, span: Span) -> Eval<'a, i64> {
    let value = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Sub => a.checked_sub(b),
        Arithmetic::Mul => a.checked_mul(b),
        Arithmetic::Div | Arithmetic::Rem if b == 0 => {
            return Err(Diagnostic::error("division by zero").at(span, "").into());
        }
        Arithmetic::Div => a.checked_div(b),
        Arithmetic::Rem => a.checked_rem(b),
    };
    value.ok_or_else(|| overflow(span))
}

fn overflow<'a>(span: Span) -> Stop<'a> {
    Diagnostic::error("this number is too large").at(span, "").into()
}

fn compare<'a>(op: BinOp, left: &Value<'a>, right: &Value<'a>, span: Span) -> Eval<'a, Value<'a>> {
    let tensor = |v: &Value<'_>| matches!(v, Value::Tensor(_) | Value::Param(_));
    if tensor(left) || tensor(right) {
        return Err(Diagnostic::error("`==`, `<` and their kin compare compile-time values")
            .at(span, "a tensor is compared here")
            .help("compare tensors with `.eq(..)`, `.ne(..)`, `.lt(..)`, `.le(..)`, `.gt(..)` and `.ge(..)`")
            .into());
    }
    let numbers = real(left).zip(real(right));
    Ok(Value::Bool(match (op, numbers) {
        (BinOp::Eq(_), _) => same(left, right),
        (BinOp::Ne(_), _) => !same(left, right),
        (BinOp::Lt(_), Some((a, b))) => a < b,
        (BinOp::Le(_), Some((a, b))) => a <= b,
        (BinOp::Gt(_), Some((a, b))) => a > b,
        (BinOp::Ge(_), Some((a, b))) => a >= b,
        _ => {
            let what = format!("this operator does not apply to {} and {}", left.describe(), right.describe());
            return Err(Diagnostic::error(what).at(span, "").into());
        }
    }))
}
