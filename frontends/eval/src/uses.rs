//! `use`, as it is written: from where, along which path, and what is brought in.

use diag::{Diagnostic, SourceId, Span};
use syn::UseTree;

use crate::span::span_of;

/// One name that a `use` brings in, or all of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Use {
    pub from: From,
    /// Folders and the file, or a file's local name, before what is brought in.
    pub path: Vec<String>,
    pub brought: Brought,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    /// `super::` this many times: once is the folder of the file.
    Above(usize),
    /// `crate::`: the folder of the model.
    Model,
    /// `self::`, or no such word: what the file has brought in already.
    Here,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Brought {
    Name { name: String, local: String },
    All,
}

/// The uses of one `use`; those of the vocabulary are none.
pub fn read(source: SourceId, tree: &UseTree) -> Result<Vec<Use>, Diagnostic> {
    let mut out = vec![];
    flatten(source, tree, &mut vec![], &mut out)?;
    Ok(out)
}

fn flatten(source: SourceId, tree: &UseTree, path: &mut Vec<String>, out: &mut Vec<Use>) -> Result<(), Diagnostic> {
    let span = span_of(source, tree);
    let named = |name: String, local: String| Brought::Name { name, local };
    let brought = match tree {
        UseTree::Path(p) => {
            path.push(p.ident.to_string());
            let result = flatten(source, &p.tree, path, out);
            path.pop();
            return result;
        }
        UseTree::Group(group) => return group.items.iter().try_for_each(|t| flatten(source, t, path, out)),
        UseTree::Name(n) => named(n.ident.to_string(), n.ident.to_string()),
        UseTree::Rename(r) => named(r.ident.to_string(), r.rename.to_string()),
        UseTree::Glob(_) => Brought::All,
        #[allow(unreachable_patterns)]
        _ => return Err(Diagnostic::error("this form of `use` is not in the subset").at(span, "")),
    };
    if path.first().is_some_and(|first| first == "mm") {
        return Ok(());
    }
    let (mut path, mut brought) = (path.clone(), brought);
    // `use a::{self as b}` brings in `a` itself.
    if let Brought::Name { name, local } = &brought
        && name == "self"
        && let Some(own) = path.pop()
    {
        let local = if local == "self" { own.clone() } else { local.clone() };
        brought = named(own, local);
    }
    let words = path.iter().take_while(|word| matches!(word.as_str(), "super" | "crate" | "self")).count();
    let rest = path.split_off(words);
    let words: Vec<&str> = path.iter().map(String::as_str).collect();
    let from = match words.as_slice() {
        ["crate"] => From::Model,
        [] | ["self"] => From::Here,
        ["self", above @ ..] | above if above.iter().all(|word| *word == "super") => From::Above(above.len()),
        _ => return Err(foreign(span)),
    };
    if from == From::Here && rest.is_empty() {
        return Err(foreign(span));
    }
    out.push(Use { from, path: rest, brought, span });
    Ok(())
}

/// A `use` of what is neither the vocabulary nor a file.
pub fn foreign(span: Span) -> Diagnostic {
    Diagnostic::error("a .mm file uses the vocabulary and its siblings only")
        .at(span, "")
        .help("write `use mm::prelude::*;`, `use super::other::Name;` or `use super::layers::other;`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Result<Vec<String>, String> {
        let item: syn::ItemUse = syn::parse_str(text).expect("a `use`");
        let found = read(diag::Sources::default().add("net.mm", text), &item.tree).map_err(|e| e.message)?;
        let shown = |u: Use| {
            let brought = match u.brought {
                Brought::Name { name, local } => format!("{name} as {local}"),
                Brought::All => "*".into(),
            };
            format!("{:?} {} {brought}", u.from, u.path.join("/"))
        };
        Ok(found.into_iter().map(shown).collect())
    }

    #[test]
    fn every_form_is_read() {
        let check = |text: &str, expect: &[&str]| assert_eq!(read_all(text).expect(text), expect, "{text}");
        check("use mm::prelude::*;", &[]);
        check("use super::other::Name;", &["Above(1) other Name as Name"]);
        check("use super::layers::vision as visual;", &["Above(1) layers vision as visual"]);
        check(
            "use super::{vit::Vit, llm::{Llm, run as go}};",
            &["Above(1) vit Vit as Vit", "Above(1) llm Llm as Llm", "Above(1) llm run as go"],
        );
        check("use super::vit::{self, Vit};", &["Above(1)  vit as vit", "Above(1) vit Vit as Vit"]);
        check("use super::vit::{self as tower};", &["Above(1)  vit as tower"]);
        check("use crate::layers::norm::*;", &["Model layers/norm *"]);
        check("use super::super::wan::T;", &["Above(2) wan T as T"]);
        check("use self::visual::Tower;", &["Here visual Tower as Tower"]);
        check("use visual::Tower;", &["Here visual Tower as Tower"]);
    }

    #[test]
    fn what_leads_to_no_file_is_refused() {
        for text in ["use Tower;", "use super::crate::x;", "use crate::super::x;"] {
            assert!(read_all(text).is_err(), "{text}");
        }
    }
}
