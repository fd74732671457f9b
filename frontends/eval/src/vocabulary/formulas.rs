//! Functions that are formulas of several operators: activations, bounds, truth values and norms of rows.
//!
//! What PyTorch has a kernel for is computed in f32 and rounded once, as it is there.

use diag::{Diagnostic, Span};
use ir::Op;
use ir::ops::{self, Comparison};
use types::{DType, Name};

use super::axes::position;
use super::tensor;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::operator::number_like;
use crate::stop::Eval;
use crate::value::{Leaf, Operand, Value};

pub const METHODS: &[&str] =
    &["relu", "gelu", "quick_gelu", "softplus", "sign", "clamp", "log_softmax", "l2_normalize", "and", "or"];

/// Builds nodes at one place.
struct Formula<'e, 'a> {
    ev: &'e mut Evaluator<'a>,
    args: &'e Args<'a>,
    span: Span,
}

impl<'a> Formula<'_, 'a> {
    fn op(&mut self, op: impl Into<Op>, operands: &[&Leaf]) -> Eval<'a, Leaf> {
        let operands: Vec<Operand<'_>> = operands.iter().map(|leaf| Operand { leaf, span: self.span }).collect();
        Ok(self.ev.trace.op(op, &operands, self.args.site)?)
    }

    /// A number in the type of `like`.
    fn number(&self, value: f64, like: &Leaf) -> Eval<'a, Leaf> {
        let value = if like.tensor().dtype.is_float() { Value::Float(value) } else { Value::Int(value as i64) };
        number_like(&value, like.tensor().dtype, self.span)
    }

    fn scale(&mut self, x: &Leaf, factor: f64) -> Eval<'a, Leaf> {
        let factor = self.number(factor, x)?;
        self.op(ops::Mul {}, &[x, &factor])
    }

    fn offset(&mut self, x: &Leaf, offset: f64) -> Eval<'a, Leaf> {
        let offset = self.number(offset, x)?;
        self.op(ops::Add {}, &[x, &offset])
    }

    /// `yes` where `x` stands so to the number, else `no`.
    fn choose(&mut self, x: &Leaf, kind: Comparison, than: f64, yes: &Leaf, no: &Leaf) -> Eval<'a, Leaf> {
        let than = self.number(than, x)?;
        let holds = self.op(ops::Compare { kind }, &[x, &than])?;
        self.op(ops::Select {}, &[&holds, yes, no])
    }

    fn cast(&mut self, x: &Leaf, to: DType) -> Eval<'a, Leaf> {
        self.ev.cast_leaf(x, to, self.span, self.args.site)
    }

    /// What `f` makes of `x` in f32, in the type of `x`. Tables in f64 stay so.
    fn wide(&mut self, x: &Leaf, f: impl FnOnce(&mut Self, &Leaf) -> Eval<'a, Leaf>) -> Eval<'a, Leaf> {
        let own = x.tensor().dtype;
        let x = self.cast(x, if own == DType::F64 { DType::F64 } else { DType::F32 })?;
        let y = f(self, &x)?;
        self.cast(&y, own)
    }

    /// By the normal distribution's own integral.
    fn gelu(&mut self, x: &Leaf) -> Eval<'a, Leaf> {
        self.wide(x, |f, x| {
            let inner = f.scale(x, std::f64::consts::FRAC_1_SQRT_2)?;
            let erf = f.op(ops::Erf {}, &[&inner])?;
            let share = f.offset(&erf, 1.0)?;
            let half = f.scale(x, 0.5)?;
            f.op(ops::Mul {}, &[&half, &share])
        })
    }

    /// log(1 + e^x), which is x itself where that is large.
    fn softplus(&mut self, x: &Leaf) -> Eval<'a, Leaf> {
        const LINEAR: f64 = 20.0;
        self.wide(x, |f, x| {
            let most = f.number(LINEAR, x)?;
            let bounded = f.op(ops::Min {}, &[x, &most])?;
            let e = f.op(ops::Exp {}, &[&bounded])?;
            let log = f.op(ops::Log1p {}, &[&e])?;
            f.choose(x, Comparison::Greater, LINEAR, x, &log)
        })
    }

    fn log_softmax(&mut self, x: &Leaf, dim: &Name) -> Eval<'a, Leaf> {
        let dims = vec![dim.clone()];
        self.wide(x, |f, x| {
            let max = f.op(ops::ReduceMax { dims: dims.clone() }, &[x])?;
            let below = f.op(ops::Sub {}, &[x, &max])?;
            let e = f.op(ops::Exp {}, &[&below])?;
            let sum = f.op(ops::ReduceSum { dims }, &[&e])?;
            let log = f.op(ops::Log {}, &[&sum])?;
            f.op(ops::Sub {}, &[&below, &log])
        })
    }

    /// x / sqrt(sum x^2 + eps).
    fn l2_normalize(&mut self, x: &Leaf, dim: &Name, eps: f64) -> Eval<'a, Leaf> {
        let dims = vec![dim.clone()];
        self.wide(x, |f, x| {
            let square = f.op(ops::Mul {}, &[x, x])?;
            let sum = f.op(ops::ReduceSum { dims }, &[&square])?;
            let sum = f.offset(&sum, eps)?;
            let factor = f.op(ops::Rsqrt {}, &[&sum])?;
            f.op(ops::Mul {}, &[x, &factor])
        })
    }

    /// Within both bounds, at which the slope is 0 already, as in PyTorch; NaN stays.
    fn clamp(&mut self, x: &Leaf, low: f64, high: f64) -> Eval<'a, Leaf> {
        let (least, most) = (self.number(low, x)?, self.number(high, x)?);
        let y = self.choose(x, Comparison::GreaterEqual, high, &most, x)?;
        self.choose(x, Comparison::LessEqual, low, &least, &y)
    }

    /// 1, 0 or -1; 0 for NaN.
    fn sign(&mut self, x: &Leaf) -> Eval<'a, Leaf> {
        let zero = self.number(0.0, x)?;
        let above = self.op(ops::Compare { kind: Comparison::Greater }, &[x, &zero])?;
        let below = self.op(ops::Compare { kind: Comparison::Less }, &[x, &zero])?;
        let dtype = x.tensor().dtype;
        let (above, below) = (self.cast(&above, dtype)?, self.cast(&below, dtype)?);
        self.op(ops::Sub {}, &[&above, &below])
    }

    fn logic(&mut self, x: &Leaf) -> Eval<'a, Leaf> {
        let name = self.args.name.as_str();
        let truth = |value: bool| number_like(&Value::Int(i64::from(value)), DType::Bool, self.span);
        let (yes, no) = (truth(true)?, truth(false)?);
        self.args.expect(1, &format!("x.{name}(y)"))?;
        let y = tensor(self.ev, self.args, 0)?;
        is_bool(x, self.span, name)?;
        is_bool(&y, self.args.span(0), name)?;
        if name == "and" { self.op(ops::Select {}, &[x, &y, &no]) } else { self.op(ops::Select {}, &[x, &yes, &y]) }
    }
}

