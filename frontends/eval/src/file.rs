//! One parsed .mm file: its dims, presets, constants, structs and functions by name.

use diag::{Diagnostic, SourceId, Span};
use indexmap::IndexMap;
use rustc_hash::FxHashMap;
use syn::visit::Visit;
use syn::{Expr, Ident, Item, Type};

use crate::config::{ClassConfig, parse_config};
use crate::macros::{
    DimDeclaration, Preset, Settings, TensorContract, parse_aliases, parse_contract, parse_dims, parse_instances,
    parse_owners, parse_presets,
};
use crate::span::{span_in, span_of};
use crate::uses::{self, Use};

pub struct File {
    pub source: SourceId,
    /// As messages call it.
    pub path: String,
    pub dims: IndexMap<String, DimDeclaration>,
    pub presets: Vec<Preset>,
    pub configs: Vec<ClassConfig>,
    /// Inputs of tasks with the other names that data may have for them.
    pub aliases: Vec<(Ident, Ident)>,
    /// Ragged axes with whose the rows along them are.
    pub owners: Vec<(Ident, Expr)>,
    pub constants: IndexMap<String, syn::ItemConst>,
    pub structs: IndexMap<String, StructDeclaration>,
    pub functions: IndexMap<String, syn::ItemFn>,
    /// What it gives the dims and constants of the instances that it uses.
    pub instances: Vec<Settings>,
    pub uses: Vec<Use>,
    /// What its uses bring in, once they are found.
    pub links: Vec<Link>,
    /// Every `Tensor![..]` in a type, by where its macro starts.
    pub contracts: FxHashMap<u32, TensorContract>,
}

/// What a `use` brings into a file. Of a module, each file that uses it has an instance of its own.
#[derive(Clone, Debug)]
pub enum Link {
    /// The file of that number, by its name here.
    Module { local: String, file: usize, span: Span },
    /// An item of a module.
    Item { local: String, name: String, module: String },
    /// All items of a module.
    All { module: String },
}

pub struct StructDeclaration {
    pub name: String,
    /// Has `#[derive(Module)]`: its fields name parameters, and its methods become functions of the graph.
    pub module: bool,
    pub fields: Vec<FieldDeclaration>,
    pub methods: IndexMap<String, syn::ImplItemFn>,
    pub public: bool,
    pub span: Span,
}

pub struct FieldDeclaration {
    pub ident: String,
    pub ty: Type,
    /// The checkpoint's name of this part of the path.
    pub name: String,
    /// The name in the original release, where it differs.
    pub alias: Option<String>,
}

impl File {
    pub fn parse(source: SourceId, path: &str, text: &str) -> Result<File, Vec<Diagnostic>> {
        let whole = Span::new(source, 0, 0);
        crate::bounds::check_text(text).map_err(|message| vec![Diagnostic::error(message).at(whole, "")])?;
        let tokens: proc_macro2::TokenStream = text.parse().map_err(|e: proc_macro2::LexError| {
            vec![crate::brackets::unbalanced(source, text).unwrap_or_else(|| {
                let end = span_in(source, e.span());
                Diagnostic::error("this is no text of Rust tokens").at(end, "")
            })]
        })?;
        crate::bounds::check_tokens(&tokens)
            .map_err(|(message, at)| vec![Diagnostic::error(message).at(span_in(source, at), "")])?;
        let parsed = syn::parse2::<syn::File>(tokens)
            .map_err(|e| e.into_iter().map(|e| syntax_error(source, e.span(), &e.to_string())).collect::<Vec<_>>())?;
        let mut file = File {
            source,
            path: path.into(),
            dims: IndexMap::new(),
            presets: vec![],
            configs: vec![],
            aliases: vec![],
            owners: vec![],
            constants: IndexMap::new(),
            structs: IndexMap::new(),
            functions: IndexMap::new(),
            instances: vec![],
            uses: vec![],
            links: vec![],
            contracts: FxHashMap::default(),
        };
        let mut collector = Contracts { source, found: FxHashMap::default(), errors: vec![] };
        collector.visit_file(&parsed);
        file.contracts = collector.found;
        let mut errors = collector.errors;
        let mut impls = vec![];
        for item in parsed.items {
            if let Err(e) = file.add(item, &mut impls) {
                errors.push(e);
            }
        }
        for block in impls {
            if let Err(e) = file.add_impl(block) {
                errors.push(e);
            }
        }
        if errors.is_empty() { Ok(file) } else { Err(errors) }
    }

