//! Prints modules and functions.

use std::fmt::{self, Display, Formatter};

use types::Runs;

use super::attributes;
use crate::sharding::partial_text;
use crate::{Call, Function, FunctionKind, Holds, Inst, Level, Module, NodeId, Sharding, Type};

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "module {}", json(&self.name))?;
        let axes: Vec<String> = self.mesh.axes.iter().map(|a| format!("{}:{}", a.name, a.size)).collect();
        if !axes.is_empty() {
            writeln!(f, "mesh [{}]", axes.join(", "))?;
        }
        match self.level {
            Level::Global => {}
            Level::Sharded => writeln!(f, "level sharded")?,
            Level::Local => writeln!(f, "level local")?,
        }
        for (hint, _) in &self.hints {
            writeln!(f, "hint {}", json(hint))?;
        }
        for ragged in &self.ragged {
            writeln!(f, "ragged {}", json(ragged))?;
        }
        if !self.parameters.is_empty() {
            writeln!(f)?;
        }
        for (name, p) in &self.parameters {
            writeln!(f, "param {} : {} {}", json(name), p.ty, json(&p.record))?;
        }
        for (name, s) in &self.states {
            let what = |holds: &Holds| if *holds == Holds::Copy { "copy" } else { "moment" };
            let of = s.of.as_ref().map(|(holds, of)| format!(" {} of {}", what(holds), json(of))).unwrap_or_default();
            writeln!(f, "state {} : {} {}{of}", json(name), s.ty, json(&s.init))?;
        }
        for (_, function) in self.functions.iter() {
            writeln!(f)?;
            write_function(f, function, Some(self))?;
        }
        for program in &self.programs {
            let runs = match program.runs {
                Runs::Asked => String::new(),
                Runs::Times(times) => format!("times {times} "),
                Runs::OnDemand => "on demand ".into(),
                Runs::Prepare => "prepare ".into(),
            };
            writeln!(f, "\nprogram {} {runs}= @{} {{", json(&program.name), self.functions[program.function].name)?;
            for input in &program.inputs {
                writeln!(f, "  in {}", json(input))?;
            }
            for output in &program.outputs {
                writeln!(f, "  out {}", json(output))?;
            }
            for logical in &program.logical {
                writeln!(f, "  of {}", json(logical))?;
            }
            writeln!(f, "}}")?;
        }
        Ok(())
    }
}

/// A function on its own; callees show as their index.
impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_function(f, self, None)
    }
}

fn write_function(f: &mut Formatter<'_>, function: &Function, module: Option<&Module>) -> fmt::Result {
    let kind = if function.kind == FunctionKind::Kernel { "kernel" } else { "fn" };
    let recompute = if function.recompute { "recompute " } else { "" };
    write!(f, "{recompute}{kind} @{}(", function.name)?;
    for (i, &p) in function.params.iter().enumerate() {
        write!(f, "{}{p}: ", if i > 0 { ", " } else { "" })?;
        write_type(f, function, p)?;
    }
    writeln!(f, ") {{")?;
    for (id, node) in function.nodes.iter() {
        if matches!(node.inst, Inst::Param(_)) {
            continue;
        }
        write!(f, "  {id} = ")?;
        match &node.inst {
            Inst::Param(_) => {}
            Inst::Get(i) => write!(f, "get {i}")?,
            Inst::Chunk { count } => write!(f, "chunk {count}")?,
            Inst::Unchunk => f.write_str("unchunk")?,
            Inst::Repeat { count } => write!(f, "repeat {count}")?,
            Inst::Call(call) => write_call(f, call, module)?,
            Inst::Op(op) => f.write_str(op.name())?,
        }
        write_ids(f, "(", &node.args, ")")?;
        if let Inst::Op(op) = &node.inst {
            f.write_str(&attributes::print(op, &node.ty))?;
        }
        // A single value's partial axes stand at its operator, those of a tuple at its items.
        if !matches!(node.ty, Type::Tuple(_)) {
            f.write_str(&partial_text(&node.sharding(0)))?;
        }
        f.write_str(" : ")?;
        write_type(f, function, id)?;
        writeln!(f)?;
    }
    write_ids(f, "  return ", &function.results, "\n}\n")
}

fn write_type(f: &mut Formatter<'_>, function: &Function, id: NodeId) -> fmt::Result {
    let node = &function.nodes[id];
    let Type::Tuple(items) = &node.ty else { return write_element(f, &node.ty, &node.sharding(0)) };
    f.write_str("(")?;
    for (i, item) in items.iter().enumerate() {
        f.write_str(if i > 0 { ", " } else { "" })?;
        write_element(f, item, &node.sharding(i))?;
        f.write_str(&partial_text(&node.sharding(i)))?;
    }
    f.write_str(")")
}

fn write_element(f: &mut Formatter<'_>, ty: &Type, sharding: &Sharding) -> fmt::Result {
    let Some(element) = ty.element().filter(|_| !sharding.dims.is_empty()) else { return write!(f, "{ty}") };
    if let Type::Stack { count, .. } = ty {
        write!(f, "{count} x ")?;
    }
    write!(f, "{}[", element.dtype)?;
    for (i, (dim, cut)) in element.dims.iter().zip(&sharding.dims).enumerate() {
        write!(f, "{}{dim}{cut}", if i > 0 { ", " } else { "" })?;
    }
    f.write_str("]")
}

fn write_call(f: &mut Formatter<'_>, call: &Call, module: Option<&Module>) -> fmt::Result {
    f.write_str("call @")?;
    match module {
        Some(m) => f.write_str(&m.functions[call.callee].name)?,
        None => write!(f, "{}", call.callee.index())?,
    }
    if let Some(times) = call.times {
        write!(f, " x{times} carry {} share {}", call.carried, call.shared)?;
        if call.reverse {
            f.write_str(" reverse")?;
        }
    }
    Ok(())
}

fn write_ids(f: &mut Formatter<'_>, open: &str, ids: &[NodeId], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (i, id) in ids.iter().enumerate() {
        write!(f, "{}{id}", if i > 0 { ", " } else { "" })?;
    }
    f.write_str(close)
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("records are plain data")
}