fn is_bool<'a>(x: &Leaf, span: Span, name: &str) -> Eval<'a, ()> {
    if x.tensor().dtype == DType::Bool {
        return Ok(());
    }
    Err(Diagnostic::error(format!("`{name}` of a tensor of {}", x.tensor().dtype))
        .at(span, format!("this is `{}`", x.ty))
        .help("it joins truth values: compare with `.lt(..)`, `.eq(..)` or their kin first")
        .into())
}

pub fn method<'a>(ev: &mut Evaluator<'a>, x: Operand<'_>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let (leaf, name) = (x.leaf, args.name.as_str());
    let mut f = Formula { ev, args, span: x.span };
    if matches!(name, "and" | "or") {
        return Ok(Value::Tensor(f.logic(leaf)?));
    }
    let ty = leaf.tensor();
    let whole = matches!(name, "relu" | "sign" | "clamp");
    if !ty.dtype.is_float() && (!whole || ty.dtype == DType::Bool) {
        return Err(Diagnostic::error(format!("`{name}` of a tensor of {}", ty.dtype))
            .at(args.site.span, "")
            .at(x.span, format!("this is `{ty}`"))
            .help("cast it to a float first: `.cast(f32)`")
            .into());
    }
    let plain = || args.expect(0, &format!("x.{name}()"));
    let value = match name {
        "relu" => {
            plain()?;
            let zero = f.number(0.0, leaf)?;
            f.choose(leaf, Comparison::LessEqual, 0.0, &zero, leaf)?
        }
        "gelu" => {
            plain()?;
            f.gelu(leaf)?
        }
        "quick_gelu" => {
            plain()?;
            // Rounded at each step, as its published form is.
            let steep = f.wide(leaf, |f, x| f.scale(x, 1.702))?;
            let gate = f.op(ops::Sigmoid {}, &[&steep])?;
            f.op(ops::Mul {}, &[leaf, &gate])?
        }
        "softplus" => {
            plain()?;
            f.softplus(leaf)?
        }
        "sign" => {
            plain()?;
            f.sign(leaf)?
        }
        "clamp" => {
            args.expect(2, "x.clamp(low, high)")?;
            let (low, high) = (args.number(0)?, args.number(1)?);
            if low > high {
                return Err(Diagnostic::error(format!("`clamp` between {low} and {high}"))
                    .at(args.span(0), "the lower bound is above the other")
                    .help("write `x.clamp(low, high)`")
                    .into());
            }
            f.clamp(leaf, low, high)?
        }
        "log_softmax" => {
            args.expect(1, "x.log_softmax(DIM)")?;
            let dim = ty.dims[position(ty, args, 0, x)?].name.clone();
            f.log_softmax(leaf, &dim)?
        }
        _ => {
            args.expect(2, "x.l2_normalize(DIM, eps)")?;
            let dim = ty.dims[position(ty, args, 0, x)?].name.clone();
            f.l2_normalize(leaf, &dim, args.number(1)?)?
        }
    };
    Ok(Value::Tensor(value))
}

/// `geglu(gate, up)`: gelu(gate) * up.
pub fn geglu<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "geglu(gate, up)")?;
    let (gate, up) = (tensor(ev, args, 0)?, tensor(ev, args, 1)?);
    if !gate.tensor().dtype.is_float() {
        return Err(Diagnostic::error(format!("`geglu` of a tensor of {}", gate.tensor().dtype))
            .at(args.span(0), format!("this is `{}`", gate.ty))
            .help("cast it to a float first: `.cast(f32)`")
            .into());
    }
    let mut f = Formula { ev, args, span: args.span(0) };
    let gate = f.gelu(&gate)?;
    Ok(Value::Tensor(f.op(ops::Mul {}, &[&gate, &up])?))
}
