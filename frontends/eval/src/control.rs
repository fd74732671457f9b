//! Blocks, `if`, `match` and `for` over compile-time values.

use diag::Diagnostic;
use syn::{Block, Expr, Stmt};

use crate::evaluator::{Evaluator, Scope};
use crate::stop::Eval;
use crate::value::{Bound, Value};

impl<'a> Evaluator<'a> {
    pub fn block(&mut self, scope: &mut Scope<'a>, block: &'a Block) -> Eval<'a, Value<'a>> {
        let outer = scope.vars.len();
        let result = self.statements(scope, block);
        scope.vars.truncate(outer);
        result
    }

    fn statements(&mut self, scope: &mut Scope<'a>, block: &'a Block) -> Eval<'a, Value<'a>> {
        let mut last = Value::Unit;
        for statement in &block.stmts {
            last = Value::Unit;
            match statement {
                Stmt::Local(local) => self.local(scope, local)?,
                Stmt::Expr(e, None) => last = self.expr(scope, e)?,
                Stmt::Expr(e, Some(_)) => drop(self.expr(scope, e)?),
                Stmt::Item(item) => {
                    return Err(Diagnostic::error("items inside functions are not in the subset")
                        .at(self.span(scope, item), "")
                        .help("move it to the top of the file")
                        .into());
                }
                Stmt::Macro(m) => {
                    return Err(Diagnostic::error("macros are not in the subset of .mm files")
                        .at(self.span(scope, m), "")
                        .help("write a function; `require(condition, \"message\")` checks something")
                        .into());
                }
            }
        }
        Ok(last)
    }

    fn local(&mut self, scope: &mut Scope<'a>, local: &'a syn::Local) -> Eval<'a, ()> {
        let Some(init) = &local.init else {
            return Err(Diagnostic::error("a `let` without a value")
                .at(self.span(scope, local), "")
                .help("give it a value where it is declared")
                .into());
        };
        let value = self.expr(scope, &init.expr)?;
        match &init.diverge {
            None => self.bind(scope, &local.pat, value),
            Some((_, otherwise)) => {
                let described = value.describe();
                if self.matches(scope, &local.pat, value)? {
                    return Ok(());
                }
                self.expr(scope, otherwise)?;
                Err(Diagnostic::error(format!("{described} does not match, and `else` goes on"))
                    .at(self.span(scope, otherwise), "this must `return`")
                    .into())
            }
        }
    }

    pub fn condition(&mut self, scope: &mut Scope<'a>, e: &'a Expr) -> Eval<'a, bool> {
        match self.expr(scope, e)? {
            Value::Bool(b) => Ok(b),
            Value::Tensor(_) => Err(Diagnostic::error("a condition is known at compile time, this is a tensor")
                .at(self.span(scope, e), "")
                .help("choose between tensors with `select(condition, a, b)`")
                .into()),
            other => Err(Diagnostic::error(format!("a condition is true or false, this is {}", other.describe()))
                .at(self.span(scope, e), "")
                .into()),
        }
    }

    pub fn branch(&mut self, scope: &mut Scope<'a>, branch: &'a syn::ExprIf) -> Eval<'a, Value<'a>> {
        let outer = scope.vars.len();
        let taken = self.condition(scope, &branch.cond)?;
        let result = match (taken, &branch.else_branch) {
            (true, _) => self.block(scope, &branch.then_branch),
            (false, Some((_, otherwise))) => {
                scope.vars.truncate(outer);
                self.expr(scope, otherwise)
            }
            (false, None) => Ok(Value::Unit),
        };
        scope.vars.truncate(outer);
        result
    }

    pub fn match_arms(&mut self, scope: &mut Scope<'a>, m: &'a syn::ExprMatch) -> Eval<'a, Value<'a>> {
        let value = self.expr(scope, &m.expr)?;
        let outer = scope.vars.len();
        for arm in &m.arms {
            let fits = match &arm.pat {
                syn::Pat::Guard(guarded) => {
                    self.matches(scope, &guarded.pat, value.clone())? && self.condition(scope, &guarded.guard)?
                }
                pattern => self.matches(scope, pattern, value.clone())?,
            };
            if fits {
                let result = self.expr(scope, &arm.body);
                scope.vars.truncate(outer);
                return result;
            }
            scope.vars.truncate(outer);
        }
        Err(Diagnostic::error(format!("no arm matches {}", value.describe()))
            .at(self.span(scope, &m.expr), "")
            .help("add an arm for it, or `_`")
            .into())
    }

    pub fn for_loop(&mut self, scope: &mut Scope<'a>, l: &'a syn::ExprForLoop) -> Eval<'a, Value<'a>> {
        let over = self.expr(scope, &l.expr)?;
        let span = self.span(scope, &l.expr);
        let outer = scope.vars.len();
        let mut turn = |this: &mut Self, item: Value<'a>| -> Eval<'a, ()> {
            this.step(scope, &*l.expr)?;
            this.bind(scope, &l.pat, item)?;
            this.block(scope, &l.body)?;
            scope.vars.truncate(outer);
            Ok(())
        };
        match over {
            Value::Array(items) => items.iter().try_for_each(|item| turn(self, item.clone()))?,
            Value::Range(range) => {
                let (Some(Bound::Int(start)), Some(Bound::Int(end))) = (range.start, range.end) else {
                    return Err(Diagnostic::error("a loop runs over a range of whole numbers with both ends")
                        .at(span, "")
                        .into());
                };
                let end = if range.closed { end.saturating_add(1) } else { end };
                (start..end).try_for_each(|i| turn(self, Value::Int(i)))?;
            }
            Value::Stack(_) => {
                return Err(Diagnostic::error("a stack is not looped over")
                    .at(span, "")
                    .help("write `stack.fold(x, |x, block| block.forward(x))`: it is traced once for all")
                    .into());
            }
            other => {
                return Err(Diagnostic::error(format!(
                    "a loop runs over an array or a range, not {}",
                    other.describe()
                ))
                .at(span, "")
                .into());
            }
        }
        Ok(Value::Unit)
    }
}
