//! Instances: a file with dims and constants of its own in each place where another file uses it.

use diag::{Diagnostic, Span};
use indexmap::IndexMap;
use syn::{Expr, Ident};

use crate::file::{File, Link};
use crate::macros::{BATCH, DimValue, Settings};
use crate::span::span_of;
use crate::suggest::{listed, nearest};

/// Files that use others several times multiply.
const MAX_INSTANCES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstanceId(usize);

impl InstanceId {
    /// The model's own file.
    pub const MODEL: InstanceId = InstanceId(0);

    pub fn index(self) -> usize {
        self.0
    }
}

pub struct Instance<'a> {
    pub file: &'a File,
    /// As dims, settings and messages call it: `visual`, or `visual.attention` where a file that is used uses another.
    /// Empty for the model.
    pub name: String,
    /// The instance whose file uses it.
    pub user: InstanceId,
    /// What the user gives its dims and constants.
    given: Option<&'a Settings>,
    /// The instances that its file uses, by their names there.
    pub modules: IndexMap<&'a str, InstanceId>,
}

/// All instances of a model, the model's own file first.
pub struct Instances<'a>(Vec<Instance<'a>>);

impl<'a> Instances<'a> {
    /// The first of the files is the model's.
    pub fn of(files: &'a [File]) -> Result<Self, Vec<Diagnostic>> {
        let mut all = Instances(vec![]);
        let mut errors = vec![];
        for file in files {
            check_settings(files, file, &mut errors);
        }
        if errors.is_empty()
            && let Some(model) = files.first()
            && let Err(error) = all.add(files, model, String::new(), InstanceId::MODEL, None)
        {
            errors.push(error);
        }
        if errors.is_empty() { Ok(all) } else { Err(errors) }
    }

    fn add(
        &mut self,
        files: &'a [File],
        file: &'a File,
        name: String,
        user: InstanceId,
        given: Option<&'a Settings>,
    ) -> Result<InstanceId, Diagnostic> {
        let id = InstanceId(self.0.len());
        self.0.push(Instance { file, name, user, given, modules: IndexMap::new() });
        for link in &file.links {
            let Link::Module { local, file: number, span } = link else { continue };
            if self.0.len() == MAX_INSTANCES {
                return Err(Diagnostic::error(format!(
                    "the files of this model are used more than {MAX_INSTANCES} times"
                ))
                .at(*span, ""));
            }
            let given = file.instances.iter().find(|settings| settings.name == local);
            let name = joined(&self[id].name, local);
            let of = self.add(files, &files[*number], name, id, given)?;
            self.0[id.0].modules.insert(local, of);
        }
        Ok(id)
    }

    /// The instance of a file that holds a plan only; its module without a name is the model.
    pub fn add_plan(&mut self, file: &'a File) -> InstanceId {
        let id = InstanceId(self.0.len());
        let modules = [("", InstanceId::MODEL)].into_iter().collect();
        self.0.push(Instance { file, name: String::new(), user: InstanceId::MODEL, given: None, modules });
        id
    }

    pub fn iter(&self) -> impl Iterator<Item = (InstanceId, &Instance<'a>)> {
        self.0.iter().enumerate().map(|(i, instance)| (InstanceId(i), instance))
    }

    /// A dim or constant of an instance as dims, settings and messages call it.
    pub fn full_name(&self, id: InstanceId, name: &str) -> String {
        joined(&self[id].name, name)
    }

    /// The instance and the name there that `visual.HEADS` means.
    pub fn named(&self, full: &str) -> Option<(InstanceId, String)> {
        let (module, name) = full.rsplit_once('.').unwrap_or(("", full));
        let (id, _) = self.iter().find(|(_, instance)| instance.name == module)?;
        Some((id, name.to_string()))
    }

    /// What the using file gives a dim or a constant.
    pub fn given(&self, id: InstanceId, name: &str) -> Option<&'a (Ident, Expr)> {
        self[id].given?.values.iter().find(|(ident, _)| ident == name)
    }
}

impl<'a> std::ops::Index<InstanceId> for Instances<'a> {
    type Output = Instance<'a>;
    fn index(&self, id: InstanceId) -> &Instance<'a> {
        &self.0[id.0]
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// That `instances!` gives what there is, and once.
fn check_settings(files: &[File], file: &File, errors: &mut Vec<Diagnostic>) {
    for (i, settings) in file.instances.iter().enumerate() {
        let at = span_of(file.source, &settings.name);
        let name = settings.name.to_string();
        if file.instances[..i].iter().any(|before| before.name == name) {
            errors.push(Diagnostic::error(format!("`{name}` gets its sizes twice")).at(at, "the second time"));
            continue;
        }
        let Some((brought, of)) = file.module(&name) else {
            let modules = file.links.iter().filter_map(|link| match link {
                Link::Module { local, .. } => Some(local.as_str()),
                _ => None,
            });
            let mut error = Diagnostic::error(format!("no file is brought in as `{name}`")).at(at, "");
            if let Some(near) = nearest(&name, modules) {
                error = error.help(format!("did you mean `{near}`?"));
            }
            errors.push(error.help(format!("write `use super::layers::{name};` for `layers/{name}.mm`")));
            continue;
        };
        for (k, (ident, _)) in settings.values.iter().enumerate() {
            let at = span_of(file.source, ident);
            if settings.values[..k].iter().any(|(before, _)| before == ident) {
                errors.push(Diagnostic::error(format!("`{ident}` is given twice")).at(at, "the second time"));
            } else if let Err(error) = check_given(&files[of], &ident.to_string(), at) {
                errors.push(error.at(brought, format!("`{name}` is {}", files[of].path)));
            }
        }
    }
}

/// That a used file has a dim or a constant that may be given.
fn check_given(of: &File, name: &str, at: Span) -> Result<(), Diagnostic> {
    if name == BATCH {
        return Err(Diagnostic::error(format!("`{BATCH}` is the model's in every file: it is not given")).at(at, ""));
    }
    match of.dims.get(name) {
        Some(dim) if matches!(dim.value, DimValue::Free) => {
            return Err(Diagnostic::error(format!("`{name}` is free: it has a new size at each call"))
                .at(at, "")
                .at(span_of(of.source, &dim.ident), "declared here"));
        }
        Some(_) => return Ok(()),
        None if of.constants.contains_key(name) => return Ok(()),
        None => {}
    }
    let known = || of.dims.keys().chain(of.constants.keys()).map(String::as_str);
    let mut error = Diagnostic::error(format!("{} has no dim or constant `{name}`", of.path)).at(at, "");
    if let Some(near) = nearest(name, known()) {
        error = error.help(format!("did you mean `{near}`?"));
    }
    Err(error.help(format!("there are {}", listed(known()))))
}
