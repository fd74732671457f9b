//! The files of a model: the main one and all that it uses, each read and parsed once.

use diag::{Diagnostic, SourceId, Sources, Span};
use rustc_hash::FxHashMap;

use crate::file::{File, Link};
use crate::suggest::{listed, nearest};
use crate::uses::{Brought, From, Use, foreign};

const MAX_FILES: usize = 64;

/// Where a file comes from, and so where those that it uses are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The folder of the model; what is not there is looked for among the built-in files.
    Folder,
    /// The compiler; what it uses is built in, too.
    BuiltIn,
}

/// Another file that a model names with `use`.
pub struct Sibling {
    /// As messages call it.
    pub path: String,
    pub text: String,
    pub origin: Origin,
}

/// Reads a file by its path from the model's folder, such as `layers/norm.mm`, for a file of this origin.
pub type Load<'l> = dyn FnMut(&str, Origin) -> Option<Sibling> + Send + 'l;

struct Loader<'l> {
    sources: &'l mut Sources,
    load: &'l mut Load<'l>,
    /// Names of files that there are, for messages.
    library: &'l [String],
    files: Vec<Option<File>>,
    /// By path and origin.
    known: FxHashMap<(String, Origin), usize>,
    /// What was asked for, and the file that it is.
    asked: FxHashMap<(String, Origin), Option<usize>>,
    /// The files that are being read, each used by the one before.
    open: Vec<usize>,
    errors: Vec<Diagnostic>,
}

/// A file to be read: its text, its folder below the model's, and its origin.
struct Place {
    source: SourceId,
    folder: Vec<String>,
    origin: Origin,
}

/// The file and all that it uses, the file first.
pub fn read<'l>(
    sources: &'l mut Sources,
    main: SourceId,
    load: &'l mut Load<'l>,
    library: &'l [String],
) -> Result<Vec<File>, Vec<Diagnostic>> {
    let path = sources.path(main).to_string();
    let mut loader = Loader {
        sources,
        load,
        library,
        files: vec![],
        known: FxHashMap::default(),
        asked: FxHashMap::default(),
        open: vec![],
        errors: vec![],
    };
    loader.read(path, Place { source: main, folder: vec![], origin: Origin::Folder });
    match loader.errors {
        errors if errors.is_empty() => Ok(loader.files.into_iter().flatten().collect()),
        errors => Err(errors),
    }
}

/// A file that holds a plan only: all that it may name is the model's, which is what each `use` means.
pub fn read_plan(sources: &Sources, plan: SourceId) -> Result<File, Vec<Diagnostic>> {
    let mut file = File::parse(plan, sources.path(plan), sources.text(plan))?;
    for u in &file.uses {
        if u.from == From::Here {
            return Err(vec![foreign(u.span)]);
        }
        if let Brought::Name { name, local } = &u.brought {
            file.links.push(Link::Item { local: local.clone(), name: name.clone(), module: String::new() });
        }
    }
    Ok(file)
}

