//! `config!`: its names, values and arms as Rust that rustc type-checks; keys of configs are no names of Rust.

use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// For each class its entries, checked where they stand.
pub fn checks(input: TokenStream) -> TokenStream {
    let mut checks = TokenStream::new();
    for class in parts(input, ',') {
        // `"Class" { .. }` or `"Class" in part { .. }`.
        let Some(TokenTree::Group(body)) = class.last() else { continue };
        parts(body.stream(), ',').into_iter().for_each(|entry| checks.extend(check(&entry)));
    }
    let body = TokenTree::Group(Group::new(Delimiter::Brace, checks));
    let mut whole: TokenStream = "const _: fn() = ||".parse().unwrap_or_default();
    whole.extend([body, punct(';', Span::call_site())]);
    whole
}

/// `NAME = keys | default` sets the default, `NAME = match keys { arms }` what the arms have, `expect(keys == value)` has
/// a value.
fn check(entry: &[TokenTree]) -> TokenStream {
    if let [TokenTree::Ident(word), TokenTree::Group(inside)] = entry {
        return match word.to_string().as_str() {
            "expect" => expected(inside.stream()),
            _ => TokenStream::new(),
        };
    }
    let Some(at) = entry.iter().position(|t| is_punct(t, '=')) else { return TokenStream::new() };
    let (name, source) = (entry[..at].iter().cloned().collect::<TokenStream>(), &entry[at + 1..]);
    match value(source, &name) {
        Some(value) => call("::mm::Setting::set", name, value),
        None => call("::mm::named", name, TokenStream::new()),
    }
}

/// The value of `keys == value`.
fn expected(inside: TokenStream) -> TokenStream {
    let tokens: Vec<TokenTree> = inside.into_iter().collect();
    let equal = tokens.windows(2).position(|pair| is_punct(&pair[0], '=') && is_punct(&pair[1], '='));
    let Some(at) = equal else { return TokenStream::new() };
    let mut bound: TokenStream = "let _ =".parse().unwrap_or_default();
    bound.extend(tokens[at + 2..].iter().cloned().chain([punct(';', Span::call_site())]));
    bound
}

/// What `keys | default` or `match keys { arms }` gives, if it has a value of its own.
fn value(source: &[TokenTree], name: &TokenStream) -> Option<TokenStream> {
    let span = source.first()?.span();
    if let (Some(TokenTree::Ident(word)), Some(TokenTree::Group(arms))) = (source.first(), source.last())
        && word.to_string() == "match"
    {
        let mut said: TokenStream = "::mm::said()".parse().unwrap_or_default();
        let mut body = TokenStream::new();
        for arm in parts(arms.stream(), ',') {
            body.extend(of_arm(&arm, name));
            body.extend([punct(',', span)]);
        }
        // Rust wants an arm for every text; a text that has none is refused when a config is read.
        body.extend("_ => ::mm::said(),".parse::<TokenStream>().unwrap_or_default());
        said.extend([TokenTree::Group(Group::new(Delimiter::Brace, body))]);
        let mut whole = TokenStream::from(TokenTree::Ident(Ident::new("match", word.span())));
        whole.extend(said);
        return Some(whole);
    }
    let last = source.rsplit(|t| is_punct(t, '|')).next()?;
    let is_value = match last.first()? {
        TokenTree::Ident(word) => ["true", "false"].contains(&word.to_string().as_str()),
        TokenTree::Group(list) => list.delimiter() == Delimiter::Bracket,
        TokenTree::Literal(_) => true,
        TokenTree::Punct(sign) => sign.as_char() == '-',
    };
    is_value.then(|| last.iter().cloned().collect())
}

/// `pattern => value`; of several values, `pattern => { set each of the others; the last }`.
fn of_arm(arm: &[TokenTree], name: &TokenStream) -> TokenStream {
    let arrow = arm.windows(2).position(|pair| is_punct(&pair[0], '=') && is_punct(&pair[1], '>'));
    let Some(at) = arrow.map(|at| at + 2) else { return arm.iter().cloned().collect() };
    let values: Vec<TokenStream> =
        arm[at..].split(|t| is_punct(t, '|')).map(|value| value.iter().cloned().collect()).collect();
    let mut whole: TokenStream = arm[..at].iter().cloned().collect();
    match values.as_slice() {
        [others @ .., last] if !others.is_empty() => {
            let mut body: TokenStream =
                others.iter().flat_map(|value| call("::mm::Setting::set", name.clone(), value.clone())).collect();
            body.extend(last.clone());
            whole.extend([TokenTree::Group(Group::new(Delimiter::Brace, body))]);
        }
        _ => whole.extend(values),
    }
    whole
}

/// `path(&name, value);`, with errors told at the name.
fn call(path: &str, name: TokenStream, value: TokenStream) -> TokenStream {
    let span = name.clone().into_iter().next().map_or(Span::call_site(), |t| t.span());
    let mut arguments = TokenStream::from(punct('&', span));
    arguments.extend(name);
    if !value.is_empty() {
        arguments.extend([punct(',', span)]);
        arguments.extend(value);
    }
    let mut called: TokenStream = "#[allow(unreachable_patterns)]".parse().unwrap_or_default();
    let path: TokenStream = path.parse().unwrap_or_default();
    called.extend(path.into_iter().map(|mut t| {
        t.set_span(span);
        t
    }));
    let mut group = Group::new(Delimiter::Parenthesis, arguments);
    group.set_span(span);
    called.extend([TokenTree::Group(group), punct(';', span)]);
    called
}

/// What stands between punctuation marks of one kind.
fn parts(tokens: TokenStream, mark: char) -> Vec<Vec<TokenTree>> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let parts = tokens.split(|t| is_punct(t, mark)).map(<[TokenTree]>::to_vec);
    parts.filter(|part| !part.is_empty()).collect()
}

fn is_punct(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(p) if p.as_char() == mark)
}

fn punct(mark: char, span: Span) -> TokenTree {
    let mut mark = Punct::new(mark, Spacing::Alone);
    mark.set_span(span);
    TokenTree::Punct(mark)
}