    fn add(&mut self, item: Item, impls: &mut Vec<syn::ItemImpl>) -> Result<(), Diagnostic> {
        let source = self.source;
        let span = span_of(source, &item);
        match item {
            Item::Const(item) => {
                self.fresh(&item.ident)?;
                self.constants.insert(item.ident.to_string(), item);
            }
            Item::Struct(item) => {
                self.fresh(&item.ident)?;
                let declared = struct_declaration(source, &item)?;
                self.structs.insert(declared.name.clone(), declared);
            }
            Item::Fn(item) => {
                self.fresh(&item.sig.ident)?;
                check_signature(source, &item.sig)?;
                self.functions.insert(item.sig.ident.to_string(), item);
            }
            Item::Impl(item) => impls.push(item),
            Item::Use(item) => self.uses.extend(uses::read(source, &item.tree)?),
            Item::Macro(item) if item.mac.path.is_ident("dims") => {
                for d in parse_dims(source, span, item.mac.tokens)? {
                    self.fresh(&d.ident)?;
                    self.dims.insert(d.ident.to_string(), d);
                }
            }
            Item::Macro(item) if item.mac.path.is_ident("presets") => {
                self.presets.extend(parse_presets(source, span, item.mac.tokens)?);
            }
            Item::Macro(item) if item.mac.path.is_ident("instances") => {
                self.instances.extend(parse_instances(source, span, item.mac.tokens)?);
            }
            Item::Macro(item) if item.mac.path.is_ident("config") => {
                self.configs.extend(parse_config(source, span, item.mac.tokens)?);
            }
            Item::Macro(item) if item.mac.path.is_ident("aliases") => {
                self.aliases.extend(parse_aliases(source, span, item.mac.tokens)?);
            }
            Item::Macro(item) if item.mac.path.is_ident("owners") => {
                self.owners.extend(parse_owners(source, span, item.mac.tokens)?);
            }
            other => return Err(unsupported_item(span, &other)),
        }
        Ok(())
    }

    fn add_impl(&mut self, block: syn::ItemImpl) -> Result<(), Diagnostic> {
        let span = span_of(self.source, &block.self_ty);
        if block.trait_.is_some() {
            return Err(Diagnostic::error("traits are not in the subset of .mm files")
                .at(span, "")
                .help("write the methods in a plain `impl` block"));
        }
        let name = match &*block.self_ty {
            Type::Path(p) => p.path.get_ident().map(ToString::to_string),
            _ => None,
        };
        let declared = name.as_ref().and_then(|n| self.structs.get_mut(n)).ok_or_else(|| {
            Diagnostic::error("an `impl` block for a type that this file does not declare").at(span, "no such struct")
        })?;
        for item in block.items {
            let at = span_of(self.source, &item);
            let syn::ImplItem::Fn(method) = item else {
                return Err(Diagnostic::error("an `impl` block holds only functions").at(at, ""));
            };
            check_signature(self.source, &method.sig)?;
            let at = span_of(self.source, &method.sig.ident);
            if declared.methods.insert(method.sig.ident.to_string(), method).is_some() {
                return Err(Diagnostic::error("a method is declared twice").at(at, ""));
            }
        }
        Ok(())
    }

    /// Public functions that are no plan.
    pub fn tasks(&self) -> Vec<&str> {
        let public = |f: &&syn::ItemFn| matches!(f.vis, syn::Visibility::Public(_)) && f.sig.ident != "plan";
        self.functions.iter().filter(|(_, f)| public(f)).map(|(n, _)| n.as_str()).collect()
    }

    pub fn declares(&self, name: &str) -> bool {
        self.dims.contains_key(name)
            || self.constants.contains_key(name)
            || self.structs.contains_key(name)
            || self.functions.contains_key(name)
    }

    /// Whether other files may name what it declares: all dims, and what is `pub`.
    pub fn is_public(&self, name: &str) -> bool {
        let public = |vis: &syn::Visibility| matches!(vis, syn::Visibility::Public(_));
        self.dims.contains_key(name)
            || self.constants.get(name).is_some_and(|item| public(&item.vis))
            || self.structs.get(name).is_some_and(|item| item.public)
            || self.functions.get(name).is_some_and(|item| public(&item.vis))
    }

    /// Every name that it declares.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let numbers = self.dims.keys().chain(self.constants.keys());
        numbers.chain(self.structs.keys()).chain(self.functions.keys()).map(String::as_str)
    }

    /// Where the module of this name is brought in, and the number of its file.
    pub fn module(&self, name: &str) -> Option<(Span, usize)> {
        self.links.iter().find_map(|link| match link {
            Link::Module { local, file, span } if local == name => Some((*span, *file)),
            _ => None,
        })
    }

    fn fresh(&self, ident: &Ident) -> Result<(), Diagnostic> {
        let name = ident.to_string();
        if !self.declares(&name) {
            return Ok(());
        }
        Err(Diagnostic::error(format!("`{name}` is declared twice")).at(span_of(self.source, ident), "the second time"))
    }
}

