//! The emitter: writes one MLIR module as text, with typed values and structured control flow.
//!
//! A kernel is written as straight Rust: each method appends an operation and returns its value. Scalar `i64` constants
//! are folded on the way, so that code may be written for the general case of a static shape. All other constants live
//! at the head of their function.

mod arith;
mod control;
mod memory;
mod pairs;
mod ty;
mod vector;

use std::collections::BTreeMap;
use std::fmt::{self, Write};

pub use arith::{Cmp, Round};
pub use ty::{Elem, Ty};

use crate::cpu::Cpu;

/// An SSA value.
#[derive(Clone, Copy, Debug)]
pub struct Val {
    id: u32,
    result: Option<u16>,
    /// The value, where it is an `i64` known while emitting.
    known: Option<i64>,
    pub ty: Ty,
}

impl Val {
    pub fn known(self) -> Option<i64> {
        self.known
    }

    /// What tells values of one function apart.
    pub fn key(self) -> u64 {
        u64::from(self.id) << 16 | u64::from(self.result.map_or(0, |result| result + 1))
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.result {
            None => write!(f, "%{}", self.id),
            Some(result) => write!(f, "%{}#{result}", self.id),
        }
    }
}

/// One function under construction.
#[derive(Default)]
struct Body {
    entry: String,
    text: String,
    next: u32,
    depth: usize,
    constants: BTreeMap<String, Val>,
}

/// Writes one module.
pub struct Emitter {
    cpu: Cpu,
    functions: BTreeMap<String, String>,
    public: Vec<String>,
    body: Body,
}

/// A finished module: its text and the functions that stay visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    pub text: String,
    pub public: Vec<String>,
}

impl Emitter {
    pub fn new(cpu: &Cpu) -> Emitter {
        Emitter { cpu: cpu.clone(), functions: BTreeMap::new(), public: Vec::new(), body: Body::default() }
    }

    /// The machine this code is for.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Lanes of a full `f32` vector.
    pub fn lanes(&self) -> u32 {
        self.cpu.lanes
    }

    /// The full `f32` vector type.
    pub fn vf32(&self) -> Ty {
        Ty::vector(Elem::F32, self.cpu.lanes)
    }

    /// The module's text, once every function is written.
    pub fn finish(self, name: &str) -> Module {
        let mut text = String::from("module {\n");
        for function in self.functions.values() {
            text.push_str(function);
        }
        text.push_str("}\n");
        Module { name: name.to_owned(), text, public: self.public }
    }

    /// Writes a kernel: a visible function of the kernel ABI. `body` gets the kernel's arguments.
    pub fn kernel(&mut self, name: &str, body: impl FnOnce(&mut Emitter, &Kernel)) {
        self.public.push(name.to_owned());
        let params = [Ty::PTR, Ty::PTR, Ty::I32, Ty::I32];
        self.function(name, &params, &[], |e, values| {
            let kernel = Kernel {
                args: values[0],
                scalars: values[1],
                part: e.extend_unsigned(values[2], Elem::I64),
                parts: e.extend_unsigned(values[3], Elem::I64),
            };
            body(e, &kernel);
            Vec::new()
        });
    }

    /// Writes a function unless the module has one of that name already: a name must say all that the body depends on.
    pub fn function(
        &mut self,
        name: &str,
        params: &[Ty],
        results: &[Ty],
        body: impl FnOnce(&mut Emitter, &[Val]) -> Vec<Val>,
    ) {
        if self.functions.contains_key(name) {
            return;
        }
        let outer = std::mem::take(&mut self.body);
        self.body.depth = 2;
        let values: Vec<Val> = params.iter().map(|&ty| self.fresh(ty)).collect();
        let returned = body(self, &values);
        let inner = std::mem::replace(&mut self.body, outer);

        let list = |types: &mut dyn Iterator<Item = String>| types.collect::<Vec<_>>().join(", ");
        let params = list(&mut values.iter().map(|value| format!("{value}: {}", value.ty)));
        let results = list(&mut results.iter().map(Ty::to_string));
        let operands = list(&mut returned.iter().map(Val::to_string));
        let colon = if returned.is_empty() { "" } else { " : " };
        let text = format!(
            "  func.func @{name}({params}) -> ({results}) {{\n{}{}    return {operands}{colon}{results}\n  }}\n",
            inner.entry, inner.text,
        );
        self.functions.insert(name.to_owned(), text);
    }

    fn fresh(&mut self, ty: Ty) -> Val {
        let id = self.body.next;
        self.body.next += 1;
        Val { id, result: None, known: None, ty }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        let indent = self.body.depth * 2;
        // Writing to a String cannot fail.
        let _ = writeln!(self.body.text, "{:indent$}{text}", "");
    }

    /// Appends `%n = text` and returns `%n`.
    fn op(&mut self, ty: Ty, text: fmt::Arguments<'_>) -> Val {
        let value = self.fresh(ty);
        self.line(format_args!("{value} = {text}"));
        value
    }

    /// A constant at the head of the function; `literal` is an MLIR attribute without its type.
    fn constant(&mut self, ty: Ty, literal: &str, known: Option<i64>) -> Val {
        // `true` and `false` carry their type.
        let text = match ty == Ty::scalar(Elem::I1) {
            true => format!("arith.constant {literal}"),
            false => format!("arith.constant {literal} : {ty}"),
        };
        if let Some(&value) = self.body.constants.get(&text) {
            return value;
        }
        let value = Val { known, ..self.fresh(ty) };
        let _ = writeln!(self.body.entry, "    {value} = {text}");
        self.body.constants.insert(text, value);
        value
    }
}

/// The arguments of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    args: Val,
    scalars: Val,
    /// Which of `parts` shares of the work this call does.
    pub part: Val,
    pub parts: Val,
}

impl Kernel {
    /// The pointer in slot `index` of the argument list.
    pub fn pointer(&self, e: &mut Emitter, index: usize) -> Val {
        let slot = e.i64(index as i64);
        let at = e.at(self.args, Elem::Ptr, slot);
        e.load(at, Ty::PTR)
    }

    /// The scalar in slot `index`.
    pub fn scalar(&self, e: &mut Emitter, index: usize) -> Val {
        let slot = e.i64(index as i64);
        let at = e.at(self.scalars, Elem::I64, slot);
        e.load(at, Ty::I64)
    }
}
