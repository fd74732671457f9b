//! Limits on the text of a file, checked before it is parsed: syn recurses as deep as its input nests.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

/// Bytes of one file.
const MAX_BYTES: usize = 1 << 20;
/// Brackets within brackets.
const MAX_NESTING: usize = 100;
/// Tokens on the way from the top of a file to any token, counted from the last `;`, `,` or block on each level.
const MAX_RUN: usize = 10_000;

/// Says what is too long.
pub fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the file has {} bytes, a model at most {MAX_BYTES}", text.len()));
    }
    Ok(())
}

/// Says what is too long or too deep, and where.
pub fn check_tokens(tokens: &TokenStream) -> Result<(), (String, Span)> {
    let mut levels = vec![Level { rest: tokens.clone().into_iter(), before: 0, block_ended: false }];
    let mut run = 0;
    while let Some(level) = levels.last_mut() {
        let Some(token) = level.rest.next() else {
            levels.pop();
            continue;
        };
        // A block ends what came before it, unless an `else` goes on.
        let goes_on = matches!(&token, TokenTree::Ident(word) if word == "else");
        if std::mem::take(&mut level.block_ended) && !goes_on {
            run = level.before;
        }
        run += 1;
        if run > MAX_RUN {
            let message = format!("an expression of more than {MAX_RUN} tokens; cut it up with `let`");
            return Err((message, token.span()));
        }
        match token {
            TokenTree::Punct(p) if matches!(p.as_char(), ';' | ',') => run = level.before,
            TokenTree::Group(group) => {
                level.block_ended = group.delimiter() == Delimiter::Brace;
                let opens = group.span_open();
                levels.push(Level { rest: group.stream().into_iter(), before: run, block_ended: false });
                if levels.len() > MAX_NESTING {
                    return Err((format!("brackets nest deeper than {MAX_NESTING}"), opens));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

struct Level {
    rest: proc_macro2::token_stream::IntoIter,
    /// Tokens counted before this bracket opened.
    before: usize,
    block_ended: bool,
}