struct Contracts {
    source: SourceId,
    found: FxHashMap<u32, TensorContract>,
    errors: Vec<Diagnostic>,
}

impl Visit<'_> for Contracts {
    fn visit_type_macro(&mut self, ty: &syn::TypeMacro) {
        let span = span_of(self.source, ty);
        if !ty.mac.path.is_ident("Tensor") && !ty.mac.path.is_ident("State") {
            let error = Diagnostic::error("the macros of types are `Tensor![..]` and `State![..]`").at(span, "");
            return self.errors.push(error);
        }
        match parse_contract(self.source, span, ty.mac.tokens.clone()) {
            Ok(contract) => drop(self.found.insert(span.start, contract)),
            Err(error) => self.errors.push(error),
        }
    }
}

fn syntax_error(source: SourceId, span: proc_macro2::Span, message: &str) -> Diagnostic {
    Diagnostic::error(format!("this is not Rust syntax: {message}")).at(span_in(source, span), "")
}

fn unsupported_item(span: Span, item: &Item) -> Diagnostic {
    let (what, instead) = match item {
        Item::Enum(_) => ("enums", "choose with a constant: `const KIND: &str = one_of([\"a\", \"b\"]);`"),
        Item::Trait(_) | Item::TraitAlias(_) => ("traits", "write the methods in a plain `impl` block"),
        Item::Static(_) => ("statics", "write `const`"),
        Item::Mod(_) => ("modules", "a file is a module: move it to a sibling .mm file and `use` it"),
        Item::Macro(_) => (
            "macros other than `dims!`, `instances!`, `presets!`, `config!`, `aliases!` and `owners!`",
            "write a function",
        ),
        Item::Type(_) => ("type aliases", "write the type itself"),
        _ => (
            "such items",
            "a file holds `use`, `dims!`, `instances!`, `presets!`, `config!`, `aliases!`, `owners!`, `const`, structs, `impl` blocks and functions",
        ),
    };
    Diagnostic::error(format!("{what} are not in the subset of .mm files")).at(span, "").help(instead)
}

fn check_signature(source: SourceId, sig: &syn::Signature) -> Result<(), Diagnostic> {
    if sig.generics.params.is_empty() && sig.asyncness.is_none() && sig.variadic.is_none() {
        return Ok(());
    }
    Err(Diagnostic::error("functions of .mm files have no generic parameters")
        .at(span_of(source, sig), "")
        .help("a dim that is new at each call is declared `T: free` in `dims!`"))
}

fn struct_declaration(source: SourceId, item: &syn::ItemStruct) -> Result<StructDeclaration, Diagnostic> {
    let name = item.ident.to_string();
    let span = span_of(source, &item.ident);
    let mut module = false;
    for attribute in item.attrs.iter().filter(|a| a.path().is_ident("derive")) {
        let derived = |meta: syn::meta::ParseNestedMeta<'_>| {
            module |= meta.path.is_ident("Module");
            Ok(())
        };
        attribute.parse_nested_meta(derived).map_err(|e| syntax_error(source, e.span(), &e.to_string()))?;
    }
    let syn::Fields::Named(named) = &item.fields else {
        return Err(Diagnostic::error(format!("`{name}` has no named fields"))
            .at(span, "")
            .help("write `struct Name { field: Type }`"));
    };
    let mut fields = vec![];
    for field in &named.named {
        let ident = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let name = attribute_text(source, field, "name")?.unwrap_or_else(|| ident.clone());
        let alias = attribute_text(source, field, "alias")?;
        fields.push(FieldDeclaration { ident, ty: field.ty.clone(), name, alias });
    }
    let public = matches!(item.vis, syn::Visibility::Public(_));
    Ok(StructDeclaration { name, module, fields, methods: IndexMap::new(), public, span })
}

fn attribute_text(source: SourceId, field: &syn::Field, name: &str) -> Result<Option<String>, Diagnostic> {
    let Some(attribute) = field.attrs.iter().find(|a| a.path().is_ident(name)) else { return Ok(None) };
    if let syn::Meta::NameValue(pair) = &attribute.meta
        && let Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value
    {
        return Ok(Some(text.value()));
    }
    Err(Diagnostic::error(format!("`{name}` takes a string"))
        .at(span_of(source, attribute), "")
        .help(format!("write `#[{name} = \"..\"]`")))
}
