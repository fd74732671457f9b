//! `#[derive(Module)]`: marks a struct of a .mm file as a module, and lets its fields carry `#[name]` and `#[alias]`.

use proc_macro::{TokenStream, TokenTree};

#[proc_macro_derive(Module, attributes(name, alias))]
pub fn module(item: TokenStream) -> TokenStream {
    let mut tokens = item.into_iter();
    let struct_word = tokens.any(|t| matches!(&t, TokenTree::Ident(word) if word.to_string() == "struct"));
    match tokens.next() {
        Some(TokenTree::Ident(name)) if struct_word => {
            format!("impl ::mm::Module for {name} {{}}").parse().unwrap_or_default()
        }
        _ => "::core::compile_error!(\"a module is a struct\");".parse().unwrap_or_default(),
    }
}
