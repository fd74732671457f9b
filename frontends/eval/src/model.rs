//! The model a task takes: built by its `new`, its parameters named by their paths and entered in the module.

use std::rc::Rc;

use diag::{Diagnostic, Span};
use ir::{Parameter, ParameterInfo};
use types::{FileForm, Name, Rename};

use crate::evaluator::Evaluator;
use crate::file::StructDeclaration;
use crate::instance::InstanceId;
use crate::stop::Eval;
use crate::trace::Site;
use crate::value::{Function, Param, Slot, Source, Struct, StructKind, Value};

/// A path in the model: the checkpoint's name, and the original release's.
#[derive(Clone, Default)]
struct Path {
    name: String,
    alias: String,
    aliased: bool,
    /// The path of the innermost struct of the model's own: names of forms begin there.
    owner: String,
}

impl Path {
    fn then(&self, name: &str, alias: Option<&str>) -> Path {
        Path {
            name: joined(&self.name, name),
            alias: joined(&self.alias, alias.unwrap_or(name)),
            aliased: self.aliased || alias.is_some(),
            owner: self.owner.clone(),
        }
    }
}

fn joined(path: &str, segment: &str) -> String {
    match (path, segment) {
        (path, "") => path.to_string(),
        ("", segment) => segment.to_string(),
        _ => format!("{path}.{segment}"),
    }
}

impl<'a> Evaluator<'a> {
    pub fn model(&mut self, instance: InstanceId, owner: &'a StructDeclaration, at: Span) -> Eval<'a, Value<'a>> {
        let key = (instance, owner.name.clone());
        if let Some(model) = self.models.get(&key) {
            return Ok(model.clone());
        }
        let site = Site { span: at, caller: diag::PlaceId::NONE };
        let Some(syntax) = owner.methods.get("new") else {
            return Err(Diagnostic::error(format!("`{}` has no function `new`", owner.name))
                .at(at, "a task takes this model")
                .at(owner.span, "declared here")
                .help(format!("write `impl {} {{ pub fn new() -> Self {{ .. }} }}`", owner.name))
                .into());
        };
        let made = self.invoke(Value::Function(Function::Associated { instance, owner, syntax }), vec![], site)?;
        let model = self.place(&made, &Path::default())?;
        self.models.insert(key, model.clone());
        Ok(model)
    }

    fn place(&mut self, value: &Value<'a>, path: &Path) -> Eval<'a, Value<'a>> {
        Ok(match value {
            Value::Param(p) => Value::Param(self.place_parameter(p, path)?),
            Value::Struct(s) => {
                let mut fields = vec![];
                let owner = if let StructKind::User { .. } = s.kind { &path.name } else { &path.owner };
                let path = &Path { owner: owner.clone(), ..path.clone() };
                for (name, value) in &s.fields {
                    let declared = match s.kind {
                        StructKind::User { declaration, .. } => {
                            declaration.fields.iter().find(|f| f.ident == *name.as_str())
                        }
                        StructKind::Vocabulary(_) => None,
                    };
                    let (segment, alias) = match (renamed(value), declared) {
                        (Some(renamed), _) => (renamed, None),
                        (None, Some(d)) => (d.name.as_str(), d.alias.as_deref()),
                        (None, None) => (name.as_str(), None),
                    };
                    fields.push((name.clone(), self.place(value, &path.then(segment, alias))?));
                }
                Value::Struct(Rc::new(Struct { path: path.name.as_str().into(), ..s.with_fields(fields) }))
            }
            Value::Array(items) => Value::Array(self.place_list(items, path)?),
            Value::Tuple(items) => Value::Tuple(self.place_list(items, path)?),
            Value::Option(Some(inner)) => Value::some(self.place(inner, path)?),
            Value::Stack(s) => {
                let place = |slot: &Slot<'a>| self.place(&slot.item, &path.then(&ir::family(&slot.positions), None));
                Value::Stack(Rc::new(s.map(place)?))
            }
            other => other.clone(),
        })
    }

    fn place_list(&mut self, items: &[Value<'a>], path: &Path) -> Eval<'a, Rc<[Value<'a>]>> {
        items.iter().enumerate().map(|(i, v)| self.place(v, &path.then(&i.to_string(), None))).collect()
    }

    fn place_parameter(&mut self, param: &Param, path: &Path) -> Eval<'a, Param> {
        let name = Name::from(path.name.clone());
        let placed = |form: &FileForm| FileForm { name: joined(&path.owner, &form.name).into(), ..form.clone() };
        let mut forms: Vec<FileForm> = param.spec.forms.iter().map(placed).collect();
        let mut aliases = if path.aliased { vec![Name::from(path.alias.clone())] } else { vec![] };
        let own = forms.clone();
        // Files of classes that have the model as a part.
        for class in &self.file(InstanceId::MODEL).configs {
            for other in Rename::all(&class.renames, &name).map(Name::from) {
                if other != name && !aliases.contains(&other) {
                    aliases.push(other);
                }
            }
            for form in &own {
                let others = Rename::all(&class.renames, &form.name).map(Name::from);
                let others = others.filter(|other| *other != form.name);
                forms.extend(others.map(|name| FileForm { name, saved: false, ..form.clone() }));
            }
        }
        let record = ParameterInfo {
            init: param.spec.init,
            trainable: param.spec.trainable,
            aliases,
            stored: None,
            tied: param.spec.tied.clone(),
            forms,
        };
        let entry = Parameter { ty: param.leaf.ty.clone(), record };
        if name.is_empty() || self.trace.module.parameters.insert(name.clone(), entry).is_some() {
            return Err(Diagnostic::error(format!("two parameters are called `{name}`"))
                .at(param.spec.span, "the second is made here")
                .help("give one of the fields another `#[name = \"..\"]`")
                .into());
        }
        self.made.push((name.clone(), param.spec.span));
        let mut placed = param.clone();
        placed.leaf.source = Source::Parameter(name);
        Ok(placed)
    }
}

fn renamed<'v>(value: &'v Value<'_>) -> Option<&'v str> {
    match value {
        Value::Struct(s) => s.renamed.as_deref(),
        Value::Option(Some(inner)) => renamed(inner),
        _ => None,
    }
}