impl Loader<'_> {
    fn read(&mut self, path: String, place: Place) -> usize {
        let at = self.files.len();
        self.known.insert((path.clone(), place.origin), at);
        self.files.push(None);
        match File::parse(place.source, &path, self.sources.text(place.source)) {
            Ok(file) => {
                self.files[at] = Some(file);
                self.open.push(at);
                self.link(at, &place);
                self.open.pop();
            }
            Err(errors) => self.errors.extend(errors),
        }
        at
    }

    /// Finds what each `use` of a file brings in.
    fn link(&mut self, at: usize, place: &Place) {
        let uses = self.files[at].as_ref().map_or(vec![], |file| file.uses.clone());
        let (here, elsewhere): (Vec<Use>, Vec<Use>) = uses.into_iter().partition(|u| u.from == From::Here);
        for u in elsewhere {
            if let Err(error) = self.bring(at, place, &u) {
                self.errors.push(error);
            }
        }
        for u in here {
            let known = self.files[at].iter().any(|file| file.module(&u.path[0]).is_some());
            match u.path.as_slice() {
                [module] if known => self.add_item(at, module.clone(), &u.brought),
                _ => self.errors.push(foreign(u.span)),
            }
        }
    }

    fn bring(&mut self, at: usize, place: &Place, u: &Use) -> Result<(), Diagnostic> {
        let mut path: Vec<String> = match u.from {
            From::Above(times) if times > place.folder.len() + 1 => {
                return Err(Diagnostic::error("this path leads out of the model's folder")
                    .at(u.span, "")
                    .help("`crate` is the folder of the model, `super` that of this file"));
            }
            From::Above(times) => place.folder[..place.folder.len() + 1 - times].to_vec(),
            From::Model | From::Here => vec![],
        };
        path.extend(u.path.iter().cloned());
        let (mut above, mut tried) = (vec![], vec![]);
        let of_file = if u.path.is_empty() { None } else { self.find(&path, place.origin, u.span, &mut above)? };
        if let Some(file) = of_file
            && let Some(module) = path.last()
        {
            let offered = match &u.brought {
                Brought::All => true,
                Brought::Name { name, .. } => self.offers(file, name),
            };
            if let (Brought::Name { name, .. }, Some(declaring)) = (&u.brought, &self.files[file])
                && declaring.declares(name)
                && !declaring.is_public(name)
            {
                return Err(Diagnostic::error(format!("`{name}` of `{}` is private", declaring.path))
                    .at(u.span, "")
                    .help("write `pub` before it there"));
            }
            if offered {
                self.add_module(at, module, file, u.span)?;
                self.add_item(at, module.clone(), &u.brought);
                return Ok(());
            }
        }
        if let Brought::Name { name, local } = &u.brought {
            let folder = path.clone();
            path.push(name.clone());
            // A file is no type.
            let is_type = name.chars().next().is_some_and(char::is_uppercase);
            if !is_type && let Some(file) = self.find(&path, place.origin, u.span, &mut tried)? {
                return self.add_module(at, local, file, u.span);
            }
            if let Some(file) = of_file {
                return Err(self.lacking(file, name, u.span, &folder));
            }
        }
        tried.extend(above);
        let error =
            Diagnostic::error(format!("there is no file `{}` beside this one", tried.join("` or `"))).at(u.span, "");
        let folder = tried.first().and_then(|name| name.rsplit_once('/')).map_or("", |(folder, _)| folder);
        let here = self.library.iter().filter(|name| name.rsplit_once('/').map_or("", |(of, _)| of) == folder);
        let here: Vec<&str> = here.map(String::as_str).collect();
        Err(match here.is_empty() {
            true => error,
            false => error.help(format!("built in are {}", listed(here))),
        })
    }

    /// The file at a path; it is read if this is the first time. None if there is none.
    fn find(
        &mut self,
        path: &[String],
        origin: Origin,
        span: Span,
        tried: &mut Vec<String>,
    ) -> Result<Option<usize>, Diagnostic> {
        let Some((module, folder)) = path.split_last() else { return Ok(None) };
        for name in file_names(module) {
            let name = folder.iter().map(String::as_str).chain([name.as_str()]).collect::<Vec<_>>().join("/");
            let asked = (name.clone(), origin);
            let found = match self.asked.get(&asked) {
                Some(found) => *found,
                None => {
                    let found = self.load(&name, folder, origin, span)?;
                    self.asked.insert(asked, found);
                    found
                }
            };
            if let Some(at) = found {
                self.refuse_circle(at, span)?;
                return Ok(Some(at));
            }
            tried.push(name);
        }
        Ok(None)
    }

    fn load(&mut self, name: &str, folder: &[String], origin: Origin, span: Span) -> Result<Option<usize>, Diagnostic> {
        let Some(Sibling { path, text, origin }) = (self.load)(name, origin) else { return Ok(None) };
        if let Some(at) = self.known.get(&(path.clone(), origin)) {
            return Ok(Some(*at));
        }
        if self.files.len() == MAX_FILES {
            return Err(Diagnostic::error(format!("a model of more than {MAX_FILES} files")).at(span, ""));
        }
        let source = self.sources.add(path.clone(), text);
        Ok(Some(self.read(path, Place { source, folder: folder.to_vec(), origin })))
    }

    fn refuse_circle(&self, at: usize, span: Span) -> Result<(), Diagnostic> {
        let Some(start) = self.open.iter().position(|open| *open == at) else { return Ok(()) };
        let paths = self.open[start..].iter().chain([&at]);
        let paths: Vec<&str> = paths.filter_map(|i| self.files[*i].as_ref()).map(|file| file.path.as_str()).collect();
        Err(Diagnostic::error("files use each other in a circle")
            .at(span, "this closes it")
            .note(format!("the circle is {}", paths.join(" -> ")))
            .help("what both need goes into a third file; a used file gets sizes by `instances!`"))
    }

    /// Whether a file declares a name or brings it in.
    fn offers(&self, at: usize, name: &str) -> bool {
        // One that does not parse has errors of its own.
        let Some(file) = &self.files[at] else { return true };
        let through = |module: &str| file.module(module).is_some_and(|(_, at)| self.offers(at, name));
        file.declares(name)
            || file.links.iter().any(|link| match link {
                Link::Module { local, .. } | Link::Item { local, .. } => local == name,
                Link::All { module } => through(module),
            })
    }

    fn lacking(&self, at: usize, name: &str, span: Span, folder: &[String]) -> Diagnostic {
        let Some(file) = &self.files[at] else { return foreign(span) };
        let mut error = Diagnostic::error(format!("`{}` declares no `{name}`", file.path)).at(span, "");
        if let Some(near) = nearest(name, file.names()) {
            error = error.help(format!("did you mean `{near}`?"));
        }
        let inside = format!("{}/{name}.mm", folder.join("/"));
        error.help(format!("it declares {}; there is no file `{inside}` either", listed(file.names())))
    }

    fn add_module(&mut self, at: usize, local: &str, of: usize, span: Span) -> Result<(), Diagnostic> {
        let Some(file) = &mut self.files[at] else { return Ok(()) };
        match file.module(local) {
            Some((_, known)) if known == of => Ok(()),
            Some((before, _)) => Err(Diagnostic::error(format!("two files are called `{local}` here"))
                .at(span, "the second")
                .at(before, "the first")
                .help("give one of them another name: `use .. as other;`")),
            None => {
                file.links.push(Link::Module { local: local.into(), file: of, span });
                Ok(())
            }
        }
    }

    fn add_item(&mut self, at: usize, module: String, brought: &Brought) {
        let link = match brought.clone() {
            Brought::Name { name, local } => Link::Item { local, name, module },
            Brought::All => Link::All { module },
        };
        self.files[at].iter_mut().for_each(|file| file.links.push(link.clone()));
    }
}

/// `wan2_2` is `wan2_2.mm`, or `wan2.2.mm`.
fn file_names(module: &str) -> Vec<String> {
    let chars: Vec<char> = module.chars().collect();
    let dotted: String = (0..chars.len())
        .map(|i| {
            let between_digits =
                i > 0 && chars[i - 1].is_ascii_digit() && chars.get(i + 1).is_some_and(char::is_ascii_digit);
            if chars[i] == '_' && between_digits { '.' } else { chars[i] }
        })
        .collect();
    let mut names = vec![format!("{module}.mm"), format!("{dotted}.mm")];
    names.dedup();
    names
}
