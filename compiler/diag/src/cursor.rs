//! Where a reader of a text form is: words, numbers and values in JSON, and errors with a byte range, so that they can be
//! shown in the listing.

use std::ops::Range;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::{Diagnostic, SourceId, Span};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    pub message: String,
    pub at: Range<usize>,
}

impl ParseError {
    /// The error in the listing, which `source` holds.
    pub fn diagnostic(&self, source: SourceId) -> Diagnostic {
        Diagnostic::error(self.message.as_str()).at(Span::new(source, self.at.start, self.at.end), "")
    }
}

pub type Parsed<T> = Result<T, ParseError>;

pub struct Cursor<'t> {
    pub text: &'t str,
    pub at: usize,
}

impl<'t> Cursor<'t> {
    pub const fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    pub fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Goes over space and comments.
    pub fn skip(&mut self) {
        loop {
            let trimmed = self.rest().trim_start();
            self.at = self.text.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    pub fn at_end(&mut self) -> bool {
        self.skip();
        self.rest().is_empty()
    }

    /// Takes a token; one that ends in a letter is a whole word.
    pub fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let Some(rest) = self.rest().strip_prefix(token) else { return false };
        let is_word = token.ends_with(|c: char| c.is_alphanumeric());
        if is_word && rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return false;
        }
        self.at += token.len();
        true
    }

    pub fn fail<T>(&self, start: usize, message: impl Into<String>) -> Parsed<T> {
        // At least one character, so that there is something to point at.
        let one = self.text[start..].chars().next().map_or(0, char::len_utf8);
        let end = start + self.text[start..self.at.max(start)].trim_end().len().max(one);
        Err(ParseError { message: message.into(), at: start..end })
    }

    pub fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) {
            return Ok(());
        }
        let found: String = self.rest().chars().take(12).take_while(|c| *c != '\n').collect();
        self.fail(self.at, format!("expected `{token}`, found `{found}`"))
    }

    /// The letter before a number.
    pub fn prefix(&mut self, letter: char) -> Parsed<()> {
        self.skip();
        if self.rest().starts_with(letter) {
            self.at += letter.len_utf8();
            return Ok(());
        }
        self.expect(&letter.to_string())
    }

    pub fn take(&mut self, f: impl Fn(char) -> bool) -> &'t str {
        self.skip();
        let rest = self.rest();
        let end = rest.find(|c| !f(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    pub fn word(&mut self) -> Parsed<&'t str> {
        self.skip();
        let start = self.at;
        let word = self.take(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if word.is_empty() { self.fail(start, "expected a name") } else { Ok(word) }
    }

    pub fn number<T: FromStr>(&mut self) -> Parsed<T> {
        self.skip();
        let start = self.at;
        let digits = self.take(|c| c.is_ascii_digit());
        digits.parse().or_else(|_| self.fail(start, "expected a whole number"))
    }

    pub fn signed(&mut self) -> Parsed<i64> {
        let negative = self.eat("-");
        let number: i64 = self.number()?;
        Ok(if negative { -number } else { number })
    }

    pub fn json<T: DeserializeOwned>(&mut self) -> Parsed<T> {
        self.skip();
        let start = self.at;
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                self.at += values.byte_offset();
                Ok(value)
            }
            Some(Err(e)) => self.fail(start, format!("{e}")),
            None => self.fail(start, "expected a value in JSON"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_where_they_end_and_errors_point_at_something() {
        let mut p = Cursor::new("  // a comment\n unit3 units 7 {\"a\": 1} nul\u{e9}");
        assert!(!p.eat("un") && p.eat("unit3") && !p.eat("unit") && p.eat("units"));
        assert_eq!(p.number(), Ok(7));
        assert_eq!(p.json(), Ok(serde_json::json!({"a": 1})));
        let start = p.at + 1;
        let error = p.json::<serde_json::Value>().expect_err("no JSON");
        assert_eq!(error.at, start..start + 1);
        assert!(Cursor::new("").json::<u8>().is_err_and(|e| e.message == "expected a value in JSON" && e.at == (0..0)));
    }
}
