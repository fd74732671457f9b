//! What macros by example cannot do for .mm files: `#[derive(Module)]`, and the types of `config!`.

mod config;

use proc_macro::{TokenStream, TokenTree};

/// Marks a struct of a .mm file as a module, and lets its fields carry `#[name]` and `#[alias]`.
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

/// Where the `config.json` of a published class has the figures of the model: `THETA = rope_parameters.rope_theta |
/// rope_theta | 1e4` names keys, of which the first that is there counts, and last what the class takes where there is
/// none; `dim / num_heads` is the quotient of two keys.
///
/// A value that stands for another is looked up: `IMAGE = match model_type | "t2v" { "i2v" => 1280, "t2v" | "ti2v" => 0 }`. A
/// text without an arm is refused with those that have one; `_` takes the rest. With `"i2v" => 1280 | 0` a config does not
/// say which: it is 1280 unless it is set.
///
/// `expect(hidden_act | "silu" == "silu")` says what the model computes, whatever is set. Keys that change nothing are listed in
/// `ignore(use_cache, rope.*)`; `mmc` warns of others. Keys of a pipeline's index are `model_index.key`.
///
/// `"Class" in thinker_config { .. }` is a class that has the model as a part: keys are those of the part, `super.key` is one
/// outside. `rename("" = "thinker.")` says how its files write the beginning of names, `rename("model." =
/// "model.language_model." | "language_model.model.")` in several ways, of which the first is saved. `other_weights("^talker\\.")`
/// are tensors of its other parts, `ignore_weights("^mtp\\.")` those that the class itself passes over.
///
/// A config takes the place of a preset: `mmc compile DIR`. Weights beside a config that says otherwise are refused.
#[proc_macro]
pub fn config(input: TokenStream) -> TokenStream {
    config::checks(input)
}
