//! Brackets without a partner, found where they stand: the lexer only says that it came to the end.

use diag::{Diagnostic, SourceId, Span};

/// The first bracket that closes nothing, or the innermost that is never closed.
pub fn unbalanced(source: SourceId, text: &str) -> Option<Diagnostic> {
    let at = |i: usize, c: char| Span::new(source, i, i + c.len_utf8());
    let mut open: Vec<(usize, char)> = vec![];
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '/' if chars.peek().is_some_and(|(_, n)| *n == '/') => {
                chars.by_ref().find(|(_, c)| *c == '\n');
            }
            '"' => {
                let mut escaped = false;
                let end = chars.by_ref().find(|(_, c)| {
                    let ends = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                if end.is_none() {
                    return Some(Diagnostic::error("this text has no closing `\"`").at(at(i, c), "it starts here"));
                }
            }
            '(' | '[' | '{' => open.push((i, c)),
            ')' | ']' | '}' => match open.pop() {
                Some((_, o)) if partner(o) == c => {}
                Some((j, o)) => {
                    return Some(
                        Diagnostic::error(format!("`{o}` is closed by `{c}`"))
                            .at(at(i, c), format!("expected `{}`", partner(o)))
                            .at(at(j, o), "opened here"),
                    );
                }
                None => return Some(Diagnostic::error(format!("`{c}` closes nothing")).at(at(i, c), "")),
            },
            _ => {}
        }
    }
    let (i, c) = open.pop()?;
    Some(Diagnostic::error(format!("`{c}` is never closed")).at(at(i, c), ""))
}

fn partner(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}
